"""When the last complete backup was taken, beside the database of the archive: for people, who forget.

It says what was done here, not whether the backup still exists. Not for: taking one (`operations.backup.backup`).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_NAME = "last-backup.json"


@dataclass(frozen=True, slots=True)
class LastBackup:
    """`taken_at` is UTC text, `folder` where it is; `missing` and `damaged` count files it could not have."""

    taken_at: str
    folder: str
    files: int
    missing: int
    damaged: int


def remember(folder: Path, last: LastBackup) -> None:
    """Write it down in the folder of the databases. Raises OSError."""
    part = folder / f"{FILE_NAME}.part"
    part.write_text(json.dumps(asdict(last)), encoding="utf-8")
    part.replace(folder / FILE_NAME)


def last(folder: Path) -> LastBackup | None:
    """The last one; None when none was ever taken here, or its note cannot be read any more."""
    try:
        return LastBackup(**json.loads((folder / FILE_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # a note that is not there or not whole says nothing, as one never written
        return None
