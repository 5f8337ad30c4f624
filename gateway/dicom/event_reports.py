"""Reports of events to a peer: N-EVENT-REPORT with this side as the SCP (PS3.7 10.1.1).

How a report is packed and its response judged stands here once, for associations of our own (`requestor`) and for those
that the peer opened. On the latter, any thread hands a report to the association's `ReportChannel` and waits for the
answer. The association's own thread sends it when it is between messages and the peer has been quiet for a moment, one
at a time, since nothing else was negotiated (PS3.7 D.3.3.3), and brings the answer back.

Not for: what is reported, nor for what happens when the association has ended; then its caller finds another way.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from pydicom import Dataset

from gateway.dataset.data_sets import encode
from gateway.dicom import dimse, pdu
from gateway.dicom.dimse import Command, CommandField
from gateway.dicom.negotiation import AcceptedContext
from gateway.errors import GatewayError

QUIET_SECONDS = 0.1
"""How long a peer has been silent before a report is sent: one that is about to go on or to release is not crossed."""


class NotReported(GatewayError):
    """The peer did not get the report, or did not answer it; the message says why."""


@dataclass(frozen=True, slots=True)
class EventReport:
    """What is reported: the instance and what happened to it, with the data set that belongs to this kind of event."""

    sop_class_uid: str
    sop_instance_uid: str
    event_type_id: int
    data_set: Dataset


def reporting_context(sop_class_uid: str, contexts: Iterable[AcceptedContext]) -> AcceptedContext | None:
    """The first context of a class of which this side is the SCP, since only an SCP reports; None if there is none."""
    return next((each for each in contexts if each.abstract_syntax == sop_class_uid and not each.peer_is_scp), None)


def packed(report: EventReport, context: AcceptedContext, *, message_id: int, max_length: int) -> bytes:
    """An N-EVENT-REPORT-RQ (PS3.7 10.3.1) in PDUs of at most `max_length` bytes, the length the peer takes; 0: any.

    `message_id` is 1 to 65535; the response brings it back.
    """
    command = Command(
        command_field=CommandField.N_EVENT_REPORT,
        message_id=message_id,
        command_data_set_type=0x0000,
        affected_sop_class_uid=report.sop_class_uid,
        affected_sop_instance_uid=report.sop_instance_uid,
        event_type_id=report.event_type_id,
    )
    parts = ((dimse.pack_command(command), True), (encode(report.data_set, context.transfer_syntax), False))
    return b"".join(
        pdu.pack_data(context.context_id, data, is_command=is_command, max_length=max_length)
        for data, is_command in parts
    )


def is_response(command: Command) -> bool:
    """Is it an N-EVENT-REPORT-RSP?"""
    return command.command_field == CommandField.N_EVENT_REPORT | dimse.RESPONSE


def status_of(response: Command) -> int:
    """The status of an N-EVENT-REPORT-RSP; 0110H, processing failure (PS3.7 Annex C), if it has none: no success."""
    return 0x0110 if response.status is None else response.status


class ReportChannel:
    """The way to the peer of one association. `report` is for other threads, the rest for the association's own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owed: deque[tuple[EventReport, Future[int]]] = deque()
        self._sent: tuple[int, Future[int]] | None = None
        self._message_id = 0
        self._is_open = True
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def report(self, report: EventReport, *, timeout_seconds: float) -> int:
        """Send a report once the association is idle, and give the status the peer answers. Raises NotReported."""
        answer: Future[int] = Future()
        with self._lock:
            if not self._is_open:
                raise NotReported("The association has ended.")
            self._owed.append((report, answer))
            os.eventfd_write(self._bell, 1)
        try:
            return answer.result(timeout_seconds)
        except CancelledError:
            raise NotReported("The association has ended.") from None
        except TimeoutError:
            answer.cancel()  # what has not been sent by now will not be
            raise NotReported(f"The peer did not answer a report within {timeout_seconds:.0f} s.") from None

    @property
    def is_open(self) -> bool:
        """Does the association still exist?"""
        return self._is_open

    def next(self, connection: int, seconds: float) -> tuple[int, EventReport] | None:
        """Wait for the peer or for a report: the report to send now and its message id, None when the peer has spoken.

        `connection` is the descriptor of the association's socket. Raises BlockingIOError when neither came in time.
        """
        if not self._owes():
            ready = _readable(seconds, connection, self._bell)
            if not ready:
                raise BlockingIOError
            if connection in ready:
                return None
            os.eventfd_read(self._bell)
        return None if _readable(QUIET_SECONDS, connection) else self._taken()

    def answered(self, response: Command) -> None:
        """The peer answered a report; an answer to none of ours is nobody's."""
        if self._sent is None or self._sent[0] != response.message_id_being_responded_to:
            return
        _, answer = self._sent
        self._sent = None
        answer.set_result(status_of(response))

    def close(self) -> None:
        """The association has ended: whoever waits for an answer is told so."""
        with self._lock:
            self._is_open = False
            os.close(self._bell)
            unsent = [answer for _, answer in self._owed]
        for answer in unsent:
            answer.cancel()
        if self._sent is not None:
            self._sent[1].set_exception(NotReported("The association ended before the report was answered."))

    def _owes(self) -> bool:
        with self._lock:
            return self._sent is None and bool(self._owed)

    def _taken(self) -> tuple[int, EventReport] | None:
        with self._lock:
            while self._sent is None and self._owed:
                report, answer = self._owed.popleft()
                if answer.set_running_or_notify_cancel():
                    self._message_id = self._message_id % 0xFFFF + 1
                    self._sent = self._message_id, answer
                    return self._message_id, report
        return None


def _readable(seconds: float, *descriptors: int) -> list[int]:
    poll = select.poll()  # select() would not take descriptors above 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(seconds * 1000)]
