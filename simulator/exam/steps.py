"""The identifiers and attribute lists of a machine: worklist query, N-CREATE and N-SET of its steps. Pure.

Not for: sending them (`modality`, `scripted_machine`), encoding (`encoding`), images (`phantom`).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from types import MappingProxyType
from typing import Literal

from pydicom import Dataset
from pydicom import Sequence as Items
from pydicom.uid import generate_uid

from simulator.exam.exam import Exam, Participant, code, reference

SpsForm = Literal["item", "empty item", "no items", "absent"]
"""How a query writes the Scheduled Procedure Step Sequence; the last three match every step (PS3.4 C.2.2.2.6)."""

ITEM_KEYS = (
    "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "RequestedProcedureID", "RequestedProcedureDescription",
)  # fmt: skip
STEP_KEYS = (
    "ScheduledStationAETitle", "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime", "Modality",
    "ScheduledPerformingPhysicianName", "ScheduledProcedureStepDescription", "ScheduledProcedureStepID",
)  # fmt: skip
"""Return keys of a mammography machine, in the item and in its scheduled step; other keys belong to the item."""

NAMES = ("PatientName", "ReferringPhysicianName", "ScheduledPerformingPhysicianName")

UNICODE = "ISO_IR 192"

_STRUCTURED_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
"""How the SOP classes of reports begin (PS3.4 Table B.5-1); a step lists them apart from its images."""

REASONS = MappingProxyType(
    {
        "110500": "Doctor canceled procedure",
        "110501": "Equipment failure",
        "110502": "Incorrect procedure ordered",
        "110505": "Patient refused to continue procedure",
        "110507": "Patient did not arrive",
        "110512": "Incorrect side ordered",
        "110513": "Discontinued for unspecified reason",
        "110514": "Incorrect worklist entry selected",
        "110515": "Patient condition prevented continuing",
    }
)
"""Discontinuation reasons, of CID 9300 (DCM)."""


@dataclass(frozen=True)
class Sent:
    """One instance that the gateway confirmed as stored. `sha256` is that of the data set's bytes as they were sent."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    description: str
    size_bytes: int
    sha256: str


def sent_of(image: Dataset, data: bytes) -> Sent:
    """The record of an image and of the bytes that it was sent as."""
    return Sent(
        study_instance_uid=str(image.StudyInstanceUID),
        series_instance_uid=str(image.SeriesInstanceUID),
        sop_class_uid=str(image.SOPClassUID),
        sop_instance_uid=str(image.SOPInstanceUID),
        description=str(image.SeriesDescription),
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )


def query(
    keys: Mapping[str, str],
    *,
    form: SpsForm = "item",
    names: str = "",
    character_set: str | Sequence[str] = (),
) -> Dataset:
    """The identifier of a C-FIND; an empty attribute matches all and is a return key (PS3.4 K.6.1.2).

    `names` is the value of a person name that is no matching key: empty, or `*` as many machines send it.
    """
    ds, sps = Dataset(), Dataset()
    if character_set:
        ds.SpecificCharacterSet = character_set
    for keyword in (*ITEM_KEYS, *STEP_KEYS, *keys):
        target = sps if keyword in STEP_KEYS else ds
        setattr(target, keyword, keys.get(keyword) or (names if keyword in NAMES else "") or None)
    if form != "absent":
        ds.ScheduledProcedureStepSequence = {"item": [sps], "empty item": [Dataset()], "no items": []}[form]
    return ds


def exam_of(item: Dataset, *, station: str, now: datetime, mpps_instance_uid: str = "") -> Exam:
    """The exam of a worklist item, for the images of its step."""
    [sps] = item.ScheduledProcedureStepSequence
    return Exam(
        participant=Participant(
            patient_id=str(item.PatientID),
            patient_name=str(item.PatientName),
            birth_date=str(item.get("PatientBirthDate") or ""),
            sex=str(item.get("PatientSex") or ""),
        ),
        accession_number=str(item.AccessionNumber),
        study_instance_uid=str(item.StudyInstanceUID),
        study_description=str(
            item.get("RequestedProcedureDescription") or sps.get("ScheduledProcedureStepDescription") or ""
        ),
        requested_procedure_id=str(item.RequestedProcedureID),
        sps_id=str(sps.ScheduledProcedureStepID),
        mpps_instance_uid=mpps_instance_uid,
        station_ae_title=station,
        acquired=now,
    )


