"""Reports: how they are packed and judged, and the way back: a socket pair as the connection, threads as they are."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from pydicom import Dataset

from gateway.dicom.dimse import Command, parse_command
from gateway.dicom.event_reports import (
    EventReport,
    NotReported,
    ReportChannel,
    is_response,
    packed,
    reporting_context,
    status_of,
)
from gateway.dicom.negotiation import AcceptedContext
from gateway.dicom.pdu import AssociationState, Fragment, Reader

SECONDS = 10.0
COMMITMENT, INSTANCE, EXPLICIT = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", "1.2.840.10008.1.2.1"


def event_report(event_type_id: int = 1) -> EventReport:
    return EventReport(COMMITMENT, INSTANCE, event_type_id, Dataset())


def response(message_id: int, status: int | None = 0x0000) -> Command:
    return Command(command_field=0x8100, message_id_being_responded_to=message_id, status=status)


# ---- packed and judged ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_length", [0, 12, 30, 16384])
def test_a_report_is_a_command_and_its_data_set_in_pdus_of_the_peers_length(max_length: int) -> None:
    report = event_report(2)
    report.data_set.TransactionUID = "2.25.9"
    context = AcceptedContext(5, COMMITMENT, EXPLICIT)
    stream = packed(report, context, message_id=65535, max_length=max_length)
    reader = Reader()
    reader.state = AssociationState.ESTABLISHED
    reader.space()[: len(stream)] = stream
    reader.received(len(stream))
    parts = {True: b"", False: b""}
    for event in reader.events():
        assert isinstance(event, Fragment)
        assert event.context_id == 5
        assert len(event.data) + 6 <= max_length or not max_length
        parts[event.is_command] += event.data
    assert parse_command(parts[True]) == Command(
        command_field=0x0100,
        message_id=65535,
        command_data_set_type=0x0000,
        affected_sop_class_uid=COMMITMENT,
        affected_sop_instance_uid=INSTANCE,
        event_type_id=2,
    )
    assert parts[False] == b"\x08\x00\x95\x11UI\x06\x002.25.9"


def test_a_report_goes_where_this_side_is_the_scp() -> None:
    theirs = AcceptedContext(1, COMMITMENT, EXPLICIT, peer_is_scp=True)
    other, ours = AcceptedContext(3, "1.2.3", EXPLICIT), AcceptedContext(5, COMMITMENT, EXPLICIT)
    assert reporting_context(COMMITMENT, [theirs, other, ours]) == ours
    assert reporting_context(COMMITMENT, [theirs, other]) is None


def test_a_response_is_known_by_its_command_field_and_only_a_status_is_a_success() -> None:
    assert [is_response(Command(command_field=field)) for field in (0x8100, 0x0100, 0x8130)] == [True, False, False]
    assert [status_of(response(1, status)) for status in (0x0000, 0x0213, None)] == [0x0000, 0x0213, 0x0110]


# ---- the way back ---------------------------------------------------------------------------------------------------


@pytest.fixture
def peer_and_own() -> Iterator[tuple[socket.socket, socket.socket]]:
    peer, own = socket.socketpair()
    with peer, own:
        yield peer, own


@pytest.fixture
def others() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def reported(
    way: ReportChannel, others: ThreadPoolExecutor, report: EventReport, seconds: float = SECONDS
) -> Future[int]:
    """Let another thread report; comes back once that has been handed over."""
    started = threading.Event()

    def work() -> int:
        started.set()
        return way.report(report, timeout_seconds=seconds)

    future = others.submit(work)
    started.wait()
    return future


def test_a_report_goes_out_when_the_peer_is_quiet_and_its_answer_comes_back(
    peer_and_own: tuple[socket.socket, socket.socket], others: ThreadPoolExecutor
) -> None:
    way, report = ReportChannel(), event_report()
    answer = reported(way, others, report)
    assert way.next(peer_and_own[1].fileno(), SECONDS) == (1, report)
    way.answered(response(7, 0x0110))  # an answer to none of ours
    way.answered(response(1))
    assert answer.result(SECONDS) == 0x0000
    way.close()


def test_a_peer_that_speaks_is_heard_first(
    peer_and_own: tuple[socket.socket, socket.socket], others: ThreadPoolExecutor
) -> None:
    (peer, own), way, report = peer_and_own, ReportChannel(), event_report()
    answer = reported(way, others, report)
    peer.send(b"C-STORE")
    assert way.next(own.fileno(), SECONDS) is None
    own.recv(100)
    assert way.next(own.fileno(), SECONDS) == (1, report)
    way.answered(response(1))
    assert answer.result(SECONDS) == 0x0000
    way.close()


def test_one_report_at_a_time_in_order(
    peer_and_own: tuple[socket.socket, socket.socket], others: ThreadPoolExecutor
) -> None:
    (peer, own), way = peer_and_own, ReportChannel()
    first = reported(way, others, event_report(1))
    assert way.next(own.fileno(), SECONDS) == (1, event_report(1))
    second = reported(way, others, event_report(2))
    peer.send(b"answer")
    assert way.next(own.fileno(), SECONDS) is None
    own.recv(100)
    way.answered(response(1, None))  # an answer without a status is no success
    assert way.next(own.fileno(), SECONDS) == (2, event_report(2))
    way.answered(response(2))
    assert (first.result(SECONDS), second.result(SECONDS)) == (0x0110, 0x0000)
    way.close()


def test_a_report_that_nobody_sends_in_time_is_not_sent_later(
    peer_and_own: tuple[socket.socket, socket.socket], others: ThreadPoolExecutor
) -> None:
    way = ReportChannel()
    with pytest.raises(NotReported, match="did not answer"):
        reported(way, others, event_report(), seconds=0.01).result(SECONDS)
    assert way.next(peer_and_own[1].fileno(), SECONDS) is None
    way.close()


def test_silence_is_over_after_its_time(peer_and_own: tuple[socket.socket, socket.socket]) -> None:
    way = ReportChannel()
    with pytest.raises(BlockingIOError):
        way.next(peer_and_own[1].fileno(), 0.01)
    way.close()


def test_whoever_waits_is_told_that_the_association_has_ended(
    peer_and_own: tuple[socket.socket, socket.socket], others: ThreadPoolExecutor
) -> None:
    way = ReportChannel()
    sent = reported(way, others, event_report(1))
    assert way.next(peer_and_own[1].fileno(), SECONDS) is not None
    unsent = reported(way, others, event_report(2))
    assert way.is_open
    way.close()
    assert not way.is_open
    for answer in (sent, unsent):
        with pytest.raises(NotReported, match="ended"):
            answer.result(SECONDS)
    with pytest.raises(NotReported, match="ended"):
        way.report(event_report(), timeout_seconds=SECONDS)
