"""The rows of the quarantine in pacs.db, and the paths of its files.

A quarantined object has a row and a file. An operator's decision is written into the row; the pacs process carries it
out.

Not for: carrying decisions out and moving files (`pacs.maintenance.quarantine`, `pacs.archive.archive`).
"""

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.errors import Conflict, NotFound
from gateway.sqlite import Transactions, utc_text
from pacs.archive.index import Receipt

_QUARANTINE = (
    "id, sop_instance_uid, sha256, file_name, reason, calling_ae_title, received_at, decision, decided_by, refusal,"
    " settled_at, settled_by"
)


@dataclass(frozen=True, slots=True)
class SetAside:
    """An object in the quarantine. `decision` is the operator's, `refusal` why it could not be carried out.

    `settled_at` (UTC text) is the time of the decision that it stays there.
    """

    id: int
    sop_instance_uid: str
    sha256: str
    file_name: str
    reason: str
    calling_ae_title: str
    received_at: str
    decision: str | None
    decided_by: str
    refusal: str
    settled_at: str | None
    settled_by: str


class Quarantine:
    """The quarantined objects; `folder` has their files."""

    def __init__(self, database: Transactions, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def path(self, found: SetAside) -> Path:
        """The path of an object's file."""
        return self._folder / found.file_name

    def add(
        self, conn: sqlite3.Connection, *, sop_instance_uid: str, file_name: str, receipt: Receipt, reason: str
    ) -> None:
        """Enter a quarantined object, in the caller's transaction; the same content again changes nothing."""
        conn.execute(
            "INSERT INTO quarantine (sop_instance_uid, sha256, file_name, reason, calling_ae_title, received_at)"
            " VALUES (:uid, :sha256, :file_name, :reason, :calling, :now) ON CONFLICT DO NOTHING",
            {
                "uid": sop_instance_uid,
                "sha256": receipt.sha256,
                "file_name": file_name,
                "reason": reason,
                "calling": receipt.calling_ae_title,
                "now": receipt.received_at,
            },
        )

    def objects(self) -> list[SetAside]:
        """All quarantined objects, the oldest first."""
        return self._rows("TRUE")

    def decided(self) -> list[SetAside]:
        """The objects with a decision that is neither carried out nor refused yet."""
        return self._rows("decision IS NOT NULL AND refusal = ''")

    def stands(self, conn: sqlite3.Connection, found: SetAside) -> bool:
        """Whether the decision about an object is unchanged, inside a transaction."""
        row = conn.execute(
            "SELECT 1 FROM quarantine WHERE id = :id AND decision = :decision AND decided_by = :by AND refusal = ''",
            {"id": found.id, "decision": found.decision, "by": found.decided_by},
        ).fetchone()
        return row is not None

    def object_with(self, quarantine_id: int) -> SetAside:
        """One object of the quarantine. Raises NotFound."""
        for found in self._rows("id = :id", id=quarantine_id):
            return found
        raise NotFound(f"Nothing in the quarantine has the id {quarantine_id}; see 'gateway quarantine list'.")

    def decide(self, quarantine_id: int, decision: str, *, by: str) -> None:
        """Record the decision of an operator. Raises NotFound."""
        values = {"id": quarantine_id, "decision": decision, "by": by}
        with self._database.write() as conn:
            changed = conn.execute(
                "UPDATE quarantine SET decision = :decision, decided_by = :by, refusal = '', settled_at = NULL"
                " WHERE id = :id",
                values,
            ).rowcount
        if not changed:
            raise NotFound(f"Nothing in the quarantine has the id {quarantine_id}; see 'gateway quarantine list'.")

    def settle(self, quarantine_id: int, *, by: str, now: datetime) -> None:
        """Record the decision that both the quarantined and the stored object stay. Raises NotFound.

        A decision that is not carried out yet is taken back. Raises Conflict when nothing is stored under its UID,
        unless the quarantined object could not be stored either.
        """
        # A decision and not a deletion, because the file may be the only copy of an image.
        values = {"id": quarantine_id, "by": by, "now": utc_text(now)}
        with self._database.write() as conn:
            self._require_something_to_keep(conn, quarantine_id)
            changed = conn.execute(
                "UPDATE quarantine SET decision = NULL, refusal = '', settled_at = coalesce(settled_at, :now),"
                " settled_by = iif(settled_at IS NULL, :by, settled_by) WHERE id = :id",
                values,
            ).rowcount
        if not changed:
            raise NotFound(f"Nothing in the quarantine has the id {quarantine_id}; see 'gateway quarantine list'.")

    def _require_something_to_keep(self, conn: sqlite3.Connection, quarantine_id: int) -> None:
        row = conn.execute(
            "SELECT sop_instance_uid FROM quarantine AS aside"
            " WHERE id = :id AND refusal = '' AND sop_instance_uid <> ''"
            " AND NOT EXISTS (SELECT 1 FROM instance WHERE instance.sop_instance_uid = aside.sop_instance_uid)",
            {"id": quarantine_id},
        ).fetchone()
        if row is not None:
            raise Conflict(
                f"Nothing is stored under {row['sop_instance_uid']}, so there is nothing to keep in its place. To store"
                f" this one: gateway quarantine release {quarantine_id}."
            )

    def undecided(self) -> int:
        """The number of objects that wait for a person: undecided, or with a decision that could not be carried out."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT count(*) FROM quarantine WHERE settled_at IS NULL AND (decision IS NULL OR refusal <> '')"
            ).fetchone()
        return int(row[0])

    def refuse(self, quarantine_id: int, refusal: str) -> None:
        """Record why a decision cannot be carried out."""
        with self._database.write() as conn:
            conn.execute(
                "UPDATE quarantine SET refusal = :refusal WHERE id = :id", {"id": quarantine_id, "refusal": refusal}
            )

    def forget(self, quarantine_id: int) -> None:
        """Delete the row of an object that has left the quarantine."""
        with self._database.write() as conn:
            conn.execute("DELETE FROM quarantine WHERE id = :id", {"id": quarantine_id})

    def _rows(self, condition: str, **values: object) -> list[SetAside]:
        with self._database.read() as conn:
            rows = conn.execute(
                f"SELECT {_QUARANTINE} FROM quarantine WHERE {condition} ORDER BY id", values
            ).fetchall()
        return [SetAside(**dict(row)) for row in rows]
