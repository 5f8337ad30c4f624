"""What a modality may say about a performed procedure step, decided without a database (PS3.4 Section F.7).

The rules:

* A step is IN PROGRESS when it is created and becomes COMPLETED or DISCONTINUED once, for good; `_NEXT` is the whole
  state machine.
* N-CREATE (F.7.2.1) gives the SOP Instance UID and the attributes of `_REQUIRED_TO_BEGIN`. The same UID a second time
  is refused with 0111; if the data set is the same to the last value, it is the repeat of a request whose answer got
  lost, and it succeeds without changing anything, whatever has become of the step meanwhile (a local choice).
* N-SET (F.7.2.2) replaces whole attributes, sequences with all their items. One without a status is an ordinary
  update. What identifies the step, its patient and its schedule may not be set (0105).
* With a final status the step must have its end date and time and at least one performed series with its UID: 0120 for
  what was never sent, 0121 for what has no value. A step without images still has a series, without references.
* After the final status nothing changes any more: 0110 with Error ID A710 (F.7.2.2.4), also for a repeat.
* An unknown UID in N-SET or N-GET is 0112.
* Attributes of Type 2 may be missing; a modality that cannot fill them shall not be stopped in front of a patient.
* Nothing has to be on the worklist for a step to be accepted, and images may come before, between and after.
* The data set is kept in Unicode. A character set in N-SET tells how to read that request only.

Data sets are DICOM JSON made by `worklist.attributes.from_data_set`. Not here: storing, and moving items.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pydicom.datadict import tag_for_keyword

from gateway.errors import (
    Conflict,
    InvalidValue,
    MissingAttribute,
    MissingValue,
    NoLongerUpdatable,
    NotAllowed,
    NotFound,
    Refusal,
)
from gateway.messages import PerformedSeries, StepChanged
from worklist.attributes import DicomJson, items, tag, text

Status = Literal["IN PROGRESS", "COMPLETED", "DISCONTINUED"]

_STATUS = "PerformedProcedureStepStatus"
_SERIES = "PerformedSeriesSequence"
_SCHEDULED = "ScheduledStepAttributesSequence"

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
}

_SENTENCES: Mapping[type[Refusal], str] = {
    MissingAttribute: f"{_STATUS} is missing.",
    InvalidValue: f"{_STATUS} cannot have this value here.",
    Conflict: "Another performed procedure step has this UID.",
    NotFound: "No performed procedure step has this UID.",
    NoLongerUpdatable: "Performed Procedure Step Object may no longer be updated",  # F.7.2.2.4 gives the words
}

_REQUIRED_TO_BEGIN = (
    _SCHEDULED, "PerformedProcedureStepID", "PerformedStationAETitle", "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime", _STATUS, "Modality",
)  # fmt: skip
"""Type 1 for the SCU in Table F.7.2-1, N-CREATE; Study Instance UID in each scheduled step is checked as well."""

_REQUIRED_TO_END = ("PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime", _SERIES)
"""Type 1 in the final state, Table F.7.2-1."""

_NOT_SETTABLE = (
    "SOPClassUID", "SOPInstanceUID", _SCHEDULED, "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate",
    "PatientSex", "ReferencedPatientSequence", "AdmissionID", "PerformedProcedureStepID", "PerformedStationAETitle",
    "PerformedStationName", "PerformedLocation", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
    "Modality", "StudyID",
)  # fmt: skip
"""Not allowed in N-SET, Table F.7.2-1."""


class ScheduledStep(NamedTuple):
    """What a performed step says it was scheduled as; either may be empty."""

    accession_number: str
    study_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One performed procedure step, as its modality has described it so far."""

    mpps_instance_uid: str
    status: Status
    data_set: DicomJson
    created_from: str

    @property
    def scheduled(self) -> tuple[ScheduledStep, ...]:
        """What was performed, one per item of the Scheduled Step Attributes Sequence."""
        return tuple(
            ScheduledStep(text(item, "AccessionNumber"), text(item, "StudyInstanceUID"))
            for item in items(self.data_set, _SCHEDULED)
        )

    @property
    def performed_series(self) -> tuple[PerformedSeries, ...]:
        """The series made so far with the instances they hold: the evidence of completeness."""
        return tuple(_performed(item) for item in items(self.data_set, _SERIES))

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
        """The meaning of the reason's code, or the code."""
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
    _require(data_set, _REQUIRED_TO_BEGIN)
    for item in items(data_set, _SCHEDULED):
        _require(item, ("StudyInstanceUID",))
    return Step(mpps_instance_uid=mpps_instance_uid, status=status, data_set=_kept(data_set), created_from=created_from)


def change(stored: Step | None, data_set: DicomJson) -> Step:
    """Decide about an N-SET. Returns the step as it is afterwards, or raises a Refusal."""
    status = _next("N-SET", stored, data_set)
    assert stored is not None  # the table refuses to set what does not exist
    _refuse_fixed(data_set)
    step = replace(stored, status=status, data_set=stored.data_set | _kept(data_set))
    if status != "IN PROGRESS":
        _require(step.data_set, _REQUIRED_TO_END)
        for item in items(step.data_set, _SERIES):
            _require(item, ("SeriesInstanceUID",))
    return step


def event(step: Step, *, accession_number: str, study_instance_uid: str) -> StepChanged:
    """Tell the cloud what a step has become."""
    return StepChanged(
        accession_number=accession_number,
        study_instance_uid=study_instance_uid,
        mpps_instance_uid=step.mpps_instance_uid,
        status=step.status,
        started_at=step.started_at,
        ended_at=step.ended_at,
        discontinuation_reason=step.discontinuation_reason,
        performed_series=step.performed_series,
    )


def _next(operation: str, stored: Step | None, data_set: DicomJson) -> Status:
    row = _NEXT[operation, stored.status if stored else ""]
    if isinstance(row, type):
        raise row(_SENTENCES[row])
    given = text(data_set, _STATUS)
    if tag(_STATUS) in data_set and not given:
        raise MissingValue(f"{_STATUS} has no value.", offending=_offending(_STATUS))
    outcome = row.get(given, InvalidValue)
    if isinstance(outcome, type):
        raise outcome(_SENTENCES[outcome], offending=_offending(_STATUS))
    return outcome


def _require(data_set: DicomJson, keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if tag(keyword) not in data_set:
            raise MissingAttribute(f"{keyword} is missing.", offending=_offending(keyword))
        if not (text(data_set, keyword) or items(data_set, keyword)):
            raise MissingValue(f"{keyword} has no value.", offending=_offending(keyword))


def _refuse_fixed(data_set: DicomJson) -> None:
    for keyword in _NOT_SETTABLE:
        if tag(keyword) in data_set:
            raise NotAllowed(f"{keyword} may not be set by N-SET.", offending=_offending(keyword))


def _offending(keyword: str) -> tuple[int, ...]:
    number = tag_for_keyword(keyword)
    return () if number is None else (int(number),)


def _kept(data_set: DicomJson) -> DicomJson:
    """Without group lengths, which would no longer be true."""
    return {key: value for key, value in data_set.items() if not key.endswith("0000")}


def _hash(data_set: DicomJson) -> str:
    return hashlib.sha256(json.dumps(_kept(data_set), sort_keys=True).encode()).hexdigest()


def _performed(series: DicomJson) -> PerformedSeries:
    references = [
        *items(series, "ReferencedImageSequence"),
        *items(series, "ReferencedNonImageCompositeSOPInstanceSequence"),
    ]
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
