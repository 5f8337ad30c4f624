"""The scrub: reads every stored file again and compares its size and SHA-256 with the index.

A pass begins after the hour of the night, or as soon after it as the machine runs. It reads at a bounded rate, and not
while images come in; after a restart it goes on where it was. A damaged file is reported and otherwise left alone: a
resend of the same object replaces it (`pacs.archive.archive`).

Not for: comparing one file (`pacs.archive.verify`), repairs and unknown files (`fsck`).
"""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from gateway.sqlite import utc_text
from pacs.archive.archive import Archive
from pacs.archive.files import Files
from pacs.archive.maintenance_rows import Kept, MaintenanceRows, Pass
from pacs.archive.verify import Stopped, trouble

REMEMBER_SECONDS = 10.0
"""Reading that a restart may have to repeat. Not less, because every record of the progress is a sync."""

BUSY_LOOK_SECONDS = 2.0
BUSY_WITHIN_SECONDS = 30.0
"""A file in `incoming` that grew within this time is being received; an older one is a leftover."""

log = structlog.get_logger()


def last_night(now: datetime, hour: int) -> datetime:
    """The moment at which the hour of the night last began, in the time zone of `now`."""
    tonight = now.replace(hour=hour, minute=0, second=0, microsecond=0)
    return tonight if tonight <= now else tonight - timedelta(days=1)


def is_due(reached: Pass, *, since: datetime) -> bool:
    """Whether a pass is unfinished, or none has begun since the last night."""
    if reached.began_at is None or reached.ended_at is None:
        return True
    return datetime.fromisoformat(reached.began_at) < since


class Scrub:
    """The scrub of one archive, at `bytes_per_second`. `run` finishes a pass; `stop` ends it anywhere."""

    def __init__(self, archive: Archive, files: Files, *, bytes_per_second: int, stop: threading.Event) -> None:
        self._rows = MaintenanceRows(archive)
        self._files = files
        self._rate = bytes_per_second
        self._stop = stop

    def run(self, *, clock: Callable[[], datetime]) -> None:
        """Continue the pass, or begin one, until its end. Raises Stopped."""
        reached = self._rows.scrubbed()
        if reached.began_at is None or reached.ended_at is not None:
            reached = Pass(utc_text(clock()), None, 0, 0, 0, 0)
        remembered = time.monotonic()
        while kept := self._rows.next_kept(reached.instance_id):
            reached = self._check(kept, reached, now=clock())
            if time.monotonic() - remembered > REMEMBER_SECONDS:
                self._rows.remember_scrub(reached)
                remembered = time.monotonic()
        self._rows.remember_scrub(replace(reached, ended_at=utc_text(clock())))
        log.info("scrub ended", files=reached.file_count, bytes=reached.byte_count, damaged=reached.damaged_count)

    def _check(self, kept: Kept, reached: Pass, *, now: datetime) -> Pass:
        path = self._files.path(kept.sop_instance_uid)
        code = trouble(path, size_bytes=kept.size_bytes, sha256=kept.sha256, after_read=self._take_time)
        damaged = bool(code) and self._rows.report_damage(kept, code, now=now)
        if damaged:
            log.error("instance damaged", sop_instance_uid=kept.sop_instance_uid, code=code)
        elif not code:
            self._rows.report_well(kept.sop_instance_uid)
        return replace(
            reached,
            instance_id=kept.id,
            file_count=reached.file_count + 1,
            byte_count=reached.byte_count + kept.size_bytes,
            damaged_count=reached.damaged_count + damaged,
        )

    def _take_time(self, count: int) -> None:
        if self._stop.wait(count / self._rate):
            raise Stopped
        while self._receiving():
            if self._stop.wait(BUSY_LOOK_SECONDS):
                raise Stopped

    def _receiving(self) -> bool:
        """Whether an object is being received."""
        # By its file, because a repair or an upload may be receiving it as well as an association.
        young = time.time() - BUSY_WITHIN_SECONDS
        return any(_changed(part) > young for part in self._files.leftovers())


def _changed(part: Path) -> float:
    try:
        return part.stat().st_mtime
    except FileNotFoundError:  # it is in its place by now
        return 0.0
