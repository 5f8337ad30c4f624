"""The rules of performed procedure steps (PS3.4 F.7), decided without a database.

* A step is created IN PROGRESS and becomes COMPLETED or DISCONTINUED once, for good.
* N-CREATE with a known UID is refused (0111), except an identical repeat.
* N-SET replaces whole attributes. Those that identify the step, its patient and its schedule may not be set (0105).
* A final status needs end date and time and a performed series with its UID: 0120 if missing, 0121 if empty.
* After the final status every N-SET is refused: 0110 with A710 (F.7.2.2.4). An unknown UID is 0112.
* A person may close a step whose modality will not, with name and reason.
* A step needs no item. An item may have several steps, also after it was completed, and a step several items.

Data sets are DICOM JSON. Not for: required attributes (`worklist.mpps_table`), storing, moving items.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, NamedTuple

from gateway.dataset.dicom_json import DicomJson, element, items, sequence, tag, text
from gateway.errors import (
    Conflict,
    InvalidValue,
    MissingAttribute,
    MissingValue,
    NoLongerUpdatable,
    NotFound,
    Refusal,
)
from gateway.messages import PerformedSeries, StepChanged
from worklist import mpps_table
from worklist.mpps_table import REFERENCES, SCHEDULED, SERIES, STATUS

Status = Literal["IN PROGRESS", "COMPLETED", "DISCONTINUED"]

# No timer ends a step in progress: it would be wrong on the day when the cause is investigated, and an exam that is
# resumed after lunch would be refused.
_NEXT: Mapping[tuple[str, str], Mapping[str, Status | type[Refusal]] | type[Refusal]] = {
    # The operation, and the status now ('' = no such step): the status given ('' = none) and the status afterwards
    ("N-CREATE", ""): {
        "": MissingAttribute,
        "IN PROGRESS": "IN PROGRESS",
        "COMPLETED": InvalidValue,
        "DISCONTINUED": InvalidValue,
    },
    ("N-CREATE", "IN PROGRESS"): Conflict,
    ("N-CREATE", "COMPLETED"): Conflict,
    ("N-CREATE", "DISCONTINUED"): Conflict,
    ("N-SET", ""): NotFound,
    ("N-SET", "IN PROGRESS"): {
        "": "IN PROGRESS",  # without a status it is an ordinary update
        "IN PROGRESS": "IN PROGRESS",
        "COMPLETED": "COMPLETED",
        "DISCONTINUED": "DISCONTINUED",
    },
    # Also for a repeat of the final N-SET (F.7.2.2.4).
    ("N-SET", "COMPLETED"): NoLongerUpdatable,
    ("N-SET", "DISCONTINUED"): NoLongerUpdatable,
    # A modality may have died in the middle; a person closes its step then (F.7.2.2.3, Note 2).
    ("close", ""): NotFound,
    ("close", "IN PROGRESS"): {"": "DISCONTINUED"},
    ("close", "COMPLETED"): NoLongerUpdatable,
    ("close", "DISCONTINUED"): NoLongerUpdatable,
}
"""The whole state machine. N-GET is allowed in every state of a step there is."""

_SENTENCES: Mapping[type[Refusal], str] = {
    MissingAttribute: f"{STATUS} is missing.",
    InvalidValue: f"{STATUS} cannot have this value here.",
    Conflict: "Another performed procedure step has this UID.",
    NotFound: "No performed procedure step has this UID.",
    NoLongerUpdatable: "Performed Procedure Step Object may no longer be updated",  # F.7.2.2.4 gives the words
}

_UNSPECIFIED: DicomJson = {
    tag("CodeValue"): element("CodeValue", "110513"),
    tag("CodingSchemeDesignator"): element("CodingSchemeDesignator", "DCM"),
    tag("CodeMeaning"): element("CodeMeaning", "Discontinued for unspecified reason"),
}
"""PS3.16 CID 9300; the reason in a person's words stands beside the data set (`Step.closed_because`)."""


class ScheduledStep(NamedTuple):
    """The scheduled step that a performed step names; either part may be empty."""

    accession_number: str
    study_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One performed procedure step, as its modality has described it so far.

    `closed_by` and `closed_because` are name and reason of the person who ended it in the modality's place, else empty.
    `told_as` is the accession number in its events, set when the step is first stored.
    """

    mpps_instance_uid: str
    status: Status
    data_set: DicomJson
    created_from: str
    closed_by: str = ""
    closed_because: str = ""
    told_as: str = ""

    @property
    def scheduled(self) -> tuple[ScheduledStep, ...]:
        """The scheduled steps it performs, one per item of the Scheduled Step Attributes Sequence."""
        return tuple(
            ScheduledStep(text(item, "AccessionNumber"), text(item, "StudyInstanceUID"))
            for item in items(self.data_set, SCHEDULED)
        )

    @property
    def performed_series(self) -> tuple[PerformedSeries, ...]:
        """The series reported so far, with their instances; completeness is judged by them."""
        return tuple(_performed(item) for item in items(self.data_set, SERIES))

    @property
    def started_at(self) -> str:
        """The modality's wall time, ISO 8601; '' when unknown."""
        return _moment(self.data_set, "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime")

    @property
    def ended_at(self) -> str:
        """The modality's wall time, ISO 8601; '' while in progress."""
        return _moment(self.data_set, "PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime")

    @property
    def discontinuation_reason(self) -> str:
        """The reason of the person who closed it, else the meaning of the reason's code, else the code."""
        if self.closed_because:
            return self.closed_because
        for code in items(self.data_set, "PerformedProcedureStepDiscontinuationReasonCodeSequence"):
            return text(code, "CodeMeaning") or text(code, "CodeValue")
        return ""


