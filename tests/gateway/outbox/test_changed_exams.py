"""Exams that changed: one row for each, and none taken away of an exam that changed meanwhile."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest

from gateway import outbox
from gateway.outbox.changed_exams import ChangedExam, ChangedExams, mark_changed, settle
from gateway.sqlite import Database

FIRST, SECOND = "2026-11-22T08:00:00.000Z", "2026-11-22T08:00:01.000Z"


@pytest.fixture(params=["worklist", "pacs"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "x.db", outbox.SCHEMA, files(request.param) / "schema")
    opened.migrate()
    yield opened
    opened.close()


def change(database: Database, at: str, study_instance_uid: str = "1.2") -> None:
    with database.write() as conn:
        mark_changed(conn, study_instance_uid=study_instance_uid, at=at)


def waiting(database: Database) -> list[ChangedExam]:
    return ChangedExams(database).waiting(limit=10)


def test_an_exam_that_changes_again_has_one_row(database: Database) -> None:
    change(database, FIRST)
    change(database, SECOND)
    change(database, SECOND, "1.3")
    assert waiting(database) == [
        ChangedExam("1.2", "", FIRST, SECOND, 2),
        ChangedExam("1.3", "", SECOND, SECOND, 1),
    ]


def test_a_change_that_does_not_happen_leaves_no_row(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.write() as conn:
        mark_changed(conn, study_instance_uid="1.2", at=FIRST)
        raise ZeroDivisionError
    assert waiting(database) == []


def test_the_row_of_an_exam_that_changed_meanwhile_stays(database: Database) -> None:
    change(database, FIRST)
    [read] = waiting(database)
    change(database, SECOND)
    with database.write() as conn:
        settle(conn, read)
    assert waiting(database) == [ChangedExam("1.2", "", FIRST, SECOND, 2)]
    [read] = waiting(database)
    with database.write() as conn:
        settle(conn, read)
    assert waiting(database) == []


def test_rows_are_taken_over_by_another_owner_and_those_that_changed_meanwhile_stay(
    database: Database, tmp_path: Path
) -> None:
    other = Database(tmp_path / "y.db", outbox.SCHEMA, files("worklist") / "schema")
    other.migrate()
    change(other, FIRST)
    change(database, FIRST)
    read = waiting(other)
    change(other, SECOND)
    ChangedExams(database).take_over(read, ChangedExams(other))
    assert waiting(database) == [ChangedExam("1.2", "", FIRST, FIRST, 2)]
    assert waiting(other) == [ChangedExam("1.2", "", FIRST, SECOND, 2)]
    ChangedExams(database).take_over(waiting(other), ChangedExams(other))
    assert waiting(other) == []
    other.close()
