"""worklist.store: requests about items, in whatever order and however often they come."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.errors import Conflict, InvalidValue, NotFound
from tests.worklist.samples import NOW, answered, begun, item, participant, query, scheduled
from worklist import ActionOrigin, Item, Worklist
from worklist.dicom_json import element, sequence, tag

EARLY, MIDDLE, LATE = (f"2026-11-22T0{hour}:00:00.000Z" for hour in (6, 7, 8))


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    opened = Worklist.open(tmp_path / "worklist.db")
    opened.schedule(item(), action_id="action-1", content_hash="h", asked_at=EARLY, now=NOW)
    yield opened
    opened.close()


Move = Callable[[Worklist, ActionOrigin], Item]
MOVES: dict[str, Move] = {
    "update": lambda worklist, origin: worklist.update(
        item(participant=participant("SMITH^Zoe")), now=NOW, origin=origin
    ),
    "reschedule": lambda worklist, origin: worklist.reschedule(
        "ACC1", date="20261124", time="1000", now=NOW, origin=origin
    ),
    "change_status": lambda worklist, origin: worklist.change_status("ACC1", "in_progress", now=NOW, origin=origin),
    "cancel": lambda worklist, origin: worklist.cancel("ACC1", now=NOW, origin=origin),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_request_is_carried_out_once_and_its_repeat_never_undoes_what_came_after(
    worklist: Worklist, name: str
) -> None:
    origin = ActionOrigin("action-2", "i", MIDDLE)
    MOVES[name](worklist, origin)
    worklist.change_status("ACC1", "discontinued" if name == "change_status" else "scheduled", now=NOW)
    after = worklist.item("ACC1")
    assert MOVES[name](worklist, origin) == after == worklist.item("ACC1")


@pytest.mark.parametrize("name", MOVES)
def test_an_action_id_with_another_content_is_a_conflict_for_every_request(worklist: Worklist, name: str) -> None:
    before = worklist.items()
    with pytest.raises(Conflict, match=r"Action action-1 was carried out before, with another content\."):
        MOVES[name](worklist, ActionOrigin("action-1", "other", MIDDLE))
    assert worklist.items() == before


@pytest.mark.parametrize("name", MOVES)
def test_an_older_request_that_comes_later_changes_nothing(worklist: Worklist, name: str) -> None:
    worklist.reschedule("ACC1", date="20261123", time="0930", now=NOW, origin=ActionOrigin("action-2", "i", LATE))
    before = worklist.items()
    with pytest.raises(Conflict, match=f"ACC1 was changed by a request of {LATE}; this one is older, of {MIDDLE}"):
        MOVES[name](worklist, ActionOrigin("action-3", "j", MIDDLE))
    assert worklist.items() == before


def test_requests_without_a_time_are_carried_out_as_they_come_and_leave_the_order_alone(worklist: Worklist) -> None:
    worklist.reschedule("ACC1", date="20261123", time="0930", now=NOW, origin=ActionOrigin("action-2", "i", LATE))
    made = worklist.reschedule("ACC1", date="20261125", time="0930", now=NOW, origin=ActionOrigin("action-3", "j"))
    assert (made.date, made.asked_at, made.revision) == ("20261125", LATE, 3)


def test_a_request_that_changes_nothing_is_no_revision_but_counts_in_the_order(worklist: Worklist) -> None:
    made = worklist.change_status("ACC1", "scheduled", now=NOW, origin=ActionOrigin("action-2", "i", LATE))
    assert (made.revision, worklist.item("ACC1").asked_at) == (1, LATE)


def test_the_content_of_a_scheduled_item_is_replaced_and_its_study_is_not(worklist: Worklist) -> None:
    first = worklist.item("ACC1")
    other = item(participant=participant("JONES^Ann", "2"), scheduled=scheduled("20261130", "1000"))
    made = worklist.update(other, now=NOW, origin=ActionOrigin("action-2", "i", LATE))
    assert (made.patient_name, made.participant_id, made.date) == ("JONES^Ann", "2", "20261130")
    assert (made.study_instance_uid, made.created_at, made.revision, made.action_id) == (
        first.study_instance_uid, first.created_at, 2, "action-1",
    )  # fmt: skip
    [answer] = answered(worklist, query(PatientName="", PatientID=""))
    assert (str(answer.PatientName), answer.PatientID) == ("JONES^Ann", "2")


def test_an_item_that_has_begun_or_is_over_is_not_updated(worklist: Worklist) -> None:
    worklist.begin("1.2.3", begun(), now=NOW)
    with pytest.raises(Conflict, match="ACC1 is in_progress; only a scheduled item can be updated"):
        worklist.update(item(), now=NOW)
    with pytest.raises(NotFound):
        worklist.update(item("ACC9"), now=NOW)


def study(uid: str) -> dict[str, object]:
    return {"dicom": {"0020000D": {"vr": "UI", "Value": [uid]}}}


def test_the_study_is_fixed_when_an_item_is_scheduled(worklist: Worklist) -> None:
    mine = worklist.item("ACC1").study_instance_uid
    with pytest.raises(Conflict, match="ACC1 is in another study, which is fixed"):
        worklist.update(item(**study("1.2.9")), now=NOW)
    worklist.cancel("ACC1", now=NOW)
    with pytest.raises(Conflict, match="ACC1 is in another study, which is fixed"):
        worklist.schedule(item(**study("1.2.9")), action_id="action-2", content_hash="i", now=NOW)
    again = worklist.schedule(item(**study(mine)), action_id="action-3", content_hash="j", now=NOW)
    assert (again.study_instance_uid, again.state) == (mine, "scheduled")


def test_a_study_may_have_several_items_but_not_of_two_participants(worklist: Worklist) -> None:
    worklist.schedule(item("S1", **study("1.2.9")), action_id="s1", content_hash="h", now=NOW)
    worklist.schedule(item("S2", **study("1.2.9")), action_id="s2", content_hash="h", now=NOW)
    stranger = item("S3", participant=participant("JONES^Ann", "2"), **study("1.2.9"))
    with pytest.raises(Conflict, match="The study of item S3 is that of another participant's item S1"):
        worklist.schedule(stranger, action_id="s3", content_hash="h", now=NOW)
    with pytest.raises(Conflict, match="The study of item S2 is that of another participant's item S1"):
        worklist.update(item("S2", participant=participant("JONES^Ann", "2")), now=NOW)


def test_a_cancelled_item_is_not_scheduled_anew_by_an_older_request(worklist: Worklist) -> None:
    worklist.cancel("ACC1", now=NOW, origin=ActionOrigin("action-2", "i", LATE))
    again = item(scheduled=scheduled("20261130", "100000"))
    with pytest.raises(Conflict, match="this one is older"):
        worklist.schedule(again, action_id="action-3", content_hash="j", asked_at=MIDDLE, now=NOW)
    made = worklist.schedule(
        again, action_id="action-4", content_hash="k", asked_at="2026-11-22T09:00:00.000Z", now=NOW
    )
    assert (made.state, made.action_id) == ("scheduled", "action-4")


CODE = {
    tag("CodeValue"): element("CodeValue", "24623-3"),
    tag("CodingSchemeDesignator"): element("CodingSchemeDesignator", "LN"),
    tag("CodeMeaning"): element("CodeMeaning", "Screening mammography"),
}
REFERENCE = {
    tag("ReferencedSOPClassUID"): element("ReferencedSOPClassUID", "1.2.840.10008.3.1.2.3.1"),
    tag("ReferencedSOPInstanceUID"): element("ReferencedSOPInstanceUID", "1.2.7"),
}
OF_STEP = {
    "ScheduledStationAETitle": "MAMMO1", "ScheduledPerformingPhysicianName": "House^Gregory",
    "ScheduledProcedureStepDescription": "Four views", "ScheduledStationName": "Van 1",
    "ScheduledProcedureStepLocation": "Car park", "PreMedication": "none", "ScheduledProcedureStepID": "SPS1",
    "RequestedContrastAgent": "none", "ScheduledProcedureStepStatus": "READY",
    "ScheduledProcedureStepEndDate": "20261122", "ScheduledProcedureStepEndTime": "094500",
    "CommentsOnTheScheduledProcedureStep": "first line",
}  # fmt: skip
OF_ITEM = {
    "RequestedProcedureID": "RP1", "RequestedProcedureDescription": "Screening", "RequestedProcedurePriority": "LOW",
    "PatientTransportArrangements": "walks", "RequestedProcedureLocation": "Van", "RequestedProcedureComments": "none",
    "ConfidentialityCode": "N", "ReportingPriority": "LOW", "NamesOfIntendedRecipientsOfResults": "A^B",
    "RequestingPhysician": "C^D", "ReferringPhysicianName": "E^F", "RequestingService": "NHS",
    "PlacerOrderNumberImagingServiceRequest": "P1", "FillerOrderNumberImagingServiceRequest": "F1",
    "IssueDateOfImagingServiceRequest": "20261101", "OrderEnteredBy": "G^H", "ImagingServiceRequestComments": "none",
    "AdmissionID": "AD1", "CurrentPatientLocation": "Waiting", "VisitComments": "none", "IssuerOfPatientID": "NHS",
    "OtherPatientIDs": "X1", "PatientBirthTime": "0101", "PatientSize": "1.7", "PatientWeight": "60.5",
    "PatientAddress": "somewhere", "EthnicGroup": "unknown", "Occupation": "engineer", "PatientComments": "none",
    "PatientReligiousPreference": "none", "AdditionalPatientHistory": "none", "LastMenstrualDate": "20261101",
    "ConfidentialityConstraintOnPatientDataDescription": "none", "PatientState": "well", "MedicalAlerts": "none",
    "Allergies": "none", "SpecialNeeds": "none", "ReasonForTheRequestedProcedure": "Screening",
}  # fmt: skip


def test_every_attribute_of_table_k_6_1_can_be_scheduled_and_is_answered(worklist: Worklist) -> None:
    step = {tag(name): element(name, value) for name, value in OF_STEP.items()}
    step |= {tag("ScheduledProtocolCodeSequence"): sequence(CODE)}
    dicom: dict[str, object] = {tag(name): element(name, value) for name, value in OF_ITEM.items()}
    dicom |= {
        tag("PregnancyStatus"): {"vr": "US", "Value": [4]},
        tag("RequestedProcedureCodeSequence"): sequence(CODE),
        tag("ReferencedStudySequence"): sequence(REFERENCE),
        tag("ReferencedPatientSequence"): sequence(REFERENCE),
        tag("ReasonForRequestedProcedureCodeSequence"): sequence(CODE),
        tag("ScheduledProcedureStepSequence"): sequence(step),
    }
    worklist.schedule(item("K6", dicom=dicom, procedure={"modality": "MG"}), action_id="k", content_hash="h", now=NOW)
    identifier = query(
        {**dict.fromkeys(OF_STEP, None), "ScheduledProtocolCodeSequence": []},
        **{**dict.fromkeys(OF_ITEM, None), "AccessionNumber": "K6", "PregnancyStatus": None},
        RequestedProcedureCodeSequence=[], ReferencedStudySequence=[], ReferencedPatientSequence=[],
        ReasonForRequestedProcedureCodeSequence=[],
    )  # fmt: skip
    [answer] = answered(worklist, identifier)
    [answered_step] = answer.ScheduledProcedureStepSequence
    assert {name: str(answered_step[name].value) for name in OF_STEP} == OF_STEP
    assert {name: str(answer[name].value) for name in OF_ITEM} == OF_ITEM
    assert answer.PregnancyStatus == 4
    assert answer.RequestedProcedureCodeSequence[0].CodeValue == "24623-3"
    assert answered_step.ScheduledProtocolCodeSequence[0].CodeMeaning == "Screening mammography"
    assert answer.ReferencedStudySequence[0].ReferencedSOPInstanceUID == "1.2.7"


@pytest.mark.parametrize(
    ("dicom", "sentence"),
    [
        ({"00080050": {"vr": "SH", "Value": ["A"]}, "00401001": {"vr": "SH", "Value": ["R" * 17]}},
         "RequestedProcedureID has to be a value of VR SH, of at most 16 characters."),
        ({"00400100": {"vr": "SQ", "Value": [{"00400001": {"vr": "AE", "Value": ["M" * 17]}}]}},
         "ScheduledStationAETitle has to be a value of VR AE, of at most 16 characters."),
        ({"00080090": {"vr": "PN", "Value": [{"Alphabetic": "A", "Ideographic": "B" * 65}]}},
         "ReferringPhysicianName has to be a value of VR PN, of at most 64 characters."),
        ({"00321060": {"vr": "LO", "Value": ["D" * 65]}},
         "RequestedProcedureDescription has to be a value of VR LO, of at most 64 characters."),
        ({"00321064": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["1"]}}]}},
         "CodingSchemeDesignator has to have a value."),
        ({"00081110": {"vr": "SQ", "Value": [{}]}}, "ReferencedSOPClassUID has to have a value."),
    ],
)  # fmt: skip
def test_what_a_modality_could_not_show_is_refused_with_a_reason(dicom: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        item(dicom=dicom, procedure={"modality": "MG"})
    assert str(refused.value) == sentence
