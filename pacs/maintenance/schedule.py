"""The schedule of maintenance in the pacs process: operators' decisions at once, pruning and scrubbing at night.

A failure is logged and tried again.

Not for: rules; `quarantine`, `retention` and `scrub` have them.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

import structlog

from gateway.disk_space import Fullness
from gateway.errors import GatewayError
from pacs.archive.archive import Archive
from pacs.archive.files import Files
from pacs.archive.maintenance_rows import MaintenanceRows
from pacs.archive.verify import Stopped
from pacs.maintenance.quarantine import carry_out
from pacs.maintenance.retention import RetentionPolicy, prune, remove_ordered
from pacs.maintenance.scrub import Scrub, is_due, last_night

ORDERS_SECONDS = 1.0
"""Interval at which decisions are read; an operator waits this long."""

NIGHT_SECONDS = 30.0
"""Interval at which the clock is compared with the hour of the night."""

AFTER_FAILURE_SECONDS = 60.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class MaintenanceSchedule:
    """The nightly work. `policy` None: no pruning; `scrub_bytes_per_second` 0: no scrub; `night_hour` 0 to 23."""

    night_hour: int
    policy: RetentionPolicy | None
    scrub_bytes_per_second: int


def local_now() -> datetime:
    """The time in the zone of this computer, because the hour of the night is the site's."""
    return datetime.now().astimezone()


class Maintenance:
    """Maintains an archive and its files from entering to leaving the block."""

    def __init__(
        self,
        archive: Archive,
        files: Files,
        schedule: MaintenanceSchedule,
        *,
        clock: Callable[[], datetime] = local_now,
    ) -> None:
        self._archive = archive
        self._files = files
        self._schedule = schedule
        self._clock = clock
        self._stop = threading.Event()
        self._pruned: datetime | None = None
        self._laid_out = last_night(clock(), schedule.night_hour)
        self._fullness = Fullness.ROOMY
        # Two threads, because a scrub may take days and an operator waits for a decision.
        self._threads = [
            threading.Thread(target=self._repeat, args=("orders", self._orders, ORDERS_SECONDS), name="orders"),
            threading.Thread(target=self._repeat, args=("night", self._night, NIGHT_SECONDS), name="night"),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, name: str, work: Callable[[], None], seconds: float) -> None:
        while not self._stop.is_set():
            pause = seconds
            try:
                work()
            except Stopped:
                return
            except (GatewayError, OSError) as error:  # a full disk or a locked database will pass
                log.warning("care postponed", task=name, reason=str(error))
                pause = AFTER_FAILURE_SECONDS
            except Exception:  # any failure, because maintenance must not end the process that receives images
                log.exception("care failed", task=name)
                pause = AFTER_FAILURE_SECONDS
            self._stop.wait(pause)

    def _orders(self) -> None:
        carry_out(self._archive, self._files, now=self._clock())
        remove_ordered(self._archive, self._files)

    def _night(self) -> None:
        self._watch_the_volume()
        night = last_night(self._clock(), self._schedule.night_hour)
        # Once in an archive's life, from its first night on, because a receipt that has to make its own folder takes
        # twice as long when the object is small.
        if self._laid_out != night and self._fullness is Fullness.ROOMY:
            self._archive.lay_out(stop=self._stop.is_set)
            self._laid_out = night
        if self._schedule.policy is not None and self._pruned != night:
            self._prune(self._schedule.policy)
            self._pruned = night
        if self._schedule.scrub_bytes_per_second and is_due(MaintenanceRows(self._archive).scrubbed(), since=night):
            rate = self._schedule.scrub_bytes_per_second
            scrub = Scrub(self._archive, self._files, bytes_per_second=rate, stop=self._stop)
            scrub.run(clock=self._clock)

    def _prune(self, policy: RetentionPolicy) -> None:
        for _ in prune(self._archive, policy, now=self._clock()):
            if self._stop.is_set():
                raise Stopped

    def _watch_the_volume(self) -> None:
        volume = self._archive.volume()
        fullness = volume.fullness(self._archive.watermarks)
        if fullness != self._fullness:
            log.warning("volume watched", fullness=str(fullness), used_percent=round(volume.used_percent, 1))
        self._fullness = fullness
