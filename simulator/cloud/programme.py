"""The pretend programme in the cloud: sends worklist actions, takes events and images, and can have a bad day.

It uses the stand-in of the Hybrid Connections service as the real programme uses Azure: actions go over one hybrid
connection, on which the gateway listens; events come over another, on which the cloud listens. It also serves the
programme's HTTPS API (here without TLS) and a remote control for other processes (`http`).

Not for: a process of its own (`__main__`), nor for anything but this machine. Its key and its token are no secrets.
"""

import asyncio
import json
import tempfile
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, get_args

from aiohttp import web

from relay.hybrid.exchange import LinkLimits
from relay.hybrid.listener import HybridListener
from relay.hybrid.liveness import Lifetimes
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import HybridSender
from relay.hybrid.tokens import SasTokens
from simulator.azure.hybrid_namespace import Faults
from simulator.azure.hybrid_service import HybridService
from simulator.azure.hybrid_tokens import Key
from simulator.cloud.http import application
from simulator.cloud.memory import EventLog, ImageLog, Mishap

ACTIONS, EVENTS = "actions", "events"
KEY_NAME, KEY, API_TOKEN = "simulated-key", "not a secret", "not-a-secret-either"

FOR_EVER = 1e9
"""Seconds; infinity is no time that can be slept."""


@dataclass(frozen=True)
class Addresses:
    namespace: str
    control: str

    def settings(self) -> dict[str, str]:
        """The gateway's settings for this cloud; RELAY_DESTINATION is left to the caller."""
        return {
            "AZURE_RELAY_NAMESPACE": self.namespace,
            "AZURE_RELAY_HYBRID_CONNECTION": ACTIONS,
            "AZURE_RELAY_EVENTS_HYBRID_CONNECTION": EVENTS,
            "AZURE_RELAY_KEY_NAME": KEY_NAME,
            "AZURE_RELAY_SHARED_ACCESS_KEY": KEY,
            "RELAY_API_URL": f"{self.control}/api/v1",
            "RELAY_API_TOKEN": API_TOKEN,
        }


class Cloud:
    """`async with Cloud() as cloud:` serves until the block ends; ports 0 are chosen freely."""

    def __init__(self, *, port: int = 0, control_port: int = 0, service: HybridService | None = None) -> None:
        self._port = port
        self._control_port = control_port
        self._stack = AsyncExitStack()
        self.service = service or HybridService()
        self.events = EventLog()
        self.actions: dict[str, dict[str, object]] = {}
        for path in (ACTIONS, EVENTS):
            self.service.namespace.add(path, {KEY_NAME: Key(KEY)})

    async def __aenter__(self) -> Self:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="simulated-cloud-"))
        self.images = ImageLog(Path(folder))
        await self.service.start(port=self._port)
        self._stack.push_async_callback(self.service.stop)
        await self._listen()
        self.addresses = Addresses(self.service.namespace.base, await self._open_control())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _listen(self) -> None:
        base, tokens = self.service.namespace.base, SasTokens(KEY_NAME, KEY)
        self._sender = HybridSender(endpoint(base, ACTIONS), tokens)
        self._stack.push_async_callback(self._sender.close)
        # Listener and service are one process, so nothing is gained by probing this channel or replacing it.
        lifetimes = Lifetimes(quiet_after=FOR_EVER, old_after=FOR_EVER)
        limits = LinkLimits(listeners=1, lifetimes=lifetimes, delays=(0, 0.2, 1))
        listener = HybridListener(endpoint(base, EVENTS), tokens, on_message=self._take_event, limits=limits)
        self._stack.push_async_callback(_cancel, asyncio.create_task(listener.run()))
        # An event that is sent before the listener stands would be refused with 404.
        while listener.state.connected_since is None:
            await asyncio.sleep(0.01)

    async def _open_control(self) -> str:
        runner = web.AppRunner(application(self, token=API_TOKEN), shutdown_timeout=0.2, handle_signals=False)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", self._control_port).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def send_action(self, action: dict[str, object]) -> dict[str, object]:
        """Send an action to the gateway as the programme does, once; raises CloudError when no answer came."""
        self.actions[str(action.get("action_id"))] = action
        answer = json.loads(await self.send_text(json.dumps(action)))
        return answer if isinstance(answer, dict) else {"answer": answer}

    async def send_text(self, text: str) -> str:
        """Send any text to the gateway and give its answer; raises CloudError when no answer came."""
        return await self._sender.exchange(text)

    async def _take_event(self, text: str) -> str:
        answer = self.events.take(text, via="hybrid", now=datetime.now(UTC))
        return json.dumps(answer) if answer else ""

    async def fault(self, order: dict[str, object]) -> dict[str, object]:
        """Cause a fault and give the number of listeners that it hit. Raises KeyError or ValueError for an unknown one.

        {"what": "events", "value": ["busy", "invalid", "lost"]}: what happens to the next events.
        {"what": "freeze" | "mute" | "unlist" | "kill" | "close", "connection": "actions"}: to its listeners, at once.
        {"what": a field of `Faults`, "connection": "actions", "value": ...}: until it is changed.
        """
        what, value = str(order["what"]), order.get("value")
        if what == "events":
            self.events.mishaps[:] = _mishaps(value)
            return {"affected": 0}
        connection = self.service.namespace.connections[str(order["connection"])]
        if what == "close":
            return {"affected": await self.service.close(connection.path, int(str(value or 1011)))}
        if what in ("freeze", "mute", "unlist", "kill"):
            return {"affected": getattr(self.service, what)(connection.path)}
        if what not in asdict(Faults()):
            raise KeyError(what)
        setattr(connection.faults, what, value)
        return {"affected": 0}

    def state(self) -> dict[str, object]:
        connections = self.service.namespace.connections.values()
        return {
            "connections": {c.path: {"listeners": len(c.listeners), "counts": c.counts} for c in connections},
            "actions": len(self.actions),
            "events": len(self.events.received),
            "images": len(self.images.received),
            "failures": self.images.failures,
        }


def _mishaps(value: object) -> list[Mishap]:
    known = {name: name for name in get_args(Mishap)}
    return [known[word] for word in (value if isinstance(value, list) else [value])]


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
