"""The messages: what is taken, what is refused at this border, and that the published examples and schemas are true."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.messages import (
    ACTIONS,
    EVENTS,
    LAST_EVENT,
    PRIORITY,
    Acquisition,
    Action,
    Echo,
    Envelope,
    EventParameters,
    ImageQuarantined,
    ImageReceived,
    Participant,
    Procedure,
    Scheduled,
    StepChanged,
    UpdateStatus,
    WorklistItem,
)

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "docs" / "messages"

ITEM: dict[str, object] = {
    "accession_number": "ACC202611220001",
    "participant": {"nhs_number": "9990000017", "name": "EXAMPLE^ANNA", "birth_date": "19680412", "sex": "F"},
    "scheduled": {"date": "20261122", "time": "101500"},
    "procedure": {"modality": "MG", "study_description": "Screening mammography"},
}


def example(message_type: str) -> dict[str, object]:
    content: dict[str, object] = json.loads((EXAMPLES / f"{message_type}.json").read_text(encoding="utf-8"))
    return content


def parameters_of(message_type: str) -> EventParameters:
    envelope = Envelope.model_validate(example(message_type))
    return EVENTS[message_type].model_validate(envelope.parameters)


def test_there_is_an_example_and_a_schema_of_every_message() -> None:
    everything = {*ACTIONS, *EVENTS}
    assert {path.stem for path in EXAMPLES.glob("*.json")} == everything
    assert {path.name.removesuffix(".schema.json") for path in (EXAMPLES / "schema").iterdir()} == everything


@pytest.mark.parametrize("action_type", ACTIONS)
def test_the_example_of_an_action_is_understood(action_type: str) -> None:
    assert ACTIONS[action_type].model_validate(example(action_type)).action_type == action_type


@pytest.mark.parametrize("message_type", EVENTS)
def test_the_example_of_an_event_is_exactly_what_is_sent(message_type: str) -> None:
    content = example(message_type)
    envelope = Envelope.model_validate(content)
    parameters = parameters_of(message_type)
    whole = envelope.model_copy(update={"parameters": parameters.model_dump(mode="json")})
    assert json.loads(whole.model_dump_json()) == content
    assert (envelope.message_type, envelope.message_id) == (parameters.message_type, parameters.message_id)


def test_the_schemas_are_those_of_the_code(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "export-schemas", tmp_path], check=True)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    published = {path.name: path.read_text() for path in (EXAMPLES / "schema").iterdir()}
    assert written == published, "run scripts/export-schemas"


def test_every_event_and_every_request_that_takes_its_time_has_a_priority() -> None:
    events = {name for name, priority in PRIORITY.items() if priority <= LAST_EVENT}
    assert events == set(EVENTS)
    assert set(PRIORITY) - events == {
        "image.request",
        "worklist.create_test_item",
        "gateway.selftest",
        "gateway.diagnostics",
    }
    assert parameters_of("mpps.completed").priority < parameters_of("study.image_received").priority


def test_an_item_keeps_the_names_of_the_contract_and_ignores_what_it_does_not_know() -> None:
    item = WorklistItem.model_validate({**ITEM, "colour": "red"})
    assert item == WorklistItem(
        accession_number="ACC202611220001",
        participant=Participant(nhs_number="9990000017", name="EXAMPLE^ANNA", birth_date="19680412", sex="F"),
        scheduled=Scheduled(date="20261122", time="101500", timezone=""),
        procedure=Procedure(modality="MG", study_description="Screening mammography"),
        dicom={},
    )


def test_what_dicom_calls_type_2_may_be_absent_or_null() -> None:
    participant = Participant.model_validate({"nhs_number": "1", "name": "A^B", "birth_date": None})
    assert participant == Participant(nhs_number="1", name="A^B", birth_date="", sex="")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("accession_number", ""),
        ("accession_number", "A" * 17),
        ("accession_number", "A\\B"),
        ("accession_number", "A\nB"),
        ("accession_number", 4711),
        ("participant.nhs_number", "9" * 65),
        ("participant.name", "^^^"),
        ("participant.name", "A" * 65),
        ("participant.name", "A^B^C^D^E^F"),
        ("participant.name", "A=B=C=D"),
        ("participant.birth_date", "1968-04-12"),
        ("participant.birth_date", "00680412"),
        ("participant.sex", "X"),
        ("scheduled.date", "20260230"),
        ("scheduled.date", "2026111 "),
        ("scheduled.date", "٢٠٢٦١١٢٢"),
        ("scheduled.time", "25"),
        ("scheduled.time", "10:15"),
        ("scheduled.time", "101560"),
        ("scheduled.timezone", "Middle/Earth"),
        ("scheduled.timezone", "../../etc/passwd"),
        ("procedure.modality", "mg"),
        ("procedure.modality", ""),
        ("procedure.study_description", "x" * 65),
        ("dicom", {"PatientName": {"vr": "PN"}}),
        ("dicom", {"00100010": "EXAMPLE^ANNA"}),
        ("dicom", {"00100010": {"Value": ["EXAMPLE^ANNA"]}}),
    ],
)
def test_what_dicom_cannot_hold_is_refused_at_the_border(path: str, value: object) -> None:
    with pytest.raises(ValidationError):
        WorklistItem.model_validate(changed(ITEM, path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("accession_number", "A" * 16),
        ("participant.name", "A" * 64 + "=" + "B" * 64),
        ("participant.name", "山田^太郎"),
        ("scheduled.time", "10"),
        ("scheduled.time", "1015"),
        ("scheduled.timezone", "UTC"),
        ("dicom", {"001021C0": {"vr": "US", "Value": [4]}}),
    ],
)
def test_what_dicom_can_hold_is_taken(path: str, value: object) -> None:
    WorklistItem.model_validate(changed(ITEM, path, value))


def changed(item: dict[str, object], path: str, value: object) -> dict[str, object]:
    first, _, rest = path.partition(".")
    inner = item.get(first)
    return {**item, first: changed(inner, rest, value) if rest and isinstance(inner, dict) else value}


@pytest.mark.parametrize("status", ["in_progress", "IN PROGRESS", "In-Progress", " in progress "])
def test_a_status_is_read_however_it_is_written(status: str) -> None:
    message = {
        "action_type": "worklist.update_status",
        "parameters": {"worklist_item": changed(ITEM, "status", status)},
    }
    assert UpdateStatus.model_validate(message).parameters.worklist_item.status == "in_progress"


def test_an_echo_may_carry_anything() -> None:
    message: dict[str, object] = {"action_type": "echo", "action_id": 7, "timestamp": None, "more": [{"a": " b "}]}
    assert Echo.model_validate(message).payload == message


def test_an_action_of_a_later_schema_is_refused() -> None:
    with pytest.raises(ValidationError):
        Action.model_validate({"action_type": "health", "schema_version": 2})


def test_writing_an_event_does_not_fail_on_measures_nobody_can_read() -> None:
    acquisition = Acquisition.model_validate({"kvp": "28", "organ_dose_dgy": float("nan"), "exposure_uas": "a lot"})
    assert (acquisition.kvp, acquisition.organ_dose_dgy, acquisition.exposure_uas) == (28.0, None, None)


def test_an_image_is_told_under_its_own_uid_in_the_order_of_its_study() -> None:
    image = parameters_of("study.image_received")
    assert isinstance(image, ImageReceived)
    assert (image.message_id, image.subject) == (image.image.sop_instance_uid, image.study.study_instance_uid)


@pytest.mark.parametrize(
    ("status", "message_type", "message_id"),
    [
        ("IN PROGRESS", "mpps.in_progress", "1.2/in_progress"),
        ("COMPLETED", "mpps.completed", "1.2/completed"),
        ("DISCONTINUED", "mpps.discontinued", "1.2/discontinued"),
    ],
)
def test_a_step_has_one_message_for_each_status(status: str, message_type: str, message_id: str) -> None:
    step = StepChanged.model_validate({"mpps_instance_uid": "1.2", "status": status, "accession_number": "A1"})
    assert (step.message_type, step.message_id, step.subject) == (message_type, message_id, "mpps/A1")


def test_a_step_without_an_accession_number_is_its_own_subject() -> None:
    assert StepChanged(mpps_instance_uid="1.2", status="COMPLETED").subject == "mpps/1.2"


def test_each_different_copy_is_quarantined_under_its_own_id() -> None:
    first, second = (ImageQuarantined(sop_instance_uid="1.2", sha256=digit * 64, reason="other") for digit in "ab")
    assert (first.message_id, second.message_id) == (f"1.2/quarantined/{'a' * 16}", f"1.2/quarantined/{'b' * 16}")
    assert first.subject == second.subject
