"""The statements of fsck, scrub and retention in pacs.db.

Not for: rules and files (`fsck`, `scrub`, `retention`), queries (`pacs.archive.index`), the quarantine
(`quarantine_rows`).
"""

import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from gateway.errors import NotFound
from gateway.sqlite import Transactions, utc_text
from pacs.archive.files import file_name, place_of
from pacs.archive.index import ITS_EVENT

# In pages, because a snapshot that is held while much is done for each row would let the WAL grow.
_PAGE = 200
"""Rows read at a time."""

_OF_STUDY = "FROM series JOIN instance ON instance.series_id = series.id WHERE series.study_id = study.id"

_STUDY_FACTS = (
    "SELECT study.id, study.study_instance_uid, study.accession_number, study.last_received_at,"
    f" (SELECT count(*) {_OF_STUDY}) AS instances,"
    f" (SELECT coalesce(sum(size_bytes), 0) {_OF_STUDY}) AS size_bytes,"
    f" (SELECT count(*) {_OF_STUDY} AND EXISTS (SELECT 1 FROM outbox WHERE {ITS_EVENT} AND delivered_at IS NOT NULL))"
    " AS confirmed,"
    f" (SELECT count(*) {_OF_STUDY} AND committed_at IS NOT NULL) AS committed,"
    f" (SELECT count(*) {_OF_STUDY} AND instance.id IN (SELECT instance_id FROM damage)) AS damaged,"
    " (SELECT count(*) FROM outbox WHERE subject = study.study_instance_uid AND delivered_at IS NULL)"
    " + (SELECT count(*) FROM outbox WHERE subject > 'request/' || study.study_instance_uid || '/'"
    "     AND subject < 'request/' || study.study_instance_uid || '0' AND delivered_at IS NULL) AS pending,"
    " (SELECT count(*) FROM forward WHERE study_id = study.id AND delivered_at IS NULL) AS unforwarded"
    " FROM study"
)

_ACTUAL = (
    "SELECT study.id, study.study_instance_uid,"
    " (SELECT count(*) FROM series WHERE series.study_id = study.id) AS series_count,"
    f" (SELECT count(*) {_OF_STUDY}) AS instance_count,"
    f" (SELECT coalesce(sum(size_bytes), 0) {_OF_STUDY}) AS byte_count,"
    " study.series_count AS said_series, study.instance_count AS said_instances, study.byte_count AS said_bytes,"
    " EXISTS (SELECT 1 FROM series WHERE series.study_id = study.id AND series.instance_count <>"
    " (SELECT count(*) FROM instance WHERE instance.series_id = series.id)) AS series_differ FROM study"
)

_SUMS = (
    "SELECT (SELECT count(*) FROM study), (SELECT count(*) FROM series), (SELECT count(*) FROM instance),"
    " (SELECT coalesce(sum(size_bytes), 0) FROM instance)"
)


@dataclass(frozen=True, slots=True)
class Kept:
    """The facts about a file in its row."""

    id: int
    place: str
    sop_instance_uid: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """The facts about a study that retention needs. Counts are of instances; times are UTC text."""

    id: int
    study_instance_uid: str
    accession_number: str
    last_received_at: str
    instances: int
    size_bytes: int
    confirmed: int
    """Instances whose event about exactly this content was delivered, or discarded by a named person."""
    committed: int
    damaged: int
    pending: int
    """Undelivered events of the study, open or parked, of every kind, and undelivered requests for it."""
    unforwarded: int
    """Rows of the forwarding queue that are not delivered, open or parked."""


@dataclass(frozen=True, slots=True)
class Pass:
    """The progress of the scrub. Times are UTC text; see the schema."""

    began_at: str | None
    ended_at: str | None
    instance_id: int
    file_count: int
    byte_count: int
    damaged_count: int


