"""Association acceptor (PS3.8): one association from accept to close, on a thread and a socket of its own.

* A `Refusal` that a handler raises becomes a DIMSE status with an Error Comment and one log line. Any other error is a
  fault of ours: C000H (0110H for N-services), logged with its place; the association goes on.
* A peer that breaks the protocol loses its own association, by A-ABORT (PS3.8 Table 9-26), and no other.
* A C-STORE data set is streamed into the `Incoming` of `handle_store`; Success follows its `finish`.
* Every refusal is logged and noted (`gateway.refusals.log`), in the same words.
* A stop lets the current message end within a grace period, then aborts the association.

Not for: the choice of callers (`admission`), connections and limits (`listener`).
"""

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial

import structlog
from pydicom import Dataset
from pydicom.uid import UID

from gateway.dataset.data_sets import encode
from gateway.dicom import dimse, dispatch, event_reports, negotiation, pdu
from gateway.dicom.admission import is_own_echo
from gateway.dicom.application import (
    VERIFICATION,
    Application,
    Association,
    Incoming,
    ListenerLimits,
    Request,
    failure,
    response,
)
from gateway.dicom.dimse import Command, CommandField, CommandReceived
from gateway.dicom.event_reports import EventReport, ReportChannel
from gateway.dicom.negotiation import AcceptedContext, Rejection
from gateway.dicom.pdu import Aborted, AbortReason, AssociateRequested, Fragment, ReleaseRequested
from gateway.dicom.pdu_stream import PeerGone, Stream
from gateway.dicom.store_suboperations import StoreSender
from gateway.dicom.transport import Transport
from gateway.errors import HandshakeFailed, InvalidDataSet, ProtocolError, Refusal, Unsupported, place
from gateway.refusals import NoteRefusal, Refused
from gateway.refusals.log import unnoted
from gateway.refusals.remedies import BROKEN, FAILED, NO_CONTEXT, TLS

_FLUSH_BYTES = 1 << 16
"""C-FIND answers are collected up to this size before they are sent, because they are many and small."""

_UID = re.compile(r"[0-9.]{1,64}")

log = structlog.get_logger()


