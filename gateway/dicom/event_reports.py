"""Event reports to a peer: N-EVENT-REPORT with this side as the SCP (PS3.7 10.1.1).

Packing and judging are for associations of our own (`requestor`) and for those that the peer opened. On the latter, any
thread hands a report to the association's `ReportChannel` and waits for the answer; the association's own thread sends
it between two messages.

Not for: the content of reports, nor for another route when the association has ended; that is the caller's.
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
"""A peer has to be silent this long before a report is sent, which keeps it from crossing a request or a release."""


class NotReported(GatewayError):
    """The peer did not get the report, or did not answer it; the message says why."""


@dataclass(frozen=True, slots=True)
class EventReport:
    """One report: the SOP instance, the event type, and the data set that belongs to it."""

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
    """The reports on one association. `report` is for other threads, the rest for the association's own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: deque[tuple[EventReport, Future[int]]] = deque()
        self._sent: tuple[int, Future[int]] | None = None
        self._message_id = 0
        self._is_open = True
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def report(self, report: EventReport, *, timeout_seconds: float) -> int:
        """Send a report once the association is idle, and return the status of the answer. Raises NotReported."""
        answer: Future[int] = Future()
        with self._lock:
            if not self._is_open:
                raise NotReported("The association has ended.")
            self._pending.append((report, answer))
            os.eventfd_write(self._bell, 1)  # a descriptor, so that the association can poll it beside its socket
        try:
            return answer.result(timeout_seconds)
        except CancelledError:
            raise NotReported("The association has ended.") from None
        except TimeoutError:
            answer.cancel()  # a report that has not been sent by now is not sent any more
            raise NotReported(f"The peer did not answer a report within {timeout_seconds:.0f} s.") from None

    @property
    def is_open(self) -> bool:
        """Does the association still exist?"""
        return self._is_open

    def next(self, connection: int, seconds: float) -> tuple[int, EventReport] | None:
        """Wait for the peer or for a report: the report to send now and its message id, None when the peer sent first.

        `connection` is the descriptor of the association's socket. Raises BlockingIOError when neither came in time.
        """
        if not self._has_next():
            ready = _readable(seconds, connection, self._bell)
            if not ready:
                raise BlockingIOError
            if connection in ready:
                return None
            os.eventfd_read(self._bell)
        return None if _readable(QUIET_SECONDS, connection) else self._taken()

    def answered(self, response: Command) -> None:
        """Take the peer's answer to a report; an answer to none of ours is ignored."""
        if self._sent is None or self._sent[0] != response.message_id_being_responded_to:
            return
        _, answer = self._sent
        self._sent = None
        answer.set_result(status_of(response))

    def close(self) -> None:
        """End the channel with its association; threads that wait for an answer get NotReported."""
        with self._lock:
            self._is_open = False
            os.close(self._bell)
            unsent = [answer for _, answer in self._pending]
        for answer in unsent:
            answer.cancel()
        if self._sent is not None:
            self._sent[1].set_exception(NotReported("The association ended before the report was answered."))

    def _has_next(self) -> bool:
        with self._lock:
            # One at a time, because asynchronous operations were not negotiated (PS3.7 D.3.3.3).
            return self._sent is None and bool(self._pending)

    def _taken(self) -> tuple[int, EventReport] | None:
        with self._lock:
            while self._sent is None and self._pending:
                report, answer = self._pending.popleft()
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
