"""What a Part 10 file that comes from outside says it is, before anybody takes it.

To be run in a worker process: it reads what anybody may have written. Not here: whether it is whole and right; the
archive sees to that when it receives the data set (`pacs.receiving`).
"""

from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread

from gateway.errors import InvalidDataSet, Refusal
from pacs.identity import is_uid

_PREAMBLE = 132
_GROUP_LENGTH = 12
"""Bytes of the element (0002,0000), behind which as many bytes of file meta follow as it says (PS3.10 7.1)."""

_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"]


@dataclass(frozen=True, slots=True)
class Part10:
    """The identity of a file, and where in it the data set begins."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    size_bytes: int


def read_part10(path: Path) -> Part10:
    """Read what a file is. Raises InvalidDataSet, with a sentence, when it is no Part 10 file with an identity."""
    try:
        found = _read(path)
    except (OSError, Refusal):
        raise
    except Exception as error:  # noqa: BLE001  # a parser fed with garbage raises whatever it stumbles over
        raise InvalidDataSet(f"This is not a DICOM file that can be read ({type(error).__name__}).") from None
    uids = (found.sop_class_uid, found.sop_instance_uid, found.study_instance_uid, found.transfer_syntax_uid)
    if not all(map(is_uid, uids)):
        raise InvalidDataSet("The file lacks a transfer syntax, or the UID of its class, instance or study.")
    return found


def _read(path: Path) -> Part10:
    with path.open("rb") as file:
        if file.read(_PREAMBLE)[128:] != b"DICM":
            raise InvalidDataSet("The file is not a DICOM file (PS3.10 7.1).")
    ds = dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    return Part10(
        sop_class_uid=str(ds.get("SOPClassUID", "")),
        sop_instance_uid=str(ds.get("SOPInstanceUID", "")),
        study_instance_uid=str(ds.get("StudyInstanceUID", "")),
        transfer_syntax_uid=str(ds.file_meta.get("TransferSyntaxUID", "")),
        data_set_offset=_PREAMBLE + _GROUP_LENGTH + int(ds.file_meta.FileMetaInformationGroupLength),
        size_bytes=path.stat().st_size,
    )