@dataclass
class Acceptor:
    """One connection from accept to close. `stream` lets other threads end it."""

    wire: Transport
    address: str
    application: Application
    limits: ListenerLimits
    rejection: Callable[[negotiation.AssociateRequest], Rejection | None]
    """Why this association is not taken, or None if it is."""
    stopping: threading.Event
    note: NoteRefusal = unnoted
    at: str = ""
    """The address that was called."""
    messages: dimse.Messages = field(default_factory=dimse.Messages)
    contexts: dict[int, AcceptedContext] = field(default_factory=dict)
    peer_max_length: int = 0
    association: Association | None = None
    caller: str = ""
    """The calling AE title, as soon as it is known."""
    identity: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    log: structlog.stdlib.BoundLogger = field(default_factory=structlog.get_logger)
    _is_own_echo: bool = False
    _is_serving: bool = False
    _cancelled: int | None = None
    _incoming: Incoming | None = None
    _report_channel: ReportChannel | None = None

    def __post_init__(self) -> None:
        self.stream = Stream(self.wire, self.limits, self.stopping, is_between_messages=self._is_between_messages)

    def run(self) -> None:
        """Serve the connection until it ends, and log how it ended."""
        self.log = log.bind(association=self.identity, address=self.address)
        try:
            if self.stream.shake_hands():
                self.log = self.log.bind(**self.wire.described())
                self._serve_or_discard()
        except HandshakeFailed as error:
            self.log.warning("TLS handshake failed", reason=str(error))
            self.application.observer.turned_away(self.address, "", str(error))
            self._note("TLS", TLS, str(error))
            self.stream.close_with(b"")  # no PDU; the transport adds the alert of TLS
        except ProtocolError as error:
            self.log.warning("association aborted", reason=str(error))
            self._note("association", BROKEN, str(error))
            self.stream.close_with(pdu.pack_abort(source=2, reason=error.reason))
        except PeerGone as error:
            self.log.warning("association lost", reason=str(error))
        except Exception as error:  # noqa: BLE001  the thread must end in order, and the text may quote a data set
            self.log.error("association failed", error=type(error).__name__, place=place(error))
            self.stream.close_with(pdu.pack_abort(source=2, reason=AbortReason.NOT_SPECIFIED))
        finally:
            self.wire.close()
            if self.association is not None:
                self.application.observer.ended(self.association)

    def _is_between_messages(self) -> bool:
        return self.messages.is_between_messages and not self._is_serving

    def _serve_or_discard(self) -> None:
        try:
            self._serve()
        finally:
            if self._incoming is not None:
                self._incoming.discard()
            if self._report_channel is not None:
                self._report_channel.close()

    # ---- the association -------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        for event in self.stream.events():
            if isinstance(event, Fragment):
                self._take(event)
            elif isinstance(event, AssociateRequested):
                if not self._associate(event.body):
                    return
            elif isinstance(event, ReleaseRequested):
                self._log_usual("association released")
                self.stream.close_with(pdu.RELEASE_RESPONSE)
                return
            elif isinstance(event, Aborted):
                self.log.warning("association aborted by peer", source=event.source, reason=event.reason)
                return

    def _associate(self, body: bytes) -> bool:
        request = negotiation.parse_request(body)
        self.caller = request.calling_ae_title
        self.log = self.log.bind(calling_ae_title=self.caller)
        rejection = self.rejection(request)
        if rejection is not None:
            self.log.warning("association rejected", reason=rejection.sentence)
            if rejection.result == negotiation.PERMANENT:  # and not because there is no room now
                self.application.observer.turned_away(self.address, request.calling_ae_title, rejection.sentence)
            self._note("association", rejection.kind, rejection.sentence)
            self.stream.close_with(negotiation.encode_reject(rejection))
            return False
        accepted, items = negotiation.negotiate(request, self.application.supported())
        self.contexts = {context.context_id: context for context in accepted}
        self.peer_max_length = request.max_length
        self.association = Association(self.identity, request.calling_ae_title, request.called_ae_title, self.address)
        most = self.limits.max_pdu_bytes
        self.stream.send(negotiation.encode_accept(request, body, items, max_length=most, accepted=accepted))
        self.stream.established()
        self._is_own_echo = is_own_echo(request, self.address, self.at)
        self._log_usual("association accepted", **_offer(request, accepted))
        if useless := _useless(request, accepted):
            self._note("association", NO_CONTEXT, useless)
        return True

    def _log_usual(self, event: str, **facts: object) -> None:
        # The gateway's echo of its own port comes every minute, and would be most of the log.
        (self.log.debug if self._is_own_echo else self.log.info)(event, **facts)

    # ---- messages --------------------------------------------------------------------------------------------------

    def _take(self, fragment: Fragment) -> None:
        received = self.messages.feed(fragment)
        if isinstance(received, CommandReceived):
            self._begin(received)

    def _begin(self, received: CommandReceived) -> None:
        command, context = received.command, self.contexts.get(received.context_id)
        if context is None:
            raise ProtocolError(
                f"A message came in presentation context {received.context_id}, which was not accepted.",
                reason=AbortReason.INVALID_PARAMETER,
            )
        if command.command_field == CommandField.C_CANCEL:
            return  # its request has been answered meanwhile
        if event_reports.is_response(command) and self._report_channel is not None:
            self._take_answer(command, self._report_channel)
            return
        if command.command_field & dimse.RESPONSE or command.message_id is None:
            raise ProtocolError(f"Command field {command.command_field:04X}H is not a request with a message id.")
        self._cancelled = None
        if command.command_field == CommandField.C_STORE:
            self._store(self._request(command, context, b""))
        else:
            data_set = self._collect() if command.has_data_set else b""
            self._dispatch(self._request(command, context, data_set))

    def _take_answer(self, command: Command, report_channel: ReportChannel) -> None:
        if command.has_data_set:
            self._collect()  # an event reply, which is not needed: the status says it all
        report_channel.answered(command)

    def _request(self, command: Command, context: AcceptedContext, data_set: bytes) -> Request:
        assert self.association is not None and command.message_id is not None
        message_id = command.message_id
        return Request(
            association=self.association,
            context=context,
            command=command,
            data_set=data_set,
            is_cancelled=lambda: self._is_cancelled(message_id),
            report_channel=self._open_report_channel,
        )

    def _data(self) -> Iterator[memoryview]:
        """The pieces of the data set of the current message, as they come."""
        for event in self.stream.events():
            if not isinstance(event, Fragment):
                raise PeerGone("the association ended in the middle of a data set")
            received = self.messages.feed(event)
            if not isinstance(received, dimse.DataReceived):
                raise ProtocolError("A command came in the middle of a data set.")
            yield received.data
            if received.is_last:
                return

    def _collect(self) -> bytes:
        collected = bytearray()
        for data in self._data():
            # Checked piece by piece, because a peer never states the length of the whole.
            if len(collected) + len(data) > self.limits.data_set_bytes:
                raise ProtocolError(f"A data set is longer than {self.limits.data_set_bytes} bytes.")
            collected += data
        return bytes(collected)

    def _store(self, request: Request) -> None:
        """C-STORE (PS3.4 Annex B): stream the data set, then answer."""
        error = self._attempt(lambda: self._open_store(request))
        if request.command.has_data_set:
            # To its end even when it is refused, because the peer reads no answer before it has sent everything.
            for data in self._data():
                if error is None:
                    assert self._incoming is not None
                    error = self._attempt(partial(self._incoming.write, data))
        incoming, self._incoming = self._incoming, None
        if error is None and incoming is not None:
            error = self._attempt(incoming.finish)
        if error is None:  # Success only here: the object is durable once `finish` has returned
            self._answer(request, response(request.command, 0x0000))
            return
        if incoming is not None:
            incoming.discard()
        self._refuse(request, error)

    def _open_store(self, request: Request) -> None:
        handle = self.application.handle_store
        if handle is None:
            raise Unsupported("C-STORE is not served here.")
        if not request.command.has_data_set:
            raise InvalidDataSet("The C-STORE request has no data set.")
        self._incoming = handle(request)

    @staticmethod
    def _attempt(work: Callable[[], None]) -> Exception | None:
        """Do one step of a C-STORE; an error is returned, because the data set must be read before it is answered."""
        try:
            work()
        except Exception as error:  # noqa: BLE001  whatever a handler raises is answered
            return error
        return None

    def _dispatch(self, request: Request) -> None:
        self._is_serving = True
        try:
            self._send_answers(request)
        except (ProtocolError, PeerGone):
            raise
        except Exception as error:  # noqa: BLE001  whatever a handler raises is answered
            self._refuse(request, error)
        finally:
            self._is_serving = False

    def _send_answers(self, request: Request) -> None:
        """Send each answer at once, those of a query in batches."""
        sender = StoreSender(
            self.contexts.values(), max_length=self.peer_max_length, send=self.stream.send, answer=self._stored
        )
        out = bytearray()
        try:
            for answer, data_set in dispatch.answers(self.application, request, sender):
                out += self._packed_answer(request, answer, data_set)
                if len(out) >= _FLUSH_BYTES or request.command.command_field != CommandField.C_FIND:
                    self.stream.send(out)
                    out = bytearray()
        except Refusal:
            if out:  # a query that may have no more answers; those it had are answers
                self.stream.send(out)
            raise
        if out:
            self.stream.send(out)

    def _stored(self, message_id: int) -> Command:
        """Wait for the peer's response to a C-STORE of ours; a C-CANCEL may come before it."""
        for event in self.stream.events():
            if not isinstance(event, Fragment):
                raise PeerGone("the association ended in the middle of a retrieval")
            command = self._between_answers(event)
            if command is not None and command.message_id_being_responded_to == message_id:
                return command
        raise AssertionError("events never end")

    def _is_cancelled(self, message_id: int) -> bool:
        """Look, without waiting, whether the peer cancelled the request being served (PS3.7 9.3.2.3)."""
        while self._cancelled != message_id:
            event = self.stream.event_at_once()
            if event is None:
                return False
            if not isinstance(event, Fragment):
                raise PeerGone("the association ended while a request was being answered")
            self._between_answers(event)
        return True

    def _between_answers(self, fragment: Fragment) -> Command | None:
        """Take a message that may come while a request is served: its cancellation, or a response to us."""
        received = self.messages.feed(fragment)
        if not isinstance(received, CommandReceived):
            return None
        command = received.command
        if command.command_field == CommandField.C_CANCEL:
            self._cancelled = command.message_id_being_responded_to  # compared later: it may be of an earlier request
            return None
        if event_reports.is_response(command) and self._report_channel is not None:
            self._take_answer(command, self._report_channel)
            return None
        if command.command_field != CommandField.C_STORE | dimse.RESPONSE:
            raise ProtocolError("A new request came before the last one was answered.")
        return command

    # ---- reports ---------------------------------------------------------------------------------------------------

    def _open_report_channel(self) -> ReportChannel:
        if self._report_channel is None:
            self._report_channel = ReportChannel()
            self.stream.meanwhile = partial(self._report_or_wait, self._report_channel)
        return self._report_channel

    def _report_or_wait(self, report_channel: ReportChannel) -> None:
        """Wait for the peer's next message, or send it a pending report meanwhile (PS3.7 10.1.1)."""
        pending = report_channel.next(self.wire.fileno(), self.limits.idle_seconds)
        if pending is not None:
            self._report(*pending)

    def _report(self, message_id: int, report: EventReport) -> None:
        context = event_reports.reporting_context(report.sop_class_uid, self.contexts.values())
        assert context is not None  # the request to be reported on came in it
        self.stream.send(event_reports.packed(report, context, message_id=message_id, max_length=self.peer_max_length))

    # ---- answers ---------------------------------------------------------------------------------------------------

    def _refuse(self, request: Request, error: Exception) -> None:
        """Answer the peer, and log for the operator, why the request was not carried out."""
        command = request.command
        answer = failure(command, error)
        facts = {
            "command": dispatch.name(command.command_field),
            "sop_class_uid": _loggable(answer.affected_sop_class_uid),
            "sop_instance_uid": _loggable(answer.affected_sop_instance_uid),
            "status": f"{answer.status:04X}H",
        }
        if isinstance(error, Refusal):
            kind, reason = error.code, str(error)
            self.log.warning("request refused", reason=reason, **facts)
        else:
            kind, reason = FAILED, f"The gateway failed to serve it ({type(error).__name__}, {place(error)})."
            self.log.error("request failed", error=type(error).__name__, place=place(error), **facts)
        about = facts["sop_instance_uid"] or ""
        self._note(str(facts["command"]), kind, reason, status=str(facts["status"]), about=about)
        self._answer(request, answer)

    def _note(self, service: str, kind: str, sentence: str, *, status: str = "", about: str = "") -> None:
        self.note(Refused(service, kind, sentence, self.caller, self.address, status=status, about=about))

    def _answer(self, request: Request, answer: Command) -> None:
        self.stream.send(self._packed_answer(request, answer, None))

    def _packed_answer(self, request: Request, answer: Command, data_set: Dataset | bytes | None) -> bytes:
        packed = self._packed(request, _packed_command(answer), is_command=True)
        if data_set is None:
            return packed
        data = data_set if isinstance(data_set, bytes) else encode(data_set, request.transfer_syntax)
        return packed + self._packed(request, data, is_command=False)

    def _packed(self, request: Request, data: bytes, *, is_command: bool) -> bytes:
        context_id, most = request.context.context_id, self.peer_max_length
        return pdu.pack_data(context_id, data, is_command=is_command, max_length=most)


