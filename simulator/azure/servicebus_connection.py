"""One AMQP connection to the stand-in of Service Bus: frames in, frames out, the claims node and the management node.

`feed` takes received bytes, `write` is called with bytes to send. Behaviour that is not in the standard was learnt from
the official clients for Python and JavaScript, and stands as a comment.

Not for: queues (`servicebus_entities`), sockets, tokens and faults (`servicebus_service`).
"""

import asyncio
import struct
import time
import uuid
from collections.abc import Callable
from typing import Protocol

from simulator.azure import amqp_messages as amqp
from simulator.azure.amqp_messages import Message, Refusal, code_of, error, field, fields_of, number, reply, typed
from simulator.azure.amqp_types import (
    Array,
    Described,
    Int,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    UShort,
    Value,
    decode,
    encode,
)
from simulator.azure.servicebus_entities import Queue, Topic
from simulator.azure.servicebus_links import SESSION_FILTER, WINDOW, Link, Session

_SASL, _AMQP = b"AMQP\x03\x01\0\0", b"AMQP\0\x01\0\0"
_FRAME = struct.Struct(">IBBH")  # size, data offset in words of four bytes, type, channel (AMQP 2.3.1)
_MOST_FRAME = 65536
_CREDIT = 1000  # deliveries a sender may have under way; renewed every 50

_OUTCOMES = {
    amqp.ACCEPTED: "complete",
    amqp.REJECTED: "dead-letter",
    amqp.RELEASED: "release",
    amqp.MODIFIED: "abandon",
}


class Bus(Protocol):
    """The part of the bus that a connection calls."""

    session_wait: float

    def find(self, path: str, *, sending: bool) -> Queue | Topic: ...
    def judge_token(self, token: str) -> str: ...
    def take(self, message: Message, entity: Queue | Topic) -> None: ...
    def loses_confirmation(self) -> bool: ...
    def forget(self, connection: "Connection") -> None: ...