def unscheduled(*, accession_number: str = "") -> Dataset:
    """An item that is on no worklist, as a machine makes it from the fields typed in at its console."""
    item, sps = Dataset(), Dataset()
    participant = Participant()
    item.PatientName, item.PatientID = participant.patient_name, participant.patient_id
    item.PatientBirthDate, item.PatientSex = participant.birth_date, participant.sex
    item.AccessionNumber, item.RequestedProcedureID = accession_number, ""
    item.StudyInstanceUID = str(generate_uid())  # without a worklist item the machine has to give it
    sps.ScheduledProcedureStepID = ""
    item.ScheduledProcedureStepSequence = [sps]
    return item


def created(
    items: Sequence[Dataset], *, step_id: str, station: str, now: datetime, character_set: str | Sequence[str] = UNICODE
) -> Dataset:
    """The attribute list of an N-CREATE for one or more items of one participant (PS3.4 Table F.7.2-1)."""
    ds = Dataset()
    ds.SpecificCharacterSet = character_set
    ds.ScheduledStepAttributesSequence = [_scheduled(item) for item in items]
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(ds, keyword, items[0].get(keyword))
    ds.ReferencedPatientSequence = []  # Type 2, as all that is empty here (PS3.4 Table F.7.2-1)
    ds.PerformedProcedureStepID = step_id
    ds.PerformedStationAETitle, ds.PerformedStationName, ds.PerformedLocation = station, "", ""
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = _date(now), _time(now)
    ds.PerformedProcedureStepStatus = "IN PROGRESS"
    ds.PerformedProcedureStepDescription, ds.PerformedProcedureTypeDescription = "Screening mammography", ""
    ds.ProcedureCodeSequence, ds.PerformedProtocolCodeSequence = [], []
    ds.PerformedProcedureStepEndDate = ds.PerformedProcedureStepEndTime = None
    ds.Modality, ds.StudyID = "MG", "1"
    ds.PerformedSeriesSequence = []
    return ds


def _scheduled(item: Dataset) -> Dataset:
    [sps] = item.ScheduledProcedureStepSequence
    ds = Dataset()
    ds.StudyInstanceUID, ds.ReferencedStudySequence = item.StudyInstanceUID, []
    ds.AccessionNumber = item.AccessionNumber
    ds.RequestedProcedureID = item.RequestedProcedureID
    ds.RequestedProcedureDescription = item.get("RequestedProcedureDescription")
    ds.ScheduledProcedureStepID = sps.ScheduledProcedureStepID
    ds.ScheduledProcedureStepDescription = sps.get("ScheduledProcedureStepDescription")
    ds.ScheduledProtocolCodeSequence = []
    return ds


def changed(images: Sequence[Sent], *, operator: str) -> Dataset:
    """The modification list of an N-SET without a status: the series made so far."""
    ds = Dataset()
    # All series each time, because an N-SET replaces the whole sequence.
    by_series = groupby(sorted(images, key=_series), key=_series)
    ds.PerformedSeriesSequence = Items([_performed(uid, list(made), operator) for uid, made in by_series])
    return ds


def finished(status: str, images: Sequence[Sent], *, now: datetime, operator: str, reason: str = "") -> Dataset:
    """The modification list of the final N-SET; by its performed series the gateway checks completeness.

    `reason` is one of REASONS, for a step that is discontinued.
    """
    ds = changed(images, operator=operator)
    ds.PerformedProcedureStepStatus = status
    ds.PerformedProcedureStepEndDate, ds.PerformedProcedureStepEndTime = _date(now), _time(now)
    if not images:
        # Type 1 in the final state: a step without images still has a series (PS3.4 Table F.7.2-1, Note 2).
        ds.PerformedSeriesSequence = [_performed(str(generate_uid()), [], operator)]
    if reason:
        ds.PerformedProcedureStepDiscontinuationReasonCodeSequence = [code(reason, REASONS[reason], "DCM")]
    return ds


def _series(image: Sent) -> str:
    return image.series_instance_uid


def _performed(series_instance_uid: str, images: Sequence[Sent], operator: str) -> Dataset:
    ds = Dataset()
    ds.PerformingPhysicianName, ds.OperatorsName = "", operator
    ds.ProtocolName, ds.SeriesDescription = "Screening", images[0].description if images else ""
    ds.SeriesInstanceUID, ds.RetrieveAETitle = series_instance_uid, ""
    ds.ReferencedImageSequence = _references(image for image in images if not _is_report(image))
    ds.ReferencedNonImageCompositeSOPInstanceSequence = _references(image for image in images if _is_report(image))
    return ds


def _references(images: Iterable[Sent]) -> list[Dataset]:
    return [reference(image.sop_class_uid, image.sop_instance_uid) for image in images]


def _is_report(image: Sent) -> bool:
    return image.sop_class_uid.startswith(_STRUCTURED_REPORTS)


def _date(now: datetime) -> str:
    return now.strftime("%Y%m%d")


def _time(now: datetime) -> str:
    return now.strftime("%H%M%S")
