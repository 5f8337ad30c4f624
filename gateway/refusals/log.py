"""Log of recent refusals, for the page and the command that show it. Any process may write to it.

* `note` never waits and never fails. A thread writes at most once a second; a refusal that finds no room in memory
  meanwhile is counted as lost.
* A refusal like an earlier one of the same peer counts up that row, unless the earlier one is more than an hour old.
* At most MOST_ROWS rows, MOST_ROWS_OF_ADDRESS of one address, and none older than KEEP; the oldest go first.
* No patient data: the sentences are those of refusals (`gateway.errors`), which hold none.

The file is in no backup, because losing it loses nothing but hints. Not for: the remedy of a refusal
(`gateway.refusals.remedies`), metrics, the audit trail.
"""

import re
import sqlite3
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from gateway.errors import GatewayError, place
from gateway.sqlite import Database, utc_text

SCHEMA = files("gateway") / "schema" / "refusals"
FILE_NAME = "refusals.db"
"""In the data folder."""

TOGETHER = timedelta(hours=1)  # so a machine that calls every second is one row, however long it does
KEEP = timedelta(days=30)
MOST_ROWS, MOST_ROWS_OF_ADDRESS = 1000, 200

MOST_WAITING = 500
"""Different refusals that wait in memory to be written; each is some hundred bytes."""

WRITE_SECONDS = 1.0
"""The pause after each writing, which is a sync; a flood costs no more than one a second."""

AFTER_FAILURE_SECONDS = 15.0
CLOSE_SECONDS = 2.0
"""How long a process that stops waits for the last refusals to be written."""

LONGEST_SENTENCE = 500

_NUMBER = re.compile(r"\d[\d.]*")

_SAME = (
    "process = :process AND service = :service AND kind = :kind AND ae_title = :ae_title AND address = :address"
    " AND alike = :alike"
)
_COLUMNS = "process, service, kind, ae_title, address, status, sentence, about, first_at, last_at, count"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Refused:
    """One refusal. `kind` is a key of `remedies.REMEDIES`; an unknown value is ''."""

    service: str
    kind: str
    sentence: str
    ae_title: str = ""
    address: str = ""
    status: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """A refusal and how often it was seen from `first_at` to `last_at` (UTC text)."""

    process: str
    service: str
    kind: str
    ae_title: str
    address: str
    status: str
    sentence: str
    about: str
    first_at: str
    last_at: str
    count: int

    @property
    def alike(self) -> str:
        """The sentence without its numbers."""
        # Numbers and UIDs differ from one refusal to the next, and would make a row of each.
        return _NUMBER.sub("#", self.sentence)

    @property
    def same(self) -> tuple[str, ...]:
        """Equal for refusals that are counted as one."""
        return self.process, self.service, self.kind, self.ae_title, self.address, self.alike


@dataclass(frozen=True, slots=True)
class Lost:
    """How many refusals were never written, and when the last of them came (UTC text)."""

    count: int
    last_at: str | None


NoteRefusal = Callable[[Refused], None]
"""Records one refusal; never waits, never raises."""


def unnoted(_refused: Refused) -> None:
    """Record nothing."""


