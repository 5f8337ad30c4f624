"""The forwarding queue in pacs.db: every statement about it.

A trigger of the schema writes a row for each target in the transaction that enters an instance. Not for: rules
(`rules`), sending (`sender`).
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from gateway.errors import NotFound
from gateway.sqlite import Transactions, utc_text
from pacs.forward.rules import ANSWERED, LONGEST_PAUSE, Fate, QueueRow, Settled

ForwardState = Literal["open", "delivered", "parked"]

_OPEN = "delivered_at IS NULL AND parked_at IS NULL"

_STATE = {"open": _OPEN, "delivered": "delivered_at IS NOT NULL", "parked": "parked_at IS NOT NULL"}

_IS_DUE = "(due_at <= :now OR due_at > :beyond)"
"""A `due_at` beyond the longest pause means that the clock was set back since."""

_NO_ADDRESS = "Its address is not in PACS_PEERS."

_OF = "FROM instance JOIN series ON series.id = instance.series_id JOIN study ON study.id = series.study_id"


@dataclass(frozen=True, slots=True)
class ForwardEntry:
    """One row as operators see it. Times are UTC text."""

    id: int
    target: str
    sop_instance_uid: str
    study_instance_uid: str
    owed_at: str
    attempts: int
    due_at: str
    reason: str


@dataclass(frozen=True, slots=True)
class TargetQueue:
    """The queue of one target. `reason` says why the target was not reached lately, or why the oldest row waits."""

    target: str
    is_standing: bool
    open: int
    parked: int
    oldest_open: str | None
    reason: str


class ForwardQueue:
    """The forwarding tables of pacs.db."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def set_targets(self, targets: Iterable[str], *, known: Iterable[str], now: datetime) -> None:
        """Forward every instance that is stored from now on to these targets and no other.

        Targets that have a pause are due now. `known` are the AE titles whose address is known; others get a reason.
        """
        # A trigger reads this table on every receipt, and not the code that receives, because no path into the archive
        # (receipt, fsck, quarantine) can then forget a row.
        values = {"now": utc_text(now), "known": json.dumps(list(known)), "reason": _NO_ADDRESS}
        with self._database.write() as conn:
            conn.execute(
                "UPDATE forward_target SET is_standing = 0, attempts = 0, due_at = :now,"
                " reason = iif(ae_title IN (SELECT value FROM json_each(:known)), '', :reason)",
                values,
            )
            for target in targets:
                self._add_target(conn, target, now=now)
                conn.execute("UPDATE forward_target SET is_standing = 1 WHERE ae_title = :target", {"target": target})

    def due(self, target: str, *, now: datetime, limit: int) -> list[QueueRow]:
        """The rows to send to a target now, in order; none while the target itself has a pause."""
        # Studies with a failed row come last, because an object at which the target breaks off is due again whenever
        # the target is, and would stand in front of all others.
        values = {"target": target, "now": utc_text(now), "beyond": utc_text(now + LONGEST_PAUSE), "limit": limit}
        with self._database.read() as conn:
            if not conn.execute(
                f"SELECT 1 FROM forward_target WHERE ae_title = :target AND {_IS_DUE}", values
            ).fetchone():
                return []
            rows = conn.execute(
                "SELECT queued.id, study_id, sop_instance_uid, attempts,"
                " EXISTS (SELECT 1 FROM damage WHERE damage.instance_id = queued.instance_id) AS is_damaged FROM"
                " (SELECT id, study_id, instance_id, attempts, max(attempts) OVER so_far AS trouble,"
                f" min({_IS_DUE}) OVER so_far AS is_its_turn FROM forward WHERE target = :target AND {_OPEN}"
                " WINDOW so_far AS (PARTITION BY study_id ORDER BY id)) AS queued"
                " JOIN instance ON instance.id = queued.instance_id"
                " WHERE is_its_turn ORDER BY trouble, queued.id LIMIT :limit",
                values,
            ).fetchall()
        return [QueueRow(**{**dict(row), "is_damaged": bool(row["is_damaged"])}) for row in rows]

    def settle(
        self, target: str, settled: Sequence[Settled], pause: Callable[[int], timedelta], *, now: datetime
    ) -> None:
        """Record the fates of rows in one transaction; `pause` gives the pause after so many attempts."""
        times = {"now": utc_text(now), "target": target}
        with self._database.write() as conn:
            for each in settled:
                due_at = utc_text(now + pause(each.row.attempts + 1))
                values = {**times, "id": each.row.id, "reason": each.reason, "due_at": due_at}
                conn.execute(
                    f"UPDATE forward SET {_CHANGE[each.fate]}, attempts = attempts + 1, reason = :reason"
                    f" WHERE id = :id AND {_OPEN}",
                    values,
                )
            # An answer to any object shows that the target works, so its own pause ends.
            if any(each.fate in ANSWERED for each in settled):
                conn.execute("UPDATE forward_target SET attempts = 0, reason = '' WHERE ae_title = :target", times)

    def failed(self, target: str, reason: str, pause: Callable[[int], timedelta], *, now: datetime) -> None:
        """Record that a target was not reached; its pause grows with each attempt."""
        with self._database.write() as conn:
            row = conn.execute("SELECT attempts FROM forward_target WHERE ae_title = :target", {"target": target})
            attempts = int(row.fetchone()["attempts"]) + 1
            conn.execute(
                "UPDATE forward_target SET attempts = :attempts, due_at = :due_at, reason = :reason"
                " WHERE ae_title = :target",
                {"target": target, "attempts": attempts, "due_at": utc_text(now + pause(attempts)), "reason": reason},
            )

    # ---- people ------------------------------------------------------------------------------------------------------

    def ask(self, target: str, *, now: datetime, **uid: str) -> int:
        """Enqueue the instances of a study_instance_uid or sop_instance_uid for a target, also if sent before.

        Returns how many instances that are. Raises NotFound for none.
        """
        [(column, value)] = uid.items()
        values = {"target": target, "uid": value, "now": utc_text(now)}
        with self._database.write() as conn:
            self._add_target(conn, target, now=now)
            done = conn.execute(
                "INSERT INTO forward (target, instance_id, study_id, owed_at, due_at)"
                f" SELECT :target, instance.id, study.id, :now, :now {_OF} WHERE {_COLUMNS[column]} = :uid"
                " ORDER BY instance.id"
                " ON CONFLICT (instance_id, target) DO UPDATE SET owed_at = :now, due_at = :now, attempts = 0,"
                " reason = '', delivered_at = NULL, parked_at = NULL",
                values,
            )
            if not done.rowcount:
                raise NotFound(f"Nothing is stored under {column} {value}.")
        return done.rowcount

    def release(self, *, now: datetime, **which: object) -> int:
        """Make parked rows of an id or a target due again and return how many; the target's pause ends as well."""
        [(column, value)] = which.items()
        values = {"value": value, "now": utc_text(now)}
        with self._database.write() as conn:
            done = conn.execute(
                f"UPDATE forward SET parked_at = NULL, due_at = :now WHERE {_COLUMNS[column]} = :value"
                f" AND {_STATE['parked']}",
                values,
            )
            if column == "target":
                conn.execute("UPDATE forward_target SET attempts = 0, due_at = :now WHERE ae_title = :value", values)
        return done.rowcount

    def cancel(self, **which: object) -> int:
        """Delete the undelivered rows of an id or a target, and return how many."""
        [(column, value)] = which.items()
        with self._database.write() as conn:
            return conn.execute(
                f"DELETE FROM forward WHERE {_COLUMNS[column]} = :value AND delivered_at IS NULL", {"value": value}
            ).rowcount

    def owed(self, state: ForwardState, *, target: str | None = None, limit: int = 100) -> list[ForwardEntry]:
        """The newest rows of one state, newest first, of one target or of all."""
        with self._database.read() as conn:
            rows = conn.execute(
                "SELECT forward.id, target, sop_instance_uid, study_instance_uid, owed_at, attempts, due_at, reason"
                " FROM forward JOIN instance ON instance.id = instance_id JOIN study ON study.id = forward.study_id"
                f" WHERE {_STATE[state]} AND (target = :target OR :target IS NULL)"
                " ORDER BY forward.id DESC LIMIT :limit",
                {"target": target, "limit": limit},
            ).fetchall()
        return [ForwardEntry(**dict(row)) for row in rows]

    def targets(self) -> list[TargetQueue]:
        """The targets that have undelivered rows, or get one for every new instance."""
        of_target = "FROM forward WHERE target = ae_title AND"
        with self._database.read() as conn:
            rows = conn.execute(
                f"SELECT ae_title AS target, is_standing, (SELECT count(*) {of_target} {_OPEN}) AS open,"
                f" (SELECT count(*) {of_target} {_STATE['parked']}) AS parked,"
                f" (SELECT owed_at {of_target} {_OPEN} ORDER BY id LIMIT 1) AS oldest_open,"
                f" coalesce(nullif(reason, ''), (SELECT reason {of_target} {_OPEN} ORDER BY id LIMIT 1), '') AS reason"
                " FROM forward_target ORDER BY ae_title"
            ).fetchall()
        found = [TargetQueue(**{**dict(row), "is_standing": bool(row["is_standing"])}) for row in rows]
        return [each for each in found if each.is_standing or each.open or each.parked]

    def _add_target(self, conn: sqlite3.Connection, target: str, *, now: datetime) -> None:
        conn.execute(
            "INSERT INTO forward_target (ae_title, is_standing, due_at) VALUES (:target, 0, :now)"
            " ON CONFLICT DO NOTHING",
            {"target": target, "now": utc_text(now)},
        )


_CHANGE = {
    Fate.DELIVERED: "delivered_at = :now",
    Fate.POSTPONED: "due_at = :due_at",
    Fate.NOT_NOW: "due_at = :due_at",
    Fate.PARKED: "parked_at = :now",
}

_COLUMNS = {
    "id": "id",
    "target": "target",
    "study_instance_uid": "study.study_instance_uid",
    "sop_instance_uid": "instance.sop_instance_uid",
}
