"""gateway.query.identifiers: queries read by hand, as pydicom reads them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset.character_sets import DEFAULT_REPERTOIRE, CharacterSet
from gateway.dataset.data_sets import decode, encode
from gateway.errors import GatewayError, InvalidDataSet, InvalidQuery
from gateway.query.identifiers import Identifier, from_data_set, read

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
STEP = "ScheduledProcedureStepSequence"


def asked(*, undefined: bool = False) -> Dataset:
    step = Dataset()
    step.ScheduledProcedureStepStartDate, step.Modality, step.ScheduledStationName = "20261122-", " MG", ""
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 100"
    identifier.PatientName, identifier.PatientID, identifier.AccessionNumber = "Smith^*", None, "*"
    identifier.StudyInstanceUID = ["1.2.3", "1.2.4"]
    identifier.add_new(0x00091001, "LO", None)
    identifier.ScheduledProcedureStepSequence = [step]
    identifier.ReferencedStudySequence = []
    identifier[STEP].is_undefined_length = undefined
    step.is_undefined_length_sequence_item = undefined
    return identifier


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_an_identifier_is_what_is_asked_for_and_the_values(transfer_syntax: str, *, undefined: bool) -> None:
    assert read(encode(asked(undefined=undefined), transfer_syntax), transfer_syntax) == Identifier(
        shape=(
            (0x00080005, None),
            (0x00080050, None),
            (0x00081110, ()),
            (0x00091001, None),
            (0x00100010, None),
            (0x00100020, None),
            (0x0020000D, None),
            (0x00400100, ((0x00080060, None), (0x00400002, None), (0x00400010, None))),
        ),
        values={
            "PatientName": "Smith^*",
            "StudyInstanceUID": "1.2.3\\1.2.4",
            f"{STEP}.Modality": "MG",
            f"{STEP}.ScheduledProcedureStepStartDate": "20261122-",
        },
        character_set=CharacterSet(("ISO_IR 100",)),
    )


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"\x10\x00\x20\x00LO\x03\x00A1 ", {"PatientID": "A1"}),  # an odd length
        (b"\x10\x00\x20\x00LO\x04\x00A1\0\0", {"PatientID": "A1"}),
        (b"\x10\x00\x20\x00UN\x00\x00\x02\x00\x00\x00A1", {"PatientID": "A1"}),
        (b"\x20\x00\x0d\x00UI\x06\x001.2.3\0", {"StudyInstanceUID": "1.2.3"}),
        (b"\x10\x00\x20\x00LO\x02\x00A1\x10\x00\x10\x00PN\x02\x00A*", {"PatientID": "A1", "PatientName": "A*"}),
        (b"\x08\x00\x00\x00UL\x04\x00\x00\x00\x00\x00\x10\x00\x20\x00LO\x02\x00A1", {"PatientID": "A1"}),
        (b"\x10\x00\x10\x00PN\x04\x00^^^=", {}),
        (b"", {}),
    ],
)
def test_odd_ways_of_writing_are_read(data: bytes, values: dict[str, str]) -> None:
    assert read(data, ExplicitVRLittleEndian).values == values


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_what_ends_too_early_is_refused_or_read_without_it(transfer_syntax: str) -> None:
    whole = encode(asked(undefined=True), transfer_syntax)
    for length in range(len(whole)):
        try:
            identifier = read(whole[:length], transfer_syntax)
        except InvalidDataSet:
            continue
        assert identifier == from_data_set(decode(whole[:length], transfer_syntax))


def test_several_items_are_no_query() -> None:
    identifier = asked()
    identifier.ScheduledProcedureStepSequence = [Dataset(), Dataset()]
    with pytest.raises(InvalidQuery, match="ScheduledProcedureStepSequence has to have one item in a query, not 2"):
        read(encode(identifier, ExplicitVRLittleEndian), ExplicitVRLittleEndian)


def test_without_a_character_set_it_is_the_default_repertoire() -> None:
    assert read(b"", ExplicitVRLittleEndian).character_set == DEFAULT_REPERTOIRE


_letters = st.text(alphabet="aB1 *?^=-.\\\0é山", max_size=6)
_elements = st.dictionaries(
    st.sampled_from(
        ["PatientName", "PatientID", "AccessionNumber", "PatientBirthDate", "StudyInstanceUID", "Modality",
         "RequestedProcedureDescription", "ScheduledProcedureStepStartTime", "Allergies", "ReasonForStudy"]
    ),
    _letters,
    max_size=5,
)  # fmt: skip


def _written(values: dict[str, str]) -> Dataset:
    data_set = Dataset()
    for keyword, value in values.items():
        data_set.add_new(keyword, "PN" if keyword == "PatientName" else "LO", value)
    return data_set


@given(top=_elements, step=st.none() | _elements, character_set=st.sampled_from(["", "ISO_IR 192", "GB18030"]),
       transfer_syntax=st.sampled_from(SYNTAXES), undefined=st.booleans())  # fmt: skip
@settings(deadline=None, max_examples=150)
def test_it_is_read_as_pydicom_reads_it(
    *,
    top: dict[str, str],
    step: dict[str, str] | None,
    character_set: str,
    transfer_syntax: str,
    undefined: bool,
) -> None:
    identifier = _written(top)
    identifier.SpecificCharacterSet = character_set
    if step is not None:
        identifier.ScheduledProcedureStepSequence = [_written(step)]
        identifier[STEP].is_undefined_length = undefined
    data = encode(identifier, transfer_syntax)
    assert _plain(read(data, transfer_syntax)) == _plain(from_data_set(decode(data, transfer_syntax)))


def _plain(identifier: Identifier) -> Identifier:
    """Without the padding of single values in a list, which pydicom takes off and matching does."""
    values = {
        path: "\\".join(part.strip(" \0") for part in text.split("\\")) for path, text in identifier.values.items()
    }
    return Identifier(identifier.shape, values, identifier.character_set)


@given(st.binary(max_size=80), st.sampled_from(SYNTAXES))
@settings(deadline=None, max_examples=200)
def test_any_bytes_are_read_or_refused(data: bytes, transfer_syntax: str) -> None:
    try:
        read(data, transfer_syntax)
    except GatewayError as refusal:
        assert isinstance(refusal, InvalidDataSet | InvalidQuery)


@given(st.integers(0, 60), st.integers(0, 255))
@settings(deadline=None, max_examples=150)
def test_a_byte_that_is_wrong_does_no_harm(place: int, byte: int) -> None:
    data = bytearray(encode(asked(undefined=True), ExplicitVRLittleEndian))
    data[place] = byte
    try:
        read(bytes(data), ExplicitVRLittleEndian)
    except GatewayError as refusal:
        assert isinstance(refusal, InvalidDataSet | InvalidQuery)