class Connection:
    """One client. `abort` resets its connection; while `frozen`, all bytes vanish."""

    def __init__(self, bus: Bus, *, write: Callable[[bytes], object], abort: Callable[[], object]) -> None:
        self.closed = False
        self.frozen = False
        self.most_frame = 512  # until the client says more: the least that every peer takes (AMQP 2.7.1)
        self.last_written = time.monotonic()
        self.sessions: dict[int, Session] = {}
        self._abort = abort
        self._bus = bus
        self._write = write
        self._buffer = bytearray()
        self._token_seen = False
        self._replies: dict[str, Link] = {}

    # --- bytes --------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not self.frozen and not self.closed:
            self.last_written = time.monotonic()
            self._write(data)

    def frame(self, channel: int, performative: Described, payload: bytes = b"", *, kind: int = 0) -> None:
        body = encode(performative) + payload
        self.write(_FRAME.pack(len(body) + _FRAME.size, 2, kind, channel) + body)

    def feed(self, data: bytes) -> None:
        """Take bytes of the client. Bytes that are not AMQP end the connection."""
        if self.frozen or self.closed:
            return
        self._buffer += data
        try:
            while self._step():
                pass
        except (ValueError, TypeError, IndexError, KeyError, struct.error) as broken:
            self.frame(0, typed(amqp.CLOSE, error("amqp:decode-error", type(broken).__name__)))
            self.lose()

    def _step(self) -> bool:
        if len(self._buffer) < _FRAME.size:
            return False
        if self._buffer[:4] == b"AMQP":
            header = bytes(self._buffer[:8])
            del self._buffer[:8]
            # The same header back, once for SASL and once for AMQP within it (AMQP 5.3.2).
            self.write(header)
            if header == _SASL:
                mechanisms = Array(map(Symbol, ("MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL")))
                self.frame(0, typed(amqp.SASL_MECHANISMS, mechanisms), kind=1)
            elif header != _AMQP:
                raise ValueError("another version of AMQP")
            return True
        size, offset, _, channel = _FRAME.unpack_from(self._buffer)
        if len(self._buffer) < size:
            return False
        body = bytes(self._buffer[offset * 4 : size])
        del self._buffer[:size]
        if body:  # an empty frame keeps the line alive
            performative, at = decode(body)
            self._dispatch(channel, code_of(performative), fields_of(performative), body[at:])
        return True

    def end(self) -> None:
        """End the connection. Deliveries that are not settled stay locked, as on the real bus."""
        if not self.closed:
            self.closed = True
            self._bus.forget(self)
            for session in self.sessions.values():
                for link in session.links.values():
                    link.leave()

    def lose(self) -> None:
        """End the connection with a reset."""
        self.end()
        self._abort()

    # --- frames -------------------------------------------------------------------------------------------------------

    def _dispatch(self, channel: int, code: int, fields: list[Value], payload: bytes) -> None:
        if code == amqp.SASL_INIT:
            self.frame(0, typed(amqp.SASL_OUTCOME, UByte(0)), kind=1)
        elif code == amqp.OPEN:
            self.most_frame = min(number(fields, 2, _MOST_FRAME), _MOST_FRAME)
            # Highest channel and idle timeout in milliseconds, as Service Bus has them.
            limits = UInt(_MOST_FRAME), UShort(4999), UInt(240_000)
            self.frame(0, typed(amqp.OPEN, f"bus-{uuid.uuid4().hex[:8]}", None, *limits))
        elif code == amqp.BEGIN:
            session = self.sessions[channel] = Session(self, channel, fields)
            session.frame(amqp.BEGIN, UShort(channel), UInt(0), UInt(WINDOW), UInt(WINDOW), UInt(255))
        elif code == amqp.CLOSE:
            self.frame(0, typed(amqp.CLOSE))
            self.end()
        elif channel in self.sessions:
            handlers = {
                amqp.ATTACH: self._attach,
                amqp.FLOW: self._flow,
                amqp.TRANSFER: self._transfer,
                amqp.DISPOSITION: self._disposition,
                amqp.DETACH: self._detach,
                amqp.END: self._end,
            }
            handlers[code](self.sessions[channel], fields, payload)

    def _attach(self, session: Session, fields: list[Value], _: bytes) -> None:
        link = Link(session, fields)
        session.links[link.handle] = link
        try:
            answered = self._bind(link)
        except Refusal as refusal:
            link.refuse(refusal)
            return
        if answered:
            link.attach()
            if not link.receives:
                session.flow(link, _CREDIT)

    def _bind(self, link: Link) -> bool:
        """Connect a link to its node or entity; False when the answer has been given or will be."""
        path = link.path
        if path == "$cbs" or path.endswith("/$management"):
            # A client opens a pair of links to a node; responses go over the one that it receives on.
            link.node = path
            if link.receives:
                self._replies[path] = link
            return True
        if not self._token_seen:
            raise Refusal("amqp:unauthorized-access", "Unauthorized access: put a token first.")
        link.entity = self._bus.find(path, sending=not link.receives)
        if not link.receives or not isinstance(link.entity, Queue):
            return True
        if not link.entity.sessions:
            link.entity.consumers.append(link)
            return True
        self._want_session(link, link.entity)
        return False

    def _want_session(self, link: Link, queue: Queue) -> None:
        filters = field(fields_of(link.source), 7)
        if not isinstance(filters, dict) or SESSION_FILTER not in filters:
            raise Refusal("amqp:not-allowed", "The entity requires sessions.")
        wanted = filters[SESSION_FILTER]
        link.wanted_session = wanted.value if isinstance(wanted, Described) else wanted
        queue.waiting.append(link)
        if not queue.grant(link):
            # The attach stays unanswered until a session is free, which is how clients wait for the next one.
            asyncio.get_running_loop().call_later(self._bus.session_wait, self._no_session, link, queue)

    def _no_session(self, link: Link, queue: Queue) -> None:
        if link in queue.waiting:
            queue.waiting.remove(link)
            link.refuse(Refusal("com.microsoft:timeout", "No session could be locked in time."))

    def _flow(self, session: Session, fields: list[Value], _: bytes) -> None:
        session.take_window(fields)
        link = session.links.get(number(fields, 4, -1))
        if link is None or not link.receives:
            return
        # Credit counts from the delivery count the client knew when it wrote the frame (AMQP 2.6.7).
        link.credit = number(fields, 5) + number(fields, 6) - link.delivery_count
        if isinstance(link.entity, Queue):
            link.entity.pump()
        if field(fields, 8, False):  # drain: burn what is left and say so
            link.delivery_count += max(link.credit, 0)
            link.credit = 0
            session.flow(link, 0, drain=True)
        elif field(fields, 9, False):
            session.flow(link, link.credit)

    def _detach(self, session: Session, fields: list[Value], _: bytes) -> None:
        link = session.links.pop(number(fields, 0), None)
        if link is not None:
            link.leave()
            session.frame(amqp.DETACH, UInt(link.handle), bool(field(fields, 1, False)))

    def _end(self, session: Session, _: list[Value], __: bytes) -> None:
        for link in session.links.values():
            link.leave()
        session.frame(amqp.END)
        del self.sessions[session.channel]

    def _transfer(self, session: Session, fields: list[Value], payload: bytes) -> None:
        session.incoming += 1
        link = session.links.get(number(fields, 0))
        if link is None:
            return  # sent before our detach was read
        # Only the first transfer of a delivery has to carry its id, format and settlement (AMQP 2.7.5).
        link.first = link.first or fields
        link.buffer += payload
        if field(fields, 5, False):  # more to come
            return
        first, raw = link.first, bytes(link.buffer)
        link.first, link.buffer = None, bytearray()
        link.delivery_count += 1
        state = self._outcome(link, raw, is_batch=number(first, 3) == amqp.BATCH_FORMAT)
        # The message is in the queue and its sender cannot know it: duplicates come from here.
        if link.entity is not None and self._bus.loses_confirmation():
            self.lose()
            return
        if not field(first, 4, False):
            delivery = UInt(number(first, 1))
            session.frame(amqp.DISPOSITION, True, delivery, delivery, True, state)
        if link.delivery_count % 50 == 0:
            session.flow(link, _CREDIT)

    def _outcome(self, link: Link, raw: bytes, *, is_batch: bool) -> Described:
        try:
            if link.node:
                self._answer(link.node, Message(raw))
            elif link.entity is not None:
                if len(raw) > link.entity.max_size:
                    raise Refusal("amqp:link:message-size-exceeded", "The message is too large.")
                message = Message(raw)
                for each in message.parts() if is_batch else [message]:
                    self._bus.take(each, link.entity)
        except Refusal as refusal:
            return typed(amqp.REJECTED, error(refusal.condition, str(refusal)))
        return typed(amqp.ACCEPTED)

    def _disposition(self, session: Session, fields: list[Value], _: bytes) -> None:
        if not field(fields, 0, False):
            return  # about our deliveries only
        first = number(fields, 1)
        last, state, is_settled = number(fields, 2, first), field(fields, 4), bool(field(fields, 3, False))
        for delivery in [each for each in session.unsettled if first <= each <= last]:
            link, tag = session.unsettled.pop(delivery)
            answer = self._settle(link, tag, state) if isinstance(link.entity, Queue) and state else state
            if not is_settled:
                session.frame(amqp.DISPOSITION, False, UInt(delivery), UInt(delivery), True, answer)

    def _settle(self, link: Link, tag: bytes, state: Value) -> Described:
        code = code_of(state)
        info = field(fields_of(field(fields_of(state), 0)), 2, {}) if code == amqp.REJECTED else {}
        said = {str(key): value for key, value in info.items()} if isinstance(info, dict) else {}
        queue = link.entity
        if isinstance(queue, Queue) and queue.settle(
            uuid.UUID(bytes_le=tag),  # the tag is the lock token, as .NET writes it
            _OUTCOMES[code],
            reason=said.get("DeadLetterReason"),
            description=said.get("DeadLetterErrorDescription"),
        ):
            return typed(code)  # the outcome alone; an error in it would mean failure
        return typed(amqp.REJECTED, error("com.microsoft:message-lock-lost", "The lock supplied is invalid."))

    # --- the claims node and the management node ----------------------------------------------------------------------

    def _answer(self, node: str, request: Message) -> None:
        if node == "$cbs":
            problem = self._bus.judge_token(str(request.value))
            self._token_seen = self._token_seen or not problem
            said = {"status-code": Int(401 if problem else 202), "status-description": problem or "Accepted"}
            self._reply(node, reply(None, request.message_id, said))
            return
        try:
            entity = self._bus.find(node.removesuffix("/$management"), sending=False)
            value = manage(entity, str(request.application.get("operation")), request.value)
            status: dict[str, Value] = {"statusCode": Int(200), "statusDescription": "OK"}
        except Refusal as refusal:
            code = 410 if "lost" in refusal.condition else 400
            value, status = {}, {"statusCode": Int(code), "statusDescription": str(refusal)}
            status["errorCondition"] = Symbol(refusal.condition)
        self._reply(node, reply(value, request.message_id, status))

    def _reply(self, node: str, message: bytes) -> None:
        link = self._replies.get(node)
        if link is not None:
            link.give(message, uuid.uuid4().bytes, settled=False)


def manage(entity: Queue | Topic, operation: str, body: Value) -> dict[str, Value]:
    """Do a request to a management node. Raises Refusal."""
    parameters = {str(key): value for key, value in body.items()} if isinstance(body, dict) else {}
    if isinstance(entity, Topic):
        raise Refusal("amqp:not-implemented", "A topic has nothing to be managed.")
    match operation.rpartition(":")[2]:
        case "renew-lock":
            tokens = parameters.get("lock-tokens")
            until = [entity.renew(token) for token in tokens] if isinstance(tokens, list) else []
            return {"expirations": Array(Timestamp(each * 1000) for each in until)}
        case "renew-session-lock":
            return {"expiration": Timestamp((time.time() + entity.lock_seconds) * 1000)}
        case "get-session-state":
            return {"session-state": entity.session_state.get(parameters.get("session-id"))}
        case "set-session-state":
            entity.session_state[parameters.get("session-id")] = parameters.get("session-state")
            return {}
    raise Refusal("amqp:not-implemented", f"{operation} is not implemented here.")
