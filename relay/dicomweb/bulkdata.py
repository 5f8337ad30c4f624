"""Bulk data of a stored object, by the path that its metadata gave (PS3.18 Section 10.4.1.1.5).

A path is tags and item numbers from 1: `7FE00010`, `00540220/1/00420011`. A value at the top level of the data set is a
slice of the file and costs no memory.

Not here: compressed pixel data, which is sent as frames (`relay.dicomweb.wado_rs`).
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
"""Bytes; longer values stay in the file while the rest is read."""


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
    # The path is the client's text: a wrong tag, item number or nesting raises any of these in pydicom.
    except (KeyError, IndexError, ValueError, TypeError, OverflowError, AttributeError, RecursionError) as error:
        raise NotFound("This object has no bulk data at this location.") from error


def _read(path: Path, transfer_syntax_uid: str) -> Dataset:
    # Offsets in a deflated data set are not offsets in the file, so nothing of it can be a slice.
    return dcmread(path, defer_size=None if transfer_syntax_uid == DeflatedExplicitVRLittleEndian else LONG)


def _body(path: Path, ds: Dataset, tag: int) -> Body:
    element = ds.get_item(tag, keep_deferred=True)
    # A value of undefined length is fragments or items, not one slice.
    if isinstance(element, RawDataElement) and element.value is None and element.length != UNDEFINED:
        return Slice(path, element.value_tell, element.length)
    value = ds[tag].value
    if not isinstance(value, bytes):
        raise ValueError("not a binary value")  # noqa: TRY004 - becomes NotFound above
    return value
