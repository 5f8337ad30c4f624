"""The storage page: totals, growth, free space, retention, scrub and forwarding.

Numbers are of the moment that the page was made, unless a time stands with them. Values for templates only.

Not here: HTML (`relay/pages`), rules of retention (`pacs.maintenance.retention`), plots (`relay.pages.bar_chart`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from math import floor

from gateway.disk_space import Fullness, Volume, Watermarks
from gateway.last_backup import LastBackup, last
from gateway.sqlite import utc_text
from pacs import Archive, Damaged, ForwardQueue, RetentionOutcome, RetentionPolicy, TargetQueue, candidates
from relay.pages.bar_chart import Plot, plot
from relay.pages.site_facts import SiteFacts

DAYS = 60
"""Days of the plots; two months show a season's trend, and a bar is still wide enough to be pointed at."""

GROWTH_DAYS = 30
"""Whole days of which the growth is the mean: weekends and weeks without a clinic are part of it."""

MOST_STUDIES = 200
"""Studies old enough to go that are judged, the oldest first; more would make the page take minutes."""

MOST_DAMAGED = 50


@dataclass(frozen=True)
class Day:
    """Receipts of one day (UTC, such as 2026-11-22)."""

    day: str
    studies: int
    instances: int
    bytes: int


@dataclass(frozen=True)
class Room:
    """The volume of the images. `left_bytes` may still be received before images are refused; `days_left` None: no
    growth."""

    volume: Volume
    fullness: Fullness
    watermarks: Watermarks
    left_bytes: int
    growth_bytes: int
    """A day, the mean of `growth_days` whole days."""
    growth_days: int
    days_left: int | None


@dataclass(frozen=True)
class Release:
    """Retention of the oldest studies. `held` counts the reasons why others stay, the most frequent first."""

    policy: RetentionPolicy
    looked_at: int
    is_all: bool
    goes: int
    goes_bytes: int
    held: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Scrubbing:
    """Progress of the scrub. Times are UTC ISO text; `percent` is of the files that exist now."""

    began_at: str | None
    ended_at: str | None
    files: int
    percent: int
    damaged: int


@dataclass(frozen=True)
class Storage:
    """The page. `room` None: the volume cannot be read, and `trouble` says why."""

    totals: dict[str, int]
    oldest: str | None
    newest: str | None
    days: tuple[Day, ...]
    plots: tuple[Plot, ...]
    room: Room | None
    trouble: str
    release: Release | None
    scrub: Scrubbing
    damaged: tuple[Damaged, ...]
    forwarding: tuple[TargetQueue, ...]
    backup: LastBackup | None


