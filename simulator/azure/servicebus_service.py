"""A stand-in of Azure Service Bus, for loopback: demo, self-test and tests.

    async with Bus() as bus:
        queue = bus.add_queue("events", duplicate_window=600)
        ServiceBusClient.from_connection_string(bus.connection_string(), transport_type=TransportType.Amqp)

The official clients for Python and JavaScript work against it: queues, topics, sessions, peek-lock, dead letters,
duplicate detection, AMQP over TCP and over a websocket, shared keys and identities. It has the faults that the real
service has been seen to have (`Faults`, `freeze`, `cut`, `detach`).

Not for: schedules, deferral, transactions, filters of subscriptions, and anything that outlives the process.
"""

import asyncio
import base64
import hashlib
import hmac
import time
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from aiohttp import WSMsgType, web

from simulator.azure.amqp_messages import DETACH, Message, Refusal, error
from simulator.azure.amqp_types import UInt
from simulator.azure.servicebus_connection import Connection
from simulator.azure.servicebus_entities import NO_LIMIT, Queue, Topic

KEY_NAME, KEY = "simulated-key", "bm90IGEgc2VjcmV0"
IDLE_SECONDS = 10  # between empty frames; a client ends a connection that is silent for its idle timeout
IDLE_WORDS = "The link is force detached. AmqpMessagePublisher.IdleTimerExpired: Idle timeout: 00:10:00."


@dataclass
class Faults:
    """The number of the next connections, tokens, messages or confirmations that fail."""

    refuse_connection: int = 0
    refuse_token: int = 0
    busy: int = 0
    lose_message: int = 0
    lose_confirmation: int = 0

    def strike(self, name: str) -> bool:
        """Whether this fault happens now; counts it down."""
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


