"""The index: the statements of receipt, query and retrieval. Matching keys are columns, answers are DICOM JSON.

Not for: matching (`gateway.query.matching`), files (`archive`), lists for pages (`listing`), maintenance (`*_rows`).
"""

import json
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gateway.dataset.dicom_json import DicomJson, items, text
from gateway.errors import NotFound
from gateway.outbox.changed_exams import mark_changed
from gateway.query.conditions import Condition, Key, Kind, where
from gateway.query.matching import column_value
from gateway.sqlite import Transactions
from pacs.archive.attributes import frame_count
from pacs.archive.identity import Identity

Level = Literal["PATIENT", "STUDY", "SERIES", "IMAGE"]

COMPRESS_FROM = 1024
"""Bytes of JSON from which compressing pays; a mammogram's 12 kB shrink to 3."""

_DOCUMENTS = 16  # read at once; a mammogram's has 3 kB in its row, a tomosynthesis's may have a megabyte

# The id is tried first, because it is indexed; the content decides, because an id may be of an earlier stay.
ITS_EVENT = (
    "message_id IN (instance.sop_instance_uid, instance.sop_instance_uid || '/' || substr(instance.sha256, 1, 16))"
    " AND json_extract(parameters, '$.image.sha256') = instance.sha256"
)
"""The entry of the event of an instance as it is stored now; one about other content does not count."""

_MODALITIES = "study.id IN (SELECT study_id FROM series WHERE {})"

PATIENT_KEYS = (
    Key("PatientID", Kind.TEXT, "study.patient_id"),
    Key("PatientName", Kind.NAME, "study.patient_name"),
    Key("PatientBirthDate", Kind.DATE, "study.patient_birth_date"),
    Key("PatientSex", Kind.TEXT, "study.patient_sex"),
)

STUDY_KEYS = (
    *PATIENT_KEYS,
    Key("StudyInstanceUID", Kind.UID, "study.study_instance_uid"),
    Key("AccessionNumber", Kind.TEXT, "study.accession_number"),
    Key("StudyDate", Kind.DATE, "study.study_date"),
    Key("StudyTime", Kind.TIME, "study.study_time", of_date="StudyDate"),
    Key("StudyID", Kind.TEXT, "study.study_id"),
    Key("StudyDescription", Kind.TEXT, "study.study_description"),
    Key("ReferringPhysicianName", Kind.NAME, "study.referring_physician"),
    Key("ModalitiesInStudy", Kind.TEXT, "series.modality", within=_MODALITIES),
)

SERIES_KEYS = (
    Key("SeriesInstanceUID", Kind.UID, "series.series_instance_uid"),
    Key("Modality", Kind.TEXT, "series.modality"),
    Key("SeriesNumber", Kind.NUMBER, "series.series_number"),
    Key("SeriesDescription", Kind.TEXT, "series.series_description"),
    Key("PerformedProcedureStepStartDate", Kind.DATE, "series.pps_start_date"),
    Key(
        "PerformedProcedureStepStartTime",
        Kind.TIME,
        "series.pps_start_time",
        of_date="PerformedProcedureStepStartDate",
    ),
    Key("RequestAttributesSequence.ScheduledProcedureStepID", Kind.TEXT, "series.sps_id"),
    Key("RequestAttributesSequence.RequestedProcedureID", Kind.TEXT, "series.requested_procedure_id"),
)

IMAGE_KEYS = (
    Key("SOPInstanceUID", Kind.UID, "instance.sop_instance_uid"),
    Key("SOPClassUID", Kind.UID, "instance.sop_class_uid"),
    Key("InstanceNumber", Kind.NUMBER, "instance.instance_number"),
)

KEYS: Mapping[Level, tuple[Key, ...]] = {
    "PATIENT": PATIENT_KEYS,
    "STUDY": STUDY_KEYS,
    "SERIES": STUDY_KEYS + SERIES_KEYS,
    "IMAGE": STUDY_KEYS + SERIES_KEYS + IMAGE_KEYS,
}
"""The matching keys of each level: its own and those above it (relational queries, PS3.4 C.4.1.2.2.1)."""

