"""Items as rows: the SQL of the tables items and actions, and the columns of the matching keys.

Every function works inside its caller's transaction. Not for: the rules of an item (`worklist.items`), transactions
(`worklist.store`), expiry (`worklist.expiry_rows`).
"""

import json
import sqlite3
from collections.abc import Mapping
from datetime import datetime

from gateway.errors import Conflict, NotFound
from gateway.query.conditions import Key, Kind
from gateway.query.matching import column_value
from gateway.sqlite import utc_text
from worklist.items import ActionOrigin, Item, ItemState

_SPS = "ScheduledProcedureStepSequence"
STATION = f"{_SPS}.ScheduledStationAETitle"

# An item that names no station matches as if it named the station of the query, or else the calling AE title.
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
    Key(STATION, Kind.TEXT, "station.value", within=_FOR_STATION),
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
"""The matching keys: those PS3.4 Table K.6-1 requires, and others that a modality's operator may type."""

PAGE = 200
"""Items read at once: a day's list, and half a megabyte."""

# A page begins after the last item of the page before. The first begins at the first day of the conditions, because
# SQLite uses that bound for the index; without it every query would read the items of all years.
FIND = (
    "SELECT data_set, date, time, accession_number FROM items WHERE {}"
    " AND (date, time, accession_number) > (:date, :time, :accession_number)"
    " ORDER BY date, time, accession_number LIMIT :most"
)
"""One page of the matches of a query; the braces are for its conditions."""

_ITEM = "data_set, state, action_id, appointment_id, revision, asked_at, created_at, updated_at"


def page(conn: sqlite3.Connection, expression: str, parameters: Mapping[str, str]) -> list[sqlite3.Row]:
    """The next PAGE of the matches of a query; `parameters` are those of `expression` and of FIND."""
    return conn.execute(FIND.format(expression), {**parameters, "most": PAGE}).fetchall()


def whole_rows(conn: sqlite3.Connection) -> list[sqlite3.Row]:
    """Every item with all its columns, in clinic order."""
    return conn.execute("SELECT * FROM items ORDER BY date, time, accession_number").fetchall()


def rows(conn: sqlite3.Connection, *, date: str | None, state: ItemState | None) -> list[sqlite3.Row]:
    """The rows of all items in clinic order, or only of one day (YYYYMMDD), or in one state."""
    wanted = {"date": date, "state": state}
    expression = " AND ".join(f"{name} = :{name}" for name, value in wanted.items() if value is not None) or "1"
    return conn.execute(
        f"SELECT {_ITEM} FROM items WHERE {expression} ORDER BY date, time, accession_number", wanted
    ).fetchall()


def find_item(conn: sqlite3.Connection, accession_number: str) -> Item | None:
    """The item with this accession number."""
    row = conn.execute(
        f"SELECT {_ITEM} FROM items WHERE accession_number = :accession_number", {"accession_number": accession_number}
    ).fetchone()
    return read_item(row) if row else None


def expect_item(conn: sqlite3.Connection, accession_number: str) -> Item:
    """The same. Raises NotFound."""
    item = find_item(conn, accession_number)
    if item is None:
        raise NotFound(f"No worklist item has the accession number {accession_number}.")
    return item


def items_with(conn: sqlite3.Connection, study_instance_uid: str, accession_number: str) -> list[Item]:
    """The items that have this study or this accession number, in the order of their numbers."""
    rows = conn.execute(
        f"SELECT {_ITEM} FROM items WHERE study_instance_uid = :study_instance_uid"
        " OR accession_number = :accession_number ORDER BY accession_number",
        {"study_instance_uid": study_instance_uid, "accession_number": accession_number},
    )
    return [read_item(row) for row in rows]


