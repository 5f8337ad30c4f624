"""worklist.expiry: what leaves at night, what stays and why, and that one can go back."""

import threading
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.worklist.samples import NOW, begun, ended, item, scheduled
from worklist import Worklist
from worklist.expiry import COPIES, Expiry, candidates, copy, first_day_kept, judge, night_of, prune
from worklist.expiry_rows import ItemFacts

TODAY, LONG_AGO = "20261122", "20261001"
NIGHT = datetime(2026, 11, 22, 3, 0, 5, tzinfo=timezone(timedelta(hours=1)))


def put(worklist: Worklist, name: str, date: str = LONG_AGO) -> None:
    worklist.schedule(item(name, scheduled=scheduled(date, "0900")), action_id=name, content_hash="h", now=NOW)


def deliver(worklist: Worklist) -> None:
    while due := worklist.outbox.due(NOW, limit=10):
        for entry in due:
            worklist.outbox.delivered(entry, now=NOW)


def names(worklist: Worklist) -> list[str]:
    return [each.accession_number for each in worklist.items()]


def copies(worklist: Worklist) -> list[Path]:
    return sorted((worklist.database_path.parent / "worklist-copies").glob("*"))


@pytest.mark.parametrize(
    ("facts", "kept_because"),
    [
        (("20261022", "completed", 0, 0), ()),
        (("20261022", "scheduled", 0, 0), ()),
        (("20261022", "cancelled", 0, 0), ()),
        (("20261023", "completed", 0, 0), ("it is too young",)),
        (("20261022", "in_progress", 0, 0), ("it is in progress",)),
        (("20261022", "completed", 1, 0), ("a step of it is in progress; see 'gateway mpps list'",)),
        (("20261022", "discontinued", 0, 1), ("the cloud is still owed events of it",)),
    ],
)
def test_an_item_stays_while_a_rule_holds_it(facts: tuple[str, str, int, int], kept_because: tuple[str, ...]) -> None:
    date, state, open_steps, owed = facts
    known = ItemFacts("ACC1", date, state, open_steps, owed)  # type: ignore[arg-type]
    assert judge(known, before=first_day_kept(NIGHT, 30)).kept_because == kept_because


def test_what_is_over_and_told_leaves_with_its_steps_and_actions(worklist: Worklist) -> None:
    for name in ("NOBODY", "DONE", "UNTOLD", "STUCK"):
        put(worklist, name)
    put(worklist, "TODAY", TODAY)
    for uid, name in (("1.1", "DONE"), ("1.2", "STUCK"), ("1.3", "")):
        worklist.begin(uid, begun(name), now=NOW)
    worklist.change("1.1", ended(), now=NOW)
    worklist.change("1.3", ended(), now=NOW)
    deliver(worklist)
    worklist.begin("1.4", begun("UNTOLD"), now=NOW)
    worklist.change("1.4", ended(), now=NOW)
    outcomes = {
        outcome.item.accession_number: outcome.kept_because
        for outcome in prune(worklist, before="20261120", now=NOW + timedelta(days=3))
    }
    assert outcomes == {
        "DONE": (),
        "NOBODY": (),
        "STUCK": ("it is in progress", "a step of it is in progress; see 'gateway mpps list'"),
        "UNTOLD": ("the cloud is still owed events of it",),
    }
    assert names(worklist) == ["STUCK", "UNTOLD", "TODAY"]
    list(prune(worklist, before="20261125", now=NOW + timedelta(days=3)))
    assert worklist.steps("DONE") == []
    assert [len(worklist.steps(name)) for name in ("STUCK", "UNTOLD")] == [1, 1]
    assert worklist.complaints() == []


def test_a_parked_event_holds_its_item_until_it_was_delivered(worklist: Worklist) -> None:
    put(worklist, "ACC1")
    worklist.begin("1.1", begun(), now=NOW)
    worklist.change("1.1", ended(), now=NOW)
    [first] = worklist.outbox.due(NOW, limit=1)
    worklist.outbox.park(first, reason="unknown there", now=NOW)
    deliver(worklist)
    assert [outcome.kept_because for outcome in candidates(worklist, before=TODAY)] == [
        ("the cloud is still owed events of it",)
    ]
    worklist.outbox.release(first.id, now=NOW)
    deliver(worklist)
    assert [outcome.kept_because for outcome in prune(worklist, before=TODAY, now=NIGHT)] == [()]


