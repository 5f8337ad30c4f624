"""`Archive`: files and index together. The one path into the archive, and every query of it.

Receiving one instance, in the order that makes Success true:

1. The data set is streamed to `incoming/` behind a Part 10 header of ours, and hashed on the way.
2. Its attributes are read and checked: complete, identified, of the announced class and instance.
3. The file is synced, linked to its place without overwriting, the folder synced.
4. Index row and outbox row are committed and synced in one transaction. Then `finish` returns, and Success is sent.

The same object again is recognised: Success without a second event. A different object under a known UID never
replaces the stored one: it goes to the quarantine with an event, and the sender gets a failure.

Not for: the bytes of a receipt (`receiving`), places of files (`files`), statements (`index`, `*_rows`).
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files as resources
from pathlib import Path
from typing import BinaryIO, Self

import structlog
from pydicom import Dataset

from gateway import outbox
from gateway.dataset.dicom_json import DicomJson, verbatim
from gateway.disk_space import USUAL_WATERMARKS, Fullness, Volume, Watermarks, volume_of
from gateway.errors import Conflict, InvalidDataSet, NotFound, OutOfResources, Unsettled
from gateway.messages import ImageQuarantined, ImageReceived
from gateway.outbox import Owner
from gateway.query.conditions import AnyOf
from gateway.query.matching import column_value, conditions, ignored
from gateway.sqlite import Database, utc_text
from pacs.archive.files import Files, announced_uid, digest, quarantine_name
from pacs.archive.identity import Identity, identity, is_uid
from pacs.archive.image_event import image_received
from pacs.archive.index import KEYS, Index, Level, Receipt, plain
from pacs.archive.listing import Listing
from pacs.archive.maintenance_rows import MaintenanceRows, Pass
from pacs.archive.quality_rows import QualityRows
from pacs.archive.quarantine_rows import Quarantine
from pacs.archive.receiving import ObjectOrigin, Receiving, disk_refusals
from pacs.archive.turns import Turns

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored instance. `data_set_offset` bytes of Part 10 header stand before the received data set."""

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
class Condition:
    """The condition of the files: how many are known to be damaged, and the progress of the scrub."""

    damaged: int
    scrub: Pass


