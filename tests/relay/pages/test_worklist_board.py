"""The board of a day: what it counts, what it says needs a look, and what fits on the wall."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from pydicom import Dataset

from gateway.errors import InvalidQuery
from pacs import Archive
from relay.exams.evidence import Evidence
from relay.exams.holding import HoldRules
from relay.exams.instances import Instances
from relay.pages.worklist_board import WALL_ROWS, Board, Day, read_date
from tests.relay import served
from tests.relay.served import NOW
from worklist import Worklist

VIEWS = ("RCC", "LCC", "RMLO", "LMLO")


@contextmanager
def board(folder: Path, images: Iterable[Dataset] = ()) -> Iterator[tuple[Board, Worklist]]:
    """A board over real databases with these images and the appointment ACC-1 of their study."""
    archive, worklist = Archive.open(folder / "pacs.db", folder / "instances"), Worklist.open(folder / "worklist.db")
    for image in images:
        served.receive(archive, image, folder)
    worklist.schedule(served.item(), action_id="1", content_hash="1", now=NOW)
    evidence = Evidence(archive, worklist, holding=HoldRules(archive, worklist))
    yield Board(worklist, Instances(archive), evidence, clock=lambda: NOW), worklist
    archive.close()
    worklist.close()


def four(**attributes: object) -> list[Dataset]:
    return [served.mammogram(view, number, **attributes) for number, view in enumerate(VIEWS, 1)]


def performed(worklist: Worklist, uids: Iterable[str], *, status: str = "COMPLETED") -> None:
    """Report the step of ACC-1 with what it made."""
    created, step, changed, series = Dataset(), Dataset(), Dataset(), Dataset()
    step.AccessionNumber, step.StudyInstanceUID, step.ScheduledProcedureStepID = "ACC-1", served.STUDY, "ACC-1"
    step.RequestedProcedureID, step.RequestedProcedureDescription = "ACC-1", "Screening"
    step.ScheduledProcedureStepDescription, step.ReferencedStudySequence = "Screening", []
    step.ScheduledProtocolCodeSequence = []
    created.ScheduledStepAttributesSequence = [step]
    created.PatientName, created.PatientID, created.PatientBirthDate, created.PatientSex = (
        "BJÖRK^ANNA",
        "9990000018",
        "",
        "",
    )
    created.SpecificCharacterSet = "ISO_IR 192"
    created.ReferencedPatientSequence = []
    created.PerformedProcedureStepID, created.PerformedStationAETitle, created.Modality = "1", "MAMMO", "MG"
    created.PerformedStationName = created.PerformedLocation = created.PerformedProcedureStepDescription = ""
    created.PerformedProcedureTypeDescription, created.ProcedureCodeSequence, created.StudyID = "", [], ""
    created.PerformedProcedureStepStartDate, created.PerformedProcedureStepStartTime = "20261122", "091500"
    created.PerformedProcedureStepEndDate = created.PerformedProcedureStepEndTime = ""
    created.PerformedProtocolCodeSequence, created.PerformedSeriesSequence = [], []
    created.PerformedProcedureStepStatus = "IN PROGRESS"
    worklist.begin("2.25.5", created, now=NOW)
    changed.PerformedProcedureStepStatus = status
    changed.PerformedProcedureStepEndDate, changed.PerformedProcedureStepEndTime = "20261122", "092500"
    series.SeriesInstanceUID, series.ProtocolName, series.RetrieveAETitle = f"{served.STUDY}.1", "MG", ""
    series.SeriesDescription = series.PerformingPhysicianName = series.OperatorsName = ""
    series.ReferencedImageSequence = [reference(uid) for uid in uids]
    series.ReferencedNonImageCompositeSOPInstanceSequence = []
    changed.PerformedSeriesSequence = [series]
    worklist.change("2.25.5", changed, now=NOW)


def reference(uid: str) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", uid
    return ds


def made(number: int) -> list[str]:
    return [f"{served.STUDY}.1.{n}" for n in range(1, number + 1)]


def the_row(day: Day) -> tuple[int, int, tuple[str, ...]]:
    [row] = day.rows
    return len(row.exam.present), row.awaited, row.problems


LOST_ONE = "1 of 4 images that the machine says it made has not arrived."
LOST_TWO = "2 of 2 images that the machine says it made have not arrived."


@pytest.mark.parametrize(
    ("arrived", "reported", "status", "expected"),
    [
        (0, None, "", (0, 0, ())),
        (2, None, "", (2, 0, ())),
        (4, 4, "COMPLETED", (4, 0, ())),
        (2, 4, "IN PROGRESS", (2, 2, ())),
        (3, 4, "COMPLETED", (3, 1, ("Completed without LMLO.", LOST_ONE))),
        (2, 2, "COMPLETED", (2, 0, ("Completed without RMLO and LMLO.",))),
        (0, 2, "COMPLETED", (0, 2, ("Completed without RCC and LCC and RMLO and LMLO.", LOST_TWO))),
        (0, 0, "DISCONTINUED", (0, 0, ())),
    ],
)
def test_what_the_machine_reports_is_held_against_what_has_come(
    tmp_path: Path, arrived: int, reported: int | None, status: str, expected: tuple[int, int, tuple[str, ...]]
) -> None:
    with board(tmp_path, four()[:arrived]) as (days, worklist):
        if reported is not None:
            performed(worklist, made(reported), status=status)
        assert the_row(days.day()) == expected


def test_images_under_the_right_number_in_a_wrong_study_are_a_finding_and_not_missing(tmp_path: Path) -> None:
    with board(tmp_path, four(StudyInstanceUID="2.25.77", SeriesInstanceUID="2.25.77.1")) as (days, _):
        assert the_row(days.day()) == (4, 0, ("Study Instance UID of 4 images differs from the worklist.",))


def test_extras_are_counted_in_words(tmp_path: Path) -> None:
    with board(tmp_path, [*four(), served.tomosynthesis(), served.report()]) as (days, _):
        [row] = days.day().rows
    assert row.extras == ("1 tomosynthesis", "1 other object")


def test_a_day_has_its_neighbours(tmp_path: Path) -> None:
    with board(tmp_path) as (days, _):
        day = days.day(date(2026, 3, 1))
    assert (day.before, day.after, day.is_today, day.total) == (date(2026, 2, 28), date(2026, 3, 2), False, 0)


def test_the_wall_shows_what_is_next_and_what_needs_a_look(tmp_path: Path) -> None:
    with board(tmp_path, four()[:1]) as (days, worklist):
        performed(worklist, made(1))  # ACC-1: completed with one view only
        for number in range(2, 40):
            name, study = f"ACC-{number:02}", f"2.25.{900 + number}"
            worklist.schedule(served.item(name, StudyInstanceUID=study), action_id=name, content_hash="1", now=NOW)
        for number in range(2, 20):
            worklist.change_status(f"ACC-{number:02}", "in_progress", now=NOW)
            worklist.change_status(f"ACC-{number:02}", "discontinued", now=NOW)
        shown = [row.item.accession_number for row in days.day().on_wall]
    assert shown == ["ACC-1", *(f"ACC-{number}" for number in range(18, 31))]
    assert len(shown) == WALL_ROWS


def test_a_wall_with_room_shows_the_whole_day(tmp_path: Path) -> None:
    with board(tmp_path) as (days, worklist):
        for number in range(2, WALL_ROWS + 1):
            name, study = f"ACC-{number:02}", f"2.25.{900 + number}"
            worklist.schedule(served.item(name, StudyInstanceUID=study), action_id=name, content_hash="1", now=NOW)
        worklist.change_status("ACC-1", "completed", now=NOW)
        assert len(days.day().on_wall) == WALL_ROWS


def test_a_day_is_made_anew_for_what_has_changed_and_only_that(tmp_path: Path) -> None:
    with board(tmp_path, four()[:1]) as (days, worklist):
        worklist.schedule(served.item("ACC-2", StudyInstanceUID="2.25.902"), action_id="2", content_hash="1", now=NOW)
        first = days.day().rows
        assert all(one is other for one, other in zip(days.day().rows, first, strict=True))
        worklist.change_status("ACC-2", "in_progress", now=NOW)
        second = days.day().rows
    assert [row.item.state for row in second] == ["scheduled", "in_progress"]
    assert (second[0] is first[0], second[1] is first[1]) == (True, False)


@pytest.mark.parametrize(
    ("text", "day"), [("", None), ("2026-11-22", date(2026, 11, 22)), ("20261122", date(2026, 11, 22))]
)
def test_a_date_is_read_in_both_forms(text: str, day: date | None) -> None:
    assert read_date(text) == day


def test_what_is_no_date_is_refused() -> None:
    with pytest.raises(InvalidQuery):
        read_date("2026-02-30")


def test_an_image_that_is_held_back_is_said_on_its_row(tmp_path: Path) -> None:
    with board(tmp_path, [served.mammogram("RCC", 1, PatientID="9990000026")]) as (seen, _):
        [row] = seen.day().rows
    assert row.problems == (
        "Patient ID of 1 image differs from the worklist.",
        "1 image has to be looked at by a person on site before the cloud is told.",
    )


def problems(seen: Board) -> tuple[str, ...]:
    [found] = [row.problems for row in seen.day().rows if row.item.accession_number == "ACC-1"]
    return found


@contextmanager
def attached(folder: Path) -> Iterator[Archive]:
    """The archive of the board, as another process has it."""
    archive = Archive.attach(folder / "pacs.db", folder / "instances")
    yield archive
    archive.close()


def test_a_row_follows_what_leaves_and_the_other_items_of_its_study(tmp_path: Path) -> None:
    with (
        board(tmp_path, [served.mammogram("RCC", 1, AccessionNumber="ACC-9")]) as (seen, worklist),
        attached(tmp_path) as archive,
    ):
        wrong, *held = problems(seen)
        assert (wrong, len(held)) == ("Accession Number of 1 image differs from the worklist.", 1)
        [entry] = archive.outbox.due(NOW, limit=10)
        archive.outbox.delivered(entry, now=NOW)
        assert problems(seen) == (wrong,)
        worklist.schedule(served.item("ACC-9"), action_id="9", content_hash="1", now=NOW)
        assert problems(seen) == ()


def test_a_row_follows_an_image_of_its_step_that_came_under_another_study(tmp_path: Path) -> None:
    with board(tmp_path, four()[:3]) as (seen, worklist), attached(tmp_path) as archive:
        performed(worklist, made(4))
        assert problems(seen) == ("Completed without LMLO.", LOST_ONE)
        elsewhere = served.mammogram("LMLO", 4, StudyInstanceUID="2.25.88", SeriesInstanceUID="2.25.88.1",
                                     AccessionNumber="")  # fmt: skip
        served.receive(archive, elsewhere, tmp_path)
        assert problems(seen) == ("Completed without LMLO.",)
