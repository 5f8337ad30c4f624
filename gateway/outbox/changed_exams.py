"""Which exams were touched and have not been judged since: notes that their owners keep beside what they own.

Rules:

* Whoever changes what an exam looks like notes it in the same transaction, so that a change without a note does not
  exist. A second touch of the same exam adds to the note; it costs one row written in a commit that is made anyway.
* A note is read before the exam is looked at, and taken away only as it was read: what is touched meanwhile keeps its
  note, and is looked at again.

A note names a study, an accession number or both; what is unknown is ''. Not here: what an exam looks like
(`relay.exams.exam`), when somebody looks (`relay.exams.quality`).
"""

import sqlite3
from dataclasses import dataclass

from gateway.sqlite import Database

_COLUMNS = "study_instance_uid, accession_number, first_at, last_at, times"

_THIS = "study_instance_uid = :study_instance_uid AND accession_number = :accession_number"


@dataclass(frozen=True, slots=True)
class Note:
    """An exam that was touched so many times, first and last when (UTC text)."""

    study_instance_uid: str
    accession_number: str
    first_at: str
    last_at: str
    times: int


def touch(conn: sqlite3.Connection, *, study_instance_uid: str = "", accession_number: str = "", at: str) -> None:
    """Note that an exam was touched (`at` is UTC text), in the transaction of what touches it."""
    conn.execute(
        f"INSERT INTO touched ({_COLUMNS}) VALUES (:study_instance_uid, :accession_number, :at, :at, 1)"
        " ON CONFLICT (study_instance_uid, accession_number) DO UPDATE SET last_at = :at, times = times + 1",
        {"study_instance_uid": study_instance_uid, "accession_number": accession_number, "at": at},
    )


def settle(conn: sqlite3.Connection, note: Note) -> None:
    """Take a note away, unless its exam was touched again since it was read."""
    conn.execute(
        f"DELETE FROM touched WHERE {_THIS} AND first_at = :first_at AND times = :times",
        {
            "study_instance_uid": note.study_instance_uid,
            "accession_number": note.accession_number,
            "first_at": note.first_at,
            "times": note.times,
        },
    )


class Touched:
    """The notes in one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def notes(self, *, limit: int) -> list[Note]:
        """The notes there are, those that have waited longest first."""
        with self.database.read() as conn:
            rows = conn.execute(f"SELECT {_COLUMNS} FROM touched ORDER BY first_at LIMIT :limit", {"limit": limit})
            return [Note(**dict(row)) for row in rows]

    def carry(self, notes: list[Note], owner: "Touched") -> None:
        """Take another owner's notes over: here first, there afterwards, so that a kill in between doubles at most."""
        with self.database.write() as conn:
            for note in notes:
                touch(
                    conn,
                    study_instance_uid=note.study_instance_uid,
                    accession_number=note.accession_number,
                    at=note.last_at,
                )
        with owner.database.write() as conn:
            for note in notes:
                settle(conn, note)
