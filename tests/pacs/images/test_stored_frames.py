"""Where frames lie: every way to encapsulate them, and every header that must not be believed."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
)

from gateway.errors import NotFound
from pacs.images.stored_frames import Fragment, PixelError, grouped, opened
from tests.tools import corpus

FRAMES = [(corpus.GREY + step).astype(np.uint16) % 4096 for step in (0, 100, 200)]


def stored_frames(path: Path) -> list[bytes]:
    with opened(path) as stored:
        return [stored.read(number) for number in range(1, stored.layout.frames + 1)]


def refusal(path: Path) -> str:
    with pytest.raises(PixelError) as refused:
        stored_frames(path)
    return str(refused.value)


@pytest.mark.parametrize("syntax", corpus.NATIVE)
def test_native_frames_are_found_by_arithmetic(tmp_path: Path, syntax: str) -> None:
    path = corpus.write(tmp_path / "a.dcm", corpus.data_set(*FRAMES, transfer_syntax_uid=syntax))
    assert stored_frames(path) == [frame.tobytes() for frame in FRAMES]


# An Extended Offset Table allows only one fragment per frame (PS3.3 C.7.6.3.1.8).
@pytest.mark.parametrize(
    ("table", "fragments"), [("basic", 1), ("basic", 3), ("none", 1), ("none", 3), ("extended", 1)]
)
def test_compressed_frames_are_found_with_any_offset_table(tmp_path: Path, table: str, fragments: int) -> None:
    encoded = [corpus.compressed(frame, JPEGLSLossless) for frame in FRAMES]
    ds = corpus.data_set(*FRAMES, transfer_syntax_uid=JPEGLSLossless)
    corpus.set_compressed(ds, encoded, table=table, fragments_per_frame=fragments)
    found = stored_frames(corpus.write(tmp_path / "a.dcm", ds))
    assert [frame.rstrip(b"\0") for frame in found] == [frame.rstrip(b"\0") for frame in encoded]


def test_a_single_frame_has_all_fragments(tmp_path: Path) -> None:
    encoded = corpus.compressed(corpus.GREY, JPEG2000Lossless)
    ds = corpus.data_set(transfer_syntax_uid=JPEG2000Lossless)
    corpus.set_compressed(ds, [encoded], table="none", fragments_per_frame=7)
    assert [frame.rstrip(b"\0") for frame in stored_frames(corpus.write(tmp_path / "a.dcm", ds))] == [encoded]


def piece(offset: int, start: bytes = b"") -> Fragment:
    return Fragment(offset, 10, start)


IMAGE = b"\xff\xd8"


@pytest.mark.parametrize(
    ("fragments", "frames", "table", "offsets"),
    [
        ([piece(8), piece(26)], 1, {8}, [[8, 26]]),
        ([piece(8), piece(26)], 2, set(), [[8], [26]]),
        ([piece(8), piece(26), piece(44)], 2, {8, 44}, [[8, 26], [44]]),
        ([piece(8, IMAGE), piece(26), piece(44, IMAGE)], 2, set(), [[8, 26], [44]]),
        ([piece(8, IMAGE), piece(26), piece(44, IMAGE)], 2, {8, 27}, [[8, 26], [44]]),  # the table is wrong
    ],
)
def test_fragments_are_grouped_into_frames(
    fragments: list[Fragment], frames: int, table: set[int], offsets: list[list[int]]
) -> None:
    groups = grouped(fragments, frames=frames, table=frozenset(table))
    assert [[fragment.offset for fragment in group] for group in groups] == offsets


def test_fragments_that_belong_nowhere_are_refused() -> None:
    with pytest.raises(PixelError) as refused:
        grouped([piece(8), piece(26), piece(44)], frames=2, table=frozenset())
    assert str(refused.value) == "It cannot be told which of 3 fragments belong to which of 2 frames."


@pytest.mark.parametrize("number", [0, -1, 4])
def test_a_frame_that_is_not_there_is_not_found(tmp_path: Path, number: int) -> None:
    path = corpus.write(tmp_path / "a.dcm", corpus.data_set(*FRAMES))
    with opened(path) as stored, pytest.raises(NotFound) as refused:
        stored.read(number)
    assert str(refused.value) == f"The object has 3 frames; there is no frame {number}."


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"Rows": 0}, "Rows and Columns must be positive."),
        ({"Rows": None}, "Rows is missing or not one whole number."),
        ({"Rows": 65535, "Columns": 65535}, "A frame may have at most 67108864 samples."),
        ({"Rows": 4000, "Columns": 3000}, "Rows, Columns and Number of Frames say more pixels than there are."),
        ({"NumberOfFrames": 2}, "Rows, Columns and Number of Frames say more pixels than there are."),
        ({"NumberOfFrames": 2000000000}, "Number of Frames must be 1 to 65536."),
        ({"NumberOfFrames": -1}, "Number of Frames must be 1 to 65536."),
        ({"BitsAllocated": 12}, "Bits Allocated must be 8, 16 or 32."),
        ({"BitsStored": 17}, "Bits Stored does not fit into Bits Allocated."),
        ({"HighBit": 16}, "High Bit does not fit Bits Stored and Bits Allocated."),
        ({"HighBit": 3}, "High Bit does not fit Bits Stored and Bits Allocated."),
        ({"SamplesPerPixel": 4}, "Samples per Pixel must be 1 or 3."),
        ({"PixelData": None}, "The object has no Pixel Data (7FE0,0010)."),
    ],
)
def test_a_header_that_cannot_be_is_refused_before_anything_is_read(
    tmp_path: Path, attributes: dict[str, Any], sentence: str
) -> None:
    assert refusal(corpus.write(tmp_path / "a.dcm", corpus.data_set(**attributes))) == sentence


def cut(data: bytes) -> bytes:
    return data[:-100]


def without_delimiter(data: bytes) -> bytes:
    return data[:-8]


def endless_item(data: bytes) -> bytes:
    first_item = data.index(b"\xe0\x7f\x10\x00") + 12
    return data[: first_item + 12] + b"\xff\xff\xff\x7f" + data[first_item + 16 :]


@pytest.mark.parametrize(
    ("syntax", "damage", "sentence"),
    [
        (ExplicitVRLittleEndian, cut, "The pixel data is cut off."),
        (JPEG2000Lossless, cut, "The encapsulated pixel data is damaged or cut off."),
        (JPEG2000Lossless, without_delimiter, "The encapsulated pixel data is damaged or cut off."),
        (JPEG2000Lossless, endless_item, "The encapsulated pixel data is damaged or cut off."),
        (JPEG2000Lossless, lambda _: b"", "The file is not a DICOM file (PS3.10 7.1)."),
        (JPEG2000Lossless, lambda data: data[:200], "The transfer syntax is not one of those that are understood."),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, syntax: str, damage: Callable[[bytes], bytes], sentence: str
) -> None:
    path = corpus.write(tmp_path / "a.dcm", corpus.data_set(transfer_syntax_uid=syntax))
    path.write_bytes(damage(path.read_bytes()))
    assert refusal(path) == sentence


def test_a_compressed_frame_larger_than_the_picture_is_refused(tmp_path: Path) -> None:
    ds = corpus.data_set(transfer_syntax_uid=JPEG2000Lossless)
    corpus.set_compressed(ds, [b"\xff\x4f\xff\x51" + bytes(100_000)])
    path = corpus.write(tmp_path / "a.dcm", ds)
    with opened(path) as stored, pytest.raises(PixelError) as refused:
        stored.check(1)
    assert str(refused.value) == "A compressed frame is larger than the uncompressed one would be."


def test_big_endian_is_not_one_of_ours(tmp_path: Path) -> None:
    path = corpus.write(tmp_path / "a.dcm", corpus.data_set())
    # The same length: "1.2.840.10008.1.2.1" and "1.2.840.10008.1.2.2".
    path.write_bytes(path.read_bytes().replace(ExplicitVRLittleEndian.encode(), ExplicitVRBigEndian.encode(), 1))
    assert refusal(path) == "The transfer syntax is not one of those that are understood."


def test_a_deflated_bomb_is_refused(tmp_path: Path) -> None:
    """Half a megabyte that unfolds to 600 MB; only the limit is read of it, and that goes to a temporary file."""
    path = corpus.write(tmp_path / "a.dcm", corpus.data_set(transfer_syntax_uid=DeflatedExplicitVRLittleEndian))
    whole = path.read_bytes()
    meta_length = 128 + 4 + 12 + struct.unpack_from("<I", whole, 140)[0]
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    megabyte = deflate.compress(bytes(1024 * 1024)) + deflate.flush(zlib.Z_FULL_FLUSH)  # stands for itself
    bomb = 600 * megabyte + deflate.flush()
    path.write_bytes(whole[:meta_length] + bomb)
    assert refusal(path) == "The deflated data set unfolds to more than 536870912 bytes."


def test_endless_attributes_are_refused(tmp_path: Path) -> None:
    ds = corpus.data_set()
    for element in range(0x1000, 0x1020):
        ds.add_new((0x0009, element), "OB", bytes(1024 * 1024 - 2))
    assert refusal(corpus.write(tmp_path / "a.dcm", ds)) == (
        "The attributes before the pixels are larger than 16777216 bytes."
    )


def test_a_large_value_before_the_pixels_is_skipped(tmp_path: Path) -> None:
    ds = corpus.data_set()
    for element in range(0x1000, 0x1003):
        ds.add_new((0x0009, element), "OB", bytes(20 * 1024 * 1024))
    assert stored_frames(corpus.write(tmp_path / "a.dcm", ds)) == [corpus.GREY.tobytes()]
