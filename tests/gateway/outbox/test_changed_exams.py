"""Notes of what was touched: one for each exam, and none taken away that somebody has added to."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from gateway import outbox
from gateway.outbox.changed_exams import Note, Touched, settle, touch
from gateway.sqlite import Database

FIRST, SECOND = "2026-11-22T08:00:00.000Z", "2026-11-22T08:00:01.000Z"


@pytest.fixture(params=["worklist", "pacs"])
def touched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Touched]:
    database = Database(tmp_path / "x.db", outbox.SCHEMA, files(request.param) / "schema")
    database.migrate()
    yield Touched(database)
    database.close()


def note(touched: Touched, at: str, study_instance_uid: str = "1.2") -> None:
    with touched.database.write() as conn:
        touch(conn, study_instance_uid=study_instance_uid, at=at)


def test_an_exam_that_is_touched_again_has_one_note(touched: Touched) -> None:
    note(touched, FIRST)
    note(touched, SECOND)
    note(touched, SECOND, "1.3")
    assert touched.notes(limit=10) == [Note("1.2", "", FIRST, SECOND, 2), Note("1.3", "", SECOND, SECOND, 1)]


def test_a_change_that_does_not_happen_leaves_no_note(touched: Touched) -> None:
    with pytest.raises(ZeroDivisionError), touched.database.write() as conn:
        touch(conn, study_instance_uid="1.2", at=FIRST)
        raise ZeroDivisionError
    assert touched.notes(limit=10) == []


def test_a_note_that_was_added_to_stays(touched: Touched) -> None:
    note(touched, FIRST)
    [read] = touched.notes(limit=10)
    note(touched, SECOND)
    with touched.database.write() as conn:
        settle(conn, read)
    assert touched.notes(limit=10) == [Note("1.2", "", FIRST, SECOND, 2)]
    with touched.database.write() as conn:
        settle(conn, touched.notes(limit=10)[0])
    assert touched.notes(limit=10) == []


def test_notes_are_carried_from_one_owner_to_another_and_those_that_came_meanwhile_stay(
    touched: Touched, tmp_path: Path
) -> None:
    other = Database(tmp_path / "y.db", outbox.SCHEMA, files("worklist") / "schema")
    other.migrate()
    owner = Touched(other)
    note(owner, FIRST)
    note(touched, FIRST)
    read = owner.notes(limit=10)
    note(owner, SECOND)
    touched.carry(read, owner)
    assert touched.notes(limit=10) == [Note("1.2", "", FIRST, FIRST, 2)]
    assert owner.notes(limit=10) == [Note("1.2", "", FIRST, SECOND, 2)]
    touched.carry(owner.notes(limit=10), owner)
    assert owner.notes(limit=10) == []
    other.close()
