"""Which exams changed and have not been judged since: rows that their owners keep beside what they own.

Rules:

* A change of what an exam looks like marks it in the same transaction, so that a change without a mark does not exist.
  A second change of the same exam adds to its row; it costs one row written in a commit that is made anyway.
* A row is read before the exam is looked at, and taken away only as it was read: an exam that changes meanwhile keeps
  its row, and is looked at again.

A row names a study, an accession number or both; what is unknown is ''. Not here: what an exam looks like
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
    conn.execute(
        f"INSERT INTO touched ({_COLUMNS}) VALUES (:study_instance_uid, :accession_number, :at, :at, 1)"
        " ON CONFLICT (study_instance_uid, accession_number) DO UPDATE SET last_at = :at, times = times + 1",
        {"study_instance_uid": study_instance_uid, "accession_number": accession_number, "at": at},
    )


def settle(conn: sqlite3.Connection, changed: ChangedExam) -> None:
    """Take a row away, unless its exam changed again since it was read."""
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
        """Take another owner's rows over: here first, there afterwards, so that a kill in between doubles at most."""
        with self._database.write() as conn:
            for each in changed:
                mark_changed(
                    conn,
                    study_instance_uid=each.study_instance_uid,
                    accession_number=each.accession_number,
                    at=each.last_at,
                )
        with owner._database.write() as conn:
            for each in changed:
                settle(conn, each)
