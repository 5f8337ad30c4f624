"""Forwarding to site archives (C-STORE SCU): what becomes of a row of the queue, and when it is tried
again. Pure.

The rules:

* Every instance that is stored is owed to each target, by a trigger of the database in the transaction that enters it.
  So whatever kills the process, nothing that is stored is forgotten, and nothing is sent that is not stored.
* A row of the queue is open, delivered or parked. It is delivered when the target answers 0000 or a warning: it has
  the object then. Parked is what can never succeed as it is, with the reason, until a person releases it: the target
  takes no form of the class, or says that it will not have this very object (`NEVER`).
* Everything else will pass, and there is no last attempt: pauses double up to ten minutes, each shortened at random
  so that gateways that lost one archive at the same moment do not come back at the same moment.
* Of one study nothing overtakes what was received before; what is parked no longer holds it up. Different studies and
  different targets do not wait for one another. An object on which a target breaks off, or for which it has no room, is
  postponed by itself, and its study comes after the others then, so that it cannot keep them back for ever.
* What was sent and not noted, because the process died in between, is sent once more; archives know its UID.

Not here: statements (`queue_rows`), threads and calls (`sender`), which form an object is sent in (`retrieve`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from gateway.dicom.dimse import Command
from gateway.dicom.requestor import MOST_CONTEXTS, described
from gateway.errors import NotAcceptable, Refusal
from pacs.archive.archive import Stored
from pacs.query_retrieve.retrieve import SendOutcome, StoreDestination, form, outcome, outgoing

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=10)

MOST_KINDS = MOST_CONTEXTS // 3
"""Pairs of class and transfer syntax of one association, since each may also need two contexts for uncompressed."""

NEVER = frozenset({0x0111, 0x0117, 0x0122})
"""Duplicate or invalid SOP instance, class not supported (PS3.7 Annex C). And A9xx and Cxxx: the data set does not
match the class, cannot be understood (PS3.4 B.2.3)."""


class Fate(Enum):
    """What becomes of a row after an attempt."""

    DELIVERED = auto()
    PARKED = auto()
    POSTPONED = auto()
    """Its own file is in the way."""
    NOT_NOW = auto()
    """The target is: it has no room, is not well or broke off."""


ANSWERED = (Fate.DELIVERED, Fate.PARKED)
"""With these a target is well, and the next object may follow."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One instance that is owed to one target. `is_damaged`: its file is known not to be what was received."""

    id: int
    study_id: int
    sop_instance_uid: str
    attempts: int
    is_damaged: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of a row, and why unless all is well."""

    row: QueueRow
    fate: Fate
    reason: str = ""


def pause(attempts: int, spread: float) -> timedelta:
    """How long to wait after so many attempts, at least one; `spread` from 0 to 1 chooses from the upper half of it."""
    return min(FIRST_PAUSE * (1 << min(attempts - 1, 16)), LONGEST_PAUSE) * (0.5 + spread / 2)


def batch(ready: Iterable[tuple[QueueRow, Stored]]) -> Iterator[tuple[QueueRow, Stored]]:
    """As many from the beginning as one association has presentation contexts for."""
    kinds: set[tuple[str, str]] = set()
    for row, stored in ready:
        kinds.add((stored.sop_class_uid, stored.transfer_syntax_uid))
        if len(kinds) > MOST_KINDS:
            return
        yield row, stored


def attempt(row: QueueRow, stored: Stored, target: StoreDestination) -> Settled:
    """Send one object, and say what that makes of the row. Raises PeerError when the target is lost."""
    if row.is_damaged:
        return Settled(row, Fate.POSTPONED, "Its file is damaged, see 'gateway fsck --hashes'.")
    try:
        with outgoing(stored, form(stored.transfer_syntax_uid, target.syntaxes(stored.sop_class_uid))) as one:
            answer = target.store(one)
    except NotAcceptable as error:
        return Settled(row, Fate.PARKED, str(error))
    except (Refusal, OSError) as error:  # a file that is missing may come again, a volume that is away too
        return Settled(row, Fate.POSTPONED, str(error))
    return judged(row, answer)


def judged(row: QueueRow, answer: Command) -> Settled:
    """What the response to a C-STORE makes of a row (PS3.4 B.2.3)."""
    became = outcome(answer)
    if became is not SendOutcome.FAILED:
        return Settled(row, Fate.DELIVERED, f"Taken with {described(answer)}." if became is SendOutcome.WARNING else "")
    status = answer.status or 0
    is_final = status in NEVER or status >> 8 == 0xA9 or status >> 12 == 0xC
    reason = f"The object was answered with {described(answer)}."
    return Settled(row, Fate.PARKED if is_final else Fate.NOT_NOW, reason)
