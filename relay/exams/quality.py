"""Computes the exam quality of changed exams and enqueues each new one for the cloud (`exam.quality`).

* An exam is computed when nothing has changed it for `SETTLE`, at the latest `LONGEST` after its first change.
* Images that disagree are held back first (`relay.exams.holding`), so that the exam quality counts them.
* Only an exam quality that differs from the last one is enqueued. It shares the ordering key of the exam's images, so
  it arrives after them.
* Nothing is computed for images without a worklist item, and nothing enqueued for an exam that is only scheduled or was
  cancelled before it began.

Not here: what an exam looks like (`relay.exams.exam`), reading the databases (`relay.exams.evidence`).
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
"""The interval between two exam qualities while images keep coming, one every second."""

LOOK_SECONDS = 0.25
"""Interval of the loop. Without changed exams it only reads two numbers from shared memory."""

AT_ONCE = 100
"""Changed exams read at once."""

FULL_SECONDS = 5.0
"""Pause after a write failed because the disk is full."""

PUT_OFF = timedelta(minutes=10)
"""Pause for an exam that failed, unless it changes: each attempt writes a traceback to the log."""


def is_ripe(changed: ChangedExam, *, now: datetime) -> bool:
    """Whether an exam is to be computed now."""
    return (
        changed.last_at <= utc_text(now - SETTLE)
        or changed.first_at <= utc_text(now - LONGEST)
        or changed.last_at > utc_text(now)  # the clock has been set back since: waiting for it could take days
    )


class Quality:
    """Computes exam qualities until it is cancelled, which may be at any moment."""

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
        """A sentence for the health report when exams failed; '' when none did."""
        count = len(self._faulty)
        if not count:
            return ""
        changes = "1 change of an exam" if count == 1 else f"{count} changes of exams"
        return (
            f"{changes} could not be judged, so the cloud is not told how complete it is; 'exam not judged' in the"
            " relay's log says which and why. It is tried again."
        )

    async def run(self) -> None:
        """Compute changed exams as they ripen, for ever."""
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
        """Compute the ripe exams and return how many are left that will ripen."""
        # Carried over first: the mark, the event and the memory of the last event have to change in one transaction,
        # and there is none over two databases. A process killed anywhere else leaves the mark.
        if of_worklist := self._worklist.changed_exams.waiting(limit=AT_ONCE):
            self._archive.changed_exams.take_over(of_worklist, self._worklist.changed_exams)
        # Failed exams do not count, or a hundred of them would hide the others.
        found = self._archive.changed_exams.waiting(limit=AT_ONCE + len(self._faulty))
        now = self._clock()
        waiting = [changed for changed in found if not self._is_put_off(changed, now=now)]
        ripe = [changed for changed in waiting if is_ripe(changed, now=now)]
        for changed in ripe:
            self._conclude(changed)
        return len(waiting) - len(ripe)

    def _is_put_off(self, changed: ChangedExam, *, now: datetime) -> bool:
        """Whether this exam failed less than `PUT_OFF` ago and has not changed since."""
        failed, at = self._faulty.get(_exam_of(changed), (None, now))
        return failed == changed and at <= now < at + PUT_OFF

    def _conclude(self, changed: ChangedExam) -> None:
        uid, number = changed.study_instance_uid, changed.accession_number
        try:
            held = self._evidence.hold(study_instance_uid=uid, accession_number=number, now=self._clock())
            exams = self._evidence.reportable_exams(study_instance_uid=uid, accession_number=number)
            enqueued = self._archive.quality.conclude(changed, map(judgement, exams), now=self._clock())
        except OutOfResources:
            raise
        except Exception:  # a fault of ours with this one exam: it is put off, and the others go on
            log.exception("exam not judged", study_instance_uid=changed.study_instance_uid)
            self._faulty[_exam_of(changed)] = changed, self._clock()
            return
        self._faulty.pop(_exam_of(changed), None)
        for message_id in held:
            log.warning("event held back", message_id=message_id)
        for each in enqueued:
            log.info(
                "exam judged",
                accession_number=each.accession_number,
                state=each.state,
                revision=each.revision,
                findings=len(each.findings),
            )


def _exam_of(changed: ChangedExam) -> tuple[str, str]:
    return changed.study_instance_uid, changed.accession_number
