"""What the site owes the cloud: entries, written in the transaction of the fact they tell of.

`entries` has the rules and the queue, `held` what waits for a person, `overview` the counts, `changed_exams` the exams
to be judged anew, `owner` what the owners of a database with an outbox have in common.
"""

from gateway.outbox.entries import SCHEMA, Entry, NewEntry, Outbox
from gateway.outbox.held import Held
from gateway.outbox.owner import Owner

__all__ = ["SCHEMA", "Entry", "Held", "NewEntry", "Outbox", "Owner"]
