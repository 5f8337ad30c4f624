"""worklist.mpps_table: PS3.4 Table F.7.2-1, row by row."""

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from gateway.dataset.dicom_json import DicomJson, Element, element, from_data_set, sequence, tag
from gateway.errors import ClassMismatch, InvalidValue, MissingAttribute, MissingValue, NotAllowed, Refusal
from tests.worklist.samples import begun, ended
from worklist.mpps_table import TABLE, Row, check_created, check_final, check_set, completed

UID = "1.2.3"
CREATED = from_data_set(begun())

_OTHER = {"DA": "20250101", "TM": "0101", "SQ": None}


def other(keyword: str) -> Element:
    """A value that no step of the tests has."""
    if dictionary_VR(keyword) == "SQ":
        return sequence(
            {tag("CodeValue"): element("CodeValue", "X"), tag("StudyInstanceUID"): element("StudyInstanceUID", "1")}
        )
    return element(keyword, _OTHER.get(dictionary_VR(keyword)) or "OTHER")


def without(data_set: DicomJson, keyword: str) -> DicomJson:
    return {key: value for key, value in data_set.items() if key != tag(keyword)}


def refused(refusal: pytest.ExceptionInfo[Refusal]) -> tuple[int, tuple[int, ...]]:
    return refusal.value.dimse_status, refusal.value.offending


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.keyword)
def test_what_n_create_may_not_be_without(row: Row) -> None:
    absent, empty = without(CREATED, row.keyword), CREATED | {tag(row.keyword): {"vr": dictionary_VR(row.keyword)}}
    if row.create != "1":
        check_created(absent, UID)
        check_created(empty, UID)
        return
    with pytest.raises(MissingAttribute) as missing:
        check_created(absent, UID)
    with pytest.raises(MissingValue) as valueless:
        check_created(empty, UID)
    where = (tag_for_keyword(row.keyword),)
    assert (refused(missing), refused(valueless)) == ((0x0120, where), (0x0121, where))


def test_a_machine_is_not_stopped_for_a_value_that_stands_behind_an_empty_one() -> None:
    key = tag("PerformedProcedureStepID")
    check_created(CREATED | {key: {"vr": "SH", "Value": ["", "1"]}}, UID)
    with pytest.raises(MissingValue):
        check_created(CREATED | {key: {"vr": "SH", "Value": ["", " "]}}, UID)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.keyword)
def test_what_n_set_may_not_change(row: Row) -> None:
    stored = completed(CREATED)
    if row.set != "-":
        check_set(stored, {tag(row.keyword): other(row.keyword)} if row.final != "1" else {}, UID)
        return
    with pytest.raises(NotAllowed, match=f"{row.keyword} may not be set by N-SET") as refusal:
        check_set(stored, {tag(row.keyword): other(row.keyword)}, UID)
    assert refused(refusal) == (0x0105, (tag_for_keyword(row.keyword),))
    if tag(row.keyword) in stored:
        check_set(stored, {tag(row.keyword): stored[tag(row.keyword)]}, UID)  # said again


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.keyword)
def test_what_the_final_state_may_not_be_without(row: Row) -> None:
    final = CREATED | from_data_set(ended())
    check_final(final)
    if row.final != "1":
        check_final(without(final, row.keyword))
        return
    with pytest.raises(MissingAttribute):
        check_final(without(final, row.keyword))
    with pytest.raises(MissingValue):
        check_final(final | {tag(row.keyword): {"vr": dictionary_VR(row.keyword)}})


def test_what_is_type_2_and_was_not_given_is_there_and_empty() -> None:
    bare = {key: value for key, value in CREATED.items() if key not in {tag("StudyID"), tag("PatientSex")}}
    whole = completed(bare)
    assert {row.keyword for row in TABLE if row.create in "12"} <= {
        row.keyword for row in TABLE if tag(row.keyword) in whole
    }
    assert (whole[tag("StudyID")], whole[tag("ProcedureCodeSequence")]) == ({"vr": "SH"}, {"vr": "SQ"})
    assert whole[tag("PatientID")] == CREATED[tag("PatientID")]


def series(**changes: str | None) -> Dataset:
    data_set = ended()
    [made] = data_set.PerformedSeriesSequence
    for keyword, value in changes.items():
        within = made if keyword in made else made.ReferencedImageSequence[0]
        if value is None:
            delattr(within, keyword)
        else:
            setattr(within, keyword, value)
    return data_set


@pytest.mark.parametrize(
    ("changes", "refusal", "keyword"),
    [
        ({"SeriesInstanceUID": None}, MissingAttribute, "SeriesInstanceUID"),
        ({"SeriesInstanceUID": ""}, MissingValue, "SeriesInstanceUID"),
        ({"SeriesInstanceUID": "series"}, InvalidValue, "SeriesInstanceUID"),
        ({"ReferencedSOPInstanceUID": None}, MissingAttribute, "ReferencedSOPInstanceUID"),
        ({"ReferencedSOPInstanceUID": "1" * 65}, InvalidValue, "ReferencedSOPInstanceUID"),
        ({"ReferencedSOPClassUID": ""}, MissingValue, "ReferencedSOPClassUID"),
        ({"ProtocolName": None}, None, ""),
    ],
)
def test_what_was_made_is_named_by_uids(
    changes: dict[str, str | None], refusal: type[Refusal] | None, keyword: str
) -> None:
    data_set = from_data_set(series(**changes))
    if refusal is None:
        check_set(CREATED, data_set, UID)
        return
    with pytest.raises(refusal) as caught:
        check_set(CREATED, data_set, UID)
    assert caught.value.offending == (tag_for_keyword(keyword),)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PerformedProcedureStepStartDate", "yesterday"),
        ("PerformedProcedureStepStartTime", "25"),
        ("PerformedProcedureStepEndDate", "20261131"),
        ("PerformedProcedureStepEndTime", "soon"),
    ],
)
def test_dates_and_times_can_be_read(keyword: str, value: str) -> None:
    with pytest.raises(InvalidValue, match=f"{keyword} has to be a (date|time)") as refusal:
        check_created(CREATED | {tag(keyword): element(keyword, value)}, UID)
    assert value not in str(refusal.value)


@pytest.mark.parametrize(("keyword", "value"), [("SOPClassUID", "1.2.840.10008.1.1"), ("SOPInstanceUID", "9.9")])
def test_a_data_set_that_names_another_class_or_instance_is_refused(keyword: str, value: str) -> None:
    with pytest.raises(ClassMismatch):
        check_created(CREATED | {tag(keyword): element(keyword, value)}, UID)
    with pytest.raises(ClassMismatch):
        check_set(CREATED, {tag(keyword): element(keyword, value)}, UID)
    right = {"SOPClassUID": "1.2.840.10008.3.1.2.3.3", "SOPInstanceUID": UID}
    check_created(CREATED | {tag(keyword): element(keyword, right[keyword])}, UID)
