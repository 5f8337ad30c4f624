"""What must be found in a data folder, whatever happened to the process or the machine that wrote it.

Looked at from outside: with sqlite3 and the files alone, not through the archive that is under test.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.durability import objects

_COUNTS = (
    "SELECT (SELECT count(*) FROM study), (SELECT count(*) FROM series), (SELECT count(*) FROM instance),"
    " (SELECT coalesce(sum(size_bytes), 0) FROM instance)"
)
_WRONG_SUMS = (
    "SELECT study_instance_uid FROM study WHERE instance_count <> (SELECT count(*) FROM instance JOIN series ON"
    " series.id = series_id WHERE study_id = study.id)"
)


@dataclass(frozen=True)
class Row:
    """What the index says of an instance."""

    sha256: str
    size_bytes: int
    data_set_offset: int


@dataclass(frozen=True)
class Folder:
    """A data folder, see `zygote.variables`."""

    path: Path

    @property
    def index(self) -> Path:
        return self.path / "index" / "pacs.db"

    @property
    def instances(self) -> Path:
        return self.path / "instances"

    def incoming(self) -> list[str]:
        return sorted(file.name for file in (self.instances / "incoming").iterdir())

    def quarantine(self) -> set[str]:
        return {file.name for file in (self.instances / "quarantine").iterdir()}

    def kept(self) -> set[Path]:
        return {file for file in self.instances.glob("??/??/*") if file.is_file()}

    def place(self, uid: str) -> Path:
        name = hashlib.sha256(uid.encode()).hexdigest()
        return self.instances / name[:2] / name[2:4] / f"{name}.dcm"

    def database(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.index.as_uri()}?mode=ro", uri=True)


def rows(folder: Folder) -> dict[str, Row]:
    """Every instance the index knows."""
    with closing(folder.database()) as conn:
        return {
            uid: Row(*values)
            for uid, *values in conn.execute(
                "SELECT sop_instance_uid, sha256, size_bytes, data_set_offset FROM instance"
            )
        }


def faults(folder: Folder, sent: Collection[int], acknowledged: Collection[int]) -> list[str]:
    """One sentence for everything that must not be, with an archive that is open and idle. Empty when all is well."""
    known = rows(folder)
    numbers = {objects.uid(number): number for number in sent}
    lost = [f"{objects.uid(number)} was acknowledged and is lost" for number in acknowledged
            if objects.uid(number) not in known]  # fmt: skip
    invented = [f"{uid} was never sent" for uid in known if uid not in numbers]
    damaged = [fault for uid, number in numbers.items() if uid in known for fault in _file(folder, uid, number, known)]
    return [*lost, *invented, *damaged, *_database(folder, known), *_strays(folder, known)]


def _file(folder: Folder, uid: str, number: int, known: Mapping[str, Row]) -> Iterator[str]:
    path, row = folder.place(uid), known[uid]
    if not path.exists():
        yield f"{uid} has a row and no file"
        return
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != _digest(content[: row.data_set_offset], number):
        yield f"{uid} is not what was sent: {len(content)} bytes"
    if (found, len(content)) != (row.sha256, row.size_bytes):
        yield f"{uid} is not what its row says"


@cache
def _digest(header: bytes, number: int) -> str:
    """SHA-256 of an object as it was sent, behind the header it has in its file."""
    return hashlib.sha256(header + objects.data_set(number)).hexdigest()


def _database(folder: Folder, known: Mapping[str, Row]) -> Iterator[str]:
    with closing(folder.database()) as conn:
        for (fault,) in conn.execute("PRAGMA integrity_check"):
            if fault != "ok":
                yield f"the database is damaged: {fault}"
        owed = Counter(message for (message,) in conn.execute("SELECT message_id FROM outbox"))
        if owed != Counter(list(known)):
            yield f"the outbox does not have one entry for each instance: {owed - Counter(list(known))}"
        counted = conn.execute("SELECT study_count, series_count, instance_count, byte_count FROM total").fetchone()
        if counted != conn.execute(_COUNTS).fetchone():
            yield f"the sums are wrong: {counted}"
        yield from (f"the counts of study {uid} are wrong" for (uid,) in conn.execute(_WRONG_SUMS))
        aside = {name for (name,) in conn.execute("SELECT file_name FROM quarantine")}
    if aside != folder.quarantine():
        yield f"the quarantine is not what its rows say: {aside ^ folder.quarantine()}"


def _strays(folder: Folder, known: Mapping[str, Row]) -> Iterator[str]:
    for file in sorted(folder.kept() - {folder.place(uid) for uid in known}):
        yield f"{file.name} has no row"
    if folder.incoming():
        yield f"incoming is not empty: {folder.incoming()}"