def test_a_step_of_two_items_stays_until_both_have_left(worklist: Worklist) -> None:
    put(worklist, "OLD")
    put(worklist, "NEW", TODAY)
    both = begun("OLD")
    both.ScheduledStepAttributesSequence.append(begun("NEW").ScheduledStepAttributesSequence[0])
    worklist.begin("1.1", both, now=NOW)
    worklist.change("1.1", ended(), now=NOW)
    deliver(worklist)
    list(prune(worklist, before=TODAY, now=NIGHT))
    assert (names(worklist), len(worklist.steps("NEW"))) == (["NEW"], 1)
    list(prune(worklist, before="20261201", now=NIGHT))
    assert (names(worklist), worklist.steps("NEW")) == ([], [])


def test_before_anything_leaves_the_database_is_copied(worklist: Worklist) -> None:
    put(worklist, "ACC1")
    list(prune(worklist, before="20260901", now=NIGHT))
    assert copies(worklist) == [], "nothing left, so nothing was copied"
    list(prune(worklist, before=TODAY, now=NIGHT))
    [kept] = copies(worklist)
    assert (kept.name, kept.parent.stat().st_mode & 0o777) == ("worklist-20261122T020005Z.db", 0o700)
    with closing(Worklist.open(kept)) as before:
        assert (names(before), names(worklist)) == (["ACC1"], [])


def test_the_newest_copies_stay(worklist: Worklist) -> None:
    for day in range(COPIES + 3):
        copy(worklist, now=NIGHT + timedelta(days=day))
    assert [path.name[9:17] for path in copies(worklist)] == [f"202611{day}" for day in range(25, 25 + COPIES - 1)] + [
        "20261201"
    ]


def test_a_dry_run_changes_nothing(worklist: Worklist) -> None:
    put(worklist, "ACC1")
    assert [outcome.kept_because for outcome in candidates(worklist, before=TODAY)] == [()]
    assert (names(worklist), copies(worklist)) == (["ACC1"], [])


def test_an_item_that_left_may_be_scheduled_again_and_has_the_same_study(worklist: Worklist) -> None:
    put(worklist, "ACC1")
    study = worklist.item("ACC1").study_instance_uid
    list(prune(worklist, before=TODAY, now=NIGHT))
    put(worklist, "ACC1")
    assert worklist.item("ACC1").study_instance_uid == study


def test_the_day_end_is_held_once_after_each_striking_of_the_hour(worklist: Worklist) -> None:
    put(worklist, "YESTERDAY", LONG_AGO)
    asked, looked = [], threading.Event()

    def clock() -> datetime:
        asked.append(1)
        looked.set()
        return NIGHT

    with Expiry(worklist, keep_days=30, hour=3, clock=clock):
        assert looked.wait(5)
    assert (names(worklist), len(copies(worklist)), len(asked)) == ([], 1, 1)


@pytest.mark.parametrize(
    ("moment", "hour", "night"),
    [
        # 25 October 2026: 02:00 becomes 01:00. 29 March 2026: 01:00 becomes 02:00. Clocks in London.
        ("2026-10-25T00:59Z", 3, "2026-10-24"),
        ("2026-10-25T01:01Z", 3, "2026-10-24"),
        ("2026-10-25T03:00Z", 3, "2026-10-25"),
        ("2026-10-25T00:01Z", 1, "2026-10-25"),
        ("2026-10-25T01:01Z", 1, "2026-10-25"),
        ("2026-03-29T00:59Z", 3, "2026-03-28"),
        ("2026-03-29T01:01Z", 3, "2026-03-28"),
        ("2026-03-29T01:01Z", 1, "2026-03-29"),
        ("2026-03-29T02:00Z", 3, "2026-03-29"),
    ],
)
def test_clocks_that_are_changed_make_no_second_night(moment: str, hour: int, night: str) -> None:
    now = datetime.fromisoformat(moment).astimezone(ZoneInfo("Europe/London"))
    assert night_of(now, hour).isoformat() == night


def test_items_never_leave_where_nobody_says_for_how_long(worklist: Worklist) -> None:
    put(worklist, "ACC1")
    with Expiry(worklist, keep_days=0, hour=3, clock=lambda: NIGHT):
        pass
    assert names(worklist) == ["ACC1"]
