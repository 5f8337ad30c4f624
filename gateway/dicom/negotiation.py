"""Association negotiation (PS3.8 Sections 7.1 and 9.3.2-4, PS3.7 Annex D): request in, answer out. Pure.

Both roles: as the acceptor, a request is read and every presentation context decided on; as the requestor, a request is
written and the answer read. The tests compare it with pynetdicom.

Not for: which callers are accepted (`gateway.dicom.admission`).
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from gateway.dicom.pdu import AbortReason, PduType
from gateway.errors import ProtocolError

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLEMENTATION_CLASS_UID = "2.25.188031452790157226412061543930861429871"
IMPLEMENTATION_VERSION_NAME = "SCREENING_GW_01"
"""At most 16 characters, PS3.7 D.3.3.2.3. Both stand in every stored file too, so they never change with a release: the
same data set has to make the same file."""

LEAST_MAX_LENGTH = 12
"""A peer that can take less than this cannot be sent even a single byte of data."""

_ITEM = struct.Struct(">BxH")
_TITLE = slice(4, 20), slice(20, 36)


@dataclass(frozen=True, slots=True)
class ProposedContext:
    """A presentation context as the peer offers it (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    """A presentation context both sides use."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    peer_is_scp: bool = False
    """May we send it requests of this class (role selection, PS3.7 D.3.3.4)? So for the sub-operations of C-GET.
    Where it is not the SCP, we are, and report events to it (PS3.7 10.1.1)."""
    extended: bytes = b""
    """The extended negotiation of the class that both sides can do (PS3.7 D.3.3.5)."""


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ. `max_length` is the largest PDU the peer takes, 0 for no limit."""

    called_ae_title: str
    calling_ae_title: str
    application_context: str
    contexts: tuple[ProposedContext, ...]
    max_length: int
    implementation_class_uid: str
    implementation_version_name: str
    roles: tuple[tuple[str, bool, bool], ...]
    """SOP class, does the peer offer to be SCU, to be SCP (PS3.7 D.3.3.4)."""
    extended: tuple[tuple[str, bytes], ...] = ()
    """SOP class and its service class application information (PS3.7 D.3.3.5)."""
    protocol_version: int = 1
    """One bit for each version the peer speaks; there is only the first (PS3.8 Table 9-11)."""
    asks_for_window: bool = False
    """Does it propose asynchronous operations (PS3.7 D.3.3.3)?"""
    names_user: bool = False
    """Does it name a user (PS3.7 D.3.3.7)? The identity is not checked, and gets no positive response here."""


PERMANENT = 1
"""Result of a rejection that another try will not change (PS3.8 Table 9-21)."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is not taken: result, source and reason of PS3.8 Table 9-21, a sentence for people."""

    result: int
    source: int
    reason: int
    sentence: str

    @property
    def kind(self) -> str:
        """The word by which refusals are counted and remedies found (`gateway.refusals`)."""
        return _KINDS.get((self.source, self.reason), "rejected")


_KINDS = {
    (1, 2): "application_context",
    (1, 3): "calling_ae_title",
    (1, 7): "called_ae_title",
    (2, 2): "protocol_version",
    (3, 2): "no_room",
}
"""Source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""


def parse_request(body: bytes) -> AssociateRequest:
    """Read an A-ASSOCIATE-RQ (what stands behind the PDU header).

    Raises ProtocolError when a length leads outside its item or a context is proposed twice or with an even number.
    """
    # By hand, because pynetdicom makes an object of every item: 15 ms for 128 contexts, and 1 ms here.
    contexts: list[ProposedContext] = []
    application_context = ""
    user_items: dict[int, bytes] = {}
    roles: list[tuple[str, bool, bool]] = []
    extended: list[tuple[str, bytes]] = []
    for kind, value in _items(body, 68):
        if kind == 0x20:
            contexts.append(_proposed_context(value))
        elif kind == 0x10:
            application_context = _uid(value)
        elif kind == 0x50:
            for sub_kind, sub_value in _items(value, 0):
                user_items[sub_kind] = sub_value
                if sub_kind == 0x54:
                    roles.append(_role(sub_value))
                elif sub_kind == 0x56:
                    extended.append(_extended(sub_value))
    if len({context.context_id for context in contexts}) != len(contexts):
        raise ProtocolError("Two presentation contexts have the same number.", reason=AbortReason.INVALID_PARAMETER)
    return AssociateRequest(
        called_ae_title=_title(body[_TITLE[0]]),
        calling_ae_title=_title(body[_TITLE[1]]),
        application_context=application_context,
        contexts=tuple(contexts),
        max_length=_max_length(user_items.get(0x51)),
        implementation_class_uid=_uid(user_items.get(0x52, b"")),
        implementation_version_name=_title(user_items.get(0x55, b"")),
        roles=tuple(roles),
        extended=tuple(extended),
        protocol_version=int.from_bytes(body[:2], "big"),
        asks_for_window=0x53 in user_items,
        names_user=0x58 in user_items,
    )


@dataclass(frozen=True, slots=True)
class Supported:
    """The contexts that one application accepts.

    `contexts` are SOP classes with their transfer syntaxes. `reversible`: a class that, once accepted, lets the peer be
    SCP of others, as C-GET does with storage. `extended`: the supported part of a class's extended negotiation.
    """

    contexts: Mapping[str, tuple[str, ...]]
    reversible: Mapping[str, frozenset[str]] = field(default_factory=dict)
    extended: Mapping[str, bytes] = field(default_factory=dict)


def negotiate(request: AssociateRequest, supported: Supported) -> tuple[tuple[AcceptedContext, ...], bytes]:
    """Decide on every proposed context: those accepted, and the items that answer all of them (PS3.8 9.3.3.2)."""
    extended = {uid: _common(theirs, supported.extended.get(uid, b"")) for uid, theirs in request.extended}
    reversed_ = _reversed(request, supported)
    accepted = []
    items = []
    for context in request.contexts:
        uid = context.abstract_syntax
        ours = supported.contexts.get(uid, ())
        chosen = _chosen(context, ours, EXPLICIT_VR_LITTLE_ENDIAN if uid in reversed_ else "")
        result = 0 if chosen else 4 if ours else 3  # PS3.8 Table 9-18: no transfer syntax of ours, no such class
        if chosen:
            accepted.append(AcceptedContext(context.context_id, uid, chosen, uid in reversed_, extended.get(uid, b"")))
        # A refused context also names a transfer syntax, whose value means nothing (PS3.8 9.3.3.2).
        syntax = chosen or next(iter(context.transfer_syntaxes), "")
        items.append(
            _item(0x21, bytes((context.context_id, 0, result, 0)) + _item(0x40, syntax.encode("ascii", "replace")))
        )
    return tuple(accepted), b"".join(items)


def encode_accept(
    request: AssociateRequest,
    body: bytes,
    context_items: bytes,
    *,
    max_length: int,
    accepted: Collection[AcceptedContext] = (),
) -> bytes:
    """The A-ASSOCIATE-AC (PS3.8 9.3.3). `body` is that of the request: its titles are sent back as they came.

    Role selection is answered for each class the peer proposed: it may be SCU where it offers to, and SCP where that
    was negotiated.
    """
    scps = {context.abstract_syntax for context in accepted if context.peer_is_scp}
    roles = b"".join(
        _item(0x54, _counted_uid(uid) + bytes((scu, scp and uid in scps))) for uid, scu, scp in request.roles
    )
    extended = {context.abstract_syntax: context.extended for context in accepted if context.extended}
    user = _item(0x51, struct.pack(">I", max_length)) + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
    user += _item(0x53, struct.pack(">HH", 1, 1)) if request.asks_for_window else b""  # one after the other
    user += roles
    user += _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    user += b"".join(_item(0x56, _counted_uid(uid) + information) for uid, information in extended.items())
    items = _item(0x10, APPLICATION_CONTEXT.encode()) + context_items + _item(0x50, user)
    return _pdu(PduType.ASSOCIATE_AC, struct.pack(">HH", 1, 0) + body[4:68] + items)


def encode_reject(rejection: Rejection) -> bytes:
    """The A-ASSOCIATE-RJ (PS3.8 9.3.4)."""
    return _pdu(PduType.ASSOCIATE_RJ, bytes((0, rejection.result, rejection.source, rejection.reason)))


def encode_request(
    contexts: Sequence[ProposedContext],
    *,
    called_ae_title: str,
    calling_ae_title: str,
    max_length: int,
    scp_of: Collection[str] = (),
) -> bytes:
    """The A-ASSOCIATE-RQ of an association that we start (PS3.8 9.3.2).

    `scp_of` are the classes of which we offer to be SCP, and not SCU (PS3.7 D.3.3.4): those of events that we report.
    """
    titles = b"".join(f"{title:<16}".encode("ascii", "replace") for title in (called_ae_title, calling_ae_title))
    proposed = b"".join(
        _item(
            0x20,
            bytes((context.context_id, 0, 0, 0))
            + _item(0x30, context.abstract_syntax.encode())
            + b"".join(_item(0x40, syntax.encode()) for syntax in context.transfer_syntaxes),
        )
        for context in contexts
    )
    user = _item(0x51, struct.pack(">I", max_length)) + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
    user += b"".join(_item(0x54, _counted_uid(uid) + bytes((0, 1))) for uid in scp_of)
    user += _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
    items = _item(0x10, APPLICATION_CONTEXT.encode()) + proposed + _item(0x50, user)
    return _pdu(PduType.ASSOCIATE_RQ, struct.pack(">HH", 1, 0) + titles + bytes(32) + items)


def parse_accept(
    body: bytes, proposed: Sequence[ProposedContext], *, scp_of: Collection[str] = ()
) -> tuple[tuple[AcceptedContext, ...], int]:
    """Read an A-ASSOCIATE-AC: the contexts the peer accepted, and the largest PDU it takes (0: any).

    `scp_of` are the classes of which we offered to be SCP (`encode_request`); of those that are granted, the peer is
    not. Raises ProtocolError when it is not an A-ASSOCIATE-AC, or accepts what was not proposed.
    """
    classes = {context.context_id: context for context in proposed}
    chosen: list[tuple[ProposedContext, str]] = []
    user: list[tuple[int, bytes]] = []
    for kind, value in _items(body, 68):
        if kind == 0x21 and len(value) >= 4 and value[2] == 0:
            syntax = next((_uid(name) for sub_kind, name in _items(value, 4) if sub_kind == 0x40), "")
            context = classes.get(value[0])
            if context is None or syntax not in context.transfer_syntaxes:
                raise ProtocolError("The peer accepted a presentation context that was not proposed.")
            chosen.append((context, syntax))
        elif kind == 0x50:
            user = list(_items(value, 0))
    ours = _granted(user, scp_of)
    accepted = tuple(
        AcceptedContext(
            context.context_id, context.abstract_syntax, syntax, peer_is_scp=context.abstract_syntax not in ours
        )
        for context, syntax in chosen
    )
    return accepted, _max_length(dict(user).get(0x51))


def _granted(user: Iterable[tuple[int, bytes]], scp_of: Collection[str]) -> frozenset[str]:
    """The classes of which the peer lets us be SCP; where it says nothing, it is (PS3.7 D.3.3.4)."""
    if not scp_of:  # an answer to nothing is not read, so that an error in it ends no association
        return frozenset()
    roles = [_role(value) for kind, value in user if kind == 0x54]
    return frozenset(uid for uid, _, scp in roles if scp and uid in scp_of)


def _reversed(request: AssociateRequest, supported: Supported) -> frozenset[str]:
    """The classes of which the peer offers to be SCP and may: another class that is accepted needs it."""
    allowed = {
        uid
        for context in request.contexts
        if _chosen(context, supported.contexts.get(context.abstract_syntax, ()), "")
        for uid in supported.reversible.get(context.abstract_syntax, ())
    }
    return frozenset(uid for uid, _, scp in request.roles if scp and uid in allowed)


def _chosen(context: ProposedContext, ours: Collection[str], preferred: str) -> str:
    # `preferred` is for C-GET, where the peer receives: everything can be made Explicit VR Little Endian, but not
    # everything can be made the syntax the peer lists first.
    if preferred in ours and preferred in context.transfer_syntaxes:
        return preferred
    # Otherwise the first of the peer's list that we accept: the order is the only wish it can express, and an object is
    # kept as it was sent, so this side prefers none.
    return next((syntax for syntax in context.transfer_syntaxes if syntax in ours), "")


def _common(theirs: bytes, ours: bytes) -> bytes:
    # Byte by byte the lesser support; a byte that one side does not send means none.
    return bytes(min(pair) for pair in zip(theirs, ours, strict=False))


def _counted_uid(uid: str) -> bytes:
    return struct.pack(">H", len(uid)) + uid.encode("ascii", "replace")


def _items(data: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    while start < len(data):
        if start + _ITEM.size > len(data):
            raise ProtocolError("The association request ends inside an item.", reason=AbortReason.INVALID_PARAMETER)
        kind, length = _ITEM.unpack_from(data, start)
        start += _ITEM.size
        if start + length > len(data):
            raise ProtocolError(
                f"Item {kind:02X}H of the association request states {length} bytes, more than there are.",
                reason=AbortReason.INVALID_PARAMETER,
            )
        yield kind, data[start : start + length]
        start += length


def _proposed_context(value: bytes) -> ProposedContext:
    if len(value) < 4 or value[0] % 2 == 0:
        raise ProtocolError("A presentation context has no odd number.", reason=AbortReason.INVALID_PARAMETER)
    abstract_syntax = ""
    transfer_syntaxes = []
    for kind, name in _items(value, 4):
        if kind == 0x30:
            abstract_syntax = _uid(name)
        elif kind == 0x40:
            transfer_syntaxes.append(_uid(name))
    return ProposedContext(value[0], abstract_syntax, tuple(transfer_syntaxes))


def _role(value: bytes) -> tuple[str, bool, bool]:
    length = int.from_bytes(value[:2], "big")
    if len(value) != length + 4:
        raise ProtocolError("A role selection item has the wrong length.", reason=AbortReason.INVALID_PARAMETER)
    return _uid(value[2 : 2 + length]), value[-2] == 1, value[-1] == 1


def _extended(value: bytes) -> tuple[str, bytes]:
    length = int.from_bytes(value[:2], "big")
    if len(value) < length + 2:
        raise ProtocolError("An extended negotiation item has the wrong length.", reason=AbortReason.INVALID_PARAMETER)
    return _uid(value[2 : 2 + length]), value[2 + length :]


def _max_length(value: bytes | None) -> int:
    if value is None:
        return 0
    if len(value) != 4:
        raise ProtocolError("The maximum length item does not have four bytes.", reason=AbortReason.INVALID_PARAMETER)
    length = int.from_bytes(value, "big")
    if 0 < length < LEAST_MAX_LENGTH:
        raise ProtocolError(
            f"A maximum PDU length of {length} bytes is unusable.", reason=AbortReason.INVALID_PARAMETER
        )
    return length


def _uid(value: bytes) -> str:
    # Some peers pad UIDs to an even length although PS3.8 Annex F says not to.
    return value.rstrip(b"\0 ").decode("ascii", "replace")


def _title(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _pdu(kind: PduType, body: bytes) -> bytes:
    return struct.pack(">BxI", kind, len(body)) + body
