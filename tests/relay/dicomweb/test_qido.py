"""QIDO-RS without a socket: query strings become identifiers, matches become answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from gateway.errors import InvalidQuery, Refusal
from relay.dicomweb import qido

ROOT = "https://van7.example/dicom-web"
STUDY = {"0020000D": {"vr": "UI", "Value": ["1.2"]}, "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]}}


def asked(level: qido.Level = "STUDY", *parameters: tuple[str, str], **path: str) -> dict[str, object]:
    """The identifier as DICOM JSON."""
    identifier: Dataset = qido.read(level, path, parameters).identifier
    return identifier.to_json_dict()


def test_keywords_and_hexadecimal_tags_name_the_same_keys() -> None:
    by_name = asked("STUDY", ("PatientName", "*Ali*"), ("StudyDate", "20261101-20261130"))
    by_tag = asked("STUDY", ("00100010", "*Ali*"), ("00080020", "20261101-20261130"))
    assert by_name == by_tag
    assert by_name == {
        "00080020": {"vr": "DA", "Value": ["20261101-20261130"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "*Ali*"}]},
    }


def test_dots_go_into_sequences_and_keys_of_one_sequence_share_its_item() -> None:
    identifier = qido.read(
        "SERIES",
        {},
        [
            ("RequestAttributesSequence.ScheduledProcedureStepID", "SPS-1"),
            ("00400275.00401001", "RP-1"),
        ],
    ).identifier
    assert len(identifier.RequestAttributesSequence) == 1
    assert identifier.RequestAttributesSequence[0].ScheduledProcedureStepID == "SPS-1"
    assert identifier.RequestAttributesSequence[0].RequestedProcedureID == "RP-1"


@pytest.mark.parametrize("separator", [",", "\\"])
def test_a_list_of_uids_is_separated_by_comma_or_backslash(separator: str) -> None:
    assert asked("STUDY", ("StudyInstanceUID", f"1.2{separator}1.3")) == {
        "0020000D": {"vr": "UI", "Value": ["1.2", "1.3"]}
    }


def test_the_path_fixes_uids_like_match_keys() -> None:
    assert asked("IMAGE", **{"0020000D": "1.2", "0020000E": "1.3"}) == {
        "0020000D": {"vr": "UI", "Value": ["1.2"]},
        "0020000E": {"vr": "UI", "Value": ["1.3"]},
    }


@pytest.mark.parametrize(("name", "value"), [("PatientID", ""), ("StudyDate", "*"), ("StudyInstanceUID", "*")])
def test_empty_values_and_a_lone_star_match_everything_and_ask_for_the_attribute(name: str, value: str) -> None:
    search = qido.read("STUDY", {}, [(name, value)])
    assert [element.is_empty for element in search.identifier] == [True]


def test_fields_limit_and_offset_are_read() -> None:
    search = qido.read(
        "STUDY",
        {},
        [
            ("includefield", "00081030,PatientAge"),
            ("includefield", "RequestAttributesSequence.ScheduledProcedureStepID"),
            ("limit", "101"),
            ("offset", "20"),
            ("fuzzymatching", "false"),
            ("accept", "application/json"),
        ],
    )
    assert (search.fields, search.everything, search.limit, search.offset, search.warnings) == (
        {"00081030", "00101010", "00400275"},
        False,
        101,
        20,
        (),
    )


def test_more_than_a_page_is_never_given_at_once() -> None:
    assert qido.read("STUDY", {}, [("limit", "5000")]).limit == qido.LIMIT
    assert qido.read("STUDY", {}, []).limit == qido.LIMIT


def test_fuzzy_matching_is_done_literally_and_said() -> None:
    assert qido.read("STUDY", {}, [("PatientName", "x"), ("fuzzymatching", "true")]).warnings == (qido.FUZZY,)


@pytest.mark.parametrize(
    "parameters",
    [
        [("NoSuchKeyword", "1")],
        [("0010001", "1")],
        [("PatientName.PatientID", "1")],
        [("RequestAttributesSequence", "1")],
        [("PixelData", "1")],
        [("00091010", "private")],
        [("PatientID", "1"), ("00100020", "2")],
        [("StudyInstanceUID", "not-a-uid")],
        [("StudyInstanceUID", "1.2.*")],
        [("StudyInstanceUID", "1." * 33 + "1")],
        [("InstanceNumber", "one")],
        [("includefield", "NoSuchKeyword")],
        [("limit", "-1")],
        [("limit", "ten")],
        [("limit", "٣")],
        [("limit", "1"), ("limit", "2")],
        [("offset", "99999999999")],
        [("fuzzymatching", "maybe")],
        [("emptyvaluematching", "true")],
        [("", "1")],
    ],
)
def test_what_is_not_understood_is_refused(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidQuery) as refused:
        qido.read("IMAGE", {}, parameters)
    assert str(refused.value).endswith(".")


def test_a_refusal_never_repeats_a_value() -> None:
    with pytest.raises(InvalidQuery) as refused:
        qido.read("STUDY", {}, [("InstanceNumber", "SMITH")])
    assert str(refused.value) == "InstanceNumber has no value of its kind."


def test_a_study_is_answered_with_all_required_attributes() -> None:
    assert qido.answers(qido.read("STUDY", {}, []), [STUDY], ROOT) == [
        {
            "00080020": {"vr": "DA"},
            "00080030": {"vr": "TM"},
            "00080050": {"vr": "SH"},
            "00080056": {"vr": "CS", "Value": ["ONLINE"]},
            "00080061": {"vr": "CS"},
            "00080090": {"vr": "PN"},
            "00081190": {"vr": "UR", "Value": [f"{ROOT}/studies/1.2"]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]},
            "00100020": {"vr": "LO"},
            "00100030": {"vr": "DA"},
            "00100040": {"vr": "CS"},
            "0020000D": {"vr": "UI", "Value": ["1.2"]},
            "00200010": {"vr": "SH"},
            "00201206": {"vr": "IS"},
            "00201208": {"vr": "IS"},
        }
    ]


INSTANCE = {
    **STUDY,
    "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
    "00080016": {"vr": "UI", "Value": ["1.2.840"]},
    "00080018": {"vr": "UI", "Value": ["1.2.3.4"]},
    "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
    "00185101": {"vr": "CS", "Value": ["CC"]},
    "00280010": {"vr": "US", "Value": [3328]},
    "7FE00010": {"vr": "OW", "BulkDataURI": "7FE00010"},
}
ADDRESS = f"{ROOT}/studies/1.2/series/1.2.3/instances/1.2.3.4"


def test_an_instance_of_a_given_series_is_answered_without_study_and_series_attributes() -> None:
    search = qido.read("IMAGE", {"0020000D": "1.2", "0020000E": "1.2.3"}, [("ViewPosition", "")])
    assert qido.answers(search, [INSTANCE], ROOT) == [
        {
            "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
            "00080016": {"vr": "UI", "Value": ["1.2.840"]},
            "00080018": {"vr": "UI", "Value": ["1.2.3.4"]},
            "00080056": {"vr": "CS", "Value": ["ONLINE"]},
            "00081190": {"vr": "UR", "Value": [ADDRESS]},
            "00185101": {"vr": "CS", "Value": ["CC"]},
            "0020000D": {"vr": "UI", "Value": ["1.2"]},
            "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
            "00200013": {"vr": "IS"},
            "00280010": {"vr": "US", "Value": [3328]},
        }
    ]


def test_an_instance_of_any_study_brings_the_attributes_of_study_and_series() -> None:
    answer = qido.answers(qido.read("IMAGE", {}, []), [INSTANCE], ROOT)[0]
    assert {"00100020", "00201208", "00080060", "00201209", "00080018"} <= answer.keys()
    assert "00185101" not in answer


def test_includefield_all_gives_everything_with_bulk_data_by_address() -> None:
    search = qido.read("IMAGE", {"0020000D": "1.2"}, [("includefield", "all")])
    answer = qido.answers(search, [INSTANCE], ROOT)[0]
    assert answer["00185101"] == {"vr": "CS", "Value": ["CC"]}
    assert answer["7FE00010"] == {"vr": "OW", "BulkDataURI": f"{ADDRESS}/bulkdata/7FE00010"}


NAMES = st.sampled_from(
    ["PatientName", "00100020", "StudyDate", "StudyInstanceUID", "includefield", "limit", "offset", "fuzzymatching"]
)


@given(st.lists(st.tuples(NAMES | st.text(max_size=20), st.text(max_size=70)), max_size=6))
def test_any_query_gives_a_search_or_a_refusal(parameters: list[tuple[str, str]]) -> None:
    try:
        search = qido.read("IMAGE", {}, parameters)
    except Refusal as refusal:
        assert refusal.http_status == 400
    else:
        assert 0 <= search.limit <= qido.LIMIT
        qido.answers(search, [INSTANCE], ROOT)
