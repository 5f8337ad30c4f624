"""What is held back until a person decides: parked like everything that waits for one, but let go by name only.

Rules:

* An entry is held back wherever it is open, and not again once somebody let it go, or a destination has had it.
* Or a person decides that it never leaves (`discard`): then nobody is owed it any more. It is closed as delivered, but
  counted as told nowhere (0007_discarded.sql).
* What arrived although it was held back while it was under way has been told: nothing holds it back any more.

Not here: releasing, which is the same for all that is parked (`gateway.outbox.entries`), and why something is held back
(`relay.exams.holding`).
"""

import json
import sqlite3
from collections.abc import Collection
from datetime import datetime

from gateway.errors import NotFound
from gateway.outbox.overview import OPEN
from gateway.sign_off import require_decider, require_reason
from gateway.sqlite import Transactions, utc_text


class Held:
    """The part of an outbox that waits for somebody's name."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def hold(self, entry_id: int, *, reason: str, now: datetime) -> bool:
        """Park an entry wherever it is open until a person releases it by name; False when nothing was to be done."""
        values = {"id": entry_id, "now": utc_text(now), "reason": reason}
        with self._database.write() as conn:
            held = conn.execute(
                "UPDATE outbox_duty SET parked_at = :now, reason = :reason"
                f" WHERE entry_id = :id AND {OPEN} AND (SELECT released_by FROM outbox WHERE id = :id) = ''",
                values,
            ).rowcount
            if held:
                conn.execute("UPDATE outbox SET held_at = coalesce(held_at, :now) WHERE id = :id", values)
                mark_parked(conn, entry_id, now)
        return bool(held)

    def discard(
        self, conn: sqlite3.Connection, entry_id: int, *, by: str, because: str, now: datetime
    ) -> tuple[str, str]:
        """Owe nobody an entry any more that is held back; inside the transaction of what is told in its place.

        Gives its message id and its parameters, in JSON. Raises NotFound when it is not held back, InvalidValue when
        `by` is no name or `because` no reason.
        """
        values = {"id": entry_id, "now": utc_text(now), "by": require_decider(by), "because": require_reason(because)}
        discarded: tuple[str, str] | None = conn.execute(
            "UPDATE outbox SET parked_at = NULL, delivered_at = :now, discarded_by = :by, discarded_because = :because"
            " WHERE id = :id AND parked_at IS NOT NULL AND held_at IS NOT NULL AND released_by = ''"
            " RETURNING message_id, parameters",
            values,
        ).fetchone()
        if discarded is None:
            raise NotFound(f"No entry that is held back has the id {entry_id}; list them with 'gateway outbox list'.")
        conn.execute("DELETE FROM outbox_duty WHERE entry_id = :id AND delivered_at IS NULL", values)
        return discarded[0], discarded[1]

    def reasons(self, message_ids: Collection[str]) -> dict[str, str]:
        """Which of these events are held back now, and why."""
        return self._found(
            "SELECT message_id, max(reason) FROM outbox AS entry JOIN outbox_duty AS delivery ON entry_id = id"
            " WHERE message_id IN (SELECT value FROM json_each(:message_ids)) AND held_at IS NOT NULL"
            " AND entry.parked_at IS NOT NULL AND delivery.parked_at IS NOT NULL GROUP BY message_id",
            message_ids,
        )

    def discarded(self, message_ids: Collection[str]) -> dict[str, str]:
        """Which of these events a person has discarded, and by whom and why."""
        return self._found(
            "SELECT message_id, 'Discarded by ' || discarded_by || ': ' || discarded_because FROM outbox"
            " WHERE message_id IN (SELECT value FROM json_each(:message_ids)) AND discarded_by <> ''",
            message_ids,
        )

    def let_out(self, message_ids: Collection[str]) -> set[str]:
        """Which of these events some destination has had already, or a person has released."""
        found = self._found(
            "SELECT message_id, released_by FROM outbox"
            " WHERE message_id IN (SELECT value FROM json_each(:message_ids))"
            " AND (released_by <> '' OR (delivered_at IS NOT NULL AND discarded_by = '') OR EXISTS"
            " (SELECT 1 FROM outbox_duty WHERE entry_id = id AND outbox_duty.delivered_at IS NOT NULL))",
            message_ids,
        )
        return set(found)

    def let_go(self, conn: sqlite3.Connection, entry_id: int, now: datetime) -> None:
        """Hold an entry back nowhere, as somebody has had it; where it is parked for another reason it stays so."""
        values = {"id": entry_id, "now": utc_text(now)}
        conn.execute(
            "UPDATE outbox_duty SET parked_at = NULL, due_at = :now, reason = '' WHERE entry_id = :id"
            " AND parked_at >= (SELECT held_at FROM outbox WHERE id = :id AND released_by = '')",
            values,
        )
        conn.execute(
            "UPDATE outbox SET held_at = iif(released_by = '', NULL, held_at),"
            " parked_at = (SELECT min(parked_at) FROM outbox_duty WHERE entry_id = :id) WHERE id = :id",
            values,
        )

    def _found(self, statement: str, message_ids: Collection[str]) -> dict[str, str]:
        with self._database.read() as conn:
            rows = conn.execute(statement, {"message_ids": json.dumps(list(message_ids))})
            return {str(message_id): str(text) for message_id, text in rows}


def mark_parked(conn: sqlite3.Connection, entry_id: int, now: datetime) -> None:
    """Park an entry of which a delivery row was parked."""
    conn.execute(
        f"UPDATE outbox SET parked_at = :now WHERE id = :id AND {OPEN}", {"id": entry_id, "now": utc_text(now)}
    )
