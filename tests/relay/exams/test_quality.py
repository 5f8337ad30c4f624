"""Judging what changed: the cloud is told what an exam looks like, once for each change, and nothing gets lost."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from gateway.errors import Refusal
from gateway.outbox.changed_exams import ChangedExam
from pacs import RetentionPolicy, delete
from relay.exams.exam import judgement
from relay.exams.quality import LONGEST, PUT_OFF, SETTLE, is_ripe
from tests.relay.exams.judging import FOUR, NOW, ROOT, Exams, attached, before_line, opened, ours
from tests.relay.served import STUDY
from tests.tools.waiting import until
from worklist.expiry_rows import ExpiryRows


@pytest.fixture
def exams(tmp_path: Path) -> Iterator[Exams]:
    exams = opened(tmp_path)
    yield exams
    exams.close()


def told(exams: Exams) -> list[tuple[object, object, list[str]]]:
    """State, views by their number, and codes of the findings, as they were told."""
    return [
        (entry.parameters["state"], list(entry.parameters["views"].values()), codes(entry.parameters))  # type: ignore[attr-defined]
        for entry in exams.told()
    ]


def codes(parameters: dict[str, object]) -> list[str]:
    findings = parameters["findings"]
    assert isinstance(findings, list)
    return [finding["code"] for finding in findings]


def test_an_exam_is_told_from_its_beginning_to_its_end(exams: Exams) -> None:
    exams.schedule()
    exams.judge()
    exams.begin()
    exams.judge()
    for view in FOUR[:3]:
        exams.store(view)
    exams.judge()
    exams.end("COMPLETED", [*exams.made, "2.25.404"])
    exams.judge()
    exams.store("LMLO", SOPInstanceUID="2.25.404")
    exams.judge()
    assert told(exams) == [
        ("in_progress", [0, 0, 0, 0], []),
        ("in_progress", [1, 1, 1, 0], []),
        ("incomplete", [1, 1, 1, 0], ["view_missing", "not_received"]),
        ("complete", [1, 1, 1, 1], []),
    ]
    assert [entry.parameters["revision"] for entry in exams.told()] == [1, 2, 3, 4]


def test_it_comes_after_the_images_that_it_is_about(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC")
    exams.judge()
    entries = sorted(exams.archive.outbox.entries("open"), key=lambda entry: entry.sequence)
    assert [(entry.subject, entry.message_type) for entry in entries] == [
        (STUDY, "study.image_received"),
        (STUDY, "exam.quality"),
    ]


def test_what_changes_nothing_is_not_told_again(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC")
    exams.judge()
    exams.worklist.reschedule("ACC-1", date="20261123", time="1015", now=NOW)
    exams.judge()
    assert (told(exams), exams.changes()) == ([("in_progress", [1, 0, 0, 0], [])], 0)


def test_a_step_that_ends_after_the_cloud_has_ended_its_item_is_looked_at(exams: Exams) -> None:
    exams.schedule()
    exams.begin()
    exams.worklist.change_status("ACC-1", "completed", now=NOW)
    for view in FOUR:
        exams.store(view)
    exams.judge()
    exams.end("COMPLETED", [*exams.made, "2.25.404"])
    exams.judge()
    assert told(exams) == [("complete", [1, 1, 1, 1], []), ("incomplete", [1, 1, 1, 1], ["not_received"])]


def test_what_is_as_it_was_before_is_told_again_under_another_id(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC")
    exams.judge()
    uid = exams.store("LCC")
    exams.judge()
    exams.deliver()
    delete(exams.archive, RetentionPolicy(days=0), STUDY, sop_instance_uid=uid, now=exams.now)
    exams.judge()
    assert [views for _, views, _ in told(exams)] == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0]]
    assert len({entry.message_id for entry in exams.told()}) == 3


@pytest.mark.parametrize("status", ["scheduled", "cancelled"])
def test_an_exam_that_has_not_begun_is_not_told(exams: Exams, status: str) -> None:
    exams.schedule()
    if status == "cancelled":
        exams.worklist.cancel("ACC-1", now=NOW)
    exams.judge()
    assert (told(exams), exams.changes()) == ([], 0)


def test_images_without_an_item_are_not_judged_until_it_comes(exams: Exams) -> None:
    exams.store("RCC")
    exams.judge()
    assert (told(exams), exams.changes()) == ([], 0)
    exams.schedule()
    exams.judge()
    assert told(exams) == [("in_progress", [1, 0, 0, 0], [])]


def test_two_items_of_one_study_have_an_exam_each(exams: Exams) -> None:
    exams.schedule()
    exams.schedule("ACC-2")
    exams.store("RCC")
    exams.store("LCC", AccessionNumber="ACC-2")
    exams.judge()
    found = {str(entry.parameters["accession_number"]): entry.parameters["views"] for entry in exams.told()}
    assert found == {
        "ACC-1": {"RCC": 1, "LCC": 0, "RMLO": 0, "LMLO": 0},
        "ACC-2": {"RCC": 0, "LCC": 1, "RMLO": 0, "LMLO": 0},
    }
    assert [codes(entry.parameters) for entry in exams.told()] == [[], []]


@pytest.mark.parametrize("number", ["ACC-*", "ACC-?", "*"])
def test_a_number_that_looks_like_a_pattern_is_that_number_alone(exams: Exams, number: str) -> None:
    exams.schedule(number, StudyInstanceUID="2.25.8")
    exams.schedule("ACC-1")
    exams.store("RCC")
    exams.store("LCC", StudyInstanceUID="2.25.9", SeriesInstanceUID="2.25.9.1", AccessionNumber=number)
    exams.judge()
    found = {str(entry.parameters["accession_number"]): entry.parameters["views"] for entry in exams.told()}
    assert found[number] == {"RCC": 0, "LCC": 1, "RMLO": 0, "LMLO": 0}


def test_what_a_test_leaves_behind_is_not_told(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC")
    exams.judge()
    exams.store("LCC")
    exams.archive.forget(STUDY, now=exams.now)
    ExpiryRows(exams.worklist).forget("ACC-1")
    exams.judge()
    assert (len(exams.told()), exams.changes()) == (1, 0)


def test_an_exam_whose_images_have_left_the_archive_stays_as_it_was_told(exams: Exams) -> None:
    exams.schedule()
    exams.begin()
    for view in FOUR:
        exams.store(view)
    exams.end("COMPLETED", exams.made)
    exams.judge()
    exams.archive.forget(STUDY, now=exams.now)
    exams.worklist.change_status("ACC-1", "completed", now=exams.now)
    exams.begin(uid="2.25.8")
    exams.judge()
    assert (told(exams), exams.changes()) == ([("complete", [1, 1, 1, 1], [])], 0)


def test_a_view_that_was_removed_is_not_told_as_missing(exams: Exams) -> None:
    exams.schedule()
    exams.begin()
    for view in FOUR:
        exams.store(view)
    exams.end("COMPLETED", exams.made)
    exams.judge()
    exams.deliver()
    delete(exams.archive, RetentionPolicy(days=0), STUDY, sop_instance_uid=exams.made[2], now=exams.now)
    exams.judge()
    assert told(exams) == [("complete", [1, 1, 1, 1], [])]
    exams.store("RCC")
    exams.judge()
    assert told(exams)[1:] == [("incomplete", [2, 1, 0, 1], ["view_missing", "repeated_view"])]


def test_a_repetition_that_is_removed_before_the_end_does_not_hide_the_end(exams: Exams) -> None:
    exams.schedule()
    exams.begin()
    for view in (*FOUR, "RCC"):
        exams.store(view)
    exams.judge()
    exams.deliver()
    delete(exams.archive, RetentionPolicy(days=0), STUDY, sop_instance_uid=exams.made[4], now=exams.now)
    exams.end("COMPLETED", exams.made)
    exams.judge()
    assert told(exams)[-1] == ("complete", [1, 1, 1, 1], [])


def test_a_restored_site_does_not_use_an_id_for_another_judgement(tmp_path: Path) -> None:
    (before := tmp_path / "before").mkdir()
    exams = opened(before)
    exams.schedule()
    exams.close()
    ids = []
    for view in ("RCC", "LCC"):
        folder = tmp_path / view
        subprocess.run(["cp", "-r", before, folder], check=True)
        exams = opened(folder)
        exams.store(view)
        exams.judge()
        ids += [entry.message_id for entry in exams.told()]
        exams.close()
    assert len(set(ids)) == 2


def test_a_fault_with_one_exam_holds_up_no_other(exams: Exams) -> None:
    exams.schedule()
    exams.schedule("ACC-9", StudyInstanceUID="2.25.9", PatientID="9990000026")
    exams.store("RCC", StudyInstanceUID="2.25.9", AccessionNumber="ACC-9", PatientID="9990000026")
    with exams.archive.write() as conn:
        conn.execute("UPDATE instance SET data_set = x'00'")
    exams.store("RCC")
    exams.judge()
    assert [entry.parameters["accession_number"] for entry in exams.told()] == ["ACC-1"]
    assert exams.judge() == 0
    assert {each.study_instance_uid for each in exams.archive.changed_exams.waiting(limit=10)} == {"2.25.9"}


def test_an_exam_that_cannot_be_judged_is_said_once_and_judged_later(exams: Exams) -> None:
    exams.schedule()
    exams.store("RCC")
    with exams.archive.write() as conn:
        conn.execute("CREATE TEMP TABLE kept AS SELECT id, data_set FROM instance")
        conn.execute("UPDATE instance SET data_set = x'00'")
    assert exams.quality.trouble == ""
    exams.judge()
    exams.store("LCC")
    exams.judge()
    # Of one exam: the row of its images, which replaced the one before, and that of its item.
    assert exams.quality.trouble.startswith("2 changes of exams could not be judged")
    with exams.archive.write() as conn:
        conn.execute("UPDATE instance SET data_set = kept.data_set FROM kept WHERE kept.id = instance.id")
    exams.judge()
    assert exams.told() == []
    exams.now += PUT_OFF
    exams.judge()
    assert (exams.quality.trouble, exams.changes()) == ("", 0)
    assert told(exams) == [("in_progress", [1, 1, 0, 0], [])]


RIPE = [
    (0.5, 0.5, False),
    (1.4, 5.0, False),
    (1.6, 1.6, True),
    (0.1, 8.1, True),
    (-3600, -3600, True),
]  # fmt: skip


@pytest.mark.parametrize(("last", "first", "ripe"), RIPE)
def test_an_exam_is_judged_when_it_has_settled_or_changed_for_long(last: float, first: float, ripe: bool) -> None:
    times = [(NOW - timedelta(seconds=ago)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
             for ago in (first, last)]  # fmt: skip
    assert is_ripe(ChangedExam("1.2", "", times[0], times[1], 1), now=NOW) is ripe
    assert timedelta(seconds=1) <= SETTLE < LONGEST <= timedelta(seconds=10)


def test_a_burst_of_images_gives_few_events(exams: Exams) -> None:
    exams.schedule()
    for number in range(20):
        exams.now = NOW + timedelta(seconds=number / 2)
        exams.store(FOUR[number % 4])
        exams.quality.judge()
    exams.now += timedelta(seconds=2)
    exams.quality.judge()
    assert 2 <= len(exams.told()) <= 3
    assert told(exams)[-1][1] == [5, 5, 5, 5]
    assert exams.changes() == 0


async def test_an_exam_that_has_settled_is_told_without_being_asked(exams: Exams) -> None:
    exams.schedule()
    judging = asyncio.create_task(exams.quality.run())
    try:
        await asyncio.to_thread(exams.store, "RCC")
        exams.now += timedelta(seconds=2)
        await until(lambda: exams.told() and exams.changes() == 0, "the judgement")
    finally:
        judging.cancel()
    assert told(exams)[-1][1] == [1, 0, 0, 0]


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("touch", ["an image", "a step"])
def test_killed_before_any_line_of_it_nothing_is_lost_and_nothing_is_told_twice(tmp_path: Path, touch: str) -> None:
    (folder := tmp_path / "site").mkdir()
    exams = opened(folder)
    exams.schedule()
    exams.begin()
    exams.judge()
    before = told(exams)
    if touch == "an image":
        exams.store("RCC")
        expected = ("in_progress", [1, 0, 0, 0], [])
    else:
        exams.end("DISCONTINUED", [])
        expected = ("discontinued", [0, 0, 0, 0], ["discontinued"])
    exams.close()
    done = subprocess.run(
        [sys.executable, "-m", "tests.relay.exams.judging", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    ends = dict(line.split() for line in done.stdout.splitlines())
    assert list(ends.values()) == [*["-9"] * (len(ends) - 1), "0"]
    assert len(ends) > 2
    for name in ends:
        left = attached(tmp_path / name)
        left.judge()
        assert left.judge() == 0
        assert (told(left), left.changes()) == ([*before, expected], 0), name
        left.close()


class Killed(BaseException):
    """The process ends here; what SQLite has not committed did not happen."""


def kill() -> None:
    raise Killed


class Site(RuleBasedStateMachine):
    """Whatever happens to exams, in whatever order, and wherever judging is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.exams = opened(Path(self.folder.name))
        self.steps = 0

    def teardown(self) -> None:
        while self.exams.judge() or self.exams.changes():
            pass
        self.check()
        self.exams.close()
        self.folder.cleanup()

    def check(self) -> None:
        entries = self.exams.told()
        last = {str(entry.parameters["accession_number"]): entry.parameters for entry in entries}
        for number in ("ACC-1", "ACC-2"):
            own = [entry for entry in entries if entry.parameters["accession_number"] == number]
            assert [entry.parameters["revision"] for entry in own] == list(range(1, len(own) + 1))
            said = [{**entry.parameters, "revision": 0} for entry in own]
            assert all(one != other for one, other in pairwise(said))
            now = self.exams.evidence.reportable_exams(study_instance_uid="", accession_number=number)
            for expected in map(judgement, now):
                if number in last or expected.has_begun:
                    assert {**last[number], "revision": 0} == expected.model_dump(mode="json")

    @rule(view=st.sampled_from(FOUR), number=st.sampled_from(["ACC-1", "ACC-2"]), right=st.booleans())
    def store(self, view: str, number: str, right: bool) -> None:
        patient = "9990000018" if right else "9990000026"
        self.exams.store(view, AccessionNumber=number, PatientID=patient)

    @rule(number=st.sampled_from(["ACC-1", "ACC-2"]))
    def schedule(self, number: str) -> None:
        self.exams.schedule(number)

    @rule(number=st.sampled_from(["ACC-1", "ACC-2"]), status=st.sampled_from(["cancelled", "completed", "in_progress"]))
    def change(self, number: str, status: str) -> None:
        try:
            self.exams.worklist.change_status(number, status, now=self.exams.now)  # type: ignore[arg-type]
        except Refusal:
            return

    @rule(number=st.sampled_from(["ACC-1", "ACC-2"]))
    def begin(self, number: str) -> None:
        self.steps += 1
        self.exams.begin(number, uid=f"2.25.7{self.steps}")

    @precondition(lambda self: self.steps > 0)
    @rule(status=st.sampled_from(["COMPLETED", "DISCONTINUED"]), lost=st.booleans())
    def end(self, status: str, lost: bool) -> None:
        made = [*self.exams.made, *(["2.25.404"] if lost else [])]
        try:
            self.exams.end(status, made, uid=f"2.25.7{self.steps}")
        except Refusal:
            return

    @rule()
    def deliver(self) -> None:
        self.exams.deliver()

    @rule()
    def release(self) -> None:
        for entry in self.exams.archive.outbox.entries("parked", limit=1):
            self.exams.archive.outbox.release(entry.id, by="J. Smith", now=self.exams.now)

    @rule()
    def judge(self) -> None:
        self.exams.judge()

    @rule(line=st.integers(1, 30) | st.integers(1, 150))
    def judge_and_be_killed(self, line: int) -> None:
        try:
            with before_line(line, ours, kill):
                self.exams.judge()
        except Killed:
            return


Site.TestCase.settings = settings(
    max_examples=100, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTheLastJudgementIsToldLast = Site.TestCase
