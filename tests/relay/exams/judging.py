"""A worklist and an archive of one site, what happens to exams there, and the judging of them: for tests.

`python -m tests.relay.exams.judging FOLDER` judges in a process of its own, and kills itself before the line it is
told.
"""

import hashlib
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import CodeType, FrameType

import structlog
from pydicom import Dataset

from gateway import sqlite
from gateway.errors import Conflict
from gateway.outbox import Entry, changed_exams, entries
from pacs import Archive
from pacs.archive import quality_rows
from pacs.archive.receiving import ObjectOrigin
from pacs.maintenance.quarantine import carry_out
from relay.exams import evidence, quality
from relay.exams.evidence import Evidence
from relay.exams.holding import HoldRules
from relay.exams.quality import Quality
from tests.pacs.archive.test_attributes import encoded
from tests.relay import served
from tests.tools.archive_files import files_of
from tests.worklist import samples
from worklist import Worklist

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
FOUR = ("RCC", "LCC", "RMLO", "LMLO")
ROOT = Path(__file__).parents[3]


@dataclass
class Exams:
    """One site; `now` is its clock, which a test sets."""

    worklist: Worklist
    archive: Archive
    now: datetime = NOW
    made: list[str] = field(default_factory=list)
    """The SOP Instance UIDs that were stored, in order."""

    def __post_init__(self) -> None:
        self.holding = HoldRules(self.archive, self.worklist)
        self.evidence = Evidence(self.archive, self.worklist, holding=self.holding)
        self.quality = Quality(self.worklist, self.archive, self.evidence, clock=lambda: self.now)

    def schedule(self, accession_number: str = "ACC-1", **attributes: str) -> None:
        item = served.item(accession_number, **attributes)
        self.worklist.schedule(item, action_id=f"action-{accession_number}", content_hash="1", now=self.now)

    def store(self, view: str, **attributes: object) -> str:
        """A modality stores a view of ACC-1; gives its SOP Instance UID."""
        ds = served.mammogram(view, len(self.made) + 1, **attributes)  # type: ignore[arg-type]
        syntax = ds.file_meta.TransferSyntaxUID
        origin = ObjectOrigin(ds.SOPClassUID, ds.SOPInstanceUID, syntax, "MODALITY", "1")
        incoming = self.archive.receive(origin, now=self.now)
        incoming.write(memoryview(encoded(ds, syntax)))
        incoming.finish()
        self.made.append(str(ds.SOPInstanceUID))
        return self.made[-1]

    def store_in_its_place(self, view: str, uid: str, **attributes: object) -> None:
        """Another object comes under a UID that is taken, and an operator has it replace the stored one."""
        with suppress(Conflict):
            self.store(view, SOPInstanceUID=uid, **attributes)
        aside = max(self.archive.quarantine.objects(), key=lambda each: each.id)
        self.archive.quarantine.decide(aside.id, "replace", by="J. Smith")
        carry_out(self.archive, files_of(self.archive), now=self.now)

    def begin(self, accession_number: str = "ACC-1", *, uid: str = "2.25.7") -> None:
        self.worklist.begin(uid, samples.begun(accession_number, served.STUDY), now=self.now)

    def end(self, status: str, made: Sequence[str], *, uid: str = "2.25.7") -> None:
        """The step ends with these images, wherever they are."""
        ds = samples.ended(status)
        ds.PerformedSeriesSequence[0].ReferencedImageSequence = [_reference(each) for each in made]
        if not made:
            del ds.PerformedSeriesSequence[0].ReferencedImageSequence
        self.worklist.change(uid, ds, now=self.now)

    def judge(self) -> int:
        """Judge everything that was touched, ten seconds later."""
        self.now += timedelta(seconds=10)
        return self.quality.judge()

    def told(self) -> list[Entry]:
        """What the cloud is owed, or was told, of exams, in order."""
        found = [
            entry
            for state in ("open", "delivered", "parked")
            for entry in self.archive.outbox.entries(state, limit=10_000)
            if entry.message_type == "exam.quality"
        ]
        return sorted(found, key=lambda entry: entry.id)

    def deliver(self) -> None:
        """The cloud is told of everything that is due, but of what is held back."""
        while due := self.archive.outbox.due(self.now, limit=100):
            for entry in due:
                if reason := self.holding.reason(entry):
                    self.archive.outbox.held.hold(entry.id, reason=reason, now=self.now)
                else:
                    self.archive.outbox.delivered(entry, now=self.now)

    def changes(self) -> int:
        """How many rows say that an exam changed and was not judged since."""
        return sum(len(owner.changed_exams.waiting(limit=100)) for owner in (self.worklist, self.archive))

    def close(self) -> None:
        self.worklist.close()
        self.archive.close()


