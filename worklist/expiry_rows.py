"""All SQL of the worklist's day's end: what is old, what is known about it, and taking it out.

Not here: what may leave (`worklist.expiry`).
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.sqlite import Transactions
from worklist.items import ItemState

# Whatever a step told the cloud has a message id that begins with its UID; '0' follows '/' in ASCII.
_OWED = (
    "SELECT count(*) FROM outbox WHERE delivered_at IS NULL"
    " AND message_id > steps.mpps_instance_uid || '/' AND message_id < steps.mpps_instance_uid || '0'"
)

_ITEM = (
    "SELECT items.accession_number, items.date, items.state,"
    " (SELECT count(*) FROM performed_items JOIN steps USING (mpps_instance_uid)"
    "   WHERE accession_number = items.accession_number AND status = 'IN PROGRESS') AS open_steps,"
    f" (SELECT total(({_OWED})) FROM performed_items JOIN steps USING (mpps_instance_uid)"
    "   WHERE accession_number = items.accession_number) AS owed"
    " FROM items"
)

_FORGOTTEN_STEPS = (
    "SELECT mpps_instance_uid FROM steps WHERE status <> 'IN PROGRESS' AND updated_at < :before"
    f" AND ({_OWED}) = 0"
    " AND NOT EXISTS (SELECT 1 FROM performed_items JOIN items USING (accession_number)"
    "   WHERE performed_items.mpps_instance_uid = steps.mpps_instance_uid)"
)


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What decides whether an item may leave. `owed` events of its steps are not delivered, parked ones included."""

    accession_number: str
    date: str
    state: ItemState
    open_steps: int
    owed: int


class ExpiryRows:
    """The worklist's tables as far as items and steps leave them."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def items_before(self, date: str) -> Iterator[ItemFacts]:
        """The items of earlier days than this one (YYYYMMDD), the oldest first."""
        with self._database.read_at_length() as conn:
            rows = conn.execute(f"{_ITEM} WHERE date < :date ORDER BY date, time, accession_number", {"date": date})
            yield from map(_facts, rows)

    def facts(self, conn: sqlite3.Connection, accession_number: str) -> ItemFacts | None:
        """What is known about an item now, inside the transaction in which it shall leave."""
        row = conn.execute(
            f"{_ITEM} WHERE accession_number = :accession_number", {"accession_number": accession_number}
        ).fetchone()
        return _facts(row) if row else None

    def remove(self, conn: sqlite3.Connection, accession_number: str) -> None:
        """Take an item out, with the actions that were about it. Its steps stay until `forget_steps`."""
        for table in ("actions", "items"):
            conn.execute(
                f"DELETE FROM {table} WHERE accession_number = :accession_number",
                {"accession_number": accession_number},
            )

    def forget(self, accession_number: str) -> None:
        """Take out an item with its steps, whatever anybody is owed of them. Only for what nobody will miss: a test."""
        of_it = "SELECT mpps_instance_uid FROM performed_items WHERE accession_number = :accession_number"
        values = {"accession_number": accession_number}
        with self._database.write() as conn:
            uids = [{"mpps_instance_uid": row[0]} for row in conn.execute(of_it, values).fetchall()]
            for table in ("performed_instances", "performed_items", "steps"):
                conn.executemany(f"DELETE FROM {table} WHERE mpps_instance_uid = :mpps_instance_uid", uids)
            self.remove(conn, accession_number)

    def forget_steps(self, *, before: str) -> int:
        """Take out the steps that are over, told, last changed before (UTC text), and of no item; say how many."""
        with self._database.write() as conn:
            uids = [row[0] for row in conn.execute(_FORGOTTEN_STEPS, {"before": before}).fetchall()]
            for table in ("performed_instances", "performed_items", "steps"):
                conn.executemany(
                    f"DELETE FROM {table} WHERE mpps_instance_uid = :mpps_instance_uid",
                    [{"mpps_instance_uid": uid} for uid in uids],
                )
        return len(uids)


def _facts(row: sqlite3.Row) -> ItemFacts:
    return ItemFacts(**{**dict(row), "owed": int(row["owed"])})
