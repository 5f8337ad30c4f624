"""Two objects under one SOP Instance UID, side by side: what differs, for the person who has to decide between them.

To be run in a worker process: it decodes what anybody may have sent. What it gives holds patient data, for a page that
is shown to somebody who may see the images, and for nothing else.

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
"""What is shown of both, in this order, whether it differs or not."""

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
    """What two objects have in common and what not. `others` names what else differs, at most MOST_NAMES of it."""

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
            pass  # values are converted when they are looked at, and only here may that fail
    except (OSError, Refusal):
        raise
    except Exception as error:  # a parser fed with garbage raises whatever it stumbles over
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
