"""The application behind a listener: its handlers, their requests, and the responses to them. No sockets.

`Application` holds the handlers of worklist or pacs; a handler gets a `Request` and returns, or raises a `Refusal`. The
functions at the end turn outcomes into responses: `failure` is the one place where an error becomes a DIMSE status.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset import character_sets as _character_sets  # noqa: F401  completes pydicom's tables
from gateway.dataset.data_sets import decode
from gateway.dicom.dimse import NO_DATA_SET, RESPONSE, Command, CommandField
from gateway.dicom.event_reports import ReportChannel
from gateway.dicom.negotiation import AcceptedContext, Supported
from gateway.dicom.store_suboperations import StoreSender
from gateway.errors import Refusal

VERIFICATION = "1.2.840.10008.1.1"

UNCOMPRESSED = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
"""Transfer syntaxes of everything that is not an image."""


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """The limits of one listener. Times in seconds, lengths in bytes."""

    associations: int = 32
    associations_per_peer: int = 16
    """With one address, and with one AE title."""
    echoes: int = 2
    """Associations beyond these two limits, if they propose Verification alone."""
    waiting: int = 128
    """Connections without an association, each a thread and a buffer of 1 MB. They do not count as associations."""
    waiting_per_peer: int = 32
    artim_seconds: float = 30.0
    """How long a connection may take to send its association request, and to close after the last PDU (PS3.8 9.1.5)."""
    idle_seconds: float = 300.0
    """How long an association may be silent; modalities keep one open during an exam."""
    max_pdu_bytes: int = 131_072
    """Offered to the peer. Larger brings nothing; some peers never send more than 16 kB."""
    data_set_bytes: int = 2 << 20
    """Largest data set that is collected in memory: queries, performed steps. 2 MB refer to ten thousand images, and
    decoded they can take eighty times as much and seconds of the process. C-STORE is streamed and has no limit."""


@dataclass(frozen=True, slots=True)
class Association:
    """The two AE titles and the peer's address; `id` is in all log lines of one association."""

    id: str
    calling_ae_title: str
    called_ae_title: str
    address: str


@dataclass(frozen=True, slots=True)
class Request:
    """One DIMSE request as a handler gets it. `data_set` is empty for C-STORE, which is streamed."""

    association: Association
    context: AcceptedContext
    command: Command
    data_set: bytes
    is_cancelled: Callable[[], bool]
    """Has the peer sent C-CANCEL for this request? To be called between answers."""
    report_channel: Callable[[], ReportChannel] = ReportChannel
    """Opens the channel for event reports to the peer, as long as its association lives."""

    @property
    def abstract_syntax(self) -> str:
        """The SOP class the presentation context was negotiated for."""
        return self.context.abstract_syntax

    @property
    def transfer_syntax(self) -> str:
        """The encoding of data sets in this presentation context."""
        return self.context.transfer_syntax

    def identifier(self) -> Dataset:
        """The decoded data set. Raises InvalidDataSet when it cannot be read."""
        return decode(self.data_set, self.transfer_syntax)


class Incoming(Protocol):
    """The receiver of one C-STORE's data set. `write` and `finish` may raise a Refusal."""

    def write(self, data: memoryview) -> None:
        """Take the next piece; it must be used up before this returns."""

    def finish(self) -> None:
        """End the data set. When this returns, Success is sent: the object must be safe."""

    def discard(self) -> None:
        """Remove all of it, because the transfer was cut off or refused. Never raises."""


@dataclass(frozen=True, slots=True)
class Match:
    """One pending answer of C-FIND: a data set, or its bytes in the transfer syntax of the request."""

    data_set: Dataset | bytes
    status: int = 0xFF00


@dataclass(frozen=True, slots=True)
class Progress:
    """The state of a C-GET or C-MOVE: the numbers of its sub-operations, and the status that goes with them.

    FF00 says that more follows; with any other status it is the last (PS3.4 C.4.2.1.5 to C.4.2.1.9).
    """

    remaining: int
    completed: int = 0
    warning: int = 0
    failed_uids: tuple[str, ...] = ()
    status: int = 0xFF00
    comment: str | None = None


class Observer(Protocol):
    """Observer of events for the audit trail that handlers do not see. Never waits, never raises."""

    def turned_away(self, address: str, ae_title: str, reason: str) -> None:
        """An association, or before it a TLS handshake, was refused because of the caller's identity."""

    def ended(self, association: Association) -> None:
        """An association that was accepted is over, however it ended."""


class NoObserver:
    """Null object for an application without an audit trail."""

    def turned_away(self, address: str, ae_title: str, reason: str) -> None: ...

    def ended(self, association: Association) -> None: ...


