"""Delivers the entries of both outboxes to one destination, in order per subject; one `Delivery` for each destination.

* `choose`: several subjects go side by side, by class; one place is reserved for the most urgent class.
* `backoff`: after a passing failure the pause doubles up to a limit; there is no last attempt.
* `Circuit`: while the destination fails, one event at a time is tried, and the first success opens it for all.
* Parked is what the destination refuses for good, what it answers doubtfully too often, and what is held back.
* A class whose quota is used up (`relay.delivery.quota`) waits and delays no other.

Nothing is kept over a restart: an entry stays open until it is confirmed, and is resent under the same message id.

Not for: what an event says (`relay.delivery.composer`), how a destination is reached (`relay.hybrid.sender`,
`relay.delivery.https_api`, `relay.delivery.servicebus`), what is pending (`gateway.outbox.entries`).
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

import structlog
from tenacity import retry, retry_if_exception_type, wait_exponential_jitter

from gateway.errors import CloudError, HeldBack, OutOfResources
from gateway.messages import Envelope
from gateway.outbox import Entry, Outbox
from gateway.outbox.entries import ANYWHERE
from relay.delivery.quota import METADATA, THUMBNAILS, Quota
from relay.protocol import Json

log = structlog.get_logger()

PLACES = 4
"""Events under way at once: enough to hide the line's latency, few enough to keep priorities on a slow one."""

MOST_URGENT = 1
"""The class with a place of its own, so that a status never waits for pictures on a slow line."""

TURNS = 4
"""Every so many departures the oldest entry of a class leaves; else a busy line would never reach it."""

DOUBTS = 20
"""Doubtful answers that one event may get while others are taken. With the pauses, an hour and more: an update of the
cloud must not park a morning's images."""

LONGEST_PAUSE = 300.0
"""Seconds between two attempts of one event that keeps failing while others succeed."""

LONGEST_SILENCE = 30.0
"""Seconds between two attempts at a destination that fails; bounds how late we notice that it is back."""

POLL_SECONDS = 0.1
"""Interval at which the outboxes' versions are read, each a number in shared memory."""

LOOKS_PER_QUERY = 10
"""Reads without a change after which the outboxes are queried all the same, because pauses end by themselves."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to travel. `text` is the envelope as JSON; `subject` is what keeps its order."""

    envelope: Envelope
    subject: str
    priority: int

    @property
    def message_id(self) -> str:
        return self.envelope.message_id

    @property
    def message_type(self) -> str:
        return self.envelope.message_type

    @property
    def action_id(self) -> str | None:
        """The cloud's id of the worklist action this belongs to, if there is one."""
        return self.envelope.source_reference.action_id

    @property
    def parameters(self) -> Json:
        return self.envelope.parameters

    @property
    def text(self) -> str:
        return self.envelope.model_dump_json()


class Destination(Protocol):
    """A route to the cloud."""

    async def send(self, event: Event) -> None:
        """Return once the cloud has confirmed the event, or raise, in bounded time.

        Raises CloudError: `permanent` when this very event can never succeed, else it is tried again.
        """

    async def close(self) -> None: ...


# --- decisions --------------------------------------------------------------------------------------------------------


def backoff(attempts: int, *, longest: float, jitter: float) -> timedelta:
    """Pause after `attempts` failures before this one: 1, 2, 4 ... `longest` seconds, shortened by up to half.

    `jitter` is between 0 and 1; it keeps sites that failed together from coming back together.
    """
    seconds = min(longest, 2.0 ** min(attempts, 30))
    return timedelta(seconds=seconds * (1 - jitter / 2))


@dataclass(frozen=True, slots=True)
class Circuit:
    """State of the destination: it works (`failures` is 0), or it failed and is tried again at `knock_at`."""

    failures: int = 0
    knock_at: datetime | None = None

    def after_failure(self, *, now: datetime, jitter: float) -> "Circuit":
        return Circuit(self.failures + 1, now + backoff(self.failures, longest=LONGEST_SILENCE, jitter=jitter))


@dataclass(frozen=True, slots=True)
class PendingEntry:
    """An entry, the outbox it is in, and its class at this destination (`relay.delivery.quota`)."""

    outbox: Outbox
    entry: Entry
    kind: int

    @property
    def key(self) -> tuple[int, int]:
        return id(self.outbox), self.entry.id


def choose(
    due: Iterable[PendingEntry],
    *,
    busy: Collection[tuple[int, int]],
    circuit: Circuit,
    now: datetime,
    closed: Collection[int] = (),
    departed: int = 0,
) -> list[PendingEntry]:
    """The due entries that leave now. Each is the head of its subject; `busy` are those already under way.

    No entry of a `closed` class leaves; `departed` is how many have left so far.
    """
    candidates = [pending for pending in due if pending.key not in busy and pending.kind not in closed]
    waiting = line_up(candidates, departed=departed)
    # One event is enough to learn whether a failing destination is back.
    if circuit.knock_at is not None:
        return waiting[:1] if not busy and now >= circuit.knock_at else []
    free = max(0, PLACES - len(busy))
    urgent = [pending for pending in waiting[free:] if pending.kind == MOST_URGENT]
    return waiting[:free] + urgent[: PLACES + 1 - len(busy) - free]


