"""The commands of the worklist: why an item is not shown, what leaves, and the step that is stuck."""

import json
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.errors import InvalidValue, NoLongerUpdatable, NotFound
from operations.cli import app
from operations.cli.worklist import query
from tests.worklist.samples import NOW, begun, ended, item, scheduled
from worklist import Worklist


@pytest.fixture
def worklist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worklist]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    with closing(Worklist.open(tmp_path / "worklist.db")) as opened:
        yield opened


def put(worklist: Worklist, name: str, date: str = "20261122") -> None:
    made = item(name, scheduled=scheduled(date, "0930"))
    worklist.schedule(made, action_id=name, content_hash="h", now=NOW)


def said(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.output


def facts(*arguments: str) -> object:
    return json.loads(said(*arguments, "--json"))


def test_it_is_explained_why_an_item_is_not_answered(worklist: Worklist, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, date in (("ACC1", "20261122"), ("ACC2", "20261122"), ("ACC3", "20261123")):
        put(worklist, name, date)
    worklist.cancel("ACC2", now=NOW)
    monkeypatch.setenv("WORKLIST_PEERS", "MAMMO_2=station:strict")
    asked = ("worklist", "explain", "--date", "20261122", "PatientName=smith*", "Modality=MG", "MedicalAlerts=x")
    assert said(*asked, "--from", "MAMMO_1") == (
        "Not matched here, and so of no effect: MedicalAlerts.\n"
        "ACC1, 20261122 0930: answered.\n"
        "ACC2, 20261122 0930: not answered. It is cancelled, and MAMMO_1 is shown what is scheduled or in_progress.\n"
    )
    assert facts("worklist", "explain", "--from", "MAMMO_2", "--item", "ACC3", "Modality=CT") == [
        {
            "accession_number": "ACC3",
            "date": "20261123",
            "time": "0930",
            "answered": False,
            "reasons": [
                "Modality does not match.",
                "It names no station, and MAMMO_2 is shown its own items only.",
            ],
        }
    ]
    assert "SMITH" not in said(*asked, "--from", "MAMMO_1", "PatientID=1")
    assert said("worklist", "explain", "--from", "MAMMO_1", "--item", "ACC9") == "No items.\n"
    assert "Say who asks." in said("worklist", "explain", code=2)


def test_keys_of_the_step_go_into_its_sequence() -> None:
    made = query(["PatientID=1", "Modality=MG", "ScheduledProcedureStepSequence.ScheduledStationName=Van", "Allergies"])
    [step] = made.ScheduledProcedureStepSequence
    assert (made.PatientID, made.Allergies, step.Modality, step.ScheduledStationName) == ("1", None, "MG", "Van")
    with pytest.raises(InvalidValue, match="'Colour' is not a DICOM keyword"):
        query(["Colour=red"])


def test_an_item_is_cancelled(worklist: Worklist) -> None:
    put(worklist, "ACC1")
    assert "cancelled" in said("worklist", "cancel", "ACC1")
    assert worklist.item("ACC1").state == "cancelled"
    with pytest.raises(NotFound):
        said("worklist", "cancel", "ACC9")


def test_old_items_leave_when_asked_and_a_dry_run_only_says_so(worklist: Worklist) -> None:
    put(worklist, "OLD", "20200101")
    put(worklist, "STUCK", "20200102")
    worklist.begin("1.1", begun("STUCK"), now=NOW)
    tomorrow = f"{datetime.now().astimezone() + timedelta(days=1):%Y%m%d}"
    put(worklist, "YOUNG", tomorrow)
    expected = (
        "OLD of 20200101, scheduled, leaves\n"
        "STUCK of 20200102, in_progress, stays: it is in progress; a step of it is in progress; see 'gateway mpps"
        " list'; the cloud is still owed events of it\n"
    )
    assert said("worklist", "prune", "--dry-run") == expected
    assert [each.accession_number for each in worklist.items()] == ["OLD", "STUCK", "YOUNG"]
    assert said("worklist", "prune", "--days", "7").endswith(expected)  # after log lines
    assert [each.accession_number for each in worklist.items()] == ["STUCK", "YOUNG"]
    assert facts("worklist", "prune", "--days", "7")[0]["leaves"] is False  # type: ignore[index]


def test_nothing_is_pruned_where_items_never_leave(worklist: Worklist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKLIST_KEEP_DAYS", "0")
    assert "so say for how long" in said("worklist", "prune", code=2)


def test_a_stuck_step_is_listed_and_closed(worklist: Worklist) -> None:
    put(worklist, "ACC1")
    update = ended()
    del update.PerformedProcedureStepStatus
    worklist.begin("1.1", begun(), now=NOW)
    worklist.change("1.1", update, now=NOW)
    step = {
        "mpps_instance_uid": "1.1",
        "accession_numbers": ["ACC1"],
        "status": "IN PROGRESS",
        "begun_at": "2026-11-22T09:00:00.123Z",
        "instances": 1,
        "closed_by": "",
        "closed_because": "",
    }
    assert facts("mpps", "list") == [step]
    before = datetime.now(UTC)
    closed = facts("mpps", "close", "1.1", "--by", "J. Smith", "--reason", "tube failed")
    assert closed == step | {
        "status": "DISCONTINUED", "begun_at": "2026-11-22T09:35:00", "closed_by": "J. Smith",
        "closed_because": "tube failed",
    }  # fmt: skip
    assert said("mpps", "list") == "No step is in progress.\n"
    assert worklist.item("ACC1").state == "discontinued"
    [event, _] = worklist.outbox.entries("open")
    assert datetime.fromisoformat(event.created_at) >= before - timedelta(milliseconds=1)
    with pytest.raises(NoLongerUpdatable):
        said("mpps", "close", "1.1", "--by", "J. Smith", "--reason", "again")


def test_a_step_is_closed_for_a_reason(worklist: Worklist) -> None:
    assert "The cloud has to be told why." in said("mpps", "close", "1.1", "--by", "x", code=2)


@pytest.mark.parametrize("by", ["", " ", "J.\nSmith", "x" * 129])
def test_a_step_is_closed_by_somebody_with_a_name(worklist: Worklist, by: str) -> None:
    with pytest.raises(InvalidValue, match="Say who decides this"):
        said("mpps", "close", "1.1", "--by", by, "--reason", "tube failed")
