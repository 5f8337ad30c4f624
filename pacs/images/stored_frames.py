"""Finds the frames of a stored object in its file, and reads one frame at a time.

A header is used only after it was checked against the limits below and the length of the file. A tomosynthesis of a
gigabyte takes the memory of one frame.

Not for: decoding a frame (`decoding`), grey values (`grayscale`).
"""

import io
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import IO, ClassVar

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from gateway.errors import NotFound, Refusal

# Limits, because objects come from any peer that may open an association, and nothing is allocated before the check.
LARGEST_FRAME = 64 * 1024 * 1024
"""Most samples of one frame (rows x columns x samples per pixel); the largest mammograms have 28 million."""

LARGEST_HEADER = 16 * 1024 * 1024
"""Most bytes read before the pixels; values above LARGEST_VALUE are skipped and do not count."""

LARGEST_VALUE = 1024 * 1024
"""Attributes above this are skipped: nothing that a picture needs is larger (a LUT has at most 128 kB)."""

LARGEST_INFLATED = 512 * 1024 * 1024
"""Most bytes a deflated data set may unfold to; they are kept in a temporary file."""

MOST_FRAMES = 65_536
MOST_FRAGMENTS = 1_000_000

_INFLATED_IN_MEMORY = 64 * 1024 * 1024
_ITEM, _DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_FIRST_PIXEL_TAG = 0x7FE00008
"""Float, Double Float and integer Pixel Data are (7FE0,0008), (7FE0,0009) and (7FE0,0010)."""

