"""Association requestor: echo, query, store and event reports on another DICOM application.

One thread, one socket, every wait bounded and interrupted each second. Every failure of a call is a PeerError with a
sentence for people.

Not for: accepting associations (`acceptor`, `listener`).
"""

import socket
import ssl
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from time import monotonic

from pydicom import Dataset

from gateway.dataset.data_sets import decode, encode
from gateway.dicom import dimse, event_reports, negotiation, pdu
from gateway.dicom.application import UNCOMPRESSED, VERIFICATION
from gateway.dicom.dimse import Command, CommandField, CommandReceived, DataReceived
from gateway.dicom.event_reports import EventReport
from gateway.dicom.negotiation import AcceptedContext, ProposedContext
from gateway.dicom.pdu import (
    Aborted,
    AssociateAccepted,
    AssociateRejected,
    AssociationState,
    Fragment,
    PduEvent,
    Reader,
    Released,
)
from gateway.dicom.store_suboperations import Outgoing, StoreSender
from gateway.errors import InvalidDataSet, PeerError, ProtocolError, SettingsError
from gateway.remote_ae import Peer
from gateway.tls import CallFiles, call_failure, calling_context

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120.0
"""How long a peer may take to answer. An archive may need a minute to put a tomosynthesis on disk before it does."""

SEND_SECONDS = 30.0
"""How long a peer may take to read a megabyte of an object."""

LOOK_SECONDS = 1.0
RELEASE_SECONDS = 5.0
MAX_PDU_BYTES = 131_072
LARGEST_ANSWER = 2 << 20
MOST_CONTEXTS = 128
"""Presentation contexts of one association: their numbers are odd and below 256 (PS3.8 9.3.2.2)."""

PENDING = (0xFF00, 0xFF01)


class NothingAccepted(PeerError):
    """A peer is there and knows us, and takes none of the classes or transfer syntaxes that were proposed."""


@contextmanager
def calling(
    peer: Peer,
    contexts: Sequence[ProposedContext],
    *,
    ae_title: str,
    scp_of: Collection[str] = (),
    tls: CallFiles | None = None,
    originator: tuple[str, int] | None = None,
    answer_seconds: float = ANSWER_SECONDS,
    look: Callable[[], object] = lambda: None,
) -> Iterator["Call"]:
    """Open an association, release it afterwards, or abort it when something is raised. Raises PeerError.

    `scp_of` are the SOP classes of which we ask to be SCP, and not SCU (role selection, PS3.7 D.3.3.4), to report their
    events. `tls` has the files for peers that are called within TLS. `look` is called each second during the wait for
    an answer; it raises when the answer is not needed any more.
    """
    with _connected(peer, tls) as connection:
        call = Call(connection, peer, originator, answer_seconds, look)
        try:
            call.associate(contexts, ae_title, scp_of)
            yield call
            call.release()
        except BaseException:
            call.abort()
            raise


