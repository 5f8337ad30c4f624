"""worklist.store: items, answers and steps in a real database."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from gateway.errors import Conflict, DatabaseNotReady, InvalidQuery, InvalidValue, NoLongerUpdatable, NotFound
from tests.worklist.samples import NOW, STUDY, answered, begun, ended, item, participant, query, scheduled
from worklist import Item, Worklist

LATER = NOW + timedelta(minutes=5)


def put(worklist: Worklist, *items: Item) -> None:
    for each in items:
        worklist.schedule(each, action_id=f"action-{each.accession_number}", content_hash="h", now=NOW)


def found(worklist: Worklist, step: dict[str, object] | None = None, **keys: object) -> list[str]:
    """The accession numbers that a query finds."""
    identifier = query(step, **{"AccessionNumber": "", **keys})
    return [str(answer.AccessionNumber) for answer in answered(worklist, identifier)]


# --- scheduling


def test_an_item_is_scheduled_with_a_study_of_its_own(worklist: Worklist) -> None:
    made = worklist.schedule(item(), action_id="action-1", content_hash="h", now=NOW)
    assert made == worklist.item("ACC1")
    assert (made.state, made.revision, made.action_id, made.appointment_id, made.created_at, made.updated_at) == (
        "scheduled", 1, "action-1", "appointment-1", "2026-11-22T09:00:00.123Z", "2026-11-22T09:00:00.123Z",
    )  # fmt: skip
    assert made.study_instance_uid.startswith("2.25.")


def test_an_action_that_is_repeated_gives_the_stored_item(worklist: Worklist) -> None:
    first = worklist.schedule(item(), action_id="action-1", content_hash="h", now=NOW)
    assert worklist.schedule(item(), action_id="action-1", content_hash="h", now=LATER) == first


def test_an_action_id_with_another_content_is_a_conflict(worklist: Worklist) -> None:
    worklist.schedule(item(), action_id="action-1", content_hash="h", now=NOW)
    with pytest.raises(Conflict, match=r"Action action-1 was carried out before, with another content\."):
        worklist.schedule(item("ACC2"), action_id="action-1", content_hash="other", now=NOW)
    assert found(worklist) == ["ACC1"]


def test_the_same_item_under_another_action_is_no_second_one(worklist: Worklist) -> None:
    first = worklist.schedule(item(), action_id="action-1", content_hash="h", now=NOW)
    assert worklist.schedule(item(), action_id="action-2", content_hash="h", now=LATER) == first


@pytest.mark.parametrize(
    "change", [{"participant": participant("JONES^Ann", "2")}, {"scheduled": scheduled("20261123", "10")}]
)
def test_a_used_accession_number_with_other_content_never_replaces_and_never_serves_the_old_one(
    worklist: Worklist, change: dict[str, object]
) -> None:
    first = worklist.schedule(item(), action_id="action-1", content_hash="h", now=NOW)
    with pytest.raises(Conflict, match="Accession number ACC1 is on the worklist with other content"):
        worklist.schedule(item("ACC1", **change), action_id="action-2", content_hash="i", now=LATER)
    assert worklist.items() == [first]


def test_a_cancelled_item_may_be_scheduled_anew_for_the_same_participant_in_the_same_study(worklist: Worklist) -> None:
    first = worklist.schedule(item(), action_id="action-1", content_hash="h", now=NOW)
    worklist.cancel("ACC1", now=NOW)
    again = item(scheduled=scheduled("20261130", "100000"))
    made = worklist.schedule(again, action_id="action-2", content_hash="i", now=LATER)
    assert (made.state, made.revision, made.date, made.action_id) == ("scheduled", 3, "20261130", "action-2")
    assert made.study_instance_uid == first.study_instance_uid
    worklist.cancel("ACC1", now=NOW)
    with pytest.raises(Conflict):
        stranger = item(participant=participant("JONES^Ann", "2"))
        worklist.schedule(stranger, action_id="action-3", content_hash="j", now=LATER)


def test_a_refused_item_leaves_no_trace_of_its_action(worklist: Worklist) -> None:
    put(worklist, item())
    stranger = item(participant=participant("JONES^Ann", "2"))
    with pytest.raises(Conflict):
        worklist.schedule(stranger, action_id="action-2", content_hash="i", now=NOW)
    assert worklist.schedule(item("ACC2"), action_id="action-2", content_hash="j", now=NOW).accession_number == "ACC2"


def test_an_item_is_moved_cancelled_and_rescheduled_in_revisions(worklist: Worklist) -> None:
    put(worklist, item())
    assert worklist.reschedule("ACC1", date="20261123", time="101500", now=LATER).revision == 2
    assert worklist.change_status("ACC1", "scheduled", now=LATER).revision == 2
    assert worklist.cancel("ACC1", now=LATER).revision == 3
    with pytest.raises(Conflict, match="ACC1 is cancelled and cannot become completed"):
        worklist.change_status("ACC1", "completed", now=LATER)
    with pytest.raises(NotFound, match=r"No worklist item has the accession number ACC9\."):
        worklist.cancel("ACC9", now=LATER)
    stored = worklist.item("ACC1")
    assert (stored.state, stored.date, stored.time, stored.revision) == ("cancelled", "20261123", "101500", 3)


def test_items_are_listed_in_clinic_order_by_day_and_state(worklist: Worklist) -> None:
    put(
        worklist,
        item("C", scheduled=scheduled("20261123", "080000")),
        item("B", scheduled=scheduled("20261122", "1000")),
        item("A", scheduled=scheduled("20261122", "093000")),
    )
    worklist.cancel("A", now=LATER)
    listed = {
        "all": [each.accession_number for each in worklist.items()],
        "day": [each.accession_number for each in worklist.items(date="20261122")],
        "cancelled": [each.accession_number for each in worklist.items(state="cancelled")],
    }
    assert listed == {"all": ["A", "B", "C"], "day": ["A", "B"], "cancelled": ["A"]}


# --- answers


def test_an_answer_has_the_keys_that_were_asked_and_type_1_keys_have_values(worklist: Worklist) -> None:
    put(worklist, item())
    identifier = query(
        {"ScheduledStationAETitle": "", "ScheduledProcedureStepStartDate": "20261122", "ScheduledProcedureStepID": ""},
        PatientName="smith*",
        RequestedProcedureID="",
        MedicalAlerts="",
        OtherPatientIDs="",
    )
    [answer] = answered(worklist, identifier)
    assert answer.to_json_dict() == {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "SMITH^Zoë"}]},
        "00101000": {"vr": "LO"},
        "00102000": {"vr": "LO"},
        "00400100": {
            "vr": "SQ",
            "Value": [
                {
                    "00400001": {"vr": "AE", "Value": ["MAMMO1"]},
                    "00400002": {"vr": "DA", "Value": ["20261122"]},
                    "00400009": {"vr": "SH", "Value": ["ACC1"]},
                }
            ],
        },
        "00401001": {"vr": "SH", "Value": ["ACC1"]},
    }


@pytest.mark.parametrize(
    ("step", "keys", "accession_numbers"),
    [
        (None, {}, ["A", "B", "C"]),
        ({}, {}, ["A", "B", "C"]),
        ({"Modality": "", "ScheduledProcedureStepStartDate": ""}, {}, ["A", "B", "C"]),
        ({"Modality": "MG"}, {}, ["A", "B"]),
        ({"Modality": "CT"}, {}, ["C"]),
        ({"ScheduledProcedureStepStartDate": "20261122"}, {}, ["A", "B"]),
        ({"ScheduledProcedureStepStartDate": "20261123-"}, {}, ["C"]),
        ({"ScheduledProcedureStepStartDate": "-20261122"}, {}, ["A", "B"]),
        ({"ScheduledProcedureStepStartDate": "20261122", "ScheduledProcedureStepStartTime": "10-12"}, {}, ["B"]),
        (
            {"ScheduledProcedureStepStartDate": "20261122-20261123", "ScheduledProcedureStepStartTime": "10-09"},
            {},
            ["B", "C"],
        ),
        ({"ScheduledProcedureStepStartTime": "0930"}, {}, ["A"]),
        ({"ScheduledPerformingPhysicianName": "house*"}, {}, ["C"]),
        ({"ScheduledProcedureStepID": "B"}, {}, ["B"]),
        ({"ScheduledStationAETitle": "MAMMO1"}, {}, ["A", "B"]),
        ({"ScheduledStationAETitle": "MAMMO2"}, {}, ["A", "B"]),
        ({"ScheduledStationAETitle": "CT1"}, {}, ["A", "B", "C"]),
        ({"ScheduledStationAETitle": "CT2"}, {}, ["A", "B", "C"]),
        ({"ScheduledStationAETitle": "C*"}, {}, ["C"]),
        ({"ScheduledStationAETitle": "M*"}, {}, ["A", "B"]),
        (None, {"PatientID": "1"}, ["A"]),
        (None, {"PatientID": "%"}, []),
        (None, {"PatientID": "_*"}, []),
        (None, {"PatientID": "[12]*"}, []),
        (None, {"PatientID": "[3]*"}, ["C"]),
        (None, {"PatientName": "MÜLLER^EVE"}, ["A"]),
        (None, {"PatientName": "muller^*"}, ["A", "B"]),
        (None, {"PatientName": "Mu?ler*"}, ["A", "B"]),
        (None, {"PatientName": "Garcia^*"}, ["C"]),
        (None, {"AccessionNumber": "B"}, ["B"]),
        (None, {"PatientBirthDate": "19700102"}, ["A", "B", "C"]),
        (None, {"StudyInstanceUID": "1.2.3"}, []),
    ],
)
def test_a_query_finds_what_it_asks_for(
    worklist: Worklist, step: dict[str, object] | None, keys: dict[str, object], accession_numbers: list[str]
) -> None:
    for_ct = {
        "00400100": {
            "vr": "SQ",
            "Value": [
                {
                    "00400001": {"vr": "AE", "Value": ["CT1", "CT2"]},
                    "00400006": {"vr": "PN", "Value": [{"Alphabetic": "House^Gregory"}]},
                }
            ],
        }
    }
    put(
        worklist,
        item("A", participant=participant("Müller^Ève", "1")),
        item("B", participant=participant("MULLER", "2"), scheduled=scheduled("20261122", "110000")),
        item(
            "C",
            participant=participant("García^José", "[3]"),
            scheduled=scheduled("20261123", "080000"),
            procedure={"modality": "CT"},
            dicom=for_ct,
        ),
    )
    assert found(worklist, step, **keys) == accession_numbers


def test_an_empty_step_sequence_asks_for_everything(worklist: Worklist) -> None:
    put(worklist, item())
    identifier = query()
    identifier.ScheduledProcedureStepSequence = []
    [answer] = answered(worklist, identifier)
    assert answer.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "MAMMO1"
    assert answer.ScheduledProcedureStepSequence[0].Modality == "MG"


def test_an_item_for_any_station_is_for_the_one_asked_for_or_else_for_the_one_that_asks(worklist: Worklist) -> None:
    put(worklist, item())
    stations = [
        answer.ScheduledProcedureStepSequence[0].ScheduledStationAETitle
        for title in ("", "MAMMO2")
        for answer in answered(worklist, query({"ScheduledStationAETitle": title}))
    ]
    assert stations == ["MAMMO1", "MAMMO2"]


def test_the_study_is_the_same_at_every_query_and_after_a_restart(worklist: Worklist, tmp_path: Path) -> None:
    put(worklist, item())
    identifier = query(StudyInstanceUID="")
    studies = {
        answer.StudyInstanceUID
        for opened in (worklist, worklist, Worklist.open(tmp_path / "worklist.db"))
        for answer in answered(opened, identifier)
    }
    assert studies == {worklist.item("ACC1").study_instance_uid}


@pytest.mark.parametrize(
    ("state", "shown"),
    [("scheduled", ["ACC1"]), ("in_progress", ["ACC1"]), ("completed", []), ("discontinued", []), ("cancelled", [])],
)
def test_items_that_are_over_are_not_answered(worklist: Worklist, state: str, shown: list[str]) -> None:
    put(worklist, item())
    worklist.change_status("ACC1", state, now=LATER)  # type: ignore[arg-type]
    assert found(worklist) == shown


def test_a_query_that_makes_no_sense_is_refused_before_the_first_answer(worklist: Worklist) -> None:
    with pytest.raises(InvalidQuery, match="ScheduledProcedureStepStartDate has to be a date"):
        next(answered(worklist, query({"ScheduledProcedureStepStartDate": "soon"})))


# --- performed steps


def owed(worklist: Worklist) -> list[tuple[str, str, str, int]]:
    entries = sorted(worklist.outbox.entries("open"), key=lambda entry: entry.id)
    return [(entry.message_id, entry.message_type, entry.subject, entry.sequence) for entry in entries]


def test_a_step_moves_its_item_and_is_told_to_the_cloud(worklist: Worklist) -> None:
    put(worklist, item())
    states = [worklist.item("ACC1").state]
    worklist.begin("1.2.3", begun(), now=NOW)
    states.append(worklist.item("ACC1").state)
    worklist.change("1.2.3", ended(), now=LATER)
    states.append(worklist.item("ACC1").state)
    assert states == ["scheduled", "in_progress", "completed"]
    assert owed(worklist) == [
        ("1.2.3/in_progress", "mpps.in_progress", "mpps/ACC1", 1),
        ("1.2.3/completed", "mpps.completed", "mpps/ACC1", 2),
    ]
    assert [entry.priority for entry in worklist.outbox.entries("open")] == [1, 1]
    assert [step.status for step in worklist.steps("ACC1")] == ["COMPLETED"]


def test_an_event_has_what_the_cloud_needs(worklist: Worklist) -> None:
    worklist.begin("1.2.3", begun(), now=NOW)
    [entry] = worklist.outbox.entries("open")
    assert entry.parameters == {
        "accession_number": "ACC1",
        "study_instance_uid": STUDY,
        "mpps_instance_uid": "1.2.3",
        "status": "IN PROGRESS",
        "started_at": "2026-11-22T09:35:00",
        "ended_at": "",
        "discontinuation_reason": "",
        "closed_by": "",
        "performed_series": [],
    }


def test_an_n_set_without_a_status_is_kept_and_tells_nothing(worklist: Worklist) -> None:
    update = ended()
    del update.PerformedProcedureStepStatus
    worklist.begin("1.2.3", begun(), now=NOW)
    worklist.change("1.2.3", update, now=LATER)
    assert worklist.step("1.2.3").PerformedSeriesSequence[0].SeriesInstanceUID == "1.2.826.0.1.2"
    assert len(owed(worklist)) == 1


def test_a_repeated_n_create_tells_nothing_twice(worklist: Worklist) -> None:
    put(worklist, item())
    for _ in range(2):
        worklist.begin("1.2.3", begun(), now=NOW)
    assert (len(owed(worklist)), worklist.item("ACC1").revision) == (1, 2)


def test_a_refused_n_set_changes_nothing(worklist: Worklist) -> None:
    put(worklist, item())
    worklist.begin("1.2.3", begun(), now=NOW)
    worklist.change("1.2.3", ended("DISCONTINUED"), now=NOW)
    with pytest.raises(NoLongerUpdatable):
        worklist.change("1.2.3", ended("COMPLETED"), now=LATER)
    assert worklist.item("ACC1").state == "discontinued"
    assert len(owed(worklist)) == 2


def test_an_unscheduled_step_is_accepted_and_told(worklist: Worklist) -> None:
    worklist.begin("1.2.3", begun("", STUDY), now=NOW)
    worklist.change("1.2.3", ended(), now=NOW)
    assert [message_id for message_id, *_ in owed(worklist)] == ["1.2.3/in_progress", "1.2.3/completed"]


def test_an_item_that_comes_after_its_step_is_as_far_as_the_step(worklist: Worklist) -> None:
    worklist.begin("1.2.3", begun("LATE"), now=NOW)
    put(worklist, item("LATE"))
    assert worklist.item("LATE").state == "in_progress"
    worklist.change("1.2.3", ended(), now=NOW)
    assert worklist.item("LATE").state == "completed"


def test_a_step_without_an_accession_number_finds_its_item_by_the_study(worklist: Worklist) -> None:
    put(worklist, item())
    worklist.begin("1.2.3", begun("", worklist.item("ACC1").study_instance_uid), now=NOW)
    assert worklist.item("ACC1").state == "in_progress"
    assert owed(worklist) == [("1.2.3/in_progress", "mpps.in_progress", "mpps/ACC1", 1)]


def test_one_step_may_perform_several_items(worklist: Worklist) -> None:
    put(worklist, item("A"), item("B"), item("C"))
    both = begun("A")
    both.ScheduledStepAttributesSequence.append(begun("B").ScheduledStepAttributesSequence[0])
    worklist.begin("1.2.3", both, now=NOW)
    assert {each.accession_number: each.state for each in worklist.items()} == {
        "A": "in_progress", "B": "in_progress", "C": "scheduled",
    }  # fmt: skip


def test_an_item_with_several_steps_is_over_when_all_of_them_are(worklist: Worklist) -> None:
    put(worklist, item())
    states = []
    worklist.begin("1.2.1", begun(), now=NOW)
    worklist.change("1.2.1", ended("DISCONTINUED"), now=NOW)
    states.append(worklist.item("ACC1").state)
    worklist.begin("1.2.2", begun(), now=NOW)
    worklist.begin("1.2.3", begun(), now=NOW)
    worklist.change("1.2.2", ended("COMPLETED"), now=NOW)
    states.append(worklist.item("ACC1").state)
    worklist.change("1.2.3", ended("DISCONTINUED"), now=NOW)
    states.append(worklist.item("ACC1").state)
    assert states == ["discontinued", "in_progress", "completed"]
    assert [step.mpps_instance_uid for step in worklist.steps("ACC1")] == ["1.2.1", "1.2.2", "1.2.3"]


def test_what_is_performed_counts_even_if_the_item_was_cancelled(worklist: Worklist) -> None:
    put(worklist, item())
    worklist.cancel("ACC1", now=NOW)
    worklist.begin("1.2.3", begun(), now=NOW)
    assert worklist.item("ACC1").state == "in_progress"


def test_steps_outlive_a_restart(worklist: Worklist, tmp_path: Path) -> None:
    worklist.begin("1.2.3", begun(), now=NOW)
    worklist.close()
    again = Worklist.open(tmp_path / "worklist.db")
    again.change("1.2.3", ended(), now=LATER)
    assert again.step("1.2.3").PerformedProcedureStepStatus == "COMPLETED"
    again.close()


def test_an_unknown_step_is_not_found(worklist: Worklist) -> None:
    with pytest.raises(NotFound):
        worklist.step("1.2.9")


def test_only_the_owner_makes_the_database(tmp_path: Path) -> None:
    with pytest.raises(DatabaseNotReady):
        Worklist.attach(tmp_path / "worklist.db")
    owner = Worklist.open(tmp_path / "worklist.db")
    put(owner, item())
    other = Worklist.attach(tmp_path / "worklist.db")
    assert other.item("ACC1") == owner.item("ACC1")
    other.close()
    owner.close()


def test_a_wrong_time_is_refused_and_nothing_moves(worklist: Worklist) -> None:
    put(worklist, item())
    with pytest.raises(InvalidValue, match="ScheduledProcedureStepStartDate has to be a"):
        worklist.reschedule("ACC1", date="20261399", time="100000", now=LATER)
    assert worklist.item("ACC1").revision == 1


def test_many_at_once_make_one_item_and_one_step(worklist: Worklist) -> None:
    def act(number: int) -> None:
        worklist.schedule(item(), action_id=f"action-{number}", content_hash="h", now=NOW)
        worklist.begin("1.2.3", begun(), now=NOW)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(act, range(16)))
    assert [(each.accession_number, each.state) for each in worklist.items()] == [("ACC1", "in_progress")]
    assert len(owed(worklist)) == 1
