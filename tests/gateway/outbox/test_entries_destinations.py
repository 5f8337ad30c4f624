"""Several destinations: each confirms for itself, none waits for another, and the entry is delivered when all have."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway import outbox
from gateway.errors import NotFound
from gateway.outbox import Entry, NewEntry, Outbox
from gateway.outbox.entries import ANYWHERE
from gateway.sqlite import Database
from tests.gateway.outbox.test_entries import put

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
BOTH = ("manage", "servicebus")


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(tmp_path / "x.db", outbox.SCHEMA)
    found.migrate()
    return found


@pytest.fixture
def box(database: Database) -> Outbox:
    served = Outbox(database)
    served.serve(BOTH, now=NOW)
    return served


def due(box: Outbox, destination: str) -> list[str]:
    return [entry.message_id for entry in box.due(NOW, limit=10, destination=destination)]


def first(box: Outbox, destination: str) -> Entry:
    return box.due(NOW, limit=1, destination=destination)[-1]


def test_an_entry_is_delivered_when_every_destination_has_confirmed_it(box: Outbox) -> None:
    put(box, "m1")
    box.delivered(first(box, "manage"), now=NOW)
    assert (due(box, "manage"), due(box, "servicebus")) == ([], ["m1"])
    assert box.counts() == {"open": 1, "delivered": 0, "parked": 0}
    box.delivered(first(box, "servicebus"), now=NOW)
    assert box.counts() == {"open": 0, "delivered": 1, "parked": 0}


def test_a_destination_that_is_away_holds_up_no_other(box: Outbox) -> None:
    put(box, "m1")
    put(box, "m2")
    box.retry(first(box, "manage"), reason="down", due_at=NOW + timedelta(minutes=1))
    box.delivered(first(box, "servicebus"), now=NOW)
    assert (due(box, "manage"), due(box, "servicebus")) == ([], ["m2"])


def test_what_one_destination_never_takes_is_parked_there_and_told_to_the_other(box: Outbox) -> None:
    put(box, "m1")
    box.park(first(box, "manage"), reason="no such action", now=NOW)
    box.delivered(first(box, "servicebus"), now=NOW)
    assert box.counts() == {"open": 0, "delivered": 0, "parked": 1}
    [parked] = box.entries("parked")
    assert (parked.destination, parked.reason) == ("manage", "no such action")
    box.release(parked.id, now=NOW)
    assert (due(box, "manage"), due(box, "servicebus")) == (["m1"], [])
    box.delivered(first(box, "manage"), now=NOW)
    assert box.counts() == {"open": 0, "delivered": 1, "parked": 0}


def test_a_person_parks_an_entry_everywhere_with_a_reason(box: Outbox) -> None:
    put(box, "m1")
    box.set_aside(1, reason="Parked by hand.", now=NOW)
    assert [(each.destination, each.reason) for each in box.entries("parked")] == [
        ("manage", "Parked by hand."),
        ("servicebus", "Parked by hand."),
    ]
    with pytest.raises(NotFound, match="No open entry has the id 1"):
        box.set_aside(1, reason="again", now=NOW)


def test_what_arrives_although_it_was_parked_while_under_way_is_delivered_there_alone(box: Outbox) -> None:
    put(box, "m1")
    under_way = first(box, "manage")
    box.set_aside(1, reason="Parked by hand.", now=NOW)
    box.delivered(under_way, now=NOW)
    assert [each.destination for each in box.entries("parked")] == ["servicebus"]
    assert [each.destination for each in box.entries("delivered")] == ["manage"]
    box.release(1, now=NOW)
    box.delivered(first(box, "servicebus"), now=NOW)
    assert box.counts() == {"open": 0, "delivered": 1, "parked": 0}


def test_a_destination_that_is_left_out_is_not_waited_for(box: Outbox) -> None:
    put(box, "m1")
    put(box, "m2")
    box.delivered(first(box, "manage"), now=NOW)
    box.serve(["manage"], now=NOW)
    assert box.counts() == {"open": 1, "delivered": 1, "parked": 0}
    assert (due(box, "manage"), due(box, "servicebus")) == (["m2"], [])


def test_a_new_destination_is_told_what_is_open_and_what_comes(box: Outbox) -> None:
    for name in ("m1", "m2", "m3"):
        put(box, name, name)
    for destination in BOTH:
        box.delivered(first(box, destination), now=NOW)
    box.park(first(box, "manage"), reason="never", now=NOW)
    box.serve([*BOTH, "hybrid"], now=NOW)
    put(box, "m4", "m4")
    assert due(box, "hybrid") == ["m4", "m3"]


def test_a_released_entry_is_owed_to_those_served_now(box: Outbox) -> None:
    put(box, "m1")
    box.park(first(box, "manage"), reason="never", now=NOW)
    box.serve(["hybrid"], now=NOW)
    assert due(box, "hybrid") == []
    box.release(1, now=NOW)
    assert [(each.destination, each.message_id) for each in box.entries("open")] == [("hybrid", "m1")]


def test_what_was_sent_is_counted_by_class_from_a_moment_on(box: Outbox) -> None:
    for number in range(3):
        put(box, f"m{number}", f"s{number}")
        when = NOW + timedelta(hours=number)
        box.delivered(first(box, "manage"), now=when, sent={2: 100, 3: 1000})
    assert box.sent("manage", since=NOW + timedelta(hours=1)) == {2: 200, 3: 2000}
    assert box.sent("servicebus", since=NOW) == {}


def test_a_week_that_one_destination_missed_costs_the_other_no_time(box: Outbox, database: Database) -> None:
    with database.write() as conn:
        for number in range(50_000):
            box.put(conn, NewEntry(f"m{number}", "t", f"s{number // 4}", 2, {}), now=NOW)
        conn.execute("UPDATE outbox_duty SET delivered_at = 'x' WHERE destination = 'manage' AND entry_id < 49990")
    began = time.thread_time()
    found = [len(box.due(NOW, limit=10, destination=destination)) for destination in BOTH]
    assert time.thread_time() - began < 0.2
    assert found == [3, 20]


def test_an_outbox_of_an_earlier_version_keeps_every_state(tmp_path: Path) -> None:
    earlier = tmp_path / "outbox"
    earlier.mkdir()
    for name in ("0001_outbox.sql", "0002_counted.sql"):
        (earlier / name).write_text((outbox.SCHEMA / name).read_text())
    old = Database(tmp_path / "x.db", earlier)
    old.migrate()
    with old.write() as conn:
        conn.execute(
            "INSERT INTO outbox VALUES"
            " (1, 'm1', 's', 1, 't', 1, '{}', '2026-11-22', '2026-11-23', 7, 'busy', NULL, NULL),"
            " (2, 'm2', 's', 2, 't', 1, '{}', '2026-11-22', '2026-11-22', 1, '', '2026-11-22', NULL),"
            " (3, 'm3', 's', 3, 't', 1, '{}', '2026-11-22', '2026-11-22', 2, 'never', NULL, '2026-11-22')"
        )
    old.close()
    database = Database(tmp_path / "x.db", outbox.SCHEMA)
    database.migrate()
    box = Outbox(database)
    assert box.counts() == {"open": 1, "delivered": 1, "parked": 1}
    states = ("open", "delivered", "parked")
    found = {
        state: [(e.message_id, e.destination, e.attempts, e.reason) for e in box.entries(state)] for state in states
    }
    assert found == {
        "open": [("m1", ANYWHERE, 7, "busy")],
        "delivered": [("m2", ANYWHERE, 1, "")],
        "parked": [("m3", ANYWHERE, 2, "never")],
    }
    box.serve(["servicebus"], now=NOW)
    assert [entry.message_id for entry in box.entries("open")] == ["m1"]
