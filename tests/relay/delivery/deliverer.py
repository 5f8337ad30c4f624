"""The delivering part of the relay as a process of its own, to be killed: real outboxes, destinations and sockets.

Not a whole relay, whose pages and workers would only cost time; `tests/journeys/test_kill.py` kills that.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from azure.servicebus import TransportType

from gateway import outbox
from gateway.messages import Envelope
from gateway.outbox import Entry, Outbox
from gateway.sqlite import Database
from relay.delivery.delivery import Delivery, Destination, Event
from relay.delivery.https_api import HttpsDestination, fixed_token
from relay.delivery.hybrid import HybridDestination
from relay.delivery.servicebus import ServiceBusDestination, by_connection_string
from relay.hybrid.protocol import Token, endpoint
from relay.hybrid.sender import HybridSender
from relay.hybrid.tokens import SasTokens
from simulator.cloud.programme import API_TOKEN, EVENTS, KEY, KEY_NAME

NAMES = ("hybrid", "https", "servicebus")


@dataclass(frozen=True)
class TokensFor:
    """Signs for the service itself, whatever line leads to it."""

    audience: str
    lifetime: float = 3600

    async def token(self, _audience: str) -> Token:
        return await SasTokens(KEY_NAME, KEY, self.lifetime).token(self.audience)

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Plan:
    """What a process is given. `base` is the moment `started` (of time.time) stands for; a second takes 1 / `speed`."""

    databases: tuple[Path, ...]
    hybrid: str
    hybrid_audience: str
    https: str
    servicebus: str
    base: datetime
    started: float
    speed: float

    def clock(self) -> datetime:
        return self.base + timedelta(seconds=(time.time() - self.started) * self.speed)


def destinations(plan: Plan, *, seconds: float = 0.7) -> dict[str, Destination]:
    connect = by_connection_string(plan.servicebus, transport=TransportType.Amqp)
    tokens = TokensFor(plan.hybrid_audience)
    return {
        "hybrid": HybridDestination(HybridSender(endpoint(plan.hybrid, EVENTS), tokens, timeout=seconds)),
        "https": HttpsDestination(plan.https, fixed_token(API_TOKEN), seconds=seconds),
        "servicebus": ServiceBusDestination(connect, entity="events", seconds=3.0),
    }


async def compose(entry: Entry) -> Event:
    envelope = Envelope(
        message_id=entry.message_id,
        message_type=entry.message_type,
        timestamp=entry.created_at,
        site="test",
        sequence=entry.sequence,
        parameters=entry.parameters,
    )
    return Event(envelope, entry.subject, entry.priority)


async def deliver(boxes: list[Outbox], to: dict[str, Destination], clock: Callable[[], datetime]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for name, destination in to.items():
            delivery = Delivery(boxes, destination, compose=compose, clock=clock, name=name, poll_seconds=0.01)
            tasks.create_task(delivery.run())


def opened(path: Path) -> Outbox:
    database = Database(path, outbox.SCHEMA)
    database.check()
    return Outbox(database)


async def _run(plan: Plan) -> None:
    await deliver([opened(path) for path in plan.databases], destinations(plan), plan.clock)


def main(plan: Plan) -> None:
    """Deliver until killed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.CRITICAL)
    asyncio.run(_run(plan))


NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
