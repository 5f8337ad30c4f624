"""The audit trail and the users in a backup: a prefix that fits, put back as what it is, older than what was lost."""

import json
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.messages import Actor, restored_text
from gateway.audit.trail import Head, Trail, lines, trails, verified
from operations.backup.backup import Beside, Taken, backup
from operations.backup.manifest import BackupError
from operations.backup.restore import MOVED, WORK, Restored, restore, verify_trail
from pacs import Archive
from tests.tools.archive_files import files_of
from worklist import Worklist

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


class Data:
    """A data folder with a trail of two chains, whose files are small, and one user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.worklist = Worklist.open(folder / "worklist.db")
        self.archive = Archive.open(folder / "pacs.db", folder / "instances")
        self.trail = Trail(folder / "audit", file_bytes=600)
        self.other = Trail(folder / "audit" / "pacs")
        for number in range(1, 8):
            self.trail.append([f"<message number='{number}'/>"])
        self.other.append(["<stored/>"])
        (folder / "users.json").write_text('{"users": []}')
        (folder / "users.json").chmod(0o600)

    def close(self) -> None:
        self.worklist.close()
        self.archive.close()

    def backup(self, target: Path, *, minutes: int = 0) -> Taken:
        return backup(
            self.worklist,
            self.archive,
            files_of(self.archive),
            target,
            beside=Beside(self.folder / "audit", self.folder / "users.json"),
            now=NOW + timedelta(minutes=minutes),
            step=lambda _how, _size: None,
        )


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Data]:
    with closing(Data(tmp_path / "data")) as data:
        yield data


def put_back(source: Path, folder: Path) -> Restored:
    return restore(source, folder, who=Actor("ina"), site="van-1", now=NOW, step=lambda _how, _size: None)


def texts(trail: Trail) -> list[str]:
    return [restored_text(line.message) or line.message for line in lines(trail)]


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}


def test_trail_and_users_come_back_and_the_trail_says_that_it_did(data: Data, tmp_path: Path) -> None:
    taken = data.backup(tmp_path / "backup")
    restored = put_back(tmp_path / "backup", tmp_path / "restored")
    assert (taken.audit_messages, restored.audit_messages) == (8, 8)
    [chain, other] = trails(tmp_path / "restored" / "audit")
    assert texts(chain)[:-1] == texts(data.trail)
    assert texts(chain)[-1] == (
        "Restored from the backup of 2026-11-22T02:30:00.000Z, which ends with message 7. What was written after that "
        "is not in this trail."
    )
    assert (texts(other)[0], "ends with message 1" in texts(other)[1]) == ("<stored/>", True)
    assert list(verify_trail(tmp_path / "restored")) == []
    assert modes(tmp_path / "restored" / "audit") == {0o600}
    assert stat.S_IMODE((tmp_path / "restored" / "audit").stat().st_mode) == 0o700
    users = tmp_path / "restored" / "users.json"
    assert (users.read_text(), stat.S_IMODE(users.stat().st_mode)) == ('{"users": []}', 0o600)


def test_an_older_trail_is_not_taken_for_the_one_that_was_being_written(data: Data, tmp_path: Path) -> None:
    data.backup(tmp_path / "backup")
    noted = data.trail.append(["<a deletion/>", "<another/>"])
    put_back(tmp_path / "backup", tmp_path / "restored")
    trail = Trail(tmp_path / "restored" / "audit")
    by_itself = list(verified(trail))
    trail.append(["<life goes on/>"] * 5)
    found = [(each.code, each.text) for each in verified(trail, expected=noted)]
    assert by_itself == []
    assert found == [("replaced", f"Message {noted.number} is another one than by what was noted elsewhere.")]
    assert [restored_text(line.message) != "" for line in lines(trail)].count(True) == 1


def test_a_backup_has_whole_messages_while_others_are_written(data: Data, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        trail = Trail(data.folder / "audit", file_bytes=5000)
        while not stop.is_set():
            trail.append(["<message/>" * 20] * 3)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        taken = [data.backup(tmp_path / "backup", minutes=each) for each in range(5)]
    finally:
        stop.set()
        writer.join()
    counts = []
    for each in taken:
        put_back(each.folder, tmp_path / each.folder.name)
        assert list(verify_trail(tmp_path / each.folder.name)) == []
        counts.append(each.audit_messages)
    assert counts == sorted(counts) and counts[0] < counts[-1]


def test_the_piece_of_a_line_that_a_power_cut_left_is_not_in_a_backup(data: Data, tmp_path: Path) -> None:
    with data.other.files()[0].open("ab") as file:
        file.write(b"2\tfa")
    data.backup(tmp_path / "backup")
    put_back(tmp_path / "backup", tmp_path / "restored")
    assert list(verify_trail(tmp_path / "restored")) == []
    assert [line.number for line in lines(Trail(tmp_path / "restored" / "audit" / "pacs"))] == [1, 2]


def test_a_trail_that_was_changed_before_the_backup_is_found_out_by_the_restore(data: Data, tmp_path: Path) -> None:
    path = data.trail.files()[0]
    path.write_bytes(path.read_bytes().replace(b"number='1'", b"number='9'"))
    data.backup(tmp_path / "backup")
    put_back(tmp_path / "backup", tmp_path / "restored")
    found = [(each.code, each.text) for each in verify_trail(tmp_path / "restored")]
    assert found == [("changed", "Message 1 is not what was written.")]


def test_a_trail_that_was_changed_in_the_backup_is_refused(data: Data, tmp_path: Path) -> None:
    taken = data.backup(tmp_path / "backup")
    head = json.loads((taken.folder / "manifest.jsonl").read_text().splitlines()[0])
    sha256 = head["trail"][0]["files"][0]["sha256"]
    path = tmp_path / "backup" / "files" / sha256[:2] / sha256[2:4] / sha256
    path.write_bytes(path.read_bytes().replace(b"number='1'", b"number='9'"))
    with pytest.raises(BackupError, match="is not what was backed up"):
        put_back(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored" / "pacs.db").exists()


def test_no_name_in_a_manifest_leads_out_of_the_trail(data: Data, tmp_path: Path) -> None:
    taken = data.backup(tmp_path / "backup")
    manifest = taken.folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"chain":"pacs"', '"chain":"../../pacs"'))
    with pytest.raises(BackupError, match="names an audit trail that no backup has"):
        put_back(tmp_path / "backup", tmp_path / "restored")


def test_the_trail_in_a_backup_is_no_link_to_the_one_that_is_written(data: Data, tmp_path: Path) -> None:
    data.backup(tmp_path / "backup")
    assert {path.stat().st_nlink for path in data.trail.files()} == {1}


def test_a_later_backup_copies_of_the_trail_only_the_file_that_grew(data: Data, tmp_path: Path) -> None:
    data.backup(tmp_path / "backup")
    before = pool(tmp_path / "backup")
    data.backup(tmp_path / "backup", minutes=1)
    assert pool(tmp_path / "backup") == before
    data.other.append(["<stored/>"])
    taken = data.backup(tmp_path / "backup", minutes=2)
    after = pool(tmp_path / "backup")
    assert (len(after) - len(before), before.items() <= after.items()) == (1, True)
    assert len(before) == len(data.trail.files()) + len(data.other.files()) > 2
    put_back(taken.folder, tmp_path / "restored")
    assert texts(Trail(tmp_path / "restored" / "audit" / "pacs"))[:2] == ["<stored/>", "<stored/>"]


@pytest.mark.parametrize("moved", range(len(MOVED)))
def test_a_restore_that_was_killed_while_it_moved_up_can_be_begun_again(data: Data, tmp_path: Path, moved: int) -> None:
    data.backup(tmp_path / "backup")
    folder = killed_after(moved, tmp_path)
    put_back(tmp_path / "backup", folder)
    assert {path.name for path in folder.iterdir()} >= set(MOVED)
    assert not (folder / WORK).exists()
    assert texts(Trail(folder / "audit"))[:-1] == texts(data.trail)


def test_a_folder_that_has_an_index_is_a_site_whatever_lies_beside_it(data: Data, tmp_path: Path) -> None:
    data.backup(tmp_path / "backup")
    folder = killed_after(len(MOVED), tmp_path)
    with pytest.raises(BackupError, match="is not empty"):
        put_back(tmp_path / "backup", folder)
    assert {path.name for path in folder.iterdir()} == {*MOVED, WORK}


def killed_after(moved: int, folder: Path) -> Path:
    """A folder as a restore leaves it that is killed when so many of its names have been moved up."""
    put_back(folder / "backup", folder / "whole")
    (folder / "restored" / WORK).mkdir(parents=True)
    for count, name in enumerate(MOVED):
        to = folder / "restored" if count < moved else folder / "restored" / WORK
        (folder / "whole" / name).rename(to / name)
    return folder / "restored"


def pool(target: Path) -> dict[str, int]:
    """The files that backups share, each with its inode: one that is copied again has another."""
    return {path.name: path.stat().st_ino for path in (target / "files").rglob("*") if path.is_file()}


def test_a_site_without_trail_and_users_is_backed_up_as_that(tmp_path: Path) -> None:
    with closing(Data(tmp_path / "data")) as data:
        data.folder.joinpath("users.json").unlink()
        data.folder.joinpath("audit").rename(tmp_path / "elsewhere")
        assert data.backup(tmp_path / "backup").audit_messages == 0
    put_back(tmp_path / "backup", tmp_path / "restored")
    assert {path.name for path in (tmp_path / "restored").iterdir()} & {"audit", "users.json"} == set()


def test_a_restored_trail_goes_on_from_its_last_message(data: Data, tmp_path: Path) -> None:
    data.backup(tmp_path / "backup")
    put_back(tmp_path / "backup", tmp_path / "restored")
    trail = Trail(tmp_path / "restored" / "audit")
    assert isinstance(trail.append(["<next/>"]), Head)
    assert ([line.number for line in lines(trail)][-2:], list(verified(trail))) == ([8, 9], [])
