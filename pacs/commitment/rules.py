"""The rules of storage commitment, push model (PS3.4 Annex J): requests, outcomes, reports and pauses. Pure.

* An N-ACTION names a transaction and its instances; a malformed one is refused at once. 0000 means that the
  transaction is on disk and will be reported.
* The same transaction with the same instances from the same requester is a repeat and is accepted; with others it is
  refused with 0131.
* An instance is committed after its file was read again and has the SHA-256 recorded on receipt. Every other gets a
  Failure Reason (PS3.3 C.14.1.1).
* One N-EVENT-REPORT is about a whole transaction, and is repeated until the requester answers 0000.

Not for: storing (`rows`), reading files and calling the requester (`reporter`).
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

# Pauses double from the first to the longest, and no attempt is the last: a requester may be off for a weekend.
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=10), timedelta(hours=1)


class CommitmentOutcome(IntEnum):
    """The outcome of one instance: committed, or a Failure Reason (0008,1197) of PS3.3 C.14.1.1."""

    COMMITTED = 0x0000
    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_CONFLICT = 0x0119
    NO_RESOURCES = 0x0213


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance as the request names it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Transaction:
    """The request of one N-ACTION. `requester` is the calling AE title, `addressed` the called one, ours."""

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
    """The N-EVENT-REPORT of a transaction (PS3.4 Table J.3.3-1); `outcomes` in the order of its references."""
    results = list(zip(transaction.references, outcomes, strict=True))
    committed = [_item(reference) for reference, outcome in results if outcome == CommitmentOutcome.COMMITTED]
    failed = [_failed(reference, outcome) for reference, outcome in results if outcome != CommitmentOutcome.COMMITTED]
    information = Dataset()
    information.TransactionUID = transaction.transaction_uid
    information.RetrieveAETitle = transaction.addressed
    if committed:
        information.ReferencedSOPSequence = committed
    if failed:
        information.FailedSOPSequence = failed
    return EventReport(SOP_CLASS_UID, SOP_INSTANCE_UID, FAILURES_EXIST if failed else ALL_COMMITTED, information)


def pause(attempts: int) -> timedelta:
    """The pause after so many attempts, at least one."""
    return min(FIRST_PAUSE * (1 << min(attempts - 1, 16)), LONGEST_PAUSE)


def _reference(item: Dataset) -> Reference:
    return Reference(_uid(item, "ReferencedSOPClassUID"), _uid(item, "ReferencedSOPInstanceUID"))


def _uid(data_set: Dataset, keyword: str) -> str:
    uid = str(_present(data_set, keyword)).strip(" \0")  # padded with NUL (PS3.5 9.1); a space is accepted, too
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
