"""The reported quality of exams: statements of pacs.db.

An event is enqueued only if the quality differs from the one reported last, and not before the exam has begun.

Not for: judging an exam (`relay.exams.exam`, `relay.exams.quality`).
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from gateway.messages import ExamQuality
from gateway.outbox import Outbox
from gateway.outbox.changed_exams import ChangedExam, settle
from gateway.sqlite import Transactions


class QualityRows:
    """The reported judgements in pacs.db, and the facts about absent instances that judging needs."""

    def __init__(self, database: Transactions, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    def conclude(self, changed: ChangedExam, judged: Iterable[ExamQuality], *, now: datetime) -> list[ExamQuality]:
        """Enqueue the new judgements of an exam, and remove its mark of change; returns the enqueued ones.

        A judgement gets its revision here. An exam that changed again since the mark was read keeps it.
        """
        # Mark, event and the record of the last judgement change together: killed before, the exam is judged again.
        with self._database.write() as conn:
            enqueued = [new for each in judged if (new := self._enqueue(conn, each, now=now)) is not None]
            settle(conn, changed)
        return enqueued

    def absent(self, sop_instance_uids: Sequence[str]) -> list[str]:
        """The instances of these that never came: they are not stored, and were not removed either."""
        with self._database.read() as conn:
            rows = conn.execute(
                "SELECT value FROM json_each(:uids)"
                " WHERE NOT EXISTS (SELECT 1 FROM instance WHERE sop_instance_uid = value)"
                " AND NOT EXISTS (SELECT 1 FROM change WHERE sop_instance_uid = value AND removed_at IS NOT NULL)",
                {"uids": json.dumps(list(sop_instance_uids))},
            )
            return [str(row["value"]) for row in rows]

    def has_shrunk(self, study_instance_uids: Collection[str]) -> bool:
        """Whether an instance of these studies was removed, and none has come since."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT (SELECT coalesce(max(number), 0) FROM change"
                " WHERE study_instance_uid IN (SELECT value FROM json_each(:uids)) AND removed_at IS NOT NULL) >"
                " (SELECT coalesce(max(number), 0) FROM study JOIN series ON series.study_id = study.id"
                " JOIN instance ON instance.series_id = series.id JOIN change ON change.instance_id = instance.id"
                " WHERE study.study_instance_uid IN (SELECT value FROM json_each(:uids)))",
                {"uids": json.dumps(list(study_instance_uids))},
            ).fetchone()
        return bool(row[0])

    def _enqueue(self, conn: sqlite3.Connection, judged: ExamQuality, *, now: datetime) -> ExamQuality | None:
        key = {"accession_number": judged.accession_number}
        row = conn.execute(
            "SELECT revision, digest FROM judgement WHERE accession_number = :accession_number", key
        ).fetchone()
        if (not judged.has_begun) if row is None else (row["digest"] == judged.digest):
            return None
        new = judged.model_copy(update={"revision": row["revision"] + 1 if row else 1})
        conn.execute(
            "INSERT INTO judgement VALUES (:accession_number, :study_instance_uid, :revision, :digest)"
            " ON CONFLICT (accession_number) DO UPDATE SET study_instance_uid = excluded.study_instance_uid,"
            " revision = excluded.revision, digest = excluded.digest",
            {
                **key,
                "study_instance_uid": new.study_instance_uid,
                "revision": new.revision,
                "digest": new.digest,
            },
        )
        self._outbox.put_event(conn, new, now=now)
        return new
