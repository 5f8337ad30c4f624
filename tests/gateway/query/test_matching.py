"""gateway.query.matching and gateway.query.conditions: what a query means, decided the same in SQL and in Python."""

import sqlite3
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from gateway.errors import InvalidQuery
from gateway.query.conditions import AnyOf, Between, Condition, Key, Kind, Like, Period, matches, where
from gateway.query.matching import column_value, conditions, ignored, requested

STEP = "ScheduledProcedureStepSequence"
ID = Key("PatientID", Kind.TEXT, "patient_id")
NAME = Key("PatientName", Kind.NAME, "patient_name")
STUDY = Key("StudyInstanceUID", Kind.UID, "study")
BORN = Key("PatientBirthDate", Kind.DATE, "born")
NUMBER = Key("SeriesNumber", Kind.NUMBER, "number")
DAY = Key(f"{STEP}.ScheduledProcedureStepStartDate", Kind.DATE, "day")
TIME = Key(f"{STEP}.ScheduledProcedureStepStartTime", Kind.TIME, "time", of_date=DAY.path)
LONE_TIME = Key("StudyTime", Kind.TIME, "study_time")
KEYS = (ID, NAME, STUDY, BORN, NUMBER, DAY, TIME, LONE_TIME)
COLUMNS = [key.column for key in KEYS]


def query(**attributes: object) -> Dataset:
    """A query as it arrives: encoded and decoded, so that odd values are odd in the way of the wire."""
    data_set = Dataset()
    for keyword, value in attributes.items():
        if keyword.endswith("Sequence"):
            data_set.add_new(keyword, "SQ", value)
        else:  # without its VR, as implicit syntax writes none: pydicom then takes any text
            data_set.add_new(keyword, "PN" if keyword == "PatientName" else "UT", value)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, True
    write_dataset(buffer, data_set)
    return read_dataset(BytesIO(buffer.getvalue()), is_implicit_VR=True, is_little_endian=True)


def step(**attributes: object) -> list[Dataset]:
    return [query(**attributes)]


@pytest.mark.parametrize(
    "identifier",
    [
        query(),
        query(PatientID="", PatientName="", StudyInstanceUID="", PatientBirthDate=""),
        query(PatientID="*", PatientName="**", StudyInstanceUID="*", PatientBirthDate="*", StudyTime="*"),
        query(PatientName="^^^", PatientID="   "),
        query(ScheduledProcedureStepSequence=[]),
        query(ScheduledProcedureStepSequence=[Dataset()]),
        query(ScheduledProcedureStepSequence=step(ScheduledProcedureStepStartDate="", Modality="")),
    ],
)
def test_empty_keys_empty_sequences_and_lone_stars_match_everything(identifier: Dataset) -> None:
    assert conditions(identifier, KEYS) == []
    assert where([]) == ("1", {})


@pytest.mark.parametrize(
    ("identifier", "expected"),
    [
        (query(PatientID="A1 "), AnyOf(ID, ("A1",))),
        (query(PatientID="A*"), Like(ID, ("A*",))),
        (query(PatientID="A**?"), Like(ID, ("A*?",))),
        (query(PatientID="[A]_%*"), Like(ID, ("[[]A]_%*",))),
        (query(PatientID="50%_"), AnyOf(ID, ("50%_",))),
        (query(StudyInstanceUID="1.2.3"), AnyOf(STUDY, ("1.2.3",))),
        (query(StudyInstanceUID="1.2.3\\1.2.4"), AnyOf(STUDY, ("1.2.3", "1.2.4"))),
        (query(SeriesNumber="007"), AnyOf(NUMBER, ("7",))),
        (query(PatientName="Müller^ÅSE^^"), Like(NAME, ("muller^ase", "muller^ase=*"))),
        (query(PatientBirthDate="19700102"), Between(BORN, "19700102", "19700102")),
        (query(PatientBirthDate="1970.01.02"), Between(BORN, "19700102", "19700102")),
        (query(PatientBirthDate="19700102-"), Between(BORN, "19700102", "")),
        (query(PatientBirthDate="-19700102"), Between(BORN, "", "19700102")),
        (query(PatientBirthDate="19700102-19700103"), Between(BORN, "19700102", "19700103")),
        (query(StudyTime="10"), Between(LONE_TIME, "100000.000000", "105959.999999")),
        (query(StudyTime="1030-11"), Between(LONE_TIME, "103000.000000", "115959.999999")),
        (query(StudyTime="103015.5-"), Between(LONE_TIME, "103015.500000", "")),
        (query(StudyTime="-235960"), Between(LONE_TIME, "", "235960.999999")),
        (
            query(ScheduledProcedureStepSequence=step(ScheduledProcedureStepStartDate="20261122")),
            Between(DAY, "20261122", "20261122"),
        ),
    ],
)
def test_a_key_becomes_one_condition(identifier: Dataset, expected: Condition) -> None:
    assert conditions(identifier, KEYS) == [expected]


