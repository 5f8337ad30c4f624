"""`Worklist`: everything this room knows, and all SQL about it. What is acknowledged is on disk.

A performed step, the move of its items and the event to the cloud are one transaction; so are an item and the action
that asked for it. Not here: what may happen to an item (`items`) or a step (`mpps`), what a query means
(`gateway.matching`), who asks.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, Self

from pydicom.dataset import Dataset

from gateway import matching, outbox
from gateway.errors import Conflict, NotFound
from gateway.matching import Key, Kind
from gateway.outbox import Outbox
from gateway.sqlite import Database, utc_text
from worklist import attributes, mpps
from worklist.items import Item, State, new_study, performed_state
from worklist.mpps import Step

SHOWN: tuple[State, ...] = ("scheduled", "in_progress")
"""States of the items a modality is answered, unless set otherwise."""

_SPS = "ScheduledProcedureStepSequence"
_STATION = f"{_SPS}.ScheduledStationAETitle"

# An item for any station is for the one that asks.
_FOR_STATION = (
    "EXISTS (SELECT 1 FROM json_each(iif(station_ae_titles = '[]', json_array(:station), station_ae_titles)) AS station"
    " WHERE {})"
)

KEYS = (
    Key("PatientName", Kind.NAME, "patient_name"),
    Key("PatientID", Kind.TEXT, "participant_id"),
    Key("PatientBirthDate", Kind.DATE, "birth_date"),
    Key("PatientSex", Kind.TEXT, "sex"),
    Key("AccessionNumber", Kind.TEXT, "accession_number"),
    Key("RequestedProcedureID", Kind.TEXT, "requested_procedure_id"),
    Key("StudyInstanceUID", Kind.UID, "study_instance_uid"),
    Key(_STATION, Kind.TEXT, "station.value", within=_FOR_STATION),
    Key(f"{_SPS}.ScheduledProcedureStepStartDate", Kind.DATE, "date"),
    Key(
        f"{_SPS}.ScheduledProcedureStepStartTime",
        Kind.TIME,
        "time",
        of_date=f"{_SPS}.ScheduledProcedureStepStartDate",
    ),
    Key(f"{_SPS}.Modality", Kind.TEXT, "modality"),
    Key(f"{_SPS}.ScheduledPerformingPhysicianName", Kind.NAME, "physician_name"),
    Key(f"{_SPS}.ScheduledProcedureStepID", Kind.TEXT, "sps_id"),
)
"""What can be matched: the required keys of PS3.4 Table K.6-1, and those a modality's operator types in."""

PAGE = 200
"""Answers that are fetched at once: a day's list, and half a megabyte."""

FIND = (
    "SELECT data_set, date, time, accession_number FROM items"
    " WHERE state IN (SELECT value FROM json_each(:shown)) AND {}"
    " AND (date, time, accession_number) > (:date, :time, :accession_number)"
    " ORDER BY date, time, accession_number LIMIT :most"
)
"""A page of what a query finds; the braces are for its conditions."""

_ITEM = "data_set, state, action_id, appointment_id, revision, created_at, updated_at"
_STEP = "mpps_instance_uid, status, data_set, created_from"


class Found(NamedTuple):
    """An item that is answered: its data set in DICOM JSON, and for whom it is if it is for any station."""

    data_set: str
    station: str


