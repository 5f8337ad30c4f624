"""fsck, prune, statistics: facts, exit codes, and what they do beside a running archive."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from pacs import Archive
from pacs.archive.maintenance_rows import MaintenanceRows
from tests.operations.cli.conftest import LONG_AGO, stored
from tests.pacs.archive.test_archive import NOW
from tests.tools.command_line import call, command, facts


def deliver(folder: Path) -> None:
    with closing(Archive.attach(folder / "data" / "pacs.db", folder / "data" / "instances")) as archive:
        for entry in archive.outbox.entries("open"):
            archive.outbox.delivered(entry, now=NOW)


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
