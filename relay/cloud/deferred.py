"""Deferred actions: long-running actions of the cloud, stored before they are answered and carried out later.

The relay has no database, so a deferred action is an entry of the archive's outbox, in a class of its own
(`gateway.messages.PRIORITY`): a delivery loop carries it out, with the pauses of all entries, and the entry remembers
the content under an action id. Its outcome is an event, enqueued before the action is closed; after a kill in between
it is enqueued again under the same message id.

Not here: carrying one out (`relay.cloud.full_images`, `relay.cloud.site_tasks`).
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
"""Carries out a deferred action and enqueues its outcome. Raises CloudError when it shall be tried again."""


class DeferredActions:
    """The deferred actions in one outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def accept(self, action: Action, parameters: Json, *, about: str, now: datetime) -> bool:
        """Store an action; True when it is new, False when it is a repeat.

        `about` is the Study Instance UID of the images it is for, or ''. Raises Conflict when the action id is stored
        with another content.
        """
        new = NewEntry(
            message_id=_message_id(action.action_id),
            message_type=action.action_type,
            subject=f"request/{about}/{action.action_id}",  # of its own: entries of one subject wait for each other
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
        """True when an action is stored here. Raises Conflict when it is stored with another content."""
        entry = self._outbox.find(_message_id(action.action_id)) if action.action_id else None
        if entry is not None and entry.parameters["content_hash"] != protocol.content_hash(action):
            raise Conflict(f"Action {action.action_id} was asked before, with another content.")
        return entry is not None

    def enqueue_outcome(self, event: EventParameters, *, now: datetime) -> None:
        """Enqueue the outcome of an action; a repeat changes nothing."""
        # Also of one that cannot be fulfilled: parked, it would wait for a person on site, who can do nothing about it.
        self._outbox.enqueue(event, now=now)
        log.info("request answered", message_id=event.message_id, message_type=event.message_type)

    def is_answered(self, event_id: str) -> bool:
        """True when the outcome with this message id is pending or delivered."""
        return self._outbox.find(event_id) is not None


class ActionRunner:
    """A `relay.delivery.delivery.Destination` that carries deferred actions out instead of sending them."""

    def __init__(self, handlers: Mapping[str, CarryOut]) -> None:
        """`handlers` has the function for each action type."""
        self._handlers = handlers

    async def send(self, event: Event) -> None:
        await self._handlers[event.message_type](event)

    async def close(self) -> None:
        """No connection is open between two actions."""


def request_event(site: str) -> Callable[[Entry], Awaitable[Event]]:
    """Compose the event that `ActionRunner` takes: the entry as it is."""

    async def compose(entry: Entry) -> Event:
        envelope = protocol.envelope(entry, site=site, action_id=None, parameters=entry.parameters)
        return Event(envelope, entry.subject, entry.priority)

    return compose


def _message_id(action_id: str) -> str:
    return f"request/{action_id}"
