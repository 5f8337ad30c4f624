"""Objects in other transfer syntaxes: every pixel as it was, all else as it was, and refusals where that cannot be."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from gateway.errors import NotAcceptable, NotFound
from pacs.images.decoding import decode
from pacs.images.stored_frames import opened
from pacs.images.transcode import RECODED_AS, check_recoding, recode, recoded_frame
from tests.tools import corpus
from tests.tools.dcmtk import with_dcmtk

COMPRESSED = (JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1)


def file(folder: Path, *pictures: Any, **attributes: Any) -> Path:
    return corpus.write(folder / "stored.dcm", corpus.data_set(*pictures, **attributes))


def cells(path: Path) -> list[Any]:
    with opened(path) as stored:
        numbers = range(1, stored.layout.frames + 1)
        return [decode(stored.read(n), stored.layout, stored.transfer_syntax_uid).copy() for n in numbers]


@pytest.mark.parametrize("wanted", RECODED_AS, ids=lambda uid: UID(uid).keyword)
@pytest.mark.parametrize("stored", corpus.REVERSIBLE, ids=lambda uid: uid.keyword)
def test_every_pixel_and_attribute_is_as_it_was(tmp_path: Path, stored: str, wanted: str) -> None:
    path, target = file(tmp_path, transfer_syntax_uid=stored, WindowCenter="2048"), tmp_path / "recoded.dcm"
    recode(path, wanted, target)
    before, after = dcmread(path), dcmread(target)
    assert np.array_equal(cells(target), [corpus.GREY])
    assert after.file_meta.TransferSyntaxUID == wanted
    assert [e for e in after if e.keyword != "PixelData"] == [e for e in before if e.keyword != "PixelData"]


@pytest.mark.parametrize("wanted", RECODED_AS, ids=lambda uid: UID(uid).keyword)
def test_frames_keep_their_order(tmp_path: Path, wanted: str) -> None:
    pictures = [corpus.GREY // 2 + number for number in range(3)]
    path, target = file(tmp_path, *pictures, transfer_syntax_uid=RLELossless), tmp_path / "recoded.dcm"
    recode(path, wanted, target)
    assert np.array_equal(cells(target), pictures)
    [third] = [recoded_frame(path, 3, wanted)]
    with opened(target) as recoded:
        assert recoded.read(3) == third + b"\0" * (len(third) % 2)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32),
    st.tuples(st.integers(32, 50), st.integers(32, 50)),
    st.sampled_from([8, 10, 12, 14, 16]),
    st.sampled_from(COMPRESSED),
)
def test_any_picture_survives_compression(
    tmp_path_factory: pytest.TempPathFactory, seed: int, shape: tuple[int, int], bits: int, wanted: str
) -> None:
    chance = np.random.default_rng(seed)
    slope = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) * chance.integers(0, (1 << bits) // 200)
    picture = (slope + chance.integers(0, 1 << (bits // 2), shape)).astype(np.uint16)
    folder = tmp_path_factory.mktemp("any")
    path = file(folder, picture, BitsStored=bits, HighBit=bits - 1)
    recode(path, wanted, folder / "recoded.dcm")
    assert np.array_equal(cells(folder / "recoded.dcm"), [picture])


def test_what_does_not_get_smaller_is_refused_and_not_lost(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 1 << 16, (4, 5)).astype(np.uint16)
    with pytest.raises(NotAcceptable):
        recode(file(tmp_path, noise, BitsStored=16, HighBit=15), JPEG2000Lossless, tmp_path / "recoded.dcm")


def test_what_is_native_keeps_its_bytes(tmp_path: Path) -> None:
    colour = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    path, target = file(tmp_path, colour, transfer_syntax_uid="1.2.840.10008.1.2"), tmp_path / "recoded.dcm"
    recode(path, ExplicitVRLittleEndian, target)
    assert dcmread(target).PixelData == dcmread(path).PixelData


def test_a_report_is_given_in_explicit_vr_only(tmp_path: Path) -> None:
    without = dict.fromkeys(("PixelData", "Rows", "Columns"))
    path = file(tmp_path, transfer_syntax_uid="1.2.840.10008.1.2", **without)
    recode(path, ExplicitVRLittleEndian, tmp_path / "recoded.dcm")
    assert dcmread(tmp_path / "recoded.dcm").PatientID == "9990000018"
    with pytest.raises(NotAcceptable):
        check_recoding(path, JPEGLSLossless)


@pytest.mark.parametrize(
    ("attributes", "wanted"),
    [
        ({"PixelRepresentation": 1}, JPEGLSLossless),
        ({"BitsStored": 8, "HighBit": 7}, JPEGLSLossless),
        ({}, RLELossless),
        ({}, JPEGBaseline8Bit),
        ({}, "1.2.3"),
    ],
)
def test_what_would_lose_something_or_is_not_known_is_refused(
    tmp_path: Path, attributes: dict[str, Any], wanted: str
) -> None:
    with pytest.raises(NotAcceptable):
        recode(file(tmp_path, **attributes), wanted, tmp_path / "recoded.dcm")


def test_a_frame_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        recoded_frame(file(tmp_path), 2, JPEGLSLossless)


@with_dcmtk
@pytest.mark.parametrize("wanted", [JPEGLosslessSV1, JPEGLSLossless])
def test_dcmtk_reads_the_same_pixels(tmp_path: Path, wanted: str) -> None:
    path, target = file(tmp_path), tmp_path / "recoded.dcm"
    recode(path, wanted, target)
    program = "dcmdjpls" if wanted == JPEGLSLossless else "dcmdjpeg"
    subprocess.run([program, str(target), str(tmp_path / "native.dcm")], check=True)
    assert dcmread(tmp_path / "native.dcm").PixelData == corpus.GREY.tobytes()