class Worklist:
    """The worklist's database. `open` it as its owner, `attach` to it as somebody else, `close` it."""

    def __init__(self, database: Database, *, shown: tuple[str, ...] = SHOWN) -> None:
        self.database = database
        self.outbox = Outbox(database)
        self.shown = shown

    @classmethod
    def open(cls, path: Path, *, shown: tuple[str, ...] = SHOWN) -> Self:
        """Open as the owner: create the file or bring it to the newest schema."""
        database = _database(path)
        database.migrate()
        return cls(database, shown=shown)

    @classmethod
    def attach(cls, path: Path) -> Self:
        """Open beside the owner. Raises DatabaseNotReady while the file is not at the schema this program needs."""
        database = _database(path)
        database.check()
        return cls(database)

    def close(self) -> None:
        """Close the database; no call may be under way."""
        self.database.close()

    # --- items

    def schedule(self, item: Item, *, action_id: str, content_hash: str, now: datetime) -> Item:
        """Put an item on the worklist and fix its study. Once per action: a repeat gives the stored item.

        The same accession number again, under another action, is the same item if nothing differs; a cancelled item of
        the same participant is scheduled anew. Raises Conflict when the action id was used for another content, or the
        accession number for another item: nothing that is on the worklist is ever replaced.
        """
        with self.database.write() as conn:
            done = conn.execute(
                "SELECT content_hash, accession_number FROM actions WHERE action_id = :action_id",
                {"action_id": action_id},
            ).fetchone()
            if done is None:
                return self._schedule(conn, item, action_id=action_id, content_hash=content_hash, now=now)
            if done["content_hash"] != content_hash:
                raise Conflict(f"Action {action_id} was carried out before, with another content.")
            return _item(conn, done["accession_number"])

    def reschedule(self, accession_number: str, *, date: str, time: str, now: datetime) -> Item:
        """Give an open item another date (YYYYMMDD) and time (HHMMSS), wall time of the site.

        Raises NotFound, InvalidValue, or Conflict when the item is no longer open.
        """
        with self.database.write() as conn:
            item = _item(conn, accession_number)
            return _update(conn, item, item.rescheduled(date=date, time=time), now=now)

    def change_status(self, accession_number: str, status: State, *, now: datetime) -> Item:
        """Move an item as the cloud or an operator says. Raises NotFound, or Conflict when `items.MOVES` forbids it."""
        with self.database.write() as conn:
            item = _item(conn, accession_number)
            return _update(conn, item, item.moved(status), now=now)

    def cancel(self, accession_number: str, *, now: datetime) -> Item:
        """Take an item off the worklist. Raises NotFound, or Conflict when it has begun."""
        return self.change_status(accession_number, "cancelled", now=now)

    def item(self, accession_number: str) -> Item:
        """One item. Raises NotFound."""
        with self.database.read() as conn:
            return _item(conn, accession_number)

    def items(self, *, date: str | None = None, state: State | None = None) -> list[Item]:
        """All items in clinic order, of one day (YYYYMMDD) or in one state if asked."""
        wanted = {"date": date, "state": state}
        expression = " AND ".join(f"{name} = :{name}" for name, value in wanted.items() if value is not None) or "1"
        with self.database.read() as conn:
            rows = conn.execute(
                f"SELECT {_ITEM} FROM items WHERE {expression} ORDER BY date, time, accession_number", wanted
            ).fetchall()
        return [_read_item(row) for row in rows]

    def find(self, values: Mapping[str, str], *, calling_ae_title: str) -> Iterator[Found]:
        """Find the shown items that a modality's query asks for (`Identifier.values`), in clinic order.

        They are read a page at a time, so that a peer that is slow, or takes thousands of answers, holds up nobody and
        takes no memory; each page is one state of the worklist. Raises InvalidQuery before the first is given.
        """
        station = _station(values, calling_ae_title)
        expression, parameters = matching.where(matching.conditions_on(values, KEYS))
        return self._found(expression, {"shown": json.dumps(self.shown), "station": station, **parameters})

    def _found(self, expression: str, parameters: dict[str, str]) -> Iterator[Found]:
        behind = {"date": "", "time": "", "accession_number": ""}
        while True:
            with self.database.read() as conn:
                rows = conn.execute(FIND.format(expression), {**parameters, **behind, "most": PAGE}).fetchall()
            for row in rows:
                yield Found(row["data_set"], parameters["station"])
            if len(rows) < PAGE:
                return
            behind = {name: rows[-1][name] for name in behind}

    # --- performed steps

    def begin(self, mpps_instance_uid: str, data_set: Dataset, *, now: datetime) -> None:
        """Keep a step that a modality has begun (N-CREATE). Raises the Refusals of `mpps.begin`."""
        given = attributes.from_data_set(data_set)
        with self.database.write() as conn:
            stored = _find_step(conn, mpps_instance_uid)
            self._keep(conn, stored, mpps.begin(stored, mpps_instance_uid, given), now=now)

    def change(self, mpps_instance_uid: str, data_set: Dataset, *, now: datetime) -> None:
        """Keep what a modality says about its step now (N-SET). Raises the Refusals of `mpps.change`."""
        given = attributes.from_data_set(data_set)
        with self.database.write() as conn:
            stored = _find_step(conn, mpps_instance_uid)
            self._keep(conn, stored, mpps.change(stored, given), now=now)

    def step(self, mpps_instance_uid: str) -> Dataset:
        """The step as its modality described it (N-GET). Raises NotFound."""
        with self.database.read() as conn:
            step = _find_step(conn, mpps_instance_uid)
        if step is None:
            raise NotFound("No performed procedure step has this UID.")
        return attributes.to_data_set(step.data_set)

    def steps(self, accession_number: str) -> list[Step]:
        """All steps that performed an item, in the order they began."""
        with self.database.read() as conn:
            return _steps_of(conn, accession_number)

    # --- inside a transaction

    def _schedule(
        self, conn: sqlite3.Connection, item: Item, *, action_id: str, content_hash: str, now: datetime
    ) -> Item:
        stored = _find_item(conn, item.accession_number)
        if stored is None:
            item = replace(item.with_study(new_study(action_id, item.accession_number)), action_id=action_id)
            item = replace(item, state=_performed_state(conn, item), revision=1, created_at=utc_text(now))
            scheduled = _save(conn, item, now=now)
        else:
            scheduled = _schedule_again(conn, stored, replace(item, action_id=action_id), now=now)
        conn.execute(
            "INSERT INTO actions (action_id, content_hash, accession_number, done_at)"
            " VALUES (:action_id, :content_hash, :accession_number, :now)",
            {
                "action_id": action_id,
                "content_hash": content_hash,
                "accession_number": scheduled.accession_number,
                "now": utc_text(now),
            },
        )
        return scheduled

    def _keep(self, conn: sqlite3.Connection, stored: Step | None, step: Step, *, now: datetime) -> None:
        if step is stored:
            return
        _save_step(conn, step, now=now)
        if stored is None:
            _link(conn, step)
        if stored is None or step.status != stored.status:
            performed = _items_of(conn, step.mpps_instance_uid)
            for item in performed:
                _update(conn, item, replace(item, state=_performed_state(conn, item)), now=now)
            self._tell(conn, step, performed, now=now)

    def _tell(self, conn: sqlite3.Connection, step: Step, performed: list[Item], *, now: datetime) -> None:
        claimed = step.scheduled[0]  # Type 1: there is one
        found = next((item.accession_number for item in performed), "")
        event = mpps.event(
            step,
            accession_number=claimed.accession_number or found,
            study_instance_uid=claimed.study_instance_uid,
        )
        self.outbox.put(
            conn,
            message_id=event.message_id,
            message_type=event.message_type,
            subject=event.subject,
            priority=event.priority,
            parameters=event.model_dump(mode="json"),
            now=now,
        )