_STUDY_TAGS = (
    *("00080005", "00080020", "00080030", "00080050", "00080051", "00080090", "00080201", "00081030", "00081032"),
    *("00100010", "00100020", "00100021", "00100024", "00100030", "00100032", "00100040", "00101002", "00101010"),
    *("0020000D", "00200010"),
)
_SERIES_TAGS = (
    *("00080005", "00080021", "00080031", "00080060", "00080070", "00081010", "0008103E", "00081090", "00180015"),
    *("00181030", "0020000E", "00200011", "00200060", "00400244", "00400245", "00400253", "00400254", "00400275"),
)

_FROM: Mapping[Level, str] = {
    "PATIENT": "study",
    "STUDY": "study",
    "SERIES": "series JOIN study ON study.id = series.study_id",
    "IMAGE": "instance JOIN series ON series.id = instance.series_id JOIN study ON study.id = series.study_id",
}

_GROUPED: Mapping[Level, str] = {
    # Studies without a Patient ID cannot be known to be of one patient, so each of them is one.
    "PATIENT": " GROUP BY study.patient_id, CASE study.patient_id WHEN '' THEN study.id END",
}

_ORDER: Mapping[Level, str] = {
    "PATIENT": "study.patient_id, study.id",
    "STUDY": "study.study_date DESC, study.study_time DESC, study.id DESC",
    "SERIES": "study.id, CAST(series.series_number AS INTEGER), series.id",
    "IMAGE": "study.id, CAST(series.series_number AS INTEGER), series.id,"
    " CAST(instance.instance_number AS INTEGER), instance.id",
}

_OF_PATIENT = (
    "FROM study AS own WHERE own.patient_id = study.patient_id AND (own.patient_id <> '' OR own.id = study.id)"
)

_STUDY_COUNTS = (
    "study.series_count, study.instance_count,"
    " (SELECT group_concat(modality, '\\') FROM"
    " (SELECT DISTINCT modality FROM series AS own WHERE own.study_id = study.id AND modality <> '' ORDER BY modality))"
    " AS modalities"
)

_ANSWERED: Mapping[Level, str] = {
    # With MAX the other columns are those of the row that has it (SQLite), which is the latest study.
    "PATIENT": "study.data_set AS patient_data_set, MAX(study.id),"
    f" (SELECT COUNT(*) {_OF_PATIENT}) AS patient_study_count,"
    f" (SELECT SUM(series_count) {_OF_PATIENT}) AS patient_series_count,"
    f" (SELECT SUM(instance_count) {_OF_PATIENT}) AS patient_instance_count",
    "STUDY": f"study.data_set AS study_data_set, {_STUDY_COUNTS}",
    "SERIES": "study.data_set AS study_data_set, series.data_set AS series_data_set,"
    f" series.instance_count AS series_instance_count, {_STUDY_COUNTS}",
    "IMAGE": f"instance.data_set AS instance_data_set, series.instance_count AS series_instance_count, {_STUDY_COUNTS}",
}

