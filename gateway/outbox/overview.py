"""How it stands with what is owed: by destination, by reason, by subject. For people to look at; nothing changes here.

Each question is answered in a time that does not grow with what was delivered over the years (0005_looked_at.sql).

Not here: the entries themselves and what happens to them (`gateway.outbox.entries`).
"""

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.sqlite import Transactions, utc_text

OPEN = "delivered_at IS NULL AND parked_at IS NULL"
"""What is neither delivered nor parked, of the outbox or of its delivery rows."""

_ALIKE = (
    "SELECT destination, reason, count(*) AS count, min(entry_id) AS first_id, min(parked_at) AS first_parked_at"
    " FROM outbox_duty WHERE parked_at IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class DestinationOverview:
    """How it stands with one destination. Times are UTC text; a day is one of UTC.

    `waiting` is the number of open entries by priority. `next_attempt`, `attempts` and `reason` are of the entry that
    failed and is tried again first; None, 0 and '' when none has failed.
    """

    destination: str
    waiting: Mapping[int, int]
    oldest: str | None
    next_attempt: str | None
    attempts: int
    reason: str
    parked: int
    delivered_today: int
    bytes_today: int


@dataclass(frozen=True, slots=True)
class Alike:
    """The entries that are parked at one destination for one reason; times are UTC text."""

    destination: str
    reason: str
    count: int
    first_id: int
    first_parked_at: str


@dataclass(frozen=True, slots=True)
class Told:
    """How many entries of one subject are delivered, open and parked; what was discarded is none of these."""

    delivered: int
    open: int
    parked: int


class OutboxOverview:
    """Looks at the outbox tables inside their owner's database."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def lines(self, *, now: datetime) -> list[DestinationOverview]:
        """How it stands with everybody who is told of anything, or has an entry that is not delivered."""
        with self._database.read() as conn:
            waiting = conn.execute(
                "SELECT destination, priority, count(*) AS count, min(entry_id) AS first_id FROM outbox_duty"
                f" WHERE {OPEN} GROUP BY destination, priority"
            ).fetchall()
            parked = conn.execute(
                "SELECT destination, count(*) FROM outbox_duty WHERE parked_at IS NOT NULL GROUP BY destination"
            ).fetchall()
            names = {str(row["name"]) for row in conn.execute("SELECT name FROM outbox_destination")}
            names |= {str(row["destination"]) for row in (*waiting, *parked)}
            counts = {row[0]: int(row[1]) for row in parked}
            return [_line(conn, name, waiting, counts.get(name, 0), now) for name in sorted(names)]

    def parked_alike(self, *, limit: int = 100) -> list[Alike]:
        """What is parked, by destination and reason, the largest numbers first."""
        with self._database.read() as conn:
            rows = conn.execute(
                f"{_ALIKE} GROUP BY destination, reason ORDER BY count DESC, destination, reason LIMIT :limit",
                {"limit": limit},
            ).fetchall()
        return [Alike(**dict(row)) for row in rows]

    def alike(self, destination: str, reason: str) -> Alike | None:
        """What is parked at one destination for exactly one reason; None when nothing is."""
        with self._database.read() as conn:
            row = conn.execute(
                f"{_ALIKE} AND destination = :destination AND reason = :reason GROUP BY destination, reason",
                {"destination": destination, "reason": reason},
            ).fetchone()
        return Alike(**dict(row)) if row else None

    def told(self, subject: str) -> Told:
        """How it stands with the entries of one subject."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT count(delivered_at) FILTER (WHERE discarded_by = '') AS delivered,"
                " count(*) - count(delivered_at) - count(parked_at) AS open,"
                " count(parked_at) AS parked FROM outbox WHERE subject = :subject",
                {"subject": subject},
            ).fetchone()
        return Told(**dict(row))


def _line(
    conn: sqlite3.Connection, destination: str, waiting: Collection[sqlite3.Row], parked: int, now: datetime
) -> DestinationOverview:
    own = [row for row in waiting if row["destination"] == destination]
    values = {"destination": destination, "day": utc_text(now)[:10], "id": min((r["first_id"] for r in own), default=0)}
    oldest = conn.execute("SELECT created_at FROM outbox WHERE id = :id", values).fetchone()
    postponed = conn.execute(
        f"SELECT due_at, attempts, reason FROM outbox_duty WHERE destination = :destination AND {OPEN}"
        " AND attempts > 0 ORDER BY due_at LIMIT 1",
        values,
    ).fetchone()
    today = conn.execute(
        "SELECT count, byte_count FROM outbox_day WHERE destination = :destination AND day = :day", values
    ).fetchone()
    next_attempt, attempts, reason = tuple(postponed or (None, 0, ""))
    delivered_today, bytes_today = tuple(today or (0, 0))
    return DestinationOverview(
        destination=destination,
        waiting={row["priority"]: row["count"] for row in own},
        oldest=oldest["created_at"] if oldest else None,
        next_attempt=next_attempt,
        attempts=attempts,
        reason=reason,
        parked=parked,
        delivered_today=delivered_today,
        bytes_today=bytes_today,
    )
