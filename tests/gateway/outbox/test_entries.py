"""The outbox: open, delivered or parked; order per subject; nothing in between."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway import outbox
from gateway.errors import InvalidValue, NotFound
from gateway.outbox import NewEntry, Outbox
from gateway.sqlite import Database

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    found = Database(tmp_path / "x.db", outbox.SCHEMA)
    found.migrate()
    return found


@pytest.fixture
def box(database: Database) -> Outbox:
    return Outbox(database)


def put(box: Outbox, message_id: str, subject: str = "s", priority: int = 2) -> None:
    box.enqueue(NewEntry(message_id, "study.image_received", subject, priority, {"id": message_id}), now=NOW)


def due(box: Outbox, now: datetime = NOW) -> list[str]:
    return [entry.message_id for entry in box.due(now, limit=10)]


def test_an_entry_carries_what_was_put(box: Outbox) -> None:
    put(box, "m1")
    (entry,) = box.due(NOW, limit=10)
    assert entry == outbox.Entry(
        id=1,
        message_id="m1",
        subject="s",
        sequence=1,
        message_type="study.image_received",
        priority=2,
        parameters={"id": "m1"},
        created_at="2026-11-22T08:00:00.000Z",
        destination="cloud",
        attempts=0,
        due_at="2026-11-22T08:00:00.000Z",
        reason="",
    )


def test_only_the_oldest_open_entry_of_a_subject_is_due_and_subjects_do_not_wait_for_each_other(box: Outbox) -> None:
    put(box, "a1", "a")
    put(box, "a2", "a")
    put(box, "b1", "b", priority=1)
    assert due(box) == ["b1", "a1"]
    box.delivered(box.due(NOW, limit=10)[1], now=NOW)
    assert due(box) == ["b1", "a2"]


def test_a_retry_holds_its_subject_back_until_it_is_due_again(box: Outbox) -> None:
    put(box, "a1", "a")
    put(box, "a2", "a")
    box.retry(box.due(NOW, limit=1)[0], reason="refused", due_at=NOW + timedelta(seconds=30))
    assert due(box) == []
    assert due(box, NOW + timedelta(seconds=30)) == ["a1"]


def test_a_clock_that_was_set_back_does_not_hold_an_entry_for_months(box: Outbox) -> None:
    put(box, "a1")
    box.retry(box.due(NOW, limit=1)[0], reason="refused", due_at=NOW + timedelta(seconds=30))
    assert due(box, NOW - timedelta(days=90)) == ["a1"]


def test_a_parked_entry_lets_its_subject_go_on_and_can_be_released(box: Outbox) -> None:
    put(box, "a1", "a")
    put(box, "a2", "a")
    box.park(box.due(NOW, limit=1)[0], reason="too large", now=NOW)
    assert due(box) == ["a2"]
    (parked,) = box.entries("parked")
    assert (parked.message_id, parked.reason, parked.attempts) == ("a1", "too large", 1)
    box.release(parked.id, now=NOW)
    assert due(box) == ["a1"]
    with pytest.raises(NotFound):
        box.release(parked.id, now=NOW)


def test_the_same_message_again_changes_nothing_even_after_delivery(box: Outbox) -> None:
    put(box, "a1")
    box.delivered(box.due(NOW, limit=1)[0], now=NOW)
    put(box, "a1")
    assert due(box) == []
    assert box.counts() == {"open": 0, "delivered": 1, "parked": 0}


def test_a_late_outcome_does_not_disturb_a_settled_entry(box: Outbox) -> None:
    put(box, "a1")
    (entry,) = box.due(NOW, limit=1)
    box.delivered(entry, now=NOW)
    box.retry(entry, reason="too late", due_at=NOW)
    box.park(entry, reason="too late", now=NOW)
    assert box.counts() == {"open": 0, "delivered": 1, "parked": 0}


def test_a_fact_that_is_rolled_back_owes_nothing(box: Outbox, database: Database) -> None:
    with pytest.raises(ValueError, match="no"), database.write() as conn:
        box.put(conn, NewEntry("m", "t", "s", 1, {}), now=NOW)
        raise ValueError("no")
    assert box.counts() == {"open": 0, "delivered": 0, "parked": 0}
    assert box.oldest_open() is None


def test_counts_follow_every_change(box: Outbox, database: Database) -> None:
    for number in range(4):
        put(box, f"m{number}", f"s{number}")
    first, second, third, _ = reversed(box.due(NOW, limit=10))
    box.delivered(first, now=NOW)
    box.delivered(second, now=NOW)
    box.park(third, reason="too large", now=NOW)
    assert box.counts() == {"open": 1, "delivered": 2, "parked": 1}
    with database.write() as conn:
        conn.execute("UPDATE outbox SET delivered_at = NULL WHERE id = 1")
        conn.execute("DELETE FROM outbox WHERE id = 2")
    assert box.counts() == {"open": 2, "delivered": 0, "parked": 1}


def test_an_outbox_of_the_first_version_is_counted_when_it_is_brought_up_to_date(tmp_path: Path) -> None:
    first = tmp_path / "outbox"
    first.mkdir()
    (first / "0001_outbox.sql").write_text((outbox.SCHEMA / "0001_outbox.sql").read_text())
    old = Database(tmp_path / "x.db", first)
    old.migrate()
    with old.write() as conn:
        for number, delivered in enumerate([None, "2026-11-22T08:00:00.000Z", "2026-11-22T08:00:01.000Z"]):
            conn.execute(
                "INSERT INTO outbox (message_id, subject, sequence, message_type, priority, parameters, created_at,"
                " due_at, delivered_at) VALUES (?, 's', ?, 'x', 1, '{}', 'c', 'd', ?)",
                (f"m{number}", number, delivered),
            )
    old.close()
    database = Database(tmp_path / "x.db", outbox.SCHEMA)
    database.migrate()
    assert Outbox(database).counts() == {"open": 1, "delivered": 2, "parked": 0}


def test_what_is_held_back_holds_nothing_up_and_is_released_by_name_once(box: Outbox) -> None:
    put(box, "m1")
    put(box, "m2")
    [entry] = box.due(NOW, limit=10)
    assert box.held.hold(entry.id, reason="Held back.", now=NOW)
    assert (due(box), box.held.reasons(["m1", "m2"])) == (["m2"], {"m1": "Held back."})
    for nobody in ("", "  ", "a\nb", "\ud800", "x" * 129):
        with pytest.raises(InvalidValue, match="Entry 1 is held back"):
            box.release(1, by=nobody, now=NOW)
        with pytest.raises(InvalidValue, match="Entry 1 is held back"):
            box.release_alike("cloud", "Held back.", by=nobody, now=NOW)
    box.release(1, by=" J. Smith ", now=NOW)
    assert (due(box), box.held.reasons(["m1"]), box.held.let_out(["m1", "m2"])) == (["m1"], {}, {"m1"})
    [entry] = box.due(NOW, limit=10)
    assert (entry.released_by, box.held.hold(entry.id, reason="Again.", now=NOW)) == ("J. Smith", False)


def test_what_was_released_by_name_and_is_parked_for_another_reason_needs_no_second_name(box: Outbox) -> None:
    put(box, "m1")
    box.held.hold(box.due(NOW, limit=10)[0].id, reason="Held back.", now=NOW)
    box.release(1, by="J. Smith", now=NOW)
    box.park(box.due(NOW, limit=10)[0], reason="The cloud refused it.", now=NOW)
    box.release(1, now=NOW)
    assert [entry.released_by for entry in box.due(NOW, limit=10)] == ["J. Smith"]


def test_what_was_confirmed_is_let_out(box: Outbox) -> None:
    put(box, "m1")
    assert box.held.let_out(["m1"]) == set()
    box.delivered(box.due(NOW, limit=10)[0], now=NOW)
    assert box.held.let_out(["m1", "never"]) == {"m1"}
