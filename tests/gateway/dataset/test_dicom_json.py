"""gateway.dataset.dicom_json: reading, writing and converting DICOM JSON, with pydicom as the judge."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from gateway.dataset.data_sets import decode, encode
from gateway.dataset.dicom_json import (
    DicomJson,
    PersonName,
    element,
    from_data_set,
    items,
    number,
    person_name,
    sequence,
    tag,
    text,
    texts,
    to_data_set,
    values,
    verbatim,
)
from gateway.errors import InvalidDataSet

# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["StudyInstanceUID", "0020000D", "0020000d"])
def test_an_attribute_is_named_by_keyword_or_by_tag(name: str) -> None:
    assert tag(name) == "0020000D"
    assert text({"0020000D": {"vr": "UI", "Value": ["1.2"]}}, name) == "1.2"


@pytest.mark.parametrize("name", ["StudyInstanceUid", "0020,000D", "20000D"])
def test_what_is_neither_keyword_nor_tag_is_an_error(name: str) -> None:
    with pytest.raises(KeyError):
        text({}, name)


def test_no_keyword_can_be_taken_for_a_tag() -> None:
    assert [entry[4] for entry in DicomDictionary.values() if re.fullmatch("[0-9A-Fa-f]{8}", entry[4])] == []


# ---- read ------------------------------------------------------------------------------------------------------------

_PADDING = st.sampled_from(["", "", " ", "\t", "\u3000"])
_WORDS = st.sampled_from(["A", "A^B", "1.2.840", "7", "Müller", "山田", "x y"])
_TEXTS = st.one_of(st.none(), st.builds("{}{}{}".format, _PADDING, _WORDS, _PADDING))
_NAMES = st.one_of(
    st.none(),
    st.dictionaries(st.sampled_from(["Alphabetic", "Ideographic", "Phonetic"]), _WORDS, min_size=1),
)
_STRATEGIES = {
    "AccessionNumber": _TEXTS,
    "Allergies": _TEXTS,
    "ImageType": _TEXTS,
    "ReferencedSOPInstanceUID": st.sampled_from([None, "1.2", "1.2.840"]),
    "PatientName": _NAMES,
    "OtherPatientNames": _NAMES,
    "InstanceNumber": st.none() | st.integers(-(2**31), 2**31 - 1),
    "Rows": st.integers(0, 65535),
}
_VRS = {"Allergies": "LO", "AccessionNumber": "SH", "ImageType": "CS", "ReferencedSOPInstanceUID": "UI"}
_VRS |= {"PatientName": "PN", "OtherPatientNames": "PN", "InstanceNumber": "IS", "Rows": "US"}
_SEQUENCE = "ScheduledProcedureStepSequence"


@st.composite
def data_sets(draw: st.DrawFn, depth: int = 2) -> DicomJson:
    """As PS3.18 Annex F has them: attributes absent, empty, with one value and with several, null among them."""
    found: DicomJson = {}
    for keyword in draw(st.lists(st.sampled_from(sorted(_STRATEGIES)), unique=True)):
        several = draw(st.lists(_STRATEGIES[keyword], max_size=3))
        some = [value for value in several if value is not None]
        found[tag(keyword)] = {"vr": _VRS[keyword], "Value": several} if some else {"vr": _VRS[keyword]}
    if depth and draw(st.booleans()):
        found[tag(_SEQUENCE)] = sequence(*draw(st.lists(data_sets(depth=depth - 1), max_size=2)))
    return found


def judged(attribute: DataElement | None) -> list[str]:
    """The values that pydicom reads, as texts; '' where it knows none."""
    found = None if attribute is None else attribute.value
    several = found if isinstance(found, MultiValue | list) else [] if found in (None, "") else [found]
    return ["" if value is None else str(value) for value in several]


@given(data_sets())
def test_attributes_read_as_pydicom_reads_them(data_set: DicomJson) -> None:
    expect_the_same(data_set, Dataset.from_json(data_set))


def expect_the_same(data_set: DicomJson, judge: Dataset) -> None:
    for keyword in _STRATEGIES:
        read = judged(judge.get_item(keyword) and judge[keyword])
        first = next(iter(read), "")
        assert len(values(data_set, keyword)) == len(read)
        assert (verbatim(data_set, keyword), text(data_set, keyword)) == (first, first.strip())
        assert texts(data_set, keyword) == tuple(value.strip() for value in read if value)
        assert number(data_set, keyword) == (int(first) if re.fullmatch("[0-9]{1,10}", first.strip()) else None)
        assert items(data_set, keyword) == []
    for keyword in ("PatientName", "OtherPatientNames"):
        groups = (next(iter(judged(judge.get_item(keyword) and judge[keyword])), "") + "==").split("=")
        assert person_name(data_set, keyword) == PersonName(*groups[:3])
    assert len(items(data_set, _SEQUENCE)) == len(judge.get(_SEQUENCE, []))
    for item, judged_item in zip(items(data_set, _SEQUENCE), judge.get(_SEQUENCE, []), strict=True):
        expect_the_same(item, judged_item)


@pytest.mark.parametrize(
    ("several", "as_came", "first", "known"),
    [
        ([" A\t", "B"], " A\t", "A", ("A", "B")),
        ([None, "B"], "", "", ("B",)),
        ([" ", "B"], " ", "", ("B",)),
        ([0, 1.5], "0", "0", ("0", "1.5")),
        ([{"Alphabetic": "A^B", "Phonetic": "あ"}], "A^B==あ", "A^B==あ", ("A^B==あ",)),
        ([{"Alphabetic": "A^B "}], "A^B ", "A^B", ("A^B",)),
        ([{"Alphabetic": None}], "", "", ()),
        ([{}], "", "", ()),
        ([], "", "", ()),
    ],
)
def test_the_first_value_is_read_as_it_came_or_trimmed_and_all_that_are_known(
    several: list[object], as_came: str, first: str, known: tuple[str, ...]
) -> None:
    data_set = {tag("Allergies"): {"vr": "LO", "Value": several}}
    assert verbatim(data_set, "Allergies") == as_came
    assert text(data_set, "Allergies") == first
    assert texts(data_set, "Allergies") == known


@pytest.mark.parametrize(
    ("value", "groups", "shown"),
    [
        ({"Alphabetic": "A^B", "Ideographic": "山田"}, ("A^B", "山田", ""), "A^B"),
        ({"Ideographic": " 山田 ", "Phonetic": "あ"}, ("", " 山田 ", "あ"), "山田"),
        ({"Phonetic": "あ"}, ("", "", "あ"), "あ"),
        ({"Alphabetic": None}, ("", "", ""), ""),
        ("A^B=山田", ("A^B=山田", "", ""), "A^B=山田"),
        (None, ("", "", ""), ""),
    ],
)
def test_a_persons_name_has_groups_of_which_people_see_the_first(
    value: object, groups: tuple[str, str, str], shown: str
) -> None:
    name = person_name({tag("PatientName"): {"vr": "PN", "Value": [value]}}, "PatientName")
    assert (name, name.shown) == (groups, shown)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3328, 3328), ("12", 12), (" 12 ", 12), (0, 0), ("0123456789", 123456789), ("12345678901", None), (-1, None),
     (1.5, None), ("many", None), ("", None), (None, None), ("\u0663", None), ("1_0", None)],
)  # fmt: skip
def test_a_number_of_something_is_whole_and_not_negative(value: object, expected: int | None) -> None:
    assert number({tag("NumberOfFrames"): {"vr": "IS", "Value": [value]}}, "NumberOfFrames") == expected


def test_items_are_those_of_a_sequence_and_can_be_changed_in_place() -> None:
    step: DicomJson = {}
    data_set = {tag(_SEQUENCE): sequence(step)}
    items(data_set, _SEQUENCE)[0][tag("Modality")] = element("Modality", "MG")
    assert data_set == {"00400100": {"vr": "SQ", "Value": [{"00080060": {"vr": "CS", "Value": ["MG"]}}]}}
    assert items({tag(_SEQUENCE): {"vr": "PN", "Value": [{"Alphabetic": "A"}]}}, _SEQUENCE) == []


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
    data_set = {tag("PatientName"): attribute}
    assert text(data_set, "PatientName") == value
    assert text(data_set, "PatientID") == ""
    assert items(data_set, "PatientName") == []


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
_ATTRIBUTES = _JSON | st.fixed_dictionaries({}, optional={"vr": st.sampled_from(["PN", "SQ", "IS"]), "Value": _JSON})


@given(_ATTRIBUTES)
def test_whatever_an_attribute_is_it_reads_as_something_or_nothing(attribute: object) -> None:
    data_set = {tag("PatientName"): attribute}
    for read in (values, items, verbatim, text, texts, person_name, number):
        read(data_set, "PatientName")


# ---- write -----------------------------------------------------------------------------------------------------------


def test_an_attribute_is_written_with_its_vr_and_without_a_value_if_it_is_empty() -> None:
    written = [element("PatientID", "1"), element("PatientID", ""), element("PatientName", "A^B=ｱ=あ"), sequence()]
    assert written == [
        {"vr": "LO", "Value": ["1"]},
        {"vr": "LO"},
        {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Ideographic": "ｱ", "Phonetic": "あ"}]},
        {"vr": "SQ"},
    ]


# ---- convert ---------------------------------------------------------------------------------------------------------


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