@pytest.mark.parametrize(
    ("day", "time", "expected"),
    [
        (
            "20260705-20260707",
            "1000-1800",
            [Period(DAY, TIME, ("20260705", "100000.000000"), ("20260707", "180059.999999"))],
        ),
        ("20260705-", "1000-1800", [Period(DAY, TIME, ("20260705", "100000.000000"), None)]),
        ("-20260707", "1000-1800", [Period(DAY, TIME, None, ("20260707", "180059.999999"))]),
        (
            "20260705-20260707",
            "-1800",
            [Period(DAY, TIME, ("20260705", "000000.000000"), ("20260707", "180059.999999"))],
        ),
        (
            "20260705-20260707",
            "10-",
            [Period(DAY, TIME, ("20260705", "100000.000000"), ("20260707", "235960.999999"))],
        ),
        (
            "20260705",
            "10-12",
            [Between(DAY, "20260705", "20260705"), Between(TIME, "100000.000000", "125959.999999")],
        ),
        (
            "20260705-20260707",
            "10",
            [Between(DAY, "20260705", "20260707"), Between(TIME, "100000.000000", "105959.999999")],
        ),
    ],
)
def test_ranges_of_date_and_time_together_are_one_period(day: str, time: str, expected: list[Condition]) -> None:
    item = step(ScheduledProcedureStepStartDate=day, ScheduledProcedureStepStartTime=time)
    assert conditions(query(ScheduledProcedureStepSequence=item), KEYS) == expected


@pytest.mark.parametrize(
    ("identifier", "sentence"),
    [
        (query(PatientBirthDate="20261301"), "PatientBirthDate has to be a date YYYYMMDD or a range of two."),
        (query(PatientBirthDate="tomorrow"), "PatientBirthDate has to be a date YYYYMMDD or a range of two."),
        (query(PatientBirthDate="20260101-x"), "PatientBirthDate has to be a date YYYYMMDD or a range of two."),
        (query(PatientBirthDate="-"), "PatientBirthDate is a range without ends."),
        (query(PatientBirthDate="197001*"), "PatientBirthDate is a date, in which wildcards are not allowed."),
        (query(StudyTime="25"), "StudyTime has to be a time HHMMSS or a range of two."),
        (query(StudyTime="103"), "StudyTime has to be a time HHMMSS or a range of two."),
        (query(StudyInstanceUID="1.2.*"), "StudyInstanceUID has to be a UID, or several separated by backslash."),
        (query(StudyInstanceUID="study"), "StudyInstanceUID has to be a UID, or several separated by backslash."),
        (query(SeriesNumber="one"), "SeriesNumber has to be a whole number."),
        (query(PatientID="A\\B"), "PatientID has more than one value; lists are allowed for UIDs only."),
        (query(PatientID="A" * 1025), "PatientID is longer than any value of its kind."),
        (
            query(ScheduledProcedureStepSequence=[Dataset(), Dataset()]),
            "ScheduledProcedureStepSequence has to have one item in a query, not 2.",
        ),
    ],
)
def test_nonsense_is_refused_by_the_name_of_the_attribute(identifier: Dataset, sentence: str) -> None:
    with pytest.raises(InvalidQuery) as refusal:
        conditions(identifier, KEYS)
    assert str(refusal.value) == sentence


