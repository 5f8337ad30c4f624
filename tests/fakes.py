"""Doubles that are working objects: they remember, and misbehave when told to."""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Literal

from gateway.errors import CloudError
from relay.delivery.delivery import Event

Behaviour = Literal["take", "refuse", "refuse for good", "doubt", "lose", "lose the answer", "repeat", "crash", "hang"]
"""What happens to one event: confirmed; not now; never; one of these two; lost on the way; taken, but the confirmation
is lost; taken twice, as by a network that repeats; an error nobody foresaw; taken, and then nothing is ever heard
again."""


class FakeCloud:
    """A destination that remembers what reached it, in order, repeats included.

    `then` says how the next events fare, one each; after that, or while it is empty, every event is taken. `delay` is
    the seconds each takes. `poison` are message ids that are never taken, `never` those refused for good, `doubted`
    those of which the cloud cannot say which it is. While `opened` is cleared, no event is answered.
    """

    def __init__(self, then: Iterable[Behaviour] = (), *, delay: float = 0.0) -> None:
        self.then = deque(then)
        self.delay = delay
        self.poison: set[str] = set()
        self.never: set[str] = set()
        self.doubted: set[str] = set()
        self.received: list[Event] = []
        self.asked: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self.closed = False
        self.hanging = False
        self.opened = asyncio.Event()
        self.opened.set()

    async def send(self, event: Event) -> None:
        self.asked.append(event.message_id)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay)
            await self.opened.wait()
            await self._treat(event, self._behaviour(event))
        finally:
            self.at_once -= 1

    async def close(self) -> None:
        self.closed = True

    def message_ids(self) -> list[str]:
        """What the cloud has seen, each once, in the order it first came."""
        return list(dict.fromkeys(event.message_id for event in self.received))

    def _behaviour(self, event: Event) -> Behaviour:
        if event.message_id in self.never:
            return "refuse for good"
        if event.message_id in self.doubted:
            return "doubt"
        if event.message_id in self.poison:
            return "refuse"
        return self.then.popleft() if self.then else "take"

    async def _treat(self, event: Event, behaviour: Behaviour) -> None:
        if behaviour in {"take", "lose the answer", "repeat", "hang"}:
            self.received.append(event)
        match behaviour:
            case "refuse":
                raise CloudError("The cloud is busy.", permanent=False)
            case "refuse for good":
                raise CloudError("The cloud cannot use this event.", permanent=True)
            case "doubt":
                raise CloudError("The cloud cannot say whether it can.", permanent=False, doubtful=True)
            case "lose" | "lose the answer":
                raise CloudError("No answer came.", permanent=False)
            case "repeat":
                self.received.append(event)
            case "crash":
                raise ZeroDivisionError
            case "hang":
                self.hanging = True
                await asyncio.Event().wait()
