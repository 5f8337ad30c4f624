"""What the site owes the cloud: one row per event, written in the same transaction as the fact it tells of.

Rules:

* An entry is open, delivered or parked. Sending changes nothing until its outcome is known, so a process killed before,
  during or after a send finds the entry open again and sends it once more under the same message id.
* Entries of one subject leave in order: only the oldest open entry of a subject is ever due. Different subjects do
  not wait for one another. A parked entry no longer holds its subject back, since it could do so for ever.
* A passing failure postpones (`retry`) and never parks; only what can never succeed is parked, with the reason, until a
  person releases it. Nothing here deletes.
"""

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Literal

from gateway.errors import NotFound
from gateway.sqlite import Database, utc_text

SCHEMA = files("gateway") / "schema" / "outbox"

LONGEST_PAUSE = timedelta(hours=1)
"""No retry is ever further away than this."""

State = Literal["open", "delivered", "parked"]

_COLUMNS = "id, message_id, subject, sequence, message_type, priority, parameters, created_at, attempts, due_at, reason"

_OPEN = "delivered_at IS NULL AND parked_at IS NULL"

_OURS = "priority BETWEEN :first AND :last"

_STATE = {"open": _OPEN, "delivered": "delivered_at IS NOT NULL", "parked": "parked_at IS NOT NULL"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event that is owed. Times are UTC text as in the table; `parameters` is the message's own part."""

    id: int
    message_id: str
    subject: str
    sequence: int
    message_type: str
    priority: int
    parameters: dict[str, object]
    created_at: str
    attempts: int
    due_at: str
    reason: str


class Outbox:
    """The outbox table inside its owner's database.

    `classes` are the first and the last priority that this one deals in: what is due, and what is counted. Anything may
    be put and listed by any.
    """

    def __init__(self, database: Database, *, classes: tuple[int, int] = (1, 9)) -> None:
        self.database = database
        self._classes = {"first": classes[0], "last": classes[1]}

    def put(
        self,
        conn: sqlite3.Connection,
        *,
        message_id: str,
        message_type: str,
        subject: str,
        priority: int,
        parameters: dict[str, object],
        now: datetime,
    ) -> bool:
        """Owe one more event, inside the transaction of the fact. The same message id again is False: no change."""
        done = conn.execute(
            "INSERT INTO outbox (message_id, subject, sequence, message_type, priority, parameters, created_at, due_at)"
            " SELECT :message_id, :subject, 1 + coalesce(max(sequence), 0), :message_type, :priority, :parameters,"
            " :now, :now"
            " FROM outbox WHERE subject = :subject"
            " ON CONFLICT (message_id) DO NOTHING",
            {
                "message_id": message_id,
                "subject": subject,
                "message_type": message_type,
                "priority": priority,
                "parameters": json.dumps(parameters, ensure_ascii=False, separators=(",", ":")),
                "now": utc_text(now),
            },
        )
        return done.rowcount == 1

    def due(self, now: datetime, *, limit: int) -> list[Entry]:
        """The oldest open entry of each subject, if its time has come; most urgent first.

        A time further ahead than any pause was written by a clock that has been set back since; it has come as well.
        """
        with self.database.read() as conn:
            rows = conn.execute(
                f"SELECT {_COLUMNS} FROM outbox AS entry WHERE {_OPEN} AND {_OURS}"
                f" AND (due_at <= :now OR due_at > :beyond)"
                f" AND NOT EXISTS (SELECT 1 FROM outbox AS earlier WHERE earlier.subject = entry.subject"
                f" AND earlier.id < entry.id AND earlier.delivered_at IS NULL AND earlier.parked_at IS NULL)"
                f" ORDER BY priority, id LIMIT :limit",
                {"now": utc_text(now), "beyond": utc_text(now + LONGEST_PAUSE), "limit": limit, **self._classes},
            ).fetchall()
        return [_entry(row) for row in rows]

    def next_due(self) -> str | None:
        """When the next open entry becomes due, UTC text; None when nothing is open."""
        with self.database.read() as conn:
            found: str | None = conn.execute(
                f"SELECT min(due_at) FROM outbox WHERE {_OPEN} AND {_OURS}", self._classes
            ).fetchone()[0]
        return found

    def delivered(self, entry: Entry, *, now: datetime) -> None:
        """The destination confirmed the entry."""
        self._settle("delivered_at = :now, attempts = attempts + 1, reason = ''", entry.id, now=utc_text(now))

    def retry(self, entry: Entry, *, reason: str, due_at: datetime) -> None:
        """The attempt failed for a passing reason; try again from `due_at` on."""
        text = utc_text(due_at)
        self._settle(
            "due_at = :due_at, attempts = attempts + 1, reason = :reason", entry.id, due_at=text, reason=reason
        )

    def park(self, entry: Entry, *, reason: str, now: datetime) -> None:
        """The entry can never succeed as it is; keep it for a person, and let its subject go on."""
        text = utc_text(now)
        self._settle("parked_at = :now, attempts = attempts + 1, reason = :reason", entry.id, now=text, reason=reason)

    def release(self, entry_id: int, *, now: datetime) -> None:
        """Make a parked entry due again. Raises NotFound when no parked entry has this id."""
        with self.database.write() as conn:
            changed = conn.execute(
                "UPDATE outbox SET parked_at = NULL, due_at = :now WHERE id = :id AND parked_at IS NOT NULL",
                {"id": entry_id, "now": utc_text(now)},
            ).rowcount
        if not changed:
            raise NotFound(f"No parked entry has the id {entry_id}; list them with 'gateway outbox list'.")

    def hasten(self, *, reason: str, now: datetime) -> int:
        """Make every open entry due now, and say how many there are; what was sent already is recognised by its id."""
        values = {"now": utc_text(now), "reason": reason}
        with self.database.write() as conn:
            return conn.execute(f"UPDATE outbox SET due_at = :now, reason = :reason WHERE {_OPEN}", values).rowcount

    def entries(self, state: State, *, limit: int = 100) -> list[Entry]:
        """The newest entries of one state, newest first."""
        with self.database.read() as conn:
            rows = conn.execute(
                f"SELECT {_COLUMNS} FROM outbox WHERE {_STATE[state]} ORDER BY id DESC LIMIT :limit", {"limit": limit}
            ).fetchall()
        return [_entry(row) for row in rows]

    def find(self, message_id: str) -> Entry | None:
        """The entry of a message id, in whatever state; None when nothing was ever owed under it."""
        with self.database.read() as conn:
            row = conn.execute(
                f"SELECT {_COLUMNS} FROM outbox WHERE message_id = :message_id", {"message_id": message_id}
            ).fetchone()
        return _entry(row) if row else None

    def counts(self) -> dict[str, int]:
        """How many entries are open, delivered (of all classes) and parked."""
        with self.database.read() as conn:
            row = conn.execute(
                f"SELECT (SELECT count(*) FROM outbox WHERE {_OPEN} AND {_OURS}) AS open, delivered_count AS delivered,"
                f" (SELECT count(*) FROM outbox WHERE {_STATE['parked']} AND {_OURS}) AS parked FROM outbox_total",
                self._classes,
            ).fetchone()
        return dict(row)

    def oldest_open(self) -> str | None:
        """When the oldest open entry was written, UTC text; None when nothing is open."""
        with self.database.read() as conn:
            found: str | None = conn.execute(
                f"SELECT min(created_at) FROM outbox WHERE {_OPEN} AND {_OURS}", self._classes
            ).fetchone()[0]
        return found

    def _settle(self, change: str, entry_id: int, **values: str) -> None:
        """Change an open entry; one that was settled meanwhile stays as it is."""
        with self.database.write() as conn:
            conn.execute(f"UPDATE outbox SET {change} WHERE id = :id AND {_OPEN}", {"id": entry_id, **values})


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(**{**dict(row), "parameters": json.loads(row["parameters"])})
