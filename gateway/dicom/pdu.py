"""PDU codec and state of the DICOM upper layer (PS3.8 Section 9): bytes in, events out. No sockets, no clock.

`Reader` owns one buffer. The caller gets free `space`, receives into it, reports the number of bytes with `received`,
and takes events until there are none. Fragments of a data set are views into that buffer, handed out as they arrive, so
an object of any size passes through a fixed amount of memory.

A PDU that the table `_EXPECTED` does not have for the state raises ProtocolError, and so does a length out of bounds.
Not for: waiting (`pdu_stream`), contexts (`negotiation`), messages (`dimse`).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import BinaryIO, NamedTuple

from gateway.errors import ProtocolError

BUFFER_BYTES = 1 << 20
"""One receive buffer: large enough that a system call brings many PDUs, small enough for the processor's cache."""

LARGEST_ASSOCIATE_REQUEST = 1 << 19
"""Bytes. 128 presentation contexts with every transfer syntax there is, and a user identity, need less than half."""

_BATCH_BYTES = 1 << 20
"""How much of a data set is read and handed to the socket at once; large enough that system calls do not count."""

_LARGEST_SENT_PDU = 1 << 17
"""Also to peers that state no limit, because some of them have one."""

_LEAST_SPACE = 1 << 12
_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")


class PduType(IntEnum):
    """PS3.8 Section 9.3."""

    ASSOCIATE_RQ = 0x01
    ASSOCIATE_AC = 0x02
    ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    RELEASE_RQ = 0x05
    RELEASE_RP = 0x06
    ABORT = 0x07


class AbortReason(IntEnum):
    """A-ABORT reasons of the service provider, PS3.8 Table 9-26."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class AssociationState(Enum):
    """The state of an association; the names of PS3.8 Table 9-10."""

    AWAITING_REQUEST = auto()  # Sta2
    AWAITING_ANSWER = auto()  # Sta5, of an association that we start
    ESTABLISHED = auto()  # Sta6
    AWAITING_RELEASE = auto()  # Sta7
    AWAITING_CLOSE = auto()  # Sta13


# PS3.8 Table 9-10, without the states that only wait for a local decision.
_EXPECTED: dict[AssociationState, frozenset[int]] = {
    AssociationState.AWAITING_REQUEST: frozenset({PduType.ASSOCIATE_RQ, PduType.ABORT}),
    AssociationState.ESTABLISHED: frozenset({PduType.P_DATA_TF, PduType.RELEASE_RQ, PduType.ABORT}),
    AssociationState.AWAITING_ANSWER: frozenset({PduType.ASSOCIATE_AC, PduType.ASSOCIATE_RJ, PduType.ABORT}),
    AssociationState.AWAITING_RELEASE: frozenset({PduType.P_DATA_TF, PduType.RELEASE_RP, PduType.ABORT}),
    AssociationState.AWAITING_CLOSE: frozenset({PduType.ABORT}),
}


class Fragment(NamedTuple):
    """A piece of a presentation data value (PS3.8 Annex E). `data` is valid until `space` is asked for again.

    `is_last` is true for the last piece of the last PDV of a command set or data set.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


@dataclass(frozen=True, slots=True)
class AssociateRequested:
    """An A-ASSOCIATE-RQ; `body` is everything behind the PDU's header."""

    body: bytes


@dataclass(frozen=True, slots=True)
class AssociateAccepted:
    """An A-ASSOCIATE-AC; `body` is everything behind the PDU's header."""

    body: bytes


