"""The values that metadata leaves out: finds them in the stored file by the path that metadata gave.

A path is tags and item numbers from 1: `7FE00010`, `00540220/1/00420011`. Values at the top of the data set are slices
of the file and cost no memory; compressed pixels come frame by frame, as PS3.18 Section 8.7.3.5.3 wants them.
"""

from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gateway.errors import NotFound
from pacs import Stored
from relay.dicomweb.negotiation import Body, Slice

PIXEL_DATA = "7FE00010"
UNDEFINED = 0xFFFFFFFF
LONG = 4096
"""Values longer than this stay in the file while the rest is read."""


def value_at(stored: Stored, location: str) -> Body:
    """Give the value at a location. Raises NotFound when the object has none there."""
    try:
        *inside, last = location.split("/")
        ds = _read(stored.path, stored.transfer_syntax_uid)
        for tag, number in zip(inside[::2], inside[1::2], strict=True):
            if int(number) < 1:
                raise ValueError("items are numbered from 1")
            ds = ds[int(tag, 16)].value[int(number) - 1]
        return _body(stored.path, ds, int(last, 16))
    except (KeyError, IndexError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise NotFound("This object has no bulk data at this location.") from error


def _read(path: Path, transfer_syntax_uid: str) -> Dataset:
    # The places of values in a deflated data set are not places in the file.
    return dcmread(path, defer_size=None if transfer_syntax_uid == DeflatedExplicitVRLittleEndian else LONG)


def _body(path: Path, ds: Dataset, tag: int) -> Body:
    element = ds.get_item(tag, keep_deferred=True)
    if isinstance(element, RawDataElement) and element.value is None and element.length != UNDEFINED:
        return Slice(path, element.value_tell, element.length)
    value = ds[tag].value
    if not isinstance(value, bytes):
        raise ValueError("not a binary value")  # noqa: TRY004 - becomes NotFound above
    return value
