"""The worklist board: the appointments of one day, each put side by side with the images that have arrived of it.

Rules. Rows stand in the order of the clinic. What a person has to look at is said in words (`problems`) on its row and
counted for the day. An image belongs to an appointment by its study or by its accession number: one under the right
number with a wrong study is a finding, not a missing view. What the machine reports (MPPS) to have made and what has
not come is counted.

Values for templates only; what cannot be asked raises. Not here: HTML (`relay.html`), the rules of an exam
(`relay.exams`).
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from gateway.errors import InvalidQuery
from relay.exams import Exam, exam
from relay.html import person
from relay.instances import Instance, Instances
from relay.views import Image, hanging
from worklist import Item, Performed, Worklist

MOST_DAYS = 3
"""So many days before the one that is asked for are kept in memory."""

WALL_ROWS = 14
"""What fits on a screen in letters that are read from a few metres."""


@dataclass(frozen=True)
class Row:
    """One appointment. `awaited` counts the images that were reported as made and have not come.

    `latest` is when the last image came, UTC text, empty for none.
    """

    item: Item
    exam: Exam
    shown: Mapping[str, Image | None]
    extras: tuple[str, ...]
    awaited: int
    latest: str
    problems: tuple[str, ...]

    @property
    def study_instance_uid(self) -> str:
        """The study that its images are in; empty while there are none."""
        return self.exam.images[0].study_instance_uid if self.exam.images else ""


@dataclass(frozen=True)
class Day:
    """One day; `rows` are those that the filter lets through, the counts are of all."""

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
        """The rows for a screen that nobody scrolls: what needs a look, the last two that are over, what comes next."""
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
    """Asks both databases. Its methods block: call them in a thread.

    A day is put together once for all who look, until one of the databases has changed; then only the rows are made
    anew that what has changed belongs to.
    """

    def __init__(self, worklist: Worklist, instances: Instances, *, clock: Callable[[], datetime]) -> None:
        self._worklist = worklist
        self._instances = instances
        self._clock = clock
        self._turn = threading.Lock()
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
            # Read before the rows are: what comes in between makes them anew the next time.
            versions = self._worklist.database.data_version(), self._instances.version()
            known, rows = self._days.get(day, (None, []))
            if known != versions:
                rows = list(self._made(self._worklist.items(date=day.strftime("%Y%m%d"))))
                self._days = {**dict(list(self._days.items())[-MOST_DAYS:]), day: (versions, rows)}
            return rows

    def _made(self, items: Sequence[Item]) -> Iterator[Row]:
        of_each = self._instances.of_exams((item.study_instance_uid, item.accession_number) for item in items)
        known, self._rows = self._rows, {}
        for item, found in zip(items, of_each, strict=True):
            made_of = item, found, self._worklist.performed(item.accession_number)
            same, row = known.get(item.accession_number, (None, None))
            if row is None or same != made_of:
                row = _row(*made_of)
            self._rows[item.accession_number] = made_of, row
            yield row


def asked_date(text: str) -> date | None:
    """Read the date of an address, 2026-11-22 or 20261122; None for none. Raises InvalidQuery."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidQuery("The date of a worklist has to be a day like 2026-11-22.") from None


def _row(item: Item, found: Sequence[Instance], performed: Performed) -> Row:
    arrived = {instance.stored.sop_instance_uid: instance for instance in found}
    seen = exam(item, [instance.data_set for instance in arrived.values()])
    awaited = len(set(performed.images) - arrived.keys())
    return Row(
        item=item,
        exam=seen,
        shown=hanging(seen.images),
        extras=tuple(extras(seen)),
        awaited=awaited,
        latest=max((instance.stored.received_at for instance in arrived.values()), default=""),
        problems=(*(finding.text for finding in seen.findings), *_shortcomings(item, seen, awaited, performed.is_over)),
    )


def _shortcomings(item: Item, seen: Exam, awaited: int, is_over: bool) -> Iterator[str]:
    """What is not there although the exam is over."""
    if awaited and is_over:
        verb = "has" if awaited == 1 else "have"
        yield f"{_count(awaited, 'image')} that the machine reports to have made {verb} not come."
    if item.state == "completed" and not seen.images:
        yield "Completed, and no image has come."
    elif item.state == "completed" and seen.missing:
        yield f"Completed without {' and '.join(seen.missing)}."


def extras(seen: Exam) -> Iterator[str]:
    """Count what came beside the four views, in words."""
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
    """Is it in the accession number, or in the name as it is shown or sent? Without regard to case."""
    part = sought.strip().casefold()
    return any(
        part in text.casefold() for text in (item.accession_number, item.patient_name, person(item.patient_name))
    )
