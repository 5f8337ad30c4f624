"""Summary queries of the outbox: by destination, by reason, by subject. For people to read; nothing changes here.

No query takes longer the more was delivered over the years (0005_looked_at.sql).

Not here: the entries themselves and their changes (`gateway.outbox.entries`).
"""

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.sqlite import Transactions, utc_text

OPEN = "delivered_at IS NULL AND parked_at IS NULL"
"""Neither delivered nor parked: an entry of the outbox, or a delivery row."""

_ALIKE = (
    "SELECT destination, reason, count(*) AS count, min(entry_id) AS first_id, min(parked_at) AS first_parked_at"
    " FROM outbox_duty WHERE parked_at IS NOT NULL"
)


@dataclass(frozen=True, slots=True)
class DestinationOverview:
    """The queue of one destination. Times are UTC text; a day is one of UTC.

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
class SubjectCounts:
    """How many entries of one subject are delivered, open and parked; a discarded one is none of these."""

    delivered: int
    open: int
    parked: int


class OutboxOverview:
    """Reads the outbox tables inside their owner's database."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def lines(self, *, now: datetime) -> list[DestinationOverview]:
        """One overview for each destination that is served, or has an entry that is not delivered."""
        with self._database.read() as conn:
            # Grouped from open and parked rows alone, whose partial indexes stay short.
            waiting = conn.execute(
                "SELECT destination, priority, count(*) AS count, min(entry_id) AS first_id FROM outbox_duty"
                f" WHERE {OPEN} GROUP BY destination, priority"
            ).fetchall()
            parked = conn.execute(
                "SELECT destination, count(*) FROM outbox_duty WHERE parked_at IS NOT NULL GROUP BY destination"
            ).fetchall()
            names = {str(row["name"]) for row in conn.execute("SELECT name FROM outbox_destination")}
            # A destination that is served no more may still have parked rows, for which an operator has to be shown it.
            names |= {str(row["destination"]) for row in (*waiting, *parked)}
            counts = {row[0]: int(row[1]) for row in parked}
            return [_line(conn, name, waiting, counts.get(name, 0), now) for name in sorted(names)]

    def parked_alike(self, *, limit: int = 100) -> list[Alike]:
        """The parked entries by destination and reason, the largest numbers first."""
        with self._database.read() as conn:
            rows = conn.execute(
                f"{_ALIKE} GROUP BY destination, reason ORDER BY count DESC, destination, reason LIMIT :limit",
                {"limit": limit},
            ).fetchall()
        return [Alike(**dict(row)) for row in rows]

    def alike(self, destination: str, reason: str) -> Alike | None:
        """The entries parked at one destination for exactly one reason; None when there are none."""
        with self._database.read() as conn:
            row = conn.execute(
                f"{_ALIKE} AND destination = :destination AND reason = :reason GROUP BY destination, reason",
                {"destination": destination, "reason": reason},
            ).fetchone()
        return Alike(**dict(row)) if row else None

    def counts_of(self, subject: str) -> SubjectCounts:
        """The counts of one subject's entries."""
        with self._database.read() as conn:
            # A discarded entry has `delivered_at`, and must not show as something that the cloud has.
            row = conn.execute(
                "SELECT count(delivered_at) FILTER (WHERE discarded_by = '') AS delivered,"
                " count(*) - count(delivered_at) - count(parked_at) AS open,"
                " count(parked_at) AS parked FROM outbox WHERE subject = :subject",
                {"subject": subject},
            ).fetchone()
        return SubjectCounts(**dict(row))


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
    # Kept up by triggers, because counting the day's rows would take longer the more is delivered.
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
