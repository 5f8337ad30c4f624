"""A ZIP archive of stored files, made while it is sent: any size, one block of memory.

Not here: the choice of files (`relay.api.handlers`), sending single files (`relay.dicomweb.bodies`).
"""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

BLOCK_BYTES = 1024 * 1024

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of every entry, ZIP's earliest: the same study gives the same bytes at any time."""

_ZIP64_FROM = 2**31 - 1  # bytes; zipfile's own limit, which it has to know before it writes an entry's header


class _Written:
    # Without `seek`, so zipfile puts lengths and checksums behind each entry (APPNOTE 4.3.9), where they are known.

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._blocks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing; zipfile calls it."""

    def take(self) -> bytes:
        taken, self._blocks = b"".join(self._blocks), []
        return taken


def zipped(entries: Iterable[tuple[str, Path, int]]) -> Iterator[bytes]:
    """Yield the archive block by block; entries are names, files and their sizes in bytes.

    Raises OSError for a file that cannot be read.
    """
    written = _Written()
    # Stored, not deflated: images are compressed already or compress badly, and the box has two cores.
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[call-overload]
        for name, path, size in entries:
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.external_attr = 0o600 << 16  # the Unix mode (APPNOTE 4.4.15); unzip would make files without rights
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=size >= _ZIP64_FROM) as target:
                while block := file.read(BLOCK_BYTES):
                    target.write(block)
                    yield written.take()
    yield written.take()
