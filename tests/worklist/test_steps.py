"""worklist.store: performed steps in any order, what they say was made, and the one that is stuck."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gateway.errors import NoLongerUpdatable
from tests.worklist.samples import IMAGE, NOW, SERIES, STUDY, begun, ended, item
from worklist import Worklist
from worklist.step_rows import Performed

LATER = NOW + timedelta(minutes=5)
CLASS = "1.2.840.10008.5.1.4.1.1.1.2"


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    opened = Worklist.open(tmp_path / "worklist.db")
    opened.schedule(item(), action_id="action-1", content_hash="h", now=NOW)
    yield opened
    opened.close()


def reference(uid: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = CLASS, uid
    return made


def told(*images: str, status: str = "COMPLETED", others: tuple[str, ...] = ()) -> Dataset:
    """An N-SET that says what was made."""
    data_set = ended(status)
    [series] = data_set.PerformedSeriesSequence
    series.ReferencedImageSequence = [reference(uid) for uid in images]
    series.ReferencedNonImageCompositeSOPInstanceSequence = [reference(uid) for uid in others]
    if not status:
        del data_set.PerformedProcedureStepStatus
    return data_set


def owed(worklist: Worklist) -> list[str]:
    return [entry.message_id for entry in sorted(worklist.outbox.entries("open"), key=lambda entry: entry.id)]


def test_why_steps_were_discontinued_can_be_asked(worklist: Worklist) -> None:
    for uid, status in (("1.1", "DISCONTINUED"), ("1.2", "COMPLETED")):
        worklist.begin(uid, begun(), now=NOW)
        worklist.change(uid, told(status=status), now=NOW)
    worklist.begin("1.3", begun(), now=NOW)
    worklist.close_step("1.3", by="J. Smith", because="tube failed", now=NOW)
    assert worklist.performed("ACC1").discontinued_because == ("", "tube failed")


def test_what_the_steps_of_an_item_say_was_made_can_be_asked(worklist: Worklist) -> None:
    stages = [worklist.performed("ACC1")]
    worklist.begin("1.1", begun(), now=NOW)
    worklist.change("1.1", told("9.1", "9.2", status=""), now=NOW)
    stages.append(worklist.performed("ACC1"))
    worklist.change("1.1", told("9.2", "9.3", others=("9.7",)), now=NOW)  # whole sequences are replaced
    worklist.begin("1.2", begun(), now=NOW)
    worklist.change("1.2", told("9.3", "9.4"), now=NOW)
    stages.append(worklist.performed("ACC1"))
    assert stages == [
        Performed(steps=0, is_over=False, images=(), others=()),
        Performed(steps=1, is_over=False, images=("9.1", "9.2"), others=()),
        Performed(steps=2, is_over=True, images=("9.2", "9.3", "9.4"), others=("9.7",)),
    ]


def test_the_first_image_or_the_cloud_may_be_before_the_n_create(worklist: Worklist) -> None:
    """An earlier gateway set the item in progress with its first image, and then lost the step that came after it."""
    worklist.change_status("ACC1", "in_progress", now=NOW)
    worklist.begin("1.1", begun(), now=NOW)
    worklist.change("1.1", ended(), now=LATER)
    assert worklist.item("ACC1").state == "completed"
    assert owed(worklist) == ["1.1/in_progress", "1.1/completed"]


def test_a_completed_item_is_taken_up_again_by_another_step(worklist: Worklist) -> None:
    states = []
    for uid in ("1.1", "1.2"):
        worklist.begin(uid, begun(), now=NOW)
        states.append(worklist.item("ACC1").state)
        worklist.change(uid, ended(), now=LATER)
        states.append(worklist.item("ACC1").state)
    assert states == ["in_progress", "completed"] * 2


def test_a_step_with_a_number_that_was_typed_over_belongs_to_the_item_of_its_study(worklist: Worklist) -> None:
    worklist.begin("1.1", begun("TYPO", worklist.item("ACC1").study_instance_uid), now=NOW)
    assert worklist.item("ACC1").state == "in_progress"
    assert [entry.subject for entry in worklist.outbox.entries("open")] == ["mpps/ACC1"]
    worklist.schedule(item("TYPO"), action_id="action-2", content_hash="h", now=LATER)
    assert worklist.item("TYPO").state == "in_progress", "what the machine said is not forgotten either"
    worklist.change("1.1", ended(), now=LATER)
    assert [entry.subject for entry in worklist.outbox.entries("open")] == ["mpps/ACC1"] * 2, "in one order for good"


def test_a_step_with_the_number_of_one_item_and_the_study_of_another_is_that_of_the_number(worklist: Worklist) -> None:
    worklist.schedule(item("ACC2"), action_id="action-2", content_hash="h", now=NOW)
    worklist.begin("1.1", begun("ACC2", worklist.item("ACC1").study_instance_uid), now=NOW)
    assert [each.state for each in worklist.items()] == ["scheduled", "in_progress"]


def test_a_stuck_step_is_closed_with_its_item_and_the_cloud_is_told_by_whom_and_why(worklist: Worklist) -> None:
    worklist.begin("1.1", begun(), now=NOW)
    worklist.change("1.1", told("9.1", status=""), now=NOW)
    assert [(step.mpps_instance_uid, at) for step, at in worklist.open_steps()] == [("1.1", "2026-11-22T09:00:00.123Z")]
    evening = datetime(2026, 11, 22, 23, 5, tzinfo=timezone(timedelta(hours=1)))
    worklist.close_step("1.1", by="J. Smith", because="tube failed", now=evening)
    [event, _] = worklist.outbox.entries("open")
    assert (worklist.item("ACC1").state, worklist.open_steps()) == ("discontinued", [])
    assert (event.message_id, event.created_at, event.parameters) == (
        "1.1/discontinued",
        "2026-11-22T22:05:00.000Z",
        {
            "accession_number": "ACC1",
            "study_instance_uid": STUDY,
            "mpps_instance_uid": "1.1",
            "status": "DISCONTINUED",
            "started_at": "2026-11-22T09:35:00",
            "ended_at": "2026-11-22T23:05:00",
            "discontinuation_reason": "tube failed",
            "closed_by": "J. Smith",
            "performed_series": [{"series_instance_uid": SERIES, "sop_instance_uids": ["9.1"]}],
        },
    )
    with pytest.raises(NoLongerUpdatable):
        worklist.change("1.1", ended(), now=LATER)
    worklist.begin("1.2", begun(), now=LATER)
    assert worklist.item("ACC1").state == "in_progress", "the machine may try again"


def test_a_repeated_n_create_of_a_closed_step_succeeds_and_opens_nothing(worklist: Worklist) -> None:
    worklist.begin("1.1", begun(), now=NOW)
    worklist.close_step("1.1", by="J. Smith", because="tube failed", now=NOW)
    worklist.begin("1.1", begun(), now=LATER)
    assert (worklist.item("ACC1").state, len(owed(worklist))) == ("discontinued", 2)


def test_a_database_of_the_first_schema_knows_what_was_made(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with closing(Worklist.open(path)) as opened:
        opened.begin("1.1", begun(), now=NOW)
        opened.change("1.1", told(IMAGE, "9.1", others=("9.7",)), now=NOW)
    with closing(sqlite3.connect(path)) as conn:  # as the first version left it
        conn.executescript(
            "DROP TABLE performed_instances; DROP INDEX steps_in_progress; DROP INDEX actions_by_item;"
            "ALTER TABLE steps DROP COLUMN closed_by; ALTER TABLE steps DROP COLUMN closed_because;"
            "ALTER TABLE steps DROP COLUMN told_as;"
            "ALTER TABLE items DROP COLUMN asked_at;"
            "DELETE FROM schema_history WHERE folder = 'owner' AND number = 2;"
        )
    with closing(Worklist.open(path)) as opened:
        assert opened.performed("ACC1") == Performed(1, True, images=(IMAGE, "9.1"), others=("9.7",))
        assert [step.told_as for step in opened.steps("ACC1")] == ["ACC1"]
