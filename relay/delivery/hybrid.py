"""A hybrid connection as a destination for events: the cloud listens on it, and answers whether it took an event.

Not here: the connection (`relay.hybrid.sender`), when an event is sent again (`relay.delivery.delivery`).
"""

from gateway.errors import CloudError
from relay.delivery.delivery import Event
from relay.hybrid.sender import HybridSender, json_object

DELIVERED = frozenset({"processed", "created", "updated", "ok"})
NEVER = frozenset({"invalid", "unsupported", "conflict"})
"""Codes of an error answer that the same event would get again for ever. All others may pass."""


class HybridDestination:
    """Sends events over a hybrid connection on which the cloud listens; its answer confirms each one."""

    def __init__(self, sender: HybridSender) -> None:
        self._sender = sender

    async def send(self, event: Event) -> None:
        judge(await self._sender.exchange(event.text))

    async def close(self) -> None:
        await self._sender.close()


def judge(answer: str) -> None:
    """Return when `answer` confirms the event; otherwise raise CloudError, permanent if it can never be confirmed."""
    fields = json_object(answer)
    status, code = _word(fields.get("status")), _word(fields.get("code"))
    if status in DELIVERED:
        return
    if status == "error" and code in NEVER:
        raise CloudError(f"The cloud refused the event for good with code {code}.", permanent=True)
    raise CloudError(f"The cloud did not confirm the event (status: {status}, code: {code}).", permanent=False)


def _word(value: object) -> str:
    # Only a text that looks like one of our words is repeated: the peer's free text may name a participant.
    return value if isinstance(value, str) and value.isidentifier() and len(value) <= 32 else "no word"
