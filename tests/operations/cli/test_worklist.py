"""`gateway worklist`: what a file adds, why an item is not shown, what leaves."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gateway.errors import InvalidValue, NotFound
from operations.cli.worklist import query
from tests.tools.command_line import command, facts, said
from tests.worklist.samples import NOW, begun, item, scheduled
from worklist import Worklist

ITEM = {
    "accession_number": "ACC0001",
    "participant": {"nhs_number": "9990000018", "name": "PHANTOM^JANE", "birth_date": "19700101", "sex": "F"},
    "scheduled": {"date": "20261122", "time": "093000"},
    "procedure": {"modality": "MG", "study_description": "Screening"},
}


def put(worklist: Worklist, name: str, date: str = "20261122") -> None:
    made = item(name, scheduled=scheduled(date, "0930"))
    worklist.schedule(made, action_id=name, content_hash="h", now=NOW)


def test_items_of_a_file_are_added_and_listed(empty_site: Path) -> None:
    file = empty_site / "clinic.json"
    file.write_text(json.dumps([ITEM]))
    added = facts("worklist", "add", str(file))
    [item] = added
    assert (item["accession_number"], item["state"], item["date"]) == ("ACC0001", "scheduled", "20261122")
    assert facts("worklist", "list", "--date", "20261122") == added
    assert facts("worklist", "list", "--date", "20261123") == []
    assert facts("worklist", "list", "--date", "all") == added


def test_the_same_file_again_changes_nothing(empty_site: Path) -> None:
    file = empty_site / "clinic.json"
    file.write_text(json.dumps([ITEM]))
    assert facts("worklist", "add", str(file)) == facts("worklist", "add", str(file))


def test_a_list_for_people_does_not_show_who_they_are(empty_site: Path) -> None:
    file = empty_site / "clinic.json"
    file.write_text(json.dumps([ITEM]))
    shown = said("worklist", "add", str(file))
    assert "ACC0001" in shown
    assert "PHANTOM" not in shown
    assert "9990000018" not in shown


def test_a_wrong_file_is_told_in_one_sentence(empty_site: Path) -> None:
    file = empty_site / "clinic.json"
    file.write_text(json.dumps([ITEM, {**ITEM, "accession_number": "LONGER_THAN_SIXTEEN"}]))
    done = command(empty_site, "worklist", "add", str(file))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "entry 2: " in done.stderr
    assert facts("worklist", "list", "--date", "all") == []


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
    assert facts("worklist", "prune", "--days", "7")[0]["leaves"] is False


def test_nothing_is_pruned_where_items_never_leave(worklist: Worklist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKLIST_KEEP_DAYS", "0")
    assert "so say for how long" in said("worklist", "prune", code=2)
