"""The delivery page: destinations, waiting and parked entries, and the last exams.

Both databases have an outbox; a destination is one line for both. Values for templates only.

Not here: rules of entries (`gateway.outbox.entries`), HTML (`relay/pages`), HTTP (`relay.pages.operator_routes`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from gateway.errors import NotFound
from gateway.outbox import Entry, Outbox
from gateway.outbox.overview import Alike, DestinationOverview, SubjectCounts
from gateway.sqlite import utc_text
from pacs import Archive, discard
from relay.pages.site_facts import CircuitState, SiteFacts
from worklist import Worklist

CLASSES: Mapping[int, str] = {1: "status", 2: "images and thumbnails", 3: "other events", 4: "full images", 5: "tests"}
"""Priorities of `gateway.messages` in words."""

REQUESTS = ("full images", "chores")
"""Destinations that are the relay's own: deferred actions of the cloud, carried out here."""

MOST_PARKED = 100
MOST_GROUPS = 50
"""Of each database. A reason names the fault and not the object, so a site has a handful."""

EXAMS = 20


@dataclass(frozen=True)
class Route:
    """One destination. Times are UTC ISO text; `believed` is the state of its circuit, None when no loop of this relay
    sends there. `reason` is the last failure of the entry that is tried next."""

    name: str
    waiting: int
    classes: tuple[tuple[str, int], ...]
    oldest: str | None
    next_attempt: str | None
    attempts: int
    reason: str
    parked: int
    delivered_today: int
    bytes_today: int
    believed: CircuitState | None

    @property
    def is_own(self) -> bool:
        """Is this one of REQUESTS?"""
        return self.name in REQUESTS

    @property
    def knock_at(self) -> str | None:
        """When a failing destination is tried again."""
        return utc_text(self.believed.knock_at) if self.believed and self.believed.knock_at else None

    @property
    def proven_at(self) -> str | None:
        """Time of the last confirmation in this run of the relay."""
        return utc_text(self.believed.proven_at) if self.believed and self.believed.proven_at else None


@dataclass(frozen=True)
class Parked:
    """A parked entry; `of` is its database, worklist or pacs."""

    of: str
    entry: Entry


@dataclass(frozen=True)
class Group:
    """Entries of one database that are parked at one destination for one reason."""

    of: str
    alike: Alike


@dataclass(frozen=True)
class ExamLine:
    """Delivery of one study: the entries of its images and of its performed steps."""

    study_instance_uid: str
    accession_number: str
    last_received_at: str
    counts: SubjectCounts


@dataclass(frozen=True)
class QueuePage:
    """The page."""

    routes: tuple[Route, ...]
    groups: tuple[Group, ...]
    parked: tuple[Parked, ...]
    exams: tuple[ExamLine, ...]

    @property
    def waiting(self) -> int:
        return sum(route.waiting for route in self.routes)

    @property
    def parked_count(self) -> int:
        return sum(route.parked for route in self.routes)

    @property
    def parked_in_groups(self) -> int:
        """Parked entries in the groups shown."""
        return sum(group.alike.count for group in self.groups)


