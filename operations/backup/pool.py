"""The files that the backups of one target share, each kept once under its hash.

    files/ab/cd/<sha256>

Not for: which files a backup has (`manifest`, `backup`).
"""

import errno
import hashlib
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from gateway.fsync import make_folder, sync_folder

Step = Callable[[str, int], None]
"""Called for each file with its outcome ("copied", "linked", "there before", "restored") and its bytes."""

_CHUNK_BYTES = 1 << 20


class Pool:
    """The files of a target, by content. Incomplete copies are in `work`."""

    def __init__(self, target: Path, *, work: Path) -> None:
        self._target = target
        self._work = work
        self._folders: set[Path] = set()

    def put(self, source: Path, sha256: str) -> tuple[str, str, int]:
        """Put a file into the pool; gives its real hash, the outcome, and its size. Raises FileNotFoundError."""
        place, size = self._target / pool_place(sha256), source.stat().st_size
        # The size is enough: a name appears only after its content was synced.
        if place.exists() and place.stat().st_size == size:
            return sha256, "there before", size
        self._prepare(place)
        if _linked(source, place):
            return sha256, "linked", size
        actual, size = self._copy(source, place)
        return actual, "copied", size

    def put_beginning(self, source: Path, size: int) -> tuple[str, int]:
        """Put a copy of the first `size` bytes of a growing file into the pool; gives its hash and its size.

        Raises FileNotFoundError.
        """
        # Copied and never linked, because a change to the original must not change the backup.
        sha256 = _digest_of_beginning(source, size)
        place = self._target / pool_place(sha256)
        if not (place.exists() and place.stat().st_size == size):
            sha256, size = self._copy(source, place, size)
        return sha256, size

    def sync(self) -> None:
        """Sync the folders of all new names."""
        for folder in self._folders:
            sync_folder(folder)

    def _copy(self, source: Path, place: Path, limit: int | None = None) -> tuple[str, int]:
        part = self._work / f"{place.name}.part"
        try:
            sha256, size = copy_and_hash(source, part, limit)
            final = self._target / pool_place(sha256)
            self._prepare(final)
            part.rename(final)  # a name stands only for content that is whole and synced
        finally:
            part.unlink(missing_ok=True)
        return sha256, size

    def _prepare(self, place: Path) -> None:
        if place.parent not in self._folders:
            make_folder(place.parent)
            self._folders.add(place.parent)


def pool_place(sha256: str) -> str:
    """The place of the content with this hash, relative to the target."""
    return f"files/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def copy_and_hash(source: Path, target: Path, limit: int | None = None) -> tuple[str, int]:
    """Copy a file, or its first `limit` bytes, sync the copy, and give hash and size of what was read."""
    found, size, buffer = hashlib.sha256(), 0, memoryview(bytearray(_CHUNK_BYTES))
    with source.open("rb", buffering=0) as reader, _fresh(target) as writer:
        while count := reader.readinto(buffer[: None if limit is None else limit - size]):
            found.update(buffer[:count])
            rest = buffer[:count]
            while rest:
                rest = rest[writer.write(rest) or 0 :]
            size += count
        os.fsync(writer.fileno())
    return found.hexdigest(), size


def _fresh(path: Path) -> FileIO:
    return open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640), "wb", buffering=0)


def _linked(source: Path, place: Path) -> bool:
    """Link the file; False where it has to be copied: on another volume, or without links in the file system."""
    try:
        os.link(source, place)
    except FileExistsError:  # of another size, so cut off by a crash of the machine or not ours: the copy replaces it
        return False
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def _digest_of_beginning(path: Path, size: int) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while size and (data := file.read(min(size, _CHUNK_BYTES))):
            found.update(data)
            size -= len(data)
    return found.hexdigest()
