"""The instance files: where they lie, how they come to lie there, and what is swept up after a crash. No SQL.

Rules:

* `instances/15/77/<sha256 of the SOP Instance UID>.dcm` is a Part 10 file: a header of ours in front of the data set,
  which is byte for byte what was received. The header depends on class, instance and transfer syntax only, so the same
  data set always makes the same file.
* A file is written as `incoming/<hash>.<random>.part`, synced, then linked to its place, then the folder is synced. The
  name in `incoming` goes last, after the index row: so whatever a crash leaves is found in `incoming`, and a start
  never has to look through a million files.
* Linking never overwrites. Only a file that no row knows may be replaced, and its caller says so (`replace`).
* Nothing that was complete is ever deleted here; it is moved to `quarantine/`.
"""

import fcntl
import hashlib
import os
import secrets
import struct
from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread

from gateway.association import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.errors import GatewayError

_LONG_ELEMENT = struct.Struct("<HH2sHI")
_SHORT_ELEMENT = struct.Struct("<HH2sH")


class AlreadyServed(GatewayError):
    """Another process writes to this folder."""


def part10_header(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble and File Meta Information (PS3.10 Section 7.1) for a data set that follows as received."""
    elements = _LONG_ELEMENT.pack(2, 0x0001, b"OB", 0, 2) + b"\x00\x01"
    elements += _element(0x0002, b"UI", sop_class_uid) + _element(0x0003, b"UI", sop_instance_uid)
    elements += _element(0x0010, b"UI", transfer_syntax_uid) + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID)
    elements += _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)
    group_length = _SHORT_ELEMENT.pack(2, 0x0000, b"UL", 4) + struct.pack("<I", len(elements))
    return b"\0" * 128 + b"DICM" + group_length + elements


class Files:
    """The folder tree of one archive. `open` once, by the one process that writes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.quarantine = root / "quarantine"
        self._lock = -1
        self._synced: set[Path] = set()

    def open(self) -> None:
        """Make the folders and lock them. Raises AlreadyServed when another process has them."""
        for folder in (self.incoming, self.quarantine):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.incoming, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise AlreadyServed(f"Another pacs process writes to {self.root}; stop it first.") from None
        _sync_folder(self.root)

    def close(self) -> None:
        """Give the folders free."""
        os.close(self._lock)

    def path(self, sop_instance_uid: str) -> Path:
        """Where the file of an instance lies, or would lie."""
        return self._place(_hash(sop_instance_uid))

    def begin(self, sop_instance_uid: str) -> tuple[Path, int]:
        """A new file to write one receipt to, and its descriptor."""
        part = self.incoming / f"{_hash(sop_instance_uid)}.{secrets.token_hex(6)}.part"
        return part, os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)

    def keep(self, part: Path, sop_instance_uid: str) -> None:
        """Link a synced file to its place and sync the folder. Raises FileExistsError when something is there."""
        target = self._prepared(self.path(sop_instance_uid))
        os.link(part, target)
        _sync_folder(target.parent)

    def replace(self, part: Path, sop_instance_uid: str) -> None:
        """As `keep`, in place of a file that no row knows and whose sender was never told Success."""
        spare = part.with_suffix(".link")
        os.link(part, spare)
        spare.rename(self._prepared(self.path(sop_instance_uid)))
        _sync_folder(self.path(sop_instance_uid).parent)

    def set_aside(self, part: Path, sha256: str) -> str:
        """Move a complete file to the quarantine and give its name there."""
        name = quarantine_name(part, sha256)
        part.rename(self.quarantine / name)
        _sync_folder(self.quarantine)
        return name

    def leftovers(self) -> Iterator[Path]:
        """What a process that ended has left in `incoming`. What somebody else has put there is not looked at."""
        yield from sorted(path for path in self.incoming.iterdir() if path.suffix in (".part", ".link"))

    def is_linked(self, part: Path) -> bool:
        """Is the file at its place too, or did its receipt never come so far?"""
        target = self._place(_stem(part))
        return target.exists() and target.samefile(part)

    def _place(self, name: str) -> Path:
        return self.root / name[:2] / name[2:4] / f"{name}.dcm"

    def _prepared(self, target: Path) -> Path:
        """Make the folders of a file; a new folder is only there once the folder that holds its name is synced."""
        for folder in (target.parent.parent, target.parent):
            if folder not in self._synced or not folder.exists():
                folder.mkdir(exist_ok=True)
                _sync_folder(folder.parent)
                self._synced.add(folder)
        return target


def quarantine_name(part: Path, sha256: str) -> str:
    """What a file of the archive is called in the quarantine."""
    return f"{_stem(part)}.{sha256[:16]}.dcm"


def announced_uid(part: Path) -> str:
    """The SOP Instance UID a leftover was received under; '' when its header is damaged."""
    try:
        uid = str(dcmread(part, stop_before_pixels=True, specific_tags=[]).file_meta.MediaStorageSOPInstanceUID)
    except Exception:  # noqa: BLE001  a parser fed with garbage raises whatever it stumbles over
        return ""
    return uid if _hash(uid) == _stem(part) else ""


def digest(path: Path) -> str:
    """The SHA-256 of a file, 64 lower case hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash(sop_instance_uid: str) -> str:
    return hashlib.sha256(sop_instance_uid.encode()).hexdigest()


def _stem(part: Path) -> str:
    return part.name.split(".")[0]


def _element(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii")
    if len(raw) % 2:
        raw += b"\0" if vr == b"UI" else b" "
    return _SHORT_ELEMENT.pack(2, element, vr, len(raw)) + raw


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
