"""Every accepted transfer syntax gives the same pixels; frames that contradict their header are not decoded."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpeg_ls import encode_array as encode_jpeg_ls
from numpy.typing import NDArray
from openjpeg.utils import encode_array
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pacs.images.decoding import decode
from pacs.images.stored_frames import PixelError, opened
from tests.tools import corpus

COLOUR = np.stack([corpus.GREY >> 4, 255 - (corpus.GREY >> 4), corpus.GREY % 200], axis=-1).astype(np.uint8)

_row, _column = np.mgrid[0:40, 0:32]
SMOOTH = np.stack([_row * 6, _column * 7, 240 - _row * 3], axis=-1).astype(np.uint8)
"""Colours that halved chrominance does not spoil."""


def decoded(path: Path, ds: Dataset, number: int = 1) -> NDArray[np.unsignedinteger]:
    with opened(corpus.write(path / "a.dcm", ds)) as stored:
        return decode(stored.read(number), stored.layout, stored.transfer_syntax_uid)


def refusal(path: Path, ds: Dataset) -> str:
    with pytest.raises(PixelError) as refused:
        decoded(path, ds)
    return str(refused.value)


@pytest.mark.parametrize("syntax", corpus.REVERSIBLE, ids=lambda uid: uid.keyword)
def test_every_accepted_syntax_gives_the_same_pixels(tmp_path: Path, syntax: str) -> None:
    pixels = decoded(tmp_path, corpus.data_set(transfer_syntax_uid=syntax))
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, corpus.GREY)


@pytest.mark.parametrize("syntax", corpus.EIGHT_BIT, ids=lambda uid: uid.keyword)
def test_jpeg_gives_nearly_the_same_pixels(tmp_path: Path, syntax: str) -> None:
    grey = (corpus.GREY >> 4).astype(np.uint8)
    pixels = decoded(tmp_path, corpus.data_set(grey, transfer_syntax_uid=syntax))
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), grey.astype(int), atol=2)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1])
def test_the_frame_that_was_asked_for_is_decoded(tmp_path: Path, syntax: str) -> None:
    frames = [corpus.GREY, corpus.GREY[::-1].copy(), corpus.GREY[:, ::-1].copy()]
    pixels = decoded(tmp_path, corpus.data_set(*frames, transfer_syntax_uid=syntax), number=2)
    np.testing.assert_array_equal(pixels, frames[1])


def test_signed_pixels_keep_their_bits(tmp_path: Path) -> None:
    signed = corpus.GREY.astype(np.int16) - 2048
    ds = corpus.data_set(signed, PixelRepresentation=1, BitsStored=16, HighBit=15)
    np.testing.assert_array_equal(decoded(tmp_path, ds).view(np.int16), signed)


def test_native_colour_comes_as_rgb(tmp_path: Path) -> None:
    np.testing.assert_array_equal(decoded(tmp_path, corpus.data_set(COLOUR)), COLOUR)


def test_planes_of_colour_are_put_together(tmp_path: Path) -> None:
    ds = corpus.data_set(COLOUR, PlanarConfiguration=1)
    ds.PixelData = np.ascontiguousarray(COLOUR.transpose(2, 0, 1)).tobytes()
    np.testing.assert_array_equal(decoded(tmp_path, ds), COLOUR)


def test_luminance_and_chrominance_come_as_rgb(tmp_path: Path) -> None:
    ds = corpus.data_set(COLOUR, PhotometricInterpretation="YBR_FULL")
    ds.PixelData = convert_color_space(COLOUR, "RGB", "YBR_FULL").tobytes()
    np.testing.assert_allclose(decoded(tmp_path, ds).astype(int), COLOUR.astype(int), atol=2)


def test_halved_chrominance_comes_as_rgb(tmp_path: Path) -> None:
    # Two grey pixels, each pair with neutral colour: Y1 Y2 Cb Cr.
    ds = corpus.data_set(COLOUR, PhotometricInterpretation="YBR_FULL_422", Rows=1, Columns=4)
    ds.PixelData = bytes([10, 20, 128, 128, 30, 40, 128, 128])
    assert decoded(tmp_path, ds).tolist() == [[[10] * 3, [20] * 3, [30] * 3, [40] * 3]]


def in_jpeg() -> bytes:
    target = io.BytesIO()
    Image.fromarray(SMOOTH).save(target, "JPEG", quality=100, subsampling="4:2:2")
    return target.getvalue()


def in_rle() -> bytes:
    ds = corpus.data_set(SMOOTH)
    ds.compress(RLELossless)
    return get_frame(ds.PixelData, 0, number_of_frames=1)


@pytest.mark.parametrize(
    ("syntax", "photometric", "encode"),
    [
        (JPEGBaseline8Bit, "YBR_FULL_422", in_jpeg),
        (JPEG2000Lossless, "YBR_RCT", lambda: encode_array(SMOOTH, photometric_interpretation=1, use_mct=True)),
        (JPEG2000Lossless, "RGB", lambda: encode_array(SMOOTH, photometric_interpretation=1, use_mct=False)),
        (JPEGLSLossless, "RGB", lambda: bytes(encode_jpeg_ls(SMOOTH, interleave_mode=2))),
        (RLELossless, "RGB", in_rle),
    ],
)
def test_compressed_colour_comes_as_rgb(
    tmp_path: Path, syntax: str, photometric: str, encode: Callable[[], bytes]
) -> None:
    ds = corpus.data_set(SMOOTH, transfer_syntax_uid=ExplicitVRLittleEndian, PhotometricInterpretation=photometric)
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    corpus.set_compressed(ds, [encode()])
    np.testing.assert_allclose(decoded(tmp_path, ds).astype(int), SMOOTH.astype(int), atol=6)


@pytest.mark.parametrize(
    ("syntax", "attributes", "sentence"),
    [
        (JPEG2000Lossless, {"Rows": 41}, "The compressed frame says another size than the header."),
        (JPEGLSLossless, {"Columns": 31}, "The compressed frame says another size than the header."),
        (JPEGLosslessSV1, {"Rows": 8000, "Columns": 8000}, "The compressed frame says another size than the header."),
        (
            JPEG2000Lossless,
            {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
            "The compressed frame has more bits than the header says.",
        ),
        (
            JPEG2000Lossless,
            {"PhotometricInterpretation": "PALETTE COLOR"},
            "Only MONOCHROME1 and MONOCHROME2 are understood for one sample per pixel.",
        ),
        (
            JPEG2000Lossless,
            {"BitsAllocated": 32},
            "Pictures are made of 8 or 16 bit grey values or 8 bit colours only.",
        ),
    ],
)
def test_a_frame_that_contradicts_its_header_is_refused(
    tmp_path: Path, syntax: str, attributes: dict[str, Any], sentence: str
) -> None:
    assert refusal(tmp_path, corpus.data_set(transfer_syntax_uid=syntax, **attributes)) == sentence


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
def test_a_frame_that_is_no_image_is_refused(tmp_path: Path, syntax: str) -> None:
    picture = corpus.GREY >> 4 if syntax == JPEGBaseline8Bit else corpus.GREY
    ds = corpus.data_set(picture, transfer_syntax_uid=syntax)
    corpus.set_compressed(ds, [b"no image at all, but long enough to be one"])
    name = "JPEG 2000" if syntax == JPEG2000Lossless else "JPEG"
    assert refusal(tmp_path, ds) == f"The compressed frame is not a {name} image."
