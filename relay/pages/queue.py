"""What the page of the delivery queue shows: destinations, what waits and what is parked there, and the last exams.

A destination is one line, whichever of the two databases owes it something. Values for templates only; what is done
about an entry is `gateway.outbox.entries`'s to know. Not here: HTML (`relay/pages`), HTTP
(`relay.pages.operator_routes`).
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
"""Priorities of `gateway.messages` as people call them."""

REQUESTS = ("full images", "chores")
"""Destinations that are the relay's own: what the cloud asked for and what is carried out here."""

MOST_PARKED = 100
MOST_GROUPS = 50
"""Of each database. Reasons name what is wrong and not with what, so a site has a handful."""

EXAMS = 20


@dataclass(frozen=True)
class Route:
    """One destination. Times are UTC text; `believed` is what its loop thinks, None when no loop of this relay sends
    there. `reason` is why an entry that is tried again has failed."""

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
        """Are these requests that are carried out here?"""
        return self.name in REQUESTS

    @property
    def knock_at(self) -> str | None:
        """When a destination that fails is asked again."""
        return utc_text(self.believed.knock_at) if self.believed and self.believed.knock_at else None

    @property
    def proven_at(self) -> str | None:
        """When it confirmed something last, as far as this run of the relay knows."""
        return utc_text(self.believed.proven_at) if self.believed and self.believed.proven_at else None


@dataclass(frozen=True)
class Parked:
    """An entry that waits for a person; `of` is the database it is in."""

    of: str
    entry: Entry


@dataclass(frozen=True)
class Group:
    """Entries of one database that are parked at one destination for one reason."""

    of: str
    alike: Alike


@dataclass(frozen=True)
class ExamLine:
    """How far the cloud was told of one study; both its images and what its steps said."""

    study_instance_uid: str
    accession_number: str
    last_received_at: str
    told: SubjectCounts


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
        """How many of them the groups have that are shown."""
        return sum(group.alike.count for group in self.groups)


class QueueBoard:
    """Asks both outboxes, and has them do what a person decided. Its methods block: call them in a thread."""

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
        """One entry that waits for a person, there or anywhere. Raises NotFound when it is not parked (any more)."""
        entry = self.outbox(of).parked(entry_id, destination)
        if entry is None:
            raise NotFound(f"No parked entry of {of} has the id {entry_id}; it was released or told meanwhile.")
        return Parked(of, entry)

    def alike(self, of: str, entry_id: int, destination: str | None = None) -> Group:
        """Everything that is parked at a destination for the reason of one entry. Raises NotFound as `parked`."""
        entry = self.parked(of, entry_id, destination).entry
        alike = self.outbox(of).overview.alike(entry.destination, entry.reason)
        if alike is None:
            raise NotFound(f"No parked entry of {of} has the id {entry_id}; it was released or told meanwhile.")
        return Group(of, alike)

    def outbox(self, of: str) -> Outbox:
        """The outbox of a database, worklist or pacs. Raises NotFound for another name."""
        try:
            return self._outboxes[of]
        except KeyError:
            raise NotFound("Entries are of worklist or of pacs.") from None

    def discard(self, of: str, entry_id: int, *, by: str, because: str) -> None:
        """Never send an image that is held back. Raises NotFound when none is (any more), InvalidValue as `discard`."""
        if of != "pacs":
            raise NotFound("Only images are held back, and they are of pacs.")
        discard(self._archive, entry_id, by=by, because=because, now=self._clock())

    def knock(self, destination: str) -> int:
        """Have everything tried at once that failed at a destination; say how much that is."""
        return sum(box.knock(destination, now=self._clock()) for box in self._outboxes.values())

    def _routes(self) -> Iterator[Route]:
        now, believed = self._clock(), self._site_facts.circuits()
        lines = [line for box in self._outboxes.values() for line in box.overview.lines(now=now)]
        names = {line.destination for line in lines} | set(believed)
        for name in sorted(names, key=lambda name: (name in REQUESTS, name)):
            yield _route(name, [line for line in lines if line.destination == name], believed.get(name))

    def _exams(self) -> Iterator[ExamLine]:
        for row in self._listing.newest_studies(EXAMS):
            uid, accession_number = str(row["study_instance_uid"]), str(row["accession_number"])
            told = [self._outboxes["pacs"].overview.counts_of(uid)]
            if accession_number:
                told.append(self._outboxes["worklist"].overview.counts_of(f"mpps/{accession_number}"))
            yield ExamLine(uid, accession_number, str(row["last_received_at"]), _sum(told))


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


def _sum(told: list[SubjectCounts]) -> SubjectCounts:
    return SubjectCounts(
        sum(each.delivered for each in told), sum(each.open for each in told), sum(each.parked for each in told)
    )
