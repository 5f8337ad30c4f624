"""fsck: compares the index with the files on the disk, and repairs what can be repaired without loss.

* A file without a row is received again, or set aside in the quarantine when it cannot be read. It is never deleted,
  because it may be the only copy.
* A row whose file is missing or damaged stays and is marked as damaged, until a resend replaces the file.
* Wrong counts are computed anew; an instance without an event gets one.

Not for: pruning (`retention`), reading files regularly (`scrub`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

from gateway.errors import GatewayError, OutOfResources, Refusal
from pacs.archive.archive import Archive
from pacs.archive.files import Files, Found, announced_uid, file_name, place_of
from pacs.archive.maintenance_rows import Kept, MaintenanceRows
from pacs.archive.verify import trouble
from pacs.maintenance import quarantine

LEFTOVER_SECONDS = 3600.0
"""While the archive serves, a file in `incoming` that did not grow for so long is a leftover."""

QUARANTINE_SECONDS = 1.0
"""Longer than any object takes from its file to its row."""

_RESEND = "Send it again from the modality or the site's archive, or restore the file from a backup."

KINDS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "missing_file": ("The file of the instance is missing.", _RESEND),
        "wrong_size": ("The file of the instance has not the size that was received.", _RESEND),
        "wrong_hash": ("The file of the instance is not what was received, on two readings.", _RESEND),
        "unreadable_file": ("The file of the instance cannot be read.", f"Look after the disk. {_RESEND}"),
        "orphan_file": ("No row knows this file.", "With --repair it is indexed, or set aside if it is damaged."),
        "foreign_file": ("This file is not one of the archive's.", "Move it elsewhere; nothing here will."),
        "leftover": ("A receipt that was cut off has left this file.", "With --repair, or at the next start, it goes."),
        "wrong_counts": ("The counts of the study are not those of its rows.", "With --repair they are made right."),
        "wrong_totals": ("The sums over all studies are not those of the rows.", "With --repair they are made right."),
        "untold": ("No event tells the cloud of this instance.", "With --repair the cloud is told."),
        "quarantine_row_without_file": (
            "The file of this quarantined object is missing.",
            "With --repair its row goes.",
        ),
        "quarantine_file_without_row": ("No row knows this quarantined file.", "With --repair it gets one."),
        "damaged_database": ("The database file itself is damaged.", "Stop the services and restore a backup."),
    }
)
"""Every kind of finding: what it means and what to do."""


@dataclass(frozen=True, slots=True)
class FsckFinding:
    """One fault. `uid` is of an instance or study, `file` a path in the storage folder.

    `repaired` says what was done about it; '' nothing.
    """

    code: str
    uid: str = ""
    file: str = ""
    detail: str = ""
    repaired: str = ""

    @property
    def sentence(self) -> str:
        return f"{KINDS[self.code][0]} {self.detail}".strip()

    @property
    def remedy(self) -> str:
        return KINDS[self.code][1]

    def facts(self) -> dict[str, str]:
        """The finding as a JSON object."""
        return {
            "code": self.code,
            "uid": self.uid,
            "file": self.file,
            "sentence": self.sentence,
            "remedy": self.remedy,
            "repaired": self.repaired,
        }


def joined(rows: Iterable[Kept], files: Iterable[Found]) -> Iterator[tuple[Kept | None, Found | None]]:
    """Merge two streams that are sorted by place; None stands where only one of them has an entry."""
    # Streams and not sets, because memory must not grow with the archive.
    left, right = iter(rows), iter(files)
    row, file = next(left, None), next(right, None)
    while row is not None or file is not None:
        if file is None or (row is not None and row.place < file.place):
            yield row, None
            row = next(left, None)
        elif row is None or file.place < row.place:
            yield None, file
            file = next(right, None)
        else:
            yield row, file
            row, file = next(left, None), next(right, None)


def suspicion(row: Kept | None, file: Found | None) -> str:
    """The code of a possible finding for a pair, or '' when row and file agree."""
    if file is None:
        return "missing_file"
    if row is None:
        name = file.path.stem
        is_ours = len(name) == 64 and file.place == place_of(name)
        return "orphan_file" if is_ours else "foreign_file"
    return "" if row.size_bytes == file.size_bytes else "wrong_size"


class Fsck:
    """One check of an archive and its files.

    `at_rest`: no pacs process serves it, and the caller holds its folder. `seen` is called for each pair compared.
    """

    def __init__(
        self, archive: Archive, files: Files, *, at_rest: bool, seen: Callable[[], None] = lambda: None
    ) -> None:
        self._archive = archive
        self._files = files
        self._rows = MaintenanceRows(archive)
        self._at_rest = at_rest
        self._seen = seen

    def findings(self, *, hashes: bool, now: datetime) -> Iterator[FsckFinding]:
        """Compare everything, with `hashes` the content of every file; damaged files are marked.

        Raises GatewayError when there is no archive.
        """
        if not self._archive.is_mounted():
            raise GatewayError(f"{self._files.root} is no storage folder; is its volume mounted?")
        if hashes:
            yield from (FsckFinding("damaged_database", detail=said) for said in self._archive.complaints())
        yield from self._instances(hashes=hashes, now=now)
        yield from (FsckFinding("leftover", file=f"incoming/{part.name}") for part in self._leftovers())
        yield from self._quarantine()
        for uid in self._rows.wrong_counts():
            yield FsckFinding("wrong_counts", uid=uid) if uid else FsckFinding("wrong_totals")
        yield from (FsckFinding("untold", uid=uid) for uid in self._rows.unreported())

    def repaired(self, finding: FsckFinding, *, now: datetime) -> FsckFinding:
        """Repair what can be, with the folder held; the finding comes back with what was done."""
        repair = _REPAIRS.get(finding.code)
        return (
            finding if repair is None else replace(finding, repaired=repair(self._archive, self._files, finding, now))
        )

    def _instances(self, *, hashes: bool, now: datetime) -> Iterator[FsckFinding]:
        for row, file in joined(self._rows.by_place(), self._files.walk()):
            self._seen()
            # Only a suspicion, because images come and go while a million files are compared. Each is checked once more
            # against the index and the disk as they are now.
            code = suspicion(row, file)
            if row is None and file is not None:
                if code == "foreign_file" or self._is_orphan(file.path):
                    yield FsckFinding(code, uid=_uid_of(file, code), file=file.place)
            elif row is not None and (code or hashes):
                yield from self._instance(row, hashes=hashes, now=now)

    def _instance(self, row: Kept, *, hashes: bool, now: datetime) -> Iterator[FsckFinding]:
        """Check one instance as it is now."""
        path = self._files.path(row.sop_instance_uid)
        code = trouble(path, size_bytes=row.size_bytes, sha256=row.sha256) if hashes else _outside(path, row)
        if code and self._rows.report_damage(row, code, now=now):
            yield FsckFinding(code, uid=row.sop_instance_uid, file=row.place)
        elif hashes and not code:
            self._rows.report_well(row.sop_instance_uid)

    def _is_orphan(self, path: Path) -> bool:
        """Whether a file has no row now, is not being received, and is not ordered to be removed."""
        if not self._at_rest and any(part.name.startswith(path.stem) for part in self._files.leftovers()):
            return False
        uid = announced_uid(path)
        if not path.exists():
            return False
        return not uid or (self._rows.kept(uid) is None and not self._rows.shall_go(uid))

    def _leftovers(self) -> Iterator[Path]:
        until = time.time() - (0 if self._at_rest else LEFTOVER_SECONDS)
        for part in self._files.leftovers():
            with suppress(FileNotFoundError):  # its receipt has ended since
                if part.stat().st_mtime <= until:
                    yield part

    def _quarantine(self) -> list[FsckFinding]:
        """Compare rows and files of the quarantine."""
        # Twice while the archive serves, because a file comes before its row, and goes after it.
        found = self._quarantine_now()
        if found and not self._at_rest:
            time.sleep(QUARANTINE_SECONDS)
            still = self._quarantine_now()
            found = [finding for finding in found if finding in still]
        return found

    def _quarantine_now(self) -> list[FsckFinding]:
        rows = {row.file_name: row for row in self._archive.quarantine.objects()}
        names = {path.name for path in self._files.quarantine.iterdir() if path.is_file()}
        lost = [
            FsckFinding("quarantine_row_without_file", rows[name].sop_instance_uid, f"quarantine/{name}")
            for name in sorted(rows.keys() - names)
        ]
        return lost + [
            FsckFinding("quarantine_file_without_row", file=f"quarantine/{name}")
            for name in sorted(names - rows.keys())
        ]


def _uid_of(file: Found, code: str) -> str:
    return announced_uid(file.path) if code == "orphan_file" else ""


def _outside(path: Path, row: Kept) -> str:
    """The fault that a file shows without being read; '' for none."""
    try:
        return "" if path.stat().st_size == row.size_bytes else "wrong_size"
    except FileNotFoundError:
        return "missing_file"
    except OSError:
        return "unreadable_file"


# ---- repairs: each returns a sentence about what it did, '' for nothing ----------------------------------------------


def _adopt(archive: Archive, files: Files, finding: FsckFinding, now: datetime) -> str:
    path = files.root / finding.file
    if finding.uid and file_name(finding.uid) == path.stem:
        try:
            quarantine.receive_again(archive, path, calling_ae_title="", why="fsck", now=now)
        except OutOfResources:
            return ""
        except Refusal as refusal:
            reason = f"No row knew this file, and it could not be indexed: {refusal}"
        else:
            return "Indexed; the cloud is told."
    else:
        reason = "No row knew this file, and it does not say which instance it is."
    quarantine.set_aside(archive, files, path, reason=reason, now=now)
    return "Set aside in the quarantine."


def _sweep(archive: Archive, _files: Files, _finding: FsckFinding, now: datetime) -> str:
    archive.sweep(now=now)
    return "Swept."


def _recount(archive: Archive, _files: Files, _finding: FsckFinding, _now: datetime) -> str:
    MaintenanceRows(archive).recount()
    return "Counted anew."


def _enqueue_event(archive: Archive, _files: Files, finding: FsckFinding, now: datetime) -> str:
    archive.enqueue_event(finding.uid, now=now)
    return "The cloud is told."


def _forget(archive: Archive, _files: Files, finding: FsckFinding, _now: datetime) -> str:
    for row in archive.quarantine.objects():
        if f"quarantine/{row.file_name}" == finding.file:
            archive.quarantine.forget(row.id)
    return "The row is gone."


def _record(archive: Archive, files: Files, finding: FsckFinding, now: datetime) -> str:
    reason = "Found in the quarantine without a row."
    quarantine.record(archive, files.root / finding.file, reason=reason, now=now)
    return "It has a row again."


_REPAIRS: Mapping[str, Callable[[Archive, Files, FsckFinding, datetime], str]] = MappingProxyType(
    {
        "orphan_file": _adopt,
        "leftover": _sweep,
        "wrong_counts": _recount,
        "wrong_totals": _recount,
        "untold": _enqueue_event,
        "quarantine_row_without_file": _forget,
        "quarantine_file_without_row": _record,
    }
)
