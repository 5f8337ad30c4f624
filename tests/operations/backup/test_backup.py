"""A site is copied while it works, and put back where nothing was: counts, hashes, and three processes that start."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import gettempdir, mkdtemp

import pytest

from gateway.audit.messages import Actor
from gateway.errors import Conflict
from operations.backup.backup import Beside, Taken, backup
from operations.backup.manifest import BackupError, complete
from operations.backup.pool import pool_place
from operations.backup.restore import Restored, restore, verify
from pacs import Archive
from pacs.archive.files import digest
from pacs.maintenance.retention import RetentionPolicy, prune, remove_ordered
from simulator.exam.phantom import mammogram
from simulator.site import Site, wait_until
from tests.journeys.steps import COLUMNS, ROWS, qido, stored
from tests.pacs.archive.test_archive import image, send
from tests.tools.archive_files import files_of
from worklist import Worklist

NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


class Data:
    """A data folder that is served by this test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.worklist = Worklist.open(folder / "worklist.db")
        self.archive = Archive.open(folder / "pacs.db", folder / "instances")

    def close(self) -> None:
        self.worklist.close()
        self.archive.close()

    def backup(self, target: Path, *, minutes: int = 0, step: Callable[[str, int], None] | None = None) -> Taken:
        now = NOW + timedelta(minutes=minutes)
        beside = Beside(self.folder / "audit", self.folder / "users.json")
        told = step or (lambda _how, _size: None)
        files = files_of(self.archive)
        return backup(self.worklist, self.archive, files, target, beside=beside, now=now, step=told)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Data]:
    """Three images of two studies, and one that is quarantined."""
    with closing(Data(tmp_path / "data")) as data:
        send(data.archive, image(1))
        send(data.archive, image(2))
        send(data.archive, image(3, StudyInstanceUID="2.25.2002", SeriesInstanceUID="2.25.2003"))
        with pytest.raises(Conflict):
            send(data.archive, image(3, PatientID="OTHER"))
        yield data


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder on another volume, where nothing can be linked."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == Path(gettempdir()).stat().st_dev:
        pytest.skip("there is no second volume")
    folder = Path(mkdtemp(prefix="gateway-backup-", dir=memory))
    yield folder
    shutil.rmtree(folder)


def put_back(source: Path, folder: Path) -> Restored:
    return restore(source, folder, who=Actor("ina"), site="van-1", now=NOW, step=lambda _how, _size: None)


def files(folder: Path) -> dict[str, str]:
    """Every stored and quarantined file by its place, with its hash."""
    root = folder / "instances"
    return {str(path.relative_to(root)): digest(path) for path in root.rglob("*.dcm")}


def test_a_backup_has_both_databases_and_every_file(data: Data, tmp_path: Path) -> None:
    taken = data.backup(tmp_path / "backup")
    assert (taken.files, taken.new_files, taken.missing, taken.damaged) == (4, 4, [], [])
    assert complete(tmp_path / "backup") == [tmp_path / "backup" / "20261122T023000Z"]
    lines = [json.loads(line) for line in (taken.folder / "manifest.jsonl").read_text().splitlines()]
    assert lines[0]["databases"] == {name: digest(taken.folder / name) for name in ("worklist.db", "pacs.db")}
    assert {line["path"]: line["sha256"] for line in lines[1:-1]} == files(data.folder)
    assert lines[-1] == {"files": 4, "bytes": taken.bytes, "missing": 0}
    for sha256 in files(data.folder).values():
        assert digest(tmp_path / "backup" / pool_place(sha256)) == sha256
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700


def test_on_another_volume_files_are_copied(data: Data, elsewhere: Path, tmp_path: Path) -> None:
    taken = data.backup(elsewhere)
    assert (taken.new_files, taken.linked) == (4, False)
    data.archive.instance("2.25.1").path.write_bytes(b"a disaster")
    put_back(elsewhere, tmp_path / "restored")
    assert list(verify(tmp_path / "restored", now=NOW)) == []


def test_a_later_backup_takes_only_what_is_new(data: Data, tmp_path: Path) -> None:
    data.backup(tmp_path / "backup")
    send(data.archive, image(4))
    taken = data.backup(tmp_path / "backup", minutes=1)
    assert (taken.files, taken.new_files) == (5, 1)
    assert len(complete(tmp_path / "backup")) == 2


def test_each_backup_can_be_restored_as_it_was(data: Data, tmp_path: Path) -> None:
    first = data.backup(tmp_path / "backup")
    before = files(data.folder)
    send(data.archive, image(4))
    data.backup(tmp_path / "backup", minutes=1)
    assert put_back(first.folder, tmp_path / "old").instances == 3
    assert put_back(tmp_path / "backup", tmp_path / "new").instances == 4
    assert (files(tmp_path / "old"), files(tmp_path / "new")) == (before, files(data.folder))


