"""The UIDs that identify a data set, and whether each is well-formed.

Not for: other attributes (`pacs.archive.index`).
"""

import re
from dataclasses import dataclass

from gateway.dataset.dicom_json import DicomJson, verbatim
from gateway.errors import InvalidDataSet

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True, slots=True)
class Identity:
    """The UIDs that a data set needs to be stored."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str


def identity(data_set: DicomJson) -> Identity:
    """Read the UIDs of a data set. Raises InvalidDataSet when one is missing or malformed."""
    return Identity(
        study_instance_uid=_uid(data_set, "0020000D", "Study Instance UID"),
        series_instance_uid=_uid(data_set, "0020000E", "Series Instance UID"),
        sop_instance_uid=_uid(data_set, "00080018", "SOP Instance UID"),
        sop_class_uid=_uid(data_set, "00080016", "SOP Class UID"),
    )


def is_uid(value: str) -> bool:
    """Whether it is a well-formed UID (PS3.5 9.1), but for leading zeros of components."""
    # Leading zeros are accepted, because they are wrong, frequent and harmless.
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def _uid(data_set: DicomJson, tag: str, name: str) -> str:
    value = verbatim(data_set, tag)  # not trimmed, because a UID with white space is malformed and would be stored so
    if not is_uid(value):
        raise InvalidDataSet(f"The data set has no usable {name} ({tag[:4]},{tag[4:]}).")
    return value