def test_what_no_key_matches_is_named() -> None:
    identifier = query(
        SpecificCharacterSet="ISO_IR 192",
        PatientID="A1",
        PatientComments="tall",
        Allergies="",
        ScheduledProcedureStepSequence=step(ScheduledProcedureStepStartDate="20261122", ScheduledStationName="ROOM1"),
    )
    assert ignored(identifier, KEYS) == ["PatientComments", f"{STEP}.ScheduledStationName"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Kind.TEXT, " A1 ", "A1"),
        (Kind.UID, "1.2.3\0", "1.2.3"),
        (Kind.NUMBER, " 007", "7"),
        (Kind.NUMBER, "seven", ""),
        (Kind.DATE, "2026.11.22", "20261122"),
        (Kind.DATE, "20260231", ""),
        (Kind.DATE, "٢٠٢٦١١٢٢", ""),
        (Kind.TIME, "0930", "093000.000000"),
        (Kind.TIME, "09:30:15.25", "093015.250000"),
        (Kind.TIME, "noon", ""),
        (Kind.NAME, "Zoë", "zoe"),
    ],
)
def test_columns_hold_comparable_text(kind: Kind, text: str, value: str) -> None:
    assert column_value(kind, text) == value


@pytest.mark.parametrize(
    ("pattern", "value", "found"),
    [
        ("A*", "A", True),
        ("A*", "AB", True),
        ("A?", "A", False),
        ("A?", "AB", True),
        ("%", "A", False),
        ("A_*", "AB", False),
        ("[AB]*", "A", False),
        ("[AB]*", "[AB]C", True),
        ("a*", "A", False),
        ("*A", "", False),
    ],
)
def test_wildcards_are_stars_and_question_marks_only(pattern: str, value: str, found: bool) -> None:
    wanted = conditions(query(PatientID=pattern), KEYS)
    assert [matches(condition, {"patient_id": value}) for condition in wanted] == [found]
    assert _sql_finds(wanted, {"patient_id": value}) is found


@pytest.mark.parametrize("unknown", ["", None])
@pytest.mark.parametrize(
    "identifier",
    [
        query(PatientID="?*"),
        query(PatientName="*a*"),
        query(PatientBirthDate="-20991231"),
        query(PatientBirthDate="00010101-"),
        query(StudyTime="-235959"),
        query(StudyInstanceUID="1.2\\1.3"),
        query(
            ScheduledProcedureStepSequence=step(
                ScheduledProcedureStepStartDate="-20991231", ScheduledProcedureStepStartTime="-2359"
            )
        ),
    ],
)
def test_an_unknown_value_matches_universal_keys_only(identifier: Dataset, unknown: str | None) -> None:
    row: dict[str, str | None] = dict.fromkeys(COLUMNS, unknown)
    wanted = conditions(identifier, KEYS)
    assert wanted and not any(matches(condition, row) for condition in wanted)
    assert not _sql_finds(wanted, row)


def test_a_condition_on_another_table_is_put_where_its_key_says() -> None:
    key = Key("Modality", Kind.TEXT, "modality", within="EXISTS (SELECT 1 FROM series WHERE {})")
    assert where(conditions(query(Modality="MG"), [key])) == (
        "EXISTS (SELECT 1 FROM series WHERE modality = :key_0)",
        {"key_0": "MG"},
    )


def test_a_list_of_uids_is_one_parameter_however_long() -> None:
    uids = [f"1.2.{number}" for number in range(40_000)]
    _sql, parameters = where([AnyOf(STUDY, tuple(uids))])
    assert list(parameters) == ["key_0"]
    assert _sql_finds([AnyOf(STUDY, tuple(uids))], {"study": "1.2.39999"})


