"""The statements that remove a part of a study from pacs.db and order the removal of its files.

Not for: the rules (`retention`), whole studies at night (`maintenance_rows`), files (`retention.remove_ordered`).
"""

import sqlite3
from datetime import datetime

from gateway.errors import NotFound
from gateway.outbox.changed_exams import mark_changed
from gateway.sqlite import utc_text

_CHOSEN = (
    "SELECT instance.id FROM instance JOIN series ON series.id = series_id WHERE study_id = :study"
    " AND (:series = '' OR series_instance_uid = :series) AND (:instance = '' OR sop_instance_uid = :instance)"
)


def order(
    conn: sqlite3.Connection, study_id: int, series_instance_uid: str, sop_instance_uid: str, *, now: datetime
) -> int:
    """Remove the instances of a study that the UIDs choose ('' is any) from the index, in the caller's transaction.

    Counts and sums follow, and empty series and studies go. Returns how many instances. Raises NotFound for none.
    """
    values = {
        "study": study_id,
        "series": series_instance_uid,
        "instance": sop_instance_uid,
        "now": utc_text(now),
    }
    count, size = conn.execute(
        f"SELECT count(*), coalesce(sum(size_bytes), 0) FROM instance WHERE id IN ({_CHOSEN})", values
    ).fetchone()
    if count == 0:
        raise NotFound("This study has no such series or instance.")
    conn.execute(
        f"INSERT INTO removal SELECT sop_instance_uid, :now FROM instance WHERE id IN ({_CHOSEN})"
        " ON CONFLICT DO NOTHING",
        values,
    )
    conn.execute(f"DELETE FROM instance WHERE id IN ({_CHOSEN})", values)
    # The quality of the exam may change with its instances, so it has to be judged again.
    [uid] = conn.execute("SELECT study_instance_uid FROM study WHERE id = :study", values).fetchone()
    mark_changed(conn, study_instance_uid=uid, at=utc_text(now))
    gone = {"study": study_id, "count": count, "size": size, "series": _without_empty_series(conn, study_id)}
    conn.execute(
        "UPDATE study SET series_count = series_count - :series, instance_count = instance_count - :count,"
        " byte_count = byte_count - :size WHERE id = :study",
        gone,
    )
    gone["studies"] = conn.execute("DELETE FROM study WHERE id = :study AND instance_count = 0", gone).rowcount
    conn.execute(
        "UPDATE total SET study_count = study_count - :studies, series_count = series_count - :series,"
        " instance_count = instance_count - :count, byte_count = byte_count - :size",
        gone,
    )
    return int(count)


def _without_empty_series(conn: sqlite3.Connection, study_id: int) -> int:
    values = {"study": study_id}
    conn.execute(
        "UPDATE series SET instance_count = (SELECT count(*) FROM instance WHERE series_id = series.id)"
        " WHERE study_id = :study",
        values,
    )
    return conn.execute("DELETE FROM series WHERE study_id = :study AND instance_count = 0", values).rowcount
