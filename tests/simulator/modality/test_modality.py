"""The simulated mammography machine, against pynetdicom's own services as the peer it talks to."""

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    DigitalMammographyXRayImageStorageForPresentation,
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
    Verification,
)

from gateway.remote_ae import Peer
from simulator.modality.commitment_scu import Reports, question
from simulator.modality.modality import Modality, ModalityError, Sent, standard_views

NOW = datetime(2026, 11, 22, 9, 30, 15).astimezone()


def item() -> Dataset:
    ds = Dataset()
    ds.AccessionNumber, ds.PatientName, ds.PatientID = "ACC0001", "PHANTOM^JANE", "9990000018"
    ds.PatientBirthDate, ds.PatientSex, ds.StudyInstanceUID = "19700101", "F", "2.25.1"
    ds.RequestedProcedureID, ds.RequestedProcedureDescription = "RP1", "Screening"
    sps = Dataset()
    sps.ScheduledProcedureStepID, sps.ScheduledStationAETitle, sps.Modality = "SPS1", "MAMMO", "MG"
    sps.ScheduledProcedureStepStartDate, sps.ScheduledProcedureStepStartTime = "20261122", "0930"
    ds.ScheduledProcedureStepSequence = [sps]
    return ds


@dataclass
class Gateway:
    """A peer that remembers what it was asked; `refuse` is the status it gives to everything but C-ECHO."""

    port: int = 0
    refuse: int = 0
    queries: list[Dataset] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    steps: list[tuple[str, Dataset]] = field(default_factory=list)
    asked: list[Dataset] = field(default_factory=list)

    def handle_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.queries.append(event.identifier)
        yield (self.refuse, None) if self.refuse else (0xFF00, item())

    def handle_store(self, event: evt.Event) -> int:
        self.stored[event.request.AffectedSOPInstanceUID] = event.request.DataSet.getvalue()
        return self.refuse

    def handle_create(self, event: evt.Event) -> tuple[int, Dataset]:
        self.steps.append((event.request.AffectedSOPInstanceUID, event.attribute_list))
        return self.refuse, Dataset()

    def handle_set(self, event: evt.Event) -> tuple[int, Dataset]:
        self.steps.append((event.request.RequestedSOPInstanceUID, event.modification_list))
        return self.refuse, Dataset()

    def handle_action(self, event: evt.Event) -> tuple[int, None]:
        self.asked.append(event.action_information)
        return self.refuse, None


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    state = Gateway()
    ae = AE("GATEWAY")
    ae.require_called_aet = True
    for context in (
        Verification, ModalityWorklistInformationFind, ModalityPerformedProcedureStep, StorageCommitmentPushModel,
    ):  # fmt: skip
        ae.add_supported_context(context)
    # One syntax only, so that what arrives is what the phantom was made in.
    ae.add_supported_context(DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian)
    handlers = [
        (evt.EVT_C_FIND, state.handle_find),
        (evt.EVT_C_STORE, state.handle_store),
        (evt.EVT_N_CREATE, state.handle_create),
        (evt.EVT_N_SET, state.handle_set),
        (evt.EVT_N_ACTION, state.handle_action),
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    state.port = server.socket.getsockname()[1]
    yield state
    server.shutdown()


@pytest.fixture
def modality(gateway: Gateway) -> Modality:
    peer = Peer("GATEWAY", "127.0.0.1", gateway.port)
    return Modality("MAMMO", worklist=peer, pacs=peer, timeout_seconds=10)


def test_it_finds_its_worklist(gateway: Gateway, modality: Modality) -> None:
    assert [answer.AccessionNumber for answer in modality.find(date="20261122")] == ["ACC0001"]
    [query] = gateway.queries
    assert query.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate == "20261122"
    assert query.AccessionNumber == ""


def test_a_whole_exam_is_reported_and_stored(gateway: Gateway, modality: Modality) -> None:
    step = modality.begin(item(), now=NOW)
    sent = list(modality.store(standard_views(step, rows=64, columns=48)))
    modality.complete(step, sent, now=NOW)

    assert [image.description for image in sent] == ["R CC", "L CC", "R MLO", "L MLO"]
    assert {image.study_instance_uid for image in sent} == {"2.25.1"}
    assert [len(gateway.stored[image.sop_instance_uid]) for image in sent] == [image.size_bytes for image in sent]
    assert [uid for uid, _ in gateway.steps] == [step.mpps_instance_uid] * 2


def test_the_step_is_created_with_what_the_worklist_said(gateway: Gateway, modality: Modality) -> None:
    modality.begin(item(), now=NOW)
    [(_, created)] = gateway.steps
    assert created.PerformedProcedureStepStatus == "IN PROGRESS"
    assert (created.PerformedProcedureStepStartDate, created.PerformedProcedureStepStartTime) == ("20261122", "093015")
    [scheduled] = created.ScheduledStepAttributesSequence
    assert (scheduled.StudyInstanceUID, scheduled.AccessionNumber, scheduled.ScheduledProcedureStepID) == (
        "2.25.1",
        "ACC0001",
        "SPS1",
    )


def test_the_completed_step_names_every_image_by_series(gateway: Gateway, modality: Modality) -> None:
    step = modality.begin(item(), now=NOW)
    modality.complete(
        step, [image("2.25.7", "2.25.71"), image("2.25.8", "2.25.81"), image("2.25.7", "2.25.72")], now=NOW
    )
    final = gateway.steps[-1][1]
    assert final.PerformedProcedureStepStatus == "COMPLETED"
    assert {
        series.SeriesInstanceUID: [made.ReferencedSOPInstanceUID for made in series.ReferencedImageSequence]
        for series in final.PerformedSeriesSequence
    } == {"2.25.7": ["2.25.71", "2.25.72"], "2.25.8": ["2.25.81"]}


def test_a_discontinued_step_gives_a_reason(gateway: Gateway, modality: Modality) -> None:
    step = modality.begin(item(), now=NOW)
    modality.discontinue(step, now=NOW)
    final = gateway.steps[-1][1]
    assert final.PerformedProcedureStepStatus == "DISCONTINUED"
    assert final.PerformedProcedureStepDiscontinuationReasonCodeSequence[0].CodeValue == "110513"


def test_a_refusal_is_told_with_its_status(gateway: Gateway, modality: Modality) -> None:
    gateway.refuse = 0xA700
    step_images = standard_views_of_nothing()
    with pytest.raises(ModalityError, match="answered with status A700"):
        list(modality.store(step_images))
    with pytest.raises(ModalityError, match="C-FIND on the worklist was answered with status A700"):
        modality.find()


def test_a_wrong_called_title_is_told(gateway: Gateway) -> None:
    stranger = Peer("SOMEONE_ELSE", "127.0.0.1", gateway.port)
    with pytest.raises(ModalityError, match=r"No association with SOMEONE_ELSE.*rejected.*[Cc]alled AE title"):
        Modality("MAMMO", worklist=stranger, pacs=stranger).echo_pacs()


def test_nobody_there_is_told() -> None:
    with socket.socket() as taken:  # bound but not listening: refused at once
        taken.bind(("127.0.0.1", 0))
        nobody = Peer("GATEWAY", "127.0.0.1", taken.getsockname()[1])
        with pytest.raises(ModalityError, match="nobody answers there"):
            Modality("MAMMO", worklist=nobody, pacs=nobody).echo_worklist()


def test_echoes_are_answered(modality: Modality) -> None:
    modality.echo_worklist()
    modality.echo_pacs()


def image(series: str, instance: str) -> Sent:
    return Sent("2.25.1", series, DigitalMammographyXRayImageStorageForPresentation, instance, "R CC", 1, "")


def standard_views_of_nothing() -> Iterator[Dataset]:
    from simulator.exam import phantom

    yield phantom.mammogram("RCC", rows=64, columns=48)


def sent(number: int) -> Sent:
    return Sent("2.25.100", "2.25.101", "1.2.840.10008.5.1.4.1.1.1.2", f"2.25.{number}", "R CC", 1, "")


def test_a_report_that_never_comes_is_said(gateway: Gateway) -> None:
    peer = Peer("GATEWAY", "127.0.0.1", gateway.port)
    impatient = Modality("MAMMO", worklist=peer, pacs=peer, timeout_seconds=1)
    with pytest.raises(ModalityError, match="did not report"):
        impatient.commit([sent(1), sent(2)])
    [asked] = gateway.asked
    assert [item.ReferencedSOPInstanceUID for item in asked.ReferencedSOPSequence] == ["2.25.1", "2.25.2"]


def test_a_request_for_commitment_that_is_refused_is_said(gateway: Gateway, modality: Modality) -> None:
    gateway.refuse = 0x0213
    with pytest.raises(ModalityError, match="N-ACTION for storage commitment was answered with status 0213"):
        modality.commit([sent(1)])


def test_no_two_questions_are_one_transaction() -> None:
    assert question([]).TransactionUID != question([]).TransactionUID


def test_an_answer_that_does_not_come_in_time_is_none() -> None:
    assert Reports().wait("2.25.1", seconds=0.01) is None
