"""worklist.mpps: PS3.4 F.7 as a table, without a database."""

from dataclasses import replace
from datetime import datetime
from typing import get_args

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydicom.dataset import Dataset

from gateway.dataset.dicom_json import DicomJson, element, from_data_set, items, tag, text
from gateway.errors import (
    Conflict,
    InvalidValue,
    MissingAttribute,
    MissingValue,
    NoLongerUpdatable,
    NotAllowed,
    NotFound,
    Refusal,
)
from gateway.messages import PerformedSeries, StepChanged
from tests.worklist.samples import IMAGE, SERIES, STUDY, begun, ended
from worklist.mpps import ScheduledStep, Status, Step, begin, change, close, event

UID = "1.2.3"
STATUSES: tuple[Status, ...] = get_args(Status)


def step(status: Status = "IN PROGRESS") -> Step:
    started = begin(None, UID, from_data_set(begun()))
    return started if status == "IN PROGRESS" else change(started, from_data_set(ended(status)))


def with_status(data_set: Dataset, status: str | None) -> DicomJson:
    if status is None:
        del data_set.PerformedProcedureStepStatus
    else:
        data_set.PerformedProcedureStepStatus = status
    return from_data_set(data_set)


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        ("IN PROGRESS", "IN PROGRESS"),
        ("COMPLETED", InvalidValue),
        ("DISCONTINUED", InvalidValue),
        ("PAUSED", InvalidValue),
        ("", MissingValue),
        (None, MissingAttribute),
    ],
)
def test_a_step_is_created_in_progress(given: str | None, outcome: str | type[Refusal]) -> None:
    data_set = with_status(begun(), given)
    if isinstance(outcome, str):
        assert begin(None, UID, data_set).status == outcome
    else:
        with pytest.raises(outcome):
            begin(None, UID, data_set)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("given", [*STATUSES, None])
def test_a_second_n_create_with_the_same_uid_is_refused(status: Status, given: str | None) -> None:
    other = begun()
    other.PerformedProcedureStepID = "P2"
    with pytest.raises(Conflict, match=r"Another performed procedure step has this UID\."):
        begin(step(status), UID, with_status(other, given))


@pytest.mark.parametrize("status", STATUSES)
def test_an_n_create_repeated_to_the_last_value_succeeds_and_changes_nothing(status: Status) -> None:
    stored = step(status)
    assert begin(stored, UID, from_data_set(begun())) is stored


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, "IN PROGRESS"),
        ("IN PROGRESS", "IN PROGRESS"),
        ("COMPLETED", "COMPLETED"),
        ("DISCONTINUED", "DISCONTINUED"),
    ],
)
def test_a_step_in_progress_may_be_set_with_and_without_a_status(given: str | None, status: Status) -> None:
    assert change(step(), with_status(ended(), given)).status == status


@pytest.mark.parametrize("given", ["PAUSED", "in progress"])
def test_no_other_status_exists(given: str) -> None:
    with pytest.raises(InvalidValue, match=r"PerformedProcedureStepStatus cannot have this value here\."):
        change(step(), with_status(ended(), given))


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
@pytest.mark.parametrize("given", [*STATUSES, "PAUSED", "", None])
def test_after_the_final_status_nothing_changes_any_more(status: Status, given: str | None) -> None:
    with pytest.raises(NoLongerUpdatable) as refusal:
        change(step(status), with_status(ended(), given))
    assert (refusal.value.dimse_status, refusal.value.error_id, refusal.value.comment) == (
        0x0110,
        0xA710,
        "Performed Procedure Step Object may no longer be updated",
    )


@pytest.mark.parametrize("given", [*STATUSES, None])
def test_what_was_never_created_cannot_be_set(given: str | None) -> None:
    with pytest.raises(NotFound):
        change(None, with_status(ended(), given))


@pytest.mark.parametrize(
    ("keyword", "value", "refusal"),
    [
        ("ScheduledStepAttributesSequence", None, MissingAttribute),
        ("ScheduledStepAttributesSequence", [], MissingValue),
        ("ScheduledStepAttributesSequence", [Dataset()], MissingAttribute),
        ("PerformedProcedureStepID", None, MissingAttribute),
        ("PerformedProcedureStepID", "", MissingValue),
        ("PerformedStationAETitle", None, MissingAttribute),
        ("PerformedProcedureStepStartDate", "", MissingValue),
        ("PerformedProcedureStepStartTime", None, MissingAttribute),
        ("Modality", "", MissingValue),
    ],
)
def test_a_step_cannot_begin_without_what_identifies_it(keyword: str, value: object, refusal: type[Refusal]) -> None:
    data_set = begun()
    if value is None:
        delattr(data_set, keyword)
    else:
        setattr(data_set, keyword, value)
    with pytest.raises(refusal):
        begin(None, UID, from_data_set(data_set))


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
@pytest.mark.parametrize(
    ("keyword", "value", "refusal"),
    [
        ("PerformedProcedureStepEndDate", "", MissingValue),
        ("PerformedProcedureStepEndTime", None, MissingValue),  # the N-CREATE had it, empty
        ("PerformedSeriesSequence", [], MissingValue),
        ("PerformedSeriesSequence", [Dataset()], MissingAttribute),
    ],
)
def test_a_step_cannot_end_without_its_end_and_a_series(
    status: str, keyword: str, value: object, refusal: type[Refusal]
) -> None:
    data_set = ended(status)
    if value is None:
        delattr(data_set, keyword)
    else:
        setattr(data_set, keyword, value)
    with pytest.raises(refusal) as caught:
        change(step(), from_data_set(data_set))
    assert len(caught.value.offending) == 1


