"""The walker by itself, with pydicom as the judge."""

import json
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, Sequence, dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset.dicom_json import DicomJson, items, text
from gateway.errors import InvalidDataSet
from pacs.archive.attributes import (
    DEEPEST_SEQUENCE,
    INLINE_BYTES,
    LONGEST_VALUE,
    CutOff,
    TooMuch,
    read_attributes,
)
from tests.tools import corpus

EXPLICIT, IMPLICIT, DEFLATED = (
    str(ExplicitVRLittleEndian),
    str(ImplicitVRLittleEndian),
    str(DeflatedExplicitVRLittleEndian),
)


def encoded(data_set: Dataset, syntax: str) -> bytes:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(stream, data_set)
    return stream.getvalue()


def judged(data: bytes, syntax: str) -> DicomJson:
    """What pydicom makes of the same bytes."""
    read = read_dataset(BytesIO(data), syntax == IMPLICIT, True)
    found: DicomJson = read.to_json_dict()
    return found


def canonical(data_set: DicomJson) -> object:
    """Numbers by value, as 1 and 1.0 are the same in JSON, and no value at all written in one way (PS3.18 F.2.5)."""

    def element(found: dict[str, object]) -> dict[str, object]:
        values = found.get("Value")
        if not isinstance(values, list):
            return {name: value for name, value in found.items() if value != ""}
        if found["vr"] == "SQ":
            values = [canonical(item) for item in values]
        if found["vr"] == "PN":
            values = [{group: text for group, text in value.items() if text} for value in values]
        values = [None if value in ("", {}) and found["vr"] != "SQ" else value for value in values]
        if all(value is None for value in values):
            return {"vr": found["vr"]}
        return {**found, "Value": json.loads(json.dumps(values), parse_int=float)}

    return {tag: element(found) for tag, found in data_set.items() if not tag.endswith("0000")}


