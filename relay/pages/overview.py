"""The first page: health, the last proof of each hop, the last image, today's exams, and what needs a person.

Every number has an age. A state is a word and a shape, never a colour alone. A database that cannot be read raises; it
never looks like "none". No names, because the screen hangs where people pass. Values for templates only.

Not here: health (`relay.health.report`), HTML (`relay.pages.html`), the rows of the day (`relay.pages.worklist_board`).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.dataset.dicom_json import text
from gateway.messages import Check, HealthReport
from gateway.sqlite import utc_text
from pacs import Archive
from relay.dicomweb import qido
from relay.exams.instances import Instances
from relay.exams.views import image
from relay.pages.worklist_board import Board, Day
from worklist import Worklist

WORDS: Mapping[str, str] = {
    "hybrid_connection": "Cloud commands",
    "delivery": "Cloud events",
    "worklist_port": "Machines to worklist",
    "archive_port": "Machines to image archive",
    "worklist": "Worklist",
    "archive": "Image archive",
    "images": "Stored files",
    "audit": "Audit trail",
    "exams": "Exams",
}
"""Names for people of the checks of the health report; another check is shown by its own name."""


@dataclass(frozen=True)
class HopLine:
    """One hop between modality and cloud, or one service; `proven_at` is UTC text, empty when it never was."""

    name: str
    words: str
    ok: bool
    detail: str
    proven_at: str


@dataclass(frozen=True)
class Last:
    """The last image received; `view` is empty where the object has none."""

    received_at: str
    calling_ae_title: str
    station: str
    model: str
    view: str
    study_instance_uid: str


@dataclass(frozen=True)
class Attention:
    """Something for a person to look at, and where."""

    words: str
    path: str
    link: str


@dataclass(frozen=True)
class QueueSummary:
    """Entries for the cloud, of both databases; `oldest` is UTC ISO text, empty when none is open."""

    open: int
    parked: int
    delivered: int
    oldest: str


@dataclass(frozen=True)
class Overview:
    """Everything of the first page; `started_at` is UTC ISO text."""

    healthy: bool
    sentence: str
    version: str
    started_at: str
    hops: tuple[HopLine, ...]
    attention: tuple[Attention, ...]
    last: Last | None
    day: Day
    queue: QueueSummary
    holds: Mapping[str, int]
    disk: Check | None


class Overviews:
    """Reads both databases and the health report. Its methods block: call them in a thread."""

    def __init__(
        self,
        archive: Archive,
        worklist: Worklist,
        board: Board,
        instances: Instances,
        *,
        health: Callable[[], HealthReport],
        clock: Callable[[], datetime],
    ) -> None:
        self._archive = archive
        self._outboxes = (worklist.outbox, archive.outbox)
        self._board = board
        self._instances = instances
        self._health = health
        self._clock = clock

    def overview(self) -> Overview:
        """Put the first page together."""
        report, day, queue = self._health(), self._board.day(), self._queue()
        hops = tuple(_hops(report))
        attention = tuple(_attention(hops, day, queue, self._archive.quarantine.undecided()))
        return Overview(
            healthy=report.healthy,
            sentence=_sentence(hops, len(attention)),
            version=report.version,
            started_at=utc_text(self._clock() - timedelta(seconds=report.listener_uptime_seconds)),
            hops=hops,
            attention=attention,
            last=self._last(),
            day=day,
            queue=queue,
            holds=self._archive.statistics(),
            disk=report.checks.get("disk"),
        )

    def parked(self) -> int:
        """Count the parked entries of both databases."""
        return sum(outbox.counts()["parked"] for outbox in self._outboxes)

    def _queue(self) -> QueueSummary:
        counts = [outbox.counts() for outbox in self._outboxes]
        opened, parked, delivered = (sum(each[state] for each in counts) for state in ("open", "parked", "delivered"))
        waiting = [since for outbox in self._outboxes if (since := outbox.oldest_open())]
        return QueueSummary(opened, parked, delivered, min(waiting, default=""))

    def _last(self) -> Last | None:
        for stored in self._archive.latest(1):
            identifier = qido.read("SERIES", {}, [("SeriesInstanceUID", stored.series_instance_uid)]).identifier
            series = next(iter(self._archive.find("SERIES", identifier, limit=1)), {})
            of_study = self._instances.of_studies([stored.study_instance_uid])
            views = [image(each.data_set).name for each in of_study if each.stored == stored]
            return Last(
                received_at=stored.received_at,
                calling_ae_title=stored.calling_ae_title,
                station=text(series, "StationName"),
                model=" ".join(filter(None, (text(series, "Manufacturer"), text(series, "ManufacturerModelName")))),
                view="".join(views),
                study_instance_uid=stored.study_instance_uid,
            )
        return None


def _hops(report: HealthReport) -> Iterator[HopLine]:
    for name, check in report.checks.items():
        yield HopLine(name, _words(name), check.ok, check.detail, check.proven_at or "")


def _words(name: str) -> str:
    return WORDS.get(name) or name.replace("_", " ").capitalize()


def _sentence(hops: tuple[HopLine, ...], attention: int) -> str:
    if broken := [hop.words for hop in hops if not hop.ok]:
        return f"Not everything is working: {', '.join(broken)}"
    if attention:
        return (
            f"Everything is working, and {'one thing needs' if attention == 1 else f'{attention} things need'} a look"
        )
    return "Everything is working"


def _attention(hops: tuple[HopLine, ...], day: Day, queue: QueueSummary, undecided: int) -> Iterator[Attention]:
    for hop in hops:
        if not hop.ok:
            yield Attention(f"{hop.words}: {hop.detail}", f"#{hop.name}", "See the details")
    if number := len(day.problems):
        words = "1 exam of today needs a look." if number == 1 else f"{number} exams of today need a look."
        yield Attention(words, "/board#problems", "Open the board")
    if queue.parked:
        what = "1 message" if queue.parked == 1 else f"{queue.parked} messages"
        yield Attention(f"{what} to the cloud cannot be delivered without a person.", "/queue", "Open delivery")
    if undecided:
        what = "1 object waits" if undecided == 1 else f"{undecided} objects wait"
        yield Attention(f"{what} in the quarantine for a decision.", "/quarantine", "Open the quarantine")
