"""The DICOM listener: accepts connections, gives each a thread and an `Acceptor`, keeps the limits, stops in order.

worklist and pacs hand in an `Application` with their handlers and never see a socket. Not for: the meaning of messages
(`application`), calls of ours (`requestor`).
"""

import socket
import sys
import threading
import time
from collections.abc import Collection
from types import TracebackType
from typing import Self

import structlog

from gateway.dicom import admission
from gateway.dicom.acceptor import Acceptor
from gateway.dicom.admission import Slot
from gateway.dicom.application import Application, ListenerLimits
from gateway.dicom.negotiation import AssociateRequest, Rejection
from gateway.dicom.transport import PlainWire, TlsTransport
from gateway.refusals import NoteRefusal, Refused
from gateway.refusals.log import unnoted
from gateway.refusals.remedies import CROWDED
from gateway.remote_ae import Caller
from gateway.tls_reload import ServerTls

_BREATH_SECONDS = 0.5
"""Pause after a connection could not be accepted, because descriptors, threads or memory stay short for a while."""

_TOO_MANY = "Too many connections wait to ask for an association."

log = structlog.get_logger()


class Listener:
    """Accepts associations on one port and serves them with one application."""

    def __init__(
        self,
        application: Application,
        *,
        host: str,
        port: int,
        limits: ListenerLimits | None = None,
        callers: Collection[Caller] = (),
        tls: ServerTls | None = None,
        note: NoteRefusal = unnoted,
    ) -> None:
        """`callers` empty lets anyone call; without `tls` it is plain TCP. `note` is called for each refusal."""
        self.application = application
        self.host = host
        self.port = port
        self.limits = limits or ListenerLimits()
        self.callers = callers
        self.tls = tls
        self.note = note
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, Acceptor] = {}
        self._associated: dict[threading.Thread, Slot] = {}
        """Those in `_open` that count as associations; the others have not requested one yet."""
        self._stopping = threading.Event()

    def start(self) -> None:
        """Bind and begin to accept; `port` is then the real one. Raises OSError when the port is taken."""
        self._socket = socket.create_server((self.host, self.port), backlog=64)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="listener", daemon=True)
        self._thread.start()

    def still_working(self) -> None:
        """Raise RuntimeError when no peer can connect any more, so that the process ends and is started again."""
        if self._thread is None or not self._thread.is_alive():
            raise RuntimeError(f"The thread that accepts associations on port {self.port} has died.")
        if self.tls is not None:
            self.tls.context()  # files that do not load show in the log before a peer connects

    def stop(self, *, grace_seconds: float = 10.0) -> None:
        """Stop accepting, let current messages end for up to `grace_seconds`, then close. Repeating it does nothing."""
        if self._stopping.is_set() or self._socket is None or self._thread is None:
            return
        self._stopping.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        with self._lock:
            threads = dict(self._open)
        for acceptor in threads.values():
            acceptor.stream.end_when_idle()
        deadline = time.monotonic() + grace_seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for thread, acceptor in threads.items():
            if thread.is_alive():
                acceptor.stream.cut()
                thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def rejection(self, request: AssociateRequest, address: str, at: str) -> Rejection | None:
        """Why this association is not taken, or None if it is: then it counts until the calling thread ends."""
        title, limits = self.application.ae_title, self.limits
        with self._lock:  # over check and entry, so that two requests at once cannot take the same last place
            taken = self._associated.values()
            refused = admission.rejection(
                request, address, at=at, ae_title=title, callers=self.callers, limits=limits, taken=taken
            )
            if refused is None:
                self._associated[threading.current_thread()] = Slot(
                    address, request.calling_ae_title, admission.is_echo(request)
                )
        return refused

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                self._accept_one()
            except (OSError, RuntimeError, MemoryError):
                # Out of descriptors, threads or memory, or the peer is gone already: others must still be served.
                if not self._stopping.is_set():
                    log.warning("connection not accepted", reason=str(sys.exception()))
                    self._stopping.wait(_BREATH_SECONDS)

    def _accept_one(self) -> None:
        assert self._socket is not None
        connection, peer = self._socket.accept()
        try:
            if self._is_crowded(peer[0]):
                log.warning("connection not accepted", address=peer[0], reason=_TOO_MANY)
                self.note(Refused("connection", CROWDED, _TOO_MANY, address=peer[0]))
                connection.close()
            else:
                self._begin(self._acceptor(connection, peer[0]))
        except BaseException:
            connection.close()
            raise

    def _is_crowded(self, address: str) -> bool:
        """Are there too many connections, of all or of this peer, that have not requested their association?"""
        # Each holds a thread and a buffer, and a port scan or a monitor opens many without a word.
        with self._lock:
            waiting = [conv.address for thread, conv in self._open.items() if thread not in self._associated]
        return len(waiting) >= self.limits.waiting or waiting.count(address) >= self.limits.waiting_per_peer

    def _begin(self, acceptor: Acceptor) -> None:
        thread = threading.Thread(target=self._serve, args=(acceptor,), name="association", daemon=True)
        with self._lock:  # a thread that cannot start is never open, and one that ends at once waits until it is listed
            thread.start()
            self._open[thread] = acceptor

    def _acceptor(self, connection: socket.socket, address: str) -> Acceptor:
        at = connection.getsockname()[0]
        return Acceptor(
            PlainWire(connection) if self.tls is None else TlsTransport(connection, self.tls.context()),
            address,
            application=self.application,
            limits=self.limits,
            rejection=lambda request: self.rejection(request, address, at),
            stopping=self._stopping,
            note=self.note,
            at=at,
        )

    def _serve(self, acceptor: Acceptor) -> None:
        try:
            acceptor.run()
        finally:
            with self._lock:
                del self._open[threading.current_thread()]
                self._associated.pop(threading.current_thread(), None)