def _database(path: Path) -> Database:
    return Database(path, outbox.SCHEMA, files("worklist") / "schema")


# --- items in SQL


def _find_item(conn: sqlite3.Connection, accession_number: str) -> Item | None:
    row = conn.execute(
        f"SELECT {_ITEM} FROM items WHERE accession_number = :accession_number", {"accession_number": accession_number}
    ).fetchone()
    return _read_item(row) if row else None


def _item(conn: sqlite3.Connection, accession_number: str) -> Item:
    item = _find_item(conn, accession_number)
    if item is None:
        raise NotFound(f"No worklist item has the accession number {accession_number}.")
    return item


def _read_item(row: sqlite3.Row) -> Item:
    return Item(**{**dict(row), "data_set": json.loads(row["data_set"])})


def _schedule_again(conn: sqlite3.Connection, stored: Item, item: Item, *, now: datetime) -> Item:
    """Schedule under an accession number that is known."""
    item = item.with_study(stored.study_instance_uid)
    if item.data_set == stored.data_set and stored.state != "cancelled":
        return stored
    if stored.state != "cancelled" or item.participant_id != stored.participant_id:
        raise Conflict(
            f"Accession number {item.accession_number} is on the worklist with other content; "
            "reschedule or cancel that item, or use another accession number."
        )
    return _update(conn, stored, replace(item, created_at=stored.created_at), now=now)


def _update(conn: sqlite3.Connection, stored: Item, item: Item, *, now: datetime) -> Item:
    """Save an item that is known under its next revision, if it has changed."""
    if item == stored:
        return stored
    return _save(conn, replace(item, revision=stored.revision + 1), now=now)


def _save(conn: sqlite3.Connection, item: Item, *, now: datetime) -> Item:
    item = replace(item, updated_at=utc_text(now))
    columns = _columns(item)
    names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "accession_number")
    conn.execute(
        f"INSERT INTO items ({names}) VALUES ({values}) ON CONFLICT (accession_number) DO UPDATE SET {changes}", columns
    )
    return item


