"""worklist.dicom_json: reading, writing and converting DICOM JSON."""

import pytest
from pydicom.dataset import Dataset

from gateway.dataset.data_sets import decode, encode
from gateway.errors import InvalidDataSet, InvalidValue
from worklist.dicom_json import DicomJson, check, element, from_data_set, items, sequence, tag, text, to_data_set


def test_an_attribute_is_written_with_its_vr_and_without_a_value_if_it_is_empty() -> None:
    written = [element("PatientID", "1"), element("PatientID", ""), element("PatientName", "A^B=ｱ=あ"), sequence()]
    assert written == [
        {"vr": "LO", "Value": ["1"]},
        {"vr": "LO"},
        {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Ideographic": "ｱ", "Phonetic": "あ"}]},
        {"vr": "SQ"},
    ]


@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        (element("PatientName", "A^B==あ"), "A^B==あ"),
        (element("PatientName"), ""),
        ({"vr": "PN", "Value": [None]}, ""),
        ({"vr": "PN", "Value": "A^B"}, ""),
        ("A^B", ""),
        (None, ""),
    ],
)
def test_reading_never_fails(attribute: object, value: str) -> None:
    data_set: DicomJson = {tag("PatientName"): attribute}
    assert text(data_set, "PatientName") == value
    assert text(data_set, "PatientID") == ""
    assert items(data_set, "PatientName") == []


@pytest.mark.parametrize("character_set", ["ISO_IR 100", "ISO_IR 192"])
def test_texts_are_unicode_whatever_they_came_in(character_set: str) -> None:
    sent = Dataset()
    sent.SpecificCharacterSet, sent.PatientName = character_set, "Müller^Ève"
    received = decode(encode(sent, "1.2.840.10008.1.2"), "1.2.840.10008.1.2")
    assert from_data_set(received) == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Ève"}]},
    }
    assert to_data_set(from_data_set(received)).PatientName == "Müller^Ève"


def test_a_value_that_cannot_be_read_is_refused_without_being_quoted() -> None:
    malformed = Dataset()
    malformed.add_new("PatientWeight", "DS", "1")
    malformed["PatientWeight"]._value = "heavy"
    with pytest.raises(InvalidDataSet) as refusal:
        from_data_set(malformed)
    assert "heavy" not in str(refusal.value)


@pytest.mark.parametrize("key", ["0010", "patient", "00100010x", ""])
def test_a_key_that_is_no_tag_is_refused(key: str) -> None:
    with pytest.raises(InvalidValue):
        check({key: {"vr": "LO"}})
