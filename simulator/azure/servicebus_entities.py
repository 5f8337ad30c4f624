"""Queues and topics of the stand-in of Service Bus, in memory.

Peek-lock with expiry, delivery counts, dead letters with reasons, duplicate detection by message id, and sessions.

Not for: bytes and frames (`servicebus_connection`).
"""

import asyncio
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from simulator.azure.amqp_messages import Message, Refusal
from simulator.azure.amqp_types import Symbol

NO_LIMIT = 1 << 31


class Consumer(Protocol):
    """A link over which a client receives."""

    credit: int
    session_id: object
    wanted_session: object
    pre_settled: bool

    def is_alive(self) -> bool: ...
    def give(self, message: bytes, tag: bytes, *, settled: bool) -> None: ...
    def enter_session(self, session_id: object, *, until: float) -> None: ...


@dataclass(slots=True)
class Lock:
    """A message that a consumer has locked, and until when."""

    message: Message
    until: float


@dataclass
class Queue:
    """One queue, subscription, or dead-letter queue. Times are seconds; a window of 0 detects no duplicates."""

    name: str
    lock_seconds: float = 30.0
    max_delivery: int = 10
    duplicate_window: float = 0.0
    sessions: bool = False
    max_size: int = 256 * 1024
    dead: "Queue | None" = None
    ready: deque[Message] = field(default_factory=deque)
    locks: dict[uuid.UUID, Lock] = field(default_factory=dict)
    duplicates: int = 0
    session_state: dict[object, object] = field(default_factory=dict)
    consumers: list[Consumer] = field(default_factory=list)
    waiting: list[Consumer] = field(default_factory=list)
    _seen: dict[object, float] = field(default_factory=dict)
    _owners: dict[object, Consumer] = field(default_factory=dict)
    _sequence: int = 0

    def put(self, message: Message) -> None:
        """Take a message, unless it was here within the window. Raises Refusal for one without a session it needs."""
        if self.sessions and message.session_id is None:
            raise Refusal("amqp:not-allowed", "The entity requires sessions: set a session id.")
        if message.message_id is None:
            message.give_id()
        elif self._is_repeat(message.message_id, now=time.time()):
            self.duplicates += 1
            return
        self._enqueue(message)

    def _is_repeat(self, message_id: object, *, now: float) -> bool:
        if not self.duplicate_window:
            return False
        while self._seen and now - next(iter(self._seen.values())) >= self.duplicate_window:
            del self._seen[next(iter(self._seen))]  # a dict keeps the order of arrival
        if message_id in self._seen:
            return True
        self._seen[message_id] = now
        return False

    def _enqueue(self, message: Message) -> None:
        if not message.sequence:
            self._sequence += 1
            message.sequence, message.enqueued_at = self._sequence, time.time()
        if self.ready and self.ready[-1].sequence > message.sequence:  # given back: to its place in the order
            later = (index for index, other in enumerate(self.ready) if other.sequence > message.sequence)
            self.ready.insert(next(later), message)
        else:
            self.ready.append(message)
        self.pump()

    # --- giving out ---------------------------------------------------------------------------------------------------

    def pump(self) -> None:
        """Deliver ready messages to consumers with credit, one each in turn."""
        # A waiting client first: a message that has come may be the first of a session that it can have.
        for waiter in [*self.waiting] if self.sessions else ():
            self.grant(waiter)
        served = True
        while served and self.ready:
            served = False
            for consumer in list(self.consumers):
                message = self._next_for(consumer) if consumer.credit > 0 and consumer.is_alive() else None
                if message is not None:
                    served = True
                    self._deliver(consumer, message)

    def _next_for(self, consumer: Consumer) -> Message | None:
        for message in self.ready:
            if not self.sessions or message.session_id == consumer.session_id:
                self.ready.remove(message)
                return message
        return None

    def _deliver(self, consumer: Consumer, message: Message) -> None:
        if consumer.pre_settled:
            consumer.give(message.wire(), uuid.uuid4().bytes_le, settled=True)
            return
        token, until = uuid.uuid4(), time.time() + self.lock_seconds
        self.locks[token] = Lock(message, until)
        # 10 ms more, because a timer that fires early finds the lock still valid and is set again.
        asyncio.get_running_loop().call_later(self.lock_seconds + 0.01, self._expire, token)
        consumer.give(message.wire(locked_until=until), token.bytes_le, settled=False)

    def _expire(self, token: uuid.UUID) -> None:
        lock = self.locks.get(token)
        if lock is None:
            return
        if (left := lock.until - time.time()) > 0:  # it was renewed
            asyncio.get_running_loop().call_later(left + 0.01, self._expire, token)
            return
        del self.locks[token]
        self._give_back(lock.message, failed=True)

    def renew(self, token: uuid.UUID) -> float:
        """Lock a message for longer and say until when. Raises Refusal when the lock is gone."""
        if token not in self.locks:
            raise Refusal("com.microsoft:message-lock-lost", "The lock supplied is invalid.")
        self.locks[token].until = time.time() + self.lock_seconds
        return self.locks[token].until

    def settle(self, token: uuid.UUID, outcome: str, *, reason: object = None, description: object = None) -> bool:
        """Apply complete, abandon, release or dead-letter; False when the lock is gone."""
        lock = self.locks.pop(token, None)
        if lock is None:
            return False
        if outcome == "dead-letter":
            self._bury(lock.message, reason, description)
        elif outcome != "complete":
            self._give_back(lock.message, failed=outcome == "abandon")
        return True

    def _give_back(self, message: Message, *, failed: bool) -> None:
        message.delivery_count += failed  # a release is no failed attempt, an expired lock is one
        if message.delivery_count < self.max_delivery:
            self._enqueue(message)
            return
        times = f"Message could not be consumed after {self.max_delivery} delivery attempts."
        self._bury(message, "MaxDeliveryCountExceeded", times)

    def _bury(self, message: Message, reason: object, description: object) -> None:
        if self.dead is None:
            self._enqueue(message)
            return
        said = {"DeadLetterReason": reason, "DeadLetterErrorDescription": description}
        message.add_application({key: value for key, value in said.items() if value is not None})
        message.annotations[Symbol("x-opt-deadletter-source")] = self.name
        message.sequence = 0  # the dead-letter queue numbers it anew
        self.dead._enqueue(message)

    # --- sessions -----------------------------------------------------------------------------------------------------

    def grant(self, waiter: Consumer) -> bool:
        """Give a waiting consumer the session it wants, or any that has messages and no owner."""
        free = [message.session_id for message in self.ready if message.session_id not in self._owners]
        wanted = waiter.wanted_session
        if wanted in self._owners or (wanted is None and not free):
            return False
        if waiter in self.waiting:
            self.waiting.remove(waiter)
        session_id = free[0] if wanted is None else wanted
        self._owners[session_id] = waiter
        self.consumers.append(waiter)
        waiter.enter_session(session_id, until=time.time() + self.lock_seconds)
        return True

    def leave(self, consumer: Consumer) -> None:
        """Forget a consumer whose link has ended; its messages stay locked until the locks expire."""
        for listed in (self.consumers, self.waiting):
            if consumer in listed:
                listed.remove(consumer)
        if self._owners.get(consumer.session_id) is consumer:
            del self._owners[consumer.session_id]
            self.pump()


@dataclass
class Topic:
    """Copies each message to each of its subscriptions."""

    name: str
    subscriptions: list[Queue]

    @property
    def max_size(self) -> int:
        return min(queue.max_size for queue in self.subscriptions)

    def put(self, message: Message) -> None:
        for queue in self.subscriptions:
            queue.put(message.copy())
