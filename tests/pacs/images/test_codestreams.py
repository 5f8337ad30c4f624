"""What compressed frames say about themselves, and the lies that would end a decoder's process."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless

from pacs.images import codestreams
from pacs.images.codestreams import Said
from pacs.images.stored_frames import PixelError
from tests.tools import corpus

LOSSLESS = corpus.compressed(corpus.GREY, JPEGLosslessSV1)
TABLE, SCAN = LOSSLESS.index(b"\xff\xc4"), LOSSLESS.index(b"\xff\xda")


def changed(position: int, *values: int) -> bytes:
    return LOSSLESS[:position] + bytes(values) + LOSSLESS[position + len(values) :]


def test_a_frame_says_its_size_and_depth() -> None:
    jpeg = corpus.compressed((corpus.GREY >> 4).astype(np.uint16), JPEGBaseline8Bit)
    assert codestreams.jpeg(jpeg) == Said(40, 32, 1, 8)
    assert codestreams.jpeg(corpus.compressed(corpus.GREY, JPEGLSLossless)) == Said(40, 32, 1, 12)
    assert codestreams.jpeg_lossless(LOSSLESS) == Said(40, 32, 1, 16)
    assert codestreams.jpeg_2000(corpus.compressed(corpus.GREY, JPEG2000Lossless)) == Said(40, 32, 1, 12)
    assert codestreams.jpeg_2000(corpus.GREY_AS_HTJ2K) == Said(40, 32, 1, 16)


def test_fill_bytes_and_comments_are_passed_over() -> None:
    assert codestreams.jpeg_lossless(LOSSLESS[:2] + b"\xff\xff\xff\xfe\x00\x05abc" + LOSSLESS[2:]) == Said(
        40, 32, 1, 16
    )


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (b"", "The compressed frame is not a JPEG image."),
        (LOSSLESS[:30], "The compressed frame is cut off."),
        (changed(TABLE + 1, 0xD7), "The headers of the compressed frame are damaged."),
        (LOSSLESS[:TABLE] + LOSSLESS[SCAN:], "The scan header of the compressed frame is damaged."),  # no table at all
        (changed(TABLE + 4, 0x01), "The scan header of the compressed frame is damaged."),  # another table
        (changed(TABLE + 4, 0x10), "A Huffman table of the compressed frame is damaged."),  # a table of the other kind
        (changed(TABLE + 5, 3), "A Huffman table of the compressed frame is damaged."),  # three codes of one bit
        (changed(TABLE + 21, 17), "A Huffman table of the compressed frame is damaged."),  # no such difference
        (changed(3, 0xC0), "The compressed frame is not a JPEG Lossless image."),
        (changed(SCAN + 7, 0), "The scan header of the compressed frame is damaged."),  # no predictor
        (changed(SCAN + 9, 16), "The scan header of the compressed frame is damaged."),  # shifts everything away
        (LOSSLESS[:2] + LOSSLESS[2:TABLE] * 2 + LOSSLESS[TABLE:], "The compressed frame is not a JPEG image."),
        (
            LOSSLESS[:TABLE] + b"\xff\xdd\x00\x04\x00\x21" + LOSSLESS[TABLE:],
            "The restart interval of the compressed frame is not a number of rows.",
        ),
    ],
)
def test_a_jpeg_lossless_frame_that_would_end_the_decoder_is_refused(frame: bytes, sentence: str) -> None:
    with pytest.raises(PixelError) as refused:
        codestreams.jpeg_lossless(frame)
    assert str(refused.value) == sentence


def test_a_jpeg_2000_frame_of_countless_tiles_is_refused() -> None:
    siz = struct.pack(">HHHH8IHBBB", 0xFF4F, 0xFF51, 41, 0, 4096, 4096, 0, 0, 8, 8, 0, 0, 1, 11, 1, 1)
    with pytest.raises(PixelError) as refused:
        codestreams.jpeg_2000(siz)
    assert str(refused.value) == "The compressed frame has more than 16384 tiles."


@given(st.binary(max_size=200), st.integers(0, 60))
def test_any_bytes_are_understood_or_refused(tail: bytes, kept: int) -> None:
    for read in (codestreams.jpeg, codestreams.jpeg_lossless, codestreams.jpeg_2000):
        for good in (LOSSLESS, corpus.GREY_AS_HTJ2K):
            try:
                said = read(good[:kept] + tail)
            except PixelError:
                continue
            assert isinstance(said, Said)