def _connected(peer: Peer, tls: CallFiles | None) -> socket.socket:
    context = context_for(peer, tls) if peer.tls else None
    try:
        connection = socket.create_connection((peer.host, peer.port), timeout=CONNECT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise PeerError(f"{peer} cannot be reached: {_words(error)}.") from error
    if context is None:
        return connection
    try:
        return context.wrap_socket(connection, server_hostname=peer.host)
    except ssl.SSLError as error:
        raise PeerError(f"{peer} cannot be called within TLS: {call_failure(error, peer.host)}.") from error
    except OSError as error:
        raise PeerError(f"{peer} broke off the TLS handshake ({_words(error)}); does it speak TLS there?") from error


def context_for(peer: Peer, tls: CallFiles | None) -> ssl.SSLContext:
    """The TLS context to call a peer. Raises PeerError."""
    # Made for each call, so that renewed files are used at once.
    if tls is None:
        raise PeerError(f"{peer} is to be called within TLS, but GATEWAY_TLS_PEER_CA does not say whom to trust.")
    try:
        return calling_context(tls)
    except SettingsError as error:
        raise PeerError(f"{peer} cannot be called within TLS: {error}") from error


class Call:
    """One association that we started, while it is open."""

    def __init__(
        self,
        connection: socket.socket,
        peer: Peer,
        originator: tuple[str, int] | None,
        answer_seconds: float,
        look: Callable[[], object],
    ) -> None:
        self.peer = peer
        self.contexts: tuple[AcceptedContext, ...] = ()
        self._connection = connection
        self._originator = originator
        self._answer_seconds = answer_seconds
        self._look = look
        self._reader = Reader()
        self._messages = dimse.Messages()
        self._message_ids = count(1)
        self._max_length = 0
        self._sender = self._store_sender()

    def associate(self, contexts: Sequence[ProposedContext], ae_title: str, scp_of: Collection[str] = ()) -> None:
        """Request the association. Raises PeerError when it is rejected or none of the contexts is accepted."""
        self._reader.state = AssociationState.AWAITING_ANSWER
        request = negotiation.encode_request(
            contexts,
            called_ae_title=self.peer.ae_title,
            calling_ae_title=ae_title,
            max_length=MAX_PDU_BYTES,
            scp_of=scp_of,
        )
        self._send(request)
        event = self._event(self._deadline())
        if isinstance(event, AssociateRejected):
            raise PeerError(f"{self.peer} rejected the association: {rejection(event)}.")
        if not isinstance(event, AssociateAccepted):
            raise self._broken_off(event)
        self._reader.state = AssociationState.ESTABLISHED
        self.contexts, self._max_length = self._reading(event.body, contexts, scp_of)
        if not self.contexts:
            raise NothingAccepted(f"{self.peer} accepted the association but none of what was proposed.")
        self._sender = self._store_sender()

    def release(self) -> None:
        """End the association in order."""
        # A peer that just closes is no error, because its answers have been received.
        self._reader.state = AssociationState.AWAITING_RELEASE
        deadline = monotonic() + RELEASE_SECONDS
        with suppress(PeerError, OSError):
            self._send(pdu.RELEASE_REQUEST)
            while not isinstance(self._event(deadline), Released | Aborted):
                pass

    def echo(self) -> None:
        """C-ECHO (PS3.7 9.1.5). Raises PeerError unless it succeeds."""
        for answer, _ in self._exchange(VERIFICATION, CommandField.C_ECHO):
            if answer.status != 0x0000:
                raise PeerError(f"{self.peer} answered C-ECHO with {described(answer)}.")

    def find(self, sop_class_uid: str, identifier: Dataset) -> Iterator[Dataset]:
        """C-FIND (PS3.4 C.4.1): the matches as they come. Raises PeerError unless it ends with success."""
        for answer, data_set in self._exchange(sop_class_uid, CommandField.C_FIND, identifier):
            if data_set is not None and answer.status in PENDING:
                yield data_set
            elif answer.status != 0x0000:
                raise PeerError(f"{self.peer} answered C-FIND with {described(answer)}.")

    def syntaxes(self, sop_class_uid: str) -> frozenset[str]:
        """The transfer syntaxes in which the peer takes objects of a class."""
        return self._sender.syntaxes(sop_class_uid)

    def store(self, outgoing: Outgoing) -> Command:
        """C-STORE: returns the peer's response, whatever its status. Raises PeerError when there is none."""
        try:
            # Streamed from its file: 6 MB of memory for an object of 360 MB, which pynetdicom would queue whole.
            return self._sender.store(outgoing)
        except (ProtocolError, PeerError) as error:
            self.abort()  # half of a message cannot be taken back, and an answer that comes late belongs to nothing
            raise PeerError(str(error)) from error
        except OSError:  # its file cannot be read
            self.abort()
            raise

    def is_scp_of(self, sop_class_uid: str) -> bool:
        """Does the peer let us report events of a class (`scp_of`)?"""
        return event_reports.reporting_context(sop_class_uid, self.contexts) is not None

    def report(self, report: EventReport) -> int:
        """N-EVENT-REPORT (PS3.7 10.1.1): returns the status of the peer's response, whatever it is.

        Raises PeerError when there is none, and when the peer does not let us be SCP of the class (`is_scp_of`).
        """
        context = event_reports.reporting_context(report.sop_class_uid, self.contexts)
        if context is None:
            raise PeerError(f"{self.peer} does not let us be the SCP of this service (role selection).")
        message_id = next(self._message_ids)
        self._send(event_reports.packed(report, context, message_id=message_id, max_length=self._max_length))
        answer, _ = self._answer(message_id)  # an event reply says nothing that the status does not
        if not event_reports.is_response(answer):
            raise self._astray()
        return event_reports.status_of(answer)

    def abort(self) -> None:
        """End the association at once."""
        with suppress(OSError):  # the peer may be gone
            self._connection.sendall(pdu.pack_abort(source=0, reason=0))
        self._connection.close()

    # ---- messages --------------------------------------------------------------------------------------------------

    def _store_sender(self) -> StoreSender:
        return StoreSender(
            self.contexts,
            max_length=self._max_length,
            send=self._send,
            answer=lambda message_id: self._answer(message_id)[0],
            originator=self._originator,
        )

    def _exchange(
        self, sop_class_uid: str, field: CommandField, identifier: Dataset | None = None
    ) -> Iterator[tuple[Command, Dataset | None]]:
        """Send a request, and yield its responses with their data sets until one is not pending."""
        context = next((context for context in self.contexts if context.abstract_syntax == sop_class_uid), None)
        if context is None:
            raise PeerError(f"{self.peer} does not offer this service.")
        request = Command(
            command_field=field,
            message_id=next(self._message_ids),
            priority=None if field is CommandField.C_ECHO else 0,
            command_data_set_type=dimse.NO_DATA_SET if identifier is None else 1,
            affected_sop_class_uid=sop_class_uid,
        )
        assert request.message_id is not None
        self._send(self._packed(context, dimse.pack_command(request), is_command=True))
        if identifier is not None:
            self._send(self._packed(context, encode(identifier, context.transfer_syntax), is_command=False))
        status: int | None = PENDING[0]
        while status in PENDING:
            answer, data = self._answer(request.message_id)
            yield answer, self._decoded(data, context) if data else None
            status = answer.status

    def _packed(self, context: AcceptedContext, data: bytes, *, is_command: bool) -> bytes:
        return pdu.pack_data(context.context_id, data, is_command=is_command, max_length=self._max_length)

    def _answer(self, message_id: int) -> tuple[Command, bytes]:
        """Wait for one response and its data set."""
        command: Command | None = None
        data = bytearray()
        deadline = self._deadline()
        while True:
            received = self._received(deadline)
            if isinstance(received, CommandReceived):
                command = received.command
                if command.message_id_being_responded_to != message_id:
                    raise self._astray()
            elif isinstance(received, DataReceived):
                data += received.data
                if len(data) > LARGEST_ANSWER:
                    raise PeerError(f"{self.peer} gave an answer of more than {LARGEST_ANSWER} bytes.")
            is_whole = isinstance(received, DataReceived) and received.is_last
            if command is not None and (is_whole or not command.has_data_set):
                return command, bytes(data)

    def _received(self, deadline: float) -> CommandReceived | DataReceived | None:
        event = self._event(deadline)
        if not isinstance(event, Fragment):
            raise self._broken_off(event)
        try:
            return self._messages.feed(event)
        except ProtocolError as error:
            raise self._garbled(error) from error

    def _decoded(self, data: bytes, context: AcceptedContext) -> Dataset:
        try:
            return decode(data, context.transfer_syntax)
        except InvalidDataSet as error:
            raise PeerError(f"{self.peer} gave an answer that cannot be read.") from error

    # ---- the stream ------------------------------------------------------------------------------------------------

    def _deadline(self) -> float:
        # For a whole answer and not for each read, because an answer that trickles would have no end.
        return monotonic() + self._answer_seconds

    def _event(self, deadline: float) -> PduEvent:
        try:
            while (event := self._reader.next_event()) is None:
                received = self._wait(deadline)
                if not received:
                    raise PeerError(f"{self.peer} closed the connection.")
                self._reader.received(received)
        except OSError as error:
            raise self._lost(error) from error
        except ProtocolError as error:
            raise self._garbled(error) from error
        return event

    def _wait(self, deadline: float) -> int:
        """Receive at least a byte; 0 at the end of the stream. Raises TimeoutError when nothing comes in time."""
        while (left := deadline - monotonic()) > 0:
            self._connection.settimeout(min(left, LOOK_SECONDS))
            with suppress(TimeoutError):
                return self._connection.recv_into(self._reader.space())
            self._look()
        raise TimeoutError

    def _send(self, data: bytes) -> None:
        try:
            self._connection.settimeout(SEND_SECONDS)
            self._connection.sendall(data)
        except OSError as error:
            raise self._lost(error) from error

    def _reading(
        self, body: bytes, contexts: Sequence[ProposedContext], scp_of: Collection[str]
    ) -> tuple[tuple[AcceptedContext, ...], int]:
        try:
            return negotiation.parse_accept(body, contexts, scp_of=scp_of)
        except ProtocolError as error:
            raise self._garbled(error) from error

    def _lost(self, error: OSError) -> PeerError:
        if isinstance(error, ssl.SSLError):  # with TLS 1.3 a certificate of ours is turned down after the handshake
            return PeerError(f"{self.peer} ended TLS: {call_failure(error, self.peer.host)}.")
        return PeerError(f"The connection with {self.peer} was lost: {_words(error)}.")

    def _garbled(self, error: ProtocolError) -> PeerError:
        return PeerError(f"{self.peer} does not keep to the protocol: {error}")

    def _astray(self) -> PeerError:
        return PeerError(f"{self.peer} answered something that it was not asked.")

    def _broken_off(self, event: PduEvent) -> PeerError:
        how = "aborted" if isinstance(event, Aborted) else "ended"
        return PeerError(f"{self.peer} {how} the association.")


def verification() -> list[ProposedContext]:
    """The proposal for a C-ECHO."""
    return [ProposedContext(1, VERIFICATION, UNCOMPRESSED)]


def proposals(kinds: Sequence[tuple[str, str]]) -> list[ProposedContext]:
    """The contexts to store objects of these SOP classes and transfer syntaxes, at most MOST_CONTEXTS.

    Each kind as it is has a context of its own. Behind them, as far as there is room, each class uncompressed.
    """
    # One transfer syntax for each context, because a peer chooses one of those in a context and the others are gone.
    # Uncompressed as well, because every object can be decompressed for a peer that takes nothing else.
    wanted = [(uid, (syntax,)) for uid, syntax in dict.fromkeys(kinds)]
    plain = [(uid, (syntax,)) for syntax in UNCOMPRESSED for uid in dict.fromkeys(uid for uid, _ in kinds)]
    chosen = list(dict.fromkeys(wanted + plain))[:MOST_CONTEXTS]
    return [ProposedContext(2 * number + 1, uid, syntaxes) for number, (uid, syntaxes) in enumerate(chosen)]


def described(answer: Command) -> str:
    """A status for people."""
    # Without the peer's Error Comment, which may hold anything, patient data included.
    return "no status" if answer.status is None else f"status {answer.status:04X}H"


_REJECTIONS = {
    (1, 1): "it gives no reason",
    (1, 2): "it does not support the application context",
    (1, 3): "it does not know our AE title; enter it there",
    (1, 7): "that is not its AE title",
    (2, 1): "it gives no reason",
    (2, 2): "it does not support our protocol version",
    (3, 1): "it is congested for the moment; try again later",
    (3, 2): "its limit of associations is reached; try again later",
}
"""Source and reason of PS3.8 Table 9-21."""


def rejection(event: AssociateRejected) -> str:
    """Why an association was rejected, in words."""
    return _REJECTIONS.get((event.source, event.reason), f"source {event.source}, reason {event.reason}")


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return error.strerror or type(error).__name__