def test_what_was_restored_is_what_was_there(data: Data, tmp_path: Path) -> None:
    taken = data.backup(tmp_path / "backup")
    restored = put_back(tmp_path / "backup", tmp_path / "restored")
    assert restored == Restored(
        backup=str(taken.folder), folder=str(tmp_path / "restored"), files=4, bytes=taken.bytes, studies=2,
        instances=3, owed=4, audit_messages=0,
    )  # fmt: skip
    assert files(tmp_path / "restored") == files(data.folder)
    assert list(verify(tmp_path / "restored", now=NOW)) == []
    with closing(Data(tmp_path / "restored")) as again:
        assert again.archive.statistics() == data.archive.statistics()
        assert again.archive.quarantine.objects() == data.archive.quarantine.objects()


def test_what_was_owed_is_owed_again_at_once_and_what_was_confirmed_is_not(data: Data, tmp_path: Path) -> None:
    first, second, *_ = reversed(data.archive.outbox.entries("open"))
    data.archive.outbox.delivered(first, now=NOW)
    data.archive.outbox.retry(second, reason="The line is down.", due_at=NOW + timedelta(days=9))
    data.backup(tmp_path / "backup")
    data.archive.outbox.delivered(second, now=NOW)  # the cloud hears of it after the backup
    put_back(tmp_path / "backup", tmp_path / "restored")
    with closing(Data(tmp_path / "restored")) as again:
        outbox = again.archive.outbox
        assert outbox.counts() == {"open": 3, "delivered": 1, "parked": 0}
        opened = {entry.message_id: entry for entry in outbox.entries("open")}
        assert opened[second.message_id].due_at == "2026-11-22T02:30:00.000Z"
        assert opened[second.message_id].reason == "Restored from the backup of 2026-11-22T02:30:00.000Z."


def test_a_folder_that_is_not_empty_is_left_alone(data: Data, tmp_path: Path) -> None:
    data.backup(tmp_path / "backup")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("years of work")
    with pytest.raises(BackupError, match="is not empty"):
        put_back(tmp_path / "backup", tmp_path / "full")
    with pytest.raises(BackupError, match="is not empty"):
        put_back(tmp_path / "backup", data.folder)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "years of work"


def test_a_restore_that_was_cut_off_can_be_begun_again(data: Data, tmp_path: Path) -> None:
    data.backup(tmp_path / "backup")
    (tmp_path / "restored" / ".restoring" / "instances").mkdir(parents=True)
    (tmp_path / "restored" / ".restoring" / "pacs.db").write_bytes(b"half")
    (tmp_path / "restored" / "lost+found").mkdir()
    assert put_back(tmp_path / "backup", tmp_path / "restored").instances == 3
    assert not (tmp_path / "restored" / ".restoring").exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # the backup's own file, not the site's that it may be linked to
    path.write_bytes(content)


def damage_a_file(target: Path, taken: Taken) -> None:
    flip(next(path for path in (target / "files").rglob("*") if path.is_file()))


def damage_a_database(target: Path, taken: Taken) -> None:
    flip(taken.folder / "pacs.db")


def lose_a_file(target: Path, taken: Taken) -> None:
    next(path for path in (target / "files").rglob("*") if path.is_file()).unlink()


def cut_the_manifest(target: Path, taken: Taken) -> None:
    manifest = taken.folder / "manifest.jsonl"
    manifest.write_text("".join(manifest.read_text().splitlines(keepends=True)[:-1]))


def lead_out_of_the_folder(target: Path, taken: Taken) -> None:
    manifest = taken.folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"path":"quarantine/', '"path":"../../../quarantine/'))


def another_format(target: Path, taken: Taken) -> None:
    manifest = taken.folder / "manifest.jsonl"
    manifest.write_text(manifest.read_text().replace('"format":1', '"format":9'))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_a_file, "is not what was backed up"),
        (damage_a_database, "is not what was backed up"),
        (lose_a_file, "The backup lacks"),
        (cut_the_manifest, "is not whole"),
        (lead_out_of_the_folder, "names a file that no backup has"),
        (another_format, "a format that this version does not know"),
    ],
)
def test_a_damaged_backup_is_refused_and_makes_no_site(
    data: Data, tmp_path: Path, damage: Callable[[Path, Taken], None], words: str
) -> None:
    damage(tmp_path / "backup", data.backup(tmp_path / "backup"))
    with pytest.raises(BackupError, match=words):
        put_back(tmp_path / "backup", tmp_path / "restored")
    assert not (tmp_path / "restored" / "pacs.db").exists()


def test_a_folder_without_a_backup_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="holds no complete backup"):
        put_back(tmp_path, tmp_path / "restored")


