"""How machines write data sets: the same values whatever the oddity, and the same picture in every transfer syntax."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from gateway.dataset.data_sets import decode, encode
from gateway.dicom.application import UNCOMPRESSED
from simulator.exam import phantom
from simulator.exam.compression import compress
from simulator.exam.encoding import SYNTAXES, Style, encoded

ODD = Style(uid_padding="space", group_lengths=True, undefined_lengths=True)


def step() -> Dataset:
    ds, inner = Dataset(), Dataset()
    ds.SOPClassUID, ds.PatientName, ds.PatientSex = "1.2.3", "A^B", ""
    inner.StudyInstanceUID = "2.25.1"
    ds.ScheduledStepAttributesSequence = [inner]
    return ds


@pytest.mark.parametrize("transfer_syntax", UNCOMPRESSED)
def test_without_oddities_it_is_what_the_library_writes(transfer_syntax: str) -> None:
    image = phantom.tomosynthesis(frames=2, rows=64, columns=48)
    assert encoded(image, transfer_syntax) == encode(image, transfer_syntax)


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        (
            Style(uid_padding="space"),
            b"\x08\x00\x16\x00UI\x06\x001.2.3 \x10\x00\x10\x00PN\x04\x00A^B \x10\x00\x40\x00CS\x00\x00"
            b"\x40\x00\x70\x02SQ\x00\x00\x16\x00\x00\x00\xfe\xff\x00\xe0\x0e\x00\x00\x00"
            b"\x20\x00\x0d\x00UI\x06\x002.25.1",
        ),
        (
            Style(uid_padding="nulls", sparse=True),
            b"\x08\x00\x16\x00UI\x08\x001.2.3\0\0\0\x10\x00\x10\x00PN\x04\x00A^B "
            b"\x40\x00\x70\x02SQ\x00\x00\x18\x00\x00\x00\xfe\xff\x00\xe0\x10\x00\x00\x00"
            b"\x20\x00\x0d\x00UI\x08\x002.25.1\0\0",
        ),
        (
            Style(group_lengths=True, undefined_lengths=True),
            b"\x08\x00\x00\x00UL\x04\x00\x0e\x00\x00\x00\x08\x00\x16\x00UI\x06\x001.2.3\0"
            b"\x10\x00\x00\x00UL\x04\x00\x14\x00\x00\x00\x10\x00\x10\x00PN\x04\x00A^B \x10\x00\x40\x00CS\x00\x00"
            b"\x40\x00\x00\x00UL\x04\x00\x32\x00\x00\x00"
            b"\x40\x00\x70\x02SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
            b"\x20\x00\x0d\x00UI\x06\x002.25.1\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0",
        ),
    ],
)
def test_an_oddity_is_written_to_the_byte(style: Style, expected: bytes) -> None:
    assert encoded(step(), SYNTAXES["explicit"], style) == expected


@given(
    name=st.text(
        alphabet=st.characters(codec="latin-1", exclude_categories=["Cc"], exclude_characters="\\^="), max_size=16
    ),
    uid=st.from_regex(r"[12]\.[1-9][0-9]{0,8}", fullmatch=True),
    style=st.builds(
        Style,
        uid_padding=st.sampled_from(["standard", "space", "nulls"]),
        group_lengths=st.booleans(),
        undefined_lengths=st.booleans(),
    ),
    transfer_syntax=st.sampled_from([*UNCOMPRESSED, SYNTAXES["deflated"]]),
)
@settings(max_examples=50, deadline=None)
def test_whatever_the_oddity_the_values_are_the_same(name: str, uid: str, style: Style, transfer_syntax: str) -> None:
    ds = step()
    ds.SpecificCharacterSet, ds.PatientName, ds.SOPInstanceUID = "ISO_IR 100", name.strip(), uid
    read = decode(encoded(ds, transfer_syntax, style), transfer_syntax)
    assert {str(each.tag): str(each.value) for each in read if each.tag.element} == {
        str(each.tag): str(each.value) for each in ds
    }


@pytest.mark.parametrize("name", SYNTAXES)
def test_a_picture_is_the_same_in_every_transfer_syntax(name: str) -> None:
    for image in (phantom.mammogram(rows=64, columns=48), phantom.tomosynthesis(frames=3, rows=64, columns=48)):
        expected = image.pixel_array.copy()
        read = decode(encoded(compress(image, SYNTAXES[name]), SYNTAXES[name], ODD), SYNTAXES[name])
        read.file_meta = image.file_meta
        np.testing.assert_array_equal(read.pixel_array, expected)


@pytest.mark.skipif(not shutil.which("dcmdump"), reason="DCMTK is not installed")
@pytest.mark.parametrize("name", ["explicit", "implicit"])
def test_a_foreign_reader_reads_the_oddities(name: str, tmp_path: Path) -> None:
    data, options = tmp_path / "data", {"explicit": "-te", "implicit": "-ti"}
    data.write_bytes(encoded(step(), SYNTAXES[name], ODD))
    command = ["dcmdump", "-q", "+P", "StudyInstanceUID", "+P", "SOPClassUID", "-f", options[name], str(data)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "[1.2.3]" in done.stdout, "[2.25.1]" in done.stdout) == (0, True, True), done
