"""SQLite files: opening, migrating, reading, writing. Not for SQL: statements are in the modules of their tables.

* A change is on disk when ``with db.write()`` is left.
* Threads that write at the same moment share one commit. A change that raises is rolled back alone; a commit that
  fails raises in every thread that took part.
* Reading is a snapshot, from any thread, and never blocks a writer.
* The schema is numbered files. Each is applied once, all missing ones in a single transaction; the table
  `schema_history` records folder and number.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import UTC, datetime
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

from gateway.errors import DatabaseNotReady, OutOfResources, Unsettled
from gateway.fsync import make_folder

BUSY_SECONDS = 30.0
"""How long a writer waits for another process's writer; far above any commit, far below a modality's patience."""

LARGEST_BATCH = 64
"""Changes that share one commit; bounds how long the first of them waits."""

CHECKPOINT_PAGES = 4000
"""The log grows to 16 MB before it is copied into the file, and a page that changes with every image is copied once."""

_UNSYNCED = {sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC}
"""The change is whole in the log, synced or not, and the next process to open the database will read it there."""

_RESOURCE_ERRORS = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_NOMEM,
}


def utc_text(now: datetime) -> str:
    """Write a time-zone-aware datetime as it stands in every table: UTC, milliseconds, ``2026-11-22T01:02:03.456Z``."""
    return now.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


SQLITE_VERSION = sqlite3.sqlite_version


class Transactions(Protocol):
    """The part of a `Database` that a class with rows needs; the owner of a database hands it on."""

    def write(self) -> AbstractContextManager[sqlite3.Connection]: ...

    def read(self) -> AbstractContextManager[sqlite3.Connection]: ...

    def read_at_length(self) -> AbstractContextManager[sqlite3.Connection]: ...


class _Batch:
    """The changes that share one commit."""

    def __init__(self) -> None:
        self.size = 0
        self.ended = threading.Event()
        self.error: sqlite3.Error | None = None


class Database:
    """One SQLite file with its schema. `migrate` (the owner) or `check` (everybody else) opens it, `close` ends it."""

    def __init__(self, path: Path, *schema: Traversable) -> None:
        self.path = path
        self._schema = schema
        self._turn = threading.Lock()  # held while a thread is inside its savepoint, not while it waits for the commit
        self._count = threading.Lock()
        self._waiting = 0
        self._batch: _Batch | None = None
        self._writer: sqlite3.Connection | None = None
        self._watcher: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []

    def migrate(self) -> None:
        """Create the file or bring it to the newest schema, in one transaction. Only its owner calls this.

        Raises DatabaseNotReady when a newer program has already changed the file.
        """
        make_folder(self.path.parent)
        conn = self._connect(mode="rwc")
        conn.execute("PRAGMA journal_mode = WAL")
        conn.execute("BEGIN IMMEDIATE")
        conn.execute(
            "CREATE TABLE IF NOT EXISTS schema_history (folder TEXT NOT NULL, number INTEGER NOT NULL,"
            " name TEXT NOT NULL, applied_at TEXT NOT NULL, PRIMARY KEY (folder, number)) STRICT"
        )
        try:
            self._apply_missing(conn)
        except BaseException:
            conn.execute("ROLLBACK")
            conn.close()
            raise
        conn.execute("COMMIT")
        self._writer = conn

    def check(self) -> None:
        """Open the file in a process that does not own it.

        Raises DatabaseNotReady while the file is absent or not at the schema this program needs.
        """
        if not self.path.exists():
            raise DatabaseNotReady(f"{self.path} does not exist yet; start its owner, which creates it.")
        try:
            self._writer = self._checked()
        except sqlite3.OperationalError as error:
            raise DatabaseNotReady(
                f"{self.path} has no schema yet ({error}); start its owner, which creates it."
            ) from error
        except sqlite3.DatabaseError as error:
            raise DatabaseNotReady(f"{self.path} is damaged ({error}); restore it from a backup.") from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """Change the database; when the block is left without an error, the change is on disk.

        Raises OutOfResources when the file cannot be written; then nothing of the block has happened. Unsettled, which
        is one, when that is certain only until the database is opened the next time.
        """
        with self._count:
            self._waiting += 1
        with self._turn:
            with self._count:
                self._waiting -= 1
            conn, batch = self._join()
            try:
                with self._part(conn, batch):
                    yield conn
            finally:
                # The last thread in the queue commits for all. One sync so serves as many changes as queued up during
                # the one before, and a thread that is alone waits for none but its own.
                if conn.in_transaction and (self._waiting == 0 or batch.size >= LARGEST_BATCH):
                    self._commit(conn, batch)
        batch.ended.wait()  # no thread may say Success to a modality before its change is on disk
        if batch.error is not None:
            raise _translated(batch.error, self.path) from batch.error

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Read one consistent state of the database. Raises OutOfResources when the file cannot be read now."""
        try:
            with self._snapshot() as conn:
                yield conn
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error

    @contextmanager
    def read_at_length(self) -> Iterator[sqlite3.Connection]:
        """As `read`, for whole tables: on a connection of its own, which sorts in files and not in memory."""
        with closing(self._connect(mode="rw")) as conn:
            conn.execute("PRAGMA temp_store = FILE")
            conn.execute("BEGIN")
            yield conn

    def data_version(self) -> int:
        """A number that changes with each commit of any process; polling it costs no I/O to speak of.

        Raises OutOfResources when the file cannot be read now.
        """
        try:
            # On one connection, because SQLite's number means something only when compared on the same connection.
            if self._watcher is None:
                self._watcher = self._connect(mode="rw")
            return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
        except sqlite3.Error as error:
            raise _translated(error, self.path) from error

    def copy(self, target: Path) -> None:
        """Write one consistent state to a new, synced file, while all others go on reading and writing."""
        with closing(self._connect(mode="rw")) as source, closing(sqlite3.connect(target)) as copy:
            source.backup(copy)  # in one step, because a copy in several begins again at each commit of another process
            copy.execute("PRAGMA journal_mode = DELETE")  # a single file; its next owner makes it WAL again
        with target.open("rb") as file:
            os.fsync(file.fileno())

    def complaints(self) -> list[str]:
        """The faults that SQLite finds in the file itself, reading all of it; none when it is sound."""
        with self.read() as conn:
            found = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(100)")]
            found += [f"a row of {row[0]} refers to nothing" for row in conn.execute("PRAGMA foreign_key_check")]
        return [complaint for complaint in found if complaint != "ok"]

    def close(self) -> None:
        """End every connection. No read or write may be under way."""
        for conn in [*self._readers, self._watcher, self._writer]:
            if conn is not None:
                conn.close()
        self._readers, self._watcher, self._writer = [], None, None

    def _checked(self) -> sqlite3.Connection:
        conn = self._connect(mode="rw")
        try:
            if self._history(conn) != {(folder, number) for folder, number, _, _ in self._files()}:
                raise DatabaseNotReady(
                    f"{self.path} has another schema than this program; update and restart its owner."
                )
        except BaseException:
            conn.close()
            raise
        return conn

    def _connect(self, *, mode: str) -> sqlite3.Connection:
        conn = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_SECONDS,
        )
        conn.row_factory = sqlite3.Row
        conn.execute("PRAGMA synchronous = FULL")  # in WAL, NORMAL would lose the last commits in a power cut
        conn.execute("PRAGMA foreign_keys = ON")
        conn.execute("PRAGMA temp_store = MEMORY")  # else savepoints write rows to files in /var/tmp
        conn.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        return conn

    def _files(self) -> list[tuple[str, int, str, Traversable]]:
        files = []
        for folder in self._schema:
            for file in sorted(folder.iterdir(), key=lambda item: item.name):
                if file.name.endswith(".sql"):
                    # By folder, because both databases contain an outbox, whose tables come from one shared folder; a
                    # single number could not count the files of both. "owner", because an owner's own folder is called
                    # "schema" everywhere. The key is in every site's database: gateway/schema/outbox keeps its name.
                    key = "outbox" if folder.name == "outbox" else "owner"
                    files.append((key, int(file.name[:4]), file.name, file))
        return files

    def _history(self, conn: sqlite3.Connection) -> set[tuple[str, int]]:
        return {(row["folder"], row["number"]) for row in conn.execute("SELECT folder, number FROM schema_history")}

    def _apply_missing(self, conn: sqlite3.Connection) -> None:
        applied = self._history(conn)
        files = self._files()
        if applied - {(folder, number) for folder, number, _, _ in files}:
            raise DatabaseNotReady(f"{self.path} was written by a newer version of this program; install that version.")
        for folder, number, name, file in files:
            if (folder, number) not in applied:
                for statement in _statements(file.read_text(encoding="utf-8")):
                    conn.execute(statement)
                row = (folder, number, name, utc_text(datetime.now(UTC)))
                conn.execute("INSERT INTO schema_history VALUES (?, ?, ?, ?)", row)

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        try:
            conn = self._readers.pop()  # without a lock: a pop of a list is atomic
        except IndexError:
            conn = self._connect(mode="rw")
        conn.execute("BEGIN")
        try:
            yield conn
        finally:
            conn.execute("ROLLBACK")
            self._readers.append(conn)

    def _join(self) -> tuple[sqlite3.Connection, _Batch]:
        """Enter the open transaction, or begin one. Called with the turn held."""
        if self._writer is None:
            raise DatabaseNotReady(f"{self.path} is not open; migrate or check it first.")
        if self._batch is None:
            try:
                self._writer.execute("BEGIN IMMEDIATE")  # waits for another process here, not later
            except sqlite3.Error as error:
                raise _translated(error, self.path) from error
            self._batch = _Batch()
        self._batch.size += 1
        return self._writer, self._batch

    @contextmanager
    def _part(self, conn: sqlite3.Connection, batch: _Batch) -> Iterator[None]:
        try:
            conn.execute("SAVEPOINT part")
            yield
            conn.execute("RELEASE part")
        except BaseException as error:
            try:
                conn.execute("ROLLBACK TO part")
                conn.execute("RELEASE part")
            except sqlite3.Error as failure:
                # SQLite ended the whole transaction by itself (full disk, I/O error), so no change of it happened.
                self._abandon(conn, batch, error if isinstance(error, sqlite3.Error) else failure)
            if isinstance(error, sqlite3.Error):
                raise _translated(error, self.path) from error
            raise

    def _commit(self, conn: sqlite3.Connection, batch: _Batch) -> None:
        try:
            conn.execute("COMMIT")
        except sqlite3.Error as error:
            self._abandon(conn, batch, error)
        else:
            self._end(batch, None)

    def _abandon(self, conn: sqlite3.Connection, batch: _Batch, error: sqlite3.Error) -> None:
        with suppress(sqlite3.Error):  # there is no transaction any more, which is what was wanted
            conn.execute("ROLLBACK")
        self._end(batch, error)

    def _end(self, batch: _Batch, error: sqlite3.Error | None) -> None:
        batch.error = error
        self._batch = None
        batch.ended.set()


def _statements(script: str) -> Iterator[str]:
    """Cut a script into statements, because `executescript` would commit."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement


def _translated(error: sqlite3.Error, path: Path) -> Exception:
    # Extended codes carry the primary code in their low byte.
    code = getattr(error, "sqlite_errorcode", None)
    if code in _UNSYNCED:
        return Unsettled(f"The database {path.name} cannot be used now: {error}.")
    if code is not None and (code & 0xFF) in _RESOURCE_ERRORS:
        return OutOfResources(f"The database {path.name} cannot be used now: {error}.")
    return error
