"""The instance files: their names, their folders, and the steps by which a file gets its place. No SQL.

* `instances/15/77/<sha256 of the SOP Instance UID>.dcm` is a Part 10 file: our header, then the data set byte for byte
  as received.
* A file is written as `incoming/<hash>.<random>.part`, synced, linked to its place, and the folder synced. The caller
  removes the name in `incoming` last.
* Linking never overwrites; `replace` is for a file without a row, or a damaged one.
* A complete file is never deleted by a receipt; it is moved to `quarantine/`. `remove` is for orders of retention.

Not for: rows and events (`pacs.archive.archive`).
"""

import fcntl
import hashlib
import os
import secrets
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_file_meta_info

from gateway.dicom.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from gateway.errors import GatewayError
from gateway.fsync import make_folder, sync_folder

SHARDS = tuple(f"{number:02x}" for number in range(256))
"""The names of folders, in both levels."""

_LONG_ELEMENT = struct.Struct("<HH2sHI")
_SHORT_ELEMENT = struct.Struct("<HH2sH")


class AlreadyServed(GatewayError):
    """Another process writes to this folder."""


def part10_header(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble and File Meta Information (PS3.10 Section 7.1) for a data set that follows as received."""
    # Class, instance, transfer syntax and constants only, so that one data set makes the same file in every release,
    # and a repeat is recognised by its digest.
    elements = _LONG_ELEMENT.pack(2, 0x0001, b"OB", 0, 2) + b"\x00\x01"
    elements += _element(0x0002, b"UI", sop_class_uid) + _element(0x0003, b"UI", sop_instance_uid)
    elements += _element(0x0010, b"UI", transfer_syntax_uid) + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID)
    elements += _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)
    group_length = _SHORT_ELEMENT.pack(2, 0x0000, b"UL", 4) + struct.pack("<I", len(elements))
    return b"\0" * 128 + b"DICM" + group_length + elements


@dataclass(frozen=True, slots=True)
class Found:
    """A file that lies in the tree. `place` is its path within the storage folder."""

    place: str
    path: Path
    size_bytes: int


class Files:
    """The folder tree of one archive. `open` once, in the process that writes; without `open` it is for reading."""

    root: Path
    incoming: Path
    quarantine: Path

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.quarantine = root / "quarantine"
        self._lock = -1
        self._making = threading.Lock()
        self._unsynced: set[Path] = set()
        """Folders that exist, but may be gone after a power cut, because their names are not synced yet."""

    def open(self) -> None:
        """Make the folders and lock them. Raises AlreadyServed when another process has them."""
        for folder in (self.incoming, self.quarantine):
            make_folder(folder)
        lock = os.open(self.incoming, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise AlreadyServed(f"Another pacs process writes to {self.root}; stop it first.") from None
        self._lock = lock
        for folder in filter(Path.is_dir, (self.root / shard for shard in SHARDS)):
            sync_folder(folder)  # a killed process may have made folders that it had no time to sync
        sync_folder(self.root)

    def close(self) -> None:
        """Release the lock of the folders, if they were opened."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def lay_out(self, *, stop: Callable[[], bool]) -> None:
        """Make all 65,536 folders of the tree, which takes some seconds, once in an archive's life.

        `stop` ends it early; receipts make the folders that are missing.
        """
        # Ahead of receipts, because a small object takes twice as long if its folder has to be made and synced.
        top = [self.root / shard for shard in SHARDS]
        self._make(top)
        for folder in top:
            if stop():
                return
            if sum(1 for _ in folder.iterdir()) < len(SHARDS):
                self._make([folder / shard for shard in SHARDS])

    def path(self, sop_instance_uid: str) -> Path:
        """Where the file of an instance lies, or would lie."""
        return self._place(file_name(sop_instance_uid))

    def begin(self, sop_instance_uid: str) -> tuple[Path, int]:
        """A new file to write one receipt to, and its descriptor."""
        part = self.incoming / f"{file_name(sop_instance_uid)}.{secrets.token_hex(6)}.part"
        return part, os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o640)

    def last_incoming(self) -> float:
        """When a receipt last began, wrote or ended (seconds since the epoch); 0 when there is no such folder."""
        try:
            with os.scandir(self.incoming) as parts:
                return max([_modified(self.incoming), *(_modified(Path(part)) for part in parts)])
        except FileNotFoundError:
            return 0.0

    def keep(self, part: Path, sop_instance_uid: str) -> None:
        """Link a synced file to its place and sync the folder. Raises FileExistsError when something is there."""
        target = self.path(sop_instance_uid)
        self._in_its_folder(target, lambda: os.link(part, target))
        sync_folder(target.parent)

    def replace(self, part: Path, sop_instance_uid: str) -> None:
        """As `keep`, in place of a file that has no row or is damaged."""
        # By a rename, so that there is a whole file at the place at every moment.
        spare, target = part.with_suffix(".link"), self.path(sop_instance_uid)
        os.link(part, spare)
        self._in_its_folder(target, lambda: spare.rename(target))
        sync_folder(target.parent)

    def leave(self, part: Path) -> None:
        """Leave a file at its place and in `incoming`; the next start sees whether it has a row."""
        part.rename(part.with_suffix(".unsettled.part"))  # the receipt discards what has its own name

    def set_aside(self, part: Path, sha256: str) -> str:
        """Move a complete file to the quarantine and return its name there."""
        name = quarantine_name(part, sha256)
        part.rename(self.quarantine / name)
        sync_folder(self.quarantine)
        return name

    def copy_aside(self, path: Path, name: str) -> bool:
        """Link a file into the quarantine, before its first name goes. False when it is there already."""
        # A name stands for its content (`quarantine_name`), so an existing one is of the same file.
        try:
            os.link(path, self.quarantine / name)
        except FileExistsError:
            return False
        finally:
            sync_folder(self.quarantine)
        return True

    def leftovers(self) -> Iterator[Path]:
        """The files of receipts in `incoming`; files with other suffixes are not ours and are left alone."""
        yield from sorted(path for path in self.incoming.iterdir() if path.suffix in (".part", ".link"))

    def is_linked(self, part: Path) -> bool:
        """Whether the file is linked to its place, too."""
        target = self._place(_stem(part))
        return target.exists() and target.samefile(part)

    def is_aside(self, part: Path) -> bool:
        """Whether the file has a second name that is not its place: it is in the quarantine, too."""
        return part.stat().st_nlink > 1 and not self.is_linked(part)

    def walk(self) -> Iterator[Found]:
        """All files in the tree, in the order of `place`. Raises OSError for a folder that cannot be read.

        Folders that are not ours (a volume's lost+found) are skipped.
        """
        yield from _walk(self.root, "", depth=2)

    def remove(self, sop_instance_uids: Iterable[str]) -> None:
        """Remove the files of instances without a row; their folders are synced when this returns."""
        folders = set()
        for path in map(self.path, sop_instance_uids):
            path.unlink(missing_ok=True)
            folders.add(path.parent)
        for folder in folders:
            if folder.exists():
                sync_folder(folder)

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """Prevent every process from removing or exchanging files while a backup is being taken."""
        # A shared lock, so that two backups may run; removing needs the exclusive one, and nothing else waits.
        with _locked(self.root, fcntl.LOCK_SH):
            yield

    @contextmanager
    def changeable(self) -> Iterator[bool]:
        """True if files may be removed or exchanged now; no backup begins then before the block ends."""
        try:
            with _locked(self.root, fcntl.LOCK_EX | fcntl.LOCK_NB):
                yield True
        except BlockingIOError:
            yield False

    def _place(self, name: str) -> Path:
        return self.root / place_of(name)

    def _in_its_folder(self, target: Path, give_name: Callable[[], object]) -> None:
        """Give a file its name; missing folders are made."""
        # A folder that another thread has just made is synced here as well, because its name may not be on disk yet.
        folders = (target.parent.parent, target.parent)
        try:
            give_name()
        except FileNotFoundError:
            self._make_each(folders)
            give_name()
        if not self._unsynced.isdisjoint(folders):
            self._make_each(folders)

    def _make_each(self, folders: Iterable[Path]) -> None:
        for folder in folders:
            self._make([folder])

    def _make(self, folders: Sequence[Path]) -> None:
        """Make folders side by side; their names are on disk when this returns. An existing one is synced."""
        with self._making:
            self._unsynced.update(folders)  # before the first exists, so that no receipt takes it for synced
            for folder in folders:
                folder.mkdir(exist_ok=True)
            sync_folder(folders[0].parent)
            self._unsynced.difference_update(folders)


