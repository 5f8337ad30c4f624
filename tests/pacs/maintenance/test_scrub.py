"""Every file is read again, slowly, and a pass goes on where it was."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pacs import Archive
from pacs.archive.maintenance_rows import MaintenanceRows, Pass
from pacs.archive.verify import Stopped
from pacs.maintenance.scrub import Scrub, is_due, last_night
from tests.pacs.archive.test_archive import NOW, begun, image, send
from tests.tools.archive_files import files_of

FAST = 1 << 40


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with closing(Archive.open(tmp_path / "pacs.db", tmp_path / "instances")) as archive:
        for number in (1, 2, 3):
            send(archive, image(number))
        yield archive


def scrub(archive: Archive, *, bytes_per_second: int = FAST, stop: threading.Event | None = None) -> Pass:
    Scrub(archive, files_of(archive), bytes_per_second=bytes_per_second, stop=stop or threading.Event()).run(
        clock=lambda: NOW
    )
    return archive.condition().scrub


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_pass_reads_every_file_once(archive: Archive) -> None:
    done = scrub(archive)
    assert done == Pass("2026-11-22T08:00:00.000Z", "2026-11-22T08:00:00.000Z", 3, 3, archive.statistics()["bytes"], 0)
    assert archive.condition().damaged == 0


def test_damage_is_reported_and_left_alone(archive: Archive) -> None:
    first, second = files_of(archive).path("2.25.1"), files_of(archive).path("2.25.2")
    flip(first)
    damaged = first.read_bytes()
    second.unlink()
    assert scrub(archive).damaged_count == 2
    assert (MaintenanceRows(archive).is_damaged("2.25.1"), MaintenanceRows(archive).is_damaged("2.25.2")) == (
        True,
        True,
    )
    assert first.read_bytes() == damaged
    assert archive.statistics()["instances"] == 3
    assert archive.quarantine.objects() == []


def test_what_is_well_again_is_no_longer_damaged(archive: Archive) -> None:
    path = files_of(archive).path("2.25.1")
    flip(path)
    scrub(archive)
    flip(path)
    assert scrub(archive).damaged_count == 0
    assert archive.condition().damaged == 0


def test_a_pass_that_was_stopped_goes_on_where_it_was(archive: Archive) -> None:
    MaintenanceRows(archive).remember_scrub(Pass("2026-11-22T02:00:00.000Z", None, 2, 2, 5000, 1))
    done = scrub(archive)
    assert (done.began_at, done.file_count, done.instance_id) == ("2026-11-22T02:00:00.000Z", 3, 3)
    assert done.ended_at == "2026-11-22T08:00:00.000Z"


def test_stopping_ends_it_in_the_middle_of_a_file(archive: Archive) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        scrub(archive, bytes_per_second=1, stop=stop)
    assert archive.condition().scrub.file_count == 0


def test_it_reads_no_faster_than_it_may(archive: Archive) -> None:
    began = time.monotonic()
    size = archive.statistics()["bytes"]
    scrub(archive, bytes_per_second=size * 2)
    assert time.monotonic() - began > 0.45


def test_it_does_not_read_while_an_image_comes_in(archive: Archive) -> None:
    part = begun(archive, image(9))
    reading = threading.Thread(target=scrub, args=(archive,))
    reading.start()
    reading.join(0.5)
    assert reading.is_alive()
    os.utime(part, (time.time() - 60, time.time() - 60))  # its sender sleeps
    reading.join()
    assert archive.condition().scrub.file_count == 3


def test_an_image_that_was_removed_meanwhile_is_not_damaged(archive: Archive) -> None:
    kept = MaintenanceRows(archive).kept("2.25.1")
    assert kept is not None
    with archive.write() as conn:
        MaintenanceRows(archive).take_out(conn, "2.25.1")
    assert MaintenanceRows(archive).report_damage(kept, "missing_file", now=NOW) is False
    assert archive.condition().damaged == 0


LONDON = ZoneInfo("Europe/London")


@pytest.mark.parametrize(
    ("now", "hour", "night"),
    [
        (datetime(2026, 11, 22, 2, 0, tzinfo=LONDON), 2, datetime(2026, 11, 22, 2, 0, tzinfo=LONDON)),
        (datetime(2026, 11, 22, 1, 59, tzinfo=LONDON), 2, datetime(2026, 11, 21, 2, 0, tzinfo=LONDON)),
        (datetime(2026, 11, 22, 23, 0, tzinfo=LONDON), 2, datetime(2026, 11, 22, 2, 0, tzinfo=LONDON)),
        (datetime(2026, 1, 1, 0, 0, tzinfo=LONDON), 22, datetime(2025, 12, 31, 22, 0, tzinfo=LONDON)),
    ],
)
def test_the_last_night_is_when_its_hour_last_struck(now: datetime, hour: int, night: datetime) -> None:
    assert last_night(now, hour) == night


TONIGHT = datetime(2026, 11, 22, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reached", "due"),
    [
        (Pass(None, None, 0, 0, 0, 0), True),  # never begun
        (Pass("2026-11-20T02:00:00.000Z", None, 5, 5, 5, 0), True),  # under way
        (Pass("2026-11-21T02:00:00.000Z", "2026-11-21T05:00:00.000Z", 5, 5, 5, 0), True),  # of the night before
        (Pass("2026-11-22T02:00:00.000Z", "2026-11-22T05:00:00.000Z", 5, 5, 5, 0), False),  # of tonight
    ],
)
def test_a_pass_is_due_once_a_night_and_until_it_is_done(reached: Pass, due: bool) -> None:
    assert is_due(reached, since=TONIGHT) is due


def test_a_van_that_was_off_at_night_scrubs_in_the_morning() -> None:
    yesterday = Pass("2026-11-21T09:00:00.000Z", "2026-11-21T09:30:00.000Z", 5, 5, 5, 0)
    morning = TONIGHT + timedelta(hours=6)
    assert is_due(yesterday, since=last_night(morning, 2)) is True
