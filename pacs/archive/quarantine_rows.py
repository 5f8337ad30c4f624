"""What is kept aside: its rows in pacs.db, and where its files lie.

An object is in the quarantine with a row and a file (`pacs.archive.files`). An operator writes a decision into the row;
the process that owns the folder carries it out.

Not for: carrying decisions out, and putting files there (`pacs.maintenance.quarantine`, `pacs.archive.archive`).
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
    """An object in the quarantine. `decision` is what an operator wants, `refusal` why it could not be done.

    `settled_at` (UTC text) is when somebody decided that it stays there and nothing is to be done.
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
    """The objects that are kept aside; `folder` is where their files lie."""

    def __init__(self, database: Transactions, folder: Path) -> None:
        self._database = database
        self._folder = folder

    def path(self, found: SetAside) -> Path:
        """Where the file of an object lies."""
        return self._folder / found.file_name

    def add(
        self, conn: sqlite3.Connection, *, sop_instance_uid: str, file_name: str, receipt: Receipt, reason: str
    ) -> None:
        """Remember an object that is kept aside; the same content again changes nothing."""
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
        """What is kept aside, the oldest first."""
        return self._rows("TRUE")

    def decided(self) -> list[SetAside]:
        """What an operator has decided on and nobody has carried out or refused yet."""
        return self._rows("decision IS NOT NULL AND refusal = ''")

    def stands(self, conn: sqlite3.Connection, found: SetAside) -> bool:
        """Is what was decided about an object still what is wanted, inside a transaction?"""
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
        """Write down what an operator wants to be done. Raises NotFound."""
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
        """Write down that an object stays in the quarantine and what is stored stays too. Raises NotFound.

        A decision that was not carried out is taken back. Raises Conflict when nothing is stored under its UID, so that
        there is nothing to keep, unless it could not be stored either.
        """
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
        """How many objects of the quarantine wait for a person: nobody has decided, or it could not be carried out."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT count(*) FROM quarantine WHERE settled_at IS NULL AND (decision IS NULL OR refusal <> '')"
            ).fetchone()
        return int(row[0])

    def refuse(self, quarantine_id: int, refusal: str) -> None:
        """Say why a decision cannot be carried out."""
        with self._database.write() as conn:
            conn.execute(
                "UPDATE quarantine SET refusal = :refusal WHERE id = :id", {"id": quarantine_id, "refusal": refusal}
            )

    def forget(self, quarantine_id: int) -> None:
        """Drop the row of an object that is not in the quarantine any more."""
        with self._database.write() as conn:
            conn.execute("DELETE FROM quarantine WHERE id = :id", {"id": quarantine_id})

    def _rows(self, condition: str, **values: object) -> list[SetAside]:
        with self._database.read() as conn:
            rows = conn.execute(
                f"SELECT {_QUARANTINE} FROM quarantine WHERE {condition} ORDER BY id", values
            ).fetchall()
        return [SetAside(**dict(row)) for row in rows]