class StorageBoard:
    """Reads the archive. Its method blocks: call it in a thread."""

    def __init__(self, archive: Archive, site_facts: SiteFacts, *, clock: Callable[[], datetime]) -> None:
        self._archive = archive
        self._forwarding = ForwardQueue(archive)
        self._site_facts = site_facts
        self._clock = clock

    def storage(self) -> Storage:
        """Put the page together."""
        now = self._clock().astimezone(UTC)
        totals, received = self._archive.statistics(), self._archive.listing.received()
        days = filled(self._archive.listing.growth(utc_text(_first_day(now))), now)
        room, trouble = self._room(days, received["oldest"], now)
        return Storage(
            totals=totals,
            oldest=received["oldest"],
            newest=received["newest"],
            days=days,
            plots=plots(days),
            room=room,
            trouble=trouble,
            release=self._release(now),
            scrub=self._scrub(totals["instances"]),
            damaged=tuple(self._archive.listing.damaged(MOST_DAMAGED)),
            forwarding=tuple(self._forwarding.targets()),
            backup=last(self._site_facts.backups) if self._site_facts.backups else None,
        )

    def _room(self, days: Sequence[Day], oldest: str | None, now: datetime) -> tuple[Room | None, str]:
        try:
            volume = self._archive.volume()
        except OSError as error:
            return None, f"The volume of the images cannot be looked at: {error.strerror}."
        return room(volume, self._site_facts.watermarks, days, oldest=oldest, now=now), ""

    def _release(self, now: datetime) -> Release | None:
        policy = self._site_facts.policy
        return None if policy is None else release(policy, candidates(self._archive, policy, now=now))

    def _scrub(self, instances: int) -> Scrubbing:
        condition = self._archive.condition()
        reached = condition.scrub
        # The scrub may have read files that have since been removed.
        percent = min(100, 100 * reached.file_count // instances) if instances else 100
        return Scrubbing(
            began_at=reached.began_at,
            ended_at=reached.ended_at,
            files=reached.file_count,
            percent=100 if reached.ended_at else percent,
            damaged=condition.damaged,
        )


def filled(rows: Iterable[dict[str, object]], now: datetime) -> tuple[Day, ...]:
    """Return the last DAYS days up to today, the oldest first, including days without receipts."""
    known = {str(row["day"]): row for row in rows}
    days = [(_first_day(now) + timedelta(days=number)).strftime("%Y-%m-%d") for number in range(DAYS)]
    return tuple(_day(day, known.get(day, {})) for day in days)


def room(volume: Volume, marks: Watermarks, days: Sequence[Day], *, oldest: str | None, now: datetime) -> Room:
    """Calculate the bytes that may still be received, and the days until then at the present growth.

    `days` ends today; `oldest` is the time of the first image, UTC ISO text.
    """
    # Today is not over, and days before the first image would make the growth too small.
    first = oldest[:10] if oldest else now.strftime("%Y-%m-%d")
    counted = [day for day in days[:-1] if day.day >= first][-GROWTH_DAYS:]
    growth = sum(day.bytes for day in counted) // len(counted) if counted else 0
    # Images are refused at the stop watermark, not on a full volume.
    kept_free = floor(volume.total_bytes * (100 - marks.stop_percent) / 100)
    left = max(0, volume.free_bytes - kept_free)
    return Room(
        volume=volume,
        fullness=volume.fullness(marks),
        watermarks=marks,
        left_bytes=left,
        growth_bytes=growth,
        growth_days=len(counted),
        days_left=left // growth if growth else None,
    )


def release(policy: RetentionPolicy, outcomes: Iterable[RetentionOutcome]) -> Release:
    """Sum up the outcomes of the oldest studies, as far as MOST_STUDIES."""
    looked = list(islice(outcomes, MOST_STUDIES + 1))  # one more shows that there are more; each costs queries
    judged = looked[:MOST_STUDIES]
    going = [outcome.study for outcome in judged if not outcome.kept_because]
    held = Counter(reason for outcome in judged for reason in outcome.kept_because)
    return Release(
        policy=policy,
        looked_at=len(judged),
        is_all=len(looked) <= MOST_STUDIES,
        goes=len(going),
        goes_bytes=sum(study.size_bytes for study in going),
        held=tuple(held.most_common()),
    )


def plots(days: Sequence[Day]) -> tuple[Plot, ...]:
    """Lay out the plots of the page."""
    total = sum(day.bytes for day in days)
    studies = sum(day.studies for day in days)
    return (
        plot(
            "bytes",
            [(day.day, day.bytes) for day in days],
            title="Bytes received each day",
            description=f"{size(total)} in the last {len(days)} days.",
            words=size,
        ),
        plot(
            "studies",
            [(day.day, day.studies) for day in days],
            title="Studies that got images each day",
            description=f"{studies} in the last {len(days)} days; a study of several days counts on each.",
        ),
    )


def size(count: int) -> str:
    """Write a number of bytes for people, in powers of 1000."""
    value, units = float(count), ("B", "kB", "MB", "GB", "TB")
    for unit in units:
        if value < 999.5 or unit == units[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes everything")


def _first_day(now: datetime) -> datetime:
    return now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=DAYS - 1)


def _day(day: str, row: dict[str, object]) -> Day:
    return Day(day, *(int(str(row.get(name, 0))) for name in ("studies", "instances", "bytes")))