class Bus:
    """Serves until the block ends. `identities` are the tokens of Entra ID that it takes."""

    def __init__(self, *, port: int = 0, session_wait: float = 5.0) -> None:
        self.faults = Faults()
        self.session_wait = session_wait
        self.identities: set[str] = set()
        self.taken = 0
        self.connections: set[Connection] = set()
        self._port = port
        self._queues: dict[str, Queue] = {}
        self._topics: dict[str, Topic] = {}

    def add_queue(
        self,
        name: str,
        *,
        sessions: bool = False,
        duplicate_window: float = 0.0,
        lock_seconds: float = 30.0,
        max_delivery: int = 10,
    ) -> Queue:
        dead = Queue(f"{name}/$DeadLetterQueue", max_delivery=NO_LIMIT)
        queue = Queue(name, lock_seconds, max_delivery, duplicate_window, sessions, dead=dead)
        self._queues[name.lower()], self._queues[dead.name.lower()] = queue, dead
        return queue

    def add_topic(self, name: str, *subscriptions: str, sessions: bool = False) -> Topic:
        queues = [self.add_queue(f"{name}/Subscriptions/{each}", sessions=sessions) for each in subscriptions]
        topic = self._topics[name.lower()] = Topic(name, queues)
        return topic

    def connection_string(self, *, key: str = KEY) -> str:
        """For AMQP over TCP without TLS."""
        # The clients do without TLS only where the string says that it is the emulator.
        address = f"Endpoint=sb://127.0.0.1:{self.port};SharedAccessKeyName={KEY_NAME};SharedAccessKey={key}"
        return f"{address};UseDevelopmentEmulator=true;"

    # --- its life -----------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen on the port of the last start, or on any."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Line(self), "127.0.0.1", self._port)
        self.port = self._port = self._server.sockets[0].getsockname()[1]
        self._beat = loop.create_task(self._keep_alive())

    async def stop(self) -> None:
        """End, as at a restart of the service; queued messages stay."""
        self._beat.cancel()
        self._server.close()
        self.cut()

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(1)
            for connection in self.connections:
                if time.monotonic() - connection.last_written > IDLE_SECONDS:
                    # An empty frame: header alone (AMQP 2.4.5).
                    connection.write(b"\0\0\0\x08\x02\0\0\0")

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        """Take AMQP over a websocket; to be routed at /$servicebus/websocket."""
        ws = web.WebSocketResponse(protocols=("AMQPWSB10", "amqp"), max_msg_size=0, compress=False)
        await ws.prepare(request)
        out: asyncio.Queue[bytes] = asyncio.Queue()
        transport = request.transport
        connection = Connection(self, write=out.put_nowait, abort=lambda: transport.abort() if transport else None)
        self.connections.add(connection)
        writer = asyncio.create_task(_write(ws, out))
        try:
            async for message in ws:
                if message.type is WSMsgType.BINARY:
                    connection.feed(message.data)
        finally:
            writer.cancel()
            connection.lose()
        return ws

    # --- faults at once, to the connections there are now -------------------------------------------------------------

    def freeze(self) -> int:
        """Make the connections half open: they stay, no byte moves."""
        for connection in self.connections:
            connection.frozen = True
        return len(self.connections)

    def cut(self) -> int:
        """Reset the connections."""
        hit = list(self.connections)
        for connection in hit:
            connection.lose()
        return len(hit)

    def detach(self) -> None:
        """Detach every link, as the service does after ten idle minutes."""
        for connection in self.connections:
            for session in connection.sessions.values():
                for link in [each for each in session.links.values() if not each.node]:
                    link.leave()
                    del session.links[link.handle]
                    session.frame(DETACH, UInt(link.handle), True, error("amqp:link:detach-forced", IDLE_WORDS))

    # --- called by connections ----------------------------------------------------------------------------------------

    def find(self, path: str, *, sending: bool) -> Queue | Topic:
        """The entity of a path. Raises Refusal."""
        if sending and path in self._topics:
            return self._topics[path]
        if path in self._queues:
            return self._queues[path]
        raise Refusal("amqp:not-found", f"The messaging entity '{path}' could not be found.")

    def take(self, message: Message, entity: Queue | Topic) -> None:
        """Put a message into its queue or topic. Raises Refusal."""
        if self.faults.strike("busy"):
            raise Refusal("com.microsoft:server-busy", "The server is busy.")
        if not self.faults.strike("lose_message"):
            entity.put(message)
            self.taken += 1

    def loses_confirmation(self) -> bool:
        return self.faults.strike("lose_confirmation")

    def judge_token(self, token: str) -> str:
        """Why a token is refused, empty when it is not."""
        if self.faults.strike("refuse_token"):
            return "InvalidSignature: The token has an invalid signature."
        if token.startswith("SharedAccessSignature "):  # by its look: the Python client calls it a jwt
            return judge_signature(token, now=time.time())
        return "" if token in self.identities else "InvalidToken: The identity has no right to this namespace."

    def forget(self, connection: Connection) -> None:
        self.connections.discard(connection)


class _Line(asyncio.Protocol):
    """A TCP connection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._connection: Connection | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(type(transport))
        if self._bus.faults.strike("refuse_connection"):
            transport.abort()
            return
        self._connection = Connection(self._bus, write=transport.write, abort=transport.abort)
        self._bus.connections.add(self._connection)

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.feed(data)

    def connection_lost(self, _: Exception | None) -> None:
        if self._connection is not None:
            self._connection.lose()


async def _write(ws: web.WebSocketResponse, out: "asyncio.Queue[bytes]") -> None:
    while True:
        await ws.send_bytes(await out.get())


def judge_signature(token: str, *, now: float) -> str:
    """Why a shared access signature is refused, empty when it is not."""
    parts = dict(part.split("=", 1) for part in token.partition(" ")[2].split("&"))
    if unquote(parts["skn"]) != KEY_NAME:
        return "InvalidSignature: The key is not known."
    digest = hmac.new(KEY.encode(), f"{parts['sr']}\n{parts['se']}".encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(base64.b64encode(digest).decode(), unquote(parts["sig"])):
        return "InvalidSignature: The token has an invalid signature."
    return "ExpiredToken: The token is expired." if float(parts["se"]) < now else ""
