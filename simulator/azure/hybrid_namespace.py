"""State of the Hybrid Connections stand-in: hybrid connections, listeners, waiting senders, and faults."""

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote

from aiohttp import web

from simulator.azure.hybrid_tokens import Bearer, HandshakeRefused, Key, Resource, check

FRAGMENT = 32 * 1024
"""The service relays in buffers of this size, so a longer message arrives in several frames."""


@dataclass
class Faults:
    """Faults that last until they are changed. Refusals are pairs of status and reason, used up one by one."""

    unavailable: tuple[int, str] | None = None  # every handshake, both sides
    refuse_listen: list[tuple[int, str]] = field(default_factory=list)
    refuse_rendezvous: list[tuple[int, str]] = field(default_factory=list)
    ping: Literal["answer", "ignore", "disconnect"] = "answer"
    accept_delay: float = 0  # seconds; the real service has spikes of 3 to 7
    duplicate_accept: bool = False


class Registration:
    """A connected listener as the service knows it."""

    def __init__(self, ws: web.WebSocketResponse, transport: asyncio.Transport, *, ident: str, expires_at: float):
        self.ws = ws
        self.transport = transport
        self.ident = ident
        self.expires_at = expires_at
        self.renewed = asyncio.Event()
        self.responses: dict[str, asyncio.Queue[tuple[dict[str, object], bytes] | None]] = {}
        self.frozen = False  # half open: nothing is read or written any more
        self.mute = False  # answers pings, but no sender is announced to it
        self.unlisted = False  # answers pings, but senders get 404 as without a listener
        self._writing = asyncio.Lock()

    @property
    def leaving(self) -> bool:
        """Whether it has closed its control channel, or the connection is gone."""
        return self.ws.closed or self.transport.is_closing()

    async def announce(self, frame: dict[str, object], body: bytes | None = None) -> None:
        if self.frozen or self.mute:
            return
        async with self._writing:  # nothing may come between a frame and the body that belongs to it
            await self.ws.send_str(json.dumps(frame))
            if body is not None:
                await self.ws.send_bytes(body)


@dataclass
class HybridConnection:
    path: str
    keys: dict[str, Key]
    bearers: dict[str, Bearer] = field(default_factory=dict)
    listeners: list[Registration] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    counts: Counter[str] = field(default_factory=Counter)
    pins: bool = True  # whether it knows the header that names listeners; undocumented, so the real one may not


@dataclass
class Socket:
    """A websocket together with the request that became it; frames are written below the library's own calls."""

    ws: web.WebSocketResponse
    request: web.Request

    async def send(self, data: bytes, *, opcode: int, empty_end: bool = False) -> None:
        """Send one message as the service does: in fragments; an HTTP body ends with an empty last one."""
        parts = [data[start : start + FRAGMENT] for start in range(0, len(data), FRAGMENT)] or [b""]
        parts += [b""] if empty_end else []
        for number, part in enumerate(parts):
            transport = self.request.transport
            if self.ws.closed or transport is None or transport.is_closing():
                raise ConnectionResetError("the other side has gone")
            final = 0x80 if number == len(parts) - 1 else 0
            transport.write(_frame_head(final | (opcode if number == 0 else 0), len(part)) + part)
            await self.request.protocol._drain_helper()  # backpressure: the reader sets the speed


def _frame_head(first: int, length: int) -> bytes:
    # RFC 6455 5.2: a server does not mask; 32 kB never need the form with 64 bits of length.
    return bytes([first, length]) if length < 126 else bytes([first, 126]) + length.to_bytes(2, "big")


@dataclass
class Waiting:
    """A sender that waits for its listener at a rendezvous address, which is good once."""

    connection: HybridConnection
    action: Literal["accept", "request"]
    joined: "asyncio.Future[Socket | HandshakeRefused]"
    used: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def resolve(self, outcome: Socket | HandshakeRefused) -> None:
        if not self.joined.done():  # the sender may have given up meanwhile
            self.joined.set_result(outcome)


class Namespace:
    """One namespace; `base` is its address, known once it is served."""

    def __init__(self) -> None:
        self.base = ""
        self.hosts = frozenset({"127.0.0.1", "localhost"})
        self.connections: dict[str, HybridConnection] = {}
        self.waiting: dict[str, Waiting] = {}

    def add(self, path: str, keys: dict[str, Key]) -> HybridConnection:
        connection = self.connections[path.lower()] = HybridConnection(path, keys)
        return connection

    def find(self, path: str) -> HybridConnection:
        path = path.strip("/").lower()
        # An HTTP request may have a longer path than its hybrid connection; the longest that fits wins.
        fitting = [c for name, c in self.connections.items() if path == name or path.startswith(f"{name}/")]
        if not fitting:
            raise HandshakeRefused(404, "Endpoint does not exist.")
        return max(fitting, key=lambda connection: len(connection.path))

    def authorise(self, request: web.Request, connection: HybridConnection, right: str) -> float:
        """Give when the token that came with `request` expires; raises HandshakeRefused."""
        # A websocket of a browser cannot set headers, so the service takes the token in the query, too.
        token = request.query.get("sb-hc-token") or request.headers.get("ServiceBusAuthorization")
        return self.check(token, connection, right)

    def check(self, token: str | None, connection: HybridConnection, right: str) -> float:
        resource = Resource(self.hosts, connection.path, connection.keys, connection.bearers)
        return check(token, resource, right=right, now=time.time())

    def pick(self, connection: HybridConnection, request: web.Request) -> Registration:
        """Choose a listener at random, as the service does: no order, no stickiness, ghosts included."""
        # A sender may name the listeners to choose from; this is in Microsoft's own tests, not in the documents.
        only = request.headers.get("Microsoft-Relay-AllowedListeners") if connection.pins else None
        listed = [r for r in connection.listeners if not r.unlisted and not r.leaving and only in (None, r.ident)]
        if not listed:
            raise HandshakeRefused(404, "EndpointNotFound: There are no listeners connected for the endpoint.")
        return random.choice(listed)  # noqa: S311

    def wait(self, ident: str, connection: HybridConnection, action: Literal["accept", "request"]) -> Waiting:
        waiting = self.waiting[ident] = Waiting(connection, action, asyncio.get_running_loop().create_future())
        return waiting

    def forget(self, ident: str) -> None:
        self.waiting.pop(ident).done.set()

    def address(self, path: str, action: str, *, ident: str, query: str = "") -> str:
        extra = f"{query}&" if query else ""
        return f"{self.base}/$hc/{quote(path, safe='/%')}?{extra}sb-hc-action={action}&sb-hc-id={ident}"


def own_query(request: web.Request) -> str:
    """The sender's query without the service's own parameters."""
    return "&".join(p for p in request.rel_url.raw_query_string.split("&") if p and not p.lower().startswith("sb-hc-"))
