"""Exams that changed and have not been judged since: one row for each, beside the data of its owner.

* A change of an exam marks it in the same transaction, so no change is without a mark.
* A row is read before the exam is judged, and deleted only if it is unchanged; else the exam is judged again.

A row names a study, an accession number or both; an unknown one is ''. Not here: the exam itself
(`relay.exams.exam`), when it is judged (`relay.exams.quality`).
"""

import sqlite3
from dataclasses import dataclass

from gateway.sqlite import Transactions

_COLUMNS = "study_instance_uid, accession_number, first_at, last_at, times"

_THIS = "study_instance_uid = :study_instance_uid AND accession_number = :accession_number"


@dataclass(frozen=True, slots=True)
class ChangedExam:
    """An exam that changed so many times, first and last when (UTC text)."""

    study_instance_uid: str
    accession_number: str
    first_at: str
    last_at: str
    times: int


def mark_changed(
    conn: sqlite3.Connection, *, study_instance_uid: str = "", accession_number: str = "", at: str
) -> None:
    """Mark an exam as changed (`at` is UTC text), in the transaction of its change."""
    # A row instead of a message between processes: it costs 4 µs in a commit that is made anyway, and a relay that was
    # away for a week finds every exam that changed. Further changes of an exam are counted in its one row.
    conn.execute(
        f"INSERT INTO touched ({_COLUMNS}) VALUES (:study_instance_uid, :accession_number, :at, :at, 1)"
        " ON CONFLICT (study_instance_uid, accession_number) DO UPDATE SET last_at = :at, times = times + 1",
        {"study_instance_uid": study_instance_uid, "accession_number": accession_number, "at": at},
    )


def settle(conn: sqlite3.Connection, changed: ChangedExam) -> None:
    """Delete a row, unless its exam changed again since it was read."""
    # `times` alone would not do: a row that was deleted and made anew may have the same count.
    conn.execute(
        f"DELETE FROM touched WHERE {_THIS} AND first_at = :first_at AND times = :times",
        {
            "study_instance_uid": changed.study_instance_uid,
            "accession_number": changed.accession_number,
            "first_at": changed.first_at,
            "times": changed.times,
        },
    )


class ChangedExams:
    """The changed exams of one database."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def waiting(self, *, limit: int) -> list[ChangedExam]:
        """Those that have not been judged since, the longest waiting first."""
        with self._database.read() as conn:
            rows = conn.execute(f"SELECT {_COLUMNS} FROM touched ORDER BY first_at LIMIT :limit", {"limit": limit})
            return [ChangedExam(**dict(row)) for row in rows]

    def take_over(self, changed: list[ChangedExam], owner: "ChangedExams") -> None:
        """Move another owner's rows into this database; a kill in between leaves a row in both, and loses none."""
        # Mark, event and memory of the last event change in one transaction, and there is none over two databases.
        with self._database.write() as conn:
            for each in changed:
                mark_changed(
                    conn,
                    study_instance_uid=each.study_instance_uid,
                    accession_number=each.accession_number,
                    at=each.last_at,
                )
        with owner._database.write() as conn:  # only now: a kill before this line judges an exam twice, never not
            for each in changed:
                settle(conn, each)
