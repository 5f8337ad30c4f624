"""The worklist board: the appointments of one day, each with the images that have arrived for it.

Rows are in clinic order. Problems that need a person are sentences on the row, and counted for the day. An image
belongs to an appointment by its study UID or its accession number. Images reported by MPPS that have not arrived are
counted. Values for templates only; a database that cannot be read raises.

Not here: HTML (`relay.pages.html`), the rules of an exam (`relay.exams.exam`).
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from gateway.errors import InvalidQuery
from relay.exams.evidence import Evidence
from relay.exams.exam import Exam
from relay.exams.instances import Instance, Instances
from relay.exams.views import Image, hanging
from relay.pages.html import person
from worklist import Item, Performed, Worklist

MOST_DAYS = 3
"""Days kept in memory beside the one requested."""

WALL_ROWS = 14
"""What fits on a screen in letters that are read from a few metres."""

_OUTCOMES = frozenset({"discontinued"})
"""Findings that say how an exam ended, and need no person."""


@dataclass(frozen=True)
class Row:
    """One appointment. `awaited` counts the images reported by MPPS that have not arrived.

    `latest` is the time of the last image, UTC ISO text, empty for none.
    """

    item: Item
    exam: Exam
    shown: Mapping[str, Image | None]
    extras: tuple[str, ...]
    awaited: int
    latest: str
    problems: tuple[str, ...]
    remarks: tuple[str, ...] = ()

    @property
    def study_instance_uid(self) -> str:
        """The Study Instance UID of its images; empty while there are none."""
        return self.exam.images[0].study_instance_uid if self.exam.images else ""


@dataclass(frozen=True)
class Day:
    """One day; `rows` are filtered by `sought`, the counts are of all."""

    on: date
    is_today: bool
    rows: tuple[Row, ...]
    total: int
    states: Mapping[str, int]
    images: int
    problems: tuple[Row, ...]
    sought: str

    @property
    def on_wall(self) -> tuple[Row, ...]:
        """Rows for a screen that does not scroll: earlier ones with problems, the last two over, then the next."""
        open_ = [place for place, row in enumerate(self.rows) if row.item.state in {"scheduled", "in_progress"}]
        last_page = max(0, len(self.rows) - WALL_ROWS)
        first = min(max(0, open_[0] - 2), last_page) if open_ else last_page
        earlier = tuple(row for row in self.rows[:first] if row.problems)
        return (*earlier, *self.rows[first:])[:WALL_ROWS]

    @property
    def before(self) -> date:
        return self.on - timedelta(days=1)

    @property
    def after(self) -> date:
        return self.on + timedelta(days=1)


class Board:
    """Reads both databases. Its methods block: call them in a thread.

    A day is made once for all screens, until one of the databases changes; then only the rows that depend on the change
    are made anew.
    """

    def __init__(
        self, worklist: Worklist, instances: Instances, evidence: Evidence, *, clock: Callable[[], datetime]
    ) -> None:
        self._worklist = worklist
        self._instances = instances
        self._evidence = evidence
        self._clock = clock
        self._turn = threading.Lock()
        # Every screen reads the board again with every change, so a day is made once for all.
        self._days: dict[date, tuple[tuple[int, int], list[Row]]] = {}
        self._rows: dict[str, tuple[object, Row]] = {}

    def day(self, day: date | None = None, *, sought: str = "") -> Day:
        """Put a day together, by default the site's today; `sought` is a part of a name or of an accession number."""
        today = self._clock().astimezone().date()
        wanted = day or today
        rows = self._rows_of(wanted)
        return Day(
            on=wanted,
            is_today=wanted == today,
            rows=tuple(row for row in rows if _is_sought(row.item, sought)),
            total=len(rows),
            states=Counter(row.item.state for row in rows),
            images=sum(len(row.exam.images) for row in rows),
            problems=tuple(row for row in rows if row.problems),
            sought=sought,
        )

    def _rows_of(self, day: date) -> list[Row]:
        with self._turn:
            # Read before the rows: a change in between makes them anew the next time.
            versions = self._worklist.data_version(), self._instances.version()
            known, rows = self._days.get(day, (None, []))
            if known != versions:
                rows = list(self._made(self._worklist.items(date=day.strftime("%Y%m%d"))))
                self._days = {**dict(list(self._days.items())[-MOST_DAYS:]), day: (versions, rows)}
            return rows

    def _made(self, items: Sequence[Item]) -> Iterator[Row]:
        of_each = self._instances.of_exams((item.study_instance_uid, item.accession_number) for item in items)
        of_performed = [self._worklist.performed(item.accession_number) for item in items]
        hold_states = self._evidence.hold_states({each.stored.sop_instance_uid for found in of_each for each in found})
        absent = self._evidence.absent({uid for performed in of_performed for uid in performed.images})
        known, self._rows = self._rows, {}
        for item, found, performed in zip(items, of_each, of_performed, strict=True):
            arrived = {each.stored.sop_instance_uid: each for each in found}
            data_sets = [each.data_set for each in arrived.values()]
            # Everything that the row depends on: a change of anything left out would not show on the board.
            made_of = (
                found,
                performed,
                [hold_states.get(uid) for uid in arrived],
                absent.intersection(performed.images),
                self._evidence.beside(item, data_sets),
            )
            same, row = known.get(item.accession_number, (None, None))
            if row is None or same != made_of:
                seen = self._evidence.exam(item, data_sets)
                row = _row(item, seen, arrived, performed)
            self._rows[item.accession_number] = made_of, row
            yield row


def read_date(text: str) -> date | None:
    """Read the date of an address, 2026-11-22 or 20261122; None for none. Raises InvalidQuery."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidQuery("The date of a worklist has to be a day like 2026-11-22.") from None


def _row(item: Item, seen: Exam, arrived: Mapping[str, Instance], performed: Performed) -> Row:
    return Row(
        item=item,
        exam=seen,
        shown=hanging(seen.images),
        extras=tuple(extras(seen)),
        awaited=len(set(performed.images) - arrived.keys()),
        latest=max((instance.stored.received_at for instance in arrived.values()), default=""),
        problems=tuple(_problems(seen)),
        remarks=tuple(finding.text for finding in seen.findings if finding.code in _OUTCOMES),
    )


def _problems(seen: Exam) -> Iterator[str]:
    # Missing views share one sentence; every other finding has its own.
    codes = {finding.code for finding in seen.findings}
    if "view_missing" in codes:
        yield f"Completed without {' and '.join(seen.missing)}."
    yield from (each.text for each in seen.findings if each.code not in _OUTCOMES | {"view_missing"})


def extras(seen: Exam) -> Iterator[str]:
    """Count the images beside the four views, in words."""
    if displaced := sum(seen.implant_displaced.values()):
        yield f"{displaced} implant-displaced"
    if slices := sum(each.kind == "tomosynthesis" for each in seen.images):
        yield f"{slices} tomosynthesis"
    words = Counter(_extra(each) for each in seen.extras)
    yield from (f"{count} {word}" for word, count in words.items())
    if others := sum(not each.name and each.kind != "tomosynthesis" for each in seen.images):
        yield _count(others, "other object")


def _extra(image: Image) -> str:
    if image.modifiers:
        return f"{', '.join(image.modifiers)} {image.name}"
    return f"partial {image.name}" if image.is_partial else image.name


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _is_sought(item: Item, sought: str) -> bool:
    # In the accession number, or in the name as it is shown ("Smith, Ann") or sent ("SMITH^ANN").
    part = sought.strip().casefold()
    return any(
        part in text.casefold() for text in (item.accession_number, item.patient_name, person(item.patient_name))
    )