class MaintenanceRows:
    """The maintenance statements of pacs.db."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    # ---- fsck --------------------------------------------------------------------------------------------------------

    def by_place(self) -> Iterator[Kept]:
        """All instances in the order of their files' places."""
        # SQLite sorts by a function of ours in a temporary file, because a million instances must not take memory.
        with self._database.read_at_length() as conn:
            conn.create_function("file_name", 1, file_name, deterministic=True)
            yield from map(
                _kept,
                conn.execute(
                    "SELECT id, file_name(sop_instance_uid) AS name, sop_instance_uid, size_bytes, sha256"
                    " FROM instance ORDER BY name"
                ),
            )

    def kept(self, sop_instance_uid: str) -> Kept | None:
        """The facts about an instance's file now; None when it has no row."""
        return self._one_kept("sop_instance_uid = :uid", uid=sop_instance_uid)

    def wrong_counts(self) -> list[str]:
        """The Study Instance UIDs whose counts are not those of their rows; '' for the sums over all."""
        with self._database.read() as conn:
            studies = conn.execute(
                f"SELECT study_instance_uid FROM ({_ACTUAL}) WHERE series_differ OR instance_count = 0 OR"
                " (series_count, instance_count, byte_count) <> (said_series, said_instances, said_bytes)"
            ).fetchall()
            said, actual = self._totals(conn)
        return [str(row[0]) for row in studies] + ([] if said == actual else [""])

    def recount(self) -> None:
        """Make every count and sum that of the rows, and drop studies and series without instances."""
        with self._database.write() as conn:
            conn.execute("DELETE FROM series WHERE NOT EXISTS (SELECT 1 FROM instance WHERE series_id = series.id)")
            conn.execute("DELETE FROM study WHERE NOT EXISTS (SELECT 1 FROM series WHERE study_id = study.id)")
            conn.execute(
                "UPDATE series SET instance_count = (SELECT count(*) FROM instance WHERE series_id = series.id)"
            )
            conn.execute(
                "UPDATE study SET series_count = actual.series_count, instance_count = actual.instance_count,"
                f" byte_count = actual.byte_count FROM ({_ACTUAL}) AS actual WHERE actual.id = study.id"
            )
            conn.execute(f"UPDATE total SET (study_count, series_count, instance_count, byte_count) = ({_SUMS})")

    def unreported(self) -> Iterator[str]:
        """The SOP Instance UIDs of instances that have no event, neither sent nor unsent."""
        with self._database.read() as conn:
            for row in conn.execute(
                f"SELECT sop_instance_uid FROM instance WHERE NOT EXISTS (SELECT 1 FROM outbox WHERE {ITS_EVENT})"
            ):
                yield str(row["sop_instance_uid"])

    # ---- damage ------------------------------------------------------------------------------------------------------

    def report_damage(self, kept: Kept, code: str, *, now: datetime) -> bool:
        """Record the fault of a file. False when its row has gone or changed since the file was read."""
        values = {"id": kept.id, "sha256": kept.sha256, "code": code, "now": utc_text(now)}
        with self._database.write() as conn:
            done = conn.execute(
                "INSERT INTO damage SELECT id, :code, :now FROM instance WHERE id = :id AND sha256 = :sha256"
                " ON CONFLICT (instance_id) DO UPDATE SET code = :code",
                values,
            )
            return done.rowcount == 1

    def report_well(self, sop_instance_uid: str) -> None:
        """Remove the record of an instance's damage, if there is one."""
        # Read first, because nearly every file is well, and a write for each would be a sync for each.
        if self.is_damaged(sop_instance_uid):
            with self._database.write() as conn:
                conn.execute(
                    "DELETE FROM damage WHERE instance_id = (SELECT id FROM instance WHERE sop_instance_uid = :uid)",
                    {"uid": sop_instance_uid},
                )

    def is_damaged(self, sop_instance_uid: str) -> bool:
        """Whether its file is recorded as damaged."""
        return self._exists(
            "SELECT 1 FROM damage JOIN instance ON instance.id = instance_id WHERE sop_instance_uid = :uid",
            uid=sop_instance_uid,
        )

    def damaged(self) -> int:
        """The number of instances with a damaged file."""
        with self._database.read() as conn:
            return int(conn.execute("SELECT count(*) FROM damage").fetchone()[0])

    # ---- scrub -------------------------------------------------------------------------------------------------------

    def scrubbed(self) -> Pass:
        """The progress of the scrub."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT began_at, ended_at, instance_id, file_count, byte_count, damaged_count FROM scrub"
            ).fetchone()
        return Pass(**dict(row))

    def remember_scrub(self, reached: Pass) -> None:
        """Record the progress of the scrub."""
        with self._database.write() as conn:
            conn.execute(
                "UPDATE scrub SET began_at = :began_at, ended_at = :ended_at, instance_id = :instance_id,"
                " file_count = :file_count, byte_count = :byte_count, damaged_count = :damaged_count",
                {name: getattr(reached, name) for name in Pass.__slots__},
            )

    def next_kept(self, after: int) -> Kept | None:
        """The instance that follows in the order of rows; None at the end."""
        return self._one_kept("id > :after ORDER BY id LIMIT 1", after=after)

    # ---- retention ---------------------------------------------------------------------------------------------------

    def studies_until(self, last_received_at: str) -> Iterator[StudyFacts]:
        """Studies without a new instance since a time (UTC text), the oldest first. They may be removed meanwhile."""
        at = {"time": "", "id": 0, "until": last_received_at, "page": _PAGE}
        while page := self._studies(
            "(last_received_at, study.id) > (:time, :id) AND last_received_at < :until"
            " ORDER BY last_received_at, study.id LIMIT :page",
            at,
        ):
            yield from page
            at |= {"time": page[-1].last_received_at, "id": page[-1].id}

    def facts(self, conn: sqlite3.Connection, study_id: int) -> StudyFacts | None:
        """The facts of one study inside a transaction; None when it is gone."""
        row = conn.execute(f"{_STUDY_FACTS} WHERE study.id = :id", {"id": study_id}).fetchone()
        return None if row is None else StudyFacts(**dict(row))

    def study_id(self, conn: sqlite3.Connection, study_instance_uid: str) -> int | None:
        """The id of a study's row, inside a transaction; None when there is none."""
        row = conn.execute(
            "SELECT id FROM study WHERE study_instance_uid = :uid", {"uid": study_instance_uid}
        ).fetchone()
        return None if row is None else int(row[0])

    def facts_of(self, conn: sqlite3.Connection, study_instance_uid: str) -> StudyFacts:
        """The same by the study's UID. Raises NotFound."""
        row = conn.execute(f"{_STUDY_FACTS} WHERE study_instance_uid = :uid", {"uid": study_instance_uid}).fetchone()
        if row is None:
            raise NotFound(f"Nothing is stored under study_instance_uid {study_instance_uid}.")
        return StudyFacts(**dict(row))

    def order_removal(self, conn: sqlite3.Connection, study_id: int, *, now: datetime) -> None:
        """Remove a study from the index and order the removal of its files, in the caller's transaction."""
        values = {"id": study_id, "now": utc_text(now)}
        instances = "SELECT instance.id FROM instance JOIN series ON series.id = series_id WHERE study_id = :id"
        conn.execute(
            f"INSERT INTO removal SELECT sop_instance_uid, :now FROM instance WHERE id IN ({instances})"
            " ON CONFLICT DO NOTHING",
            values,
        )
        conn.execute(
            "UPDATE total SET study_count = study_count - 1, series_count = total.series_count - study.series_count,"
            " instance_count = total.instance_count - study.instance_count,"
            " byte_count = total.byte_count - study.byte_count FROM study WHERE study.id = :id",
            values,
        )
        conn.execute(f"DELETE FROM instance WHERE id IN ({instances})", values)
        conn.execute("DELETE FROM series WHERE study_id = :id", values)
        conn.execute("DELETE FROM study WHERE id = :id", values)

    def removals(self) -> list[str]:
        """Some SOP Instance UIDs whose removal is ordered."""
        with self._database.read() as conn:
            rows = conn.execute("SELECT sop_instance_uid FROM removal LIMIT :page", {"page": _PAGE}).fetchall()
        return [str(row[0]) for row in rows]

    def shall_go(self, sop_instance_uid: str) -> bool:
        """Whether the removal of this file is still ordered; a trigger cancels the order when the image comes again."""
        return self._exists("SELECT 1 FROM removal WHERE sop_instance_uid = :uid", uid=sop_instance_uid)

    def removed(self, sop_instance_uids: Iterable[str]) -> None:
        """Delete the orders of files that are removed, with their folders synced."""
        with self._database.write() as conn:
            conn.executemany(
                "DELETE FROM removal WHERE sop_instance_uid = :uid", [{"uid": uid} for uid in sop_instance_uids]
            )

    def take_out(self, conn: sqlite3.Connection, sop_instance_uid: str) -> None:
        """Remove one instance from the index, and its series and study when they are empty then."""
        found = conn.execute(
            "SELECT instance.id, series_id, study_id, size_bytes FROM instance JOIN series ON series.id = series_id"
            " WHERE sop_instance_uid = :uid",
            {"uid": sop_instance_uid},
        ).fetchone()
        if found is None:
            return
        row = dict(found)
        conn.execute("DELETE FROM instance WHERE id = :id", row)
        conn.execute("UPDATE series SET instance_count = instance_count - 1 WHERE id = :series_id", row)
        conn.execute(
            "UPDATE study SET instance_count = instance_count - 1, byte_count = byte_count - :size_bytes"
            " WHERE id = :study_id",
            row,
        )
        conn.execute("UPDATE total SET instance_count = instance_count - 1, byte_count = byte_count - :size_bytes", row)
        _drop_if_empty(conn, row)

    # ---- rows --------------------------------------------------------------------------------------------------------

    def _one_kept(self, condition: str, **values: object) -> Kept | None:
        with self._database.read() as conn:
            row = conn.execute(
                f"SELECT id, sop_instance_uid, size_bytes, sha256 FROM instance WHERE {condition}", values
            ).fetchone()
        return None if row is None else _kept(row)

    def _exists(self, statement: str, **values: object) -> bool:
        with self._database.read() as conn:
            return conn.execute(statement, values).fetchone() is not None

    def _studies(self, condition: str, values: dict[str, object]) -> list[StudyFacts]:
        with self._database.read() as conn:
            rows = conn.execute(f"{_STUDY_FACTS} WHERE {condition}", values).fetchall()
        return [StudyFacts(**dict(row)) for row in rows]

    def _totals(self, conn: sqlite3.Connection) -> tuple[tuple[object, ...], tuple[object, ...]]:
        said = conn.execute("SELECT study_count, series_count, instance_count, byte_count FROM total").fetchone()
        return tuple(said), tuple(conn.execute(_SUMS).fetchone())


def _drop_if_empty(conn: sqlite3.Connection, row: dict[str, object]) -> None:
    if conn.execute("DELETE FROM series WHERE id = :series_id AND instance_count = 0", row).rowcount:
        conn.execute("UPDATE study SET series_count = series_count - 1 WHERE id = :study_id", row)
        conn.execute("UPDATE total SET series_count = series_count - 1")
    if conn.execute("DELETE FROM study WHERE id = :study_id AND instance_count = 0", row).rowcount:
        conn.execute("UPDATE total SET study_count = study_count - 1")


def _kept(row: sqlite3.Row) -> Kept:
    uid = str(row["sop_instance_uid"])
    return Kept(row["id"], place_of(file_name(uid)), uid, row["size_bytes"], row["sha256"])
