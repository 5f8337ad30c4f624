"""What is compressed on the way has the very pixels and attributes that are stored, or is refused with the reason."""

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from gateway.errors import NotAcceptable
from pacs import COMPRESSIONS, compress
from pacs.images.compress import write_compressed
from pacs.images.stored_frames import PixelError
from tests.tools import corpus


def pixels(path: Path) -> np.ndarray:
    return np.asarray(dcmread(path).pixel_array)


def attributes(path: Path) -> Dataset:
    return dcmread(path, stop_before_pixels=True)


@pytest.mark.parametrize("wanted", sorted(COMPRESSIONS))
@pytest.mark.parametrize("stored", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_pixels_and_attributes_stay_what_they_are(tmp_path: Path, stored: str, wanted: str) -> None:
    frames = [corpus.GREY // 2 + number for number in range(3)]
    path = corpus.write(
        tmp_path / "a.dcm",
        corpus.data_set(*frames, transfer_syntax_uid=stored, sop_class_uid=str(BreastTomosynthesisImageStorage)),
    )
    write_compressed(path, wanted, tmp_path / "b.dcm")
    assert dcmread(tmp_path / "b.dcm").file_meta.TransferSyntaxUID == wanted
    assert np.array_equal(pixels(tmp_path / "b.dcm"), pixels(path))
    assert attributes(tmp_path / "b.dcm") == attributes(path)


@pytest.mark.parametrize("wanted", sorted(COMPRESSIONS))
def test_signed_values_keep_their_sign(tmp_path: Path, wanted: str) -> None:
    ds = corpus.data_set(corpus.GREY)
    ds.PixelRepresentation, ds.BitsStored, ds.HighBit = 1, 16, 15
    ds.PixelData = np.arange(-100, ds.Rows * ds.Columns - 100, dtype="<i2").tobytes()
    path = corpus.write(tmp_path / "a.dcm", ds)
    write_compressed(path, wanted, tmp_path / "b.dcm")
    assert np.array_equal(pixels(tmp_path / "b.dcm"), pixels(path))
    assert pixels(path).min() == -100


def test_the_same_object_always_gives_the_same_file(tmp_path: Path) -> None:
    path = corpus.write(tmp_path / "a.dcm", corpus.data_set(corpus.GREY))
    compress(path, JPEG2000Lossless, tmp_path / "b.dcm")
    compress(path, JPEG2000Lossless, tmp_path / "c.dcm")
    assert (tmp_path / "b.dcm").read_bytes() == (tmp_path / "c.dcm").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.dcm", "b.dcm", "c.dcm"]


def behind_the_pixels() -> Dataset:
    ds = corpus.data_set(corpus.GREY)
    ds.add_new(0x7FE10010, "LO", "TESTS")
    return ds


def more_bits_than_it_says() -> Dataset:
    ds = corpus.data_set(corpus.GREY)
    ds.BitsStored, ds.HighBit = 8, 7
    ds.PixelData = np.full((ds.Rows, ds.Columns), 0xF0FF, dtype="<u2").tobytes()
    return ds


@pytest.mark.parametrize(
    ("data_set", "sentence"),
    [
        (behind_the_pixels(), "Attributes follow the pixels"),
        (more_bits_than_it_says(), "hold more than the header says|encoder refuses"),
    ],
)
def test_what_would_change_is_refused(tmp_path: Path, data_set: Dataset, sentence: str) -> None:
    path = corpus.write(tmp_path / "a.dcm", data_set)
    with pytest.raises(PixelError, match=sentence):
        write_compressed(path, JPEG2000Lossless, tmp_path / "b.dcm")


def test_a_refusal_comes_out_of_the_other_process_and_leaves_nothing(tmp_path: Path) -> None:
    path = corpus.write(tmp_path / "a.dcm", behind_the_pixels())
    with pytest.raises(NotAcceptable, match=r"^Attributes follow the pixels, which would be lost"):
        compress(path, JPEG2000Lossless, tmp_path / "b.dcm")
    assert [each.name for each in tmp_path.iterdir()] == ["a.dcm"]


def test_lossy_pixels_are_left_as_they_are(tmp_path: Path) -> None:
    frame = corpus.GREY[:, :] >> 4
    path = corpus.write(
        tmp_path / "a.dcm", corpus.data_set(frame.astype("u1"), transfer_syntax_uid=str(JPEGBaseline8Bit))
    )
    with pytest.raises(PixelError, match="with loss already"):
        write_compressed(path, JPEG2000Lossless, tmp_path / "b.dcm")
