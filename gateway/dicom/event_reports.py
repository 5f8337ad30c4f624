"""Reports to the peer of an open association: N-EVENT-REPORT from this side (PS3.7 10.1.1), while nothing else goes on.

Any thread hands a report to the `ReportChannel` of an association and waits for the peer's answer. The association's
own thread sends it when it is between messages and the peer has been quiet for a moment, one at a time, since nothing
else was negotiated (PS3.7 D.3.3.3), and brings the answer back.

Not for: what is reported, nor for what happens when the association has ended; then its caller finds another way.
"""

import os
import select
import threading
from collections import deque
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from pydicom import Dataset

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

    def answered(self, message_id: int | None, status: int | None) -> None:
        """The peer answered a report; an answer to none of ours is nobody's."""
        if self._sent is None or self._sent[0] != message_id:
            return
        _, answer = self._sent
        self._sent = None
        answer.set_result(0x0110 if status is None else status)

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
