"""`gateway quarantine`: what is shown, and who decides."""

from pathlib import Path

from pacs import Archive
from pacs.maintenance.schedule import Maintenance
from tests.pacs.maintenance.test_schedule import NOTHING
from tests.tools.archive_files import files_of
from tests.tools.command_line import call, command, facts


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
    with Maintenance(running, files_of(running), NOTHING):
        assert call("quarantine", "release", "1", "--replace", "--by", "J. Smith").exit_code == 0
    assert len(running.quarantine.objects()) == 1