def line_up(candidates: Iterable[PendingEntry], *, departed: int) -> list[PendingEntry]:
    """The order in which they leave: by class, then the newest first, and every fourth time the oldest."""
    # Newest first, because after an outage the participant of the newest exam is still in the room.
    newest_first = sorted(candidates, key=lambda pending: pending.entry.created_at, reverse=True)
    line: list[PendingEntry] = []
    for kind in sorted({pending.kind for pending in newest_first}):
        equals = [pending for pending in newest_first if pending.kind == kind]
        while equals:
            is_turn_of_oldest = (departed + len(line)) % TURNS == TURNS - 1
            line.append(equals.pop(-1 if is_turn_of_oldest else 0))
    return line


def kind_of_message(entry: Entry) -> int:
    """The class of an entry at a destination that gets its message and nothing else."""
    return entry.priority


def weight_of_message(event: Event) -> Mapping[int, int]:
    """The bytes of an event by class, at a destination that gets its message and nothing else."""
    image = event.parameters.get("image")
    thumbnail = image.get("thumbnail") if isinstance(image, dict) else None
    size = len(event.text)
    if not isinstance(thumbnail, dict):
        return {event.priority: size}
    picture = len(str(thumbnail.get("data", "")))
    return {METADATA: size - picture, THUMBNAILS: picture}


# --- delivering -------------------------------------------------------------------------------------------------------


