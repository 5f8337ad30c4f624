"""The audit trail: tamper-evident files of audit messages, one message a line, chained by hashes.

A line is `number <tab> hash of the line before <tab> hash of this <tab> message`; the hash is SHA-256 over the three
others. The file `head` has number and hash of the last line.

`append` returns when the lines are on disk; several processes may append. Files are named by the number of their first
line, a new one begins at FILE_BYTES, and the chain goes on from one to the next. No file is removed here. A site may
move old files away; the chain then begins with the first that is left.

Not for: the content of messages (`gateway.audit.messages`).
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import AuditNotWritten
from gateway.fsync import make_folder, sync_folder

FILE_BYTES = 16 * 1024 * 1024
"""About 16,000 messages; a site with two machines writes a file in some weeks."""

BEGINNING = "0" * 64
"""Stands for the hash of a line before the first."""

_NAME = "audit-{:012d}.log"
_FILES = "audit-" + "[0-9]" * 12 + ".log"
_LINE = re.compile(r"([0-9]{1,18})\t([0-9a-f]{64})\t([0-9a-f]{64})\t(.*)", re.DOTALL)
_HEAD = re.compile(r"([0-9]{1,18}) ([0-9a-f]{64})\n")
_TAIL_BYTES = 1024 * 1024
"""More than the longest line: a request line is bounded to 8 kB, and base64 and escapes make it a few times longer."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last line: its number, 0 before the first, and its hash."""

    number: int = 0
    hash: str = BEGINNING


@dataclass(frozen=True, slots=True)
class TrailLine:
    """One line of the trail that can be read; `judged` says whether it fits."""

    number: int
    previous: str
    hash: str
    message: str


@dataclass(frozen=True, slots=True)
class TrailFinding:
    """One fault of the trail and its place: `line` counts from 1 within the file."""

    code: str
    file: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Written:
    """The extent of a trail at one moment: its last message, and how many bytes of each file that takes."""

    head: Head
    files: tuple[tuple[Path, int], ...]


class Trail:
    """The trail in a folder. Appending blocks until the disk has it: call it in a thread."""

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES) -> None:
        self.folder = folder
        self._file_bytes = file_bytes
        self._head = Head()
        self._above: Trail | None = None
        self._seen: tuple[Path, int] | None = None
        """The last file and its length when this object wrote to it; None: read it first."""

    @classmethod
    def chain(cls, folder: Path, name: str) -> "Trail":
        """One of several chains of the trail in `folder`, which has a folder of its own below that."""
        trail = cls(folder / name)
        trail._above = cls(folder)
        return trail

    def append(self, messages: Sequence[str]) -> Head:
        """Write messages and return the new head. Raises AuditNotWritten; then none of them counts."""
        try:
            self._make()
            with self._locked() as lock:
                path = self._prepared()
                lines, head = chained(self._head, messages)
                size = _written(path, lines)
                # Only after the sync of the lines, so that `head` never names a line that a power cut took.
                _write_head(lock, head)
                self._head, self._seen = head, (path, size)
                return head
        except OSError as error:
            self._seen = None
            raise self._not_written(error) from error

    def prove(self) -> None:
        """Write `head` again, whose time then proves that the trail can be written. Raises AuditNotWritten."""
        try:
            self._make()
            with self._locked() as lock:
                head = self.said_head()
                if head is not None:
                    _write_head(lock, head)
                    os.fsync(lock)  # a page in memory alone would prove nothing about the disk
        except OSError as error:
            raise self._not_written(error) from error

    def files(self) -> list[Path]:
        """All files that are there, in order."""
        return sorted(self.folder.glob(_FILES))

    def head(self) -> Head:
        """The last line that can be read."""
        for path in reversed(self.files()):
            if (head := _last_in(path.read_bytes()[-_TAIL_BYTES:])) is not None:
                return head
        return Head()

    def said_head(self) -> Head | None:
        """The last line according to the file `head`; None when the file is absent or unreadable."""
        try:
            found = _HEAD.match((self.folder / "head").read_text())
        except FileNotFoundError:
            return None
        return Head(int(found[1]), found[2]) if found else None

    def written(self) -> Written | None:
        """Its extent between two messages; up to there no file changes any more. None: nothing was written.

        Raises OSError when it cannot be read.
        """
        try:
            descriptor = os.open(self.folder / "head", os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)  # no process is in the middle of a line
            files = tuple((path, _whole_bytes(path)) for path in self.files())
            return Written(self.head(), files) if files else None
        finally:
            os.close(descriptor)

    def go_on_from(self, head: Head) -> None:
        """Declare the last message of a folder to which files were restored."""
        path = self.folder / "head"
        path.touch(0o600)
        with self._locked() as lock:
            _write_head(lock, head)
            os.fsync(lock)

    def _not_written(self, error: OSError) -> AuditNotWritten:
        return AuditNotWritten(
            f"The audit trail in {self.folder} cannot be written ({error.strerror}): make room there, or see that the "
            "folder belongs to this service."
        )

    def _make(self) -> None:
        if not self.folder.is_dir():
            if self._above is not None:
                self._above._make()
            make_folder(self.folder.parent)
            # For its owner alone: messages hold patient ids, because PS3.15 A.5 wants them.
            self.folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self.folder.parent)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        # On `head`, because it is the one file that stays when the chain goes on in a new one.
        descriptor = os.open(self.folder / "head", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)

    def _prepared(self) -> Path:
        """The file for the next line; the head is read again when another process or a power cut has changed it."""
        files = self.files()
        last = files[-1] if files else None
        if last is None:
            self._head = self.said_head() or Head()  # a folder that was emptied goes on counting
        elif self._seen != (last, last.stat().st_size):
            self._head = self._last()
        if last is None or last.stat().st_size >= self._file_bytes:
            return self._begun(self._head.number + 1)
        return last

    def _last(self) -> Head:
        """The head by the last line; the newest file has none when a power cut came right after it was begun."""
        for path in reversed(self.files()):
            if (head := _mended(path)) is not None:
                return head
        return self.said_head() or Head()

    def _begun(self, number: int) -> Path:
        path = self.folder / _NAME.format(number)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        sync_folder(self.folder)
        return path


