"""What the site owes the cloud: entries, written in the transaction of the fact they tell of.

`entries` has the rules and the queue, `held` what waits for a person, `overview` the counts, `changed_exams` the exams
to be judged anew.
"""

from gateway.outbox.entries import SCHEMA, Entry, Outbox
from gateway.outbox.held import Held

__all__ = ["SCHEMA", "Entry", "Held", "Outbox"]