class Delivery:
    """Empties the outboxes into one destination, known to them as `name`. `run` until `stop`.

    `kind_of` and `weigh` give the class of an entry and the bytes of an event there, if it gets more than the message.
    `proven_at` is when the destination last confirmed anything, `trouble` why it has not since, for the health report.
    """

    def __init__(
        self,
        outboxes: Sequence[Outbox],
        destination: Destination,
        *,
        compose: Callable[[Entry], Awaitable[Event]],
        clock: Callable[[], datetime],
        name: str = ANYWHERE,
        allowance: Quota | None = None,
        kind_of: Callable[[Entry], int] = kind_of_message,
        weigh: Callable[[Event], Mapping[int, int]] = weight_of_message,
        jitter: Callable[[], float] = random.random,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self.name = name
        self.proven_at: datetime | None = None
        self.trouble = ""
        self._outboxes = outboxes
        self._destination = destination
        self._compose = compose
        self._clock = clock
        self._allowance = allowance or Quota(clock=clock)
        self._kind_of = kind_of
        self._weigh = weigh
        self._jitter = jitter
        self._poll_seconds = poll_seconds
        self._circuit = Circuit()
        self._busy: set[tuple[int, int]] = set()
        self._departed = 0
        self._doubts: dict[tuple[int, int], tuple[int, datetime | None]] = {}
        self._ended = asyncio.Event()
        self._stopping = False

    @property
    def circuit(self) -> Circuit:
        """The state of its destination now."""
        return self._circuit

    async def run(self) -> None:
        """Deliver until `stop`; then finish what is under way. Cancelling is safe: what was cut off is sent again."""
        async with asyncio.TaskGroup() as under_way:
            while not self._stopping:
                # Both before the query: an entry enqueued or settled during it ends the wait at once.
                self._ended.clear()
                versions = self._versions()
                for pending in await self._chosen():
                    self._busy.add(pending.key)
                    self._departed += 1
                    under_way.create_task(self._deliver(pending))
                await self._until_something_changed(versions)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopping = True
        self._ended.set()

    async def prove(self, event: Event) -> None:
        """Send an event that is in no outbox, to learn whether the destination answers; never raises CloudError."""
        circuit = self._circuit
        try:
            await self._send(event)
        except CloudError as error:
            self._destination_failed(str(error), circuit)
        else:
            self._destination_answered(self._clock())

    def _versions(self) -> list[int]:
        return [outbox.data_version() for outbox in self._outboxes]

    async def _until_something_changed(self, versions: list[int]) -> None:
        for _ in range(LOOKS_PER_QUERY):
            try:
                # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the event.
                async with asyncio.timeout(self._poll_seconds):
                    await self._ended.wait()
            except TimeoutError:
                if self._versions() == versions:
                    continue
            return

    async def _chosen(self) -> list[PendingEntry]:
        # `busy` is copied before the query: an entry settled in between would look open and idle, and leave twice.
        busy, now = frozenset(self._busy), self._clock()
        due = await asyncio.to_thread(self._due, now)
        closed = self._allowance.closed()
        return choose(due, busy=busy, circuit=self._circuit, now=now, closed=closed, departed=self._departed)

    def _due(self, now: datetime) -> list[PendingEntry]:
        enough = 2 * (PLACES + 1)  # entries under way are still due
        return [
            PendingEntry(outbox, entry, self._kind_of(entry))
            for outbox in self._outboxes
            for entry in outbox.due(now, limit=enough, destination=self.name)
        ]

    async def _deliver(self, pending: PendingEntry) -> None:
        try:
            event = await self._compose(pending.entry)
        except HeldBack as held:
            await self._hold(pending, str(held))
        except Exception:  # a fault of ours with this one entry: it waits, perhaps for an update, and the others go on
            log.exception("event not composed", message_id=pending.entry.message_id)
            await self._postpone(pending, "The gateway failed to compose the event; its log says why.", LONGEST_PAUSE)
        else:
            await self._attempt(pending, event)
        finally:
            self._busy.discard(pending.key)
            self._ended.set()

    async def _attempt(self, pending: PendingEntry, event: Event) -> None:
        # Spent before it is sent, or the places side by side would all use the same rest of the quota.
        circuit, weight = self._circuit, self._weigh(event)
        self._allowance.spend(weight)
        try:
            await self._send(event)
        except CloudError as error:
            if error.permanent or (error.doubtful and self._is_hopeless(pending)):
                await self._park(pending, str(error))
            else:
                await self._fail(pending, str(error), circuit)
        else:
            await self._confirm(pending, weight)

    def _is_hopeless(self, pending: PendingEntry) -> bool:
        """Count a doubtful answer; True when there were `DOUBTS`."""
        # Only if something else was accepted since the last one: an outage for all says nothing about this event.
        # In memory, because a restart then costs an hour and loses nothing.
        count, proven_at = self._doubts.get(pending.key, (0, None))
        if self.proven_at != proven_at:
            count += 1
        self._doubts[pending.key] = count, self.proven_at
        return count >= DOUBTS

    async def _send(self, event: Event) -> None:
        try:
            await self._destination.send(event)
        except CloudError:
            raise
        except Exception as error:
            log.exception("destination crashed", message_id=event.message_id)
            words = f"The destination failed in an unexpected way ({type(error).__name__})."
            raise CloudError(words, permanent=False) from error

    async def _confirm(self, pending: PendingEntry, weight: Mapping[int, int]) -> None:
        entry, now = pending.entry, self._clock()
        self._destination_answered(now)
        self._doubts.pop(pending.key, None)
        await _settled(lambda: pending.outbox.delivered(entry, now=now, sent=weight))
        log.info(
            "event delivered",
            destination=self.name,
            message_id=entry.message_id,
            message_type=entry.message_type,
            created_at=entry.created_at,
        )

    async def _park(self, pending: PendingEntry, reason: str) -> None:
        entry, now = pending.entry, self._clock()
        self._destination_answered(now)  # a refusal for good is an answer: the route works
        self._doubts.pop(pending.key, None)
        await _settled(lambda: pending.outbox.park(entry, reason=reason, now=now))
        log.error(
            "event parked",
            destination=self.name,
            message_id=entry.message_id,
            message_type=entry.message_type,
            reason=reason,
        )

    async def _hold(self, pending: PendingEntry, reason: str) -> None:
        entry, now = pending.entry, self._clock()
        await _settled(lambda: pending.outbox.held.hold(entry.id, reason=reason, now=now))
        log.warning(
            "event held back",
            destination=self.name,
            message_id=entry.message_id,
            message_type=entry.message_type,
            reason=reason,
        )

    async def _fail(self, pending: PendingEntry, reason: str, circuit: Circuit) -> None:
        self._destination_failed(reason, circuit)
        # With the circuit open already, the event waits no longer than the circuit: it is due when the line is back.
        await self._postpone(pending, reason, LONGEST_SILENCE if circuit.failures else LONGEST_PAUSE)

    async def _postpone(self, pending: PendingEntry, reason: str, longest: float) -> None:
        entry = pending.entry
        due_at = self._clock() + backoff(entry.attempts, longest=longest, jitter=self._jitter())
        await _settled(lambda: pending.outbox.retry(entry, reason=reason, due_at=due_at))
        log.warning(
            "event postponed",
            destination=self.name,
            message_id=entry.message_id,
            attempts=entry.attempts + 1,
            reason=reason,
        )

    def _destination_answered(self, now: datetime) -> None:
        self.proven_at, self.trouble, self._circuit = now, "", Circuit()

    def _destination_failed(self, reason: str, circuit: Circuit) -> None:
        """Record a failure of an attempt that began under `circuit`."""
        self.trouble = reason
        # Attempts that began together are one failure; counting each would double the pause as often.
        if circuit == self._circuit:
            self._circuit = circuit.after_failure(now=self._clock(), jitter=self._jitter())


@retry(retry=retry_if_exception_type(OutOfResources), wait=wait_exponential_jitter(multiplier=0.2, max=30))
async def _settled(change: Callable[[], object]) -> None:
    """Record an outcome, however long the disk is full."""
    # Giving up would send again what the cloud has confirmed.
    await asyncio.to_thread(change)
