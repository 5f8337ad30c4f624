"""The PDU stream of one association: PDU events from a transport, with timeouts, a stop and an orderly close.

* The association request has to come within the ARTIM time, in however many pieces (PS3.8 9.1.5). After it, each
  silence is limited by `idle_seconds`.
* A stop ends a thread that waits between two messages.
* Between two messages `meanwhile` waits in the place of a read, and may send something to the peer.

Not for: the meaning of events (`gateway.dicom.acceptor`), TLS (`gateway.dicom.transport`).
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from gateway.dicom.application import ListenerLimits
from gateway.dicom.pdu import AbortReason, AssociationState, PduEvent, Reader, pack_abort
from gateway.dicom.transport import Transport

_CLOSE_SECONDS = 5.0
"""How long the peer may take to close after the last PDU."""

Awaited = TypeVar("Awaited")


class PeerGone(Exception):
    """The connection ended or fell silent; the message says how."""


@dataclass
class Stream:
    """One connection as a source of events. Its thread reads and writes; `end_when_idle` and `cut` are for others."""

    wire: Transport
    limits: ListenerLimits
    stopping: threading.Event
    is_between_messages: Callable[[], bool]
    meanwhile: Callable[[], None] | None = None
    """Waits until the peer has sent something, or sends something itself and returns. Raises BlockingIOError after a
    silence that was too long."""
    _reader: Reader = field(default_factory=Reader)
    _request_due: float | None = None
    _is_idle: bool = False

    def shake_hands(self) -> bool:
        """Agree on TLS, where this port speaks it: part of what has to come in the ARTIM time. False when stopped."""
        self._request_due = time.monotonic() + self.limits.artim_seconds
        self._is_idle = True
        is_done = False
        while not is_done and not self.stopping.is_set():
            self._hurry(self._request_due)
            is_done = _patiently(self.wire.shake_hands)
        self._is_idle = False
        return is_done

    def established(self) -> None:
        """The association is established: data may come, and a silence may be as long as between two exposures."""
        self._reader.state = AssociationState.ESTABLISHED
        self._request_due = None
        self.wire.set_patience(self.limits.idle_seconds)

    def events(self) -> Iterator[PduEvent]:
        """The events as they come. Raises PeerGone when the stream ends, ProtocolError when it is broken."""
        while True:
            event = self._reader.next_event()
            if event is not None:
                yield event
            else:
                self._receive()

    def event_at_once(self) -> PduEvent | None:
        """An event that has come already, without waiting; None when none is complete. Raises as `events`."""
        while (event := self._reader.next_event()) is None:
            try:
                count = self.wire.receive(self._reader.space(), socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except OSError as error:
                raise PeerGone(f"the connection broke: {error.strerror}") from error
            if count == 0:
                raise PeerGone("the peer closed the connection while a request was being answered")
            self._reader.received(count)
        return event

    def send(self, data: bytes | bytearray) -> None:
        """Send whole PDUs. Raises PeerGone when the peer does not take them."""
        try:
            self.wire.send(data)
        except BlockingIOError:
            raise PeerGone("the peer does not read our answers") from None
        except OSError as error:
            raise PeerGone(f"the connection broke: {error.strerror}") from error

    def close_with(self, pdu: bytes) -> None:
        """Send the last PDU, then wait for the peer to close, at most the ARTIM time (PS3.8 9.1.5, Sta13)."""
        with suppress(OSError):  # the peer is gone already
            self.wire.close_with(pdu, seconds=min(self.limits.artim_seconds, _CLOSE_SECONDS))

    def end_when_idle(self) -> None:
        """Called by another thread: wake the association if it waits for its next message."""
        if self._is_idle:
            self.wire.shut(socket.SHUT_RD)

    def cut(self) -> None:
        """Called by another thread: end the association now."""
        self.wire.shut(socket.SHUT_RDWR)

    def _receive(self) -> None:
        """Wait for more; the end of the stream ends the association."""
        if self._request_due is not None:
            self._hurry(self._request_due)
        # This thread marks itself idle and then looks whether to stop; the thread that stops sets `stopping` and then
        # looks for idle ones. In these orders one of the two always sees the other.
        self._is_idle = self.is_between_messages()
        is_over = self._is_idle and self.stopping.is_set()
        count = 0 if is_over else _patiently(self._wait)
        self._is_idle = False
        if count:
            self._reader.received(count)
        elif self.stopping.is_set():
            self.close_with(pack_abort(source=2, reason=AbortReason.NOT_SPECIFIED))
            raise PeerGone("this service is stopping")
        else:
            raise PeerGone("the peer closed the connection without releasing the association")

    def _wait(self) -> int:
        while self._is_idle and self.meanwhile is not None:
            with suppress(BlockingIOError):
                return self.wire.receive(self._reader.space(), socket.MSG_DONTWAIT)
            self.meanwhile()
        return self.wire.receive(self._reader.space())

    def _hurry(self, due: float) -> None:
        """Limit the next wait to the rest of the ARTIM time."""
        # It is for the whole request, because a peer that sends a byte now and then would otherwise hold a thread.
        left = due - time.monotonic()
        if left <= 0:
            raise PeerGone("the association request did not come in time")
        self.wire.set_patience(left)


def _patiently(wait: Callable[[], Awaited]) -> Awaited:
    """Wait for the peer. A silence that is too long, or a connection that broke, is the end of the association."""
    try:
        return wait()
    except BlockingIOError:
        raise PeerGone("the peer has been silent for too long") from None
    except OSError as error:
        raise PeerGone(f"the connection broke: {error.strerror}") from error
