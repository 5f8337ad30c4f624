"""An association of a test SCU that controls every byte: short PDUs, torn writes, no release.

Every wait is bounded by `seconds`; every failure is a PeerError.

Not for: the messages (`scripted_machine`, `misbehaviour`).
"""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle

# Our own pure parts, because a library that keeps the rules cannot send half a data set or stop anywhere.
from gateway.dicom import dimse, negotiation, pdu
from gateway.dicom.dimse import Command, CommandField, CommandReceived, DataReceived
from gateway.dicom.negotiation import AcceptedContext, ProposedContext
from gateway.dicom.pdu import (
    Aborted,
    AssociateAccepted,
    AssociateRejected,
    AssociationState,
    Fragment,
    Reader,
    Released,
)
from gateway.dicom.requestor import PENDING, rejection
from gateway.errors import PeerError, ProtocolError
from gateway.remote_ae import Peer

CONNECT_SECONDS = 10.0
LARGEST_ANSWER = 2 << 20  # bytes of one data set, because a peer that never ends it would take all memory
_PDU_HEADER = 6  # type, a reserved byte, and four of length (PS3.8 9.3.1)


@dataclass(frozen=True, slots=True)
class Dialer:
    """How a machine opens its associations and writes to them. `seconds` bounds every wait for the other side."""

    ae_title: str
    tls: ssl.SSLContext | None = None
    seconds: float = 30.0
    max_pdu_bytes: int = 131_072
    split_writes: bool = False

    def open(self, peer: Peer, kinds: Sequence[tuple[str, str]]) -> "RawAssociation":
        """Propose each SOP class and transfer syntax in a context of its own. Raises PeerError, Rejected."""
        # Presentation context ids are odd (PS3.8 9.3.2.2).
        proposed = [ProposedContext(2 * at + 1, uid, (syntax,)) for at, (uid, syntax) in enumerate(kinds)]
        line = RawAssociation(self.connected(peer), peer, self)
        try:
            line.associate(proposed)
        except BaseException:
            line.hang_up()
            raise
        return line

    @contextmanager
    def opened(self, peer: Peer, kinds: Sequence[tuple[str, str]]) -> Iterator["RawAssociation"]:
        """The same, released afterwards, or aborted when something is raised."""
        line = self.open(peer, kinds)
        try:
            yield line
        except BaseException:
            line.abort()
            raise
        line.release()

    def connected(self, peer: Peer) -> socket.socket:
        """A connection without an association. Raises PeerError."""
        try:
            connection = socket.create_connection((peer.host, peer.port), timeout=min(CONNECT_SECONDS, self.seconds))
            if not self.split_writes:  # with Nagle's algorithm on, the second write waits for the first one's ACK
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(self.seconds)
            return self.tls.wrap_socket(connection, server_hostname=peer.host) if self.tls else connection
        except OSError as error:
            raise PeerError(f"{peer} cannot be reached: {error.strerror or type(error).__name__}.") from error


class Rejected(PeerError):
    """The association was rejected; `source` and `reason` are those of PS3.8 Table 9-21."""

    def __init__(self, message: str, *, source: int, reason: int) -> None:
        super().__init__(message)
        self.source, self.reason = source, reason


class Ended(PeerError):
    """The association is over although more was expected; `how` is aborted, closed or silent."""

    def __init__(self, message: str, *, how: str) -> None:
        super().__init__(message)
        self.how = how


