"""Links and sessions of the stand-in of Service Bus: numbers, windows, credit, and the frames of a message.

Not for: the entities and nodes behind a link (`servicebus_connection`).
"""

from collections import deque
from typing import Protocol

from simulator.azure import amqp_messages as amqp
from simulator.azure.amqp_messages import Refusal, error, field, fields_of, number, typed
from simulator.azure.amqp_types import Described, Long, Symbol, UByte, UInt, ULong, Value
from simulator.azure.servicebus_entities import Queue, Topic

WINDOW = 0x7FFFFFFF
SESSION_FILTER = Symbol("com.microsoft:session-filter")

_TICKS_OF_1970 = 621355968000000000
"""Ticks of 100 ns from the year 1 to 1970, the epoch of .NET."""


class Frames(Protocol):
    """The part of a connection that a session calls."""

    closed: bool
    most_frame: int

    def frame(self, channel: int, performative: Described, payload: bytes = b"") -> None: ...


class Link:
    """The bus's end of a link. `receives` is true when the client receives over it."""

    def __init__(self, session: "Session", fields: list[Value]) -> None:
        self.session = session
        self.name, self.handle, self.receives = field(fields, 0), number(fields, 1), bool(field(fields, 2))
        self.source, self.target = field(fields, 5), field(fields, 6)
        # Sender settles by default mixed (2), receiver first (0) (AMQP 2.8.2, 2.8.3).
        self.modes = UByte(number(fields, 3, 2)), UByte(number(fields, 4, 0))
        self.pre_settled = self.modes[0] == 1
        self.entity: Queue | Topic | None = None
        self.node = ""
        self.credit = self.delivery_count = 0
        self.session_id: object = None
        self.wanted_session: object = None
        self.first: list[Value] | None = None
        self.buffer = bytearray()

    @property
    def path(self) -> str:
        """The entity's path, in lower case."""
        # Some clients write the host before it.
        address = str(field(fields_of(self.source if self.receives else self.target), 0, ""))
        return (address.split("://", 1)[-1].partition("/")[2] if "://" in address else address).strip("/").lower()

    def is_alive(self) -> bool:
        return not self.session.connection.closed

    def give(self, message: bytes, tag: bytes, *, settled: bool) -> None:
        self.credit -= 1
        self.delivery_count += 1
        self.session.transfer(self, message, tag, settled=settled)

    def enter_session(self, session_id: object, *, until: float) -> None:
        self.session_id = session_id
        # The answer names the session in the filter that asked for any; a client reads its id from there.
        fields = [*fields_of(self.source), *[None] * 8][:8]
        fields[7] = {SESSION_FILTER: session_id}
        self.source = typed(amqp.SOURCE, *fields)
        self.attach({Symbol("com.microsoft:locked-until-utc"): Long(until * 10_000_000 + _TICKS_OF_1970)})

    def attach(self, properties: Value = None) -> None:
        """Answer the client's attach."""
        size = ULong(self.entity.max_size if self.entity is not None else 1 << 20)
        first = UInt(0) if self.receives else None
        self.session.frame(
            amqp.ATTACH, self.name, UInt(self.handle), not self.receives, *self.modes, self.source, self.target,
            None, None, first, size, None, None, properties,
        )  # fmt: skip

    def refuse(self, refusal: Refusal) -> None:
        """Refuse the client's attach."""
        # An attach without a terminus, and a detach with the reason (AMQP 2.6.3).
        self.session.links.pop(self.handle, None)
        first = UInt(0) if self.receives else None
        self.session.frame(
            amqp.ATTACH, self.name, UInt(self.handle), not self.receives, None, None, None, None, None, None, first
        )  # fmt: skip
        self.session.frame(amqp.DETACH, UInt(self.handle), True, error(refusal.condition, str(refusal)))

    def leave(self) -> None:
        if isinstance(self.entity, Queue) and self.receives:
            self.entity.leave(self)


class Session:
    """A session of AMQP: numbers of transfers, and the window of how many more the client takes."""

    def __init__(self, connection: Frames, channel: int, fields: list[Value]) -> None:
        self.connection = connection
        self.channel = channel
        self.links: dict[int, Link] = {}
        self.unsettled: dict[int, tuple[Link, bytes]] = {}
        self.incoming = number(fields, 1)
        self._window = number(fields, 2, 5000)
        self._outgoing = 0
        self._delivery = 0
        self._queued: deque[tuple[list[Value], bytes]] = deque()

    def frame(self, code: int, *fields: Value, payload: bytes = b"") -> None:
        self.connection.frame(self.channel, typed(code, *fields), payload)

    def transfer(self, link: Link, message: bytes, tag: bytes, *, settled: bool) -> None:
        delivery, self._delivery = self._delivery, self._delivery + 1
        if not settled:
            self.unsettled[delivery] = link, tag
        most = self.connection.most_frame - 128  # room for the header and the performative of the frame
        pieces = [message[at : at + most] for at in range(0, len(message), most)]
        for index, piece in enumerate(pieces):
            more = index < len(pieces) - 1
            self._queued.append(([UInt(link.handle), UInt(delivery), tag, UInt(0), settled, more], piece))
        self.push()

    def push(self) -> None:
        while self._queued and self._window > 0:
            fields, piece = self._queued.popleft()
            self._window -= 1
            self._outgoing += 1
            self.frame(amqp.TRANSFER, *fields, payload=piece)

    def take_window(self, fields: list[Value]) -> None:
        # Transfers that the client had not seen when it wrote the frame count against its window (AMQP 2.5.6).
        self._window = number(fields, 0) + number(fields, 1) - self._outgoing
        self.push()

    def flow(self, link: Link, credit: int, *, drain: bool = False) -> None:
        window = [UInt(self.incoming), UInt(WINDOW), UInt(self._outgoing), UInt(WINDOW)]
        self.frame(amqp.FLOW, *window, UInt(link.handle), UInt(link.delivery_count), UInt(credit), None, drain)
