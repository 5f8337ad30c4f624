"""The DICOM listener: accepts connections, gives each a thread and a `Conversation`, keeps the limits, stops in order.

worklist and pacs hand in an `Application` with their handlers and never see a socket. Not for what the messages mean,
and not for calling others: where this product is the caller, pynetdicom is used.
"""

import socket
import sys
import threading
from types import TracebackType
from typing import Self

import structlog

from gateway import association
from gateway.application import Application, Limits
from gateway.association import Rejection
from gateway.conversation import Conversation

log = structlog.get_logger()


class Listener:
    """Accepts associations on one port and serves them with one application."""

    def __init__(self, application: Application, *, host: str, port: int, limits: Limits | None = None) -> None:
        self.application = application
        self.host = host
        self.port = port
        self.limits = limits or Limits()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._open: dict[threading.Thread, Conversation] = {}
        self._stopping = threading.Event()

    def start(self) -> None:
        """Bind and begin to accept; `port` is then the real one. Raises OSError when the port is taken."""
        self._socket = socket.create_server((self.host, self.port), backlog=64)
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="listener", daemon=True)
        self._thread.start()

    def stop(self, *, grace_seconds: float = 10.0) -> None:
        """Accept nobody any more, let messages under way end for up to `grace_seconds`, then close. Again: nothing."""
        if self._stopping.is_set() or self._socket is None or self._thread is None:
            return
        self._stopping.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        with self._lock:
            threads = dict(self._open)
        for conversation in threads.values():
            conversation.end_when_idle()
        for thread in threads:
            thread.join(grace_seconds / max(len(threads), 1))
        for thread, conversation in threads.items():
            if thread.is_alive():
                conversation.cut()
                thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def rejection(self, request: association.AssociateRequest, address: str) -> Rejection | None:
        """Why this association is not taken, or None if it is."""
        application, limits = self.application, self.limits
        if request.application_context != association.APPLICATION_CONTEXT:
            return association.application_context_unknown(request)
        if request.called_ae_title != application.ae_title:
            return association.called_ae_title_unknown(request, application.ae_title)
        if application.calling_ae_titles and request.calling_ae_title not in application.calling_ae_titles:
            return association.calling_ae_title_unknown(request)
        with self._lock:
            here = [conversation.address for conversation in self._open.values()]
        if len(here) > limits.associations:
            return association.too_many_associations(limits.associations)
        if here.count(address) > limits.associations_per_peer:
            return association.too_many_associations(limits.associations_per_peer)
        return None

    def _accept(self) -> None:
        assert self._socket is not None
        while True:
            try:
                connection, peer = self._socket.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                # Out of file descriptors, or the peer is gone already: others must still be served.
                log.warning("connection not accepted", reason=str(sys.exception()))
                continue
            conversation = self._conversation(connection, peer[0])
            thread = threading.Thread(target=self._converse, args=(conversation,), name="association", daemon=True)
            with self._lock:
                self._open[thread] = conversation
            thread.start()

    def _conversation(self, connection: socket.socket, address: str) -> Conversation:
        return Conversation(
            connection,
            address,
            application=self.application,
            limits=self.limits,
            rejection=lambda request: self.rejection(request, address),
            stopping=self._stopping,
        )

    def _converse(self, conversation: Conversation) -> None:
        try:
            conversation.run()
        finally:
            with self._lock:
                del self._open[threading.current_thread()]
