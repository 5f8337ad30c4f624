"""Storage commitment, push model (PS3.4 Annex J): what may be asked, what is told, how it is repeated. Pure.

The rules:

* An N-ACTION names a transaction and the instances whose safekeeping is wanted. What is missing or malformed is
  refused at once; 0000 means that the transaction is on disk and will be reported on.
* The same transaction from the same machine for the same instances is the repeat of a request whose answer got lost:
  accepted, and nothing more is told for it. With anything else in it, it is refused with 0131.
* An instance is promised only after its file was read again and has the SHA-256 that was recorded on receipt. Every
  other is named with a Failure Reason (PS3.3 C.14.1.1).
* One N-EVENT-REPORT tells about a whole transaction: type 1 when all are promised, type 2 when not.
* It is repeated until the requester answers 0000, with pauses that double up to an hour, and no last attempt.

Not here: storing (`rows`), reading files and calling the requester (`reporter`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from pydicom import Dataset
from pydicom import Sequence as Items
from pydicom.datadict import tag_for_keyword

from gateway.dicom.dimse import Command
from gateway.dicom.event_reports import EventReport
from gateway.errors import ClassMismatch, InvalidValue, MissingAttribute, MissingValue, NoSuchAction, NotFound
from pacs.archive.identity import is_uid

SOP_CLASS_UID = "1.2.840.10008.1.20.1"
SOP_INSTANCE_UID = "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model and its one well-known instance (PS3.4 J.3.5)."""

REQUEST = 1
"""Action Type ID of "request storage commitment" (PS3.4 Table J.3.2-1)."""

ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""Event Type IDs (PS3.4 Table J.3.3-1)."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=10), timedelta(hours=1)


class CommitmentOutcome(IntEnum):
    """What became of one instance: promised, or a Failure Reason (0008,1197) of PS3.3 C.14.1.1."""

    PROMISED = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_CONFLICT = 0x0119
    NO_RESOURCES = 0x0213


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance as it is asked about."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a machine wants to be promised. `requester` asked, `addressed` is the AE title of ours that it called."""

    transaction_uid: str
    requester: str
    addressed: str
    references: tuple[Reference, ...]


def expect_request(command: Command, abstract_syntax: str) -> None:
    """Refuse an N-ACTION that is not a request for storage commitment in a context for it. Raises a Refusal."""
    if {command.requested_sop_class_uid, abstract_syntax} != {SOP_CLASS_UID}:
        raise ClassMismatch("Actions are served for the Storage Commitment Push Model only.")
    if command.requested_sop_instance_uid != SOP_INSTANCE_UID:
        raise NotFound(f"Storage commitment is asked of instance {SOP_INSTANCE_UID} only.")
    if command.action_type_id != REQUEST:
        raise NoSuchAction("Storage commitment has action type 1 only.")


def requested(information: Dataset, *, requester: str, addressed: str) -> Transaction:
    """Read the action information of an N-ACTION (PS3.4 Table J.3.2-1). Raises a Refusal that names the attribute."""
    references = _present(information, "ReferencedSOPSequence")
    if not isinstance(references, Items):
        raise InvalidValue("ReferencedSOPSequence is not a sequence.", offending=_tag("ReferencedSOPSequence"))
    return Transaction(
        transaction_uid=_uid(information, "TransactionUID"),
        requester=requester,
        addressed=addressed,
        references=tuple(dict.fromkeys(_reference(item) for item in references)),
    )


def report(transaction: Transaction, outcomes: Sequence[int]) -> EventReport:
    """Tell what became of a transaction (PS3.4 Table J.3.3-1); `outcomes` in the order of its references."""
    told = list(zip(transaction.references, outcomes, strict=True))
    promised = [_item(reference) for reference, outcome in told if outcome == CommitmentOutcome.PROMISED]
    failed = [_failed(reference, outcome) for reference, outcome in told if outcome != CommitmentOutcome.PROMISED]
    information = Dataset()
    information.TransactionUID = transaction.transaction_uid
    information.RetrieveAETitle = transaction.addressed
    if promised:
        information.ReferencedSOPSequence = promised
    if failed:
        information.FailedSOPSequence = failed
    return EventReport(SOP_CLASS_UID, SOP_INSTANCE_UID, FAILURES_EXIST if failed else ALL_COMMITTED, information)


def pause(attempts: int) -> timedelta:
    """How long to wait after so many attempts; at least one."""
    return min(FIRST_PAUSE * (1 << min(attempts - 1, 16)), LONGEST_PAUSE)


def _reference(item: Dataset) -> Reference:
    return Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _uid(data_set: Dataset, keyword: str) -> str:
    uid = str(_present(data_set, keyword)).strip(" \0")
    if not is_uid(uid):
        raise InvalidValue(f"{keyword} is not a UID.", offending=_tag(keyword))
    return uid


def _present(data_set: Dataset, keyword: str) -> object:
    if keyword not in data_set:
        raise MissingAttribute(f"{keyword} is missing.", offending=_tag(keyword))
    value = data_set[keyword].value
    if not value:
        raise MissingValue(f"{keyword} has no value.", offending=_tag(keyword))
    found: object = value
    return found


def _tag(keyword: str) -> tuple[int, ...]:
    number = tag_for_keyword(keyword)
    return () if number is None else (int(number),)


def _item(reference: Reference) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = reference.sop_class_uid
    item.ReferencedSOPInstanceUID = reference.sop_instance_uid
    return item


def _failed(reference: Reference, outcome: int) -> Dataset:
    item = _item(reference)
    item.FailureReason = outcome
    return item
