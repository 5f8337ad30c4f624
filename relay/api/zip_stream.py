"""A ZIP archive of stored files, made while it is sent: any size, one block of memory.

Entries are stored, not deflated: images are compressed already or compress badly, and the box has two cores. Lengths
and checksums stand behind each entry (APPNOTE 4.3.9), since they are known only then; ZIP64 is used where it has to
be.

Not here: which files (`relay.api.handlers`), sending (`relay.dicomweb.bodies` sends what needs no looking at).
"""

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

BLOCK_BYTES = 1024 * 1024

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The date of every entry: what a file is does not depend on when it is asked for, and ZIP knows no earlier one."""

_ZIP64_FROM = 2**31 - 1


class _Written:
    """What the ZIP writer has written and nobody has taken yet; it cannot go back, as a socket cannot."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._blocks.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        taken, self._blocks = b"".join(self._blocks), []
        return taken


def zipped(entries: Iterable[tuple[str, Path, int]]) -> Iterator[bytes]:
    """The archive block by block, of names, files and their sizes. Raises OSError for a file that cannot be read."""
    written = _Written()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:  # type: ignore[call-overload]
        for name, path, size in entries:
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.external_attr = 0o600 << 16
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=size >= _ZIP64_FROM) as target:
                while block := file.read(BLOCK_BYTES):
                    target.write(block)
                    yield written.take()
    yield written.take()