class Refusals:
    """The file. `open` makes it if need be, `attach` opens it to read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open to write. Raises sqlite3.Error, OSError or DatabaseNotReady when that cannot be."""
        opened = cls(Database(path, SCHEMA))
        opened._database.migrate()
        return opened

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Open an existing file. Raises DatabaseNotReady when there is none, or it cannot be read."""
        opened = cls(Database(path, SCHEMA))
        opened._database.check()
        return opened

    def close(self) -> None:
        """End all connections."""
        self._database.close()

    def add(self, seen: Iterable[Seen], *, lost: int = 0, now: datetime) -> None:
        """Write refusals, and delete the rows that are too many. Raises OutOfResources; then nothing has changed."""
        with self._database.write() as conn:
            for each in seen:
                _add(conn, each)
            if lost:
                values = {"lost": lost, "now": utc_text(now)}
                conn.execute("UPDATE refusal_lost SET count = count + :lost, last_at = :now", values)
            _delete_surplus(conn, now)

    def latest(self, limit: int = MOST_ROWS) -> list[Seen]:
        """The refusals, the one that was seen last first."""
        with self._database.read() as conn:
            rows = conn.execute(
                f"SELECT {_COLUMNS} FROM refusal ORDER BY last_at DESC, id DESC LIMIT :limit", {"limit": limit}
            ).fetchall()
        return [Seen(**dict(row)) for row in rows]

    def lost(self) -> Lost:
        """The refusals that are not among them."""
        with self._database.read() as conn:
            row = conn.execute("SELECT count, last_at FROM refusal_lost").fetchone()
        return Lost(**dict(row))


def recent(path: Path, limit: int = MOST_ROWS) -> tuple[list[Seen], Lost]:
    """The recent refusals and the number of lost ones. Raises GatewayError when the file cannot be read."""
    if not path.exists():  # no process has started here yet, so nothing was refused
        return [], Lost(0, None)
    with closing(Refusals.attach(path)) as refusals:
        return refusals.latest(limit), refusals.lost()


def version(path: Path) -> str:
    """A text that changes with each write; it costs two `stat` calls."""
    # The log as well as the file, because a commit changes the file itself only at the next checkpoint.
    return "/".join(str(_changed(file)) for file in (path, path.with_name(f"{path.name}-wal")))


class RefusalRecorder:
    """Records the refusals of one process, from entering to leaving the block: hand out `note`."""

    def __init__(
        self,
        path: Path,
        *,
        process: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        failure_seconds: float = AFTER_FAILURE_SECONDS,
    ) -> None:
        """`failure_seconds` is the pause after a write that failed."""
        self._path = path
        self._process = process
        self._clock = clock
        self._failure_seconds = failure_seconds
        self._lock = threading.Lock()
        self._waiting: dict[tuple[str, ...], Seen] = {}
        self._lost = 0
        self._wake, self._stop = threading.Event(), threading.Event()
        self._refusals: Refusals | None = None
        self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)

    def note(self, refused: Refused) -> None:
        """Record one; never waits for the disk, never raises."""
        with self._lock:
            self._remember(self._seen(refused))
        self._wake.set()

    def __enter__(self) -> Self:
        self._wake.set()  # to make the file
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)

    def _seen(self, refused: Refused) -> Seen:
        now = utc_text(self._clock())
        return Seen(
            process=self._process,
            service=refused.service,
            kind=refused.kind,
            ae_title=refused.ae_title,
            address=refused.address,
            status=refused.status,
            sentence=_storable(refused.sentence[:LONGEST_SENTENCE]),
            about=_storable(refused.about),
            first_at=now,
            last_at=now,
            count=1,
        )

    def _remember(self, seen: Seen) -> None:
        """Keep it for the thread. Called with the lock held."""
        known = self._waiting.get(seen.same)
        if known is not None:
            self._waiting[seen.same] = together(known, seen)  # a flood of one kind takes no more memory than one
        elif len(self._waiting) < MOST_WAITING:
            self._waiting[seen.same] = seen
        else:
            self._lost += seen.count

    def _run(self) -> None:
        is_well = True
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            trouble = self._write()
            if trouble and is_well:
                log.warning("refusals not written down", reason=trouble)
            is_well = not trouble  # one warning for an outage, not one for each attempt
            self._stop.wait(WRITE_SECONDS if is_well else self._failure_seconds)
            if not is_well:
                self._wake.set()
        self._write()
        if self._refusals is not None:
            self._refusals.close()

    def _write(self) -> str:
        """Write the waiting refusals; returns why that failed, or ''."""
        with self._lock:
            taken, self._waiting = self._waiting, {}
            lost, self._lost = self._lost, 0
        try:
            if self._refusals is None:
                self._refusals = Refusals.open(self._path)
            if taken or lost:
                self._refusals.add(taken.values(), lost=lost, now=self._clock())
        except Exception as error:  # noqa: BLE001  an end of this thread would end all recording
            with self._lock:  # the older ones have their room back first; newer ones that find none are lost
                self._lost += lost
                newer, self._waiting = self._waiting, taken
                for seen in newer.values():
                    self._remember(seen)
            foreseen = isinstance(error, GatewayError | sqlite3.Error | OSError)
            return str(error) if foreseen else f"{type(error).__name__} at {place(error)}"
        return ""


def _storable(text: str) -> str:
    """A text that can be encoded in UTF-8."""
    # The refused message may hold half of a surrogate pair, which JSON can write.
    return text.encode("utf-8", "replace").decode()


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # it is not there, or cannot be looked at: a state like any other
        return 0


def together(first: Seen, then: Seen) -> Seen:
    """Two of the same as one, with the later one's sentence."""
    first_at, last_at = min(first.first_at, then.first_at), max(first.last_at, then.last_at)
    return replace(then, first_at=first_at, last_at=last_at, count=first.count + then.count)


def _add(conn: sqlite3.Connection, seen: Seen) -> None:
    values = {name: getattr(seen, name) for name in (*Seen.__slots__, "alike")}
    values["since"] = utc_text(datetime.fromisoformat(seen.first_at) - TOGETHER)
    counted = conn.execute(
        "UPDATE refusal SET count = count + :count, last_at = max(last_at, :last_at), status = :status,"
        " sentence = :sentence, about = :about WHERE id ="
        f" (SELECT id FROM refusal WHERE {_SAME} AND last_at >= :since ORDER BY last_at DESC LIMIT 1)",
        values,
    ).rowcount
    if not counted:
        conn.execute(
            f"INSERT INTO refusal ({_COLUMNS}, alike) VALUES (:process, :service, :kind, :ae_title, :address, :status,"
            " :sentence, :about, :first_at, :last_at, :count, :alike)",
            values,
        )


def _delete_surplus(conn: sqlite3.Connection, now: datetime) -> None:
    # A limit for each address, so that one machine cannot push the refusals of all others out.
    conn.execute("DELETE FROM refusal WHERE last_at < :until", {"until": utc_text(now - KEEP)})
    conn.execute(
        "DELETE FROM refusal WHERE id IN (SELECT id FROM (SELECT id,"
        " row_number() OVER (ORDER BY last_at DESC, id DESC) AS of_all,"
        " row_number() OVER (PARTITION BY address ORDER BY last_at DESC, id DESC) AS of_address FROM refusal)"
        " WHERE of_all > :most OR of_address > :most_of_address)",
        {"most": MOST_ROWS, "most_of_address": MOST_ROWS_OF_ADDRESS},
    )
