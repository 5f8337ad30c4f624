"""Reads the identity of a Part 10 file from outside, before it is received.

To be run in a worker process, because it parses files of any author. Not for: checking that the file is complete and
right, which its receipt does (`pacs.archive.receiving`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gateway.errors import InvalidDataSet, Refusal
from pacs.archive.identity import is_uid
from pacs.images.stored_frames import inflated

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
    """Read the identity of a file. Raises InvalidDataSet, with a sentence, when it is no Part 10 file with one."""
    try:
        found = _read(path)
    except (OSError, Refusal):
        raise
    except Exception as error:  # noqa: BLE001  # a parser may raise any exception on garbage
        raise InvalidDataSet(f"This is not a DICOM file that can be read ({type(error).__name__}).") from None
    uids = (found.sop_class_uid, found.sop_instance_uid, found.study_instance_uid, found.transfer_syntax_uid)
    if not all(map(is_uid, uids)):
        raise InvalidDataSet("The file lacks a transfer syntax, or the UID of its class, instance or study.")
    return found


@contextmanager
def unfolded(path: Path) -> Iterator[IO[bytes]]:
    """The data set of a deflated file as it was before (PS3.5 A.5), in a temporary file of bounded length.

    Raises a Refusal when it is longer than that, and what a parser stumbles over.
    """
    with path.open("rb") as file:
        file.seek(_offset(read_file_meta_info(path)))
        with inflated(file) as plain:
            yield plain


def is_deflated(path: Path) -> bool:
    """Is the data set of a Part 10 file deflated? Reads its file meta alone, and raises what a parser stumbles over."""
    return str(read_file_meta_info(path).get("TransferSyntaxUID", "")) == DeflatedExplicitVRLittleEndian


def head(path: Path, tags: list[str] | None = None) -> Dataset:
    """The attributes before the pixel data, or some of them.

    Raises a Refusal as `unfolded`, and any exception of the parser.
    """
    # Not by pydicom alone, because it would unfold a deflated data set however large.
    if not is_deflated(path):
        return dcmread(path, stop_before_pixels=True, specific_tags=tags)
    with unfolded(path) as plain:
        return read_dataset(plain, False, True, stop_when=before_pixels, specific_tags=_numbers(tags))  # type: ignore[arg-type]


def before_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    """Where reading stops: at Float, Double Float or integer Pixel Data, as `dcmread` does."""
    return tag in (0x7FE00008, 0x7FE00009, 0x7FE00010)


def _numbers(tags: list[str] | None) -> list[BaseTag] | None:
    return None if tags is None else [Tag(tag) for tag in tags]


def _offset(meta: FileMetaDataset) -> int:
    return _PREAMBLE + _GROUP_LENGTH + int(meta.FileMetaInformationGroupLength)


def _read(path: Path) -> Part10:
    with path.open("rb") as file:
        if file.read(_PREAMBLE)[128:] != b"DICM":
            raise InvalidDataSet("The file is not a DICOM file (PS3.10 7.1).")
    ds, meta = head(path, _TAGS), read_file_meta_info(path)
    return Part10(
        sop_class_uid=str(ds.get("SOPClassUID", "")),
        sop_instance_uid=str(ds.get("SOPInstanceUID", "")),
        study_instance_uid=str(ds.get("StudyInstanceUID", "")),
        transfer_syntax_uid=str(meta.get("TransferSyntaxUID", "")),
        data_set_offset=_offset(meta),
        size_bytes=path.stat().st_size,
    )
