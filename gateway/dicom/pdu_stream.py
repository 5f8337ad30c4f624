"""The stream of one association: PDU events out of a wire, waited for with patience, and the last words to the peer.

Rules:

* The request for the association has to come in the ARTIM time, in however many pieces (PS3.8 9.1.5); after it, each
  silence has the same limit.
* A stop finds a thread that waits between two messages: this thread says that it is idle and then looks whether to
  stop, who stops does it the other way round, so that one of the two sees the other.
* While nothing is under way, `meanwhile` waits in the place of a read; it may have something to say to the peer.

Not for: what the events mean (`gateway.dicom.acceptor`), TLS (`gateway.dicom.transport`).
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

_FAREWELL_SECONDS = 5.0
"""How long the peer may take to close after the last PDU."""

Awaited = TypeVar("Awaited")


class PeerGone(Exception):
    """The connection ended or fell silent; the words say how."""


@dataclass
class Stream:
    """One connection as a source of events. Its thread reads and writes; `end_when_idle` and `cut` are for others."""

    wire: Transport
    limits: ListenerLimits
    stopping: threading.Event
    is_between_messages: Callable[[], bool]
    meanwhile: Callable[[], None] | None = None
    """Waits until the peer has spoken, or says something to it and comes back. Raises BlockingIOError after a silence
    that was too long."""
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
        """The association stands: data may come, and a silence may be as long as between two exposures."""
        self._reader.state = AssociationState.ESTABLISHED
        self._request_due = None
        self.wire.set_patience(self.limits.idle_seconds)

    def events(self) -> Iterator[PduEvent]:
        """What comes, as it comes. Raises PeerGone when nothing more does, ProtocolError for what is no PDU."""
        while True:
            event = self._reader.next_event()
            if event is not None:
                yield event
            else:
                self._receive()

    def event_at_once(self) -> PduEvent | None:
        """What has come already; None when that is nothing whole. Raises as `events`."""
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

    def say_goodbye(self, pdu: bytes) -> None:
        """Send the last PDU, then wait for the peer to close, at most the ARTIM time (PS3.8 9.1.5, Sta13)."""
        with suppress(OSError):  # the peer is gone; there is nobody left to be polite to
            self.wire.say_goodbye(pdu, seconds=min(self.limits.artim_seconds, _FAREWELL_SECONDS))

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
        self._is_idle = self.is_between_messages()
        is_over = self._is_idle and self.stopping.is_set()
        count = 0 if is_over else _patiently(self._wait)
        self._is_idle = False
        if count:
            self._reader.received(count)
        elif self.stopping.is_set():
            self.say_goodbye(pack_abort(source=2, reason=AbortReason.NOT_SPECIFIED))
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
        """Leave what is left of the ARTIM time: it is for the whole request, however many pieces it comes in."""
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
