"""Performed steps as rows: the SQL of the tables steps, performed_items and performed_instances.

Every function works inside its caller's transaction. Not for: the rules of a step (`worklist.mpps`), transactions
(`worklist.store`).
"""

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime

from gateway.dataset.dicom_json import items, text
from gateway.sqlite import utc_text
from worklist.mpps import Step
from worklist.mpps_table import REFERENCES, SERIES

_STEP = "mpps_instance_uid, status, data_set, created_from, closed_by, closed_because, told_as"


@dataclass(frozen=True, slots=True)
class Performed:
    """The instances that all steps of an item report, each once, in the order of their UIDs.

    `is_over` means that there is a step and none is in progress, so that no more instances are announced.
    `discontinued_because` has the reason of each discontinued step, '' where none was given.
    """

    steps: int
    is_over: bool
    images: tuple[str, ...]
    others: tuple[str, ...]
    discontinued_because: tuple[str, ...] = ()


def find_step(conn: sqlite3.Connection, mpps_instance_uid: str) -> Step | None:
    """The step with this UID."""
    row = conn.execute(
        f"SELECT {_STEP} FROM steps WHERE mpps_instance_uid = :mpps_instance_uid",
        {"mpps_instance_uid": mpps_instance_uid},
    ).fetchone()
    return _read_step(row) if row else None


def steps_of(conn: sqlite3.Connection, accession_number: str) -> list[Step]:
    """All steps that performed an item, in the order they began."""
    return _steps(conn, "1", accession_number)


def open_steps(conn: sqlite3.Connection) -> list[tuple[Step, str]]:
    """All steps in progress with the time (UTC text) they were announced, the oldest first."""
    rows = conn.execute(f"SELECT {_STEP}, created_at FROM steps WHERE status = 'IN PROGRESS' ORDER BY created_at")
    return [(_read_step(row), row["created_at"]) for row in rows]


def began_last(conn: sqlite3.Connection) -> str:
    """When the newest step was announced (UTC text); '' when there is none."""
    row = conn.execute("SELECT created_at FROM steps ORDER BY rowid DESC LIMIT 1").fetchone()
    return str(row["created_at"]) if row else ""


def performed(conn: sqlite3.Connection, accession_number: str) -> Performed:
    """The instances that the steps of an item report."""
    key = {"accession_number": accession_number}
    steps, in_progress = conn.execute(
        "SELECT count(*), total(status = 'IN PROGRESS') FROM performed_items JOIN steps USING (mpps_instance_uid)"
        " WHERE accession_number = :accession_number",
        key,
    ).fetchone()
    made = conn.execute(
        "SELECT sop_instance_uid, max(is_image) FROM performed_items JOIN performed_instances USING (mpps_instance_uid)"
        " WHERE accession_number = :accession_number GROUP BY sop_instance_uid ORDER BY sop_instance_uid",
        key,
    ).fetchall()
    return Performed(
        steps=steps,
        is_over=steps > 0 and not in_progress,
        images=tuple(uid for uid, is_image in made if is_image),
        others=tuple(uid for uid, is_image in made if not is_image),
        discontinued_because=tuple(step.discontinuation_reason for step in _discontinued(conn, accession_number)),
    )


def performed_numbers(conn: sqlite3.Connection, step: Step) -> list[str]:
    """The accession numbers that a step performs, of items or of none."""
    rows = conn.execute(
        "SELECT accession_number FROM performed_items WHERE mpps_instance_uid = :mpps_instance_uid",
        {"mpps_instance_uid": step.mpps_instance_uid},
    )
    return [str(row["accession_number"]) for row in rows]