def begin(stored: Step | None, mpps_instance_uid: str, data_set: DicomJson) -> Step:
    """Decide about an N-CREATE (F.7.2.1); `stored` is the step that has the UID already, if any.

    Returns the step; `stored` itself when there is nothing to do. Raises a Refusal.
    """
    created_from = _hash(data_set)
    # An identical data set is the repeat of a request whose answer got lost. It succeeds whatever has become of the
    # step meanwhile. The standard wants 0111; this is a local choice.
    if stored is not None and stored.created_from == created_from:
        return stored
    status = _next("N-CREATE", stored, data_set)
    mpps_table.check_created(data_set, mpps_instance_uid)
    kept = mpps_table.completed(_kept(data_set))
    return Step(mpps_instance_uid=mpps_instance_uid, status=status, data_set=kept, created_from=created_from)


def change(stored: Step | None, data_set: DicomJson) -> Step:
    """Decide about an N-SET (F.7.2.2). Returns the step as it is afterwards, or raises a Refusal."""
    status = _next("N-SET", stored, data_set)
    assert stored is not None  # the table refuses to set what does not exist
    mpps_table.check_set(stored.data_set, data_set, stored.mpps_instance_uid)
    # Whole attributes are replaced, sequences with all their items. Both sides are in Unicode: a character set in N-SET
    # says only how to read that request.
    step = replace(stored, status=status, data_set=stored.data_set | _kept(data_set))
    # A step without images still has to have a series, without references.
    if status != "IN PROGRESS":
        mpps_table.check_final(step.data_set)
    return step


def close(stored: Step | None, *, by: str, because: str, now: datetime) -> Step:
    """End a step whose modality will not; `now` is the site's wall time. Returns the step, or raises a Refusal."""
    status = _next("close", stored, {})
    assert stored is not None  # as above
    ended = {
        STATUS: element(STATUS, status),
        "PerformedProcedureStepEndDate": element("PerformedProcedureStepEndDate", f"{now:%Y%m%d}"),
        "PerformedProcedureStepEndTime": element("PerformedProcedureStepEndTime", f"{now:%H%M%S}"),
        "PerformedProcedureStepDiscontinuationReasonCodeSequence": sequence(_UNSPECIFIED),
    }
    data_set = stored.data_set | {tag(keyword): value for keyword, value in ended.items()}
    return replace(stored, status=status, data_set=data_set, closed_by=by, closed_because=because)


def event(step: Step) -> StepChanged:
    """The event for the cloud about a step as it is now."""
    return StepChanged(
        accession_number=step.told_as,
        study_instance_uid=step.scheduled[0].study_instance_uid,  # Type 1: there is one
        mpps_instance_uid=step.mpps_instance_uid,
        status=step.status,
        started_at=step.started_at,
        ended_at=step.ended_at,
        discontinuation_reason=step.discontinuation_reason,
        closed_by=step.closed_by,
        performed_series=step.performed_series,
    )


def _next(operation: str, stored: Step | None, data_set: DicomJson) -> Status:
    row = _NEXT[operation, stored.status if stored else ""]
    if isinstance(row, type):
        raise row(_SENTENCES[row])
    given = text(data_set, STATUS)
    if tag(STATUS) in data_set and not given:
        raise MissingValue(f"{STATUS} has no value.", offending=mpps_table.offending(STATUS))
    outcome = row.get(given, InvalidValue)
    if isinstance(outcome, type):
        raise outcome(_SENTENCES[outcome], offending=mpps_table.offending(STATUS))
    return outcome


def _kept(data_set: DicomJson) -> DicomJson:
    # Without group lengths, because they do not hold for the merged data set.
    return {key: value for key, value in data_set.items() if not key.endswith("0000")}


def _hash(data_set: DicomJson) -> str:
    return hashlib.sha256(json.dumps(_kept(data_set), sort_keys=True).encode()).hexdigest()


def _performed(series: DicomJson) -> PerformedSeries:
    references = (reference for keyword in REFERENCES for reference in items(series, keyword))
    return PerformedSeries(
        series_instance_uid=text(series, "SeriesInstanceUID"),
        sop_instance_uids=tuple(text(reference, "ReferencedSOPInstanceUID") for reference in references),
    )


def _moment(data_set: DicomJson, date: str, time: str) -> str:
    day, clock = text(data_set, date), text(data_set, time)
    if not re.fullmatch(r"[0-9]{8}", day):
        return ""
    written = f"{day[:4]}-{day[4:6]}-{day[6:]}"
    return (
        f"{written}T{clock[:2]}:{clock[2:4]}:{clock[4:]}"
        if re.fullmatch(r"[0-9]{6}(\.[0-9]{1,6})?", clock)
        else written
    )
