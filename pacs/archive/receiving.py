"""`Receiving`: one object while it is received. Streamed to a file and hashed, then read, checked and synced.

These are steps 1 to 3 of the order in `pacs.archive.archive`. Not for: places, rows and events; those are of `keep`.
"""

import hashlib
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Protocol

from pydicom import dcmread

from gateway.dataset.dicom_json import DicomJson, verbatim
from gateway.errors import ClassMismatch, InvalidDataSet, OutOfResources
from gateway.sqlite import utc_text
from pacs.archive.attributes import INLINE_BYTES, CutOff, TooMuch, read_attributes
from pacs.archive.files import Files, part10_header
from pacs.archive.identity import Identity, identity
from pacs.archive.index import Receipt

# A large object is hashed beside its receipt, so that Success need not wait for the hash; a small one is not worth a
# thread.
INLINE_HASH_BYTES = 4_000_000
"""Bytes up to which the receiving thread hashes what it writes; above, a second thread reads the page cache."""

_FOLLOW_BYTES = 1 << 20

_WRITE_OUT_BYTES = 2 << 20
"""So much at a time goes to the disk while the rest is still coming, so that the last sync has little left to wait for:
1.3 ms instead of 5 for a mammogram of 17 MB."""

_SECOND_OPINION_BYTES = 1 << 20
"""Up to here an object's pixels have begun, as a rule; pydicom takes a hundred times the memory of what it reads."""


@dataclass(frozen=True, slots=True)
class ObjectOrigin:
    """The sender of an object, and its class, instance and transfer syntax by the C-STORE request."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    association_id: str


class Keep(Protocol):
    """Gives a complete, synced file its place, row and event; all is on disk when it returns."""

    def __call__(self, part: Path, data_set: DicomJson, receipt: Receipt, *, now: datetime) -> None: ...


class Receiving:
    """One object that is received; the `Incoming` of the listener. One thread writes, then finishes or discards."""

    def __init__(self, files: Files, origin: ObjectOrigin, *, now: datetime, keep: Keep) -> None:
        self.origin = origin
        self.now = now
        self._keep = keep
        self._header = part10_header(origin.sop_class_uid, origin.sop_instance_uid, origin.transfer_syntax_uid)
        self._hash = hashlib.sha256(self._header)
        self._follower: _Follower | None = None
        self._size = 0
        self._written_out = 0
        self.about = ("", "")
        """Study Instance UID and Patient ID, once it is kept."""
        with disk_refusals("stored"):
            self.part, self._file = files.begin(origin.sop_instance_uid)
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
        with disk_refusals("stored"):
            written = os.write(self._file, data)
            while written < len(data):
                written += os.write(self._file, data[written:])
        self._size += len(data)
        if self._size - self._written_out >= _WRITE_OUT_BYTES:
            self._write_out()

    def _write_out(self) -> None:
        # The advice makes the kernel begin to write. It would drop clean pages, but these are dirty still.
        os.posix_fadvise(self._file, self._written_out, self._size - self._written_out, os.POSIX_FADV_DONTNEED)
        self._written_out = self._size

    def finish(self) -> None:
        """Check, sync and store the object (steps 2 to 4). Raises a Refusal; then `discard` has to be called."""
        with disk_refusals("kept"):
            data_set = self._attributes()
            found = identity(data_set)
            self._check(found)
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
            self._keep(self.part, data_set, receipt, now=self.now)
            self.about = (found.study_instance_uid, verbatim(data_set, "PatientID"))

    def discard(self) -> None:
        """Remove the file of an object that is not stored. What cannot be removed now is removed at the next start."""
        with suppress(OSError):
            self._close()
        with suppress(OSError):
            self.part.unlink(missing_ok=True)

    def _attributes(self) -> DicomJson:
        with (
            mmap(self._file, self._size, access=ACCESS_READ) as mapped,
            memoryview(mapped) as view,
            view[len(self._header) :] as data_set,
        ):
            # A truncated or oversized data set gets no second opinion: pydicom would accept the first, and take too
            # much memory for the second.
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
        self._notified = self._last = start
        self._ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._error: OSError | None = None
        self._buffer = memoryview(bytearray(_FOLLOW_BYTES))
        self._thread = threading.Thread(target=self._run, name="hash", daemon=True)
        self._thread.start()

    def follow(self, end: int) -> None:
        """The file has grown to `end` bytes."""
        if end - self._notified >= _FOLLOW_BYTES:
            self._ends.put(end)
            self._notified = end
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


@contextmanager
def disk_refusals(what: str) -> Iterator[None]:
    """Turn OSError into OutOfResources (A700)."""
    # A700, because the sender then keeps the object and tries again.
    try:
        yield
    except OSError as error:
        raise OutOfResources(f"The object cannot be {what}: {error.strerror or type(error).__name__}.") from error


def _read_by_pydicom(path: Path, refusal: InvalidDataSet) -> DicomJson:
    """Second opinion on a data set our walker refused. Raises that refusal if pydicom cannot read it either."""
    # Only the first bytes, because a data set of nothing but empty items would take a hundred times its size in memory.
    try:
        with path.open("rb") as file:
            data_set = dcmread(BytesIO(file.read(_SECOND_OPINION_BYTES)), stop_before_pixels=True)
        return data_set.to_json_dict(
            bulk_data_threshold=INLINE_BYTES, bulk_data_element_handler=lambda element: f"{element.tag:08X}"
        )
    except Exception:  # noqa: BLE001  a parser fed with garbage raises whatever it stumbles over
        raise refusal from None