AttributesHandler = Callable[[Request], Dataset | None]
"""Serves N-CREATE, N-SET, N-GET or N-ACTION; returns the data set of the response, if it has one."""


@dataclass(frozen=True, slots=True)
class Application:
    """One AE: its title, the presentation contexts it accepts, and a handler for each service.

    C-ECHO needs neither a context nor a handler here.
    """

    ae_title: str
    contexts: Mapping[str, tuple[str, ...]]
    handle_store: Callable[[Request], Incoming] | None = None
    handle_find: Callable[[Request], Iterator[Match]] | None = None
    handle_create: AttributesHandler | None = None
    handle_set: AttributesHandler | None = None
    handle_get: AttributesHandler | None = None
    handle_action: AttributesHandler | None = None
    handle_retrieve: Callable[[Request, StoreSender], Iterator[Progress]] | None = None
    """Serves C-GET, storing with the sender, and C-MOVE, for which the sender is of no use."""
    reversible: Mapping[str, frozenset[str]] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)
    """Both as in `negotiation.Supported`."""
    observer: Observer = field(default_factory=NoObserver)
    """Records for the audit trail."""

    def supported(self) -> Supported:
        """The contexts to negotiate, with Verification."""
        return Supported({VERIFICATION: UNCOMPRESSED, **self.contexts}, self.reversible, self.extended)


def response(request: Command, status: int, *, has_data_set: bool = False) -> Command:
    """The response to a request: its class and instance come back as "affected" (PS3.7 Sections 9.3 and 10.3)."""
    return Command(
        command_field=request.command_field | RESPONSE,
        message_id_being_responded_to=request.message_id,
        command_data_set_type=0x0000 if has_data_set else NO_DATA_SET,
        affected_sop_class_uid=request.affected_sop_class_uid or request.requested_sop_class_uid,
        affected_sop_instance_uid=request.affected_sop_instance_uid or request.requested_sop_instance_uid,
        event_type_id=request.event_type_id,
        action_type_id=request.action_type_id,
        status=status,
    )


def progressed(request: Command, progress: Progress) -> tuple[Command, Dataset | None]:
    """The response with the progress of a retrieval; the last one has a data set that names the failed instances."""
    is_pending, is_cancelled = progress.status == 0xFF00, progress.status == 0xFE00
    failed = None  # the list belongs to the last response alone (PS3.4 C.4.2.1.4.2)
    if progress.failed_uids and not is_pending:
        failed = Dataset()
        failed.FailedSOPInstanceUIDList = list(progress.failed_uids)
    answer = replace(
        response(request, progress.status, has_data_set=failed is not None),
        number_of_remaining_suboperations=progress.remaining if is_pending or is_cancelled else None,
        number_of_completed_suboperations=progress.completed,
        number_of_failed_suboperations=len(progress.failed_uids),
        number_of_warning_suboperations=progress.warning,
        error_comment=progress.comment,
    )
    return answer, failed


_NORMALIZED = {0xA700: 0x0213, 0xA900: 0x0119, 0xC000: 0x0110}
"""Statuses of the composite services as the N-services say them (PS3.7 Annex C)."""

_STORAGE = {0x0111: 0xC111}
"""The other way round: C-STORE has no "duplicate SOP instance", only a range of its own for errors (PS3.4 B.2.3)."""


_NAMED_BY_TAG = frozenset({0x0105, 0x0120})
"""Statuses of the N-services that name the attribute in an Attribute Identifier List; Offending Element is a field of
the composite services (PS3.7 C.5)."""


def failure(request: Command, error: Exception) -> Command:
    """The response to a request that was not carried out, with the reason."""
    if isinstance(error, Refusal):
        status, comment, error_id = error.dimse_status, error.comment, error.error_id
    else:  # without the error's text, which may quote a data set
        status, comment, error_id = 0xC000, "Internal error of the gateway; see its log.", None
    if is_normalized(request):
        status = _NORMALIZED.get(status, status)
    elif request.command_field == CommandField.C_STORE:
        status = _STORAGE.get(status, status)
    offending = (error.offending or None) if isinstance(error, Refusal) else None
    return replace(
        response(request, status),
        error_comment=comment,
        error_id=error_id,
        offending_element=offending,
        attribute_identifier_list=offending if status in _NAMED_BY_TAG else None,
    )


def is_normalized(request: Command) -> bool:
    """Is it one of the N-services (PS3.7 Section 10)?"""
    return CommandField.N_EVENT_REPORT <= request.command_field <= CommandField.N_DELETE