_UNDEFINED = 0xFFFFFFFF
_FRAME_STARTS = (b"\xff\xd8", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
"""How a JPEG or JPEG-LS image, a JPEG 2000 codestream and a JP2 file begin."""

MEDIA_TYPES: Mapping[str, str] = {
    ImplicitVRLittleEndian: "application/octet-stream",
    ExplicitVRLittleEndian: "application/octet-stream",
    DeflatedExplicitVRLittleEndian: "application/octet-stream",
    JPEGBaseline8Bit: "image/jpeg",
    JPEGExtended12Bit: "image/jpeg",
    JPEGLossless: "image/jpeg",
    JPEGLosslessSV1: "image/jpeg",
    JPEGLSLossless: "image/jls",
    JPEGLSNearLossless: "image/jls",
    JPEG2000Lossless: "image/jp2",
    JPEG2000: "image/jp2",
    HTJ2KLossless: "image/jphc",
    HTJ2KLosslessRPCL: "image/jphc",
    HTJ2K: "image/jphc",
    RLELossless: "image/dicom-rle",
}
"""Every transfer syntax that is understood, with the media type of its frames (PS3.18 Table 8.7.3-5)."""

NATIVE = frozenset(uid for uid, media_type in MEDIA_TYPES.items() if media_type == "application/octet-stream")


class PixelError(Refusal):
    """A stored object has no picture that can be given: no pixels, damaged, beyond the limits, or not decodable."""

    dimse_status: ClassVar[int] = 0x0110
    http_status: ClassVar[int] = 406
    code: ClassVar[str] = "no_picture"


@dataclass(frozen=True)
class Layout:
    """The Image Pixel module (PS3.3 C.7.6.3) of an object, after checking."""

    rows: int
    columns: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    planar: int
    frames: int

    @property
    def frame_length(self) -> int:
        """Bytes of an uncompressed frame; YBR_FULL_422 shares colour between two pixels (PS3.3 C.7.6.3.1.2)."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.rows * self.columns * samples * self.bits_allocated // 8


@dataclass(frozen=True)
class Fragment:
    """A piece of encapsulated pixel data: where its value is in the file, how long it is, and how it begins."""

    offset: int
    length: int
    start: bytes


@dataclass(frozen=True)
class Extent:
    """Bytes of a file."""

    offset: int
    length: int


@dataclass(frozen=True)
class StoredFrames:
    """An open object: its attributes up to the pixels, and its frames by number, counted from 1."""

    header: Dataset
    layout: Layout
    transfer_syntax_uid: str
    file: IO[bytes]
    begin: int
    """Where the value of Pixel Data begins."""

    def check(self, number: int) -> None:
        """Raise NotFound for a number the object does not have, PixelError when its frames cannot be found."""
        if not 1 <= number <= self.layout.frames:
            raise NotFound(f"The object has {self.layout.frames} frames; there is no frame {number}.")
        if self.transfer_syntax_uid not in NATIVE:
            self._check_frame(self._frames[number - 1])

    def read(self, number: int) -> bytes:
        """Return one frame as it is stored. Raises NotFound for a number the object does not have."""
        return b"".join(self._bytes(extent) for extent in self.extents(number))

    def extents(self, number: int) -> tuple[Extent, ...]:
        """Say where the bytes of a frame are in `file`, one after the other. Raises as `check`."""
        self.check(number)
        if self.transfer_syntax_uid in NATIVE:
            length = self.layout.frame_length
            return (Extent(self.begin + (number - 1) * length, length),)
        return tuple(Extent(piece.offset, piece.length) for piece in self._frames[number - 1])

    def _check_frame(self, pieces: Sequence[Fragment]) -> None:
        if sum(piece.length for piece in pieces) > 2 * self.layout.frame_length + 65_536:
            # Twice the size and some, because noise may grow when it is compressed.
            raise PixelError("A compressed frame is larger than the uncompressed one would be.")

    @cached_property
    def _frames(self) -> list[list[Fragment]]:
        table, fragments = _fragments(self.file, self.begin)
        return grouped(fragments, frames=self.layout.frames, table=table)

    def _bytes(self, extent: Extent) -> bytes:
        self.file.seek(extent.offset)
        value = self.file.read(extent.length)
        if len(value) < extent.length:
            raise PixelError("The pixel data is cut off.")
        return value


@contextmanager
def opened(path: Path) -> Iterator[StoredFrames]:
    """Open a Part 10 file as frames. Raises PixelError when it has none, or a header that cannot be true."""
    with ExitStack() as stack:
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        transfer_syntax_uid = _transfer_syntax(file)
        if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            file = stack.enter_context(inflated(file))
        header = read_dataset(
            _Bounded(file),  # type: ignore[arg-type]  # it reads, seeks and tells, more is not used
            transfer_syntax_uid == ImplicitVRLittleEndian,
            True,
            stop_when=lambda tag, _vr, _length: tag >= _FIRST_PIXEL_TAG,
            defer_size=LARGEST_VALUE,
        )
        length = _pixel_data_length(file, header)
        layout = _layout(header)
        _check_length(length, layout, native=transfer_syntax_uid in NATIVE, available=_size(file) - file.tell())
        yield StoredFrames(header, layout, transfer_syntax_uid, file=file, begin=file.tell())


class _Bounded:
    """A file of which at most LARGEST_HEADER bytes can be read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = LARGEST_HEADER
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self._left:
            raise PixelError(f"The attributes before the pixels are larger than {LARGEST_HEADER} bytes.")
        self._left -= size
        return self._file.read(size)


def _transfer_syntax(file: IO[bytes]) -> str:
    """Read the file meta group and leave the file behind it."""
    file.seek(128)
    if file.read(4) != b"DICM":
        raise PixelError("The file is not a DICOM file (PS3.10 7.1).")
    meta = read_dataset(
        _Bounded(file),  # type: ignore[arg-type]
        False,
        True,
        stop_when=lambda tag, _vr, _length: tag >> 16 != 2,
    )
    uid = str(meta.get("TransferSyntaxUID", ""))
    if uid not in MEDIA_TYPES:
        raise PixelError("The transfer syntax is not one of those that are understood.")
    return uid


@contextmanager
def inflated(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Inflate the rest of a deflated file (PS3.5 A.5) piece by piece into a temporary one.

    Raises PixelError when that gets larger than LARGEST_INFLATED, zlib.error when it is damaged.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    with tempfile.SpooledTemporaryFile(max_size=_INFLATED_IN_MEMORY) as plain:
        while piece := inflater.unconsumed_tail or file.read(65_536):
            plain.write(inflater.decompress(piece, 1024 * 1024))
            if plain.tell() > LARGEST_INFLATED:
                raise PixelError(f"The deflated data set unfolds to more than {LARGEST_INFLATED} bytes.")
        plain.write(inflater.flush())
        plain.seek(0)
        yield plain


def _pixel_data_length(file: IO[bytes], header: Dataset) -> int:
    """Read the head of Pixel Data and leave the file at its value; returns the stated length."""
    if file.read(4) != _PIXEL_DATA:
        raise PixelError("The object has no Pixel Data (7FE0,0010).")
    implicit, _little = header.original_encoding
    head = file.read(4 if implicit else 8)
    if len(head) < 4:
        raise PixelError("The pixel data is cut off.")
    return int.from_bytes(head[-4:], "little")


def _check_length(length: int, layout: Layout, *, native: bool, available: int) -> None:
    if not native:
        if length != _UNDEFINED:
            raise PixelError("Compressed pixel data is not encapsulated (PS3.5 A.4).")
        return
    if length == _UNDEFINED or length > available:
        raise PixelError("The pixel data is cut off.")
    if length < layout.frames * layout.frame_length:
        raise PixelError("Rows, Columns and Number of Frames say more pixels than there are.")


def _size(file: IO[bytes]) -> int:
    here = file.tell()
    end = file.seek(0, io.SEEK_END)
    file.seek(here)
    return end


def _layout(header: Dataset) -> Layout:
    layout = Layout(
        rows=_integer(header, "Rows"),
        columns=_integer(header, "Columns"),
        samples=_integer(header, "SamplesPerPixel", default=1),
        photometric=str(header.get("PhotometricInterpretation", "")),
        bits_allocated=_integer(header, "BitsAllocated"),
        bits_stored=_integer(header, "BitsStored"),
        high_bit=_integer(header, "HighBit", default=_integer(header, "BitsStored") - 1),
        signed=_integer(header, "PixelRepresentation", default=0) == 1,
        planar=_integer(header, "PlanarConfiguration", default=0),
        frames=_integer(header, "NumberOfFrames", default=1),
    )
    for fits, sentence in _rules(layout):
        if not fits:
            raise PixelError(sentence)
    return layout


def _rules(it: Layout) -> Iterator[tuple[bool, str]]:
    """The conditions on these numbers, checked before anything is allocated (PS3.3 C.7.6.3, PS3.5 8.1.1)."""
    yield it.rows > 0 and it.columns > 0, "Rows and Columns must be positive."
    yield it.samples in (1, 3), "Samples per Pixel must be 1 or 3."
    yield it.bits_allocated in (8, 16, 32), "Bits Allocated must be 8, 16 or 32."
    yield 0 < it.bits_stored <= it.bits_allocated, "Bits Stored does not fit into Bits Allocated."
    yield it.bits_stored - 1 <= it.high_bit < it.bits_allocated, "High Bit does not fit Bits Stored and Bits Allocated."
    yield 1 <= it.frames <= MOST_FRAMES, f"Number of Frames must be 1 to {MOST_FRAMES}."
    yield it.rows * it.columns * it.samples <= LARGEST_FRAME, f"A frame may have at most {LARGEST_FRAME} samples."
    yield it.photometric != "YBR_FULL_422" or it.columns % 2 == 0, "YBR_FULL_422 needs an even number of columns."


def _integer(header: Dataset, keyword: str, *, default: int | None = None) -> int:
    value = header.get(keyword)
    if value is None or value == "":
        value = default
    if not isinstance(value, int):
        raise PixelError(f"{keyword} is missing or not one whole number.")
    return int(value)


def _fragments(file: IO[bytes], begin: int) -> tuple[frozenset[int], list[Fragment]]:
    """Walk over encapsulated pixel data: where the Basic Offset Table says that frames begin, and every fragment."""
    end = _size(file)
    items = list(_items(file, begin, end))
    if not items:
        raise PixelError("The encapsulated pixel data has no Basic Offset Table item (PS3.5 A.4).")
    first, *fragments = items
    file.seek(first.offset)
    table = file.read(min(first.length, 4 * MOST_FRAMES)) if first.length % 4 == 0 else b""
    base = first.offset + first.length + 8
    starts = frozenset(base + offset for (offset,) in struct.iter_unpack("<I", table))
    return starts, [fragment for fragment in fragments if fragment.length]


def _items(file: IO[bytes], begin: int, end: int) -> Iterator[Fragment]:
    position = begin
    for _ in range(MOST_FRAGMENTS):
        file.seek(position)
        head = file.read(20)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == _DELIMITER:
            return
        if head[:4] != _ITEM or position + 8 + length > end:
            raise PixelError("The encapsulated pixel data is damaged or cut off.")
        yield Fragment(position + 8, length, head[8:])
        position += 8 + length
    raise PixelError(f"The pixel data has more than {MOST_FRAGMENTS} fragments.")


def grouped(fragments: Sequence[Fragment], *, frames: int, table: frozenset[int]) -> list[list[Fragment]]:
    """Say which fragments make which frame (PS3.5 A.4).

    One frame has them all; as many fragments as frames are one each (an Extended Offset Table requires that). Otherwise
    a frame begins at an offset of the Basic Offset Table, or else at a fragment that begins like an image.
    """
    if frames == 1 and fragments:
        return [list(fragments)]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    by_table = [index for index, fragment in enumerate(fragments) if fragment.offset in table]
    by_start = [index for index, fragment in enumerate(fragments) if fragment.start.startswith(_FRAME_STARTS)]
    for begins in (by_table, by_start):
        if len(begins) == frames and begins[0] == 0:
            return [list(fragments[here:there]) for here, there in pairwise([*begins, len(fragments)])]
    raise PixelError(f"It cannot be told which of {len(fragments)} fragments belong to which of {frames} frames.")