def test_damage_on_the_site_is_reported_by_the_backup_and_kept_as_it_is(data: Data, elsewhere: Path) -> None:
    bad, gone = data.archive.instance("2.25.1").path, data.archive.instance("2.25.2").path
    flip(bad)
    gone.unlink()
    taken = data.backup(elsewhere)
    root = data.folder / "instances"
    assert (taken.damaged, taken.missing) == ([str(bad.relative_to(root))], [str(gone.relative_to(root))])
    with ExitStack() as removed:
        restored = elsewhere / "restored"
        removed.callback(shutil.rmtree, restored, ignore_errors=True)
        put_back(elsewhere, restored)
        assert sorted(each.code for each in verify(restored, now=NOW)) == ["missing_file", "wrong_hash"]


# ---- while the site works --------------------------------------------------------------------------------------------


def test_a_backup_is_consistent_while_images_come_in_and_go(data: Data, tmp_path: Path) -> None:
    stop, came_and_went = threading.Event(), threading.Event()

    def work() -> None:
        number = 100
        while not stop.is_set():
            number += 1
            older = data.archive.outbox.entries("open")
            send(data.archive, image(number, StudyInstanceUID=f"2.25.{number}00", SeriesInstanceUID=f"2.25.{number}01"))
            for entry in older:  # so that the newest image always stays
                data.archive.outbox.delivered(entry, now=NOW)
            list(prune(data.archive, RetentionPolicy(days=0), now=datetime(2027, 1, 1, tzinfo=UTC)))
            remove_ordered(data.archive, files_of(data.archive))
            came_and_went.set()

    def meanwhile(_how: str, _size: int) -> None:
        came_and_went.clear()
        assert came_and_went.wait(30)

    working = threading.Thread(target=work)
    working.start()
    try:
        taken = [data.backup(tmp_path / "backup", minutes=each, step=meanwhile) for each in range(1, 6)]
    finally:
        stop.set()
        working.join()
    assert [(each.missing, each.new_files > 0) for each in taken] == [([], True)] * 5
    for each in taken:
        folder = tmp_path / each.folder.name
        put_back(each.folder, folder)
        assert list(verify(folder, now=NOW)) == []


def test_two_backups_at_a_time_into_one_folder_are_one_too_many(data: Data, tmp_path: Path) -> None:
    def another(_how: str, _size: int) -> None:
        with pytest.raises(BackupError, match="Another backup is being taken"):
            data.backup(tmp_path / "backup", minutes=1)

    assert data.backup(tmp_path / "backup", step=another).files == 4


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path

from operations.backup.backup import Beside, backup
from pacs import Archive
from pacs.archive.files import Files
from worklist import Worklist

folder, target = map(Path, sys.argv[1:])
seen = []

def step(how, size):
    seen.append(how)
    if len(seen) == 12:
        os.kill(os.getpid(), signal.SIGKILL)

archive = Archive.attach(folder / "pacs.db", folder / "instances")
beside = Beside(folder / "audit", folder / "users.json")
worklist, files = Worklist.attach(folder / "worklist.db"), Files(folder / "instances")
backup(worklist, archive, files, target, beside=beside, now=datetime.now(UTC), step=step)
"""
"""A process that takes a backup and dies after the twelfth file."""


def test_a_backup_that_is_killed_is_none_and_the_next_goes_on_from_it(data: Data, elsewhere: Path) -> None:
    for number in range(10, 40):
        send(data.archive, image(number, ImageComments="x" * 10_000))
    packages = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(data.folder), str(elsewhere)], env=packages, timeout=60, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert complete(elsewhere) == []
    taken = data.backup(elsewhere)
    assert (taken.files, taken.new_files) == (34, 22)
    assert [path.name for path in elsewhere.iterdir() if path.name != "files"] == [taken.folder.name]


# ---- the whole site --------------------------------------------------------------------------------------------------


def test_a_restored_site_starts_serves_and_tells(tmp_path: Path) -> None:
    with Site(tmp_path / "first", settings={"RELAY_DESTINATION": "none"}) as first:
        (tmp_path / "first").mkdir()
        first.start("worklist", "pacs")
        stored(first, [mammogram(view, rows=ROWS, columns=COLUMNS) for view in ("RCC", "LCC", "RMLO")])
        run(first, "backup", str(tmp_path / "backup"))
    second = Site(tmp_path / "second")
    (tmp_path / "second").mkdir()
    restored = json.loads(
        run(second, "restore", str(tmp_path / "backup"), "--to", str(second.data), "--verify", "--json")
    )
    assert (restored["instances"], restored["owed"], restored["findings"]) == (3, 3, [])
    with second:
        second.start_cloud()
        second.start("worklist", "pacs")
        second.start("relay")
        wait_until(lambda: len(second.control.events("study.image_received")) == 3, what="what was owed")
        assert len(qido(second, "/instances")) == 3
        stored(second, [mammogram("LMLO", rows=ROWS, columns=COLUMNS)])
        wait_until(lambda: len(second.control.events("study.image_received")) == 4, what="the new image")
        assert run(second, "fsck", "--hashes", "--json").strip() == "[]"


def run(site: Site, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", *arguments], env=site.environment(), cwd=site.folder, capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
