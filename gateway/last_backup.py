"""The time of the last complete backup, in a file beside the archive's database.

It records that a backup was taken here, not that it still exists. Not for: taking one (`operations.backup.backup`).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "last-backup.json"


@dataclass(frozen=True, slots=True)
class LastBackup:
    """`taken_at` is UTC text, `folder` the target; `missing` and `damaged` count files that could not be copied."""

    taken_at: str
    folder: str
    files: int
    missing: int
    damaged: int


def remember(folder: Path, last: LastBackup) -> None:
    """Write it to the folder of the databases. Raises OSError."""
    part = folder / f"{FILE_NAME}.part"
    part.write_text(json.dumps(asdict(last)), encoding="utf-8")
    part.replace(folder / FILE_NAME)


def last(folder: Path) -> LastBackup | None:
    """The last one; None when none was ever taken here, or the file cannot be read any more."""
    try:
        return LastBackup(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # absent, damaged, or of another release: as if never written
        return None
