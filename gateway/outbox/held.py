"""Entries held back until a person decides: parked like any other, but released only with a person's name.

* An entry is held back at every destination where it is open, and not again once a person has released it.
* A person may also discard it; then it is closed at every destination and never leaves.
* An entry that was delivered although it was held back meanwhile counts as delivered.

Not here: releasing, which is the same for all parked entries (`gateway.outbox.entries`), and the reason for holding
one back (`relay.exams.holding`).
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
    """The part of an outbox that waits for a person's name."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def hold(self, entry_id: int, *, reason: str, now: datetime) -> bool:
        """Park an entry wherever it is open until a person releases it by name; False when nothing was to be done."""
        # Parked is no new state: the subject goes on, an operator sees the image where all parked entries are, and
        # retention leaves it alone. A correction of the item does not release it, because nobody should find out later
        # that an image left by itself.
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
        """Close an entry that is held back, inside the transaction of the event that reports its rejection.

        Returns its message id and its parameters, in JSON. Raises NotFound when it is not held back, InvalidValue when
        `by` is no name or `because` no reason.
        """
        # Closed as delivered, so that retention and every query for open entries need no further state; `discarded_by`
        # keeps it out of the counts of delivered ones (0007_discarded.sql).
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
        """The events among these that are held back now, each with the reason."""
        return self._texts(
            "SELECT message_id, max(reason) FROM outbox AS entry JOIN outbox_duty AS delivery ON entry_id = id"
            " WHERE message_id IN (SELECT value FROM json_each(:message_ids)) AND held_at IS NOT NULL"
            " AND entry.parked_at IS NOT NULL AND delivery.parked_at IS NOT NULL GROUP BY message_id",
            message_ids,
        )

    def discarded(self, message_ids: Collection[str]) -> dict[str, str]:
        """The events among these that a person has discarded, each with the name and the reason."""
        return self._texts(
            "SELECT message_id, 'Discarded by ' || discarded_by || ': ' || discarded_because FROM outbox"
            " WHERE message_id IN (SELECT value FROM json_each(:message_ids)) AND discarded_by <> ''",
            message_ids,
        )

    def let_out(self, message_ids: Collection[str]) -> set[str]:
        """The events among these that a destination has confirmed, or a person has released."""
        let_out = self._texts(
            "SELECT message_id, released_by FROM outbox"
            " WHERE message_id IN (SELECT value FROM json_each(:message_ids))"
            " AND (released_by <> '' OR (delivered_at IS NOT NULL AND discarded_by = '') OR EXISTS"
            " (SELECT 1 FROM outbox_duty WHERE entry_id = id AND outbox_duty.delivered_at IS NOT NULL))",
            message_ids,
        )
        return set(let_out)

    def let_go(self, conn: sqlite3.Connection, entry_id: int, now: datetime) -> None:
        """End the hold of an entry that a destination has confirmed; a row parked for another reason stays parked."""
        values = {"id": entry_id, "now": utc_text(now)}
        # A row that was parked before the hold began is parked for another reason.
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

    def _texts(self, statement: str, message_ids: Collection[str]) -> dict[str, str]:
        with self._database.read() as conn:
            rows = conn.execute(statement, {"message_ids": json.dumps(list(message_ids))})
            return {str(message_id): str(text) for message_id, text in rows}


def mark_parked(conn: sqlite3.Connection, entry_id: int, now: datetime) -> None:
    """Park an entry of which a delivery row was parked."""
    # The first one counts: an entry needs a person as soon as one destination does not get it.
    conn.execute(
        f"UPDATE outbox SET parked_at = :now WHERE id = :id AND {OPEN}", {"id": entry_id, "now": utc_text(now)}
    )
