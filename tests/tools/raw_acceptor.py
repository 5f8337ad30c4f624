"""A DICOM peer that is called and answers exactly what a test wants, also what no library would send."""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from gateway.dicom.dimse import Command, CommandReceived, Messages
from gateway.dicom.negotiation import Supported, encode_accept, negotiate, parse_request
from gateway.dicom.pdu import RELEASE_RESPONSE, AssociationState, Fragment, PduType, Reader
from gateway.remote_ae import Peer

SECONDS = 20.0


class Answering:
    """The other side of one association. `after` is what it was sent after its answer, until the connection closed."""

    def __init__(self, answer: Callable[[Command], Iterable[bytes]], sop_class_uid: str, syntax: str) -> None:
        self.after = b""
        self._answer = answer
        self._supported = Supported({sop_class_uid: (syntax,)}, reversible={sop_class_uid: frozenset({sop_class_uid})})

    def serve(self, connection: socket.socket) -> None:
        """Accept the association with any role, answer its first message, and read on to the end."""
        connection.settimeout(SECONDS)
        body = _pdu(connection)
        request = parse_request(body)
        accepted, items = negotiate(request, self._supported)
        connection.sendall(encode_accept(request, body, items, max_length=16384, accepted=accepted))
        with suppress(OSError):  # who is called may be cut off in the middle of what it says
            for piece in self._answer(_message(connection)):
                if not piece:
                    return  # hangs up
                connection.sendall(piece)
            while piece := connection.recv(65536):
                self.after += piece
                if piece[0] == PduType.RELEASE_RQ:
                    connection.sendall(RELEASE_RESPONSE)


@contextmanager
def answering(
    answer: Callable[[Command], Iterable[bytes]], *, sop_class_uid: str, syntax: str
) -> Iterator[tuple[Peer, Answering]]:
    """Listen for one association; leave the block when it is over. An empty piece of the answer hangs up."""
    peer = Answering(answer, sop_class_uid, syntax)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                peer.serve(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Peer("ODD", "127.0.0.1", server.getsockname()[1]), peer
        thread.join(SECONDS)
        assert not thread.is_alive()


def _pdu(connection: socket.socket) -> bytes:
    head = connection.recv(6, socket.MSG_WAITALL)
    return connection.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL)


def _message(connection: socket.socket) -> Command:
    """The command of the first message, once all of it has come."""
    reader, messages, command = Reader(), Messages(), None
    reader.state = AssociationState.ESTABLISHED
    while command is None or not messages.is_between_messages:
        reader.received(connection.recv_into(reader.space()))
        for event in reader.events():
            assert isinstance(event, Fragment)
            received = messages.feed(event)
            command = received.command if isinstance(received, CommandReceived) else command
    return command
