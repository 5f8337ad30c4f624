"""Judges the exams that changed, and owes the cloud every judgement that is new (`exam.quality`).

The rules:

* The worklist's marks are taken over by the archive, whose outbox tells: mark, judgement and event are then of one
  database and change in one transaction (`pacs.archive.quality_rows`). A process killed anywhere else has left the
  mark.
* An exam is judged when nothing has changed it for `SETTLE`, since images come in bursts; at the latest when its first
  change is `LONGEST` ago, since a burst must not hide an exam.
* What disagrees is held back first (`relay.exams.holding`): a judgement says so of what a person finds parked.
* Only what differs from the judgement told last is told. It is of the subject of the exam's images and comes after
  those that were there.
* An exam without a worklist item is not judged: there is nothing to compare it with. One that is only scheduled, or
  was cancelled before it began, is not told of.

Not here: what an exam looks like (`relay.exams.exam`), what is known of it (`relay.exams.evidence`).
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from gateway.errors import OutOfResources
from gateway.outbox.changed_exams import ChangedExam
from gateway.sqlite import utc_text
from pacs import Archive
from relay.exams.evidence import Evidence
from relay.exams.exam import judgement
from worklist import Worklist

log = structlog.get_logger()

SETTLE = timedelta(seconds=1.5)
"""Longer than a machine needs between the images of one exposure, short enough for the participant to be there."""

LONGEST = timedelta(seconds=8)
"""With an image every second for a minute, an exam is told so often."""

LOOK_SECONDS = 0.25
"""How often the marks are looked at, while there are any; else two numbers are read from shared memory."""

AT_ONCE = 100
"""Marks that are looked at in one go."""

FULL_SECONDS = 5.0
"""How long to wait when the disk takes nothing."""


PUT_OFF = timedelta(minutes=10)
"""How long an exam waits that could not be judged, unless it changes: each try leaves a trace in the log."""


def is_ripe(changed: ChangedExam, *, now: datetime) -> bool:
    """Whether an exam is to be judged; a mark from the future was written by a clock that has been set back since."""
    return (
        changed.last_at <= utc_text(now - SETTLE)
        or changed.first_at <= utc_text(now - LONGEST)
        or changed.last_at > utc_text(now)
    )


class Quality:
    """Judges until it is cancelled, which may be at any moment."""

    def __init__(
        self, worklist: Worklist, archive: Archive, evidence: Evidence, *, clock: Callable[[], datetime]
    ) -> None:
        self._worklist = worklist
        self._archive = archive
        self._evidence = evidence
        self._clock = clock
        self._faulty: dict[tuple[str, str], tuple[ChangedExam, datetime]] = {}

    @property
    def trouble(self) -> str:
        """That exams cannot be judged, in a sentence for the health report; '' when all can."""
        count = len(self._faulty)
        if not count:
            return ""
        changes = "1 change of an exam" if count == 1 else f"{count} changes of exams"
        return (
            f"{changes} could not be judged, so the cloud is not told how complete it is; 'exam not judged' in the"
            " relay's log says which and why. It is tried again."
        )

    async def run(self) -> None:
        """Look at the marks again and again."""
        seen: list[int] = []
        waiting = 0
        while True:
            versions = [each.data_version() for each in (self._worklist, self._archive)]
            if waiting or versions != seen:
                waiting, seen = await self._judge(), versions
            await asyncio.sleep(LOOK_SECONDS)

    async def _judge(self) -> int:
        try:
            return await asyncio.to_thread(self.judge)
        except OutOfResources as error:  # the marks stay; a full disk must not end the relay
            log.warning("exams not judged", reason=str(error))
            await asyncio.sleep(FULL_SECONDS)
            return 1

    def judge(self) -> int:
        """Judge what is ripe, and say how many exams are left that will be."""
        if of_worklist := self._worklist.changed_exams.waiting(limit=AT_ONCE):
            self._archive.changed_exams.take_over(of_worklist, self._worklist.changed_exams)
        found = self._archive.changed_exams.waiting(limit=AT_ONCE + len(self._faulty))
        now = self._clock()
        waiting = [changed for changed in found if not self._is_put_off(changed, now=now)]
        ripe = [changed for changed in waiting if is_ripe(changed, now=now)]
        for changed in ripe:
            self._conclude(changed)
        return len(waiting) - len(ripe)

    def _is_put_off(self, changed: ChangedExam, *, now: datetime) -> bool:
        """Whether judging this exam failed a while ago and it has not changed since."""
        failed, at = self._faulty.get(_exam_of(changed), (None, now))
        return failed == changed and at <= now < at + PUT_OFF

    def _conclude(self, changed: ChangedExam) -> None:
        uid, number = changed.study_instance_uid, changed.accession_number
        try:
            held = self._evidence.hold(study_instance_uid=uid, accession_number=number, now=self._clock())
            exams = self._evidence.exams_to_tell(study_instance_uid=uid, accession_number=number)
            told = self._archive.quality.conclude(changed, map(judgement, exams), now=self._clock())
        except OutOfResources:
            raise
        except Exception:  # a fault of ours with this one exam: it is put off, and the others go on
            log.exception("exam not judged", study_instance_uid=changed.study_instance_uid)
            self._faulty[_exam_of(changed)] = changed, self._clock()
            return
        self._faulty.pop(_exam_of(changed), None)
        for message_id in held:
            log.warning("event held back", message_id=message_id)
        for each in told:
            log.info(
                "exam judged",
                accession_number=each.accession_number,
                state=each.state,
                revision=each.revision,
                findings=len(each.findings),
            )


def _exam_of(changed: ChangedExam) -> tuple[str, str]:
    return changed.study_instance_uid, changed.accession_number