class Archive(Owner):
    """Files and index together. `Archive.open` for the pacs process, `Archive.attach` for every other.

    Its parts: `listing` has plain lists for pages and scripts, `quarantine` the quarantined objects and the decisions
    about them, `quality` the reported quality of whole exams; `outbox` and `changed_exams` as every owner has.
    """

    listing: Listing
    quarantine: Quarantine
    quality: QualityRows
    watermarks: Watermarks

    def __init__(self, database: Database, files: Files, watermarks: Watermarks) -> None:
        super().__init__(database)
        self.listing = Listing(database)
        self.quarantine = Quarantine(database, files.quarantine)
        self.quality = QualityRows(database, self.outbox)
        self.watermarks = watermarks
        self._files = files
        self._index = Index(database)
        self._maintenance = MaintenanceRows(database)
        self._turns = Turns()

    @classmethod
    def open(cls, database_path: Path, storage_path: Path, watermarks: Watermarks = USUAL_WATERMARKS) -> Self:
        """Open as the one process that writes: migrate, lock the folders, clean up after a crash.

        Raises AlreadyServed when another pacs process is running, DatabaseNotReady when a newer one has been.
        """
        archive = cls(_database(database_path), Files(storage_path), watermarks)
        archive._files.open()
        archive._database.migrate()
        archive.sweep(now=datetime.now(UTC))
        return archive

    @classmethod
    def attach(cls, database_path: Path, storage_path: Path, watermarks: Watermarks = USUAL_WATERMARKS) -> Self:
        """Open beside the pacs process, to read and to settle its outbox. Raises DatabaseNotReady until it has run."""
        archive = cls(_database(database_path), Files(storage_path), watermarks)
        archive._database.check()
        return archive

    def close(self) -> None:
        """End all connections, and release the lock of the folders if this process held it."""
        super().close()
        self._files.close()

    # ---- in ----------------------------------------------------------------------------------------------------------

    def receive(self, origin: ObjectOrigin, *, now: datetime) -> Receiving:
        """Begin to receive an object. Raises InvalidDataSet for a malformed UID, OutOfResources for a full disk."""
        if not is_uid(origin.sop_instance_uid):
            raise InvalidDataSet("The announced SOP Instance UID is missing or is not a UID.")
        self._require_room()
        return Receiving(self._files, origin, now=now, keep=self.keep)

    def keep(self, part: Path, data_set: DicomJson, receipt: Receipt, *, now: datetime) -> None:
        """Give a complete, synced file its place, row and event. Raises Conflict when the UID has other content."""
        found = identity(data_set)
        # The turn makes reading the index and entering the row one step for this UID, while other UIDs pass.
        with self.turn(found.sop_instance_uid):
            known = self._index.digest(found.sop_instance_uid)
            if known is None:
                self._enter(part, data_set, found, receipt, now=now)
            elif known == receipt.sha256:
                self._again(part, found, receipt)
            else:
                self._quarantine(part, data_set, found, receipt, now=now)

    def enqueue_event(self, sop_instance_uid: str, *, now: datetime) -> None:
        """Enqueue the event of a stored instance that has none. Raises NotFound."""
        row = self._index.locate(sop_instance_uid=sop_instance_uid)[0]
        receipt = Receipt(
            **{name: row[name] for name in Receipt.__slots__ if name != "association_id"}, association_id=""
        )
        for data_set in self._index.data_sets({"sop_instance_uid": sop_instance_uid}):
            with self._database.write() as conn:
                self._enqueue(conn, image_received(data_set, identity(data_set), receipt), now=now)

    def telling(self, sop_instance_uids: Iterable[str]) -> dict[str, str]:
        """The message id of the event of each of these instances as it is stored now, where there is one.

        It is not always the UID: other content under it, or a second stay, has an event with an id of its own.
        """
        return self._index.telling(sop_instance_uids)

    def turn(self, sop_instance_uid: str) -> AbstractContextManager[None]:
        """Hold the turn of an instance: no other thread of this process changes its file meanwhile."""
        return self._turns.turn(sop_instance_uid)

    def sweep(self, *, now: datetime) -> None:
        """Clean up the files in `incoming` that a killed process has left (see the order at the top)."""
        for part in self._files.leftovers():
            try:
                # Killed before step 3, it is only in `incoming`. Killed before step 4, or left by `Unsettled`, only the
                # index can say whether it was stored.
                if self._files.is_linked(part):
                    self._sweep_linked(part, now=now)
                elif self._files.is_aside(part):
                    self._sweep_aside(part, now=now)
                part.unlink()  # never linked means never acknowledged, so its sender still has it
            except (OSError, OutOfResources) as error:
                # A full or failing disk must not keep the archive from serving; the next start tries again.
                log.warning("leftover not swept", file=part.name, reason=str(error))

    # ---- out ---------------------------------------------------------------------------------------------------------

    def find(self, level: Level, identifier: Dataset, *, limit: int | None = None, offset: int = 0) -> list[DicomJson]:
        """Answer a query: the data sets of the level with the attributes above it and the counts, as DICOM JSON.

        `identifier` is what a C-FIND carries (PS3.4 C.4.1.1.3) without the level. Raises InvalidQuery.
        """
        return self._index.find(level, conditions(identifier, KEYS[level]), limit=limit, offset=offset)

    def unmatched(self, level: Level, identifier: Dataset) -> list[str]:
        """Name the keys of a query that `find` does not apply, because nothing is indexed that could match them."""
        return ignored(identifier, KEYS[level])

    def locate(
        self, study_instance_uid: str, series_instance_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> list[Stored]:
        """The instances of a study, series or instance, in the order of their numbers. Raises NotFound for none."""
        uids = _uids(study_instance_uid, series_instance_uid, sop_instance_uid)
        return [self._stored(**dict(row)) for row in self._index.locate(**uids)]

    def instance(self, sop_instance_uid: str) -> Stored:
        """One instance by its UID alone. Raises NotFound."""
        return self._stored(**dict(self._index.locate(sop_instance_uid=sop_instance_uid)[0]))

    def content(self, sop_instance_uid: str, sha256: str) -> BinaryIO:
        """Open the stored file of an instance if its content has this digest; it stays readable when it is replaced.

        Raises NotFound, or Conflict when the stored file has another digest.
        """
        # The row goes before its file is replaced: the same row before and after means that the file was this one.
        file = self.unchanged(sop_instance_uid, sha256).path.open("rb")
        try:
            self.unchanged(sop_instance_uid, sha256)
        except BaseException:
            file.close()
            raise
        return file

    def unchanged(self, sop_instance_uid: str, sha256: str) -> Stored:
        """One instance that still has the content of this digest. Raises NotFound, or Conflict when it has not."""
        stored = self.instance(sop_instance_uid)
        if stored.sha256 != sha256:
            raise Conflict(f"The content of {sop_instance_uid} that was meant is not stored; another took its place.")
        return stored

    def select(self, identifier: Dataset) -> list[Stored]:
        """The instances that an identifier's keys of any level choose, in the order of their numbers; may be none.

        Raises InvalidQuery.
        """
        return [self._stored(**dict(row)) for row in self._index.select(conditions(identifier, KEYS["IMAGE"]))]

    def studies_under(self, accession_numbers: Iterable[str]) -> dict[str, list[str]]:
        """The Study Instance UIDs under some accession numbers, which are taken as they are, without wildcards."""
        key = next(key for key in KEYS["STUDY"] if key.path == "AccessionNumber")
        values = tuple(filter(None, (column_value(key.kind, number) for number in accession_numbers)))
        studies: dict[str, list[str]] = {}
        for study in self._index.find("STUDY", [AnyOf(key, values)], limit=None, offset=0) if values else []:
            studies.setdefault(verbatim(study, "AccessionNumber"), []).append(verbatim(study, "StudyInstanceUID"))
        return studies

    def metadata(
        self, study_instance_uid: str, series_instance_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> Iterator[DicomJson]:
        """The data sets of instances without bulk data, as DICOM JSON; NotFound is raised at the first one.

        Bulk data stands as `{"vr": ..., "BulkDataURI": path}`, the path being tags and item numbers within the data
        set; the caller makes it absolute.
        """
        return self._index.data_sets(_uids(study_instance_uid, series_instance_uid, sop_instance_uid))

    def data_set(self, sop_instance_uid: str) -> DicomJson:
        """The data set of one instance, as `metadata` gives it. Raises NotFound."""
        for data_set in self._index.data_sets({"sop_instance_uid": sop_instance_uid}):
            return data_set
        raise NotFound(f"SOP instance {sop_instance_uid} has just left the archive.")

    def received_last(self) -> datetime:
        """The time at which an object was last received, or is being received now."""
        return datetime.fromtimestamp(self._files.last_incoming(), UTC)

    def forget(self, study_instance_uid: str, *, now: datetime) -> bool:
        """Remove a study and order the removal of its files, also when events are pending; False when there is none.

        Only for the images of a self-test. The pacs process removes the files.
        """
        with self._database.write() as conn:
            study_id = self._maintenance.study_id(conn, study_instance_uid)
            if study_id is not None:
                self._maintenance.order_removal(conn, study_id, now=now)
        return study_id is not None

    def documents(self, instances: Iterable[Stored]) -> Iterator[tuple[Stored, bytes]]:
        """The data sets of located instances, each as JSON text in UTF-8, as it was written on receipt.

        Instances that are removed meanwhile are left out.
        """
        by_uid = {stored.sop_instance_uid: stored for stored in instances}
        for uid, document in self._index.documents(list(by_uid)):
            yield by_uid[uid], plain(document)

    def statistics(self) -> dict[str, int]:
        """The numbers of stored studies, series, instances and bytes."""
        return self._index.totals()

    def condition(self) -> Condition:
        """The condition of the files, as far as they were verified."""
        return Condition(self._maintenance.damaged(), self._maintenance.scrubbed())

    def latest(self, limit: int) -> list[Stored]:
        """The instances that came last, newest first."""
        return [self._stored(**dict(row)) for row in self._index.latest(limit)]

    def _stored(self, *, frame_count: int, sop_instance_uid: str, **values: object) -> Stored:
        path = self._files.path(sop_instance_uid)
        return Stored(sop_instance_uid=sop_instance_uid, frames=frame_count, path=path, **values)  # type: ignore[arg-type]

    # ---- the volume --------------------------------------------------------------------------------------------------

    def volume(self) -> Volume:
        """The fullness of the volume of the files. Raises OSError when it cannot be read."""
        return volume_of(self._files.root)

    def is_mounted(self) -> bool:
        """Whether the folder of the files is there; it is not when its volume is not mounted."""
        return self._files.incoming.is_dir()

    def lay_out(self, *, stop: Callable[[], bool]) -> None:
        """Make all folders of the tree (`Files.lay_out`). Only for the pacs process."""
        self._files.lay_out(stop=stop)

    def _require_room(self) -> None:
        with disk_refusals("stored"):
            volume = self.volume()
        if volume.fullness(self.watermarks) is Fullness.TOO_FULL:
            raise OutOfResources(
                f"The image volume is {volume.used_percent:.0f} % full and takes no more from"
                f" {self.watermarks.stop_percent:g} % on. Make room, for example with 'gateway prune'."
            )

    # ---- the steps of receiving --------------------------------------------------------------------------------------

    def _enter(self, part: Path, data_set: DicomJson, found: Identity, receipt: Receipt, *, now: datetime) -> None:
        try:
            self._place(part, found.sop_instance_uid)
            event = image_received(data_set, found, receipt)
            with self._database.write() as conn:
                self._index.add(conn, data_set, found, receipt)
                self._enqueue(conn, event, now=now)
        # A commit whose sync failed may be found in SQLite's log at the next start. Taking the file back could leave a
        # row without a file, so both names stay, and the start sees whether there is a row.
        except Unsettled:
            self._files.leave(part)
            raise
        except BaseException:
            self._files.path(found.sop_instance_uid).unlink(missing_ok=True)
            raise
        # Last, after the commit: so all that a crash leaves is found in `incoming`, and no start searches the tree.
        part.unlink()
        log.info(
            "instance stored",
            sop_instance_uid=found.sop_instance_uid,
            sop_class_uid=found.sop_class_uid,
            study_instance_uid=found.study_instance_uid,
            accession_number=verbatim(data_set, "AccessionNumber"),
            size_bytes=receipt.size_bytes,
            association=receipt.association_id,
        )

    def _place(self, part: Path, sop_instance_uid: str) -> None:
        try:
            self._files.keep(part, sop_instance_uid)
        except FileExistsError:
            # There is no row (read while holding the turn of this UID), so Success was never sent for this file.
            log.warning("orphan replaced", sop_instance_uid=sop_instance_uid)
            self._files.replace(part, sop_instance_uid)

    def _again(self, part: Path, found: Identity, receipt: Receipt) -> None:
        """The same object once more: no event, but its file replaces one that was lost or damaged."""
        uid = found.sop_instance_uid
        path, damaged = self._files.path(uid), self._maintenance.is_damaged(uid)
        if damaged or not path.exists() or path.stat().st_size != receipt.size_bytes:
            self._files.replace(part, uid)
            self._maintenance.report_well(uid)
            log.warning("lost file restored by its sender", sop_instance_uid=uid)
        part.unlink()
        log.info("instance already stored", sop_instance_uid=found.sop_instance_uid)

    def _quarantine(self, part: Path, data_set: DicomJson, found: Identity, receipt: Receipt, *, now: datetime) -> None:
        reason = "A different object with this SOP Instance UID is stored already."
        event = ImageQuarantined(
            accession_number=verbatim(data_set, "AccessionNumber"),
            study_instance_uid=found.study_instance_uid,
            sop_instance_uid=found.sop_instance_uid,
            sha256=receipt.sha256,
            reason=reason,
        )
        name = quarantine_name(part, receipt.sha256)
        is_new = self._files.copy_aside(part, name)
        try:
            with self._database.write() as conn:
                self.quarantine.add(
                    conn, sop_instance_uid=found.sop_instance_uid, file_name=name, receipt=receipt, reason=reason
                )
                self.outbox.put_event(conn, event, now=now)
        except Unsettled:
            self._files.leave(part)
            raise
        except BaseException:
            if is_new:
                (self._files.quarantine / name).unlink(missing_ok=True)
            raise
        raise Conflict(f"SOP instance {found.sop_instance_uid} is stored with other content; this one is quarantined.")

    def _enqueue(self, conn: sqlite3.Connection, event: ImageReceived, *, now: datetime) -> None:
        """Enqueue the event of an image, under a second id if the usual one is of an earlier stay or other content."""
        if not self.outbox.put_event(conn, event, now=now):
            self.outbox.put_event(conn, event, now=now, message_id=f"{event.message_id}/{event.image.sha256[:16]}")

    def _sweep_linked(self, part: Path, *, now: datetime) -> None:
        """Set a file aside whose receipt was cut off between link and commit; after the commit it stays."""
        # Quarantine row, file, and by the caller the name in `incoming`: killed in between, the next start goes on.
        # A file with a damaged header stays in its place: it was synced before it was linked, and may be acknowledged.
        uid = announced_uid(part)
        if not uid or self._index.digest(uid) is not None:
            return
        sha256, target = digest(part), self._files.path(uid)
        name = quarantine_name(target, sha256)
        receipt = Receipt("", part.stat().st_size, 0, sha256, "", "", utc_text(now))
        reason = "The service ended before the sender was told that this object is stored."
        with self._database.write() as conn:
            self.quarantine.add(conn, sop_instance_uid=uid, file_name=name, receipt=receipt, reason=reason)
        self._files.set_aside(target, sha256)
        log.warning("orphan set aside", sop_instance_uid=uid, file=name)

    def _sweep_aside(self, part: Path, *, now: datetime) -> None:
        """Enter the row of a file that lies in the quarantine; its receipt may have been cut off before that."""
        uid, sha256 = announced_uid(part), digest(part)
        receipt = Receipt("", part.stat().st_size, 0, sha256, "", "", utc_text(now))
        reason = "The service ended before the sender was told that another object with this UID is stored."
        name = quarantine_name(part, sha256)
        with self._database.write() as conn:
            self.quarantine.add(conn, sop_instance_uid=uid, file_name=name, receipt=receipt, reason=reason)
        log.warning("receipt found in the quarantine", sop_instance_uid=uid, file=name)


def _database(path: Path) -> Database:
    return Database(path, outbox.SCHEMA, resources("pacs") / "schema")


def _uids(study: str, series: str | None, instance: str | None) -> dict[str, str]:
    given = {"study_instance_uid": study, "series_instance_uid": series, "sop_instance_uid": instance}
    return {name: uid for name, uid in given.items() if uid is not None}
