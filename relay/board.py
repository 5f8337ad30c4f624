"""What the pages show, put together from the worklist, the archive and the health report.

Rules. Every number has an age, every time a zone. A state is a word and a shape, never a colour alone. What cannot be
asked raises; it never looks like "none".

Values for templates only. Not here: HTML (`relay/pages`), HTTP (`relay.web`), the rules of an exam (`relay.exams`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.errors import NotFound
from gateway.messages import HealthReport
from gateway.outbox import Outbox
from pacs import Archive
from relay.dicom_json import DicomJson, text, values
from relay.evidence import Evidence, identifier
from relay.exams import Exam
from relay.holding import HOLDS, Holding
from relay.views import Image, hanging, image
from worklist import Item, Worklist

LATEST_STUDIES = 10
LATEST_INSTANCES = 200
"""How far back the list of studies looks; ten screening exams have 40 to 200 instances."""


@dataclass(frozen=True)
class Hop:
    """One hop of the way between modality and cloud; `proven` says how long ago it was seen to work."""

    name: str
    ok: bool
    detail: str
    proven: str


@dataclass(frozen=True)
class Row:
    """One appointment of today, with what has arrived of it."""

    item: Item
    exam: Exam
    shown: Mapping[str, Image | None]


@dataclass(frozen=True)
class Line:
    """One study of the list; `received` says how long ago its last image came."""

    study_instance_uid: str
    accession_number: str
    patient_name: str
    patient_id: str
    date: str
    modalities: str
    instances: str
    received: str = ""


@dataclass(frozen=True)
class Status:
    """The first page."""

    as_of: datetime
    healthy: bool
    version: str
    hops: tuple[Hop, ...]
    rows: tuple[Row, ...]
    lines: tuple[Line, ...]
    queue: Mapping[str, int]
    oldest: str
    statistics: Mapping[str, int]


@dataclass(frozen=True)
class Study:
    """The quick look at one study; `exam` is None when no worklist item belongs to it."""

    as_of: datetime
    line: Line
    shown: Mapping[str, Image | None]
    others: tuple[Image, ...]
    exam: Exam | None


class Board:
    """Asks both databases. Its methods block: call them in a thread."""

    def __init__(
        self,
        archive: Archive,
        worklist: Worklist,
        *,
        health: Callable[[], HealthReport],
        clock: Callable[[], datetime],
        holds: Collection[str] = HOLDS,
    ) -> None:
        """`holds` are the findings that hold images back here (`relay.holding`)."""
        self._evidence = Evidence(archive, worklist, holding=Holding(archive, worklist, holds=holds))
        self._archive = archive
        self._worklist = worklist
        self._health = health
        self._clock = clock

    def status(self) -> Status:
        """Put the first page together; today is the site's wall date."""
        now, report = self._clock().astimezone(), self._health()
        outboxes = (self._worklist.outbox, self._archive.outbox)
        return Status(
            as_of=now,
            healthy=report.healthy,
            version=report.version,
            hops=tuple(_hops(report, now)),
            rows=tuple(map(self._row, self._worklist.items(date=now.strftime("%Y%m%d")))),
            lines=tuple(self._lines(now)),
            queue={
                state: sum(outbox.counts()[state] for outbox in outboxes) for state in ("open", "parked", "delivered")
            },
            oldest=_oldest(outboxes, now),
            statistics=self._archive.statistics(),
        )

    def study(self, study_instance_uid: str) -> Study:
        """Put the page of one study together. Raises NotFound."""
        found = self._archive.find("STUDY", identifier(StudyInstanceUID=study_instance_uid), limit=1)
        if not found:
            raise NotFound("This study is not in the archive of this gateway.")
        instances = self._evidence.instances(StudyInstanceUID=study_instance_uid)
        images = tuple(map(image, instances))
        shown = hanging(images)
        return Study(
            as_of=self._clock().astimezone(),
            line=_line(found[0]),
            shown=shown,
            others=tuple(each for each in images if each not in shown.values()),
            exam=self._exam(text(found[0], "00080050")),
        )

    def _row(self, item: Item) -> Row:
        seen = self._evidence.exam(item)
        return Row(item=item, exam=seen, shown=hanging(seen.images))

    def _exam(self, accession_number: str) -> Exam | None:
        if not accession_number:
            return None
        try:
            return self._evidence.exam(self._worklist.item(accession_number))
        except NotFound:  # an unscheduled exam: images are taken without an item
            return None

    def _lines(self, now: datetime) -> Iterator[Line]:
        received: dict[str, str] = {}
        for stored in self._archive.latest(LATEST_INSTANCES):
            received.setdefault(stored.study_instance_uid, stored.received_at)
        for uid in list(received)[:LATEST_STUDIES]:
            for match in self._archive.find("STUDY", identifier(StudyInstanceUID=uid), limit=1):
                yield _line(match, received=age(received[uid], now))


def age(then: str | None, now: datetime) -> str:
    """Say how long ago a moment (UTC ISO text) was, in words that need no arithmetic."""
    if not then:
        return ""
    seconds = max(0, int((now - datetime.fromisoformat(then)).total_seconds()))
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = seconds // length
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now" if seconds < 2 else f"{seconds} seconds ago"


def _hops(report: HealthReport, now: datetime) -> Iterator[Hop]:
    for name, check in report.checks.items():
        yield Hop(name=name, ok=check.ok, detail=check.detail, proven=age(check.proven_at, now))


def _oldest(outboxes: Iterable[Outbox], now: datetime) -> str:
    waiting = [since for outbox in outboxes if (since := outbox.oldest_open())]
    return age(min(waiting), now) if waiting else ""


def _line(match: DicomJson, *, received: str = "") -> Line:
    return Line(
        study_instance_uid=text(match, "0020000D"),
        accession_number=text(match, "00080050"),
        patient_name=text(match, "00100010"),
        patient_id=text(match, "00100020"),
        date=text(match, "00080020"),
        modalities=", ".join(str(value) for value in values(match, "00080061")),
        instances=text(match, "00201208"),
        received=received,
    )