@dataclass(frozen=True, slots=True)
class AssociateRejected:
    """An A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class ReleaseRequested:
    """An A-RELEASE-RQ."""


@dataclass(frozen=True, slots=True)
class Released:
    """An A-RELEASE-RP."""


@dataclass(frozen=True, slots=True)
class Aborted:
    """An A-ABORT from the peer: source 0 is its user, 2 its provider."""

    source: int
    reason: int


PduEvent = Fragment | AssociateRequested | AssociateAccepted | AssociateRejected | ReleaseRequested | Released | Aborted


class _Part(Enum):
    PDU_HEADER = auto()
    PDV_HEADER = auto()
    PDV_DATA = auto()
    COLLECTED = auto()


class Reader:
    """Turns the byte stream of one association into events."""

    def __init__(self, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        self.state = AssociationState.AWAITING_REQUEST
        self._buffer = bytearray(buffer_bytes)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._part = _Part.PDU_HEADER
        self._pdu_left = 0
        self._pdv_left = 0
        self._context_id = 0
        self._is_command = False
        self._is_last = False
        self._pdu_type = 0
        self._collected = bytearray()

    def space(self) -> memoryview:
        """Free room to receive into. Fragments handed out before are no longer valid."""
        if self._start == self._end:
            self._start = self._end = 0
        elif len(self._buffer) - self._end < _LEAST_SPACE:  # then what is left is a header at most, and cheap to move
            rest = bytes(self._view[self._start : self._end])
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """Report that `count` bytes were put at the front of the last `space`."""
        self._end += count

    def events(self) -> Iterator[PduEvent]:
        """The events so far; ends when more bytes are needed. Raises ProtocolError when the stream is broken."""
        while (event := self.next_event()) is not None:
            yield event

    def next_event(self) -> PduEvent | None:
        """The next event, or None when more bytes are needed first. Raises ProtocolError when the stream is broken."""
        while True:
            part = self._part
            if part is _Part.PDV_DATA:
                if self._start < self._end or self._pdv_left == 0:
                    return self._fragment()
                return None
            if part is _Part.PDV_HEADER:
                if not self._read_pdv_header():
                    return None
            elif part is _Part.PDU_HEADER:
                if not self._read_pdu_header():
                    return None
            else:
                return self._collect()

    def _read_pdu_header(self) -> bool:
        if self._end - self._start < _HEADER.size:
            return False
        kind, length = _HEADER.unpack_from(self._buffer, self._start)
        self._start += _HEADER.size
        self._check_pdu(kind, length)
        self._pdu_type, self._pdu_left = kind, length
        self._part = _Part.PDV_HEADER if kind == PduType.P_DATA_TF else _Part.COLLECTED
        return True

    def _check_pdu(self, kind: int, length: int) -> None:
        if kind not in PduType.__members__.values():
            meaning = _OTHER_PROTOCOLS.get(kind, "") if self.state is AssociationState.AWAITING_REQUEST else ""
            raise ProtocolError(f"PDU type {kind:02X}H does not exist{meaning}.", reason=AbortReason.UNRECOGNIZED_PDU)
        if kind not in _EXPECTED[self.state]:
            raise ProtocolError(
                f"A PDU of type {kind:02X}H is not expected while {self.state.name.lower().replace('_', ' ')}.",
                reason=AbortReason.UNEXPECTED_PDU,
            )
        # Before a byte of it is kept, because only data is streamed; the rest is collected in memory.
        least, most = _LENGTHS[kind]
        if not least <= length <= most:
            raise ProtocolError(
                f"A PDU of type {kind:02X}H states a length of {length} bytes; {least} to {most} are allowed.",
                reason=AbortReason.INVALID_PARAMETER,
            )

    def _read_pdv_header(self) -> bool:
        if self._pdu_left == 0:
            self._part = _Part.PDU_HEADER
            return True
        if self._end - self._start < _PDV_HEADER.size:
            return False
        length, self._context_id, control = _PDV_HEADER.unpack_from(self._buffer, self._start)
        # What follows the PDV in its PDU is nothing, or at least the header of another one.
        if length < 2 or length + 4 > self._pdu_left or 0 < self._pdu_left - length - 4 < _PDV_HEADER.size:
            raise ProtocolError(
                f"A presentation data value of {length} bytes does not fit into the {self._pdu_left} left of its PDU.",
                reason=AbortReason.INVALID_PARAMETER,
            )
        self._start += _PDV_HEADER.size
        self._pdu_left -= length + 4
        self._pdv_left = length - 2
        self._is_command, self._is_last = bool(control & 1), bool(control & 2)
        self._part = _Part.PDV_DATA
        return True

    def _fragment(self) -> Fragment:
        start = self._start
        count = min(self._pdv_left, self._end - start)
        self._start = start + count
        self._pdv_left -= count
        if self._pdv_left:
            return Fragment(self._context_id, self._is_command, False, self._view[start : start + count])
        self._part = _Part.PDV_HEADER
        return Fragment(self._context_id, self._is_command, self._is_last, self._view[start : start + count])

    def _collect(self) -> PduEvent | None:
        count = min(self._pdu_left, self._end - self._start)
        self._collected += self._view[self._start : self._start + count]
        self._start += count
        self._pdu_left -= count
        if self._pdu_left:
            return None
        body, self._collected = bytes(self._collected), bytearray()
        self._part = _Part.PDU_HEADER
        return _COLLECTED[self._pdu_type](body)


_COLLECTED: dict[int, Callable[[bytes], PduEvent]] = {
    PduType.ASSOCIATE_RQ: AssociateRequested,
    PduType.ASSOCIATE_AC: AssociateAccepted,
    PduType.ASSOCIATE_RJ: lambda body: AssociateRejected(body[1], body[2], body[3]),
    PduType.RELEASE_RQ: lambda _: ReleaseRequested(),
    PduType.RELEASE_RP: lambda _: Released(),
    PduType.ABORT: lambda body: Aborted(source=body[2], reason=body[3]),
}

_LENGTHS: dict[int, tuple[int, int]] = {
    PduType.ASSOCIATE_RQ: (68, LARGEST_ASSOCIATE_REQUEST),
    PduType.ASSOCIATE_AC: (68, LARGEST_ASSOCIATE_REQUEST),
    PduType.ASSOCIATE_RJ: (4, 4),
    # Not held against the maximum we offered: it is streamed, costs nothing, and peers that overstep it exist.
    PduType.P_DATA_TF: (6, 0xFFFFFFFF),
    PduType.RELEASE_RQ: (4, 4),
    PduType.RELEASE_RP: (4, 4),
    PduType.ABORT: (4, 4),
}
"""Least and most bytes behind the header of a PDU."""

RELEASE_REQUEST = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
_OTHER_PROTOCOLS = {
    0x16: "; it is how TLS begins: switch TLS off at the peer, or set GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY",
    ord("G"): "; it is how HTTP begins",
}
"""First bytes of other protocols."""

RELEASE_RESPONSE = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"


def pack_abort(*, source: int, reason: int) -> bytes:
    """An A-ABORT (PS3.8 9.3.8); source 0 is the service user, 2 the service provider."""
    return b"\x07\x00\x00\x00\x00\x04\x00\x00" + bytes((source, reason))


def pack_data(context_id: int, data: bytes, *, is_command: bool, max_length: int) -> bytes:
    """Cut one command set or data set into P-DATA-TF PDUs of at most `max_length` bytes each (PS3.8 9.3.5, D.1).

    `max_length` is what the peer stated, at least 12; 0 means that the peer sets no limit.
    """
    room = (max_length - _PDV_HEADER.size) if max_length else max(len(data), 1)
    kind = 1 if is_command else 0
    if len(data) <= room:
        return _HEADER.pack(4, len(data) + 6) + _PDV_HEADER.pack(len(data) + 2, context_id, kind | 2) + data
    parts = []
    for start in range(0, len(data), room):
        piece = data[start : start + room]
        last = 2 if start + room >= len(data) else 0
        parts.append(
            _HEADER.pack(4, len(piece) + 6) + _PDV_HEADER.pack(len(piece) + 2, context_id, kind | last) + piece
        )
    return b"".join(parts)


def pack_stream(context_id: int, source: BinaryIO, size: int, *, max_length: int) -> Iterator[bytes]:
    """Cut a data set of `size` bytes into P-DATA-TF PDUs as `pack_data` does, about a megabyte of them at a time.

    Raises ProtocolError when `source` ends before: what has been sent of the data set cannot be taken back.
    """
    room = min(max_length or _LARGEST_SENT_PDU, _LARGEST_SENT_PDU) - _PDV_HEADER.size
    batch = max(1, _BATCH_BYTES // room) * room
    left = max(size, 0)
    while True:
        data = source.read(min(batch, left))
        left -= len(data)
        if left and len(data) < batch:
            raise ProtocolError("An object that was being sent ends before it should.")
        yield b"".join(
            _HEADER.pack(4, len(piece) + 6)
            + _PDV_HEADER.pack(len(piece) + 2, context_id, 0 if left or start + room < len(data) else 2)
            + piece
            for start in range(0, max(len(data), 1), room)
            for piece in (data[start : start + room],)
        )
        if not left:
            return
