"""Backups: a consistent copy of both databases, of every file they name, of the audit trail and of the users.

A target holds any number of backups:

    files/ab/cd/<sha256>             what was received, by its content; shared by all backups
    20261122T023000Z/worklist.db     one backup, named by its time (UTC)
                     pacs.db
                     manifest.jsonl  a line on the databases, one for each file, and one with the sums

Rules: a file is copied once and shared by later backups; on the volume of its source it is linked, which protects from
mistakes and not from a broken disk. A folder without a manifest is no backup. A backup that was cut off continues with
the files it has.

Not for: the time of a backup (cron or a systemd timer), and not for restoring one (`restore`).
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import gateway
from gateway.audit.trail import trails
from gateway.fsync import make_folder, sync_folder
from gateway.last_backup import LastBackup, remember
from gateway.sqlite import Database, utc_text
from operations.backup.manifest import FORMAT, MANIFEST, BackupError, Listed
from operations.backup.pool import Pool, Step, copy_and_hash
from pacs import Archive
from pacs.archive.files import Files
from pacs.archive.maintenance_rows import MaintenanceRows
from pacs.archive.quarantine_rows import Quarantine
from worklist import Worklist

_IS_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z").fullmatch


@dataclass(frozen=True, slots=True)
class Beside:
    """The files of a site besides databases and images: the folder of its audit trail, and the file of its users."""

    audit: Path
    users: Path


@dataclass(slots=True)
class Taken:
    """The contents of a backup. `missing` and `damaged` are paths in the storage folder."""

    folder: Path
    files: int = 0
    bytes: int = 0
    new_files: int = 0
    new_bytes: int = 0
    linked: bool = False
    audit_messages: int = 0
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, object]:
        """For people and programs."""
        return {
            "folder": str(self.folder),
            "files": self.files,
            "bytes": self.bytes,
            "new_files": self.new_files,
            "new_bytes": self.new_bytes,
            "linked": self.linked,
            "audit_messages": self.audit_messages,
            "missing": self.missing,
            "damaged": self.damaged,
        }


def backup(
    worklist: Worklist, archive: Archive, files: Files, target: Path, *, beside: Beside, now: datetime, step: Step
) -> Taken:
    """Take one backup into a folder, which may hold earlier ones; `files` are the archive's.

    Raises BackupError, OSError for a full target.
    """
    make_folder(target)
    target.chmod(0o700)  # a backup holds patient data
    # Held still, because no file that the copy of the index names may be removed or exchanged before it is copied.
    # Images are received as always; the next backup has them.
    with _alone(target), files.held_still():
        taken = Taken(target / f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
        _drop_unfinished(target)
        taken.folder.mkdir(mode=0o700)
        # Databases first: each is one consistent state, and decides which files are copied.
        worklist.copy_database(taken.folder / "worklist.db")
        archive.copy_database(taken.folder / "pacs.db")
        pool = Pool(target, work=taken.folder)
        # The trail after the databases, so that it has the messages about their rows, but for the last ones, which the
        # recorder has not written yet.
        facts = _trail(beside.audit, pool, taken) | _users(beside.users, taken.folder)
        _write_manifest(files, pool, taken, facts=facts, now=now, step=step)
        sync_folder(target)
    with suppress(OSError):  # the backup is complete without this note for the pages
        last = LastBackup(utc_text(now), str(taken.folder), taken.files, len(taken.missing), len(taken.damaged))
        remember(archive.database_path.parent, last)
    return taken


def _trail(folder: Path, pool: Pool, taken: Taken) -> dict[str, object]:
    """Copy every chain of the trail; gives the last message of each."""
    # Full files never change and are copied once; the one being written is copied each time, up to `trail.FILE_BYTES`.
    chains: list[dict[str, object]] = []
    for trail in trails(folder):
        if (written := trail.written()) is None:
            continue
        name = "" if trail.folder == folder else trail.folder.name
        files = [Listed(path.name, *pool.put_beginning(path, size)).line() for path, size in written.files]
        chains.append({"chain": name, "number": written.head.number, "hash": written.head.hash, "files": files})
        taken.audit_messages += written.head.number
    return {"trail": chains}


def _users(source: Path, folder: Path) -> dict[str, object]:
    """Copy the file of users, if there is one; it is exchanged as a whole, so this is one state of it."""
    try:
        return {"users": copy_and_hash(source, folder / "users.json")[0]}
    except FileNotFoundError:
        return {}


def _write_manifest(
    files: Files, pool: Pool, taken: Taken, *, facts: dict[str, object], now: datetime, step: Step
) -> None:
    part = taken.folder / f"{MANIFEST}.part"
    with part.open("w", encoding="utf-8") as manifest:
        for line in _lines(files, pool, taken, facts=facts, now=now, step=step):
            manifest.write(json.dumps(line, separators=(",", ":")) + "\n")
        manifest.flush()
        os.fsync(manifest.fileno())
    pool.sync()  # the manifest comes last: it names only files that are whole and on disk
    part.rename(taken.folder / MANIFEST)
    sync_folder(taken.folder)


def _lines(
    files: Files, pool: Pool, taken: Taken, *, facts: dict[str, object], now: datetime, step: Step
) -> Iterator[dict[str, object]]:
    yield {
        "format": FORMAT,
        "version": gateway.__version__,
        "taken_at": utc_text(now),
        "databases": {name: _digest(taken.folder / name) for name in ("worklist.db", "pacs.db")},
        **facts,
    }
    for path, sha256 in _named(taken.folder / "pacs.db"):
        listed = _have(files, pool, taken, path=path, sha256=sha256, step=step)
        if listed is not None:
            yield listed.line()
    yield {"files": taken.files, "bytes": taken.bytes, "missing": len(taken.missing)}


def _named(database: Path) -> Iterator[tuple[str, str]]:
    """Every file that a copy of the index names, with its hash."""
    with closing(Database(database)) as copy:
        yield from ((kept.place, kept.sha256) for kept in MaintenanceRows(copy).by_place())
        aside = Quarantine(copy, Path("quarantine"))
        yield from ((str(aside.path(found)), found.sha256) for found in aside.objects())


def _have(files: Files, pool: Pool, taken: Taken, *, path: str, sha256: str, step: Step) -> Listed | None:
    try:
        actual, how, size = pool.put(files.root / path, sha256)
    except FileNotFoundError:
        taken.missing.append(path)
        return None
    taken.files += 1
    taken.bytes += size
    if how != "there before":
        taken.new_files += 1
        taken.new_bytes += size
    taken.linked |= how == "linked"
    if actual != sha256:
        taken.damaged.append(path)
    step(how, size)
    return Listed(path, actual, size, "" if actual == sha256 else sha256)


def _drop_unfinished(target: Path) -> None:
    for folder in target.iterdir():
        if _IS_TIME(folder.name) and not (folder / MANIFEST).exists():
            shutil.rmtree(folder)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise BackupError(f"Another backup is being taken into {target}; wait until it is done.") from None
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