def save_step(conn: sqlite3.Connection, step: Step, *, now: datetime) -> None:
    """Store a step as it is now, with the instances it reports."""
    conn.execute(
        f"INSERT INTO steps ({_STEP}, created_at, updated_at)"
        " VALUES (:mpps_instance_uid, :status, :data_set, :created_from, :closed_by, :closed_because, :told_as,"
        " :now, :now)"
        " ON CONFLICT (mpps_instance_uid) DO UPDATE SET status = excluded.status, data_set = excluded.data_set,"
        " closed_by = excluded.closed_by, closed_because = excluded.closed_because, updated_at = excluded.updated_at",
        {
            "mpps_instance_uid": step.mpps_instance_uid,
            "status": step.status,
            "data_set": json.dumps(step.data_set, ensure_ascii=False, separators=(",", ":")),
            "created_from": step.created_from,
            "closed_by": step.closed_by,
            "closed_because": step.closed_because,
            "told_as": step.told_as,
            "now": utc_text(now),
        },
    )
    # Instances are rows, too, because completeness is computed for a whole day's items and must not parse every step.
    # All are replaced, because N-SET replaces whole sequences (PS3.4 F.7.2.2).
    key = {"mpps_instance_uid": step.mpps_instance_uid}
    conn.execute("DELETE FROM performed_instances WHERE mpps_instance_uid = :mpps_instance_uid", key)
    conn.executemany(
        "INSERT INTO performed_instances"
        " VALUES (:mpps_instance_uid, :sop_instance_uid, :series_instance_uid, :sop_class_uid, :is_image)"
        " ON CONFLICT DO NOTHING",
        [
            {
                **key,
                "sop_instance_uid": text(reference, "ReferencedSOPInstanceUID"),
                "series_instance_uid": text(series, "SeriesInstanceUID"),
                "sop_class_uid": text(reference, "ReferencedSOPClassUID"),
                "is_image": keyword == REFERENCES[0],
            }
            for series in items(step.data_set, SERIES)
            for keyword in REFERENCES
            for reference in items(series, keyword)
        ],
    )


def told_as(conn: sqlite3.Connection, step: Step) -> str:
    """The accession number in the events of a new step: that of its item by the rule of `link`, else the step's own."""
    found: str = conn.execute(
        "SELECT coalesce("
        " (SELECT accession_number FROM items WHERE accession_number = :accession_number),"
        " (SELECT min(accession_number) FROM items WHERE study_instance_uid = :study_instance_uid),"
        " :accession_number)",
        step.scheduled[0]._asdict(),
    ).fetchone()[0]
    return found


def link(conn: sqlite3.Connection, step: Step) -> None:
    """Record which items a new step performs: by accession number, or by study when no item has that number."""
    # By study as well, because the study was fixed here while operators type over accession numbers. A number without
    # an item is recorded, too, because its item may be scheduled later.
    for scheduled in step.scheduled:
        conn.execute(
            "INSERT INTO performed_items (mpps_instance_uid, accession_number)"
            " SELECT :mpps_instance_uid, accession_number FROM items WHERE accession_number = :accession_number"
            " UNION SELECT :mpps_instance_uid, accession_number FROM items"
            " WHERE study_instance_uid = :study_instance_uid"
            " AND NOT EXISTS (SELECT 1 FROM items WHERE accession_number = :accession_number)"
            " UNION SELECT :mpps_instance_uid, :accession_number WHERE :accession_number <> ''"
            " ON CONFLICT DO NOTHING",
            {"mpps_instance_uid": step.mpps_instance_uid, **scheduled._asdict()},
        )


def _discontinued(conn: sqlite3.Connection, accession_number: str) -> list[Step]:
    return _steps(conn, "status = 'DISCONTINUED'", accession_number)


def _steps(conn: sqlite3.Connection, which: str, accession_number: str) -> list[Step]:
    columns = ", ".join(f"steps.{name}" for name in _STEP.split(", "))
    rows = conn.execute(
        f"SELECT {columns} FROM performed_items JOIN steps USING (mpps_instance_uid)"
        f" WHERE accession_number = :accession_number AND {which} ORDER BY steps.rowid",
        {"accession_number": accession_number},
    )
    return [_read_step(row) for row in rows]


def _read_step(row: sqlite3.Row) -> Step:
    return Step(**{name: json.loads(row[name]) if name == "data_set" else row[name] for name in _STEP.split(", ")})