TEXTS = st.text("ABCxyz 019-äöüßéЖ日本^=", max_size=12).map(str.strip)
VALUES = {
    "PatientName": st.sampled_from(
        ["", "DOE^JANE", "Müller^Ä", "Yamada^Tarou=山田^太郎=やまだ^たろう", "=山田", "A^B^^^"]
    ),
    "PatientID": st.text("ABC019 ", max_size=10).map(str.strip),
    "StudyDescription": TEXTS.filter(lambda t: "^" not in t and "=" not in t),
    "ImageType": st.lists(st.sampled_from(["ORIGINAL", "PRIMARY", ""]), max_size=4),
    "StudyDate": st.sampled_from(["", "20261122"]),
    "WindowCenter": st.lists(st.sampled_from(["1", "2.5", "-3e2"]), max_size=3),
    "InstanceNumber": st.integers(-5, 99999),
    "Rows": st.integers(0, 65535),
    "SmallestImagePixelValue": st.integers(-100, 100),
    "RedPaletteColorLookupTableDescriptor": st.just([256, 0, 16]),
    "ExposureTimeInms": st.floats(-1e9, 1e9),
    "FrameIncrementPointer": st.just([0x00181063, 0x00181065]),
    "ImageComments": st.text("ab \\\r\n", max_size=20),
    "RetrieveURL": st.just("http://x/y?a=1"),
    "ICCProfile": st.binary(max_size=40).filter(lambda b: len(b) % 2 == 0),
    "OverlayData": st.just(b"\1\2\3\4"),
    "SOPInstanceUID": st.just("1.2.3.4"),
    "ReferencedImageRealWorldValueMappingSequence": st.just([]),
}


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 2) -> Dataset:
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 192"
    data_set.PixelRepresentation = draw(st.integers(0, 1))
    for keyword in draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=8)):
        value = draw(VALUES[keyword])
        if keyword == "SmallestImagePixelValue":
            vr = "SS" if data_set.PixelRepresentation else "US"
            data_set.add_new(tag_for_keyword(keyword), vr, value if vr == "SS" else abs(value))
        elif keyword == "RedPaletteColorLookupTableDescriptor":
            data_set.add_new(tag_for_keyword(keyword), "SS" if data_set.PixelRepresentation else "US", value)
        elif keyword == "OverlayData":
            data_set.add_new(0x60003000, "OW", value)
        else:
            data_set.add_new(tag_for_keyword(keyword), dictionary_VR(keyword), value)
    if draw(st.booleans()):
        block = data_set.private_block(0x0019, "SYNTHETIC 1.0", create=True)
        block.add_new(0x01, "LO", "private")
    if depth and draw(st.booleans()):
        nested = draw(st.lists(data_sets(depth=depth - 1), max_size=2))
        data_set.ProcedureCodeSequence = Sequence(nested)
        data_set["ProcedureCodeSequence"].is_undefined_length = draw(st.booleans())
        for item in nested:
            item.is_undefined_length_sequence_item = draw(st.booleans())
    return data_set


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=150)
@given(data_set=data_sets(), syntax=st.sampled_from([EXPLICIT, IMPLICIT]))
def test_the_walker_and_pydicom_read_the_same(data_set: Dataset, syntax: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = encoded(data_set, syntax)
        assert canonical(read_attributes(data, syntax)) == canonical(judged(data, syntax))


def mammogram_like() -> Dataset:
    data_set = Dataset()
    data_set.SpecificCharacterSet = "ISO_IR 100"
    data_set.PatientName = "Süß^Jörg"
    data_set.SOPInstanceUID = "1.2.3"
    view = Dataset()
    view.CodeValue = "399162004"
    data_set.ViewCodeSequence = [view]
    data_set.Rows = 2
    data_set.PixelData = bytes(8)
    data_set["PixelData"].VR = "OW"
    return data_set


def test_pixels_are_named_and_not_read() -> None:
    found = read_attributes(encoded(mammogram_like(), EXPLICIT), EXPLICIT)
    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": "7FE00010"}
    assert text(found, "00100010") == "Süß^Jörg"
    assert [text(item, "00080100") for item in items(found, "00540220")] == ["399162004"]
    assert text(found, "00081030") == ""
    assert items(found, "00400275") == []


def test_large_binary_values_are_named_by_their_place_within_the_data_set() -> None:
    data_set, item = mammogram_like(), Dataset()
    item.add_new(0x00283006, "OW", bytes(INLINE_BYTES + 2))
    data_set.VOILUTSequence = [Dataset(), item]
    data_set.ICCProfile = bytes(INLINE_BYTES + 2)
    found = read_attributes(encoded(data_set, EXPLICIT), EXPLICIT)
    assert found["00282000"] == {"vr": "OB", "BulkDataURI": "00282000"}
    assert items(found, "00283010")[1]["00283006"] == {"vr": "OW", "BulkDataURI": "00283010/2/00283006"}


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED])
def test_a_data_set_cut_off_anywhere_is_refused_or_lacks_only_whole_elements(syntax: str) -> None:
    plain = encoded(mammogram_like(), syntax)
    whole = read_attributes(plain, EXPLICIT if syntax == DEFLATED else syntax)
    data = plain
    if syntax == DEFLATED:
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data = packer.compress(plain) + packer.flush()
    for end in range(len(data)):
        try:
            found = read_attributes(data[:end], syntax)
        except InvalidDataSet:
            continue
        assert syntax != DEFLATED
        assert list(found) == list(whole)[: len(found)]
        assert "7FE00010" not in found


def test_encapsulated_pixels_without_their_end_are_cut_off() -> None:
    head = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    fragments = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd"
    end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    assert read_attributes(head + fragments + end, EXPLICIT) == {"7FE00010": {"vr": "OB", "BulkDataURI": "7FE00010"}}
    for broken in (head + fragments, head + fragments[:-2], head):
        with pytest.raises(CutOff):
            read_attributes(broken, EXPLICIT)