class QueueBoard:
    """Reads both outboxes and carries out an operator's actions. Its methods block: call them in a thread."""

    def __init__(
        self, archive: Archive, worklist: Worklist, site_facts: SiteFacts, *, clock: Callable[[], datetime]
    ) -> None:
        self._archive = archive
        self._outboxes = {"worklist": worklist.outbox, "pacs": archive.outbox}
        self._listing = archive.listing
        self._site_facts = site_facts
        self._clock = clock

    def queue(self) -> QueuePage:
        """Put the page together."""
        return QueuePage(
            routes=tuple(self._routes()),
            groups=tuple(
                Group(of, alike)
                for of, box in self._outboxes.items()
                for alike in box.overview.parked_alike(limit=MOST_GROUPS)
            ),
            parked=tuple(
                Parked(of, entry)
                for of, box in self._outboxes.items()
                for entry in box.entries("parked", limit=MOST_PARKED)
            ),
            exams=tuple(self._exams()),
        )

    def parked(self, of: str, entry_id: int, destination: str | None = None) -> Parked:
        """Return a parked entry, at `destination` or at any. Raises NotFound when it is not parked (any more)."""
        entry = self.outbox(of).parked(entry_id, destination)
        if entry is None:
            raise NotFound(f"No parked entry of {of} has the id {entry_id}; it was released or told meanwhile.")
        return Parked(of, entry)

    def alike(self, of: str, entry_id: int, destination: str | None = None) -> Group:
        """Return the entries parked at a destination for the reason of this one. Raises NotFound as `parked`."""
        entry = self.parked(of, entry_id, destination).entry
        alike = self.outbox(of).overview.alike(entry.destination, entry.reason)
        if alike is None:
            raise NotFound(f"No parked entry of {of} has the id {entry_id}; it was released or told meanwhile.")
        return Group(of, alike)

    def outbox(self, of: str) -> Outbox:
        """Return the outbox of a database, worklist or pacs. Raises NotFound for another name."""
        try:
            return self._outboxes[of]
        except KeyError:
            raise NotFound("Entries are of worklist or of pacs.") from None

    def discard(self, of: str, entry_id: int, *, by: str, because: str) -> None:
        """Discard an image that is held back. Raises NotFound if it is none (any more), and as `pacs.discard`."""
        if of != "pacs":
            raise NotFound("Only images are held back, and they are of pacs.")
        discard(self._archive, entry_id, by=by, because=because, now=self._clock())

    def knock(self, destination: str) -> int:
        """Make all postponed entries of a destination due at once; return their number."""
        return sum(box.knock(destination, now=self._clock()) for box in self._outboxes.values())

    def _routes(self) -> Iterator[Route]:
        now, believed = self._clock(), self._site_facts.circuits()
        lines = [line for box in self._outboxes.values() for line in box.overview.lines(now=now)]
        names = {line.destination for line in lines} | set(believed)
        # Destinations that nothing waits for are shown as well, if a loop sends there; the relay's own come last.
        for name in sorted(names, key=lambda name: (name in REQUESTS, name)):
            yield _route(name, [line for line in lines if line.destination == name], believed.get(name))

    def _exams(self) -> Iterator[ExamLine]:
        for row in self._listing.newest_studies(EXAMS):
            uid, accession_number = str(row["study_instance_uid"]), str(row["accession_number"])
            counts = [self._outboxes["pacs"].overview.counts_of(uid)]
            if accession_number:
                counts.append(self._outboxes["worklist"].overview.counts_of(f"mpps/{accession_number}"))
            yield ExamLine(uid, accession_number, str(row["last_received_at"]), _sum(counts))


def _route(name: str, lines: list[DestinationOverview], believed: CircuitState | None) -> Route:
    classes: Counter[int] = Counter()
    for line in lines:
        classes.update(line.waiting)
    postponed = min((line for line in lines if line.next_attempt), key=_next_attempt, default=None)
    return Route(
        name=name,
        waiting=classes.total(),
        classes=tuple((CLASSES.get(kind, "other events"), classes[kind]) for kind in sorted(classes)),
        oldest=min((line.oldest for line in lines if line.oldest), default=None),
        next_attempt=postponed.next_attempt if postponed else None,
        attempts=postponed.attempts if postponed else 0,
        reason=postponed.reason if postponed else "",
        parked=sum(line.parked for line in lines),
        delivered_today=sum(line.delivered_today for line in lines),
        bytes_today=sum(line.bytes_today for line in lines),
        believed=believed,
    )


def _next_attempt(line: DestinationOverview) -> str:
    return line.next_attempt or ""


def _sum(counts: list[SubjectCounts]) -> SubjectCounts:
    return SubjectCounts(
        sum(each.delivered for each in counts), sum(each.open for each in counts), sum(each.parked for each in counts)
    )
