"""Moves objects into the quarantine, and carries out an operator's decisions about them.

* A command records a decision; the pacs process carries it out (`carry_out`). Then the row is gone, or it has the
  reason why not.
* `store`: the object is received once more and then leaves the quarantine.
* `replace`: the stored object goes into the quarantine first, with the name of the person who decided.
* Keeping the stored object is a decision, too (`Quarantine.settle`): both files stay, and a decision that is not
  carried out yet is taken back.
* An object leaves the quarantine after it is in its place. After a crash the next call goes on.

Not for: rows (`pacs.archive.quarantine_rows`).
"""

from datetime import datetime
from pathlib import Path

import structlog
from pydicom.filereader import read_file_meta_info

from gateway.errors import Conflict, InvalidDataSet, OutOfResources, Refusal
from gateway.sqlite import utc_text
from pacs.archive.archive import Archive
from pacs.archive.files import Files, digest, quarantine_name
from pacs.archive.index import Receipt
from pacs.archive.maintenance_rows import Kept, MaintenanceRows
from pacs.archive.quarantine_rows import SetAside
from pacs.archive.receiving import ObjectOrigin

_CHUNK_BYTES = 1 << 20
_BEFORE_META = 128 + 4 + 12
"""Preamble, "DICM" and File Meta Information Group Length, which counts from there (PS3.10 7.1)."""

log = structlog.get_logger()


def receive_again(archive: Archive, path: Path, *, calling_ae_title: str, why: str, now: datetime) -> str:
    """Receive a Part 10 file like an object of a modality; return its UID. Raises a Refusal; then nothing has changed.

    `why` takes the place of the association in row and log.
    """
    # Not a row for the file as it lies there, because there is one path into the archive, with every check and sync.
    origin, offset = _origin(path, calling_ae_title, why)
    receiving = archive.receive(origin, now=now)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            while data := file.read(_CHUNK_BYTES):
                receiving.write(memoryview(data))
        receiving.finish()
    except BaseException:
        receiving.discard()
        raise
    return origin.sop_instance_uid


def set_aside(archive: Archive, files: Files, path: Path, *, reason: str, now: datetime) -> None:
    """Move a file without a row into the quarantine, row first."""
    sha256 = digest(path)
    _record(archive, announced(path), quarantine_name(path, sha256), sha256=sha256, reason=reason, now=now)
    files.set_aside(path, sha256)


def record(archive: Archive, path: Path, *, reason: str, now: datetime) -> None:
    """Make a row for a file that lies in the quarantine without one."""
    _record(archive, announced(path), path.name, sha256=digest(path), reason=reason, now=now)


def announced(path: Path) -> str:
    """The SOP Instance UID in a file's header; '' when it is damaged."""
    try:
        return _origin(path, "", "")[0].sop_instance_uid
    except InvalidDataSet:
        return ""


def carry_out(archive: Archive, files: Files, *, now: datetime) -> None:
    """Carry out the decisions of operators; a failed one gets its reason. Only for the process that owns the folder."""
    # Only there, because no other process can hold the turn of a UID whose image may be arriving at this moment.
    with files.changeable() as changeable:
        for found in archive.quarantine.decided() if changeable else ():
            try:
                _carry_out(archive, files, found, now=now)
            except OutOfResources:
                raise  # the decision is kept, because a full disk will pass
            except (Refusal, OSError) as error:
                archive.quarantine.refuse(found.id, str(error))
                log.warning("decision not carried out", sop_instance_uid=found.sop_instance_uid, reason=str(error))


def _carry_out(archive: Archive, files: Files, found: SetAside, *, now: datetime) -> None:
    # A decision may have been taken back since the list was read.
    with archive.read() as conn:
        if not archive.quarantine.stands(conn, found):
            return
    path = archive.quarantine.path(found)
    known = MaintenanceRows(archive).kept(found.sop_instance_uid)
    if known is None or known.sha256 != found.sha256:
        _require_sound(path, found)
        if known is not None and not _made_way(archive, files, known, found, now=now):
            return
        receive_again(archive, path, calling_ae_title=found.calling_ae_title, why="quarantine", now=now)
    path.unlink(missing_ok=True)
    archive.quarantine.forget(found.id)
    log.info(
        "released from quarantine",
        sop_instance_uid=found.sop_instance_uid,
        decision=found.decision,
        decided_by=found.decided_by,
    )


def _require_sound(path: Path, found: SetAside) -> None:
    """Refuse a quarantined file that is damaged or of another instance, before a stored object makes way for it."""
    if digest(path) != found.sha256:
        raise Conflict("The file in the quarantine is not what was set aside; it is damaged and cannot be stored.")
    if _origin(path, "", "")[0].sop_instance_uid != found.sop_instance_uid:
        raise Conflict("The file in the quarantine is of another instance than its row says; it cannot be stored.")


def _made_way(archive: Archive, files: Files, known: Kept, found: SetAside, *, now: datetime) -> bool:
    """Link the stored file into the quarantine, then take its row out of the index.

    False when the decision was taken back meanwhile; then nothing has changed.
    """
    # The file stays in the tree as an orphan, which the following receipt replaces. A crash in between leaves both.
    uid = known.sop_instance_uid
    if found.decision != "replace":
        raise Conflict(f"Another object is stored under {uid}. To put this one in its place, say --replace.")
    stored = files.path(uid)
    name = quarantine_name(stored, known.sha256)
    receipt, reason = _receipt(known.sha256, now), f"Replaced on {utc_text(now)} by decision of {found.decided_by}."
    with archive.turn(uid):
        is_there = stored.exists()
        is_new = is_there and files.copy_aside(stored, name)
        with archive.write() as conn:
            stands = archive.quarantine.stands(conn, found)
            if stands and is_there:
                archive.quarantine.add(conn, sop_instance_uid=uid, file_name=name, receipt=receipt, reason=reason)
            if stands:
                MaintenanceRows(archive).take_out(conn, uid)
        if is_new and not stands:
            (files.quarantine / name).unlink()
    return stands


def _record(archive: Archive, uid: str, name: str, *, sha256: str, reason: str, now: datetime) -> None:
    receipt = _receipt(sha256, now)
    with archive.write() as conn:
        archive.quarantine.add(conn, sop_instance_uid=uid, file_name=name, receipt=receipt, reason=reason)


def _receipt(sha256: str, now: datetime) -> Receipt:
    return Receipt("", 0, 0, sha256, "", "", utc_text(now))


def _origin(path: Path, calling_ae_title: str, why: str) -> tuple[ObjectOrigin, int]:
    """The identity in a file's header, and the offset of its data set."""
    try:
        meta = read_file_meta_info(path)
        origin = ObjectOrigin(
            sop_class_uid=str(meta.MediaStorageSOPClassUID),
            sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            calling_ae_title=calling_ae_title,
            association_id=why,
        )
        return origin, _BEFORE_META + int(meta.FileMetaInformationGroupLength)
    except OSError:
        raise
    except Exception as error:  # a parser fed with garbage raises whatever it stumbles over
        raise InvalidDataSet("The file has no readable File Meta Information; it is damaged.") from error
