"""The archive: one way in for images, and everything that is asked of them.

Receiving one instance, in the order that makes Success true:

1. The data set is streamed to `incoming/` behind a Part 10 header of ours, and hashed on the way.
2. Its attributes are read and checked: complete, identified, and the class and instance the sender announced.
3. The file is synced, linked to its place without overwriting, the folder synced.
4. Index row and outbox row are committed, synced, in one transaction. Only then `finish` returns, and Success is sent.

Killed before 4, the sender was never told Success and will send again: a file that no row knows is replaced by the next
receipt, and the next start sets it aside. Killed after 4, everything is there, and the same object sent again is
recognised: identical means Success without a second event. A different object under a known UID never replaces what is
kept; it goes to the quarantine, the cloud is told, and the sender gets a failure.
"""

import hashlib
import os
import queue
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files as resources
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Self

import structlog
from pydicom import Dataset, dcmread

from gateway import outbox
from gateway.errors import ClassMismatch, Conflict, InvalidDataSet, OutOfResources
from gateway.matching import conditions, ignored
from gateway.messages import PRIORITY, EventParameters, ImageQuarantined, ImageReceived
from gateway.outbox import Outbox
from gateway.sqlite import Database, utc_text
from gateway.volume import USUAL_WATERMARKS, Fullness, Watermarks, volume_of
from pacs.attributes import INLINE_BYTES, CutOff, Json, TooMuch, read_attributes, text
from pacs.files import Files, announced_uid, digest, part10_header, quarantine_name
from pacs.index import KEYS, Identity, Index, Level, Receipt, identity, is_uid
from pacs.telling import image_received
from pacs.upkeep import Upkeep

INLINE_HASH_BYTES = 4_000_000
"""Up to here the receiving thread hashes what it writes; above, a second thread follows it through the page cache."""

_FOLLOW_BYTES = 1 << 20

_SECOND_OPINION_BYTES = 1 << 20
"""Up to here an object's pixels have begun, as a rule; pydicom takes a hundred times the memory of what it reads."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stored:
    """One instance that is kept. `data_set_offset` bytes of Part 10 header stand before the received data set."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    path: Path
    size_bytes: int
    sha256: str
    frames: int
    received_at: str
    calling_ae_title: str
    data_set_offset: int
    instance_number: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sent an object and what it was announced as."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    association_id: str


