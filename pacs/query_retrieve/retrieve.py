"""Retrieval (PS3.4 C.4.2, C.4.3): sends the chosen objects one after the other and counts the sub-operations.

* An object is sent as stored if the peer accepts that; only else in Explicit or Implicit VR Little Endian
  (`pacs.images.decompress`).
* A failed object is named in the last response and does not stop the others. When the destination is lost, all that
  are left have failed.
* The last status is 0000 when all were taken, B000 when some failed or were taken with a warning, A702 when none was
  taken, FE00 when the peer cancelled.

Not for: choosing objects (`query`), associations (`handlers`).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO, Protocol

import structlog

from gateway.dicom.application import UNCOMPRESSED, Progress
from gateway.dicom.dimse import Command
from gateway.dicom.requestor import described
from gateway.dicom.store_suboperations import Outgoing
from gateway.errors import NotAcceptable, NotFound, PeerError, Refusal
from pacs.archive.archive import Stored
from pacs.images.decompress import converted

log = structlog.get_logger()


class SendOutcome(Enum):
    """The outcome of one sub-operation."""

    COMPLETED = auto()
    WARNING = auto()
    FAILED = auto()


class Sendable(Protocol):
    """An object in a file, as `Stored` is one."""

    @property
    def sop_class_uid(self) -> str: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def transfer_syntax_uid(self) -> str: ...
    @property
    def path(self) -> Path: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def data_set_offset(self) -> int: ...


# C-GET and C-MOVE differ only in this, so that one function serves both.
class StoreDestination(Protocol):
    """A destination of objects: the peer of a C-GET, or an association of our own."""

    def syntaxes(self, sop_class_uid: str) -> frozenset[str]:
        """The transfer syntaxes in which it takes objects of a class."""

    def store(self, outgoing: Outgoing) -> Command:
        """Send one object and give the response."""


def suboperations(
    instances: Sequence[Stored], destination: StoreDestination, is_cancelled: Callable[[], bool]
) -> Iterator[Progress]:
    """Send the objects and yield the progress after each; the last one has the final status."""
    progress = Progress(remaining=len(instances))
    for stored in instances:
        if is_cancelled():
            yield replace(progress, status=0xFE00)
            return
        try:
            became, reason = sent(stored, destination)
        except PeerError as error:
            log.warning("destination lost", reason=str(error))
            break
        if reason:
            log.warning("instance not taken as it should be", sop_instance_uid=stored.sop_instance_uid, reason=reason)
        progress = after(progress, stored.sop_instance_uid, became)
        if progress.remaining:
            yield progress
    yield ended(progress, instances)


def unreached(instances: Sequence[Stored]) -> Progress:
    """The only response when there is no association with the destination."""
    return ended(Progress(remaining=len(instances)), instances)


def after(progress: Progress, sop_instance_uid: str, outcome: SendOutcome) -> Progress:
    """Count one sub-operation."""
    progress = replace(progress, remaining=progress.remaining - 1)
    if outcome is SendOutcome.COMPLETED:
        return replace(progress, completed=progress.completed + 1)
    if outcome is SendOutcome.WARNING:
        return replace(progress, warning=progress.warning + 1)
    return replace(progress, failed_uids=(*progress.failed_uids, sop_instance_uid))


def ended(progress: Progress, instances: Sequence[Stored]) -> Progress:
    """The last progress; objects that are not sent by now have failed."""
    unsent = instances[len(instances) - progress.remaining :]
    failed = (*progress.failed_uids, *(stored.sop_instance_uid for stored in unsent))
    comment = f"{len(failed)} of {len(instances)} objects not sent; see the log." if failed else None
    status = 0xB000 if failed or progress.warning else 0x0000
    if failed and len(failed) == len(instances):
        status = 0xA702
    return replace(progress, remaining=0, failed_uids=failed, status=status, comment=comment)


def form(stored: str, accepted: frozenset[str]) -> str:
    """The transfer syntax to send in: as stored, else uncompressed. Raises NotAcceptable when there is none."""
    for syntax in (stored, *UNCOMPRESSED):
        if syntax in accepted:
            return syntax
    raise NotAcceptable("The peer takes objects of this class neither as stored nor uncompressed.")


def outcome(answer: Command) -> SendOutcome:
    """The outcome by the response to a C-STORE (PS3.4 B.2.3)."""
    if answer.status == 0x0000:
        return SendOutcome.COMPLETED
    return SendOutcome.WARNING if answer.status is not None and answer.status >> 12 == 0xB else SendOutcome.FAILED


def sent(stored: Sendable, destination: StoreDestination) -> tuple[SendOutcome, str]:
    """Send one object; return its outcome, and a sentence unless it is completed. Raises PeerError for a lost peer."""
    try:
        with outgoing(stored, form(stored.transfer_syntax_uid, destination.syntaxes(stored.sop_class_uid))) as one:
            answer = destination.store(one)
    except (Refusal, OSError) as error:
        return SendOutcome.FAILED, str(error)
    became = outcome(answer)
    return became, "" if became is SendOutcome.COMPLETED else f"The peer answered with {described(answer)}."


@contextmanager
def outgoing(stored: Sendable, transfer_syntax_uid: str) -> Iterator[Outgoing]:
    """Open an object to be sent. Raises NotFound when its file is not whole, NotAcceptable when conversion fails."""
    with _opened(stored, transfer_syntax_uid) as (data, size_bytes):
        yield Outgoing(
            sop_class_uid=stored.sop_class_uid,
            sop_instance_uid=stored.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            data=data,
            size_bytes=size_bytes,
        )


@contextmanager
def _opened(stored: Sendable, transfer_syntax_uid: str) -> Iterator[tuple[BinaryIO, int]]:
    # Checked before the C-STORE begins, because a data set that ends too early costs the whole association.
    if not stored.path.exists() or stored.path.stat().st_size != stored.size_bytes:
        raise NotFound(f"The file of instance {stored.sop_instance_uid} is missing or not whole.")
    if transfer_syntax_uid == stored.transfer_syntax_uid:
        with stored.path.open("rb") as file:
            file.seek(stored.data_set_offset)
            yield file, stored.size_bytes - stored.data_set_offset
    else:
        with converted(stored.path, stored.transfer_syntax_uid, transfer_syntax_uid) as file:
            size_bytes = file.seek(0, 2)
            file.seek(0)
            yield file, size_bytes