def _sql_finds(wanted: list[Condition], row: dict[str, str | None]) -> bool:
    expression, parameters = where(wanted)
    source = ", ".join(f":row_{column} AS {column}" for column in row)
    named = {f"row_{column}": value for column, value in row.items()}
    with sqlite3.connect(":memory:") as conn:
        found = conn.execute(f"SELECT 1 FROM (SELECT {source}) WHERE {expression}", named | parameters).fetchone()
    conn.close()
    return found is not None


_letters = st.text(alphabet="abAB[]^-!%_é*?", max_size=5)
_names = st.text(alphabet="aAéß^= *?[", max_size=7)
_days = st.sampled_from(["20260101", "20260102", "20260103"])
_times = st.sampled_from(["00", "09", "0930", "093015", "093015.5", "235959"])


def _range_of(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        values, values.map("{}-".format), values.map("-{}".format), st.tuples(values, values).map("-".join)
    )


@given(
    asked=st.fixed_dictionaries({"PatientID": _letters, "PatientName": _names}),
    day=st.one_of(st.just(""), _range_of(_days)),
    time=st.one_of(st.just(""), _range_of(_times)),
    stored=st.fixed_dictionaries(
        {"patient_id": _letters, "patient_name": _names, "day": st.one_of(st.just(""), _days), "time": _times}
    ),
)
@settings(deadline=None)
def test_sql_and_python_decide_the_same(asked: dict[str, str], day: str, time: str, stored: dict[str, str]) -> None:
    item = step(ScheduledProcedureStepStartDate=day, ScheduledProcedureStepStartTime=time)
    identifier = query(ScheduledProcedureStepSequence=item, SpecificCharacterSet="ISO_IR 192", **asked)
    kinds = {key.column: key.kind for key in KEYS}
    row: dict[str, str | None] = {column: column_value(kinds[column], text) for column, text in stored.items()}
    wanted = conditions(identifier, KEYS)
    for condition in wanted:
        assert matches(condition, row) == _sql_finds([condition], row)
    assert all(matches(condition, row) for condition in wanted) == _sql_finds(wanted, row)


def test_an_answer_holds_what_was_asked_and_no_more() -> None:
    stored = query(
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Zoë",
        PatientID="A1",
        ScheduledProcedureStepSequence=step(Modality="MG", ScheduledProcedureStepID="S1"),
        ReferencedStudySequence=step(ReferencedSOPInstanceUID="1.2"),
    )
    identifier = query(
        PatientName="z*",
        PatientSex="",
        ReferencedStudySequence=[],
        ReferencedPatientSequence=[],
        ScheduledProcedureStepSequence=step(Modality="", ScheduledStationName=""),
    )
    assert requested(identifier, stored).to_json_dict() == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00081110": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2"]}}]},
        "00081120": {"vr": "SQ", "Value": []},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Zoë"}]},
        "00100040": {"vr": "CS"},
        "00400100": {"vr": "SQ", "Value": [{"00080060": {"vr": "CS", "Value": ["MG"]}, "00400010": {"vr": "SH"}}]},
    }


@pytest.mark.parametrize("asked", [[], [Dataset()]])
def test_an_empty_sequence_asks_for_all_of_its_items(asked: list[Dataset]) -> None:
    stored = query(ScheduledProcedureStepSequence=step(Modality="MG"))
    answer = requested(query(ScheduledProcedureStepSequence=asked), stored)
    assert answer.ScheduledProcedureStepSequence[0].Modality == "MG"


@pytest.mark.parametrize("value", ["\ud800", "A\udfff*"])
def test_half_a_surrogate_is_no_text_to_match(value: str) -> None:
    identifier = Dataset()
    identifier.AccessionNumber = value
    with pytest.raises(InvalidQuery, match="AccessionNumber is not in the character set"):
        conditions(identifier, [Key("AccessionNumber", Kind.TEXT, "accession_number")])
