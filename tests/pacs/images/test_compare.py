"""Two objects under one UID, compared: what differs, and what cannot be read."""

import zlib
from pathlib import Path

import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from gateway.errors import InvalidDataSet, Refusal
from pacs.images.compare import Compared, compare
from pacs.images.part10 import read_part10
from pacs.images.stored_frames import LARGEST_INFLATED
from tests.relay.served import mammogram
from tests.tools import corpus


def written(folder: Path, name: str, *, number: int = 1, view: str = "RCC", **attributes: str) -> Path:
    return corpus.write(folder / name, mammogram(view, number, **attributes))


def test_objects_that_differ_in_who_they_are_of_have_the_same_pixels(tmp_path: Path) -> None:
    found = compare(written(tmp_path, "a"), written(tmp_path, "b", PatientID="OTHER", ProtocolName="X"))
    assert [each for each in found.shown if each.differs] == [Compared("Patient ID", "9990000018", "OTHER")]
    assert (found.others, found.same_pixels) == (("Protocol Name",), True)


def test_objects_with_other_pixels_are_said_to_have_them(tmp_path: Path) -> None:
    data_set = mammogram("RCC", 1)
    data_set.PixelData = bytes(len(data_set.PixelData))
    found = compare(written(tmp_path, "a"), corpus.write(tmp_path / "b", data_set))
    assert (found.same_pixels, found.others, [each for each in found.shown if each.differs]) == (False, (), [])


@pytest.mark.parametrize("other_syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_the_pixels_of_a_deflated_object_are_compared_as_they_are_unfolded(tmp_path: Path, other_syntax: str) -> None:
    def written_in(syntax: str, name: str, **attributes: str) -> Path:
        return corpus.write(tmp_path / name, mammogram("RCC", 1, syntax=syntax, **attributes))

    black = mammogram("RCC", 1, syntax=other_syntax)
    black.PixelData = bytes(len(black.PixelData))
    one = written_in(DeflatedExplicitVRLittleEndian, "a")
    assert compare(one, written_in(other_syntax, "b", PatientID="OTHER")).same_pixels is True
    assert compare(one, corpus.write(tmp_path / "black", black)).same_pixels is False


def test_an_absent_and_an_empty_attribute_are_both_shown_as_nothing(tmp_path: Path) -> None:
    data_set = mammogram("RCC", 1, PatientID="")
    del data_set.AccessionNumber
    found = {each.name: each for each in compare(written(tmp_path, "a"), corpus.write(tmp_path / "b", data_set)).shown}
    assert (found["Patient ID"].set_aside, found["Accession Number"].set_aside) == ("", "")


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    found = compare(written(tmp_path, "a"), written(tmp_path, "b", StationName="S" * 500))
    [station] = [each for each in found.shown if each.name == "Station Name"]
    assert station.set_aside == "S" * 80


@pytest.mark.parametrize("content", [b"", b"nothing of DICOM"])
def test_what_cannot_be_read_is_refused_without_its_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(InvalidDataSet, match="cannot be read"):
        compare(written(tmp_path, "a"), tmp_path / "b")


def test_a_deflated_object_that_unfolds_to_more_than_any_image_is_refused(tmp_path: Path) -> None:
    """Half a megabyte that would be more than half a gigabyte."""
    path = corpus.write(tmp_path / "b", mammogram("RCC", 1, syntax=DeflatedExplicitVRLittleEndian))
    offset = read_part10(path).data_set_offset
    deflate, zeros = zlib.compressobj(1, wbits=-zlib.MAX_WBITS), bytes(1 << 20)
    with path.open("r+b") as file:
        file.seek(offset)
        for _ in range((LARGEST_INFLATED >> 20) + 1):
            file.write(deflate.compress(zeros))
        file.write(deflate.flush())
    for look in (lambda: compare(written(tmp_path, "a"), path), lambda: read_part10(path)):
        with pytest.raises(Refusal, match="unfolds to more than"):
            look()
