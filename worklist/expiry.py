"""Day's end: items that are over leave the worklist some days after their date, and their steps after them.

An item may leave when none of `RULES` holds it. Before the first one of a night leaves, the database is copied to
`worklist-copies/` beside it, where the last `COPIES` stay; that helps after a mistake, not after a broken disk, for
which there is `gateway backup`. Each item leaves in a transaction of its own, in which the rules are asked once more.

An item that was scheduled and never begun leaves like one that is over: nobody came. A step that is in progress holds
its item for ever; `gateway mpps close` ends it.

Not for: what modalities are shown; that never depends on what has left. Images: `pacs.maintenance.retention`.
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
"""Nights one can go back; a copy of a busy site's worklist has some megabytes."""

LOOK_SECONDS = 30.0
"""How often it is looked whether the hour has come."""

AFTER_FAILURE_SECONDS = 60.0

log = structlog.get_logger()

_Rule = Callable[[ItemFacts, str], bool]

RULES: tuple[tuple[str, _Rule], ...] = (
    ("it is too young", lambda item, before: item.date >= before),
    ("it is in progress", lambda item, _before: item.state == "in_progress"),
    ("a step of it is in progress; see 'gateway mpps list'", lambda item, _before: item.open_steps > 0),
    ("the cloud is still owed events of it", lambda item, _before: item.owed > 0),
)
"""Why an item stays, asked with the first day (YYYYMMDD) that is not old; it leaves when none of these holds."""


@dataclass(frozen=True, slots=True)
class ExpiryOutcome:
    """What became of an item, or would become: `kept_because` is empty when it leaves."""

    item: ItemFacts
    kept_because: tuple[str, ...]


def first_day_kept(now: datetime, keep_days: int) -> str:
    """Items of this day (YYYYMMDD) and later are young; the zone of `now` is the site's."""
    return f"{now - timedelta(days=keep_days):%Y%m%d}"


def night_of(now: datetime, hour: int) -> date:
    """The day on which the hour struck last, on the site's clock, however often it is put forward or back."""
    return now.date() - timedelta(days=now.hour < hour)


def judge(item: ItemFacts, *, before: str) -> ExpiryOutcome:
    """Ask every rule."""
    return ExpiryOutcome(item, tuple(reason for reason, holds in RULES if holds(item, before)))


def candidates(worklist: Worklist, *, before: str) -> Iterator[ExpiryOutcome]:
    """The items of earlier days, the oldest first, and whether they may leave. Changes nothing."""
    for item in ExpiryRows(worklist).items_before(before):
        yield judge(item, before=before)


def prune(worklist: Worklist, *, before: str, now: datetime) -> Iterator[ExpiryOutcome]:
    """Let leave what may leave, the oldest first; each outcome comes when it is committed.

    When all have come, the steps are gone that belong to no item and were last changed when what leaves took place.
    """
    rows, is_copied = ExpiryRows(worklist), False
    for outcome in list(candidates(worklist, before=before)):
        if not outcome.kept_because and not is_copied:
            log.info("worklist copied", file=str(copy(worklist, now=now)))
            is_copied = True
        yield outcome if outcome.kept_because else _let_go(worklist, rows, outcome, before=before)
    midnight = datetime.strptime(before, "%Y%m%d").replace(tzinfo=now.tzinfo)
    rows.forget_steps(before=utc_text(midnight))


def copy(worklist: Worklist, *, now: datetime) -> Path:
    """Copy the database beside it, and drop the oldest copies. The name is there only when the copy is whole."""
    folder = worklist.database_path.parent / "worklist-copies"
    make_folder(folder)
    folder.chmod(0o700)
    part, final = folder / "worklist.part", folder / f"worklist-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}.db"
    part.unlink(missing_ok=True)
    worklist.copy_database(part)
    part.rename(final)
    for old in sorted(folder.glob("worklist-*.db"))[:-COPIES]:
        old.unlink()
    sync_folder(folder)
    return final


def _let_go(worklist: Worklist, rows: ExpiryRows, outcome: ExpiryOutcome, *, before: str) -> ExpiryOutcome:
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
    """Days are local."""
    return datetime.now().astimezone()


class DayEnd:
    """Has the day's end held from entering to leaving the block, once after each striking of the hour.

    `keep_days` 0: never. What fails is logged and tried again: it must not end the process that modalities ask.
    """

    def __init__(
        self, worklist: Worklist, *, keep_days: int, hour: int, clock: Callable[[], datetime] = local_now
    ) -> None:
        self._worklist = worklist
        self._keep_days = keep_days
        self._hour = hour
        self._clock = clock
        self._held: date | None = None
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
                self._hold()
            except (GatewayError, OSError) as error:  # a full disk, a database that is held: it will pass
                log.warning("day end postponed", reason=str(error))
                pause = AFTER_FAILURE_SECONDS
            except Exception:  # whatever it is, modalities must get their worklist
                log.exception("day end failed")
                pause = AFTER_FAILURE_SECONDS

    def _hold(self) -> None:
        now = self._clock()
        night = night_of(now, self._hour)
        if self._held == night:
            return
        for _ in prune(self._worklist, before=first_day_kept(now, self._keep_days), now=now):
            if self._stop.is_set():
                return
        self._held = night
