"""Delivery: order per subject, nothing lost, nothing parked without need, a failing destination left in peace."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import outbox
from gateway.errors import OutOfResources
from gateway.messages import Envelope
from gateway.outbox import Entry, NewEntry, Outbox, Owner
from gateway.sqlite import Database
from relay.delivery.delivery import (
    LONGEST_SILENCE,
    PLACES,
    Circuit,
    Delivery,
    Event,
    PendingEntry,
    _settled,
    backoff,
    choose,
)
from tests.fakes import Behaviour, FakeCloud
from tests.relay.delivery.deliverer import compose
from tests.tools.waiting import until

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


def owner(path: Path) -> Owner:
    database = Database(path, outbox.SCHEMA)
    database.migrate()
    return Owner(database)


def opened(path: Path) -> Outbox:
    return owner(path).outbox


@pytest.fixture
def box(tmp_path: Path) -> Outbox:
    return opened(tmp_path / "x.db")


def put(box: Outbox, message_id: str, *, subject: str = "s", priority: int = 2, now: datetime = NOW) -> None:
    box.enqueue(NewEntry(message_id, "image.rejected", subject, priority, {"sop_instance_uid": message_id}), now=now)


class FastClock:
    """A clock on which a second takes a millisecond, so that pauses of minutes can be lived through."""

    def __init__(self, factor: float = 1000.0) -> None:
        self._factor = factor
        self._start = time.monotonic()

    def __call__(self) -> datetime:
        return NOW + timedelta(seconds=(time.monotonic() - self._start) * self._factor)


def delivery(
    *boxes: Outbox,
    to: FakeCloud,
    compose: Callable[[Entry], Awaitable[Event]] = compose,
    clock: Callable[[], datetime] | None = None,
) -> Delivery:
    return Delivery(boxes, to, compose=compose, clock=clock or FastClock(), jitter=lambda: 0.0, poll_seconds=0.002)


async def run_until(running: Delivery, condition: Callable[[], bool]) -> None:
    task = asyncio.create_task(running.run())
    try:
        await until(lambda: task.done() or condition())
    finally:
        running.stop()
        await task


def nothing_open(*boxes: Outbox) -> Callable[[], bool]:
    return lambda: all(box.counts()["open"] == 0 for box in boxes)


# --- backoff and circuit ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempts", "jitter", "seconds"),
    [(0, 0, 1), (1, 0, 2), (4, 0, 16), (8, 0, 256), (9, 0, 300), (10_000, 0, 300), (0, 1, 0.5), (9, 0.5, 225)],
)
def test_the_pause_doubles_up_to_a_limit_and_jitter_shortens_it(attempts: int, jitter: float, seconds: float) -> None:
    assert backoff(attempts, longest=300, jitter=jitter) == timedelta(seconds=seconds)


def test_each_failed_knock_makes_the_next_one_later() -> None:
    first = Circuit().after_failure(now=NOW, jitter=0)
    second = first.after_failure(now=NOW, jitter=0)
    assert (first, second) == (Circuit(1, NOW + timedelta(seconds=1)), Circuit(2, NOW + timedelta(seconds=2)))
    assert Circuit(99).after_failure(now=NOW, jitter=0).knock_at == NOW + timedelta(seconds=LONGEST_SILENCE)


# --- choose -----------------------------------------------------------------------------------------------------------


def owed(box: Outbox, entry_id: int, priority: int = 2) -> PendingEntry:
    created_at = f"2026-11-22T08:00:00.{entry_id:03d}Z"
    subject, message_id = f"s{entry_id}", f"m{entry_id}"
    entry = Entry(entry_id, message_id, subject, 1, "t", priority, {}, created_at, "cloud", 0, created_at, "")
    return PendingEntry(box, entry, priority)


@pytest.mark.parametrize(
    ("due", "busy", "circuit", "chosen"),
    [
        pytest.param([(1, 2), (2, 1)], [], Circuit(), [2, 1], id="most urgent first"),
        pytest.param([(1, 2), (2, 2)], [], Circuit(), [2, 1], id="then the newest"),
        pytest.param([(1, 2), (2, 2)], [1], Circuit(), [2], id="not what is under way"),
        pytest.param([(n, 2) for n in range(1, 9)], [], Circuit(), [8, 7, 6, 1], id="the fourth is the oldest"),
        pytest.param([(9, 2)], [1, 2, 3, 4], Circuit(), [], id="all places taken"),
        pytest.param([(8, 2), (9, 1)], [1, 2, 3, 4], Circuit(), [9], id="one place is for the most urgent"),
        pytest.param([(9, 1)], [1, 2, 3, 4, 5], Circuit(), [], id="and it is one"),
        pytest.param([(n, 1) for n in range(1, 9)], [], Circuit(), [8, 7, 6, 1, 5], id="urgent ones fill all places"),
        pytest.param([(1, 2), (2, 1)], [], Circuit(1, NOW), [2], id="one knocks"),
        pytest.param([(1, 2), (2, 1)], [3], Circuit(1, NOW), [], id="one at a time"),
        pytest.param([(1, 2)], [], Circuit(1, NOW + timedelta(milliseconds=1)), [], id="not yet"),
        pytest.param([], [], Circuit(), [], id="nothing due"),
    ],
)
def test_who_leaves_now(
    box: Outbox, due: list[tuple[int, int]], busy: list[int], circuit: Circuit, chosen: list[int]
) -> None:
    found = choose(
        [owed(box, entry_id, priority) for entry_id, priority in due],
        busy={owed(box, entry_id).key for entry_id in busy},
        circuit=circuit,
        now=NOW,
    )
    assert [one.entry.id for one in found] == chosen


# --- delivering -------------------------------------------------------------------------------------------------------


async def test_what_is_owed_arrives_and_is_settled(box: Outbox) -> None:
    put(box, "m1")
    cloud = FakeCloud()
    running = delivery(box, to=cloud)
    await run_until(running, nothing_open(box))
    assert [event.text for event in cloud.received] == [
        '{"schema_version":1,"message_id":"m1","message_type":"image.rejected","timestamp":"2026-11-22T08:00:00.000Z",'
        '"source_system":"screening-gateway","site":"test","sequence":1,"source_reference":{"action_id":null},'
        '"parameters":{"sop_instance_uid":"m1"}}'
    ]
    assert box.counts() == {"open": 0, "delivered": 1, "parked": 0}
    assert running.proven_at is not None
    assert running.trouble == ""


async def test_an_event_leaves_well_within_a_second_of_its_commit(box: Outbox) -> None:
    cloud = FakeCloud()
    running = Delivery([box], cloud, compose=compose, clock=lambda: datetime.now(UTC))
    task = asyncio.create_task(running.run())
    taken = []
    for number in range(1, 6):
        await asyncio.sleep(0.3)  # it is idle
        committed = time.monotonic()
        await asyncio.to_thread(put, box, f"m{number}", now=datetime.now(UTC))
        await until(lambda number=number: len(cloud.received) == number)  # type: ignore[misc]
        taken.append(time.monotonic() - committed)
    running.stop()
    await task
    assert min(taken) < 0.5  # the others may have waited for the machine


async def test_several_outboxes_and_subjects_travel_side_by_side(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "one.db"), opened(tmp_path / "other.db")
    for number in range(4):
        put(one, f"one-{number}", subject=f"s{number}")
        put(other, f"other-{number}", subject=f"s{number}")
    cloud = FakeCloud()
    cloud.opened.clear()
    running = delivery(one, other, to=cloud)
    task = asyncio.create_task(running.run())
    await until(lambda: cloud.at_once == PLACES)
    cloud.opened.set()
    await until(nothing_open(one, other))
    running.stop()
    await task
    assert len(cloud.message_ids()) == 8
    assert cloud.most_at_once == PLACES


async def test_a_status_overtakes_images_on_a_slow_line(box: Outbox) -> None:
    for number in range(8):
        put(box, f"image-{number}", subject=f"study-{number}")
    cloud = FakeCloud()
    cloud.opened.clear()
    running = delivery(box, to=cloud)
    task = asyncio.create_task(running.run())
    await until(lambda: cloud.at_once == PLACES)
    await asyncio.to_thread(put, box, "status", subject="mpps/1", priority=1)
    await until(lambda: "status" in cloud.asked)
    cloud.opened.set()
    await until(nothing_open(box))
    running.stop()
    await task
    assert cloud.asked.index("status") == PLACES


async def test_a_passing_failure_holds_the_subject_and_the_order_stays(box: Outbox) -> None:
    put(box, "m1")
    put(box, "m2")
    cloud = FakeCloud(["refuse", "lose", "lose the answer", "crash"])
    await run_until(delivery(box, to=cloud), nothing_open(box))
    assert cloud.asked == ["m1", "m1", "m1", "m1", "m1", "m2"]
    assert [event.message_id for event in cloud.received] == ["m1", "m1", "m2"]
    assert len({event.text for event in cloud.received[:2]}) == 1
    assert box.counts() == {"open": 0, "delivered": 2, "parked": 0}


async def test_a_failure_says_why_in_the_outbox(box: Outbox) -> None:
    put(box, "m1")
    cloud = FakeCloud(["refuse"])
    running = delivery(box, to=cloud, clock=lambda: NOW)  # time stands still: no second attempt
    await run_until(running, lambda: box.entries("open")[0].attempts == 1)
    (entry,) = box.entries("open")
    assert (entry.reason, entry.due_at) == ("The cloud is busy.", "2026-11-22T08:00:01.000Z")
    assert (running.trouble, running.proven_at) == ("The cloud is busy.", None)


async def test_what_can_never_succeed_is_parked_and_lets_the_others_go_on(box: Outbox) -> None:
    put(box, "m1")
    put(box, "m2")
    cloud = FakeCloud()
    cloud.never = {"m1"}
    await run_until(delivery(box, to=cloud), nothing_open(box))
    assert cloud.message_ids() == ["m2"]
    assert [(entry.message_id, entry.reason) for entry in box.entries("parked")] == [
        ("m1", "The cloud cannot use this event.")
    ]


async def test_no_number_of_passing_failures_parks(box: Outbox) -> None:
    put(box, "m1")
    cloud = FakeCloud(["refuse"] * 40)
    await run_until(delivery(box, to=cloud), nothing_open(box))
    assert box.counts() == {"open": 0, "delivered": 1, "parked": 0}


async def test_one_poisoned_event_does_not_hold_up_the_others(box: Outbox) -> None:
    put(box, "poison", subject="a", priority=1)
    for number in range(10):
        put(box, f"m{number}", subject=f"s{number % 3}")
    cloud = FakeCloud()
    cloud.poison = {"poison"}
    await run_until(delivery(box, to=cloud), lambda: box.counts()["delivered"] == 10)
    assert [entry.message_id for entry in box.entries("open")] == ["poison"]


async def test_a_destination_that_fails_is_asked_by_one_at_a_time(box: Outbox) -> None:
    for number in range(10):
        put(box, f"m{number}", subject=f"s{number}")
    cloud = FakeCloud(["refuse"] * 10, delay=0.005)
    running = delivery(box, to=cloud)
    task = asyncio.create_task(running.run())
    await until(lambda: len(cloud.asked) > PLACES)  # the first ones had left together
    cloud.most_at_once = 0
    await until(lambda: len(cloud.then) == 0)
    assert cloud.most_at_once == 1
    await until(nothing_open(box))
    running.stop()
    await task
    assert len(cloud.message_ids()) == 10


async def test_after_a_long_outage_nothing_waits_longer_than_the_pause_between_knocks(box: Outbox) -> None:
    put(box, "m1")
    clock = FastClock()
    cloud = FakeCloud(["refuse"] * 15)
    back: list[datetime] = []

    async def refusals(entry: Entry) -> Event:
        if not cloud.then:
            back.append(clock())
        return await compose(entry)

    await run_until(delivery(box, to=cloud, compose=refusals, clock=clock), lambda: len(cloud.then) == 0)
    (entry,) = box.entries("open")
    assert entry.attempts == 15
    assert datetime.fromisoformat(entry.due_at) - clock() <= timedelta(seconds=LONGEST_SILENCE)


async def test_an_event_that_cannot_be_composed_waits_alone(box: Outbox) -> None:
    put(box, "broken", subject="a")
    put(box, "m1", subject="b")

    async def failing(entry: Entry) -> Event:
        if entry.message_id == "broken":
            raise KeyError(entry.message_id)
        return await compose(entry)

    cloud = FakeCloud()
    running = delivery(box, to=cloud, compose=failing, clock=lambda: NOW)
    await run_until(running, lambda: box.counts()["delivered"] == 1 and box.entries("open")[0].attempts == 1)
    (entry,) = box.entries("open")
    assert (entry.message_id, entry.reason) == (
        "broken",
        "The gateway failed to compose the event; its log says why.",
    )
    assert running.trouble == ""


async def test_killed_between_send_and_settling_the_same_message_is_sent_again(tmp_path: Path) -> None:
    before = opened(tmp_path / "x.db")
    put(before, "m1")
    cloud = FakeCloud(["hang"])
    task = asyncio.create_task(delivery(before, to=cloud).run())
    await until(lambda: len(cloud.received) == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert before.counts() == {"open": 1, "delivered": 0, "parked": 0}
    after = opened(tmp_path / "x.db")
    await run_until(delivery(after, to=cloud), nothing_open(after))
    assert len(cloud.received) == 2
    assert cloud.received[0].text == cloud.received[1].text


async def test_stopping_lets_what_is_under_way_come_to_its_end(box: Outbox) -> None:
    put(box, "m1", subject="a")
    cloud = FakeCloud(delay=0.1)
    running = delivery(box, to=cloud)
    task = asyncio.create_task(running.run())
    await until(lambda: cloud.at_once == 1)
    running.stop()
    await asyncio.to_thread(put, box, "m2", subject="b")
    await task
    assert box.counts() == {"open": 1, "delivered": 1, "parked": 0}


async def test_a_proof_is_owed_to_nobody_and_opens_the_way_again(box: Outbox) -> None:
    put(box, "m1")
    cloud = FakeCloud(["refuse", "refuse"])
    running = delivery(box, to=cloud, clock=lambda: NOW)
    await run_until(running, lambda: box.entries("open")[0].attempts == 1)
    heartbeat = Event(
        Envelope(message_id="h", message_type="t", timestamp="", site="", sequence=1, parameters={}), "h", 1
    )
    await running.prove(heartbeat)
    assert (running.trouble, running.proven_at) == ("The cloud is busy.", None)
    await running.prove(heartbeat)
    assert (running.trouble, running.proven_at) == ("", NOW)
    assert box.counts() == {"open": 1, "delivered": 0, "parked": 0}


async def test_an_outcome_is_recorded_even_if_the_disk_is_full_at_first() -> None:
    attempts: list[int] = []

    def change() -> None:
        attempts.append(1)
        if len(attempts) < 2:
            raise OutOfResources("The database x.db cannot be written now: disk full.")

    await _settled(change)
    assert len(attempts) == 2


# --- the promise, under random faults and kills -----------------------------------------------------------------------

OWED = st.lists(st.tuples(st.integers(0, 1), st.sampled_from("abc"), st.integers(1, 3)), min_size=1, max_size=15)
FAULTS = st.lists(
    st.sampled_from([behaviour for behaviour in get_args(Behaviour) if behaviour != "refuse for good"]), max_size=12
)


@settings(max_examples=25, deadline=None)
@given(owed=OWED, faults=FAULTS)
def test_everything_arrives_in_order_per_subject_whatever_happens_on_the_way(
    owed: list[tuple[int, str, int]], faults: list[Behaviour]
) -> None:
    with TemporaryDirectory() as folder:
        owners = [owner(Path(folder) / "one.db"), owner(Path(folder) / "other.db")]
        boxes = [each.outbox for each in owners]
        asyncio.run(live_through(boxes, owed, faults))  # its end waits for the threads that still use the databases
        for each in owners:
            each.close()


async def live_through(boxes: list[Outbox], owed: list[tuple[int, str, int]], faults: list[Behaviour]) -> None:
    expected: dict[tuple[int, str], list[str]] = {}
    for number, (which, subject, priority) in enumerate(owed):
        put(boxes[which], f"m{number}", subject=subject, priority=priority)
        expected.setdefault((which, subject), []).append(f"m{number}")
    cloud = FakeCloud(faults)
    while not nothing_open(*boxes)():
        await run_or_be_killed(boxes, cloud)
    seen = cloud.message_ids()
    for message_ids in expected.values():
        assert [message_id for message_id in seen if message_id in message_ids] == message_ids
    assert len(seen) == len(owed)


async def run_or_be_killed(boxes: list[Outbox], cloud: FakeCloud) -> None:
    """Deliver until all is settled, or until the cloud hangs: then the process is killed."""
    cloud.hanging = False
    done = nothing_open(*boxes)
    task = asyncio.create_task(delivery(*boxes, to=cloud).run())
    await until(lambda: cloud.hanging or done())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