class RawAssociation:
    """An association while it is open."""

    def __init__(self, connection: socket.socket, peer: Peer, caller: Dialer) -> None:
        self.peer = peer
        self.contexts: tuple[AcceptedContext, ...] = ()
        self._connection = connection
        self._caller = caller
        self._reader = Reader()
        self._messages = dimse.Messages()
        self._message_ids = cycle(range(1, 0x10000))  # Message ID is US (PS3.7 E.1)
        self._max_length = caller.max_pdu_bytes

    def associate(self, proposed: Sequence[ProposedContext]) -> None:
        """Raises Rejected, or PeerError when nothing that was proposed is accepted."""
        self._reader.state = AssociationState.AWAITING_ANSWER
        request = negotiation.encode_request(
            proposed,
            called_ae_title=self.peer.ae_title,
            calling_ae_title=self._caller.ae_title,
            max_length=self._caller.max_pdu_bytes,
        )
        self.write(request)
        event = self._event()
        if isinstance(event, AssociateRejected):
            sentence = f"{self.peer} rejected the association: {rejection(event)}."
            raise Rejected(sentence, source=event.source, reason=event.reason)
        if not isinstance(event, AssociateAccepted):
            raise Ended(f"{self.peer} ended the association instead of answering.", how="aborted")
        self._reader.state = AssociationState.ESTABLISHED
        self.contexts, theirs = negotiation.parse_accept(event.body, proposed)
        if not self.contexts:
            raise PeerError(f"{self.peer} accepted the association but none of what was proposed.")
        # 0 is no limit (PS3.8 D.1.1).
        self._max_length = min(theirs or self._caller.max_pdu_bytes, self._caller.max_pdu_bytes)

    # ---- messages --------------------------------------------------------------------------------------------------

    def context(self, sop_class_uid: str, transfer_syntax: str = "") -> AcceptedContext:
        """The context of a class, in any or in one transfer syntax. Raises PeerError when it was not accepted."""
        for each in self.contexts:
            if each.abstract_syntax == sop_class_uid and transfer_syntax in ("", each.transfer_syntax):
                return each
        raise PeerError(f"{self.peer} did not accept {sop_class_uid} in {transfer_syntax or 'any transfer syntax'}.")

    def request(self, field: CommandField, sop_class_uid: str, *, has_data: bool, instance: str = "") -> Command:
        """A request with the next message id."""
        # Class and instance are Affected in some requests and Requested in the others (PS3.7 E.1).
        is_affected = field in (CommandField.C_STORE, CommandField.C_FIND, CommandField.C_ECHO, CommandField.N_CREATE)
        return Command(
            command_field=field,
            message_id=next(self._message_ids),
            priority=0 if field in (CommandField.C_STORE, CommandField.C_FIND) else None,
            command_data_set_type=1 if has_data else dimse.NO_DATA_SET,
            action_type_id=1 if field == CommandField.N_ACTION else None,
            affected_sop_class_uid=sop_class_uid if is_affected else None,
            requested_sop_class_uid=None if is_affected else sop_class_uid,
            affected_sop_instance_uid=instance or None if is_affected else None,
            requested_sop_instance_uid=None if is_affected else instance or None,
        )

    def send(self, context: AcceptedContext, command: Command, data: bytes = b"") -> None:
        """Send a command set, and the data set if it announces one."""
        self.write(self.packed(context, dimse.pack_command(command), is_command=True))
        if command.has_data_set:
            self.write(self.packed(context, data, is_command=False))

    def packed(self, context: AcceptedContext, data: bytes, *, is_command: bool) -> bytes:
        """Cut into PDUs of the maximum length that both sides allow."""
        return pdu.pack_data(context.context_id, data, is_command=is_command, max_length=self._max_length)

    def ask(self, context: AcceptedContext, command: Command, data: bytes = b"") -> Command:
        """Send a request and give its response."""
        self.send(context, command, data)
        return self.answer()[0]

    def find(
        self, context: AcceptedContext, identifier: bytes, *, cancel_after: int | None = None
    ) -> Iterator[tuple[Command, bytes]]:
        """C-FIND: the responses with their data sets, the final one too; C-CANCEL after `cancel_after` of them."""
        request = self.request(CommandField.C_FIND, context.abstract_syntax, has_data=True)
        self.send(context, request, identifier)
        seen, status = 0, PENDING[0]
        while status in PENDING:
            response, data = self.answer()
            yield response, data
            seen, status = seen + 1, response.status or 0
            if seen == cancel_after:
                cancel = Command(command_field=CommandField.C_CANCEL, message_id_being_responded_to=request.message_id)
                self.send(context, cancel)

    def answer(self) -> tuple[Command, bytes]:
        """The next whole message of the peer, of any kind. Raises Ended when none comes."""
        command: Command | None = None
        data = bytearray()
        while True:
            received = self._received()
            if isinstance(received, CommandReceived):
                command = received.command
            elif isinstance(received, DataReceived):
                data += received.data
                if len(data) > LARGEST_ANSWER:
                    raise PeerError(f"{self.peer} gave an answer of more than {LARGEST_ANSWER} bytes.")
            is_whole = isinstance(received, DataReceived) and received.is_last
            if command is not None and (is_whole or not command.has_data_set):
                return command, bytes(data)

    # ---- the stream ------------------------------------------------------------------------------------------------

    def write(self, pdus: bytes) -> None:
        """Write PDUs at once, or with `split_writes` each in two pieces."""
        try:
            for piece in _torn(pdus) if self._caller.split_writes else (pdus,):
                self._connection.sendall(piece)
        except OSError as error:
            raise self._lost(error) from error

    def ending(self) -> str:
        """How the peer ends the association now: aborted, closed, or silent when it does not in time."""
        try:
            while True:
                self.answer()
        except Ended as ended:
            return ended.how

    def release(self) -> None:
        """Release the association (PS3.8 7.2), and close."""
        # A peer that just closes is no error, because every request has its response already.
        self._reader.state = AssociationState.AWAITING_RELEASE
        with suppress(PeerError):
            self.write(pdu.RELEASE_REQUEST)
            while not isinstance(self._event(), Released | Aborted):
                pass
        self.hang_up()

    def abort(self) -> None:
        """A-ABORT, and close."""
        with suppress(PeerError):
            self.write(pdu.pack_abort(source=0, reason=0))
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection without release or abort."""
        self._connection.close()

    def _received(self) -> CommandReceived | DataReceived | None:
        event = self._event()
        if isinstance(event, Aborted):
            raise Ended(f"{self.peer} aborted the association.", how="aborted")
        if not isinstance(event, Fragment):
            raise PeerError(f"{self.peer} sent something that is no message.")
        try:
            return self._messages.feed(event)
        except ProtocolError as error:
            raise PeerError(f"{self.peer} does not keep to the protocol: {error}") from error

    def _event(self) -> pdu.PduEvent:
        try:
            while (event := self._reader.next_event()) is None:
                count = self._connection.recv_into(self._reader.space())
                if not count:
                    raise Ended(f"{self.peer} closed the connection.", how="closed")
                self._reader.received(count)
        except ProtocolError as error:
            raise PeerError(f"{self.peer} does not keep to the protocol: {error}") from error
        except OSError as error:
            raise self._lost(error) from error
        return event

    def _lost(self, error: OSError) -> Ended:
        if isinstance(error, TimeoutError):
            return Ended(f"{self.peer} said nothing for {self._caller.seconds:.0f} s.", how="silent")
        return Ended(f"The connection with {self.peer} was lost: {error.strerror}.", how="closed")


def _torn(pdus: bytes) -> Iterator[bytes]:
    """The header of each PDU, then its body."""
    start = 0
    while start < len(pdus):
        body = start + _PDU_HEADER
        end = body + int.from_bytes(pdus[start + 2 : body], "big")
        yield pdus[start:body]
        yield pdus[body:end]
        start = end
