"""PS3.4 Table F.7.2-1: the attributes of a performed procedure step in N-CREATE, in N-SET and in the final state.

`TABLE` is the table as far as it binds an SCU; the functions are its three columns. They are lenient where a refusal
would stop an exam for an attribute that is not needed:

* Type 2 attributes may be missing; the step has them, empty.
* Protocol Name and other descriptions of a series may be missing; UIDs of studies, series and instances may not.
* An attribute that N-SET may not carry is accepted when it repeats the stored value.
* Attributes outside the table are kept, also those that N-CREATE did not announce.

Data sets are DICOM JSON. Not for: the state machine of a step (`worklist.mpps`).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from pydicom.datadict import dictionary_VR, tag_for_keyword

from gateway.dataset.dicom_json import DicomJson, element, items, sequence, tag, text, texts
from gateway.errors import ClassMismatch, InvalidValue, MissingAttribute, MissingValue, NotAllowed
from gateway.query.conditions import Kind
from gateway.query.matching import column_value

SOP_CLASS = "1.2.840.10008.3.1.2.3.3"
"""Modality Performed Procedure Step SOP Class."""

STATUS = "PerformedProcedureStepStatus"
SERIES = "PerformedSeriesSequence"
SCHEDULED = "ScheduledStepAttributesSequence"
REFERENCES = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")

Type = Literal["1", "2", "3", "-"]
"""Requirement types of PS3.4 5.4.2; `-` is "not allowed"."""


class Row(NamedTuple):
    """The requirement types of an attribute: in N-CREATE, in N-SET, and in the final state."""

    keyword: str
    create: Type
    set: Type
    final: Type = "3"


TABLE = (
    Row(SCHEDULED, "1", "-"),
    Row("PatientName", "2", "-"),
    Row("PatientID", "2", "-"),
    Row("IssuerOfPatientID", "3", "-"),
    Row("IssuerOfPatientIDQualifiersSequence", "3", "-"),
    Row("OtherPatientIDsSequence", "3", "-"),
    Row("PatientBirthDate", "2", "-"),
    Row("PatientSex", "2", "-"),
    Row("ReferencedPatientSequence", "2", "-"),
    Row("AdmissionID", "3", "-"),
    Row("IssuerOfAdmissionIDSequence", "3", "-"),
    Row("ServiceEpisodeID", "3", "-"),
    Row("IssuerOfServiceEpisodeIDSequence", "3", "-"),
    Row("ServiceEpisodeDescription", "3", "-"),
    Row("PerformedProcedureStepID", "1", "-"),
    Row("PerformedStationAETitle", "1", "-"),
    Row("PerformedStationName", "2", "-"),
    Row("PerformedLocation", "2", "-"),
    Row("PerformedProcedureStepStartDate", "1", "-"),
    Row("PerformedProcedureStepStartTime", "1", "-"),
    Row(STATUS, "1", "3", "1"),
    Row("PerformedProcedureStepDescription", "2", "3"),
    Row("PerformedProcedureTypeDescription", "2", "3"),
    Row("ProcedureCodeSequence", "2", "3"),
    Row("ReasonForPerformedProcedureCodeSequence", "3", "3"),
    Row("PerformedProcedureStepEndDate", "2", "3", "1"),
    Row("PerformedProcedureStepEndTime", "2", "3", "1"),
    Row("CommentsOnThePerformedProcedureStep", "3", "3"),
    Row("PerformedProcedureStepDiscontinuationReasonCodeSequence", "3", "3"),
    Row("Modality", "1", "-"),
    Row("StudyID", "2", "-"),
    Row("PerformedProtocolCodeSequence", "2", "3"),
    Row(SERIES, "2", "3", "1"),
)

# UIDs only, because the completeness of an exam rests on them and on no description.
WITHIN: Mapping[str, tuple[str, ...]] = {
    SCHEDULED: ("StudyInstanceUID",),
    SERIES: ("SeriesInstanceUID",),
    REFERENCES[0]: ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    REFERENCES[1]: ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
}
"""Attributes of Type 1 within the items of a sequence, whenever it has items."""

_UID = re.compile(r"[0-9.]{1,64}")
_KINDS = {"DA": Kind.DATE, "TM": Kind.TIME}
_REFERENCES = frozenset(map(tag, REFERENCES))


def check_created(data_set: DicomJson, mpps_instance_uid: str) -> None:
    """Refuse an N-CREATE that lacks an attribute of Type 1 or has a wrong value (PS3.7 10.1.5.1.6).

    Raises MissingAttribute, MissingValue, InvalidValue or ClassMismatch.
    """
    _check_identity(data_set, mpps_instance_uid)
    _require(data_set, (row.keyword for row in TABLE if row.create == "1"))
    _check_values(data_set)


def completed(data_set: DicomJson) -> DicomJson:
    """The data set with the missing attributes of Type 2, empty."""
    missing = (row.keyword for row in TABLE if row.create == "2" and tag(row.keyword) not in data_set)
    return data_set | {tag(name): sequence() if dictionary_VR(name) == "SQ" else element(name) for name in missing}


def check_set(stored: DicomJson, data_set: DicomJson, mpps_instance_uid: str) -> None:
    """Refuse an N-SET that changes a fixed attribute or has a wrong value. Raises Refusals of PS3.7 10.1.3.1.9."""
    _check_identity(data_set, mpps_instance_uid)
    for row in TABLE:
        key = tag(row.keyword)
        # Repeating the stored value passes, because modalities send whole data sets again, and a refusal would leave
        # the exam open in front of a participant.
        if row.set == "-" and key in data_set and data_set[key] != stored.get(key):
            raise NotAllowed(f"{row.keyword} may not be set by N-SET.", offending=offending(row.keyword))
    _check_values(data_set)


def check_final(data_set: DicomJson) -> None:
    """Refuse a final state without its required attributes. Raises MissingAttribute or MissingValue."""
    _require(data_set, (row.keyword for row in TABLE if row.final == "1"))


def offending(keyword: str) -> tuple[int, ...]:
    """The tag for Offending Element (0000,0901)."""
    number = tag_for_keyword(keyword)
    return () if number is None else (int(number),)


def _check_identity(data_set: DicomJson, mpps_instance_uid: str) -> None:
    # Class and instance are of the command; a data set that names them, too, has to agree.
    for keyword, expected in (("SOPClassUID", SOP_CLASS), ("SOPInstanceUID", mpps_instance_uid)):
        if text(data_set, keyword) not in ("", expected):
            raise ClassMismatch(f"{keyword} is not that of the request.", offending=offending(keyword))


def _check_values(data_set: DicomJson) -> None:
    for keyword, required in WITHIN.items():
        for item in items(data_set, keyword):
            _require(item, required)
            for uid in required:
                if not _UID.fullmatch(text(item, uid)):
                    raise InvalidValue(f"{uid} has to be a UID.", offending=offending(uid))
            _check_values({key: value for key, value in item.items() if key in _REFERENCES})
    for row in TABLE:
        kind, value = _KINDS.get(dictionary_VR(row.keyword)), text(data_set, row.keyword)
        if kind and value and not column_value(kind, value):
            raise InvalidValue(f"{row.keyword} has to be a {kind}.", offending=offending(row.keyword))


def _require(data_set: DicomJson, keywords: Iterable[str]) -> None:
    for keyword in keywords:
        if tag(keyword) not in data_set:
            raise MissingAttribute(f"{keyword} is missing.", offending=offending(keyword))
        if not (texts(data_set, keyword) or items(data_set, keyword)):
            raise MissingValue(f"{keyword} has no value.", offending=offending(keyword))