def test_what_an_earlier_n_set_said_counts_at_the_end() -> None:
    early = ended()
    del early.PerformedProcedureStepStatus
    final = Dataset()
    final.PerformedProcedureStepStatus = "COMPLETED"
    assert change(change(step(), from_data_set(early)), from_data_set(final)).ended_at == "2026-11-22T09:45:00"


@pytest.mark.parametrize(
    "keyword",
    ["PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PerformedProcedureStepID", "Modality", "StudyID",
     "PerformedStationAETitle", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"],
)  # fmt: skip
def test_what_identifies_a_step_may_not_be_set(keyword: str) -> None:
    data_set = ended()
    setattr(data_set, keyword, "20251122" if keyword.endswith("Date") else "1015" if keyword.endswith("Time") else "X")
    with pytest.raises(NotAllowed, match=f"{keyword} may not be set by N-SET") as refusal:
        change(step(), from_data_set(data_set))
    assert refusal.value.dimse_status == 0x0105


def test_a_character_set_in_n_set_does_not_replace_the_first_one() -> None:
    data_set = ended()
    data_set.SpecificCharacterSet, data_set.PerformedProcedureStepDescription = "ISO_IR 100", "Röntgen"
    after = change(step(), from_data_set(data_set)).data_set
    assert after[tag("SpecificCharacterSet")] == element("SpecificCharacterSet", "ISO_IR 192")
    assert after[tag("PerformedProcedureStepDescription")] == element("PerformedProcedureStepDescription", "Röntgen")


def test_a_completed_step_tells_what_was_made() -> None:
    completed = step("COMPLETED")
    assert completed.scheduled == (ScheduledStep("ACC1", STUDY),)
    assert event(replace(completed, told_as="ACC1")) == StepChanged(
        accession_number="ACC1",
        study_instance_uid=STUDY,
        mpps_instance_uid=UID,
        status="COMPLETED",
        started_at="2026-11-22T09:35:00",
        ended_at="2026-11-22T09:45:00",
        performed_series=(PerformedSeries(series_instance_uid=SERIES, sop_instance_uids=(IMAGE,)),),
    )


def test_a_discontinued_step_tells_why() -> None:
    code = Dataset()
    code.CodeValue, code.CodeMeaning = "110514", "Incorrect worklist entry selected"
    data_set = ended("DISCONTINUED")
    data_set.PerformedProcedureStepDiscontinuationReasonCodeSequence = [code]
    assert change(step(), from_data_set(data_set)).discontinuation_reason == "Incorrect worklist entry selected"


NIGHT = datetime(2026, 11, 22, 23, 15, 10)


def test_a_step_whose_machine_died_is_closed_by_somebody_who_says_why() -> None:
    update = ended()
    del update.PerformedProcedureStepStatus, update.PerformedProcedureStepEndDate, update.PerformedProcedureStepEndTime
    reported = change(step(), from_data_set(update))
    closed = close(reported, by="J. Smith", because="tube failed", now=NIGHT)
    assert event(replace(closed, told_as="ACC1")) == StepChanged(
        accession_number="ACC1",
        study_instance_uid=STUDY,
        mpps_instance_uid=UID,
        status="DISCONTINUED",
        started_at="2026-11-22T09:35:00",
        ended_at="2026-11-22T23:15:10",
        discontinuation_reason="tube failed",
        closed_by="J. Smith",
        performed_series=(PerformedSeries(series_instance_uid=SERIES, sop_instance_uids=(IMAGE,)),),
    )
    [code] = items(closed.data_set, "PerformedProcedureStepDiscontinuationReasonCodeSequence")
    assert (text(code, "CodeValue"), text(code, "CodingSchemeDesignator")) == ("110513", "DCM")
    with pytest.raises(NoLongerUpdatable):
        change(closed, from_data_set(ended()))


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_step_that_is_over_cannot_be_closed(status: Status) -> None:
    with pytest.raises(NoLongerUpdatable):
        close(step(status), by="J. Smith", because="tube failed", now=NIGHT)


def test_a_step_that_does_not_exist_cannot_be_closed() -> None:
    with pytest.raises(NotFound):
        close(None, by="J. Smith", because="tube failed", now=NIGHT)


class Life(RuleBasedStateMachine):
    """Whatever a modality sends in whatever order: a step ends once, and nothing changes it afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.step: Step | None = None
        self.final: Step | None = None

    @rule(given=st.sampled_from([*STATUSES, "PAUSED", "", None]), other=st.booleans())
    def n_create(self, given: str | None, other: bool) -> None:
        data_set = begun()
        data_set.PerformedProcedureStepID = "P2" if other else "P1"
        try:
            self.step = begin(self.step, UID, with_status(data_set, given))
        except Refusal:
            return
        assert self.step.status == "IN PROGRESS" or self.step is self.final

    @rule(given=st.sampled_from([*STATUSES, "PAUSED", "", None]))
    def n_set(self, given: str | None) -> None:
        before = self.step
        try:
            self.step = change(self.step, with_status(ended(), given))
        except Refusal:
            assert self.step is before
            return
        assert before is not None and before.status == "IN PROGRESS"
        assert self.step.status == (given or "IN PROGRESS")
        self.final = self.step if self.step.status != "IN PROGRESS" else None

    @invariant()
    def a_final_step_stays(self) -> None:
        assert self.final is None or self.step is self.final


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=40, stateful_step_count=12, deadline=None)
