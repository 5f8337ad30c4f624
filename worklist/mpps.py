"""What a modality may say about a performed procedure step, decided without a database (PS3.4 Section F.7).

The rules:

* A step is IN PROGRESS when it is created and becomes COMPLETED or DISCONTINUED once, for good; `_NEXT` is the whole
  state machine. Which attributes it needs when, is `worklist.mpps_table`.
* N-CREATE (F.7.2.1) gives the SOP Instance UID. The same UID a second time is refused with 0111; if the data set is the
  same to the last value, it is the repeat of a request whose answer got lost, and it succeeds without changing
  anything, whatever has become of the step meanwhile (a local choice).
* N-SET (F.7.2.2) replaces whole attributes, sequences with all their items. One without a status is an ordinary
  update. What identifies the step, its patient and its schedule may not be set (0105).
* With a final status the step must have its end date and time and at least one performed series with its UID: 0120 for
  what was never sent, 0121 for what has no value. A step without images still has a series, without references.
* After the final status nothing changes any more: 0110 with Error ID A710 (F.7.2.2.4), also for a repeat.
* A machine may have died in the middle. A person may then close its step (F.7.2.2.3, Note 2), giving name and reason:
  it is DISCONTINUED, with the series that were reported, and what the machine says afterwards is refused like that.
* An unknown UID in N-SET or N-GET is 0112.
* Nothing has to be on the worklist for a step to be accepted, and images may come before, between and after. An item
  may have several steps, also after it was completed (append), and a step several items.
* The data set is kept in Unicode. A character set in N-SET tells how to read that request only.

Data sets are DICOM JSON made by `gateway.dataset.dicom_json.from_data_set`. Not here: storing, and moving items.
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

_NEXT: Mapping[tuple[str, str], Mapping[str, Status | type[Refusal]] | type[Refusal]] = {
    # What is asked, and the status now ('' = no such step): the status given ('' = none) and the status afterwards
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
        "": "IN PROGRESS",
        "IN PROGRESS": "IN PROGRESS",
        "COMPLETED": "COMPLETED",
        "DISCONTINUED": "DISCONTINUED",
    },
    ("N-SET", "COMPLETED"): NoLongerUpdatable,
    ("N-SET", "DISCONTINUED"): NoLongerUpdatable,
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
"""PS3.16 CID 9300; what a person has to say stands beside the data set."""


class ScheduledStep(NamedTuple):
    """What a performed step says it was scheduled as; either may be empty."""

    accession_number: str
    study_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One performed procedure step, as its modality has described it so far.

    `closed_by` and `closed_because` say who ended it in the modality's place and why; else they are empty. `told_as` is
    the accession number under which the cloud is told of it, given once it is kept.
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
        """What was performed, one per item of the Scheduled Step Attributes Sequence."""
        return tuple(
            ScheduledStep(text(item, "AccessionNumber"), text(item, "StudyInstanceUID"))
            for item in items(self.data_set, SCHEDULED)
        )

    @property
    def performed_series(self) -> tuple[PerformedSeries, ...]:
        """The series made so far with the instances they hold: the evidence of completeness."""
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
        """What a person said who closed it, the meaning of the reason's code, or the code."""
        if self.closed_because:
            return self.closed_because
        for code in items(self.data_set, "PerformedProcedureStepDiscontinuationReasonCodeSequence"):
            return text(code, "CodeMeaning") or text(code, "CodeValue")
        return ""


def begin(stored: Step | None, mpps_instance_uid: str, data_set: DicomJson) -> Step:
    """Decide about an N-CREATE; `stored` is the step that has the UID already. Returns the step, or raises a Refusal.

    When it is `stored` itself that comes back, there is nothing to do.
    """
    created_from = _hash(data_set)
    if stored is not None and stored.created_from == created_from:
        return stored
    status = _next("N-CREATE", stored, data_set)
    mpps_table.check_created(data_set, mpps_instance_uid)
    kept = mpps_table.completed(_kept(data_set))
    return Step(mpps_instance_uid=mpps_instance_uid, status=status, data_set=kept, created_from=created_from)


def change(stored: Step | None, data_set: DicomJson) -> Step:
    """Decide about an N-SET. Returns the step as it is afterwards, or raises a Refusal."""
    status = _next("N-SET", stored, data_set)
    assert stored is not None  # the table refuses to set what does not exist
    mpps_table.check_set(stored.data_set, data_set, stored.mpps_instance_uid)
    step = replace(stored, status=status, data_set=stored.data_set | _kept(data_set))
    if status != "IN PROGRESS":
        mpps_table.check_final(step.data_set)
    return step


def close(stored: Step | None, *, by: str, because: str, now: datetime) -> Step:
    """End a step whose machine will not; `now` is the site's wall time. Returns the step, or raises a Refusal."""
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
    """Tell the cloud what a step has become."""
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
    """Without group lengths, which would no longer be true."""
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
