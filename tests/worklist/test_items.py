"""worklist.items: what an item must hold before it may stand on a worklist, and how it moves."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRLittleEndian

from gateway.dataset.data_sets import encode
from gateway.dataset.dicom_json import from_data_set, to_data_set
from gateway.errors import Conflict, InvalidValue
from tests.worklist.samples import item, message, query
from worklist import Item
from worklist.items import MOVES, ItemState, new_study, performed_state


def test_a_message_becomes_the_whole_data_set_of_the_standard() -> None:
    assert item().with_study("1.2.3").data_set == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00080050": {"vr": "SH", "Value": ["ACC1"]},
        "00080090": {"vr": "PN"},
        "00081030": {"vr": "LO", "Value": ["Screening"]},
        "00081110": {"vr": "SQ"},
        "00081120": {"vr": "SQ"},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "SMITH^Zoë"}]},
        "00100020": {"vr": "LO", "Value": ["9990001112"]},
        "00100030": {"vr": "DA", "Value": ["19700102"]},
        "00100040": {"vr": "CS", "Value": ["F"]},
        "00101030": {"vr": "DS"},
        "00102000": {"vr": "LO"},
        "00102110": {"vr": "LO"},
        "001021C0": {"vr": "US"},
        "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
        "00321032": {"vr": "PN"},
        "00321060": {"vr": "LO", "Value": ["Screening"]},
        "00380010": {"vr": "LO"},
        "00380050": {"vr": "LO"},
        "00380300": {"vr": "LO"},
        "00380500": {"vr": "LO"},
        "00400100": {
            "vr": "SQ",
            "Value": [
                {
                    "00080060": {"vr": "CS", "Value": ["MG"]},
                    "00400001": {"vr": "AE"},
                    "00400002": {"vr": "DA", "Value": ["20261122"]},
                    "00400003": {"vr": "TM", "Value": ["093000"]},
                    "00400006": {"vr": "PN"},
                    "00400007": {"vr": "LO", "Value": ["Screening"]},
                    "00400009": {"vr": "SH", "Value": ["ACC1"]},
                    "00400010": {"vr": "SH"},
                    "00400011": {"vr": "SH"},
                }
            ],
        },
        "00401001": {"vr": "SH", "Value": ["ACC1"]},
        "00401003": {"vr": "SH"},
        "00401004": {"vr": "LO"},
        "00403001": {"vr": "LO"},
    }


def test_an_item_reads_like_its_data_set() -> None:
    made = item(participant={"nhs_number": "1", "name": "Yamada^Tarou=山田^太郎"})
    assert (made.accession_number, made.participant_id, made.patient_name, made.birth_date, made.sex) == (
        "ACC1", "1", "Yamada^Tarou=山田^太郎", "", "",
    )  # fmt: skip
    assert (made.date, made.time, made.modality, made.study_description) == ("20261122", "093000", "MG", "Screening")
    assert (made.sps_id, made.requested_procedure_id, made.station_ae_titles) == ("ACC1", "ACC1", ())
    assert (made.study_instance_uid, made.state, made.appointment_id) == ("", "scheduled", "appointment-1")


def test_a_message_may_carry_more_attributes_and_its_named_fields_win() -> None:
    dicom = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "OTHER"}]},
        "001021c0": {"vr": "US", "Value": [4]},
        "00400100": {
            "vr": "SQ",
            "Value": [
                {"00400001": {"vr": "AE", "Value": ["MAMMO1", "MAMMO2"]}, "00080060": {"vr": "CS", "Value": ["CT"]}}
            ],
        },
    }
    made = item(dicom=dicom)
    assert (made.patient_name, made.modality, made.station_ae_titles) == ("SMITH^Zoë", "MG", ("MAMMO1", "MAMMO2"))
    assert made.data_set["001021C0"] == {"vr": "US", "Value": [4]}


def test_a_description_is_there_even_if_nobody_gave_one() -> None:
    made = item(procedure={"modality": "MG"})
    assert (made.study_description, made.step["00400007"]) == ("MG", {"vr": "LO", "Value": ["MG"]})


def _changed(changes: dict[str, object]) -> dict[str, object]:
    return (
        from_data_set(
            query(
                {
                    "ScheduledProcedureStepStartDate": "20261122",
                    "ScheduledProcedureStepStartTime": "0930",
                    "Modality": "MG",
                },
                AccessionNumber="ACC1",
                PatientName="SMITH",
                PatientID="1",
            )
        )
        | changes
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"00080050": {"vr": "SH"}}, "AccessionNumber has to have a value."),
        ({"00100010": {"vr": "PN", "Value": [{"Alphabetic": "^^"}]}}, "PatientName has to have a value."),
        ({"00100020": {"vr": "LO", "Value": []}}, "PatientID has to have a value."),
        ({"00100020": {"vr": "LO", "Value": [None, "1"]}}, "PatientID has to have a value."),
        ({"00400100": {"vr": "SQ"}}, "ScheduledProcedureStepStartDate has to have a value."),
        (
            {"00400100": {"vr": "SQ", "Value": [{}, {}]}},
            "ScheduledProcedureStepSequence has to have one item; schedule further steps as items of their own.",
        ),
        (
            {"00080050": {"vr": "SH", "Value": ["12345678901234567"]}},
            "AccessionNumber has to be a value of VR SH, of at most 16 characters.",
        ),
        (
            {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "x" * 65}]}},
            "PatientName has to be a value of VR PN, of at most 64 characters.",
        ),
        ({"00100030": {"vr": "DA", "Value": ["19701301"]}}, None),
        ({"00100030": {"vr": "DA", "Value": ["1970-1971"]}}, None),
        ({"00100030": {"vr": "DA", "Value": ["19700101-19710101"]}}, "PatientBirthDate has to be a date."),
        ({"00100020": {"vr": "LO", "Value": ["1\\2"]}}, None),
        ({"00100020": {"vr": "LO", "Value": ["1\n2"]}}, None),
        ({"00100020": {"vr": "LO", "Value": ["\ud800"]}}, None),
        ({"00100040": {"vr": "SH", "Value": ["F"]}}, "PatientSex has to have the VR CS."),
        ({"001021C0": {"vr": "US", "Value": [70000]}}, None),
        ({"001021C0": {"vr": "US", "Value": ["many"]}}, None),
        ({"00102110": {"vr": "LO", "Value": "nuts"}}, "Allergies has to have a list of values."),
        ({"00102110": {"vr": "LO", "InlineBinary": "AAAA"}}, None),
        ({"7FE00010": {"vr": "OW"}}, "PixelData holds binary data, which a worklist does not carry."),
        ({"00102110": "nuts"}, "Allergies has to be an object with its vr."),
        ({"00081110": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["study"]}}]}}, None),
    ],
)
def test_what_dicom_cannot_hold_is_refused_by_the_name_of_the_attribute(
    changes: dict[str, object], sentence: str | None
) -> None:
    with pytest.raises(InvalidValue) as refusal:
        Item.from_dicom_json(_changed(changes))
    if sentence:
        assert str(refusal.value) == sentence
    for value in ("12345678901234567", "19701301", "many", "nuts", "study"):
        assert value not in str(refusal.value)


_KEYS = st.sampled_from(
    ["00080050", "00100010", "00100020", "00100030", "00400100", "00081110", "001021C0", "00101030"]
)
_VRS = st.sampled_from(["SH", "PN", "LO", "DA", "SQ", "US", "DS", "UN", "XX"])
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | _KEYS | st.just("Alphabetic"), inner, max_size=3)
    ),
    max_leaves=8,
)
_ATTRIBUTES = st.fixed_dictionaries({}, optional={"vr": _VRS | _JSON, "Value": st.lists(_JSON, max_size=3) | _JSON})


@given(st.dictionaries(_KEYS | st.text(max_size=9), _ATTRIBUTES | _JSON, max_size=4))
@settings(deadline=None)
def test_whatever_comes_is_an_item_that_can_be_answered_or_a_clear_refusal(changes: dict[str, object]) -> None:
    try:
        made = Item.from_dicom_json(_changed(changes))
    except InvalidValue:
        return
    assert encode(to_data_set(made.data_set), ExplicitVRLittleEndian)
    assert made.accession_number and made.participant_id and made.date and made.time


def test_a_whole_data_set_is_taken_as_it_is() -> None:
    made = Item.from_dicom_json(_changed({"0020000D": {"vr": "UI", "Value": ["1.2.3"]}}), action_id="a")
    assert (made.action_id, made.with_study("9.9").study_instance_uid, made.time) == ("a", "1.2.3", "0930")


def test_the_study_follows_from_the_action_and_is_a_uid() -> None:
    uid = new_study("action-1", "ACC1")
    assert uid == new_study("action-1", "ACC1") == "2.25.206404815960027348480672376683714476985"
    assert uid != new_study("action-2", "ACC1")


@pytest.mark.parametrize("state", MOVES)
@pytest.mark.parametrize("target", MOVES)
def test_the_cloud_moves_an_item_along_the_table_only(state: ItemState, target: ItemState) -> None:
    made = Item.from_message(message()).moved(state) if state in MOVES["scheduled"] else item()
    allowed = {
        "scheduled": {"scheduled", "in_progress", "completed", "discontinued", "cancelled"},
        "in_progress": {"in_progress", "completed", "discontinued"},
        "completed": {"completed"},
        "discontinued": {"discontinued", "scheduled"},
        "cancelled": {"cancelled", "scheduled"},
    }
    if target in allowed[state]:
        assert made.moved(target).state == target
    else:
        with pytest.raises(Conflict, match=f"ACC1 is {state} and cannot become {target}"):
            made.moved(target)


@pytest.mark.parametrize(
    ("statuses", "state"),
    [
        (set(), "cancelled"),
        ({"IN PROGRESS"}, "in_progress"),
        ({"COMPLETED", "IN PROGRESS"}, "in_progress"),
        ({"COMPLETED", "DISCONTINUED"}, "completed"),
        ({"DISCONTINUED"}, "discontinued"),
    ],
)
def test_the_state_follows_from_all_performed_steps(statuses: set[str], state: ItemState) -> None:
    assert performed_state(statuses, otherwise="cancelled") == state


def test_an_open_item_can_be_given_another_time() -> None:
    moved = item().rescheduled(date="20261123", time="101500")
    assert (moved.date, moved.time, moved.modality, moved.sps_id) == ("20261123", "101500", "MG", "ACC1")
    with pytest.raises(InvalidValue):
        item().rescheduled(date="20261131", time="1015")
    with pytest.raises(Conflict, match="ACC1 is completed; only an open item can be rescheduled"):
        item().moved("completed").rescheduled(date="20261123", time="101500")
