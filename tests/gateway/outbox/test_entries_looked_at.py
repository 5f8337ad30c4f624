"""What people see of the outbox and do about it: lines of destinations, what is parked alike, and releasing it."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway import outbox
from gateway.outbox import Outbox
from gateway.outbox.overview import Alike, DestinationOverview, SubjectCounts
from gateway.sqlite import Database, utc_text
from tests.gateway.outbox.test_entries import put

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
TEXT = "2026-11-22T08:00:00.000Z"
QUIET = DestinationOverview("manage", {}, None, None, 0, "", 0, 0, 0)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(tmp_path / "x.db", outbox.SCHEMA)
    found.migrate()
    return found


@pytest.fixture
def box(database: Database) -> Outbox:
    served = Outbox(database)
    served.serve(("manage",), now=NOW)
    return served


def parked(box: Outbox, *message_ids: str, reason: str, destination: str = "manage") -> None:
    for entry in box.due(NOW, limit=100, destination=destination):
        if entry.message_id in message_ids:
            box.park(entry, reason=reason, now=NOW)


def test_a_destination_that_is_owed_nothing_is_a_line_all_the_same(box: Outbox) -> None:
    assert box.overview.lines(now=NOW) == [QUIET]


def test_a_line_says_what_waits_by_class_the_oldest_and_what_was_confirmed_today(box: Outbox) -> None:
    for number, priority in enumerate((1, 2, 2, 2)):
        put(box, f"m{number}", f"s{number}", priority)
    first, second = box.due(NOW, limit=10, destination="manage")[:2]
    box.delivered(first, now=NOW, sent={1: 300, 2: 50})
    box.delivered(second, now=NOW - timedelta(days=1), sent={2: 1000})
    assert box.overview.lines(now=NOW) == [
        DestinationOverview(
            destination="manage",
            waiting={2: 2},
            oldest=TEXT,
            next_attempt=None,
            attempts=0,
            reason="",
            parked=0,
            delivered_today=1,
            bytes_today=350,
        )
    ]


def test_a_line_says_which_failed_entry_is_tried_next_and_why_it_failed(box: Outbox) -> None:
    put(box, "m1", "a")
    put(box, "m2", "b")
    later, sooner = box.due(NOW, limit=10, destination="manage")
    box.retry(later, reason="down", due_at=NOW + timedelta(minutes=9))
    box.retry(sooner, reason="busy", due_at=NOW + timedelta(minutes=2))
    [line] = box.overview.lines(now=NOW)
    assert (line.next_attempt, line.attempts, line.reason) == ("2026-11-22T08:02:00.000Z", 1, "busy")


def test_requests_are_lines_of_their_own(box: Outbox) -> None:
    put(box, "request/1", "request//1", 4)
    put(box, "request/2", "request//2", 5)
    assert [(line.destination, line.waiting) for line in box.overview.lines(now=NOW)] == [
        ("chores", {5: 1}),
        ("full images", {4: 1}),
        ("manage", {}),
    ]


def test_what_is_parked_is_counted_by_reason(box: Outbox) -> None:
    for number in range(3):
        put(box, f"m{number}", f"s{number}")
    parked(box, "m0", "m2", reason="too large")
    parked(box, "m1", reason="not wanted")
    assert box.overview.parked_alike() == [
        Alike("manage", "too large", 2, 1, TEXT),
        Alike("manage", "not wanted", 1, 2, TEXT),
    ]
    [line] = box.overview.lines(now=NOW)
    assert line.parked == 3
    found = box.parked(2)
    assert found is not None
    assert (found.message_id, found.reason, box.parked(99)) == ("m1", "not wanted", None)


def test_of_many_reasons_the_most_frequent_are_shown_and_each_is_found(box: Outbox) -> None:
    for number in range(5):
        put(box, f"m{number}", f"s{number}")
        parked(box, f"m{number}", reason=f"Reason {number // 2}.")
    [first] = box.overview.parked_alike(limit=1)
    assert (first.reason, first.count) == ("Reason 0.", 2)
    assert box.overview.alike("manage", "Reason 2.") == box.overview.parked_alike()[-1]
    assert box.overview.alike("manage", "Reason 3.") is None


def test_what_is_parked_alike_is_released_together_and_only_once(box: Outbox) -> None:
    for number in range(3):
        put(box, f"m{number}", f"s{number}")
    parked(box, "m0", "m2", reason="too large")
    parked(box, "m1", reason="not wanted")
    later = NOW + timedelta(hours=1)
    assert box.release_alike("servicebus", "too large", now=later) == 0
    assert box.release_alike("manage", "too large", now=later) == 2
    assert box.release_alike("manage", "too large", now=later) == 0
    assert [entry.message_id for entry in box.due(later, limit=10, destination="manage")] == ["m2", "m0"]
    assert [entry.message_id for entry in box.entries("parked")] == ["m1"]


@pytest.mark.parametrize(("priority", "where"), [(4, "full images"), (5, "chores")])
def test_a_request_that_was_parked_by_hand_is_released_where_it_was_and_told_to_no_cloud(
    box: Outbox, priority: int, where: str
) -> None:
    put(box, "request/1", "request//1", priority)
    box.set_aside(1, reason="Parked by hand.", now=NOW)
    assert box.due(NOW, limit=10, destination=where) == []
    box.release(1, now=NOW)
    assert [entry.message_id for entry in box.due(NOW, limit=10, destination=where)] == ["request/1"]
    assert box.due(NOW, limit=10, destination="manage") == []
    assert [(line.destination, line.waiting) for line in box.overview.lines(now=NOW)] == [
        (where, {priority: 1}),
        ("manage", {}),
    ]


def test_knocking_hastens_what_failed_and_keeps_the_reason(box: Outbox) -> None:
    put(box, "m1", "a")
    put(box, "m2", "b")
    failed, _ = box.due(NOW, limit=10, destination="manage")
    box.retry(failed, reason="down", due_at=NOW + timedelta(minutes=9))
    assert box.knock("servicebus", now=NOW) == 0
    assert box.knock("manage", now=NOW) == 1
    assert box.knock("manage", now=NOW) == 0
    [line] = box.overview.lines(now=NOW)
    assert (line.next_attempt, line.reason) == (TEXT, "down")
    assert len(box.due(NOW, limit=10, destination="manage")) == 2


def test_how_far_a_subject_was_told(box: Outbox) -> None:
    for number in range(4):
        put(box, f"m{number}", "study")
    put(box, "other", "another")
    [head] = [entry for entry in box.due(NOW, limit=10, destination="manage") if entry.subject == "study"]
    box.delivered(head, now=NOW)
    parked(box, "m1", reason="too large")
    assert (box.overview.counts_of("study"), box.overview.counts_of("nothing")) == (
        SubjectCounts(delivered=1, open=2, parked=1),
        SubjectCounts(0, 0, 0),
    )


def test_what_was_confirmed_before_it_was_counted_is_counted_when_the_outbox_is_brought_up_to_date(
    tmp_path: Path,
) -> None:
    older = tmp_path / "outbox"
    older.mkdir()
    for number in ("0001_outbox", "0002_counted", "0003_destinations", "0004_requests"):
        (older / f"{number}.sql").write_text((outbox.SCHEMA / f"{number}.sql").read_text())
    old = Database(tmp_path / "x.db", older)
    old.migrate()
    before = Outbox(old)
    for number in range(3):
        put(before, f"m{number}", f"s{number}")
        with old.write() as conn:
            conn.execute("UPDATE outbox_duty SET delivered_at = ?, sent = '{\"2\": 70}' WHERE entry_id = ?",
                         (utc_text(NOW - timedelta(days=number // 2)), number + 1))  # fmt: skip
    old.close()
    database = Database(tmp_path / "x.db", outbox.SCHEMA)
    database.migrate()
    [line] = Outbox(database).overview.lines(now=NOW)
    assert (line.destination, line.delivered_today, line.bytes_today) == ("cloud", 2, 140)


def _entered(database: Database, count: int) -> None:
    """Many delivered entries, as years leave them."""
    with database.write() as conn:
        conn.executemany(
            "INSERT INTO outbox (message_id, subject, sequence, message_type, priority, parameters, created_at,"
            " delivered_at) VALUES (?, ?, 1, 'study.image_received', 2, '{}', ?, ?)",
            [(f"old{number}", f"old{number}", TEXT, TEXT) for number in range(count)],
        )
        conn.execute(
            "INSERT INTO outbox_duty (entry_id, destination, subject, priority, due_at, delivered_at)"
            " SELECT id, 'manage', subject, priority, created_at, delivered_at FROM outbox"
            " WHERE delivered_at IS NOT NULL"
        )


def _seconds(look: Callable[[], object]) -> float:
    took = []
    for _ in range(15):
        began = time.thread_time()
        look()
        took.append(time.thread_time() - began)
    return min(took)


def test_looking_takes_no_longer_when_much_was_delivered(box: Outbox, database: Database) -> None:
    for number in range(20):
        put(box, f"m{number}", f"s{number}")
    parked(box, "m3", "m4", reason="too large")
    looks: list[Callable[[], object]] = [
        lambda: box.overview.lines(now=NOW),
        box.overview.parked_alike,
        lambda: box.overview.counts_of("s1"),
        lambda: box.parked(4),
        lambda: box.knock("manage", now=NOW),
    ]
    before = [_seconds(look) for look in looks]
    _entered(database, 50_000)
    after = [_seconds(look) for look in looks]
    assert all(late < 5 * early + 0.001 for early, late in zip(before, after, strict=True)), (before, after)
