"""The rules of forwarding to site archives (C-STORE SCU): the fate of a queue row, and its next attempt. Pure.

* Every stored instance has a row for each target.
* A row is open, delivered or parked. It is delivered when the target answers 0000 or a warning.
* It is parked, until a person releases it, when the target accepts no form of the class or refuses this very object
  for good (`NEVER`).
* Every other failure is tried again, without a last attempt.
* Instances of one study keep their order; parked ones no longer hold up the rest. Studies and targets do not wait for
  one another.
* A row whose outcome was not recorded, because the process died, is sent once more.

Not for: statements (`queue_rows`), threads and calls (`sender`), the form of an object (`retrieve`).
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

# Pauses double from the first to the longest.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=10)

MOST_KINDS = MOST_CONTEXTS // 3
"""Pairs of class and transfer syntax of one association, since each may also need two contexts for uncompressed."""

NEVER = frozenset({0x0111, 0x0117, 0x0122})
"""Duplicate or invalid SOP instance, class not supported (PS3.7 Annex C). A9xx and Cxxx count as well: the data set
does not match the class, or cannot be understood (PS3.4 B.2.3)."""


class Fate(Enum):
    """The fate of a row after an attempt."""

    DELIVERED = auto()
    PARKED = auto()
    POSTPONED = auto()
    """Its own file is missing, damaged or not readable."""
    NOT_NOW = auto()
    """The target has no room, fails or broke off."""


ANSWERED = (Fate.DELIVERED, Fate.PARKED)
"""With these the target works, and the next object may follow."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """One instance to be sent to one target. `is_damaged`: its file is known to differ from what was received."""

    id: int
    study_id: int
    sop_instance_uid: str
    attempts: int
    is_damaged: bool


@dataclass(frozen=True, slots=True)
class Settled:
    """The fate of a row, and the reason unless it was taken without a warning."""

    row: QueueRow
    fate: Fate
    reason: str = ""


def pause(attempts: int, spread: float) -> timedelta:
    """The pause after so many attempts, at least one; `spread` from 0 to 1 chooses from the upper half of it."""
    # Shortened at random, because gateways that lost one archive at the same moment must not all come back at once.
    return min(FIRST_PAUSE * (1 << min(attempts - 1, 16)), LONGEST_PAUSE) * (0.5 + spread / 2)


def batch(ready: Iterable[tuple[QueueRow, Stored]]) -> Iterator[tuple[QueueRow, Stored]]:
    """The first rows, as many as one association has presentation contexts for."""
    kinds: set[tuple[str, str]] = set()
    for row, stored in ready:
        kinds.add((stored.sop_class_uid, stored.transfer_syntax_uid))
        if len(kinds) > MOST_KINDS:
            return
        yield row, stored


def attempt(row: QueueRow, stored: Stored, target: StoreDestination) -> Settled:
    """Send one object and return the fate of its row. Raises PeerError when the target is lost."""
    if row.is_damaged:
        return Settled(row, Fate.POSTPONED, "Its file is damaged, see 'gateway fsck --hashes'.")
    try:
        with outgoing(stored, form(stored.transfer_syntax_uid, target.syntaxes(stored.sop_class_uid))) as one:
            answer = target.store(one)
    except NotAcceptable as error:
        return Settled(row, Fate.PARKED, str(error))
    except (Refusal, OSError) as error:  # not parked, because a missing file or volume may come back
        return Settled(row, Fate.POSTPONED, str(error))
    return judged(row, answer)


def judged(row: QueueRow, answer: Command) -> Settled:
    """The fate of a row by the response to its C-STORE (PS3.4 B.2.3)."""
    became = outcome(answer)
    if became is not SendOutcome.FAILED:
        return Settled(row, Fate.DELIVERED, f"Taken with {described(answer)}." if became is SendOutcome.WARNING else "")
    status = answer.status or 0
    is_final = status in NEVER or status >> 8 == 0xA9 or status >> 12 == 0xC
    reason = f"The object was answered with {described(answer)}."
    return Settled(row, Fate.PARKED if is_final else Fate.NOT_NOW, reason)
