"""Delivery: who is first, what a limit holds back, what doubt leads to, and a week without a line."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.messages import Envelope
from gateway.outbox import Outbox
from gateway.sqlite import Database
from relay.delivery.delivery import DOUBTS, PLACES, Delivery, Event, line_up
from relay.delivery.quota import Quota, limits
from tests.fakes import FakeCloud
from tests.relay.delivery.test_delivery import (
    NOW,
    FastClock,
    box,
    compose,
    delivery,
    nothing_open,
    opened,
    owed,
    put,
    run_until,
)
from tests.tools.waiting import until

__all__ = ["box"]  # a fixture


def lined_up(kinds: str, *, departed: int = 0) -> str:
    """The letters of entries in the order they leave; a digit is a class, its place is its age."""
    entries = [owed(Outbox(Database(Path("unused"))), number + 1, int(kind)) for number, kind in enumerate(kinds)]
    return "".join(str(one.entry.id) for one in line_up(entries, departed=departed))


@pytest.mark.parametrize(
    ("kinds", "departed", "order"),
    [
        ("4321", 0, "4321"),
        ("2222222", 0, "7651432"),
        ("2222222", 3, "1765243"),
        ("12121", 0, "53124"),
    ],
)
def test_by_class_then_the_newest_and_every_fourth_time_the_oldest(kinds: str, departed: int, order: str) -> None:
    assert lined_up(kinds, departed=departed) == order


async def test_a_class_that_has_used_up_its_own_waits_and_holds_up_no_other(box: Outbox) -> None:
    put(box, "image", subject="a", priority=4)
    put(box, "status", subject="b", priority=1)
    put(box, "metadata", subject="c", priority=2)
    clock = FastClock()
    cloud = FakeCloud()
    allowance = Quota(budgets=limits(["images=0"]), clock=clock)
    running = Delivery(
        [box], cloud, compose=compose, clock=clock, allowance=allowance, jitter=lambda: 0.0, poll_seconds=0.002
    )
    await run_until(running, lambda: box.counts()["delivered"] == 2)
    assert cloud.message_ids() == ["status", "metadata"]
    assert box.entries("open")[0].attempts == 0


async def test_what_left_is_on_record_by_class_for_the_next_start(box: Outbox) -> None:
    put(box, "m1")
    cloud = FakeCloud()
    await run_until(delivery(box, to=cloud), nothing_open(box))
    assert box.sent("cloud", since=NOW - timedelta(days=1)) == {2: len(cloud.received[0].text)}


async def test_what_is_doubted_while_others_are_taken_is_parked_and_not_while_nothing_is(box: Outbox) -> None:
    put(box, "doubtful", subject="a")
    clock = FastClock(5000)
    cloud = FakeCloud(["doubt"] * (DOUBTS + 5))
    running = delivery(box, to=cloud, clock=clock)
    await run_until(running, lambda: not cloud.then)
    assert box.counts() == {"open": 1, "delivered": 0, "parked": 0}, "the destination doubts everything: an outage"
    cloud.doubted = {"doubtful"}
    for number in range(3 * DOUBTS):
        put(box, f"m{number}", subject="b")
    beat = Event(Envelope(message_id="h", message_type="t", timestamp="", site="", sequence=1, parameters={}), "h", 1)
    running = delivery(box, to=cloud, clock=clock)
    task = asyncio.create_task(running.run())
    while box.counts()["parked"] == 0:
        await running.prove(beat)
        await asyncio.sleep(0.005)
    running.stop()
    await task
    [parked] = box.entries("parked")
    assert (parked.message_id, parked.reason) == ("doubtful", "The cloud cannot say whether it can.")


async def test_a_clock_that_jumps_stops_nothing(box: Outbox) -> None:
    for number in range(30):
        put(box, f"m{number}", subject=f"s{number % 5}")
    clock = FastClock()
    jumps = iter([0, 90, -90, 400, -1, 0] * 10_000)
    running = delivery(box, to=FakeCloud(["refuse", "lose"] * 10), clock=lambda: clock() + timedelta(days=next(jumps)))
    await run_until(running, nothing_open(box))
    assert box.counts()["delivered"] == 30


async def test_after_a_week_offline_todays_status_leaves_first_and_nothing_is_lost(tmp_path: Path) -> None:
    steps, images = opened(tmp_path / "worklist.db"), opened(tmp_path / "pacs.db")
    for day in range(7):
        for exam in range(6):
            when = NOW + timedelta(days=day, minutes=exam)
            for step in ("in_progress", "completed"):
                put(steps, f"{day}.{exam}/{step}", subject=f"mpps/{day}.{exam}", priority=1, now=when)
            for image in range(4):
                put(images, f"{day}.{exam}.{image}", subject=f"study/{day}.{exam}", now=when)
    cloud = FakeCloud(delay=0.001)
    clock = FastClock(1.0)
    await run_until(
        delivery(steps, images, to=cloud, clock=lambda: clock() + timedelta(days=7)), nothing_open(steps, images)
    )
    order = cloud.message_ids()
    assert len(order) == 7 * 6 * 6
    assert order[:3] == ["6.5/in_progress", "6.4/in_progress", "6.3/in_progress"]
    assert order[3] == "0.0/in_progress", "every fourth is the oldest"
    last_status = max(index for index, name in enumerate(order) if "/" in name)
    first_image = min(index for index, name in enumerate(order) if "/" not in name)
    assert last_status - first_image < PLACES, "no picture before the last status but on free places"
    for day in range(7):
        for exam in range(6):
            found = [name for name in order if name.startswith(f"{day}.{exam}/")]
            assert found == [f"{day}.{exam}/in_progress", f"{day}.{exam}/completed"]
            assert [name for name in order if name.startswith(f"{day}.{exam}.")] == [
                f"{day}.{exam}.{image}" for image in range(4)
            ]


async def test_two_destinations_side_by_side_and_one_that_is_away_holds_up_nothing(box: Outbox) -> None:
    box.serve(["here", "away"], now=NOW)
    for number in range(6):
        put(box, f"m{number}", subject=f"s{number % 2}")
    here, away, clock = FakeCloud(), FakeCloud(["refuse"] * 1000), FastClock()
    both = [
        Delivery([box], cloud, compose=compose, clock=clock, name=name, jitter=lambda: 0.0, poll_seconds=0.002)
        for name, cloud in (("here", here), ("away", away))
    ]
    tasks = [asyncio.create_task(one.run()) for one in both]
    await until(lambda: len(here.received) == 6)
    assert box.counts() == {"open": 6, "delivered": 0, "parked": 0}
    away.then.clear()
    await until(nothing_open(box))
    for one in both:
        one.stop()
    await asyncio.gather(*tasks)
    assert sorted(away.message_ids()) == [f"m{number}" for number in range(6)]
    assert len(here.received) == 6, "it was not told again"
