"""Files of appointments: three shapes, checked as a whole before anything is scheduled."""

import json
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.errors import InvalidValue, MissingAttribute, Refusal, Unsupported
from operations.worklist_file import read

ITEM = {
    "accession_number": "ACC0001",
    "participant": {"nhs_number": "9990000018", "name": "PHANTOM^JANE", "birth_date": "19700101", "sex": "F"},
    "scheduled": {"date": "20261122", "time": "093000"},
    "procedure": {"modality": "MG", "study_description": "Screening"},
}
ACTION = {
    "schema_version": 1,
    "action_id": "0d7b8a3e-1111-2222-3333-444455556666",
    "action_type": "worklist.create_item",
    "source_reference": {"appointment_id": "APP-7"},
    "parameters": {"worklist_item": ITEM},
}
DATA_SET = {
    "00080050": {"vr": "SH", "Value": ["ACC0001"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "PHANTOM^JANE"}]},
    "00100020": {"vr": "LO", "Value": ["9990000018"]},
    "00400100": {
        "vr": "SQ",
        "Value": [
            {
                "00080060": {"vr": "CS", "Value": ["MG"]},
                "00400002": {"vr": "DA", "Value": ["20261122"]},
                "00400003": {"vr": "TM", "Value": ["093000"]},
            }
        ],
    },
}


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "clinic.json"
    path.write_text(json.dumps(content))
    return path


def refusal(tmp_path: Path, content: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read(written(tmp_path, content))
    return caught.value


@pytest.mark.parametrize("entry", [ITEM, ACTION, DATA_SET], ids=["item", "action", "data set"])
def test_each_shape_becomes_the_same_item(tmp_path: Path, entry: object) -> None:
    [appointment] = read(written(tmp_path, [entry]))
    item = appointment.item
    assert (item.accession_number, item.participant_id, item.date, item.time, item.modality, item.state) == (
        "ACC0001",
        "9990000018",
        "20261122",
        "093000",
        "MG",
        "scheduled",
    )


def test_one_object_is_a_list_of_one(tmp_path: Path) -> None:
    assert len(read(written(tmp_path, ITEM))) == 1


def test_an_action_keeps_the_names_the_cloud_gave(tmp_path: Path) -> None:
    [appointment] = read(written(tmp_path, [ACTION]))
    assert (appointment.action_id, appointment.item.appointment_id) == (ACTION["action_id"], "APP-7")


def test_an_entry_that_names_its_time_zone_becomes_wall_time(tmp_path: Path) -> None:
    auckland = {**ITEM, "scheduled": {"date": "20261122", "time": "1015", "timezone": "Pacific/Auckland"}}
    here = datetime(2026, 11, 22, 10, 15, tzinfo=ZoneInfo("Pacific/Auckland")).astimezone()
    [made] = read(written(tmp_path, auckland))
    assert (made.item.date, made.item.time) == (f"{here:%Y%m%d}", f"{here:%H%M%S}")


def test_the_same_entry_again_is_the_same_action(tmp_path: Path) -> None:
    first, second = read(written(tmp_path, [ITEM, ITEM]))
    assert (first.action_id, first.content_hash) == (second.action_id, second.content_hash)


@pytest.mark.parametrize(
    ("entry", "kind", "sentence"),
    [
        ({**ITEM, "accession_number": "LONGER_THAN_SIXTEEN"}, InvalidValue, "accession_number"),
        ({key: value for key, value in ITEM.items() if key != "scheduled"}, MissingAttribute, "scheduled"),
        ({"action_type": "echo"}, Unsupported, "Only actions that create an item"),
        ("ACC0001", InvalidValue, "An object was expected."),
    ],
)
def test_a_wrong_entry_is_named_with_its_field(
    tmp_path: Path, entry: object, kind: type[Refusal], sentence: str
) -> None:
    refused = refusal(tmp_path, [ITEM, entry])
    assert isinstance(refused, kind)
    assert str(refused).startswith("clinic.json, entry 2: ")
    assert sentence in str(refused)
    assert "PHANTOM" not in str(refused)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clinic.json"
    path.write_text("accession;name")
    with pytest.raises(InvalidValue, match=r"clinic\.json is not JSON"):
        read(path)