class Archive:
    """Files and index together. `Archive.open` for the pacs process, `Archive.attach` for everybody else."""

    def __init__(self, database: Database, files: Files, watermarks: Watermarks) -> None:
        self.database = database
        self.files = files
        self.watermarks = watermarks
        self.index = Index(database)
        self.upkeep = Upkeep(database)
        self.outbox = Outbox(database)
        self._busy = _Turns()

    @classmethod
    def open(cls, database_path: Path, storage_path: Path, watermarks: Watermarks = USUAL_WATERMARKS) -> Self:
        """Open as the one process that writes: migrate, lock the folders, clean up after a crash.

        Raises AlreadyServed when another pacs process is running, DatabaseNotReady when a newer one has been.
        """
        archive = cls(_database(database_path), Files(storage_path), watermarks)
        archive.files.open()
        archive.database.migrate()
        archive.sweep(now=datetime.now(UTC))
        return archive

    @classmethod
    def attach(cls, database_path: Path, storage_path: Path, watermarks: Watermarks = USUAL_WATERMARKS) -> Self:
        """Open beside the pacs process, to read and to settle its outbox. Raises DatabaseNotReady until it has run."""
        archive = cls(_database(database_path), Files(storage_path), watermarks)
        archive.database.check()
        return archive

    def close(self) -> None:
        """End all connections."""
        self.database.close()

    # ---- in ----------------------------------------------------------------------------------------------------------

    def receive(self, origin: Origin, *, now: datetime) -> "Receiving":
        """Begin to take an object. Raises InvalidDataSet for a UID that is none, OutOfResources for a full disk."""
        if not is_uid(origin.sop_instance_uid):
            raise InvalidDataSet("The announced SOP Instance UID is missing or is not a UID.")
        self._require_room()
        return Receiving(self, origin, now)

    def keep(self, part: Path, data_set: Json, receipt: Receipt, *, now: datetime) -> None:
        """Give a complete, synced file its place, row and event. Raises Conflict when the UID has other content."""
        found = identity(data_set)
        with self.turn(found.sop_instance_uid):
            known = self.index.digest(found.sop_instance_uid)
            if known is None:
                self._enter(part, data_set, found, receipt, now=now)
            elif known == receipt.sha256:
                self._again(part, found, receipt)
            else:
                self._quarantine(part, data_set, found, receipt, now=now)

    def tell_again(self, sop_instance_uid: str, *, now: datetime) -> None:
        """Owe the cloud the event of a stored instance, in case no entry tells of it. Raises NotFound."""
        row = self.index.locate(sop_instance_uid=sop_instance_uid)[0]
        receipt = Receipt(
            **{name: row[name] for name in Receipt.__slots__ if name != "association_id"}, association_id=""
        )
        for data_set in self.index.data_sets({"sop_instance_uid": sop_instance_uid}):
            with self.database.write() as conn:
                self._tell(conn, image_received(data_set, identity(data_set), receipt), now=now)

    def turn(self, sop_instance_uid: str) -> AbstractContextManager[None]:
        """Be the only thread of this process that deals with the file of an instance."""
        return self._busy.turn(sop_instance_uid)

    def sweep(self, *, now: datetime) -> None:
        """Clean up what a process that was killed has left in `incoming` (see the order at the top)."""
        for part in self.files.leftovers():
            try:
                if self.files.is_linked(part):
                    self._sweep_linked(part, now=now)
                part.unlink()  # if it was never linked, it was never acknowledged: a rest of a transfer
            except (OSError, OutOfResources) as error:
                # A full or failing disk must not keep the archive from serving; the next start tries again.
                log.warning("leftover not swept", file=part.name, reason=str(error))

    # ---- out ---------------------------------------------------------------------------------------------------------

    def find(self, level: Level, identifier: Dataset, *, limit: int | None = None, offset: int = 0) -> list[Json]:
        """Answer a query: the data sets of the level with the attributes above it and the counts, as DICOM JSON.

        `identifier` is what a C-FIND carries (PS3.4 C.4.1.1.3) without the level. Raises InvalidQuery.
        """
        return self.index.find(level, conditions(identifier, KEYS[level]), limit=limit, offset=offset)

    def unmatched(self, level: Level, identifier: Dataset) -> list[str]:
        """Name the keys of a query that `find` does not apply, because nothing is indexed that could match them."""
        return ignored(identifier, KEYS[level])

    def locate(
        self, study_instance_uid: str, series_instance_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> list[Stored]:
        """The instances of a study, series or instance, in the order of their numbers. Raises NotFound for none."""
        uids = _uids(study_instance_uid, series_instance_uid, sop_instance_uid)
        return [self._stored(**dict(row)) for row in self.index.locate(**uids)]

    def instance(self, sop_instance_uid: str) -> Stored:
        """One instance by its UID alone. Raises NotFound."""
        return self._stored(**dict(self.index.locate(sop_instance_uid=sop_instance_uid)[0]))

    def select(self, identifier: Dataset) -> list[Stored]:
        """The instances that an identifier's keys of any level choose, in the order of their numbers; may be none.

        Raises InvalidQuery.
        """
        return [self._stored(**dict(row)) for row in self.index.select(conditions(identifier, KEYS["IMAGE"]))]

    def metadata(
        self, study_instance_uid: str, series_instance_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> Iterator[Json]:
        """The data sets of instances without bulk data, as DICOM JSON; NotFound is raised at the first one.

        Bulk data stands as `{"vr": ..., "BulkDataURI": path}`, the path being tags and item numbers within the data
        set; the caller makes it absolute.
        """
        return self.index.data_sets(_uids(study_instance_uid, series_instance_uid, sop_instance_uid))

    def statistics(self) -> dict[str, int]:
        """How many studies, series, instances and bytes are kept."""
        return self.index.totals()

    def latest(self, limit: int) -> list[Stored]:
        """What came last, newest first."""
        return [self._stored(**dict(row)) for row in self.index.latest(limit)]

    def _stored(self, *, frame_count: int, sop_instance_uid: str, **values: object) -> Stored:
        path = self.files.path(sop_instance_uid)
        return Stored(sop_instance_uid=sop_instance_uid, frames=frame_count, path=path, **values)  # type: ignore[arg-type]

    def _require_room(self) -> None:
        with _resources("stored"):
            volume = volume_of(self.files.root)
        if volume.fullness(self.watermarks) is Fullness.TOO_FULL:
            raise OutOfResources(
                f"The image volume is {volume.used_percent:.0f} % full and takes no more from"
                f" {self.watermarks.stop_percent:g} % on. Make room, for example with 'gateway prune'."
            )

    # ---- the steps of receiving --------------------------------------------------------------------------------------

    def _enter(self, part: Path, data_set: Json, found: Identity, receipt: Receipt, *, now: datetime) -> None:
        try:
            self._place(part, found.sop_instance_uid)
            event = image_received(data_set, found, receipt)
            with self.database.write() as conn:
                self.index.add(conn, data_set, found, receipt)
                self._tell(conn, event, now=now)
        except BaseException:
            self.files.path(found.sop_instance_uid).unlink(missing_ok=True)
            raise
        part.unlink()
        log.info(
            "instance stored",
            sop_instance_uid=found.sop_instance_uid,
            sop_class_uid=found.sop_class_uid,
            study_instance_uid=found.study_instance_uid,
            accession_number=text(data_set, "00080050"),
            size_bytes=receipt.size_bytes,
            association=receipt.association_id,
        )

    def _place(self, part: Path, sop_instance_uid: str) -> None:
        try:
            self.files.keep(part, sop_instance_uid)
        except FileExistsError:
            # No row knows it (we looked, holding the turn of this UID): nobody was told that it is stored.
            log.warning("orphan replaced", sop_instance_uid=sop_instance_uid)
            self.files.replace(part, sop_instance_uid)

    def _again(self, part: Path, found: Identity, receipt: Receipt) -> None:
        """The same object once more: nothing new, but if its file was lost or damaged, here it is again."""
        uid = found.sop_instance_uid
        path, damaged = self.files.path(uid), self.upkeep.is_damaged(uid)
        if damaged or not path.exists() or path.stat().st_size != receipt.size_bytes:
            self.files.replace(part, uid)
            self.upkeep.report_well(uid)
            log.warning("lost file restored by its sender", sop_instance_uid=uid)
        part.unlink()
        log.info("instance already stored", sop_instance_uid=found.sop_instance_uid)

    def _quarantine(self, part: Path, data_set: Json, found: Identity, receipt: Receipt, *, now: datetime) -> None:
        reason = "A different object with this SOP Instance UID is stored already."
        event = ImageQuarantined(
            accession_number=text(data_set, "00080050"),
            study_instance_uid=found.study_instance_uid,
            sop_instance_uid=found.sop_instance_uid,
            sha256=receipt.sha256,
            reason=reason,
        )
        name = self.files.set_aside(part, receipt.sha256)
        with self.database.write() as conn:
            self.index.add_to_quarantine(
                conn, sop_instance_uid=found.sop_instance_uid, file_name=name, receipt=receipt, reason=reason
            )
            self._owe(conn, event, now=now)
        raise Conflict(f"SOP instance {found.sop_instance_uid} is stored with other content; this one is quarantined.")

    def _tell(self, conn: sqlite3.Connection, event: ImageReceived, *, now: datetime) -> None:
        """Owe the event of an image; with a second id when the usual one told of an earlier stay or other content."""
        if not self._owe(conn, event, now=now):
            self._owe(conn, event, now=now, message_id=f"{event.message_id}/{event.image.sha256[:16]}")

    def _owe(self, conn: sqlite3.Connection, event: EventParameters, *, now: datetime, message_id: str = "") -> bool:
        return self.outbox.put(
            conn,
            message_id=message_id or event.message_id,
            message_type=event.message_type,
            subject=event.subject,
            priority=PRIORITY[event.message_type],
            parameters=event.model_dump(mode="json"),
            now=now,
        )

    def _sweep_linked(self, part: Path, *, now: datetime) -> None:
        """Set a file aside whose receipt was cut off between link and commit; after the commit it stays.

        Row, file, and by the caller the name in `incoming`: killed in between, the next start goes on from there. One
        whose header is damaged stays too: it was synced before it was linked, so it may be one that is acknowledged.
        """
        uid = announced_uid(part)
        if not uid or self.index.digest(uid) is not None:
            return
        sha256, target = digest(part), self.files.path(uid)
        name = quarantine_name(target, sha256)
        receipt = Receipt("", part.stat().st_size, 0, sha256, "", "", utc_text(now))
        reason = "The service ended before the sender was told that this object is stored."
        with self.database.write() as conn:
            self.index.add_to_quarantine(conn, sop_instance_uid=uid, file_name=name, receipt=receipt, reason=reason)
        self.files.set_aside(target, sha256)
        log.warning("orphan set aside", sop_instance_uid=uid, file=name)


class Receiving:
    """One object on its way in; the `Incoming` of the listener. One thread writes, then finishes or discards."""

    def __init__(self, archive: Archive, origin: Origin, now: datetime) -> None:
        self.archive = archive
        self.origin = origin
        self.now = now
        self._header = part10_header(origin.sop_class_uid, origin.sop_instance_uid, origin.transfer_syntax_uid)
        self._hash = hashlib.sha256(self._header)
        self._follower: _Follower | None = None
        self._size = 0
        with _resources("stored"):
            self.part, self._file = archive.files.begin(origin.sop_instance_uid)
        try:
            self._append(memoryview(self._header))
        except BaseException:
            self.discard()
            raise

    def write(self, data: memoryview) -> None:
        """Append a piece to the file. Raises OutOfResources when the disk does not take it."""
        self._append(data)
        if self._follower is not None:
            self._follower.follow(self._size)
        elif self._size > INLINE_HASH_BYTES:
            self._follower = _Follower(self._file, self._hash, self._size - len(data))
            self._follower.follow(self._size)
        else:
            self._hash.update(data)

    def _append(self, data: memoryview) -> None:
        with _resources("stored"):
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        self._size += len(data)

    def finish(self) -> None:
        """Make it safe, see the module's four steps. Raises a Refusal; then `discard` has to be called."""
        with _resources("kept"):
            data_set = self._attributes()
            self._check(identity(data_set))
            os.fsync(self._file)
            receipt = Receipt(
                transfer_syntax_uid=self.origin.transfer_syntax_uid,
                size_bytes=self._size,
                data_set_offset=len(self._header),
                sha256=self._digest(),
                calling_ae_title=self.origin.calling_ae_title,
                association_id=self.origin.association_id,
                received_at=utc_text(self.now),
            )
            self._close()
            self.archive.keep(self.part, data_set, receipt, now=self.now)

    def discard(self) -> None:
        """Drop what has come so far. What cannot be removed now is removed at the next start."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self.part.unlink(missing_ok=True)

    def _attributes(self) -> Json:
        with (
            mmap(self._file, self._size, access=ACCESS_READ) as mapped,
            memoryview(mapped) as view,
            view[len(self._header) :] as data_set,
        ):
            try:
                return read_attributes(data_set, self.origin.transfer_syntax_uid)
            except (CutOff, TooMuch):
                raise
            except InvalidDataSet as refusal:
                return _read_by_pydicom(self.part, refusal)

    def _check(self, found: Identity) -> None:
        if found.sop_class_uid != self.origin.sop_class_uid:
            raise ClassMismatch("SOP Class UID differs between data set and C-STORE request.")
        if found.sop_instance_uid != self.origin.sop_instance_uid:
            raise ClassMismatch("SOP Instance UID differs between data set and C-STORE request.")

    def _digest(self) -> str:
        if self._follower is not None:
            self._follower.finish()
        return self._hash.hexdigest()

    def _close(self) -> None:
        try:
            if self._follower is not None:
                self._follower.finish()
        finally:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1


class _Follower:
    """Hashes a file behind the thread that writes it, out of the page cache."""

    def __init__(self, file: int, hash_so_far: "hashlib._Hash", start: int) -> None:
        self._file = file
        self._hash = hash_so_far
        self._at = start
        self._told = self._last = start
        self._ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._error: OSError | None = None
        self._buffer = memoryview(bytearray(_FOLLOW_BYTES))
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def follow(self, end: int) -> None:
        """The file has grown to `end` bytes."""
        if end - self._told >= _FOLLOW_BYTES:
            self._ends.put(end)
            self._told = end
        self._last = end

    def finish(self) -> None:
        """Wait until everything is hashed. Raises OSError when the file could not be read back."""
        if self._thread.is_alive():
            self._ends.put(self._last)
            self._ends.put(None)
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        buffer = self._buffer
        try:
            while (end := self._ends.get()) is not None:
                while self._at < end:
                    count = os.preadv(self._file, [buffer[: end - self._at]], self._at)
                    self._hash.update(buffer[:count])
                    self._at += count
        except OSError as error:
            self._error = error


class _Turns:
    """Lets one thread at a time deal with the same UID, and different UIDs pass each other."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken: set[str] = set()

    @contextmanager
    def turn(self, uid: str) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: uid not in self._taken)
            self._taken.add(uid)
        try:
            yield
        finally:
            with self._condition:
                self._taken.remove(uid)
                self._condition.notify_all()


@contextmanager
def _resources(what: str) -> Iterator[None]:
    """Whatever the disk refuses becomes A700: the sender keeps the object and tries again."""
    try:
        yield
    except OSError as error:
        raise OutOfResources(f"The object cannot be {what}: {error.strerror or type(error).__name__}.") from error


def _read_by_pydicom(path: Path, refusal: InvalidDataSet) -> Json:
    """Second opinion on a data set our walker refused. Raises that refusal if pydicom cannot read it either.

    It sees as much of the file as it can read with little memory, even if that is one empty item after another.
    """
    try:
        with path.open("rb") as file:
            data_set = dcmread(BytesIO(file.read(_SECOND_OPINION_BYTES)), stop_before_pixels=True)
        return data_set.to_json_dict(
            bulk_data_threshold=INLINE_BYTES, bulk_data_element_handler=lambda element: f"{element.tag:08X}"
        )
    except Exception:  # noqa: BLE001  a parser fed with garbage raises whatever it stumbles over
        raise refusal from None


def _database(path: Path) -> Database:
    return Database(path, outbox.SCHEMA, resources("pacs") / "schema")


def _uids(study: str, series: str | None, instance: str | None) -> dict[str, str]:
    given = {"study_instance_uid": study, "series_instance_uid": series, "sop_instance_uid": instance}
    return {name: uid for name, uid in given.items() if uid is not None}
