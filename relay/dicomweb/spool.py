"""A folder for files that live as long as one request: an object being uploaded, an object made for one answer.

No file in it is ever the only copy of an acknowledged object, because an upload succeeds only when the archive has it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Spool:
    """One folder, of which this process is the only user."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self) -> None:
        """Make the folder, or empty it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # Files here are of a process that was killed: each request removes its own.
        for left in self._folder.glob("*.part"):
            left.unlink()

    @contextmanager
    def file(self) -> Iterator[Path]:
        """Yield the path of a new empty file, and remove it when the block is left."""
        with tempfile.NamedTemporaryFile(dir=self._folder, suffix=".part", delete=False) as made:
            path = Path(made.name)
        try:
            yield path
        finally:
            with suppress(FileNotFoundError):
                path.unlink()
