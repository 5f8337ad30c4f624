"""The values that metadata leaves out: finds them in the stored file by the path that metadata gave.

A path is tags and item numbers from 1: `7FE00010`, `00540220/1/00420011`. Values at the top of the data set are slices
of the file and cost no memory; compressed pixels come frame by frame, as PS3.18 Section 8.7.3.5.3 wants them.
"""

from collections.abc import Iterator
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from gateway.errors import NotFound
from pacs import Stored, frames
from relay import wado
from relay.wado import Body, Part, Slice

PIXEL_DATA = "7FE00010"
LONG = 4096
"""Values longer than this stay in the file while the rest is read."""


def bulk_data(stored: Stored, location: str) -> Iterator[Part]:
    """Give the value at a location. Raises NotFound when the object has none there."""
    if location == PIXEL_DATA and UID(stored.transfer_syntax_uid).is_encapsulated:
        for frame in frames(stored.path, range(1, stored.frames + 1)):
            yield Part(wado.part_type(frame.media_type, frame.transfer_syntax_uid), frame.data)
    else:
        yield Part(wado.part_type(wado.OCTETS, stored.transfer_syntax_uid), _value(stored, location))


def _value(stored: Stored, location: str) -> Body:
    try:
        *inside, last = location.split("/")
        ds = _read(stored.path, stored.transfer_syntax_uid)
        for tag, number in zip(inside[::2], inside[1::2], strict=True):
            ds = ds[int(tag, 16)].value[int(number) - 1]
        return _body(stored.path, ds, int(last, 16))
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise NotFound("This object has no bulk data at this location.") from error


def _read(path: Path, transfer_syntax_uid: str) -> Dataset:
    # The places of values in a deflated data set are not places in the file.
    return dcmread(path, defer_size=None if transfer_syntax_uid == DeflatedExplicitVRLittleEndian else LONG)


def _body(path: Path, ds: Dataset, tag: int) -> Body:
    element = ds.get_item(tag, keep_deferred=True)
    if isinstance(element, RawDataElement) and element.value is None:
        return Slice(path, element.value_tell, element.length)
    value = ds[tag].value
    if not isinstance(value, bytes):
        raise ValueError("not a binary value")  # noqa: TRY004 - becomes NotFound above
    return value
