"""The commands of care: facts, exit codes, and what they do beside a running archive."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.audit.trail import Trail
from gateway.errors import Conflict
from gateway.last_backup import last
from operations.cli import app
from pacs import Archive
from pacs.archive.maintenance_rows import MaintenanceRows
from pacs.maintenance.schedule import Care
from tests.operations.cli.test_cli import command
from tests.pacs.archive.test_archive import NOW, image, send
from tests.pacs.maintenance.test_schedule import NOTHING
from tests.tools.archive_files import files_of
from worklist import Worklist

LONG_AGO = "2020-02-29T08:00:00.000Z"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with two images and a quarantined one; nobody runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    Worklist.open(tmp_path / "data" / "worklist.db").close()
    with closing(served(tmp_path)) as archive:
        send(archive, image(1))
        send(archive, image(2))
        with pytest.raises(Conflict):
            send(archive, image(2, PatientID="SECOND"))
        with archive.write() as conn:  # long ago, whatever day it is today
            conn.execute("UPDATE study SET first_received_at = ?, last_received_at = ?", (LONG_AGO, LONG_AGO))
            conn.execute("UPDATE instance SET received_at = ?", (LONG_AGO,))
    return tmp_path


def served(folder: Path) -> Archive:
    return Archive.open(folder / "data" / "pacs.db", folder / "data" / "instances")


@pytest.fixture
def running(site: Path) -> Iterator[Archive]:
    """The archive as its process has it."""
    with closing(served(site)) as archive:
        yield archive


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def facts(*arguments: str, exit_code: int = 0) -> list[dict[str, object]]:
    result = call(*arguments, "--json")
    assert result.exit_code == exit_code, result.output
    found: list[dict[str, object]] = json.loads(result.stdout)
    return found


def deliver(folder: Path) -> None:
    with closing(Archive.attach(folder / "data" / "pacs.db", folder / "data" / "instances")) as archive:
        for entry in archive.outbox.entries("open"):
            archive.outbox.delivered(entry, now=NOW)


def stored(folder: Path) -> list[Path]:
    return sorted((folder / "data" / "instances").glob("??/??/*.dcm"))


def test_a_sound_site_has_no_findings(site: Path) -> None:
    assert facts("fsck", "--hashes") == []
    assert call("fsck").exit_code == 0


def test_findings_are_told_with_their_remedy_and_an_exit_code(site: Path) -> None:
    stored(site)[0].unlink()
    [finding] = facts("fsck", exit_code=1)
    assert (finding["code"], finding["repaired"]) == ("missing_file", "")
    told = call("fsck")
    assert told.exit_code == 1
    assert "Send it again from the modality" in told.stdout


def test_a_repair_takes_the_folder_and_ends_well_when_nothing_is_left(site: Path) -> None:
    (site / "data" / "instances" / "quarantine" / "stray.dcm").write_bytes(stored(site)[0].read_bytes())
    assert [found["repaired"] for found in facts("fsck", "--repair")] == ["It has a row again."]
    assert facts("fsck") == []


def test_while_the_archive_serves_it_is_checked_and_not_repaired(running: Archive, site: Path) -> None:
    assert facts("fsck", "--hashes") == []
    done = command(site, "fsck", "--repair")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Another pacs process writes to" in done.stderr


def test_nothing_is_pruned_unless_somebody_says_for_how_long(site: Path) -> None:
    assert call("prune").exit_code == 2


def test_a_dry_run_says_what_would_go_and_changes_nothing(site: Path) -> None:
    [study] = facts("prune", "--days", "0", "--dry-run")
    assert (study["goes"], study["kept_because"]) == (
        False,
        ["the cloud has not confirmed all of it", "the cloud is still owed events of it"],
    )
    deliver(site)
    [study] = facts("prune", "--days", "0", "--dry-run")
    assert (study["study_instance_uid"], study["instances"], study["goes"]) == ("2.25.1002", 2, True)
    assert len(stored(site)) == 2


def test_a_prune_removes_rows_and_files(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(site)
    monkeypatch.setenv("PACS_RETENTION_DAYS", "36500")
    assert facts("prune") == []
    assert "goes" in call("prune", "--days", "0").stdout
    assert stored(site) == []
    assert facts("fsck", "--hashes") == []


def test_beside_a_running_archive_the_files_are_left_to_it(running: Archive, site: Path) -> None:
    deliver(site)
    done = command(site, "prune", "--days", "0", "--json")
    assert [study["goes"] for study in json.loads(done.stdout)] == [True]
    assert len(stored(site)) == 2
    assert len(MaintenanceRows(running).removals()) == 2


def test_what_is_kept_aside_is_listed_without_saying_who_it_is(site: Path) -> None:
    [kept] = facts("quarantine", "list")
    assert kept["sop_instance_uid"] == "2.25.2"
    assert kept["reason"] == "A different object with this SOP Instance UID is stored already."
    assert "SECOND" not in call("quarantine", "list").stdout


def test_a_release_needs_a_free_uid_or_a_name(site: Path) -> None:
    refused = call("quarantine", "release", "1")
    assert (refused.exit_code, "say --replace" in refused.stdout) == (1, True)
    assert command(site, "quarantine", "release", "1", "--replace").returncode == 1
    assert call("quarantine", "release", "1", "--replace", "--by", "J. Smith").exit_code == 0
    [kept] = facts("quarantine", "list")
    assert "by decision of J. Smith." in str(kept["reason"])
    assert facts("fsck", "--hashes") == []


def test_keeping_the_stored_one_needs_a_name_and_deletes_nothing(site: Path) -> None:
    assert call("quarantine", "keep", "1").exit_code == 2
    for by in (" ", "J.\nSmith", "x" * 129):
        assert command(site, "quarantine", "keep", "1", "--by", by).returncode == 1
    assert call("quarantine", "keep", "1", "--by", "J. Smith").exit_code == 0
    [kept] = facts("quarantine", "list")
    assert (kept["decision"], bool(kept["settled_at"])) == (None, True)
    assert facts("fsck", "--hashes") == []
    assert command(site, "quarantine", "keep", "99", "--by", "J. Smith").returncode == 1


def test_a_running_archive_carries_the_release_out(running: Archive) -> None:
    with Care(running, files_of(running), NOTHING):
        assert call("quarantine", "release", "1", "--replace", "--by", "J. Smith").exit_code == 0
    assert len(running.quarantine.objects()) == 1


def test_a_backup_and_its_restore(site: Path) -> None:
    result = call("backup", str(site / "backup"), "--json")
    assert result.exit_code == 0
    taken = json.loads(result.stdout)
    assert (taken["files"], taken["new_files"], taken["linked"]) == (3, 3, True)
    noted = last(site / "data")
    assert noted is not None
    assert (noted.folder, noted.files, noted.missing, noted.damaged) == (taken["folder"], 3, 0, 0)
    assert "protects from mistakes" not in call("backup", str(site / "backup2"), "--json").stdout
    result = call("restore", str(site / "backup"), "--to", str(site / "restored"), "--verify", "--json")
    assert (result.exit_code, json.loads(result.stdout)["findings"]) == (0, [])
    assert "The backup has no audit trail." in call("restore", str(site / "backup"), "--to", str(site / "again")).stdout
    done = command(site, "restore", str(site / "backup"), "--to", str(site / "restored"))
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "is not empty" in done.stderr


def test_a_restored_trail_is_verified_and_called_older(site: Path) -> None:
    trail = Trail(site / "data" / "audit")
    trail.append(["<one/>", "<two/>"])
    [path] = trail.files()
    assert json.loads(call("backup", str(site / "backup"), "--json").stdout)["audit_messages"] == 2
    result = call("restore", str(site / "backup"), "--to", str(site / "restored"), "--verify", "--json")
    facts = json.loads(result.stdout)
    assert (result.exit_code, facts["audit_messages"], facts["trail_findings"]) == (0, 2, [])
    path.write_text(path.read_text().replace("<one/>", "<eno/>"))
    call("backup", str(site / "later"))
    result = call("restore", str(site / "later"), "--to", str(site / "spoilt"), "--verify")
    said = result.stdout.replace("\n", " ")
    assert (result.exit_code, "Message 1 is not what was written." in said) == (1, True)
    assert "those that were written after the backup are not in it" in said


def test_a_backup_of_a_damaged_site_says_so(site: Path) -> None:
    stored(site)[0].unlink()
    result = call("backup", str(site / "backup"))
    assert result.exit_code == 1
    assert "See 'gateway fsck --hashes'." in result.stdout.replace("\n", " ")


def test_statistics_count_by_day_and_study(site: Path) -> None:
    result = json.loads(call("statistics", "--json", "--days", "36500").stdout)
    size = sum(path.stat().st_size for path in stored(site))
    assert result == {
        "studies": 1,
        "series": 1,
        "instances": 2,
        "bytes": size,
        "oldest": LONG_AGO,
        "newest": LONG_AGO,
        "damaged": 0,
        "days": [{"day": "2020-02-29", "studies": 1, "instances": 2, "bytes": size}],
        "newest_studies": [
            {
                "study_instance_uid": "2.25.1002",
                "accession_number": "A1",
                "series": 1,
                "instances": 2,
                "bytes": size,
                "first_received_at": LONG_AGO,
                "last_received_at": LONG_AGO,
            }
        ],
    }
    assert "2.25.1002" in call("statistics").stdout


def test_wrong_watermarks_name_the_variable(site: Path) -> None:
    done = command(site, "fsck", PACS_WARN_PERCENT="97")
    assert done.returncode == 78
    assert "PACS_WARN_PERCENT is above PACS_STOP_PERCENT" in done.stderr


def test_what_is_held_back_is_discarded_by_somebody_for_a_reason(site: Path) -> None:
    with closing(Archive.attach(site / "data" / "pacs.db", site / "data" / "instances")) as archive:
        entry = next(each for each in archive.outbox.entries("open") if each.message_type == "study.image_received")
        decide = ("outbox", "discard", "pacs", str(entry.id), "--by", "J. Smith", "--because", "Another's.")
        assert command(site, *decide).returncode == 1  # it is not held back
        archive.outbox.held.hold(entry.id, reason="Held back.", now=NOW)
        assert call(*decide[:-2]).exit_code == 2
        assert call(*decide).exit_code == 0
        assert archive.outbox.held.discarded([entry.message_id]) == {
            entry.message_id: "Discarded by J. Smith: Another's."
        }
        assert [each.message_type for each in archive.outbox.entries("open", limit=1)] == ["image.rejected"]