def _columns(item: Item) -> dict[str, str | int]:
    return {
        "accession_number": item.accession_number,
        "participant_id": matching.column_value(Kind.TEXT, item.participant_id),
        "patient_name": matching.column_value(Kind.NAME, item.patient_name),
        "birth_date": matching.column_value(Kind.DATE, item.birth_date),
        "sex": matching.column_value(Kind.TEXT, item.sex),
        "date": matching.column_value(Kind.DATE, item.date),
        "time": matching.column_value(Kind.TIME, item.time),
        "modality": matching.column_value(Kind.TEXT, item.modality),
        "station_ae_titles": json.dumps([matching.column_value(Kind.TEXT, title) for title in item.station_ae_titles]),
        "physician_name": matching.column_value(Kind.NAME, item.performing_physician_name),
        "sps_id": matching.column_value(Kind.TEXT, item.sps_id),
        "requested_procedure_id": matching.column_value(Kind.TEXT, item.requested_procedure_id),
        "study_instance_uid": matching.column_value(Kind.UID, item.study_instance_uid),
        "state": item.state,
        "data_set": json.dumps(item.data_set, ensure_ascii=False, separators=(",", ":")),
        "action_id": item.action_id,
        "appointment_id": item.appointment_id,
        "revision": item.revision,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }


def _station(values: Mapping[str, str], calling_ae_title: str) -> str:
    """For whom an item for any station is: the one title that is asked for, or else who asks."""
    keys = [key for key in KEYS if key.path == _STATION]
    match matching.conditions_on(values, keys):
        case [matching.AnyOf(values=(station,))]:
            return station
    return calling_ae_title


# --- steps in SQL


def _find_step(conn: sqlite3.Connection, mpps_instance_uid: str) -> Step | None:
    row = conn.execute(
        f"SELECT {_STEP} FROM steps WHERE mpps_instance_uid = :mpps_instance_uid",
        {"mpps_instance_uid": mpps_instance_uid},
    ).fetchone()
    return _read_step(row) if row else None


def _read_step(row: sqlite3.Row) -> Step:
    return Step(**{**dict(row), "data_set": json.loads(row["data_set"])})


def _save_step(conn: sqlite3.Connection, step: Step, *, now: datetime) -> None:
    conn.execute(
        "INSERT INTO steps (mpps_instance_uid, status, data_set, created_from, created_at, updated_at)"
        " VALUES (:mpps_instance_uid, :status, :data_set, :created_from, :now, :now)"
        " ON CONFLICT (mpps_instance_uid) DO UPDATE"
        " SET status = excluded.status, data_set = excluded.data_set, updated_at = excluded.updated_at",
        {
            "mpps_instance_uid": step.mpps_instance_uid,
            "status": step.status,
            "data_set": json.dumps(step.data_set, ensure_ascii=False, separators=(",", ":")),
            "created_from": step.created_from,
            "now": utc_text(now),
        },
    )


def _link(conn: sqlite3.Connection, step: Step) -> None:
    """Note which items a new step performs; what it names and nobody scheduled is noted as well, by its number."""
    for scheduled in step.scheduled:
        conn.execute(
            "INSERT INTO performed_items (mpps_instance_uid, accession_number)"
            " SELECT :mpps_instance_uid, accession_number FROM items WHERE accession_number = :accession_number"
            " UNION SELECT :mpps_instance_uid, accession_number FROM items"
            " WHERE study_instance_uid = :study_instance_uid AND :accession_number = ''"
            " UNION SELECT :mpps_instance_uid, :accession_number WHERE :accession_number <> ''"
            " ON CONFLICT DO NOTHING",
            {"mpps_instance_uid": step.mpps_instance_uid, **scheduled._asdict()},
        )


def _items_of(conn: sqlite3.Connection, mpps_instance_uid: str) -> list[Item]:
    columns = ", ".join(f"items.{name}" for name in _ITEM.split(", "))
    rows = conn.execute(
        f"SELECT {columns} FROM performed_items JOIN items USING (accession_number)"
        " WHERE mpps_instance_uid = :mpps_instance_uid ORDER BY accession_number",
        {"mpps_instance_uid": mpps_instance_uid},
    )
    return [_read_item(row) for row in rows]


def _steps_of(conn: sqlite3.Connection, accession_number: str) -> list[Step]:
    columns = ", ".join(f"steps.{name}" for name in _STEP.split(", "))
    rows = conn.execute(
        f"SELECT {columns} FROM performed_items JOIN steps USING (mpps_instance_uid)"
        " WHERE accession_number = :accession_number ORDER BY steps.rowid",
        {"accession_number": accession_number},
    )
    return [_read_step(row) for row in rows]


def _performed_state(conn: sqlite3.Connection, item: Item) -> State:
    statuses = {step.status for step in _steps_of(conn, item.accession_number)}
    return performed_state(statuses, otherwise=item.state)
