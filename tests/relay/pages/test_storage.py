"""The rules of the storage page: days without gaps, how long the room lasts, what is held back, plots and sizes."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.disk_space import Fullness, Volume, Watermarks
from gateway.last_backup import LastBackup, last, remember
from pacs import RetentionOutcome, RetentionPolicy
from pacs.archive.maintenance_rows import StudyFacts
from relay.pages.bar_chart import HEIGHT, LEFT, WIDTH, ceiling, plot
from relay.pages.storage import DAYS, MOST_STUDIES, Day, Release, filled, release, room, size

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
MARKS = Watermarks(85, 95)


def days(*sizes: int) -> list[Day]:
    """Days up to today with so many bytes."""
    first = NOW - timedelta(days=len(sizes) - 1)
    return [Day((first + timedelta(days=n)).strftime("%Y-%m-%d"), 1, 1, count) for n, count in enumerate(sizes)]


def test_days_on_which_nothing_came_are_days_too() -> None:
    found = filled([{"day": "2026-11-20", "studies": 3, "instances": 12, "bytes": 900}], NOW)
    assert len(found) == DAYS
    assert found[-3:] == (Day("2026-11-20", 3, 12, 900), Day("2026-11-21", 0, 0, 0), Day("2026-11-22", 0, 0, 0))


ROOMS = [  # bytes of the days, of the first image, free of 1000: bytes left, growth, days of it, days until full
    ([100, 100, 100, 40], "2026-11-19T", 450, (400, 100, 3, 4)),
    ([0, 0, 300, 0], "2026-11-19T", 450, (400, 100, 3, 4)),
    ([0, 0, 300, 0], "2026-11-21T", 450, (400, 300, 1, 1)),  # none from before the first image
    ([500, 0, 0], "2026-11-22T", 450, (400, 0, 0, None)),  # today is no whole day
    ([0, 0, 0], None, 450, (400, 0, 0, None)),
    ([100, 100], "2026-11-21T", 40, (0, 100, 1, 0)),
]


@pytest.mark.parametrize(("sizes", "oldest", "free", "expected"), ROOMS)
def test_how_long_the_room_lasts(
    sizes: list[int], oldest: str | None, free: int, expected: tuple[int, int, int, int | None]
) -> None:
    found = room(Volume(1000, free), MARKS, days(*sizes), oldest=oldest and f"{oldest}07:00:00.000Z", now=NOW)
    assert (found.left_bytes, found.growth_bytes, found.growth_days, found.days_left) == expected


def test_a_volume_is_judged_by_its_watermarks() -> None:
    found = [room(Volume(100, free), MARKS, [], oldest=None, now=NOW).fullness for free in (50, 15, 5)]
    assert found == [Fullness.ROOMY, Fullness.ALMOST_FULL, Fullness.TOO_FULL]


def outcome(*because: str) -> RetentionOutcome:
    return RetentionOutcome(StudyFacts(1, "1.2", "A", "2026-01-01", 4, 1000, 4, 0, 0, 0, 0), because)


def test_what_goes_and_what_holds_others_back_is_counted() -> None:
    found = release(RetentionPolicy(30), [outcome(), outcome("x"), outcome("y", "x"), outcome()])
    assert found == Release(RetentionPolicy(30), 4, True, 2, 2000, (("x", 2), ("y", 1)))


def test_no_more_than_the_oldest_are_looked_at() -> None:
    found = release(RetentionPolicy(30), iter([outcome()] * (MOST_STUDIES + 5)))
    assert (found.looked_at, found.is_all) == (MOST_STUDIES, False)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (17_400_000, "17.4 MB"),
        (999_960_000, "1.0 GB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_sizes_are_written_for_people(count: int, words: str) -> None:
    assert size(count) == words


@given(st.lists(st.integers(0, 10**13), max_size=90))
def test_bars_stay_inside_their_plot_and_are_as_high_as_their_values(values: list[int]) -> None:
    drawn = plot("p", [(str(n), value) for n, value in enumerate(values)], title="T", description="D")
    assert len(drawn.bars) == len(values)
    for bar, value in zip(drawn.bars, values, strict=True):
        assert LEFT <= bar.x <= bar.x + bar.width <= WIDTH + 0.01
        assert 0 <= bar.y <= bar.y + bar.height <= HEIGHT + 0.01
        assert (bar.height == 0) or value > 0
    ordered = [bar.height for _, bar in sorted(zip(values, drawn.bars, strict=True), key=lambda pair: pair[0])]
    assert ordered == sorted(ordered)


@given(st.integers(0, 10**15))
def test_the_top_of_a_plot_is_a_round_number_not_far_above_its_values(value: int) -> None:
    top = ceiling(value)
    assert value <= top <= max(2, 2.5 * value)
    assert str(top).strip("0") in {"1", "2", "4", "8"}
    assert top % 2 == 0


def test_the_last_backup_is_remembered_and_a_broken_note_says_nothing(tmp_path: Path) -> None:
    assert last(tmp_path) is None
    note = LastBackup("2026-11-22T02:30:00.000Z", "/mnt/backup/20261122T023000Z", 12, 0, 1)
    remember(tmp_path, note)
    assert last(tmp_path) == note
    (tmp_path / "last-backup.json").write_text('{"taken_at": 1')
    assert last(tmp_path) is None
