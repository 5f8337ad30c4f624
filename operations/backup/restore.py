"""Restores a backup into an empty folder, which is a site's data folder then.

Every byte is hashed and compared with the manifest; a difference ends the restore, and the folder stays without
databases. A restore that was cut off can be begun again. Entries pending in the backup are pending again; the cloud
recognises those that it has by their message ids.

Not for: deciding which site is the real one. Two sites that both send must not run at the same time.
"""

import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from gateway.audit.messages import Actor, AuditEvent
from gateway.audit.messages import restored as restored_trail
from gateway.audit.trail import Trail, trails, verified
from gateway.audit.trail import TrailFinding as Broken
from gateway.fsync import make_folder, sync_folder
from operations.backup.manifest import BackupError, Manifest, chosen
from operations.backup.pool import Step, copy_and_hash, pool_place
from pacs import Archive
from pacs.archive.files import Files
from pacs.maintenance.fsck import Fsck, FsckFinding
from worklist import Worklist

# All is written below it and moved up at the end: a restore that was cut off looks like no site at all.
WORK = ".restoring"
MOVED = ("instances", "audit", "users.json", "worklist.db", "pacs.db")
"""The names that are moved up from there, in this order; only with the last, the index, is the folder a site."""

IGNORED = frozenset({WORK, "lost+found"})
"""Names that an empty folder may hold: of a restore that was cut off, and of a new volume."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The restored contents. `owed` are the events that will be sent, again or for the first time."""

    backup: str
    folder: str
    files: int
    bytes: int
    studies: int
    instances: int
    owed: int
    audit_messages: int

    def facts(self) -> dict[str, object]:
        """For people and programs."""
        return asdict(self)


def restore(source: Path, folder: Path, *, who: Actor, site: str, now: datetime, step: Step) -> Restored:
    """Restore a backup into an empty folder. Raises BackupError when it is not empty or the backup is damaged.

    `who` is the operator and `site` the site, for the audit trail.
    """
    manifest = Manifest(chosen(source))
    _require_empty(folder)
    _clear(folder)
    work = folder / WORK
    work.mkdir(mode=0o750, parents=True)
    for name, sha256 in manifest.databases.items():
        _fetch(manifest.folder / name, work / name, sha256)
    files, size = _fetch_files(manifest, work / "instances", step)
    recorded = _fetch_trail(manifest, work / "audit", event=AuditEvent(now, site), who=who)
    if manifest.users:
        _fetch(manifest.folder / "users.json", work / "users.json", manifest.users)
        (work / "users.json").chmod(0o600)
    _move_up(work, folder)
    return _activated(manifest, folder, files=files, size=size, recorded=recorded, now=now)


def verify(folder: Path, *, now: datetime) -> Iterator[FsckFinding]:
    """Compare a restored folder with itself, every byte of it."""
    with closing(_archive(folder)) as archive:
        yield from Fsck(archive, Files(folder / "instances"), at_rest=True).findings(hashes=True, now=now)


def verify_trail(folder: Path) -> Iterator[Broken]:
    """Read the audit trail of a restored folder and give its findings."""
    for trail in trails(folder / "audit"):
        yield from verified(trail)


def _require_empty(folder: Path) -> None:
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    ours = set(MOVED[:-1]) if WORK in there else set()
    if there - IGNORED - ours:
        raise BackupError(f"{folder} is not empty. A backup is put back into a new folder, never over another site.")


def _clear(folder: Path) -> None:
    """Remove the files of a restore that was cut off."""
    # `.restoring` last, because it is the sign that the files are not a site's.
    for path in (folder / name for name in (*MOVED[:-1], WORK)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _fetch(source: Path, target: Path, sha256: str) -> int:
    try:
        actual, size = copy_and_hash(source, target)
    except FileNotFoundError:
        raise BackupError(f"The backup lacks {source}; use another one.") from None
    if actual != sha256:
        raise BackupError(f"{source} is not what was backed up, it is damaged; use another backup.")
    return size


def _fetch_files(manifest: Manifest, root: Path, step: Step) -> tuple[int, int]:
    files, size, folders = 0, 0, {root}
    root.mkdir(mode=0o750)
    for listed in manifest.files():
        target = root / listed.path
        if target.parent not in folders:
            make_folder(target.parent)
            folders.add(target.parent)
        size += _fetch(manifest.folder.parent / pool_place(listed.sha256), target, listed.sha256)
        files += 1
        step("restored", listed.size)
    for each in folders:
        sync_folder(each)
    return files, size


def _fetch_trail(manifest: Manifest, folder: Path, *, event: AuditEvent, who: Actor) -> int:
    """Restore every chain and append a message that says so; gives the number of messages they had."""
    recorded = 0
    for chain in manifest.chains():
        place = folder / chain.name
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for listed in chain.files:
            _fetch(manifest.folder.parent / pool_place(listed.sha256), place / listed.path, listed.sha256)
            (place / listed.path).chmod(0o600)
        trail = Trail(place)
        # The trail is older than the one that was being written; what came after the backup is missing without a trace.
        trail.go_on_from(chain.head)
        trail.append([restored_trail(event, who, taken_at=manifest.taken_at, number=chain.head.number)])
        sync_folder(place)
        recorded += chain.head.number
    if folder.is_dir():
        folder.chmod(0o700)
        sync_folder(folder)
    return recorded


def _move_up(work: Path, folder: Path) -> None:
    for name in MOVED:
        if (work / name).exists():  # not every site has a trail, or users
            (work / name).rename(folder / name)
    work.rmdir()
    sync_folder(folder)


def _activated(manifest: Manifest, folder: Path, *, files: int, size: int, recorded: int, now: datetime) -> Restored:
    """Migrate the databases to this version and make all pending entries due."""
    reason = f"Restored from the backup of {manifest.taken_at}."
    with closing(Worklist.open(folder / "worklist.db")) as worklist, closing(_archive(folder)) as archive:
        pending = sum(owner.outbox.hasten(reason=reason, now=now) for owner in (worklist, archive))
        holds = archive.statistics()
    return Restored(
        str(manifest.folder), str(folder), files, size, holds["studies"], holds["instances"], pending, recorded
    )


def _archive(folder: Path) -> Archive:
    return Archive.open(folder / "pacs.db", folder / "instances")
