"""What the site owes the cloud leaves here, in order per subject, however long it takes.

Not for: what an event says (`gateway.messages`, `relay.protocol`), how a destination speaks (`relay.hybrid`,
`relay.uploads`, `relay.servicebus`).
"""

from dataclasses import dataclass
from typing import Protocol

from gateway.messages import Envelope


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
    def parameters(self) -> dict[str, object]:
        return self.envelope.parameters

    @property
    def text(self) -> str:
        return self.envelope.model_dump_json()


class Destination(Protocol):
    """A door to the cloud."""

    async def send(self, event: Event) -> None:
        """Return once the cloud has confirmed the event.

        Raises CloudError: `permanent` when this very event can never succeed, else it is tried again.
        """

    async def close(self) -> None: ...
