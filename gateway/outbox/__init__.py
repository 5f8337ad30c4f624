"""The queue of events for the cloud: entries, written in the transaction of the fact they report.

`entries` has the rules and the queue, `held` the images that wait for a person, `overview` the counts, `changed_exams`
the exams to be judged again, `owner` the part that worklist and archive share.
"""

from gateway.outbox.entries import SCHEMA, Entry, NewEntry, Outbox
from gateway.outbox.held import Held
from gateway.outbox.owner import Owner

__all__ = ["SCHEMA", "Entry", "Held", "NewEntry", "Outbox", "Owner"]
