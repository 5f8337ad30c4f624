"""Numbered objects: everything about one follows from its number, so nothing has to be kept to compare it later."""

from collections.abc import Iterator
from functools import cache
from itertools import count
from random import Random
from typing import Final

from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from tests.pacs.archive.test_attributes import encoded
from tests.tools import corpus

SOP_CLASS: Final = str(DigitalMammographyXRayImageStorageForPresentation)
EXPLICIT: Final = str(ExplicitVRLittleEndian)

SIZES: Final = ((500, 20_000), (500, 20_000), (500, 20_000), (500, 20_000), (30_000, 120_000), (300_000, 600_000))
LARGE: Final = (4_100_000, 4_600_000)
"""Bytes of pixels. Every fortieth object is large: its hash is made by the follower thread."""

_PLACE = "2.25.1000000000"
"""Stands for the instance's UID in the template; every UID is as long, so that nothing has to be encoded again."""


def uid(number: int) -> str:
    """The SOP Instance UID of an object."""
    return f"2.25.{1_000_000_001 + number}"


def data_set(number: int) -> bytes:
    """The data set of an object as it is sent; four make a study, and no two have the same pixels."""
    chance = Random(number)
    size = chance.randint(*(LARGE if number % 40 == 39 else chance.choice(SIZES))) // 2 * 2
    head = _head().replace(_PLACE.encode() + b"\0", uid(number).encode() + b"\0")
    head = head.replace(b"2.25.2000000000", f"2.25.{2_000_000_000 + number // 4}".encode())
    return head + b"\xe0\x7f\x10\x00OW\0\0" + size.to_bytes(4, "little") + chance.randbytes(size)


def small() -> Iterator[int]:
    """The numbers of objects that are sent, and written, in one piece."""
    return (number for number in count() if len(data_set(number)) < 16_000)


@cache
def _head() -> bytes:
    described = corpus.data_set(SOPInstanceUID=_PLACE, StudyInstanceUID="2.25.2000000000", PixelData=None)
    return encoded(described, EXPLICIT)
