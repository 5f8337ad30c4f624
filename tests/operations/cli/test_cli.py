"""The command line: facts, exit codes, help with an example."""

import json
import os
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gateway import __version__
from gateway.outbox import NewEntry
from operations.cli import app
from pacs import Archive
from worklist import Worklist

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
ITEM = {
    "accession_number": "ACC0001",
    "participant": {"nhs_number": "9990000018", "name": "PHANTOM^JANE", "birth_date": "19700101", "sex": "F"},
    "scheduled": {"date": "20261122", "time": "093000"},
    "procedure": {"modality": "MG", "study_description": "Screening"},
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder whose owners have run once; nobody runs now."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    Worklist.open(tmp_path / "data" / "worklist.db").close()
    Archive.open(tmp_path / "data" / "pacs.db", tmp_path / "data" / "instances").close()
    return tmp_path


def facts(*arguments: str) -> object:
    result = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def command(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the real command, for what only a process has: exit codes and standard error."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), **environment},
    )  # fmt: skip


def commands() -> list[tuple[str, str]]:
    """Every command with its help."""
    found = []
    for name, each in get_command(app).commands.items():  # type: ignore[attr-defined]
        for inner, leaf in getattr(each, "commands", {"": each}).items():
            found.append((f"{name} {inner}".strip(), leaf.help or ""))
    return found


def test_the_version_is_told(site: Path) -> None:
    assert facts("version") == {"version": __version__}


@pytest.mark.parametrize(("name", "text"), commands(), ids=[name for name, _ in commands()])
def test_every_command_is_explained_with_an_example(name: str, text: str) -> None:
    assert f"gateway {name}" in text.split("Example:")[1]


def test_items_of_a_file_are_added_and_listed(site: Path) -> None:
    file = site / "clinic.json"
    file.write_text(json.dumps([ITEM]))
    added = facts("worklist", "add", str(file))
    assert isinstance(added, list)
    [item] = added
    assert (item["accession_number"], item["state"], item["date"]) == ("ACC0001", "scheduled", "20261122")
    assert facts("worklist", "list", "--date", "20261122") == added
    assert facts("worklist", "list", "--date", "20261123") == []
    assert facts("worklist", "list", "--date", "all") == added


def test_the_same_file_again_changes_nothing(site: Path) -> None:
    file = site / "clinic.json"
    file.write_text(json.dumps([ITEM]))
    assert facts("worklist", "add", str(file)) == facts("worklist", "add", str(file))


def test_a_list_for_people_does_not_show_who_they_are(site: Path) -> None:
    file = site / "clinic.json"
    file.write_text(json.dumps([ITEM]))
    shown = CliRunner().invoke(app, ["worklist", "add", str(file)]).stdout
    assert "ACC0001" in shown
    assert "PHANTOM" not in shown
    assert "9990000018" not in shown


def test_what_is_parked_is_listed_with_its_reason_and_released(site: Path) -> None:
    with closing(Worklist.attach(site / "data" / "worklist.db")) as worklist:
        new = NewEntry("2.25.7/completed", "mpps.completed", "2.25.1", 1, {"patient_name": "PHANTOM^JANE"})
        worklist.outbox.enqueue(new, now=NOW)
        [entry] = worklist.outbox.due(NOW, limit=1)
        worklist.outbox.park(entry, reason="The cloud does not know this step.", now=NOW)
    assert facts("outbox", "list") == [
        {
            "of": "worklist",
            "id": entry.id,
            "destination": "cloud",
            "message_id": "2.25.7/completed",
            "message_type": "mpps.completed",
            "created_at": "2026-11-22T09:30:00.000Z",
            "attempts": 1,
            "due_at": "2026-11-22T09:30:00.000Z",
            "reason": "The cloud does not know this step.",
        }
    ]
    assert CliRunner().invoke(app, ["outbox", "release", "worklist", str(entry.id)]).exit_code == 0
    assert facts("outbox", "list") == []
    assert len(facts("outbox", "list", "--state", "open")) == 1  # type: ignore[arg-type]
    parked = CliRunner().invoke(app, ["outbox", "park", "worklist", str(entry.id), "--reason", "Wait for the cloud."])
    assert parked.exit_code == 0
    assert [fact["reason"] for fact in facts("outbox", "list")] == ["Wait for the cloud."]  # type: ignore[attr-defined]


def test_releasing_what_is_not_parked_is_an_error(site: Path) -> None:
    done = command(site, "outbox", "release", "pacs", "17")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)


def test_status_counts_what_is_there_and_what_is_owed(site: Path) -> None:
    assert facts("status") == {
        "site": "unnamed",
        "version": __version__,
        "worklist": {
            "items today": 0,
            "events open": 0,
            "events delivered": 0,
            "events parked": 0,
            "oldest open": None,
        },
        "pacs": {
            "studies": 0,
            "series": 0,
            "instances": 0,
            "bytes": 0,
            "damaged": 0,
            "all read again": None,
            "commitments to report": 0,
            "oldest commitment to report": None,
            "it waits because": None,
            "events open": 0,
            "events delivered": 0,
            "events parked": 0,
            "oldest open": None,
        },
    }


def test_a_check_without_processes_fails_hop_by_hop(site: Path) -> None:
    done = command(site, "check", "--json", "--local", WORKLIST_PORT="1", PACS_PORT="1", RELAY_HTTP_PORT="1")
    assert done.returncode == 1
    assert [(hop["name"], hop["state"]) for hop in json.loads(done.stdout)] == [
        ("worklist answers", "failed"),
        ("worklist is queried", "failed"),
        ("archive answers", "failed"),
        ("certificate in use", "skipped"),
        ("relay answers", "failed"),
        ("DICOMweb is searched", "failed"),
        ("steps owed to the cloud", "ok"),
        ("images owed to the cloud", "ok"),
        ("images owed to site archives", "skipped"),
        ("room on disk", "ok"),
    ]


def test_wrong_settings_end_with_78_and_name_the_variable(tmp_path: Path) -> None:
    done = command(tmp_path, "status", WORKLIST_PORT="seven")
    assert done.returncode == 78
    assert "WORKLIST_PORT=seven cannot be used" in done.stderr


def test_a_site_that_was_never_started_is_told_in_one_sentence(tmp_path: Path) -> None:
    done = command(tmp_path, "worklist", "list", GATEWAY_DATA_DIR=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_wrong_file_is_told_in_one_sentence(site: Path) -> None:
    file = site / "clinic.json"
    file.write_text(json.dumps([ITEM, {**ITEM, "accession_number": "LONGER_THAN_SIXTEEN"}]))
    done = command(site, "worklist", "add", str(file))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "entry 2: " in done.stderr
    assert facts("worklist", "list", "--date", "all") == []