def opened(folder: Path) -> Exams:
    """A new site in a folder."""
    archive = Archive.open(folder / "pacs.db", folder / "instances")
    return Exams(Worklist.open(folder / "worklist.db"), archive)


def attached(folder: Path) -> Exams:
    """A site that is there, seen by its relay, an hour later."""
    archive = Archive.attach(folder / "pacs.db", folder / "instances")
    return Exams(Worklist.attach(folder / "worklist.db"), archive, now=NOW + timedelta(hours=1))


def _reference(sop_instance_uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", sop_instance_uid
    return ds


NEVER = sys.maxsize

OURS = {str(module.__file__) for module in (quality, evidence, changed_exams, quality_rows, entries)}


def ours(code: CodeType) -> bool:
    """Whether a function is of those that judge and tell."""
    return code.co_filename in OURS


def ours_or_a_commit(code: CodeType) -> bool:
    """The same, and what a commit does before and after it."""
    return ours(code) or (code.co_filename == sqlite.__file__ and code.co_name in {"_commit", "_end"})


@contextmanager
def before_line(number: int, counts: Callable[[CodeType], bool], deed: Callable[[], None]) -> Iterator[None]:
    """Do something just before the n-th line that this thread executes of functions that count."""
    with before_each_line(counts, lambda reached: deed() if reached == number else None):
        yield


@contextmanager
def before_each_line(counts: Callable[[CodeType], bool], deed: Callable[[int], None]) -> Iterator[None]:
    """Do something before each such line; it is told the line's number, from 1."""
    reached = 0

    def trace(frame: FrameType, event: str, _argument: object) -> object:
        nonlocal reached
        if not counts(frame.f_code):
            return None
        if event == "line":
            reached += 1
            deed(reached)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.settrace(before)


def lines_that_find_another_disk(folder: Path) -> list[int]:
    """Judge there; the lines before which the files are not as they were before the line above.

    All that a kill leaves is the files, so a kill before any other line leaves what one of these does.
    """
    numbers, last = [], b""

    def look(number: int) -> None:
        nonlocal last
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("-shm"))
        found = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in files)).digest()
        if found != last:
            numbers.append(number)
        last = found

    exams = attached(folder)
    with before_each_line(ours_or_a_commit, look):
        exams.quality.judge()
    exams.close()
    return numbers


def _main(folder: Path) -> None:
    """Judge in copies of the folder, each in a fork that is killed before another line, and at last one that is not."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    shutil.copytree(folder, looked_at := folder.with_name(f"{folder.name}-looked-at"))
    numbers = lines_that_find_another_disk(looked_at)
    assert threading.active_count() == 1
    for number in [*numbers, NEVER]:
        target = folder.with_name(f"{folder.name}-{number}")
        shutil.copytree(folder, target)
        pid = os.fork()
        if pid == 0:
            exams = attached(target)
            with before_line(number, ours_or_a_commit, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                exams.quality.judge()
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(f"{target.name} {os.waitstatus_to_exitcode(status)}", flush=True)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
