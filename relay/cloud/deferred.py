"""What the cloud asked for and what takes its time: remembered before it is answered, carried out later.

Full images, tests, diagnostics. The relay has no database of its own, so a request is an entry of the archive's outbox,
in a class of its own (`gateway.messages.PRIORITY`): the loop that delivers events also carries out requests, with the
same pauses after a failure, and the entry is the memory of what was asked under an action id. What became of a request
is an event, owed before the request is done with; a process killed in between owes it again under the same message id.

A request that cannot be fulfilled is told, not parked: the cloud has its answer, and nobody on site has to do anything.

Not here: how a request is carried out (`relay.cloud.full_images`, `relay.cloud.site_tasks`).
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime

import structlog

from gateway.errors import Conflict
from gateway.messages import PRIORITY, Action, EventParameters
from gateway.outbox import Entry, NewEntry, Outbox
from relay import protocol
from relay.delivery.delivery import Event
from relay.protocol import Json

log = structlog.get_logger()

CarryOut = Callable[[Event], Awaitable[None]]
"""Carries a request out and owes the cloud what became of it. Raises CloudError when it shall be tried again."""


class DeferredActions:
    """The requests in one outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def accept(self, action: Action, parameters: Json, *, about: str, now: datetime) -> bool:
        """Remember what is asked; True when it is new, False when it was asked before.

        `about` is what images the request is for, a Study Instance UID, or ''. Raises Conflict when something else was
        asked under the same action id.
        """
        new = NewEntry(
            message_id=_message_id(action.action_id),
            message_type=action.action_type,
            subject=f"request/{about}/{action.action_id}",
            priority=PRIORITY[action.action_type],
            parameters={
                **parameters,
                "request_id": action.action_id,
                "content_hash": protocol.content_hash(action),
            },
        )
        is_new = self._outbox.enqueue(new, now=now)
        if not is_new:
            self.expect_same(action)
        return is_new

    def expect_same(self, action: Action) -> bool:
        """Say whether an action is remembered here. Raises Conflict when it is, with another content."""
        entry = self._outbox.find(_message_id(action.action_id)) if action.action_id else None
        if entry is not None and entry.parameters["content_hash"] != protocol.content_hash(action):
            raise Conflict(f"Action {action.action_id} was asked before, with another content.")
        return entry is not None

    def owe(self, event: EventParameters, *, now: datetime) -> None:
        """Owe the cloud what became of a request; once, however often it is said."""
        self._outbox.enqueue(event, now=now)
        log.info("request answered", message_id=event.message_id, message_type=event.message_type)

    def is_answered(self, event_id: str) -> bool:
        """Is the cloud owed this event, or was it told already?"""
        return self._outbox.find(event_id) is not None


class ActionRunner:
    """A `relay.delivery.delivery.Destination` for requests: it carries out what others send."""

    def __init__(self, ways: Mapping[str, CarryOut]) -> None:
        """`ways` has how to carry out each type of request."""
        self._ways = ways

    async def send(self, event: Event) -> None:
        await self._ways[event.message_type](event)

    async def close(self) -> None:
        """Nothing is open between two requests."""


def request_event(site: str) -> Callable[[Entry], Awaitable[Event]]:
    """Make of an entry what `ActionRunner` takes; nothing is derived."""

    async def compose(entry: Entry) -> Event:
        envelope = protocol.envelope(entry, site=site, action_id=None, parameters=entry.parameters)
        return Event(envelope, entry.subject, entry.priority)

    return compose


def _message_id(action_id: str) -> str:
    return f"request/{action_id}"
