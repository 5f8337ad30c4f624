"""worklist.answers: what was asked of an item, packed as pydicom packs it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset.character_sets import CharacterSet, character_set
from gateway.dataset.data_sets import decode, encode
from gateway.dataset.dicom_json import DicomJson, element, sequence, tag
from gateway.query import matching
from gateway.query.identifiers import Identifier, from_data_set, read
from tests.worklist.samples import item, query
from worklist.answers import Answer, form, packed

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
STEP = "ScheduledProcedureStepSequence"


def asked(data_set: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> Identifier:
    return read(encode(data_set, transfer_syntax), transfer_syntax)


def answer(stored: DicomJson, identifier: Dataset, *, wanted: CharacterSet | None = None) -> Answer:
    made = form(asked(identifier), ExplicitVRLittleEndian, wanted=wanted)
    return packed(made, json.dumps(stored), "MAMMO1")


def test_what_was_asked_is_answered_and_nothing_else() -> None:
    stored: DicomJson = {
        tag("PatientName"): element("PatientName", "SMITH^Zo\u00eb"),
        tag("PatientID"): element("PatientID", "1"),
        tag("ReferencedStudySequence"): sequence(
            {tag("ReferencedSOPInstanceUID"): element("ReferencedSOPInstanceUID", "1.2")}
        ),
        tag(STEP): sequence({tag("Modality"): element("Modality", "MG")}),
    }
    identifier = query(
        {"Modality": "", "ScheduledStationAETitle": "", "ScheduledStationName": ""},
        PatientName="s*", PatientSex="", ReferencedStudySequence=[], ReferencedPatientSequence=[],
    )  # fmt: skip
    identifier.add_new(0x00091001, "LO", None)
    packed_answer = answer(stored, identifier)
    assert not packed_answer.is_approximate
    assert decode(packed_answer.data, ExplicitVRLittleEndian).to_json_dict() == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00081110": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]},
        "00081120": {"vr": "SQ", "Value": []},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "SMITH^Zo\u00eb"}]},
        "00100040": {"vr": "CS"},
        "00400100": {
            "vr": "SQ",
            "Value": [
                {
                    "00080060": {"vr": "CS", "Value": ["MG"]},
                    "00400001": {"vr": "AE", "Value": ["MAMMO1"]},
                    "00400010": {"vr": "SH"},
                }
            ],
        },
    }


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
@pytest.mark.parametrize("steps", [[], [Dataset()]])
def test_a_whole_item_is_packed_as_by_pydicom(transfer_syntax: str, steps: list[Dataset]) -> None:
    stored = item().with_study("1.2.3").data_set
    identifier = Dataset()
    for key in stored:
        identifier.add_new(int(key, 16), dictionary_VR(int(key, 16)), None)
    identifier.SpecificCharacterSet = "ISO_IR 192"
    identifier.ScheduledProcedureStepSequence = steps
    made = form(asked(identifier, transfer_syntax), transfer_syntax, wanted=None)
    whole = Dataset.from_json(stored)
    whole.ScheduledProcedureStepSequence[0].ScheduledStationAETitle = "MAMMO1"
    assert packed(made, json.dumps(stored), "MAMMO1").data == encode(whole, transfer_syntax)


def test_the_same_query_has_the_same_form() -> None:
    one, other = (form(asked(query(PatientID=value)), ExplicitVRLittleEndian, wanted=None) for value in ("1", "2"))
    assert one is other


@pytest.mark.parametrize(("asked_for", "named"), [(True, {"00080005": {"vr": "CS"}}), (False, {})])
def test_the_default_repertoire_has_no_name(*, asked_for: bool, named: DicomJson) -> None:
    identifier = Dataset()
    if asked_for:
        identifier.SpecificCharacterSet = ""
    identifier.PatientID = ""
    data = answer({tag("PatientID"): element("PatientID", "1")}, identifier).data
    plain = {"00100020": {"vr": "LO", "Value": ["1"]}}
    assert decode(data, ExplicitVRLittleEndian).to_json_dict() == named | plain


LETTERS = {"": "", "ISO_IR 100": "\u00e9\u00df", "ISO_IR 144": "\u041b\u044e", "ISO_IR 192": "\u0142\u592a",
           "GB18030": "\u738b\u5c0f", "ISO_IR 13": "\uff94\uff8f", "\\ISO 2022 IR 87": "\u5c71\u7530",
           "\\ISO 2022 IR 149": "\ud64d\ub3d9", "\\ISO 2022 IR 58": "\u5f20\u4e1c",
           "ISO 2022 IR 100\\ISO 2022 IR 126": "\u00e9\u0394"}  # fmt: skip
"""What is written in each set; all but UTF-8 and GB18030 have no other letters than these and ASCII here."""

UTF_8: DicomJson = {"00080005": {"vr": "CS", "Value": ["ISO_IR 192"]}}
FOREIGN = "\u1200"  # Ethiopic, which only Unicode has
_TEXTS = ("PatientName", "PatientID", "AccessionNumber", "RequestedProcedureDescription", "AdditionalPatientHistory",
          "PatientComments", "NamesOfIntendedRecipientsOfResults")  # fmt: skip
_CODES = {"PatientSex": "F", "PatientBirthDate": "19700102", "StudyInstanceUID": "1.2.345", "PatientAge": "052Y",
          "RetrieveURI": "https://x", "AdmittingTime": "0930"}  # fmt: skip
_NUMBERS = {"PatientWeight": [61.5], "NumberOfFrames": [3], "PregnancyStatus": [4], "EventElapsedTimes": [1, 2.25]}
_KEYWORDS = (*_TEXTS, *_CODES, *_NUMBERS)


def _text(letters: str) -> st.SearchStrategy[str]:
    return st.text(alphabet="aZ1 " + letters, min_size=1, max_size=5).filter(str.strip)  # pydicom fails on blank names


def _value(keyword: str, letters: str) -> st.SearchStrategy[object]:
    if keyword in _NUMBERS:
        return st.just({"vr": dictionary_VR(keyword), "Value": _NUMBERS[keyword]})
    if keyword in _CODES:
        return st.just(element(keyword, _CODES[keyword]))
    if dictionary_VR(keyword) == "PN":
        groups = st.fixed_dictionaries({"Alphabetic": _text(letters)}, optional={"Ideographic": _text(letters)})
        return st.lists(groups, max_size=1 if keyword == "PatientName" else 2).map(lambda v: {"vr": "PN", "Value": v})
    most = 1 if dictionary_VR(keyword) in ("LT", "ST", "UT") else 2
    return st.lists(_text(letters), max_size=most).map(lambda values: element(keyword, *values))


@st.composite
def _data_set(draw: st.DrawFn, letters: str) -> DicomJson:
    keywords = draw(st.lists(st.sampled_from(_KEYWORDS), unique=True, max_size=6))
    return {tag(keyword): draw(_value(keyword, letters)) for keyword in keywords}


def _identifier(keywords: list[str], inner: list[str] | None, named: str) -> Dataset:
    identifier = Dataset()
    if named:
        identifier.SpecificCharacterSet = named.split("\\")
    for keyword in keywords:
        identifier.add_new(tag_for_keyword(keyword), dictionary_VR(keyword), None)  # type: ignore[arg-type]
    if inner is not None:
        identifier.ScheduledProcedureStepSequence = [_identifier(inner, None, "")]
    return identifier


def _unpadded(value: object) -> object:
    """The same without blanks at the end, which are padding (PS3.5 Section 6.2).

    pydicom leaves them where an escape sequence follows, as in the second of two single-byte sets.
    """
    if isinstance(value, dict):
        return {key: _unpadded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_unpadded(each) for each in value]
    return value.rstrip(" ") if isinstance(value, str) else value


@given(data=st.data(), named=st.sampled_from(sorted(LETTERS)), transfer_syntax=st.sampled_from(SYNTAXES),
       foreign=st.sampled_from(["", "", FOREIGN]))  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_every_answer_is_what_pydicom_makes_of_the_same_data_set(
    data: st.DataObject, named: str, transfer_syntax: str, foreign: str
) -> None:
    letters = LETTERS[named] + foreign
    keywords = st.lists(st.sampled_from(_KEYWORDS), unique=True, max_size=8)
    identifier = _identifier(data.draw(keywords), data.draw(st.none() | keywords), named)
    stored = data.draw(_data_set(letters)) | {tag(STEP): sequence(data.draw(_data_set(letters)))}
    made = form(from_data_set(identifier), transfer_syntax, wanted=None)
    answered = packed(made, json.dumps(stored), "MAMMO1")
    assert not answered.is_approximate

    read_again = decode(answered.data, transfer_syntax)
    used = read_again.get("SpecificCharacterSet", [])
    terms = (used,) if isinstance(used, str) else tuple(used)
    assert terms in (character_set(named).terms, ("ISO_IR 192",))
    named_terms: DicomJson = {"00080005": {"vr": "CS", "Value": list(terms)}} if terms else {}
    in_unicode = encode(_expected(identifier, stored, UTF_8), transfer_syntax)
    letters_of = decode(in_unicode, transfer_syntax).to_json_dict()
    expected = {key: letters_of[key] for key in letters_of if key not in UTF_8} | named_terms
    assert _unpadded(read_again.to_json_dict()) == _unpadded(expected)
    if len(terms) <= 1 and terms != ("ISO_IR 13",):  # pydicom escapes in its own order, and does not mix in ISO_IR 13
        assert answered.data == encode(_expected(identifier, stored, named_terms), transfer_syntax)
    if FOREIGN not in str(read_again):
        assert terms == character_set(named).terms


def _expected(identifier: Dataset, stored: DicomJson, named: DicomJson) -> Dataset:
    """What was asked of an item, as pydicom's data set in a character set."""
    whole = Dataset.from_json({**stored, **named})
    whole.ScheduledProcedureStepSequence[0].ScheduledStationAETitle = "MAMMO1"
    return matching.requested(identifier, whole)
