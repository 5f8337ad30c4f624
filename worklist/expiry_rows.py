"""The SQL of expiry: finding old items with the facts that decide about them, and removing items and steps.

Not for: the rules (`worklist.expiry`).
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.sqlite import Transactions
from worklist.items import ItemState

# Every event of a step has a message id that begins with the step's UID and '/'. The range serves the index of message
# ids, which LIKE would not; '0' follows '/' in ASCII.
_PENDING = (
    "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"
    " AND message_id > steps.mpps_instance_uid || '/' AND message_id < steps.mpps_instance_uid || '0'"
)

_ITEM = (
    "SELECT items.accession_number, items.date, items.state,"
    " (SELECT count(*) FROM performed_items JOIN steps USING (mpps_instance_uid)"
    "   WHERE accession_number = items.accession_number AND status = 'IN PROGRESS') AS open_steps,"
    f" (SELECT total(({_PENDING})) FROM performed_items JOIN steps USING (mpps_instance_uid)"
    "   WHERE accession_number = items.accession_number) AS pending"
    " FROM items"
)

_FORGOTTEN_STEPS = (
    "SELECT mpps_instance_uid FROM steps WHERE status <> 'IN PROGRESS' AND updated_at < :before"
    f" AND ({_PENDING}) = 0"
    " AND NOT EXISTS (SELECT 1 FROM performed_items JOIN items USING (accession_number)"
    "   WHERE performed_items.mpps_instance_uid = steps.mpps_instance_uid)"
)


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """The facts that decide whether an item may leave. `pending` counts its steps' undelivered events, also parked."""

    accession_number: str
    date: str
    state: ItemState
    open_steps: int
    pending: int


class ExpiryRows:
    """The worklist's tables as far as items and steps are removed from them."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def items_before(self, date: str) -> Iterator[ItemFacts]:
        """The items of earlier days than this one (YYYYMMDD), the oldest first."""
        with self._database.read_at_length() as conn:
            rows = conn.execute(f"{_ITEM} WHERE date < :date ORDER BY date, time, accession_number", {"date": date})
            yield from map(_facts, rows)

    def facts(self, conn: sqlite3.Connection, accession_number: str) -> ItemFacts | None:
        """The facts about an item now, inside the transaction in which it shall leave; None when it is gone."""
        row = conn.execute(
            f"{_ITEM} WHERE accession_number = :accession_number", {"accession_number": accession_number}
        ).fetchone()
        return _facts(row) if row else None

    def remove(self, conn: sqlite3.Connection, accession_number: str) -> None:
        """Remove an item and the actions about it. Its steps stay until `forget_steps`."""
        for table in ("actions", "items"):
            conn.execute(
                f"DELETE FROM {table} WHERE accession_number = :accession_number",
                {"accession_number": accession_number},
            )

    def forget(self, accession_number: str) -> None:
        """Remove an item with its steps, also when events of them are pending. Only for items of a self-test."""
        of_it = "SELECT mpps_instance_uid FROM performed_items WHERE accession_number = :accession_number"
        values = {"accession_number": accession_number}
        with self._database.write() as conn:
            uids = [{"mpps_instance_uid": row[0]} for row in conn.execute(of_it, values).fetchall()]
            for table in ("performed_instances", "performed_items", "steps"):
                conn.executemany(f"DELETE FROM {table} WHERE mpps_instance_uid = :mpps_instance_uid", uids)
            self.remove(conn, accession_number)

    def forget_steps(self, *, before: str) -> int:
        """Remove the steps that are over, reported, of no item and last changed before (UTC text); return how many."""
        with self._database.write() as conn:
            uids = [row[0] for row in conn.execute(_FORGOTTEN_STEPS, {"before": before}).fetchall()]
            for table in ("performed_instances", "performed_items", "steps"):
                conn.executemany(
                    f"DELETE FROM {table} WHERE mpps_instance_uid = :mpps_instance_uid",
                    [{"mpps_instance_uid": uid} for uid in uids],
                )
        return len(uids)


def _facts(row: sqlite3.Row) -> ItemFacts:
    return ItemFacts(**{**dict(row), "pending": int(row["pending"])})