@lru_cache(maxsize=64)  # all pending answers of a query have the same command set
def _packed_command(answer: Command) -> bytes:
    return dimse.pack_command(answer)


def _loggable(uid: str | None) -> str | None:
    """A UID as the peer sent it, or a word for it."""
    # A value that is no UID may be anything of any length, a patient's name included.
    return uid if uid is None or _UID.fullmatch(uid) else "not a UID"


def _useless(request: negotiation.AssociateRequest, accepted: tuple[AcceptedContext, ...]) -> str:
    """Why the peer can do nothing but an echo on this association; '' when it can, or wants no more."""
    wanted = {context.abstract_syntax for context in request.contexts} - {VERIFICATION}
    if not wanted or any(context.abstract_syntax in wanted for context in accepted):
        return ""
    names = sorted(UID(uid).name if _UID.fullmatch(uid) else "not a UID" for uid in wanted)
    return f"Nothing the peer proposed is served here in a form it proposed: {', '.join(names[:4])}" + (
        f" and {len(names) - 4} more." if len(names) > 4 else "."
    )


def _offer(request: negotiation.AssociateRequest, accepted: tuple[AcceptedContext, ...]) -> dict[str, object]:
    """The proposed and the accepted contexts, for the log."""
    taken = {context.context_id for context in accepted}
    refused = [context for context in request.contexts if context.context_id not in taken]
    return {
        "implementation": request.implementation_version_name,
        "proposed": len(request.contexts),
        "accepted": sorted({f"{UID(context.transfer_syntax).name}" for context in accepted}),
        "refused": sorted({UID(context.abstract_syntax).name for context in refused})[:8],
        **({"user_identity": "not checked"} if request.names_user else {}),
    }