def quarantine_name(part: Path, sha256: str) -> str:
    """The name of a file in the quarantine; it has the hash of the UID and of the content."""
    return f"{_stem(part)}.{sha256[:16]}.dcm"


def announced_uid(part: Path) -> str:
    """The SOP Instance UID a leftover was received under; '' when its header is damaged."""
    try:
        uid = str(read_file_meta_info(part).MediaStorageSOPInstanceUID)
    except Exception:  # noqa: BLE001  a parser fed with garbage raises whatever it stumbles over
        return ""
    return uid if file_name(uid) == _stem(part) else ""


def digest(path: Path) -> str:
    """The SHA-256 of a file, 64 lower case hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_name(sop_instance_uid: str) -> str:
    """The name of an instance's file, without folders and suffix."""
    # A hash, because it spreads files evenly over the folders, and a UID from outside never becomes a path.
    return hashlib.sha256(sop_instance_uid.encode()).hexdigest()


def place_of(name: str) -> str:
    """The path of a file of this name within the storage folder."""
    return f"{name[:2]}/{name[2:4]}/{name}.dcm"


def _entries(folder: str | os.PathLike[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _walk(folder: str | os.PathLike[str], above: str, *, depth: int) -> Iterator[Found]:
    for entry in _entries(folder):
        if entry.is_file():
            with suppress(FileNotFoundError):  # removed since the folder was read
                yield Found(above + entry.name, Path(entry.path), entry.stat().st_size)
        elif depth and entry.name in SHARDS and entry.is_dir():
            yield from _walk(entry.path, f"{above}{entry.name}/", depth=depth - 1)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _stem(part: Path) -> str:
    return part.name.split(".")[0]


def _element(element: int, vr: bytes, value: str) -> bytes:
    raw = value.encode("ascii")
    if len(raw) % 2:
        raw += b"\0" if vr == b"UI" else b" "
    return _SHORT_ELEMENT.pack(2, element, vr, len(raw)) + raw


def _modified(path: Path) -> float:
    """When a file or folder was last changed; 0 when it is gone, as parts are all the time."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
