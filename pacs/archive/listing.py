"""Lists for pages and scripts: studies, changes, damage and growth. Statements of pacs.db.

Not for: DICOM and DICOMweb queries (`pacs.archive.index`).
"""

from dataclasses import dataclass
from typing import Literal

from gateway.dataset.dicom_json import DicomJson
from gateway.errors import NotFound
from gateway.sqlite import Transactions
from pacs.archive.index import unpacked

_STUDY = (
    "SELECT study.id, study_instance_uid, series_count, instance_count, byte_count, first_received_at,"
    " last_received_at, data_set,"
    " (SELECT group_concat(modality, ',') FROM (SELECT DISTINCT modality FROM series"
    " WHERE series.study_id = study.id AND modality <> '' ORDER BY modality)) AS modalities FROM study"
)

_CHANGES = (
    "SELECT number, instance_id IS NOT NULL AS is_stored, received_at, removed_at,"
    " coalesce(change.study_instance_uid, study.study_instance_uid) AS study_instance_uid,"
    " coalesce(change.series_instance_uid, series.series_instance_uid) AS series_instance_uid,"
    " coalesce(change.sop_instance_uid, instance.sop_instance_uid) AS sop_instance_uid"
    " FROM change LEFT JOIN instance ON instance.id = instance_id LEFT JOIN series ON series.id = series_id"
    " LEFT JOIN study ON study.id = series.study_id WHERE number > :since ORDER BY number LIMIT :limit"
)


@dataclass(frozen=True, slots=True)
class StudyRow:
    """A study; `data_set` has the attributes of patient and study, times are UTC text."""

    id: int
    study_instance_uid: str
    series_count: int
    instance_count: int
    byte_count: int
    first_received_at: str
    last_received_at: str
    modalities: tuple[str, ...]
    data_set: DicomJson


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A series; `data_set` has its attributes."""

    series_instance_uid: str
    instance_count: int
    data_set: DicomJson


@dataclass(frozen=True, slots=True)
class InstanceChange:
    """An instance that was stored or removed, and when (UTC text)."""

    number: int
    kind: Literal["stored", "removed"]
    at: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Damaged:
    """An instance whose file was not as received when it was last verified. `found_at` is UTC text."""

    sop_instance_uid: str
    study_instance_uid: str
    code: str
    found_at: str


class Listing:
    """The tables of pacs.db as lists."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def studies(self, *, before: int | None, limit: int, **matched: str) -> list[StudyRow]:
        """Studies with an id below `before`, the newest first. Matched: accession_number, study_date, exactly."""
        # Pages continue from an id and not from an offset, so that studies that come or go in between move nothing.
        wanted = "".join(f" AND {_MATCHED[name]} = :{name}" for name in matched)
        values = {**matched, "before": before, "limit": limit}
        with self._database.read() as conn:
            rows = conn.execute(
                f"{_STUDY} WHERE (id < :before OR :before IS NULL){wanted} ORDER BY id DESC LIMIT :limit", values
            ).fetchall()
        return [_study(dict(row)) for row in rows]

    def study(self, study_instance_uid: str) -> StudyRow:
        """One study. Raises NotFound."""
        with self._database.read() as conn:
            row = conn.execute(f"{_STUDY} WHERE study_instance_uid = :uid", {"uid": study_instance_uid}).fetchone()
        if row is None:
            raise NotFound(f"There is no study {study_instance_uid} here.")
        return _study(dict(row))

    def series(self, study_instance_uid: str) -> list[SeriesRow]:
        """The series of a study in the order they came. Raises NotFound."""
        with self._database.read() as conn:
            rows = conn.execute(
                "SELECT series_instance_uid, series.instance_count, series.data_set FROM series"
                " JOIN study ON study.id = series.study_id WHERE study_instance_uid = :uid ORDER BY series.id",
                {"uid": study_instance_uid},
            ).fetchall()
        if not rows:
            raise NotFound(f"There is no study {study_instance_uid} here.")
        return [SeriesRow(row["series_instance_uid"], row["instance_count"], unpacked(row["data_set"])) for row in rows]

    def changes(self, since: int, *, limit: int) -> list[InstanceChange]:
        """The changes after a number, in order. An instance that came and went has only the removal."""
        with self._database.read() as conn:
            rows = conn.execute(_CHANGES, {"since": since, "limit": limit}).fetchall()
        return [
            InstanceChange(
                number=row["number"],
                kind="stored" if row["is_stored"] else "removed",
                at=row["received_at"] or row["removed_at"],
                study_instance_uid=row["study_instance_uid"],
                series_instance_uid=row["series_instance_uid"],
                sop_instance_uid=row["sop_instance_uid"],
            )
            for row in rows
        ]

    def damaged(self, limit: int) -> list[Damaged]:
        """The instances with a damaged file, the newest finding first."""
        with self._database.read() as conn:
            rows = conn.execute(
                "SELECT sop_instance_uid, study_instance_uid, code, found_at FROM damage"
                " JOIN instance ON instance.id = instance_id JOIN series ON series.id = series_id"
                " JOIN study ON study.id = series.study_id ORDER BY found_at DESC, instance_id LIMIT :limit",
                {"limit": limit},
            ).fetchall()
        return [Damaged(**dict(row)) for row in rows]

    def received(self) -> dict[str, str | None]:
        """The times of the oldest and the newest instance, UTC text; None when there is none."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT (SELECT min(received_at) FROM instance) AS oldest, (SELECT max(received_at) FROM instance)"
                " AS newest"
            ).fetchone()
        return dict(row)

    def growth(self, since: str) -> list[dict[str, object]]:
        """The numbers of received studies, instances and bytes of each day (UTC) since a time, the newest day first."""
        with self._database.read() as conn:
            rows = conn.execute(
                "SELECT substr(received_at, 1, 10) AS day, count(DISTINCT series.study_id) AS studies,"
                " count(*) AS instances, sum(size_bytes) AS bytes"
                " FROM instance JOIN series ON series.id = series_id WHERE received_at >= :since"
                " GROUP BY day ORDER BY day DESC",
                {"since": since},
            ).fetchall()
        return [dict(row) for row in rows]

    def newest_studies(self, limit: int) -> list[dict[str, object]]:
        """The studies that got an instance last, with their counts, the newest first."""
        with self._database.read() as conn:
            rows = conn.execute(
                "SELECT study_instance_uid, accession_number, series_count AS series, instance_count AS instances,"
                " byte_count AS bytes, first_received_at, last_received_at FROM study"
                " ORDER BY last_received_at DESC, id DESC LIMIT :limit",
                {"limit": limit},
            ).fetchall()
        return [dict(row) for row in rows]


_MATCHED = {"accession_number": "accession_number", "study_date": "study_date"}


def _study(row: dict[str, object]) -> StudyRow:
    modalities = str(row.pop("modalities") or "")
    data_set = unpacked(row.pop("data_set"))  # type: ignore[arg-type]
    return StudyRow(**row, modalities=tuple(filter(None, modalities.split(","))), data_set=data_set)  # type: ignore[arg-type]