_LOCATED = (
    "study.study_instance_uid, series.series_instance_uid, instance.sop_instance_uid, instance.sop_class_uid,"
    " instance.instance_number, instance.transfer_syntax_uid, instance.frame_count, instance.size_bytes,"
    " instance.data_set_offset, instance.sha256, instance.calling_ae_title, instance.received_at"
)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The facts of a receipt beside the data set. `received_at` is UTC text."""

    transfer_syntax_uid: str
    size_bytes: int
    data_set_offset: int
    sha256: str
    calling_ae_title: str
    association_id: str
    received_at: str


class Index:
    """The tables of pacs.db."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    def add(self, conn: sqlite3.Connection, data_set: DicomJson, found: Identity, receipt: Receipt) -> None:
        """Enter a new instance, its series and study if they are new, counts, and mark its exam as changed."""
        study = self._study(conn, data_set, found, receipt)
        series = self._series(conn, data_set, found, study)
        conn.execute(
            "INSERT INTO instance (series_id, sop_instance_uid, sop_class_uid, instance_number, transfer_syntax_uid,"
            " frame_count, size_bytes, data_set_offset, sha256, calling_ae_title, association_id, received_at,"
            " data_set) VALUES (:series_id, :sop_instance_uid, :sop_class_uid, :instance_number, :transfer_syntax_uid,"
            " :frame_count, :size_bytes, :data_set_offset, :sha256, :calling_ae_title, :association_id, :received_at,"
            " :data_set)",
            {
                "series_id": series,
                "sop_instance_uid": found.sop_instance_uid,
                "sop_class_uid": found.sop_class_uid,
                "instance_number": column_value(Kind.NUMBER, text(data_set, "InstanceNumber")),
                "transfer_syntax_uid": receipt.transfer_syntax_uid,
                "frame_count": frame_count(data_set),
                "size_bytes": receipt.size_bytes,
                "data_set_offset": receipt.data_set_offset,
                "sha256": receipt.sha256,
                "calling_ae_title": receipt.calling_ae_title,
                "association_id": receipt.association_id,
                "received_at": receipt.received_at,
                "data_set": _packed(data_set),
            },
        )
        # Counts are kept and not computed, because every query of a study returns them.
        counted = {"id": series, "study": study, "bytes": receipt.size_bytes, "now": receipt.received_at}
        conn.execute("UPDATE series SET instance_count = instance_count + 1 WHERE id = :id", counted)
        conn.execute(
            "UPDATE study SET instance_count = instance_count + 1, byte_count = byte_count + :bytes,"
            " last_received_at = :now WHERE id = :study",
            counted,
        )
        conn.execute("UPDATE total SET instance_count = instance_count + 1, byte_count = byte_count + :bytes", counted)
        mark_changed(conn, study_instance_uid=found.study_instance_uid, at=receipt.received_at)

    def digest(self, sop_instance_uid: str) -> str | None:
        """The SHA-256 of the stored file of an instance; None when the instance has no row."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT sha256 FROM instance WHERE sop_instance_uid = :uid", {"uid": sop_instance_uid}
            ).fetchone()
        return None if row is None else str(row["sha256"])

    def find(self, level: Level, wanted: list[Condition], *, limit: int | None, offset: int) -> list[DicomJson]:
        """The answers of one level, with the attributes of the levels above and the counts."""
        condition, values = where(wanted)
        with self._database.read() as conn:
            rows = conn.execute(
                f"SELECT {_ANSWERED[level]} FROM {_FROM[level]} WHERE {condition}{_GROUPED.get(level, '')}"
                f" ORDER BY {_ORDER[level]} LIMIT :limit OFFSET :offset",
                {**values, "limit": -1 if limit is None else limit, "offset": offset},
            ).fetchall()
        return [_answer(row) for row in rows]

    def locate(self, **uids: str) -> list[sqlite3.Row]:
        """The rows of instances, in the order of their numbers. Keys: columns that end in _uid. Raises NotFound."""
        condition = " AND ".join(f"{_UID_COLUMNS[name]} = :{name}" for name in uids)
        with self._database.read() as conn:
            rows = conn.execute(
                f"SELECT {_LOCATED} FROM {_FROM['IMAGE']} WHERE {condition} ORDER BY {_ORDER['IMAGE']}", uids
            ).fetchall()
        if not rows:
            raise NotFound("Nothing is stored under " + ", ".join(f"{name} {uid}" for name, uid in uids.items()) + ".")
        return rows

    def select(self, wanted: list[Condition]) -> list[sqlite3.Row]:
        """The instances that conditions of any level choose, as `locate` gives them; none is an empty list."""
        condition, values = where(wanted)
        with self._database.read() as conn:
            return conn.execute(
                f"SELECT {_LOCATED} FROM {_FROM['IMAGE']} WHERE {condition} ORDER BY {_ORDER['IMAGE']}", values
            ).fetchall()

    def latest(self, limit: int) -> list[sqlite3.Row]:
        """The instances that came last, newest first."""
        with self._database.read() as conn:
            return conn.execute(
                f"SELECT {_LOCATED} FROM {_FROM['IMAGE']} ORDER BY instance.received_at DESC, instance.id DESC"
                " LIMIT :limit",
                {"limit": limit},
            ).fetchall()

    def data_sets(self, uids: Mapping[str, str]) -> Iterator[DicomJson]:
        """The data sets of instances, one after the other, in the order of their numbers. Raises NotFound for none."""
        for _, document in self.documents([row["sop_instance_uid"] for row in self.locate(**uids)]):
            yield unpacked(document)

    def documents(self, sop_instance_uids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """Instances and their data sets as stored in their rows, in this order; some may have gone."""
        # A page at a time, because all data sets of a large study would be hundreds of megabytes.
        for first in range(0, len(sop_instance_uids), _DOCUMENTS):
            page = list(sop_instance_uids[first : first + _DOCUMENTS])
            with self._database.read() as conn:
                rows = conn.execute(
                    "SELECT sop_instance_uid, data_set FROM instance"
                    " WHERE sop_instance_uid IN (SELECT value FROM json_each(:uids))",
                    {"uids": json.dumps(page)},
                ).fetchall()
            found = {row["sop_instance_uid"]: row["data_set"] for row in rows}
            yield from ((uid, found[uid]) for uid in page if uid in found)

    def telling(self, sop_instance_uids: Iterable[str]) -> dict[str, str]:
        """The message id of the newest entry of each of these instances as it is stored, if there is one."""
        with self._database.read() as conn:
            rows = conn.execute(
                "SELECT sop_instance_uid, message_id FROM instance"
                f" JOIN outbox ON outbox.id = (SELECT max(id) FROM outbox WHERE {ITS_EVENT})"
                " WHERE sop_instance_uid IN (SELECT value FROM json_each(:uids))",
                {"uids": json.dumps(list(sop_instance_uids))},
            )
            return {str(row["sop_instance_uid"]): str(row["message_id"]) for row in rows}

    def totals(self) -> dict[str, int]:
        """The numbers of studies, series, instances and bytes."""
        with self._database.read() as conn:
            row = conn.execute(
                "SELECT study_count AS studies, series_count AS series, instance_count AS instances,"
                " byte_count AS bytes FROM total"
            ).fetchone()
        return dict(row)

    def _study(self, conn: sqlite3.Connection, data_set: DicomJson, found: Identity, receipt: Receipt) -> int:
        uid = {"uid": found.study_instance_uid}
        row = conn.execute("SELECT id FROM study WHERE study_instance_uid = :uid", uid).fetchone()
        # The attributes of a study are those of its first image; a later one changes none of them.
        if row is not None:
            return int(row["id"])
        conn.execute("UPDATE total SET study_count = study_count + 1")
        inserted = conn.execute(
            "INSERT INTO study (study_instance_uid, patient_id, patient_name, patient_birth_date, patient_sex,"
            " accession_number, study_date, study_time, study_id, study_description, referring_physician,"
            " first_received_at, last_received_at, data_set) VALUES (:uid, :patient_id, :patient_name,"
            " :patient_birth_date, :patient_sex, :accession_number, :study_date, :study_time, :study_id,"
            " :study_description, :referring_physician, :now, :now, :data_set)",
            {
                **uid,
                "patient_id": column_value(Kind.TEXT, text(data_set, "PatientID")),
                "patient_name": column_value(Kind.NAME, text(data_set, "PatientName")),
                "patient_birth_date": column_value(Kind.DATE, text(data_set, "PatientBirthDate")),
                "patient_sex": column_value(Kind.TEXT, text(data_set, "PatientSex")),
                "accession_number": column_value(Kind.TEXT, text(data_set, "AccessionNumber")),
                "study_date": column_value(Kind.DATE, text(data_set, "StudyDate")),
                "study_time": column_value(Kind.TIME, text(data_set, "StudyTime")),
                "study_id": column_value(Kind.TEXT, text(data_set, "StudyID")),
                "study_description": column_value(Kind.TEXT, text(data_set, "StudyDescription")),
                "referring_physician": column_value(Kind.NAME, text(data_set, "ReferringPhysicianName")),
                "now": receipt.received_at,
                "data_set": _packed({tag: data_set[tag] for tag in _STUDY_TAGS if tag in data_set}),
            },
        )
        return int(inserted.lastrowid or 0)

    def _series(self, conn: sqlite3.Connection, data_set: DicomJson, found: Identity, study: int) -> int:
        key = {"study": study, "uid": found.series_instance_uid}
        row = conn.execute(
            "SELECT id FROM series WHERE study_id = :study AND series_instance_uid = :uid", key
        ).fetchone()
        if row is not None:
            return int(row["id"])
        conn.execute("UPDATE study SET series_count = series_count + 1 WHERE id = :study", key)
        conn.execute("UPDATE total SET series_count = series_count + 1")
        request = next(iter(items(data_set, "RequestAttributesSequence")), {})
        inserted = conn.execute(
            "INSERT INTO series (study_id, series_instance_uid, modality, series_number, series_description,"
            " pps_start_date, pps_start_time, sps_id, requested_procedure_id, data_set)"
            " VALUES (:study, :uid, :modality, :series_number, :series_description, :pps_start_date, :pps_start_time,"
            " :sps_id, :requested_procedure_id, :data_set)",
            {
                **key,
                "modality": column_value(Kind.TEXT, text(data_set, "Modality")),
                "series_number": column_value(Kind.NUMBER, text(data_set, "SeriesNumber")),
                "series_description": column_value(Kind.TEXT, text(data_set, "SeriesDescription")),
                "pps_start_date": column_value(Kind.DATE, text(data_set, "PerformedProcedureStepStartDate")),
                "pps_start_time": column_value(Kind.TIME, text(data_set, "PerformedProcedureStepStartTime")),
                "sps_id": column_value(Kind.TEXT, text(request, "ScheduledProcedureStepID")),
                "requested_procedure_id": column_value(Kind.TEXT, text(request, "RequestedProcedureID")),
                "data_set": _packed({tag: data_set[tag] for tag in _SERIES_TAGS if tag in data_set}),
            },
        )
        return int(inserted.lastrowid or 0)


_UID_COLUMNS = {
    "study_instance_uid": "study.study_instance_uid",
    "series_instance_uid": "series.series_instance_uid",
    "sop_instance_uid": "instance.sop_instance_uid",
}


def unpacked(stored: bytes) -> DicomJson:
    """Read the data set column of a row."""
    found: DicomJson = json.loads(plain(stored))
    return found


def plain(stored: bytes) -> bytes:
    """The data set column of a row as JSON text in UTF-8."""
    # A data set in JSON begins with a brace, a zlib stream never does.
    return stored if stored[:1] == b"{" else zlib.decompress(stored)


def _packed(data_set: Mapping[str, object]) -> bytes:
    # Half a surrogate pair, which a damaged text may decode to, must not cost the image.
    written = json.dumps(data_set, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return written if len(written) < COMPRESS_FROM else zlib.compress(written, 1)


def _answer(row: sqlite3.Row) -> DicomJson:
    names = row.keys()
    answer: DicomJson = {}
    for name in ("study_data_set", "series_data_set", "instance_data_set"):
        if name in names:
            answer.update(unpacked(row[name]))
    if "patient_data_set" in names:
        latest = unpacked(row["patient_data_set"])
        answer.update({tag: value for tag, value in latest.items() if tag.startswith("0010")})
        answer["00201200"] = {"vr": "IS", "Value": [row["patient_study_count"]]}
        answer["00201202"] = {"vr": "IS", "Value": [row["patient_series_count"]]}
        answer["00201204"] = {"vr": "IS", "Value": [row["patient_instance_count"]]}
    if "modalities" in names:
        answer["00080061"] = {"vr": "CS", "Value": row["modalities"].split("\\")} if row["modalities"] else {"vr": "CS"}
        answer["00201206"] = {"vr": "IS", "Value": [row["series_count"]]}
        answer["00201208"] = {"vr": "IS", "Value": [row["instance_count"]]}
    if "series_instance_count" in names:
        answer["00201209"] = {"vr": "IS", "Value": [row["series_instance_count"]]}
    # DICOM JSON is UTF-8 (PS3.18 F.1.1); the data set's own character set no longer applies.
    answer["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
    return answer
