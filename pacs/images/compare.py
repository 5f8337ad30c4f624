"""Compares two objects under one SOP Instance UID, for the person who has to decide between them.

To be run in a worker process, because it parses objects of any sender. The result has patient data; it is for a page
whose user may see the images, and for nothing else.

Not for: deciding (`pacs.maintenance.quarantine`), pictures (`pacs.images.pictures`).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_description
from pydicom.filereader import read_dataset

from gateway.errors import InvalidDataSet, Refusal
from pacs.images.part10 import before_pixels, head, is_deflated, unfolded

_WHO = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "AccessionNumber",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "StudyDate",
    "Modality",
    "ImageLaterality",
    "ViewPosition",
    "InstanceNumber",
    "ContentDate",
    "ContentTime",
    "StationName",
)
"""Attributes that are shown of both, in this order, whether they differ or not."""

LONGEST_VALUE = 80
MOST_NAMES = 40


@dataclass(frozen=True, slots=True)
class Compared:
    """One attribute of both; '' where it is absent or empty."""

    name: str
    stored: str
    set_aside: str

    @property
    def differs(self) -> bool:
        return self.stored != self.set_aside


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two objects. `others` names further attributes that differ, at most MOST_NAMES."""

    shown: tuple[Compared, ...]
    others: tuple[str, ...]
    same_pixels: bool
    """The pixel data is the same, byte for byte; also when neither has any."""


def compare(stored: Path, set_aside: Path) -> Comparison:
    """Compare two Part 10 files. Raises OSError, and a Refusal when one cannot be read or unfolds to too much."""
    one, other = _read(stored), _read(set_aside)
    shown = tuple(
        Compared(dictionary_description(keyword), _value(one, keyword), _value(other, keyword)) for keyword in _WHO
    )
    named = {element.tag for element in one if element.keyword not in _WHO} | {
        element.tag for element in other if element.keyword not in _WHO
    }
    others = [_name(one if tag in one else other, tag) for tag in sorted(named) if one.get(tag) != other.get(tag)]
    return Comparison(shown, tuple(others[:MOST_NAMES]), _pixels(stored) == _pixels(set_aside))


def _read(path: Path) -> Dataset:
    try:
        data_set = head(path)
        for _ in data_set.iterall():
            pass  # pydicom converts values at the first access, and a malformed one must fail here
    except (OSError, Refusal):
        raise
    except Exception as error:  # a parser may raise any exception on garbage
        raise InvalidDataSet(f"The object cannot be read ({type(error).__name__}).") from error
    return data_set


def _pixels(path: Path) -> str:
    """The digest of everything from the pixel data on, unfolded where it is deflated."""
    if is_deflated(path):
        with unfolded(path) as plain:
            read_dataset(plain, False, True, stop_when=before_pixels)  # type: ignore[arg-type]
            return hashlib.file_digest(plain, "sha256").hexdigest()  # type: ignore[arg-type]
    with path.open("rb") as file:
        dcmread(file, stop_before_pixels=True)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _value(data_set: Dataset, keyword: str) -> str:
    value = data_set.get(keyword)
    return "" if value is None else str(value)[:LONGEST_VALUE]


def _name(data_set: Dataset, tag: int) -> str:
    element = data_set[tag]
    return element.name if element.keyword else str(element.tag)
