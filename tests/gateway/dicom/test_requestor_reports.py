"""N-EVENT-REPORT on associations of our own: to pynetdicom as the requester that is called, and to worse peers."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from gateway.dicom.application import UNCOMPRESSED
from gateway.dicom.dimse import Command, pack_command
from gateway.dicom.event_reports import EventReport
from gateway.dicom.negotiation import ProposedContext
from gateway.dicom.pdu import PduType, pack_abort, pack_data
from gateway.dicom.requestor import Call, NothingAccepted, calling
from gateway.errors import PeerError
from gateway.remote_ae import Peer
from tests.tools.called_requester import CalledRequester, taking
from tests.tools.raw_acceptor import answering

COMMITMENT, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
EXPLICIT = str(ExplicitVRLittleEndian)


def event_report(event_type_id: int = 1, references: int = 1) -> EventReport:
    information = Dataset()
    information.TransactionUID = "2.25.900"
    information.ReferencedSOPSequence = [Dataset() for _ in range(references)]
    for number, item in enumerate(information.ReferencedSOPSequence):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.3", f"2.25.{number}"
    return EventReport(COMMITMENT, INSTANCE, event_type_id, information)


@contextmanager
def called(peer: Peer, seconds: float = 20.0) -> Iterator[Call]:
    contexts = [ProposedContext(1, COMMITMENT, UNCOMPRESSED)]
    with calling(peer, contexts, ae_title="PACS", scp_of=(COMMITMENT,), answer_seconds=seconds) as call:
        yield call


# ---- a requester of pynetdicom's ------------------------------------------------------------------------------------


def test_reports_are_sent_one_after_the_other_as_the_scp_and_their_statuses_come_back() -> None:
    statuses = iter((0x0000, 0x0110, 0x0000))
    requester = CalledRequester(lambda _report: next(statuses))
    reports = [event_report(1), event_report(2), event_report(1, references=3000)]
    with requester.listening(taking()) as peer, called(peer) as call:
        assert call.is_scp_of(COMMITMENT)
        assert [call.report(report) for report in reports] == [0x0000, 0x0110, 0x0000]
    heard = [
        (each.request.MessageID, each.request.AffectedSOPInstanceUID, each.event_type, each.event_information)
        for each in requester.heard
    ]
    assert heard == [
        (1, INSTANCE, 1, reports[0].data_set),
        (2, INSTANCE, 2, reports[1].data_set),
        (3, INSTANCE, 1, reports[2].data_set),
    ]
    assert requester.went == ["accepted", "released"]


def test_the_association_is_asked_for_as_the_scp_of_one_class() -> None:
    requester = CalledRequester()
    with requester.listening(taking()) as peer, called(peer) as call:
        call.report(event_report())
    ours = requester.heard[0].assoc.requestor
    roles = {str(uid): (role.scu_role, role.scp_role) for uid, role in ours.role_selection.items()}
    [context] = ours.requested_contexts
    assert (ours.ae_title, ours.primitive.called_ae_title, roles) == ("PACS", "MAMMO", {COMMITMENT: (False, True)})
    assert (context.abstract_syntax, tuple(context.transfer_syntax)) == (COMMITMENT, UNCOMPRESSED)


@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_a_report_goes_in_the_transfer_syntax_that_was_accepted(syntax: str) -> None:
    requester = CalledRequester()
    with requester.listening(taking(syntax=syntax)) as peer, called(peer) as call:
        assert call.report(event_report()) == 0x0000
    assert [(each.context.transfer_syntax, each.event_information) for each in requester.heard] == [
        (syntax, event_report().data_set)
    ]


def test_a_peer_that_does_not_negotiate_roles_is_sent_no_report() -> None:
    requester = CalledRequester()
    with requester.listening(taking(scu=None, scp=None)) as peer:
        with called(peer) as call:
            assert not call.is_scp_of(COMMITMENT)
        with pytest.raises(PeerError) as refused, called(peer) as call:
            call.report(event_report())
    assert str(refused.value) == f"{peer} does not let us be the SCP of this service (role selection)."
    assert (requester.heard, requester.went) == ([], ["accepted", "released", "accepted", "aborted"])


def echoing() -> AE:
    entity = AE("MAMMO")
    entity.add_supported_context(Verification)
    return entity


@pytest.mark.parametrize("entity", [echoing(), taking(scu=True, scp=False)], ids=["the class", "the role"])
def test_a_peer_that_refuses_the_context_is_sent_nothing(entity: AE) -> None:
    requester = CalledRequester()
    with requester.listening(entity) as peer, pytest.raises(NothingAccepted) as refused, called(peer):
        pass
    assert str(refused.value) == f"{peer} accepted the association but none of what was proposed."
    assert requester.heard == []


# ---- peers that are not well ----------------------------------------------------------------------------------------


def response(request: Command) -> Command:
    """As it should be."""
    return Command(
        command_field=0x8100,
        message_id_being_responded_to=request.message_id,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=INSTANCE,
        event_type_id=request.event_type_id,
        status=0x0000,
    )


def command_pdu(command: Command) -> bytes:
    return pack_data(1, pack_command(command), is_command=True, max_length=16384)


Answer = Callable[[Command], Iterable[bytes]]

JUDGED: dict[str, tuple[Answer, int]] = {
    "success": (lambda rq: [command_pdu(response(rq))], 0x0000),
    "failure": (lambda rq: [command_pdu(replace(response(rq), status=0x0213))], 0x0213),
    "a warning": (lambda rq: [command_pdu(replace(response(rq), status=0x0116))], 0x0116),
    "no status, which is no success": (lambda rq: [command_pdu(replace(response(rq), status=None))], 0x0110),
    "an event reply, in pieces": (
        lambda rq: [
            command_pdu(replace(response(rq), command_data_set_type=1)),
            pack_data(1, b"\x08\x00\x95\x11UI\x02\x001\0" * 9, is_command=False, max_length=32),
        ],
        0x0000,
    ),
}


@pytest.mark.parametrize(("answer", "status"), JUDGED.values(), ids=JUDGED)
def test_a_response_is_judged_by_its_status(answer: Answer, status: int) -> None:
    with answering(answer, sop_class_uid=COMMITMENT, syntax=EXPLICIT) as (peer, odd), called(peer) as call:
        assert call.report(event_report()) == status
    assert odd.after[0] == PduType.RELEASE_RQ


def trickling(_request: Command) -> Iterator[bytes]:
    """A PDU of which a byte comes now and then, for a minute."""
    yield b"\4\0\0\0\1\0"
    for _ in range(600):
        time.sleep(0.1)
        yield b"\0"


def chattering(request: Command) -> Iterator[bytes]:
    """The response, and then without an end fragments of the data set that it announces."""
    yield command_pdu(replace(response(request), command_data_set_type=1))
    for _ in range(600):
        time.sleep(0.1)
        yield b"\4\0\0\0\0\7\0\0\0\3\1\0\0"


FAILING: dict[str, tuple[Answer, str]] = {
    "answers another message": (
        lambda rq: [command_pdu(replace(response(rq), message_id_being_responded_to=7))],
        "{} answered something that it was not asked.",
    ),
    "answers as to an echo": (
        lambda rq: [command_pdu(replace(response(rq), command_field=0x8030))],
        "{} answered something that it was not asked.",
    ),
    "asks itself": (
        lambda rq: [command_pdu(Command(command_field=0x0030, message_id=rq.message_id))],
        "{} answered something that it was not asked.",
    ),
    "aborts": (lambda _: [pack_abort(source=0, reason=0)], "{} aborted the association."),
    "releases": (lambda _: [b"\5\0\0\0\0\4\0\0\0\0"], "{} ended the association."),
    "hangs up": (lambda _: [b""], "{} closed the connection."),
    "speaks another language": (
        lambda _: [b"HTTP/1.1 400 Bad Request\r\n\r\n"],
        "{} does not keep to the protocol: ",
    ),
    "is silent": (lambda _: [], "The connection with {} was lost: it did not answer in time."),
    "trickles": (trickling, "The connection with {} was lost: it did not answer in time."),
    "never comes to an end": (chattering, "The connection with {} was lost: it did not answer in time."),
}


@pytest.mark.parametrize(("answer", "sentence"), FAILING.values(), ids=FAILING)
def test_a_peer_that_does_not_answer_is_described_and_left(answer: Answer, sentence: str) -> None:
    began = time.monotonic()
    with (
        answering(answer, sop_class_uid=COMMITMENT, syntax=EXPLICIT) as (peer, odd),
        pytest.raises(PeerError) as failed,
        called(peer, seconds=0.5) as call,
    ):
        call.report(event_report())
    assert time.monotonic() - began < 5
    assert str(failed.value).startswith(sentence.format(peer))
    assert odd.after[:1] in (b"", bytes([PduType.ABORT]))
