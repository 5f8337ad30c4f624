"""What a machine that follows a script says, heard by a foreign peer (pynetdicom), and what it does not put up with."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    StorageCommitmentPushModel,
)

from gateway.hops import HopFailed, Hops
from gateway.remote_ae import Peer
from simulator.exam import structured_reports
from simulator.exam.encoding import SYNTAXES
from simulator.modality import plan as plan_module
from simulator.modality.plan import plan
from simulator.modality.raw_association import Dialer
from simulator.modality.script import Script
from simulator.modality.scripted_machine import Machine

NOW = datetime(2026, 11, 22, 9, 30, 15).astimezone()
SMALL = {"rows": 64, "columns": 48}


def item(number: int, patient_id: str = "9990000018") -> Dataset:
    ds, sps = Dataset(), Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.AccessionNumber, ds.PatientName, ds.PatientID = f"ACC{number}", "Phantöm^Jane", patient_id
    ds.StudyInstanceUID, ds.RequestedProcedureID = f"2.25.{number}", f"RP{number}"
    sps.ScheduledProcedureStepID = f"SPS{number}"
    ds.ScheduledProcedureStepSequence = [sps]
    return ds


@dataclass
class Listener:
    """A peer that takes everything and remembers it, in the order it came."""

    port: int = 0
    items: list[Dataset] = field(default_factory=list)
    heard: list[tuple[str, Dataset]] = field(default_factory=list)
    queries: list[bytes] = field(default_factory=list)
    images: list[tuple[str, str]] = field(default_factory=list)
    """Transfer syntax and SOP Instance UID."""
    associations: int = 0

    def handle_find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        self.queries.append(event.request.Identifier.getvalue())
        self.heard.append(("query", event.identifier))
        for each in self.items:
            yield 0xFF00, each

    def handle_create(self, event: evt.Event) -> tuple[int, Dataset]:
        self.heard.append(("N-CREATE", event.attribute_list))
        return 0x0000, Dataset()

    def handle_set(self, event: evt.Event) -> tuple[int, Dataset]:
        self.heard.append(("N-SET", event.modification_list))
        return 0x0000, Dataset()

    def handle_store(self, event: evt.Event) -> int:
        self.images.append((event.context.transfer_syntax, event.request.AffectedSOPInstanceUID))
        self.heard.append(("C-STORE", event.dataset))
        return 0xB007

    def handle_accepted(self, _event: evt.Event) -> None:
        self.associations += 1


@pytest.fixture(scope="module")
def server() -> Iterator[Listener]:
    state, ae = Listener(), AE("LISTENER")
    for uid in (ModalityWorklistInformationFind, ModalityPerformedProcedureStep, StorageCommitmentPushModel):
        ae.add_supported_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    for uid in (*plan_module.CLASSES.values(), *structured_reports.CLASSES.values()):
        ae.add_supported_context(uid, list(SYNTAXES.values()))
    handlers = [
        (evt.EVT_C_FIND, state.handle_find),
        (evt.EVT_N_CREATE, state.handle_create),
        (evt.EVT_N_SET, state.handle_set),
        (evt.EVT_C_STORE, state.handle_store),
        (evt.EVT_ACCEPTED, state.handle_accepted),
    ]
    listening = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    state.port = listening.socket.getsockname()[1]
    yield state
    listening.shutdown()


@pytest.fixture
def listener(server: Listener) -> Listener:
    """The server, which has heard nothing yet and has one item."""
    vars(server).update(vars(Listener(port=server.port, items=[item(1)])))
    return server


def follow(listener: Listener, *acts: dict[str, Any], **behaviour: object) -> Hops:
    """Let a machine follow these acts."""
    planned = plan(Script.model_validate_json(json.dumps({"machine": behaviour, "acts": acts})))
    peer, hops = Peer("LISTENER", "127.0.0.1", listener.port), Hops()
    caller = Dialer("MAMMO", seconds=5)
    Machine(planned.machine, caller, worklist=peer, pacs=peer, clock=lambda: NOW, sleep=slept.append).run(planned, hops)
    return hops


slept: list[float] = []


@pytest.mark.parametrize(("form", "steps"), [("item", 1), ("empty item", 1), ("no items", 0), ("absent", None)])
def test_a_query_writes_the_sequence_as_it_is_told(listener: Listener, form: str, steps: int | None) -> None:
    follow(listener, {"do": "query", "sps": form, "keys": {"Modality": "MG", "AccessionNumber": "A*"}})
    [(_, query)] = listener.heard
    sequence = query.get("ScheduledProcedureStepSequence")
    assert (None if sequence is None else len(sequence), query.AccessionNumber) == (steps, "A*")
    assert [each.get("Modality") for each in sequence or ()] == {"item": ["MG"], "empty item": [None]}.get(form, [])


@pytest.mark.parametrize(
    ("character_set", "written"),
    [
        ("ISO_IR 100", b"M\xfcller*"),
        ("ISO_IR 192", b"M\xc3\xbcller*"),
        ("ISO 2022 IR 6\\ISO 2022 IR 100", b"\xfcller*"),
    ],
)
def test_a_query_is_in_the_machines_character_set(listener: Listener, character_set: str, written: bytes) -> None:
    follow(listener, {"do": "query", "keys": {"PatientName": "Müller*"}}, character_set=character_set)
    assert (written in listener.queries[0], character_set.encode() in listener.queries[0]) == (True, True)


def test_names_that_are_not_looked_for_may_be_a_star(listener: Listener) -> None:
    follow(listener, {"do": "query"}, names="*", station="ROOM_1")
    [(_, query)] = listener.heard
    [sps] = query.ScheduledProcedureStepSequence
    assert (query.PatientName, sps.ScheduledPerformingPhysicianName, sps.ScheduledStationAETitle, query.PatientID) == (
        "*", "*", "ROOM_1", "",
    )  # fmt: skip


def test_a_step_is_told_from_its_beginning_to_its_end(listener: Listener) -> None:
    exposed = {"do": "expose", "views": ["RCC"], **SMALL}
    follow(listener, {"do": "query"}, {"do": "begin"}, exposed, {"do": "change"}, {"do": "report"},
           {"do": "end", "status": "DISCONTINUED", "reason": "110512"})  # fmt: skip
    assert [name for name, _ in listener.heard] == ["query", "N-CREATE", "C-STORE", "N-SET", "C-STORE", "N-SET"]
    change, final = (ds for name, ds in listener.heard if name == "N-SET")
    assert "PerformedProcedureStepStatus" not in change
    assert len(change.PerformedSeriesSequence[0].ReferencedImageSequence) == 1
    assert final.PerformedProcedureStepStatus == "DISCONTINUED"
    [reason] = final.PerformedProcedureStepDiscontinuationReasonCodeSequence
    assert (reason.CodeValue, reason.CodeMeaning) == ("110512", "Incorrect side ordered")
    named = [
        (len(series.ReferencedImageSequence), len(series.ReferencedNonImageCompositeSOPInstanceSequence))
        for series in final.PerformedSeriesSequence
    ]
    assert sorted(named) == [(0, 1), (1, 0)]


def test_a_step_may_be_for_two_items_of_one_participant(listener: Listener) -> None:
    listener.items = [item(1), item(2)]
    follow(listener, {"do": "query"}, {"do": "begin", "items": 2})
    [scheduled] = [ds.ScheduledStepAttributesSequence for name, ds in listener.heard if name == "N-CREATE"]
    assert [(each.AccessionNumber, each.StudyInstanceUID) for each in scheduled] == [
        ("ACC1", "2.25.1"), ("ACC2", "2.25.2"),
    ]  # fmt: skip


def test_a_step_that_is_not_scheduled_has_a_study_of_its_own(listener: Listener) -> None:
    follow(listener, {"do": "begin", "scheduled": False, "accession_number": "WALKIN1"})
    [(_, created)] = listener.heard
    [scheduled] = created.ScheduledStepAttributesSequence
    assert (scheduled.AccessionNumber, scheduled.ScheduledProcedureStepID, bool(scheduled.StudyInstanceUID)) == (
        "WALKIN1", "", True,
    )  # fmt: skip


def test_a_sparse_machine_says_nothing_that_has_no_value(listener: Listener) -> None:
    follow(listener, {"do": "query"}, {"do": "begin"}, sparse=True)
    [created] = [ds for name, ds in listener.heard if name == "N-CREATE"]
    assert [each.keyword for each in created.iterall() if each.is_empty] == []


def test_the_same_script_another_time_makes_other_images(listener: Listener) -> None:
    acts = {"do": "query"}, {"do": "expose", "views": ["RCC"], "times": 2, **SMALL}
    follow(listener, *acts)
    follow(listener, *acts)
    assert len({uid for _, uid in listener.images}) == 4


@pytest.mark.parametrize("name", SYNTAXES)
def test_an_image_travels_in_the_transfer_syntax_it_was_made_in(listener: Listener, name: str) -> None:
    follow(listener, {"do": "query"}, {"do": "expose", "views": ["RCC"], **SMALL}, transfer_syntax=name)
    assert [syntax for syntax, _ in listener.images] == [SYNTAXES[name]]


def test_images_held_back_are_sent_after_the_end(listener: Listener) -> None:
    slept.clear()
    follow(listener, {"do": "query"}, {"do": "begin"}, {"do": "expose", "views": ["RCC"], "hold": True, **SMALL},
           {"do": "end", "names_images": False}, {"do": "pause", "seconds": 2.5}, {"do": "send"})  # fmt: skip
    assert [name for name, _ in listener.heard] == ["query", "N-CREATE", "N-SET", "C-STORE"]
    assert slept == [2.5]


@pytest.mark.parametrize(("associations", "expected"), [("each", 4), ("one", 2)])
def test_associations_are_one_each_or_one_for_all(listener: Listener, associations: str, expected: int) -> None:
    follow(listener, {"do": "query"}, {"do": "expose", "views": ["RCC", "LCC", "RMLO"], **SMALL},
           associations=associations)  # fmt: skip
    assert listener.associations == expected


@pytest.mark.parametrize(
    ("acts", "behaviour", "said"),
    [
        ([{"do": "query", "expect": 2}], {}, "The worklist answered 1 items; 2 were expected."),
        ([{"do": "query"}, {"do": "begin", "items": 2}], {}, "1 items were found; the step is for 2."),
        (
            [{"do": "query"}, {"do": "begin"}, {"do": "end"}],
            {"ends_twice": True},
            "The repeated N-SET COMPLETED was answered with status 0000H.",
        ),
    ],
)
def test_an_answer_that_is_not_right_ends_the_exam(
    listener: Listener, acts: list[dict[str, Any]], behaviour: dict[str, object], said: str
) -> None:
    with pytest.raises(HopFailed) as raised:
        follow(listener, *acts, **behaviour)
    assert raised.value.hop.detail == said


def test_items_of_two_participants_are_not_one_step(listener: Listener) -> None:
    listener.items = [item(1), item(2, patient_id="9990000026")]
    with pytest.raises(HopFailed, match="of more than one participant"):
        follow(listener, {"do": "query"}, {"do": "begin", "items": 2})


def test_a_commitment_that_is_not_taken_ends_the_exam(listener: Listener) -> None:
    with pytest.raises(HopFailed, match="N-ACTION for storage commitment was answered with status"):
        follow(listener, {"do": "query"}, {"do": "expose", "views": ["RCC"], **SMALL}, {"do": "commit"})
