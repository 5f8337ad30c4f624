"""All errors of this product in one tree. An error carries the statuses that its boundary translates it into.

GatewayError
├── SettingsError            a variable is missing or wrong                      exit code 78
├── DatabaseNotReady         a database is not at the schema this code needs     the caller waits or ends
├── ProtocolError            a DICOM peer broke PS3.8 or PS3.7                   the association is aborted
├── HandshakeFailed          TLS was not agreed on with a peer                   the connection is closed
├── PeerError                a DICOM application we call failed us              reported to the requestor of the call
├── CloudError               a destination did not take an event                 retried, or parked if permanent
├── HeldBack                 an event may not leave until a person says so       parked, until that person releases it
└── Refusal                  a request of a peer is refused                      DIMSE status, HTTP status, code
    ├── InvalidQuery         ├── InvalidDataSet     ├── ClassMismatch
    ├── InvalidValue         ├── MissingAttribute   ├── MissingValue       ├── NotAllowed
    ├── NotFound             ├── Conflict           ├── NoLongerUpdatable
    ├── OutOfResources       ├── NotAcceptable      ├── Unsupported
    │   └── Unsettled      └── TooLarge
    └── UnknownDestination   └── NoSuchAction       └── DuplicateTransaction
    └── AuditNotWritten      └── Denied             (access over HTTP)

Messages are sentences for people: the fault, the object, what was expected, what to do. They never hold patient data:
name the attribute, not its value; UIDs and accession numbers are allowed.
"""

import traceback
from collections.abc import Mapping
from typing import ClassVar

ERROR_COMMENT_LENGTH = 64
"""Most characters of Error Comment (0000,0902), VR LO, PS3.7 Annex C."""


class GatewayError(Exception):
    """Root of the tree; never raised itself."""


class SettingsError(GatewayError):
    """A setting is missing or wrong; the process ends with exit code 78 (EX_CONFIG)."""


class DatabaseNotReady(GatewayError):
    """The database does not have the schema this code needs; its owner has to start (and migrate) first."""


