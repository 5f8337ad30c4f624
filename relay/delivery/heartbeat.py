"""The heartbeat: an event with the health report, whose confirmation proves the route to a destination.

It is in no outbox, because a late heartbeat says nothing. Not for: judging health (`relay.health.report`).
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

from gateway.messages import Envelope, HealthReport, Heartbeat
from gateway.sqlite import utc_text
from relay.delivery.delivery import Delivery, Event


async def beat(
    delivery: Delivery,
    *,
    health: Callable[[], HealthReport],
    site: str,
    seconds: float,
    clock: Callable[[], datetime],
) -> None:
    """Send a heartbeat every `seconds` until cancelled. `health` blocks and is called in a thread."""
    while True:
        report = await asyncio.to_thread(health)
        await delivery.prove(heartbeat(report, site=site, now=clock()))
        await asyncio.sleep(seconds)


def heartbeat(health: HealthReport, *, site: str, now: datetime) -> Event:
    """Make the heartbeat event of a health report."""
    event = Heartbeat(**dict(health), sent_at=utc_text(now))
    envelope = Envelope(
        message_id=event.message_id,
        message_type=event.message_type,
        timestamp=event.sent_at,
        site=site,
        sequence=int(now.timestamp()),  # the second it is sent in outgrows a restart, as a counter would not
        parameters=event.model_dump(mode="json"),
    )
    return Event(envelope, event.subject, event.priority)
