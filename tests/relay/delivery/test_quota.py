"""What may leave, and when: limits by class and hour, counted by window, and the site's status never among them."""

from datetime import UTC, datetime, time, timedelta, timezone

import pytest

from relay.delivery.quota import IMAGES, METADATA, STATUS, THUMBNAILS, Limit, Quota, limits

SUMMER = timezone(timedelta(hours=1))
NOON = datetime(2026, 6, 22, 12, 0, tzinfo=SUMMER)


class Clock:
    """The site's wall time, as a test sets it."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def at(self, hour: int, minute: int = 0, *, day: int = 22) -> None:
        self.now = datetime(2026, 6, day, hour, minute, tzinfo=SUMMER)


def test_a_limit_has_a_class_an_amount_and_perhaps_a_window() -> None:
    assert limits(["images=2M", "thumbnails@05:30-21:00=50k", "metadata@21:00-05:30=0"]) == (
        Limit(IMAGES, 2_000_000),
        Limit(THUMBNAILS, 50_000, time(5, 30), time(21)),
        Limit(METADATA, 0, time(21), time(5, 30)),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("images", "is not like"),
        ("images=2 M", "is not like"),
        ("images=-1", "is not like"),
        ("status=1k", "status is never limited"),
        ("images@24:00-06:00=1", "not a window of the day"),
        ("images@06:00-06:00=1", "is empty"),
    ],
)
def test_what_is_no_limit_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        limits([text])


@pytest.mark.parametrize(
    ("hour", "rate"), [(6, 2_000_000), (7, 200_000), (18, 200_000), (19, 2_000_000), (23, 2_000_000)]
)
def test_the_first_limit_whose_window_it_is_counts(hour: int, rate: int) -> None:
    clock = Clock()
    clock.at(hour)
    allowance = Quota(rates=limits(["images@07:00-19:00=200k", "images=2M"]), clock=clock)
    assert (allowance.rate(IMAGES), allowance.rate(THUMBNAILS)) == (rate, None)


def test_a_window_over_midnight_begins_the_evening_before() -> None:
    clock = Clock()
    allowance = Quota(budgets=limits(["images@21:00-06:00=100"]), clock=clock)
    found = []
    for day, hour in [(22, 20), (22, 21), (22, 23), (23, 5), (23, 6), (23, 22)]:
        clock.at(hour, day=day)
        found.append(allowance.has_room(IMAGES, 60))
        if allowance.has_room(IMAGES, 60):
            allowance.spend({IMAGES: 60})
    assert found == [True, True, False, False, True, True]


def test_a_budget_is_a_day_of_the_site_and_its_last_message_may_go_over_it() -> None:
    clock = Clock()
    allowance = Quota(budgets=limits(["metadata=1k"]), clock=clock)
    allowance.spend({METADATA: 999})
    assert allowance.closed() == frozenset()
    allowance.spend({METADATA: 5000})
    assert allowance.closed() == {METADATA}
    clock.at(23, 59)
    assert allowance.closed() == {METADATA}
    clock.at(0, day=23)
    assert allowance.closed() == frozenset()


def test_nothing_leaves_of_a_class_with_a_rate_or_a_budget_of_nothing_and_status_always() -> None:
    allowance = Quota(rates=limits(["images=0"]), budgets=limits(["thumbnails=0"]), clock=Clock())
    assert allowance.closed() == {IMAGES, THUMBNAILS}
    assert allowance.has_room(STATUS, 10**9)


def test_a_rate_lets_a_burst_go_and_then_as_much_as_it_says() -> None:
    clock = Clock()
    allowance = Quota(rates=limits(["images=100k"]), clock=clock)
    sent = 0
    for _ in range(600):
        while allowance.has_room(IMAGES, 1):
            allowance.spend({IMAGES: 70_000})
            sent += 70_000
        clock.now += timedelta(seconds=1)
    assert 600 * 100_000 <= sent <= 600 * 100_000 + 500_000 + 70_000


def test_a_clock_that_is_set_back_neither_fills_nor_blocks_for_good() -> None:
    clock = Clock()
    allowance = Quota(rates=limits(["images=1M"]), clock=clock)
    allowance.spend({IMAGES: 6_000_000})
    clock.now -= timedelta(days=1)
    assert not allowance.has_room(IMAGES, 1)
    clock.now += timedelta(seconds=2)
    assert allowance.has_room(IMAGES, 1)


def test_after_a_restart_the_day_goes_on() -> None:
    clock = Clock()
    asked: list[datetime] = []

    def spent(since: datetime) -> dict[int, int]:
        asked.append(since)
        return {IMAGES: 900}

    allowance = Quota(budgets=limits(["images=1k"]), clock=clock)
    allowance.remember(spent)
    assert asked == [datetime(2026, 6, 22, tzinfo=SUMMER)]
    assert asked[0].astimezone(UTC).hour == 23
    assert (allowance.has_room(IMAGES, 100), allowance.has_room(IMAGES, 101)) == (True, False)
