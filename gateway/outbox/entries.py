"""The outbox: one *entry* per event, written in the same transaction as the fact it reports.

* An entry has a *delivery row* (table `outbox_duty`) for each destination, which is open, delivered or parked. The
  entry is delivered when all rows are, and parked as long as one row is.
* Sending changes nothing until its outcome is known; after a kill the entry is sent again under the same message id.
* Entries of one subject leave in order; subjects do not wait for one another, nor for a parked entry.
* A passing failure postpones an entry (`retry`). An entry that can never succeed is parked with the reason, until a
  person releases it. No entry is deleted here.
* An entry that a person has to review is held back (`gateway.outbox.held`).

Not here: sending (`relay.delivery`), counts (`gateway.outbox.overview`).
"""

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from types import MappingProxyType
from typing import Literal

from gateway.errors import InvalidValue, NotFound
from gateway.messages import EventParameters
from gateway.outbox.held import Held, mark_parked
from gateway.outbox.overview import OPEN, OutboxOverview
from gateway.sign_off import require_decider
from gateway.sqlite import Database, utc_text

SCHEMA = files("gateway") / "schema" / "outbox"

LONGEST_PAUSE = timedelta(hours=1)
"""No retry is ever further away than this."""

ANYWHERE = "cloud"
"""The destination of a site whose relay has not yet said which destinations it serves."""

PRIORITIES = range(1, 10)
"""1 is the most urgent."""

EntryState = Literal["open", "delivered", "parked"]

_COLUMNS = (
    "id, message_id, entry.subject, sequence, message_type, entry.priority, parameters, created_at,"
    " destination, attempts, due_at, reason, released_by, held_at"
)

_EVENT = "priority < 4"
"""The other entries are requests, which belong to one destination alone (0004_requests.sql)."""

_DELIVERY_OPEN = "delivery.delivered_at IS NULL AND delivery.parked_at IS NULL"

_STATE = {
    "open": _DELIVERY_OPEN,
    "delivered": "delivery.delivered_at IS NOT NULL",
    "parked": "delivery.parked_at IS NOT NULL",
}

# Only the oldest open row of a subject is due, because entries of one subject leave in order. A parked row does not
# count as earlier: it may wait for a person for ever, and its subject must not.
# A `due_at` beyond the longest pause was written by a clock that has been set back since, so it is due as well.
_DUE = (
    f"SELECT {_COLUMNS} FROM outbox_duty AS delivery JOIN outbox AS entry ON id = entry_id"
    f" WHERE destination = :destination AND delivery.priority = :priority AND {_DELIVERY_OPEN}"
    " AND (due_at <= :now OR due_at > :beyond)"
    " AND NOT EXISTS (SELECT 1 FROM outbox_duty AS earlier WHERE earlier.destination = :destination"
    " AND earlier.subject = delivery.subject AND earlier.entry_id < delivery.entry_id"
    " AND earlier.delivered_at IS NULL AND earlier.parked_at IS NULL)"
)

# An entry without any delivery row stays open, because no destination could have confirmed it.
_SETTLE = (
    f"UPDATE outbox SET delivered_at = :now WHERE {OPEN}"
    " AND EXISTS (SELECT 1 FROM outbox_duty WHERE entry_id = id)"
    " AND NOT EXISTS (SELECT 1 FROM outbox_duty AS delivery WHERE entry_id = id AND delivery.delivered_at IS NULL)"
)
"""Close the entries of which every delivery row is confirmed."""


@dataclass(frozen=True, slots=True)
class NewEntry:
    """The content of a new entry: `parameters` is the message's own part, `priority` one of PRIORITIES."""

    message_id: str
    message_type: str
    subject: str
    priority: int
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Entry:
    """One event at one destination. Times are UTC text; `parameters` is the message's own part.

    `released_by` names the person who released an entry that was held back; '' when none has.
    """

    id: int
    message_id: str
    subject: str
    sequence: int
    message_type: str
    priority: int
    parameters: dict[str, object]
    created_at: str
    destination: str
    attempts: int
    due_at: str
    reason: str
    released_by: str = ""
    held_at: str | None = None

    @property
    def wants_name(self) -> bool:
        """Is it held back, so that its release needs a person's name?"""
        return self.held_at is not None and not self.released_by


