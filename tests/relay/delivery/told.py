"""One event, and what becomes of it at a destination."""

from gateway.errors import CloudError
from gateway.messages import ActionReference, Envelope
from relay.delivery.delivery import Destination, Event

UID = "1.2.826.0.1.3680043.10.1.1"


def event(
    message_type: str = "study.image_received", *, action_id: str | None = "action-1", message_id: str = UID
) -> Event:
    parameters: dict[str, object] = {
        "image": {"sop_instance_uid": UID, "sha256": "ab"},
        "reason": "Laterality is missing.",
    }
    envelope = Envelope(
        message_id=message_id,
        message_type=message_type,
        timestamp="2026-11-22T01:02:03.456Z",
        site="van-1",
        sequence=1,
        source_reference=ActionReference(action_id=action_id),
        parameters=parameters,
    )
    return Event(envelope, subject="1.2.3", priority=2)


async def outcome(destination: Destination, one: Event | None = None) -> str:
    try:
        await destination.send(one or event())
    except CloudError as error:
        return "parked" if error.permanent else "tried again"
    return "delivered"
