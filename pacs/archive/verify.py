"""Verifies one file: its size and SHA-256 against those of its row.

For scrub, storage commitment and fsck; a caller limits the rate by `after_read`.

Not for: recording damage (`maintenance_rows`), choosing the files.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

AfterRead = Callable[[int], None]
"""Called after each read with the number of its bytes. It may sleep to limit the rate, and raise `Stopped`."""

_CHUNK_BYTES = 1 << 20


class Stopped(Exception):
    """The process is stopping; a file that was read in part is read again after the next start."""


def _read_on(_count: int) -> None:
    """As fast as the disk gives."""


def trouble(path: Path, *, size_bytes: int, sha256: str, after_read: AfterRead = _read_on) -> str:
    """The fault of a file: missing_file, wrong_size, unreadable_file, wrong_hash, or '' for none.

    `sha256` is the expected digest in lower-case hex. What `after_read` raises is passed on.
    """
    # Twice, because a wrong hash may be a fault of one reading, and a file is marked as damaged only if it is one.
    for _ in range(2):
        found = _look(path, size_bytes=size_bytes, sha256=sha256, after_read=after_read)
        if found != "wrong_hash":
            break
    return found


def _look(path: Path, *, size_bytes: int, sha256: str, after_read: AfterRead) -> str:
    try:
        with path.open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size != size_bytes:
                return "wrong_size"
            return "" if _digest(file.fileno(), after_read) == sha256 else "wrong_hash"
    except FileNotFoundError:
        return "missing_file"
    except OSError:
        return "unreadable_file"


def _digest(descriptor: int, after_read: AfterRead) -> str:
    # Dropped before, because the page cache may be right while the disk is not; dropped after, because this reading
    # must not push the pages of viewers out.
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    found, buffer = hashlib.sha256(), bytearray(_CHUNK_BYTES)
    while count := os.readv(descriptor, [buffer]):
        found.update(memoryview(buffer)[:count])
        after_read(count)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return found.hexdigest()
