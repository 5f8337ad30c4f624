"""The manifest of a backup, lines of JSON: one on its databases, one for each file, and one with the sums.

A folder without a manifest is no backup. It is read as a stream.

Not for: taking a backup (`backup`), and not for restoring one (`restore`).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from gateway.audit.trail import Head
from gateway.errors import GatewayError

MANIFEST = "manifest.jsonl"
FORMAT = 1

# Every path and hash has to match, because a manifest from outside names paths that are written on this machine.
_PLACE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{2}/[0-9a-f]{64}\.dcm|quarantine/[0-9A-Za-z_-][0-9A-Za-z._-]*")
_TRAIL_FILE = re.compile(r"audit-[0-9]{12}\.log")
_CHAIN = re.compile(r"[a-z]{0,16}")
_HASH = re.compile(r"[0-9a-f]{64}")


class BackupError(GatewayError):
    """A backup cannot be taken or used; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A file as the manifest has it. `expected` is what the index wants its hash to be, if it is not that."""

    path: str
    sha256: str
    size: int
    expected: str = ""

    def line(self) -> dict[str, object]:
        """As it is written."""
        facts: dict[str, object] = {"path": self.path, "sha256": self.sha256, "size": self.size}
        return facts | ({"expected": self.expected} if self.expected else {})


@dataclass(frozen=True, slots=True)
class Chain:
    """One chain of the audit trail: where it lies below the trail's folder ('' for that itself), its last message."""

    name: str
    head: Head
    files: tuple[Listed, ...]


class Manifest:
    """The manifest of one backup, read as a stream."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / MANIFEST).open(encoding="utf-8") as lines:
            head = _object(lines.readline(), folder)
        if head.get("format") != FORMAT:
            raise BackupError(f"{folder} has a format that this version does not know; use the version that took it.")
        self.taken_at = str(head["taken_at"])
        self.databases = cast(dict[str, str], head["databases"])
        self.users = str(head.get("users", ""))
        self._chains = cast(list[dict[str, object]], head.get("trail", []))

    def files(self) -> Iterator[Listed]:
        """Every file, in order. Raises BackupError when the manifest is cut off or names what no backup has."""
        count, stated = 0, None
        with (self.folder / MANIFEST).open(encoding="utf-8") as lines:
            next(lines)
            for line in lines:
                facts = _object(line, self.folder)
                if "path" in facts:
                    count += 1
                    yield self._listed(facts, _PLACE)
                else:
                    stated = facts["files"]
        if stated != count:  # cut off: the line with the sums is the last
            raise BackupError(f"The manifest of {self.folder} is not whole; use another backup.")

    def chains(self) -> Iterator[Chain]:
        """The chains of the audit trail. Raises BackupError for one that no backup has."""
        for facts in self._chains:
            name, head = str(facts["chain"]), Head(int(str(facts["number"])), str(facts["hash"]))
            if not _CHAIN.fullmatch(name) or not _HASH.fullmatch(head.hash):
                raise BackupError(
                    f"The manifest of {self.folder} names an audit trail that no backup has; do not use it."
                )
            files = cast(list[dict[str, object]], facts["files"])
            yield Chain(name, head, tuple(self._listed(each, _TRAIL_FILE) for each in files))

    def _listed(self, facts: dict[str, object], places: re.Pattern[str]) -> Listed:
        listed = Listed(str(facts["path"]), str(facts.get("sha256")), int(str(facts.get("size", 0))))
        if not places.fullmatch(listed.path) or not _HASH.fullmatch(listed.sha256):
            raise BackupError(f"The manifest of {self.folder} names a file that no backup has; do not use it.")
        return listed


def complete(target: Path) -> list[Path]:
    """The complete backups in a folder, the oldest first."""
    return sorted(path.parent for path in target.glob(f"*/{MANIFEST}"))


def chosen(source: Path) -> Path:
    """The backup itself, or the newest complete one in a target. Raises BackupError when there is none."""
    if (source / MANIFEST).exists():
        return source
    for newest in reversed(complete(source)):
        return newest
    raise BackupError(f"{source} holds no complete backup.")


def _object(line: str, folder: Path) -> dict[str, object]:
    try:
        facts = json.loads(line)
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise BackupError(f"The manifest of {folder} cannot be read; use another backup.")
    return facts