class Outbox:
    """The outbox tables inside their owner's database. `held` waits for a person, `overview` has the counts."""

    overview: OutboxOverview
    held: Held

    def __init__(self, database: Database) -> None:
        self.overview = OutboxOverview(database)
        self.held = Held(database)
        self._database = database

    def data_version(self) -> int:
        """A number that changes when anything may have; see `Database.data_version`. Raises OutOfResources."""
        return self._database.data_version()

    def put(self, conn: sqlite3.Connection, new: NewEntry, *, now: datetime) -> bool:
        """Add an entry inside the transaction of the fact. False, and no change, when the message id is there."""
        # A trigger makes the delivery rows in this same transaction, so the owner need not know any destination.
        done = conn.execute(
            "INSERT INTO outbox (message_id, subject, sequence, message_type, priority, parameters, created_at)"
            " SELECT :message_id, :subject, 1 + coalesce(max(sequence), 0), :message_type, :priority, :parameters, :now"
            " FROM outbox WHERE subject = :subject"
            " ON CONFLICT (message_id) DO NOTHING",
            {
                "message_id": new.message_id,
                "subject": new.subject,
                "message_type": new.message_type,
                "priority": new.priority,
                "parameters": json.dumps(new.parameters, ensure_ascii=False, separators=(",", ":")),
                "now": utc_text(now),
            },
        )
        return done.rowcount == 1

    def put_event(
        self, conn: sqlite3.Connection, event: EventParameters, *, now: datetime, message_id: str = ""
    ) -> bool:
        """Add an event as `put` does, under its own subject and priority, and its own id unless another is given."""
        return self.put(conn, _of_event(event, message_id), now=now)

    def enqueue(self, new: NewEntry | EventParameters, *, now: datetime) -> bool:
        """Add an entry or an event as `put` does, in a transaction of its own: no other change belongs to it."""
        with self._database.write() as conn:
            return self.put(conn, new if isinstance(new, NewEntry) else _of_event(new), now=now)

    def serve(self, destinations: Collection[str], *, now: datetime) -> None:
        """Deliver all open and all future entries to these destinations and to no other.

        A new destination gets the open entries, not those delivered before it came. One that is left out is not waited
        for any more. Parked entries stay parked.
        """
        with self._database.read() as conn:
            known = {str(row["name"]) for row in conn.execute("SELECT name FROM outbox_destination")}
        if known == set(destinations):
            return  # nothing is written: a relay also starts while the disk is full
        with self._database.write() as conn:
            for gone in known - set(destinations):
                conn.execute("DELETE FROM outbox_destination WHERE name = :name", {"name": gone})
                conn.execute(f"DELETE FROM outbox_duty WHERE destination = :name AND {OPEN}", {"name": gone})
            for new in set(destinations) - known:
                conn.execute("INSERT INTO outbox_destination VALUES (:name)", {"name": new})
                self._add_delivery_rows(
                    conn, f"destination.name = :name AND {_EVENT} AND {OPEN}", name=new, now=utc_text(now)
                )
            conn.execute(_SETTLE, {"now": utc_text(now)})  # one that left may have been the last to wait for

    def due(self, now: datetime, *, limit: int, destination: str = ANYWHERE) -> list[Entry]:
        """The oldest open entry of each subject, if its time has come; most urgent first, then newest first.

        Of each priority the `limit` newest of these, and the `limit` oldest.
        """
        # Newest first, because after an outage the exam in the room matters more than last week's. The oldest as well,
        # because the sender gives them every fourth place: a queue that is always busy would never reach them.
        values = {"destination": destination, "now": utc_text(now), "beyond": utc_text(now + LONGEST_PAUSE)}
        due: dict[int, Entry] = {}
        with self._database.read() as conn:
            for priority in PRIORITIES:  # one statement each, so that each walks its part of one index and stops early
                for order in ("DESC", "ASC"):
                    statement = f"{_DUE} ORDER BY entry_id {order} LIMIT :limit"
                    rows = conn.execute(statement, {**values, "priority": priority, "limit": limit})
                    due |= {row["id"]: _entry(row) for row in rows}
        return sorted(due.values(), key=lambda entry: (entry.priority, -entry.id))

    def delivered(self, entry: Entry, *, now: datetime, sent: Mapping[int, int] = MappingProxyType({})) -> None:
        """Record that the destination confirmed the entry; `sent` is how many bytes that took, by class.

        This counts also when the entry was parked meanwhile.
        """
        # The bytes are kept with the row, because the day's budget is added up from the rows after a restart.
        change = "delivered_at = :now, parked_at = NULL, attempts = attempts + 1, reason = '', sent = :sent"
        values = {"now": utc_text(now), "sent": json.dumps(dict(sent))}
        with self._database.write() as conn:
            is_open = self._change(conn, entry, change, **values)
            # Held back while it was sent: the cloud has it, so nothing is left to hold.
            if not is_open and self._change(conn, entry, change, which="parked_at IS NOT NULL", **values):
                self.held.let_go(conn, entry.id, now)
            conn.execute(f"{_SETTLE} AND id = :id", {"id": entry.id, "now": utc_text(now)})

    def retry(self, entry: Entry, *, reason: str, due_at: datetime) -> None:
        """Postpone an entry whose attempt failed for a passing reason; it is due again from `due_at` on."""
        # However often this happens, it never parks: an outage of a week would otherwise leave all to a person.
        change = "due_at = :due_at, attempts = attempts + 1, reason = :reason"
        with self._database.write() as conn:
            self._change(conn, entry, change, due_at=utc_text(due_at), reason=reason)

    def park(self, entry: Entry, *, reason: str, now: datetime) -> None:
        """Keep for a person an entry that the destination can never take as it is, and let its subject go on."""
        change = "parked_at = :now, attempts = attempts + 1, reason = :reason"
        with self._database.write() as conn:
            if self._change(conn, entry, change, now=utc_text(now), reason=reason):
                mark_parked(conn, entry.id, now)

    def set_aside(self, entry_id: int, *, reason: str, now: datetime) -> None:
        """Park an entry at every destination where it is open. Raises NotFound when it is open at none."""
        values = {"id": entry_id, "now": utc_text(now), "reason": reason}
        with self._database.write() as conn:
            changed = conn.execute(
                f"UPDATE outbox_duty SET parked_at = :now, reason = :reason WHERE entry_id = :id AND {OPEN}", values
            ).rowcount
            if changed:
                mark_parked(conn, entry_id, now)
        if not changed:
            raise NotFound(f"No open entry has the id {entry_id}; list them with 'gateway outbox list --state open'.")

    def release(self, entry_id: int, *, now: datetime, by: str = "") -> None:
        """Make a parked entry due again. Raises NotFound when no parked entry has this id.

        `by` is the person who decides so; raises InvalidValue when it is no name (`gateway.sign_off`) for an entry that
        is held back.
        """
        with self._database.write() as conn:
            changed = self._release(conn, entry_id, by=by, now=now)
        if not changed:
            raise NotFound(f"No parked entry has the id {entry_id}; list them with 'gateway outbox list'.")

    def release_alike(self, destination: str, reason: str, *, now: datetime, by: str = "") -> int:
        """Make every entry due again that is parked at a destination for exactly this reason; returns how many.

        An entry is released everywhere, also where it is parked for another reason. Raises InvalidValue as `release`.
        """
        with self._database.write() as conn:
            rows = conn.execute(
                "SELECT entry_id FROM outbox_duty WHERE parked_at IS NOT NULL AND destination = :destination"
                " AND reason = :reason",
                {"destination": destination, "reason": reason},
            ).fetchall()
            return sum(self._release(conn, row["entry_id"], by=by, now=now) for row in rows)

    def knock(self, destination: str, *, now: datetime) -> int:
        """Make the postponed entries of a destination due now; returns how many entries that is."""
        values = {"destination": destination, "now": utc_text(now)}
        with self._database.write() as conn:
            return conn.execute(
                f"UPDATE outbox_duty SET due_at = :now WHERE destination = :destination AND {OPEN} AND attempts > 0"
                " AND due_at > :now",
                values,
            ).rowcount

    def hasten(self, *, reason: str, now: datetime) -> int:
        """Make every open entry due now; returns how many there are. The cloud recognises a repeat by its id."""
        values = {"now": utc_text(now), "reason": reason}
        with self._database.write() as conn:
            conn.execute(f"UPDATE outbox_duty SET due_at = :now, reason = :reason WHERE {OPEN}", values)
            return int(conn.execute(f"SELECT count(*) FROM outbox WHERE {OPEN}").fetchone()[0])

    def entries(self, state: EntryState, *, limit: int = 100) -> list[Entry]:
        """The newest entries of one state, newest first; one for each destination where it has this state."""
        # The sign keeps SQLite to the index of this state, which is short, where it would walk through all of them.
        order = "entry_id" if state == "delivered" else "+entry_id"
        with self._database.read() as conn:
            rows = conn.execute(
                f"SELECT {_COLUMNS} FROM outbox_duty AS delivery JOIN outbox AS entry ON id = entry_id"
                f" WHERE {_STATE[state]} ORDER BY {order} DESC, destination LIMIT :limit",
                {"limit": limit},
            ).fetchall()
        return [_entry(row) for row in rows]

    def find(self, message_id: str) -> Entry | None:
        """The entry of a message id at one of its destinations, in any state; None when there never was one."""
        with self._database.read() as conn:
            row = conn.execute(
                f"SELECT {_COLUMNS} FROM outbox AS entry JOIN outbox_duty AS delivery ON entry_id = id"
                " WHERE message_id = :message_id LIMIT 1",
                {"message_id": message_id},
            ).fetchone()
        return _entry(row) if row else None

    def counts(self) -> dict[str, int]:
        """How many entries are open, delivered and parked."""
        with self._database.read() as conn:
            # Delivered entries are counted by a trigger, because there may be millions of them.
            row = conn.execute(
                f"SELECT (SELECT count(*) FROM outbox WHERE {OPEN} AND {_EVENT}) AS open,"
                " delivered_count AS delivered,"
                f" (SELECT count(*) FROM outbox WHERE parked_at IS NOT NULL AND {_EVENT}) AS parked FROM outbox_total"
            ).fetchone()
        return dict(row)

    def oldest_open(self) -> str | None:
        """When the oldest open entry was written, UTC text; None when nothing is open."""
        with self._database.read() as conn:
            oldest: str | None = conn.execute(
                f"SELECT min(created_at) FROM outbox WHERE {OPEN} AND {_EVENT}"
            ).fetchone()[0]
        return oldest

    def parked(self, entry_id: int, destination: str | None = None) -> Entry | None:
        """An entry that is parked, there or at one of the destinations where it is; None when it is not parked."""
        with self._database.read() as conn:
            row = conn.execute(
                f"SELECT {_COLUMNS} FROM outbox_duty AS delivery JOIN outbox AS entry ON id = entry_id"
                " WHERE entry_id = :id AND delivery.parked_at IS NOT NULL"
                " AND (destination = :destination OR :destination IS NULL) LIMIT 1",
                {"id": entry_id, "destination": destination},
            ).fetchone()
        return _entry(row) if row else None

    def sent(self, destination: str, *, since: datetime) -> dict[int, int]:
        """How many bytes a destination has confirmed since then, by class. Reads every such row: for a start only."""
        # From the delivery rows, because the relay owns no data, and a budget that a restart forgot would be none.
        with self._database.read_at_length() as conn:
            rows = conn.execute(
                "SELECT key, sum(value) AS total FROM outbox_duty, json_each(sent)"
                " WHERE destination = :destination AND delivered_at >= :since GROUP BY key",
                {"destination": destination, "since": utc_text(since)},
            )
            return {int(row["key"]): int(row["total"]) for row in rows}

    def _change(self, conn: sqlite3.Connection, entry: Entry, change: str, *, which: str = OPEN, **values: str) -> bool:
        """Change an open delivery row; False, and no change, when it was closed or parked meanwhile."""
        # An operator may park or release while the relay sends, so the row's state decides, not the entry in hand.
        done = conn.execute(
            f"UPDATE outbox_duty SET {change} WHERE entry_id = :id AND destination = :destination AND {which}",
            {"id": entry.id, "destination": entry.destination, **values},
        )
        return done.rowcount == 1

    def _release(self, conn: sqlite3.Connection, entry_id: int, *, by: str, now: datetime) -> bool:
        """Make an entry due again if it is parked: an event at the destinations served now, a request where it was."""
        values = {"id": entry_id, "now": utc_text(now), "by": self._decider(conn, entry_id, by)}
        released = conn.execute(
            "UPDATE outbox SET parked_at = NULL,"
            " released_by = iif(held_at IS NULL OR released_by <> '', released_by, :by)"
            " WHERE id = :id AND parked_at IS NOT NULL",
            values,
        )
        if not released.rowcount:
            return False
        which = "entry_id = :id AND delivered_at IS NULL"
        # An event that was parked at a destination that is served no more goes to those that are: its rows are made
        # anew. Confirmed rows stay, so no destination gets it twice.
        conn.execute(f"DELETE FROM outbox_duty WHERE {which} AND {_EVENT}", values)
        conn.execute(f"UPDATE outbox_duty SET parked_at = NULL, due_at = :now WHERE {which}", values)
        self._add_delivery_rows(conn, f"id = :id AND {_EVENT}", **values)
        conn.execute(f"{_SETTLE} AND id = :id", values)
        return True

    def _decider(self, conn: sqlite3.Connection, entry_id: int, by: str) -> str:
        """The name of the person who releases an entry; '' for an entry that needs none. Raises InvalidValue."""
        row = conn.execute(
            "SELECT 1 FROM outbox WHERE id = :id AND held_at IS NOT NULL AND released_by = ''", {"id": entry_id}
        ).fetchone()
        if row is None:
            return ""
        try:
            return require_decider(by)
        except InvalidValue as error:
            raise InvalidValue(f"Entry {entry_id} is held back. {error} (--by NAME)") from None

    def _add_delivery_rows(self, conn: sqlite3.Connection, which: str, **values: object) -> None:
        """Add the missing delivery rows of some entries at some of the destinations served."""
        conn.execute(
            "INSERT INTO outbox_duty (entry_id, destination, subject, priority, due_at)"
            f" SELECT id, name, subject, priority, :now FROM outbox, outbox_destination AS destination WHERE {which}"
            " ON CONFLICT (entry_id, destination) DO NOTHING",
            values,
        )


def _of_event(event: EventParameters, message_id: str = "") -> NewEntry:
    parameters = event.model_dump(mode="json")
    return NewEntry(message_id or event.message_id, event.message_type, event.subject, event.priority, parameters)


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(**{**dict(row), "parameters": json.loads(row["parameters"])})
