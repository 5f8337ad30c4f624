"""backup and restore as commands: facts and exit codes."""

import json
from pathlib import Path

from gateway.audit.trail import Trail
from gateway.last_backup import last
from tests.operations.cli.conftest import stored
from tests.tools.command_line import call, command


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
    restored = json.loads(result.stdout)
    assert (result.exit_code, restored["audit_messages"], restored["trail_findings"]) == (0, 2, [])
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