def items_of(conn: sqlite3.Connection, mpps_instance_uid: str) -> list[Item]:
    """The items that a step performs."""
    columns = ", ".join(f"items.{name}" for name in _ITEM.split(", "))
    found = conn.execute(
        f"SELECT {columns} FROM performed_items JOIN items USING (accession_number)"
        " WHERE mpps_instance_uid = :mpps_instance_uid ORDER BY accession_number",
        {"mpps_instance_uid": mpps_instance_uid},
    )
    return [read_item(row) for row in found]


def read_item(row: sqlite3.Row) -> Item:
    """The item of a row that has the columns of an item, and perhaps others."""
    known = {name: row[name] for name in _ITEM.split(", ")}
    return Item(**{**known, "data_set": json.loads(row["data_set"])})


def done(conn: sqlite3.Connection, origin: ActionOrigin) -> Item | None:
    """The item of an action that was carried out, else None. Raises Conflict when its content was another."""
    row = conn.execute(
        "SELECT content_hash, accession_number FROM actions WHERE action_id = :action_id",
        {"action_id": origin.action_id},
    ).fetchone()
    if row is None:
        return None
    if row["content_hash"] != origin.content_hash:
        raise Conflict(f"Action {origin.action_id} was carried out before, with another content.")
    return expect_item(conn, row["accession_number"])


def note_action(conn: sqlite3.Connection, origin: ActionOrigin, item: Item, *, now: datetime) -> None:
    """Record that an action was carried out, and for which item."""
    conn.execute(
        "INSERT INTO actions (action_id, content_hash, accession_number, done_at)"
        " VALUES (:action_id, :content_hash, :accession_number, :now)",
        {
            "action_id": origin.action_id,
            "content_hash": origin.content_hash,
            "accession_number": item.accession_number,
            "now": utc_text(now),
        },
    )


def anothers_with_study(conn: sqlite3.Connection, item: Item) -> str | None:
    """The accession number of another participant's item in the same study; None when there is none."""
    taken = conn.execute(
        "SELECT accession_number FROM items WHERE study_instance_uid = :study_instance_uid"
        " AND participant_id <> :participant_id AND accession_number <> :accession_number",
        {
            "study_instance_uid": item.study_instance_uid,
            "participant_id": column_value(Kind.TEXT, item.participant_id),
            "accession_number": item.accession_number,
        },
    ).fetchone()
    return taken[0] if taken else None


def save_item(conn: sqlite3.Connection, item: Item) -> None:
    """Keep an item as it is now."""
    columns = _columns(item)
    names, values = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != "accession_number")
    conn.execute(
        f"INSERT INTO items ({names}) VALUES ({values}) ON CONFLICT (accession_number) DO UPDATE SET {changes}", columns
    )


def _columns(item: Item) -> dict[str, str | int]:
    # The columns are normalised once, on writing, because a query is compared with every row and a row is written once.
    return {
        "accession_number": item.accession_number,
        "participant_id": column_value(Kind.TEXT, item.participant_id),
        "patient_name": column_value(Kind.NAME, item.patient_name),
        "birth_date": column_value(Kind.DATE, item.birth_date),
        "sex": column_value(Kind.TEXT, item.sex),
        "date": column_value(Kind.DATE, item.date),
        "time": column_value(Kind.TIME, item.time),
        "modality": column_value(Kind.TEXT, item.modality),
        "station_ae_titles": json.dumps([column_value(Kind.TEXT, title) for title in item.station_ae_titles]),
        "physician_name": column_value(Kind.NAME, item.performing_physician_name),
        "sps_id": column_value(Kind.TEXT, item.sps_id),
        "requested_procedure_id": column_value(Kind.TEXT, item.requested_procedure_id),
        "study_instance_uid": column_value(Kind.UID, item.study_instance_uid),
        "state": item.state,
        "data_set": json.dumps(item.data_set, ensure_ascii=False, separators=(",", ":")),
        "action_id": item.action_id,
        "appointment_id": item.appointment_id,
        "revision": item.revision,
        "asked_at": item.asked_at,
        "created_at": item.created_at,
        "updated_at": item.updated_at,
    }