ODD = {
    "a UID padded with spaces": (b"\x08\x00\x18\x00UI\x06\x001.2.3 ", "00080018", "1.2.3"),
    "a UID padded with several NUL": (b"\x08\x00\x18\x00UI\x08\x001.2.3\0\0\0", "00080018", "1.2.3"),
    "an odd length": (b"\x08\x00\x18\x00UI\x05\x001.2.3", "00080018", "1.2.3"),
    "a number that is none": (b"\x20\x00\x13\x00IS\x04\x00abc ", "00200013", "abc"),
    "a decimal without end": (b"\x28\x00\x50\x10DS\x04\x00nan ", "00281050", "nan"),
    "bytes outside the character set": (b"\x10\x00\x20\x00LO\x02\x00\xfcx", "00100020", "üx"),
    "a known attribute sent as UN": (b"\x10\x00\x20\x00UN\x00\x00\x04\x00\x00\x00AB12", "00100020", "AB12"),
    "a group length": (b"\x08\x00\x00\x00UL\x04\x00\x04\x00\x00\x00", "00080000", ""),
}


@pytest.mark.parametrize(("data", "tag", "expected"), ODD.values(), ids=ODD)
def test_odd_values_are_read_as_they_are(data: bytes, tag: str, expected: str) -> None:
    assert text(read_attributes(data, EXPLICIT), tag) == expected


def test_a_sequence_hidden_behind_un_is_read_as_implicit() -> None:
    inner = struct.pack("<HHI", 0x0008, 0x0100, 2) + b"AB"
    item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
    known = struct.pack("<HH2sHI", 0x0054, 0x0220, b"UN", 0, len(item)) + item
    undefined = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + item
    undefined += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    for data, tag in ((known, "00540220"), (undefined, "00091001")):
        assert text(items(read_attributes(data, EXPLICIT), tag)[0], "00080100") == "AB"


@settings(deadline=None, max_examples=300)
@given(data=st.data(), syntax=st.sampled_from([EXPLICIT, IMPLICIT]))
def test_mutated_data_sets_are_read_or_refused_and_nothing_else(data: st.DataObject, syntax: str) -> None:
    body = bytearray(encoded(mammogram_like(), syntax))
    for place in data.draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=6)):
        body[place] = data.draw(st.integers(0, 255))
    try:
        json.dumps(read_attributes(bytes(body), syntax), allow_nan=False)
    except InvalidDataSet as refusal:
        assert "Süß" not in str(refusal)


SEQUENCE_OPENS = {
    IMPLICIT: struct.pack("<HHI", 0x0008, 0x1140, 0xFFFFFFFF),
    EXPLICIT: struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF),
}
ITEM_OPENS = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
ITEM_ENDS, SEQUENCE_ENDS = struct.pack("<HHI", 0xFFFE, 0xE00D, 0), struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def nest(depth: int, syntax: str = IMPLICIT, within: bytes = b"") -> bytes:
    """Sequences of one item each, `depth` deep, all of undefined length."""
    return (SEQUENCE_OPENS[syntax] + ITEM_OPENS) * depth + within + (ITEM_ENDS + SEQUENCE_ENDS) * depth


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_a_nest_is_read_down_to_a_depth_and_named_from_there_on(syntax: str) -> None:
    behind = encoded(mammogram_like(), syntax)
    found = read_attributes(nest(100_000, syntax) + behind, syntax)
    assert text(found, "00080018") == "1.2.3"
    for _ in range(DEEPEST_SEQUENCE):
        [found] = items(found, "00081140")
    assert found == {"00081140": {"vr": "UN", "BulkDataURI": "00081140/1/" * DEEPEST_SEQUENCE + "00081140"}}


def test_what_a_deep_nest_holds_is_stepped_over_in_its_own_encoding() -> None:
    fragments = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    fragments += struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd" + SEQUENCE_ENDS
    hidden = struct.pack("<HH2sHI", 0x0009, 0x1001, b"UN", 0, 0xFFFFFFFF) + nest(2, IMPLICIT)[12 - 4 :]
    explicit = struct.pack("<HH2sH", 0x0008, 0x0100, b"SH", 2) + b"AB"
    data = nest(70, EXPLICIT, explicit + hidden + fragments + explicit) + encoded(mammogram_like(), EXPLICIT)
    assert text(read_attributes(data, EXPLICIT), "00080018") == "1.2.3"


