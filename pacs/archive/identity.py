"""The UIDs of a data set: what they are, and whether each is one.

Not for: what else the index knows of it (`pacs.archive.index`).
"""

import re
from dataclasses import dataclass

from gateway.dataset.dicom_json import DicomJson, verbatim
from gateway.errors import InvalidDataSet

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs without which a data set has no place in an archive."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str


def identity(data_set: DicomJson) -> Identity:
    """Take the UIDs out of a data set. Raises InvalidDataSet when one is missing or is none."""
    return Identity(
        study_instance_uid=_uid(data_set, "0020000D", "Study Instance UID"),
        series_instance_uid=_uid(data_set, "0020000E", "Series Instance UID"),
        sop_instance_uid=_uid(data_set, "00080018", "SOP Instance UID"),
        sop_class_uid=_uid(data_set, "00080016", "SOP Class UID"),
    )


def is_uid(value: str) -> bool:
    """Is it made like a UID (PS3.5 9.1)? Leading zeros are let pass: they are wrong, frequent and harmless."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _uid(data_set: DicomJson, tag: str, name: str) -> str:
    value = verbatim(data_set, tag)  # a UID with white space around it is none, and would be kept with it
    if not is_uid(value):
        raise InvalidDataSet(f"The data set has no usable {name} ({tag[:4]},{tag[4:]}).")
    return value
