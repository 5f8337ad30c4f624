"""Reports to the peer of an open association: a socket pair as the connection, threads as they are."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from pydicom import Dataset

from gateway.dicom.event_reports import EventReport, NotReported, ReportChannel

SECONDS = 10.0


def event_report(event_type_id: int = 1) -> EventReport:
    return EventReport("1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", event_type_id, Dataset())


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
    way.answered(7, 0x0110)  # an answer to none of ours
    way.answered(1, 0x0000)
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
    way.answered(1, 0x0000)
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
    way.answered(1, None)  # an answer without a status is no success
    assert way.next(own.fileno(), SECONDS) == (2, event_report(2))
    way.answered(2, 0x0000)
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