class ProtocolError(GatewayError):
    """A peer broke the upper layer or DIMSE protocol; the association cannot go on.

    `reason` is the A-ABORT reason of PS3.8 Table 9-26 (source: service provider).
    """

    def __init__(self, message: str, *, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason


class HandshakeFailed(GatewayError):
    """TLS was not agreed on with a peer; the connection cannot be used."""


class PeerError(GatewayError):
    """A DICOM application that we call cannot be reached, refuses, or breaks off; the message says which and how."""


class CloudError(GatewayError):
    """A destination did not take an event.

    `permanent`: the same event can never succeed, so it is parked. `doubtful`: the destination gives the same answer
    whether it can or cannot, so it is tried again, and parked when it alone goes on failing.
    """

    def __init__(self, message: str, *, permanent: bool, doubtful: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.doubtful = doubtful


class HeldBack(GatewayError):
    """An event may not leave until a person releases it; the message says why, and which role may."""


class Refusal(GatewayError):
    """A peer's request is refused; the peer gets the status and the sentence, the operator gets the log line.

    `dimse_status` is PS3.7 Annex C or the service's own table in PS3.4, `http_status` PS3.18 Section 8,
    `code` the word in JSON answers, `error_id` goes into Error ID (0000,0903), `offending` lists the tags for
    Offending Element (0000,0901) or Attribute Identifier List.
    """

    dimse_status: ClassVar[int] = 0x0110
    http_status: ClassVar[int] = 400
    code: ClassVar[str] = "refused"
    error_id: ClassVar[int | None] = None

    def __init__(self, message: str, *, offending: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.offending = offending

    @property
    def comment(self) -> str:
        """The message as Error Comment: at most 64 characters of the default repertoire."""
        plain = str(self).encode("ascii", "replace").decode()
        return plain if len(plain) <= ERROR_COMMENT_LENGTH else plain[: ERROR_COMMENT_LENGTH - 3] + "..."

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments do not survive the default pickling; rendering errors cross a process border.
        return _rebuild, (type(self), str(self), self.offending)


def _rebuild(kind: type[Refusal], message: str, offending: tuple[int, ...]) -> Refusal:
    return kind(message, offending=offending)


class InvalidQuery(Refusal):
    """An identifier or query string cannot be understood (PS3.4 C.4.1.1.4: A900)."""

    dimse_status, http_status, code = 0xA900, 400, "invalid_query"


class InvalidDataSet(Refusal):
    """A data set cannot be read or lacks what identifies it (PS3.4 B.2.3: Cxxx cannot understand)."""

    dimse_status, http_status, code = 0xC000, 400, "invalid_data_set"


class ClassMismatch(Refusal):
    """A data set is not of the SOP class or instance it was announced as (PS3.4 B.2.3: A9xx)."""

    dimse_status, http_status, code = 0xA900, 409, "class_mismatch"


class InvalidValue(Refusal):
    """An attribute's value is out of range (PS3.7 C.5.12: 0106)."""

    dimse_status, http_status, code = 0x0106, 400, "invalid"


class MissingAttribute(Refusal):
    """A required attribute is absent (PS3.7 C.5.15: 0120)."""

    dimse_status, http_status, code = 0x0120, 400, "missing_attribute"


class MissingValue(Refusal):
    """A required attribute has no value (PS3.7 C.5.16: 0121)."""

    dimse_status, http_status, code = 0x0121, 400, "missing_value"


class NotAllowed(Refusal):
    """An attribute may not be given here (PS3.7 C.5.21: 0105 no such attribute)."""

    dimse_status, http_status, code = 0x0105, 400, "not_allowed"


class NotFound(Refusal):
    """Nothing is known under this identifier (PS3.7 C.5.20: 0112 no such SOP instance)."""

    dimse_status, http_status, code = 0x0112, 404, "not_found"


class Conflict(Refusal):
    """Something different is already known under this identifier (PS3.7 C.5.10: 0111 duplicate SOP instance)."""

    dimse_status, http_status, code = 0x0111, 409, "conflict"


class NoLongerUpdatable(Refusal):
    """The performed procedure step is in a final state (PS3.4 F.7.2.2.4: 0110 with Error ID A710)."""

    dimse_status, http_status, code, error_id = 0x0110, 409, "final", 0xA710


class OutOfResources(Refusal):
    """There is no room to keep it now; the peer should try again later (PS3.4 B.2.3: A700)."""

    dimse_status, http_status, code = 0xA700, 507, "out_of_resources"


class Unsettled(OutOfResources):
    """A commit could not be synced: the change is not there now, and may yet be there after the next start.

    A caller that keeps a file beside the database leaves it as it is; the next start finds out.
    """

    # SQLite's log may hold the whole change, which the next process to open the database then reads. Taking the file
    # of a receipt back, as after any other failure, would leave a row without a file.


class NotAcceptable(Refusal):
    """It cannot be given in the requested form (PS3.7 C.5.19: 0122; PS3.18: 406)."""

    dimse_status, http_status, code = 0x0122, 406, "not_acceptable"


class TooLarge(Refusal):
    """A request has more in it than is read here (PS3.7 C.5.25: 0213 resource limitation; RFC 9110: 413)."""

    dimse_status, http_status, code = 0x0213, 413, "too_large"


class Unsupported(Refusal):
    """The operation or action is not one we know (PS3.7 C.5.25: 0211 unrecognized operation)."""

    dimse_status, http_status, code = 0x0211, 400, "unsupported"


class UnknownDestination(Refusal):
    """The destination of a C-MOVE is not one of the configured peers (PS3.4 C.4.2.1.5: A801)."""

    dimse_status, http_status, code = 0xA801, 404, "unknown_destination"


class NoSuchAction(Refusal):
    """The action is not one of this SOP class (PS3.7 C.5.17: 0123)."""

    dimse_status, http_status, code = 0x0123, 400, "no_such_action"


class DuplicateTransaction(Refusal):
    """The Transaction UID is in use for something else (PS3.3 C.14.1.1: 0131, here as the status of the N-ACTION)."""

    dimse_status, http_status, code = 0x0131, 409, "duplicate_transaction"


class AuditNotWritten(Refusal):
    """An access cannot be recorded in the audit trail, so it may not happen."""

    dimse_status, http_status, code = 0xA700, 503, "audit_not_written"


class Denied(Refusal):
    """An HTTP client is not known, may not do this, or calls too often; `http_headers` go with the answer."""

    def __init__(self, message: str, *, status: int, code: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.word, self.http_headers = status, code, dict(headers or {})


def place(error: BaseException) -> str:
    """Where an error was raised: file, line and function."""
    # Without its text, which may quote values of a data set.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}"
