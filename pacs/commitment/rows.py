"""The transactions of storage commitment in pacs.db: every statement about them. Not for: rules (`rules`)."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gateway.errors import DuplicateTransaction
from gateway.sqlite import Transactions, utc_text
from pacs.commitment.rules import LONGEST_PAUSE, CommitmentOutcome, Reference, Transaction

_OPEN = "acknowledged_at IS NULL"


@dataclass(frozen=True, slots=True)
class OpenCommitment:
    """One transaction that its requester has not confirmed. `outcomes` is empty until its files were verified."""

    id: int
    transaction: Transaction
    outcomes: tuple[int, ...]
    attempts: int


class CommitmentRows:
    """The commitment tables of pacs.db."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def take(self, transaction: Transaction, *, now: datetime) -> bool:
        """Enter a transaction to be reported; False when it has been reported already. Raises DuplicateTransaction."""
        with self._database.write() as conn:
            row = conn.execute(
                "SELECT id, requester, addressed FROM commitment WHERE transaction_uid = :uid",
                {"uid": transaction.transaction_uid},
            ).fetchone()
            if row is None:
                self._enter(conn, transaction, now=now)
                return True
            if self._transaction(conn, transaction.transaction_uid, row) != transaction:
                raise DuplicateTransaction("This Transaction UID is in use for another request.")
            # A requester that repeats its request is reachable now, so a pending report is due at once.
            done = conn.execute(
                f"UPDATE commitment SET due_at = :now WHERE id = :id AND {_OPEN}",
                {"id": row["id"], "now": utc_text(now)},
            )
            return done.rowcount == 1

    def due(self, *, now: datetime, limit: int) -> list[OpenCommitment]:
        """The transactions to verify or report now, by requester."""
        # A `due_at` beyond the longest pause means that the clock was set back since.
        with self._database.read() as conn:
            rows = conn.execute(
                "SELECT id, transaction_uid, requester, addressed, attempts, verified_at FROM commitment"
                f" WHERE {_OPEN} AND (due_at <= :now OR due_at > :beyond)"
                " ORDER BY requester, addressed, id LIMIT :limit",
                {"now": utc_text(now), "beyond": utc_text(now + LONGEST_PAUSE), "limit": limit},
            ).fetchall()
            return [self._open(conn, row) for row in rows]

    def verified(self, commitment_id: int, outcomes: Sequence[int], *, now: datetime) -> None:
        """Record the outcomes of a transaction, in the order of its references."""
        with self._database.write() as conn:
            conn.executemany(
                "UPDATE commitment_reference SET outcome = :outcome WHERE commitment_id = :id AND number = :number",
                [
                    {"id": commitment_id, "number": number, "outcome": outcome}
                    for number, outcome in enumerate(outcomes)
                ],
            )
            conn.execute(
                "UPDATE commitment SET verified_at = :now WHERE id = :id", {"id": commitment_id, "now": utc_text(now)}
            )

    def acknowledged(self, commitment_id: int, *, now: datetime) -> None:
        """Record that the requester has confirmed the report, and commit the instances."""
        # Not before, because until then no commitment has reached anybody.
        values = {"id": commitment_id, "now": utc_text(now), "committed": CommitmentOutcome.COMMITTED.value}
        with self._database.write() as conn:
            conn.execute(
                "UPDATE commitment SET acknowledged_at = :now, attempts = attempts + 1, reason = '' WHERE id = :id",
                values,
            )
            conn.execute(
                "UPDATE instance SET committed_at = :now WHERE committed_at IS NULL AND sop_instance_uid IN"
                " (SELECT sop_instance_uid FROM commitment_reference"
                " WHERE commitment_id = :id AND outcome = :committed)",
                values,
            )

    def retry(self, commitment_id: int, *, reason: str, due_at: datetime) -> None:
        """Record that the requester was not reached; the next attempt is from `due_at` on."""
        with self._database.write() as conn:
            conn.execute(
                "UPDATE commitment SET attempts = attempts + 1, due_at = :due_at, reason = :reason WHERE id = :id",
                {"id": commitment_id, "due_at": utc_text(due_at), "reason": reason},
            )

    def hasten(self, *, now: datetime) -> None:
        """Make every pending transaction due now. For a start, because the cause of the pause may be gone."""
        with self._database.write() as conn:
            conn.execute(f"UPDATE commitment SET due_at = :now WHERE {_OPEN}", {"now": utc_text(now)})

    def facts(self) -> dict[str, object]:
        """The number of pending transactions, the time of the oldest, and why that one waits."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT count(*) AS open, min(requested_at) AS oldest, reason FROM commitment"
                f" INDEXED BY commitment_open WHERE {_OPEN}"
            ).fetchone()
        return {
            "commitments to report": row["open"],
            "oldest commitment to report": row["oldest"],
            "it waits because": row["reason"] or None,
        }

    def _enter(self, conn: sqlite3.Connection, transaction: Transaction, *, now: datetime) -> None:
        inserted = conn.execute(
            "INSERT INTO commitment (transaction_uid, requester, addressed, requested_at, due_at)"
            " VALUES (:transaction_uid, :requester, :addressed, :now, :now)",
            {
                "transaction_uid": transaction.transaction_uid,
                "requester": transaction.requester,
                "addressed": transaction.addressed,
                "now": utc_text(now),
            },
        )
        conn.executemany(
            "INSERT INTO commitment_reference (commitment_id, number, sop_class_uid, sop_instance_uid)"
            " VALUES (:id, :number, :sop_class_uid, :sop_instance_uid)",
            [
                {
                    "id": inserted.lastrowid,
                    "number": number,
                    "sop_class_uid": reference.sop_class_uid,
                    "sop_instance_uid": reference.sop_instance_uid,
                }
                for number, reference in enumerate(transaction.references)
            ],
        )

    def _open(self, conn: sqlite3.Connection, row: sqlite3.Row) -> OpenCommitment:
        transaction = self._transaction(conn, row["transaction_uid"], row)
        outcomes = (reference["outcome"] for reference in self._references(conn, row["id"]))
        return OpenCommitment(row["id"], transaction, tuple(outcomes) if row["verified_at"] else (), row["attempts"])

    def _transaction(self, conn: sqlite3.Connection, transaction_uid: str, row: sqlite3.Row) -> Transaction:
        references = tuple(
            Reference(each["sop_class_uid"], each["sop_instance_uid"]) for each in self._references(conn, row["id"])
        )
        return Transaction(transaction_uid, row["requester"], row["addressed"], references)

    def _references(self, conn: sqlite3.Connection, commitment_id: int) -> list[sqlite3.Row]:
        return conn.execute(
            "SELECT sop_class_uid, sop_instance_uid, outcome FROM commitment_reference WHERE commitment_id = :id"
            " ORDER BY number",
            {"id": commitment_id},
        ).fetchall()