def trails(folder: Path) -> list[Trail]:
    """Every chain of a trail: that in its folder, and those in the folders below."""
    below = sorted(path.parent for path in folder.glob("*/head"))
    return [Trail(each) for each in (folder, *below)]


def chained(head: Head, messages: Sequence[str]) -> tuple[bytes, Head]:
    """The lines of messages that follow a head, and the head they make."""
    lines = []
    for message in messages:
        number = head.number + 1
        # The hash of the line before is part of this one's: a changed line does not fit its own hash, and a removed or
        # inserted one does not fit its neighbours.
        text = message.replace("\n", " ").encode("utf-8", "replace").decode()
        digest = _hash(number, head.hash, text)
        lines.append(f"{number}\t{head.hash}\t{digest}\t{text}\n".encode())
        head = Head(number, digest)
    return b"".join(lines), head


def read(raw: bytes) -> TrailLine | None:
    """Read one line without its end; None when it is no line of a trail."""
    try:
        found = _LINE.fullmatch(raw.decode())
    except UnicodeDecodeError:
        return None
    return TrailLine(int(found[1]), found[2], found[3], found[4]) if found else None


def lines(trail: Trail) -> Iterator[TrailLine]:
    """Every line that can be read, from the first."""
    for path in trail.files():
        with path.open("rb") as file:
            yield from (line for raw in file if (line := read(raw.rstrip(b"\n"))) is not None)


def verified(trail: Trail, *, expected: Head | None = None) -> Iterator[TrailFinding]:
    """Read the whole trail and report its faults. `expected` is a head that was kept elsewhere, such as in the log."""
    # An attacker who can write here can compute the whole chain and `head` anew; only a head kept elsewhere shows that.
    before: Head | None = None
    known: dict[int, str] = {}
    noted = {head.number for head in (expected, trail.said_head()) if head}
    where = ("", 0)
    for path in trail.files():
        with path.open("rb") as file:
            for count, raw in enumerate(file, start=1):
                where = (path.name, count)
                line = read(raw.rstrip(b"\n"))
                yield from (TrailFinding(code, *where, text) for code, text in judged(line, before))
                if line is not None:
                    before = Head(line.number, line.hash)
                    known.update({line.number: line.hash} if line.number in noted else {})
    yield from (TrailFinding(*each) for each in _ends(before, where, known, trail.said_head(), expected))


def judged(line: TrailLine | None, before: Head | None) -> Iterator[tuple[str, str]]:
    """The faults of a line after the one before it, which is None for the first: older files may have been moved."""
    if line is None:
        yield "changed", "This is not a line of the trail."
        return
    if line.hash != _hash(line.number, line.previous, line.message):
        yield "changed", f"Message {line.number} is not what was written."
    if before is None:
        return
    if line.number > before.number + 1:
        yield "removed", f"Messages {before.number + 1} to {line.number - 1} are missing before this line."
    elif line.number <= before.number:
        yield "inserted", f"Message {line.number} stands after message {before.number}: put in, or moved."
    elif line.previous != before.hash:
        yield "replaced", f"Message {before.number}, before this line, is not the one that was written there."


def _ends(
    last: Head | None, where: tuple[str, int], known: dict[int, str], said: Head | None, expected: Head | None
) -> Iterator[tuple[str, str, int, str]]:
    # The chain alone does not show lines that were cut off at the end.
    number = last.number if last else 0
    for head, origin in ((said, "the file head"), (expected, "what was noted elsewhere")):
        if head is None or head.number == 0:
            continue
        if head.number > number:
            yield "removed", *where, f"Messages {number + 1} to {head.number} are missing at the end, by {origin}."
        elif known.get(head.number, head.hash) != head.hash:
            yield "replaced", *where, f"Message {head.number} is another one than by {origin}."


def _hash(number: int, previous: str, message: str) -> str:
    return hashlib.sha256(f"{number}\t{previous}\t{message}".encode()).hexdigest()


def _written(path: Path, data: bytes) -> int:
    """Append to a file and sync it; a part that was written before an error is cut off again."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        before = os.fstat(descriptor).st_size
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, before)
            raise
        return before + len(data)
    finally:
        os.close(descriptor)


def _mended(path: Path) -> Head | None:
    """Cut off the piece of a line that a power cut left; returns the last line, None without one."""
    # Nothing is lost by it: `append` had not returned for that line.
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _TAIL_BYTES))
        tail = file.read()
        whole = tail.rfind(b"\n") + 1
        if whole < len(tail):
            file.truncate(start + whole)
            os.fsync(file.fileno())
    return _last_in(tail[:whole])


def _whole_bytes(path: Path) -> int:
    """The length of a file without a piece of a line that a power cut left at its end."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = file.seek(max(0, size - _TAIL_BYTES))
        return start + file.read().rfind(b"\n") + 1


def _write_head(descriptor: int, head: Head) -> None:
    # Padded to one length, so that a shorter head leaves nothing of a longer one, and written in one call.
    os.pwrite(descriptor, f"{head.number} {head.hash}\n".ljust(96).encode(), 0)


def _last_in(tail: bytes) -> Head | None:
    for raw in reversed(tail.split(b"\n")):
        if (line := read(raw)) is not None:  # damaged lines are passed over: `verified` names them
            return Head(line.number, line.hash)
    return None