def test_a_nest_that_does_not_end_is_cut_off() -> None:
    whole = nest(1_000)
    for end in (len(whole) - 1, len(whole) - 8, len(whole) // 2, 64 * 16 + 20):
        with pytest.raises(InvalidDataSet):
            read_attributes(whole[:end], IMPLICIT)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
@pytest.mark.parametrize("count", [1, 7, 8, 13, 128, 100_001])
def test_zeros_around_a_data_set_are_padding(syntax: str, count: int) -> None:
    data = encoded(mammogram_like(), syntax)
    whole = read_attributes(data, syntax)
    assert read_attributes(data + bytes(count), syntax) == whole
    if count >= 8:
        assert read_attributes(bytes(count) + data, syntax) == whole


def test_the_compressed_picture_of_an_icon_is_named() -> None:
    icon = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
    icon += struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, 4) + b"abcd" + SEQUENCE_ENDS
    sequence = struct.pack("<HH2sHI", 0x0088, 0x0200, b"SQ", 0, 0xFFFFFFFF)
    data = sequence + ITEM_OPENS + icon + ITEM_ENDS + SEQUENCE_ENDS + encoded(mammogram_like(), EXPLICIT)
    [item] = items(read_attributes(data, EXPLICIT), "00880200")
    assert item == {"7FE00010": {"vr": "OB", "BulkDataURI": "00880200/1/7FE00010"}}


def implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


EMPTY_ITEM = implicit(0xFFFEE000, b"")

BOMBS = {
    "items": implicit(0x00540220, EMPTY_ITEM * 600_000),
    "elements": implicit(0x00200013, b"") * 600_000,
    "nested items": implicit(0x00540220, implicit(0xFFFEE000, implicit(0x00540220, EMPTY_ITEM * 600_000))),
    "texts": implicit(0x00204000, b"x" * LONGEST_VALUE) * 80,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_what_would_take_more_memory_than_an_image_is_worth_is_refused(bomb: bytes) -> None:
    with pytest.raises(TooMuch, match="more than 16 MB"):
        read_attributes(bomb, IMPLICIT)


@pytest.mark.parametrize("tag", [0x00281050, 0x00189087, 0x00281101, 0x00204000, 0x00100010], ids=hex)
def test_a_value_longer_than_any_viewer_needs_is_named_and_not_read(tag: int) -> None:
    short = read_attributes(implicit(tag, b"1\\" * (LONGEST_VALUE // 2)), IMPLICIT)
    long = read_attributes(implicit(tag, b"1\\" * (LONGEST_VALUE // 2 + 1)), IMPLICIT)
    assert "Value" in short[f"{tag:08X}"]
    assert long[f"{tag:08X}"] == {"vr": dictionary_VR(tag) if tag != 0x00281101 else "US", "BulkDataURI": f"{tag:08X}"}


@pytest.mark.parametrize(
    ("creator", "tag", "expected"),
    [
        (b"TOSHIBA_MEC_OT3 ", 0x70191080, {"vr": "OW", "InlineBinary": "AQACAA=="}),
        (b"FDMS 1.0", 0x002710A3, {"vr": "US", "Value": [1, 2]}),
    ],
)
def test_a_private_attribute_of_one_of_two_representations_is_read(
    creator: bytes, tag: int, expected: dict[str, object]
) -> None:
    data = implicit(tag & 0xFFFF0000 | 0x10, creator) + implicit(tag, b"\1\0\2\0")
    assert read_attributes(data, IMPLICIT)[f"{tag:08X}"] == expected


@pytest.mark.parametrize("syntax", [*corpus.REVERSIBLE, *corpus.EIGHT_BIT], ids=lambda syntax: syntax.name)
def test_a_file_of_every_transfer_syntax_reads_as_pydicom_reads_it(tmp_path: Path, syntax: UID) -> None:
    path = corpus.write(tmp_path / "x.dcm", corpus.data_set(transfer_syntax_uid=syntax))
    read = dcmread(path)
    del read.PixelData
    start = 144 + read.file_meta.FileMetaInformationGroupLength
    found = read_attributes(path.read_bytes()[start:], str(syntax))
    assert found.pop("7FE00010")["BulkDataURI"] == "7FE00010"
    assert canonical(found) == canonical(read.to_json_dict())
