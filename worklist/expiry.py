"""Expiry of items: an old item leaves the worklist when none of `RULES` holds it, and its steps leave after it.

Before the first item of a night leaves, the database is copied to `worklist-copies/` beside it, where the last `COPIES`
stay. A scheduled item that was never begun leaves like one that is over. A step in progress holds its item without
limit of time; `gateway mpps close` ends the step.

Not for: visibility, which never depends on expiry; images (`pacs.maintenance.retention`).
"""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from gateway.errors import GatewayError
from gateway.fsync import make_folder, sync_folder
from gateway.sqlite import utc_text
from worklist.expiry_rows import ExpiryRows, ItemFacts
from worklist.store import Worklist

COPIES = 7
"""Nights whose copy is kept; a copy of a busy site's worklist has some megabytes."""

LOOK_SECONDS = 30.0
"""Interval at which the clock is compared with the hour of the night."""

AFTER_FAILURE_SECONDS = 60.0

log = structlog.get_logger()

_Rule = Callable[[ItemFacts, str], bool]

RULES: tuple[tuple[str, _Rule], ...] = (
    ("it is too young", lambda item, before: item.date >= before),
    ("it is in progress", lambda item, _before: item.state == "in_progress"),
    ("a step of it is in progress; see 'gateway mpps list'", lambda item, _before: item.open_steps > 0),
    ("the cloud is still owed events of it", lambda item, _before: item.pending > 0),
)
"""Reasons why an item stays, evaluated with the first day (YYYYMMDD) that is not old."""


@dataclass(frozen=True, slots=True)
class ExpiryOutcome:
    """The decision about one item: `kept_because` is empty when it leaves."""

    item: ItemFacts
    kept_because: tuple[str, ...]


def first_day_kept(now: datetime, keep_days: int) -> str:
    """Items of this day (YYYYMMDD) and later are young; the zone of `now` is the site's."""
    return f"{now - timedelta(days=keep_days):%Y%m%d}"


def night_of(now: datetime, hour: int) -> date:
    """The day on which the hour was last reached on the site's clock."""
    # A date and not a moment, because the hour comes twice or never on the days when clocks are changed.
    return now.date() - timedelta(days=now.hour < hour)


def judge(item: ItemFacts, *, before: str) -> ExpiryOutcome:
    """Evaluate every rule."""
    return ExpiryOutcome(item, tuple(reason for reason, holds in RULES if holds(item, before)))


def candidates(worklist: Worklist, *, before: str) -> Iterator[ExpiryOutcome]:
    """The items of earlier days, the oldest first, and whether they may leave. Changes nothing."""
    for item in ExpiryRows(worklist).items_before(before):
        yield judge(item, before=before)


def prune(worklist: Worklist, *, before: str, now: datetime) -> Iterator[ExpiryOutcome]:
    """Remove the items that no rule holds, the oldest first; each outcome is yielded after its commit.

    At the end the steps go that belong to no item and were last changed before the first day that is kept.
    """
    rows, is_copied = ExpiryRows(worklist), False
    for outcome in list(candidates(worklist, before=before)):
        # The copy is made only if an item leaves. It is for a mistake, not for a broken disk (`gateway backup`), and is
        # made here because the worklist process cannot know where an operator keeps backups.
        if not outcome.kept_because and not is_copied:
            log.info("worklist copied", file=str(copy(worklist, now=now)))
            is_copied = True
        yield outcome if outcome.kept_because else _let_go(worklist, rows, outcome, before=before)
    midnight = datetime.strptime(before, "%Y%m%d").replace(tzinfo=now.tzinfo)
    rows.forget_steps(before=utc_text(midnight))


def copy(worklist: Worklist, *, now: datetime) -> Path:
    """Copy the database beside it, and delete the oldest copies."""
    folder = worklist.database_path.parent / "worklist-copies"
    make_folder(folder)
    folder.chmod(0o700)  # patient data
    # Renamed when it is whole, because a process killed in the middle must not leave half a copy under a copy's name.
    part, final = folder / "worklist.part", folder / f"worklist-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.db"
    part.unlink(missing_ok=True)
    worklist.copy_database(part)
    part.rename(final)
    for old in sorted(folder.glob("worklist-*.db"))[:-COPIES]:
        old.unlink()
    sync_folder(folder)
    return final


def _let_go(worklist: Worklist, rows: ExpiryRows, outcome: ExpiryOutcome, *, before: str) -> ExpiryOutcome:
    # One transaction for each item, in which the rules are evaluated again, because a modality may be beginning the
    # item at this moment.
    with worklist.write() as conn:
        item = rows.facts(conn, outcome.item.accession_number)
        if item is None:
            return outcome
        latest = judge(item, before=before)
        if latest.kept_because:
            return latest
        rows.remove(conn, item.accession_number)
    log.info("item pruned", accession_number=item.accession_number, date=item.date, state=item.state)
    return latest


def local_now() -> datetime:
    """The time in the zone of this computer, because items are dated in the site's wall time."""
    return datetime.now().astimezone()


class Expiry:
    """Runs expiry once a night after `hour` (0 to 23), from entering to leaving the block; `keep_days` 0: never.

    A failure is logged and tried again after `AFTER_FAILURE_SECONDS`.
    """

    def __init__(
        self, worklist: Worklist, *, keep_days: int, hour: int, clock: Callable[[], datetime] = local_now
    ) -> None:
        self._worklist = worklist
        self._keep_days = keep_days
        self._hour = hour
        self._clock = clock
        self._done_for: date | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="day end")

    def __enter__(self) -> Self:
        if self._keep_days:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        if self._keep_days:
            self._thread.join()

    def _repeat(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause):
            pause = LOOK_SECONDS
            try:
                self._expire()
            except (GatewayError, OSError) as error:  # a full disk or a locked database will pass
                log.warning("day end postponed", reason=str(error))
                pause = AFTER_FAILURE_SECONDS
            except Exception:  # any failure, because expiry must not end the process that answers modalities
                log.exception("day end failed")
                pause = AFTER_FAILURE_SECONDS

    def _expire(self) -> None:
        now = self._clock()
        night = night_of(now, self._hour)
        if self._done_for == night:
            return
        for _ in prune(self._worklist, before=first_day_kept(now, self._keep_days), now=now):
            if self._stop.is_set():
                return
        self._done_for = night
