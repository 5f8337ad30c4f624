"""A stand-in of the Azure Relay Hybrid Connections service, for loopback: demo, self-test and tests.

It speaks the wire protocol to both sides, and it has the faults that the real service has been seen to have:

    GET /$hc/{path}?sb-hc-action=listen     a listener's control channel
    GET /$hc/{path}?sb-hc-action=connect    a sender (also without an action)
    GET /$hc/{path}?sb-hc-action=accept     the listener fetches a sender, or rejects it
    GET /$hc/{path}?sb-hc-action=request    the listener fetches an HTTP request
    any /{path}...                          an HTTP request (`hybrid_http`)

Not for: more than one namespace, nor for issuing tokens; those of Entra ID are texts that it is given. It is made after
the documents, Microsoft's clients and listeners in the field; real Azure may differ where those are silent.
"""

import asyncio
import json
import ssl
import time
import uuid
from urllib.parse import unquote

import structlog
from aiohttp import WSCloseCode, WSMessage, WSMsgType, web

from simulator.azure.hybrid_http import relay_http
from simulator.azure.hybrid_namespace import HybridConnection, Namespace, Registration, Socket, Waiting, own_query
from simulator.azure.hybrid_tokens import LISTEN, SEND, HandshakeRefused

log = structlog.get_logger()


class HybridService:
    """Serves a namespace: `add` hybrid connections to it, `start`, and `stop`; `namespace.base` is then its address."""

    def __init__(self, *, rendezvous_timeout: float = 30, http_timeout: float = 60, expiry_code: int = 1011) -> None:
        self.namespace = Namespace()
        self._rendezvous_timeout = rendezvous_timeout
        self._http_timeout = http_timeout
        self._expiry_code = expiry_code  # documented as 1008; 1011 is what the field has seen
        self._runner: web.AppRunner | None = None

    async def start(self, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        """Serve on loopback; with `tls` as `wss://localhost`, for which that has to hold a certificate."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{tail:.*}", self._dispatch)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=tls).start()
        self.namespace.base = f"{'wss://localhost' if tls else 'ws://127.0.0.1'}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        for connection in self.namespace.connections.values():
            self.kill(connection.path)
        if self._runner is not None:
            await self._runner.cleanup()

    # --- faults at once, to the listeners that are connected now; each gives how many it hit --------------------------

    def freeze(self, path: str, ident: str = "") -> int:
        """Make the connections half open: the sockets stay, no byte moves, the registrations become ghosts."""
        for registration in (hit := self._listeners(path, ident)):
            registration.frozen = True
            registration.transport.pause_reading()
        return len(hit)

    def mute(self, path: str, ident: str = "") -> int:
        for registration in (hit := self._listeners(path, ident)):
            registration.mute = True
        return len(hit)

    def unlist(self, path: str, ident: str = "") -> int:
        for registration in (hit := self._listeners(path, ident)):
            registration.unlisted = True
        return len(hit)

    def kill(self, path: str) -> int:
        for registration in (hit := self._listeners(path)):
            registration.transport.abort()
        return len(hit)

    async def close(self, path: str, code: int, *, reason: str = "") -> int:
        for registration in (hit := self._listeners(path)):
            await registration.ws.close(code=code, message=reason.encode())
        return len(hit)

    def _listeners(self, path: str, ident: str = "") -> list[Registration]:
        """Those of a hybrid connection, or the one with this id."""
        return [each for each in self.namespace.connections[path.lower()].listeners if ident in ("", each.ident)]

    # --- handshakes ---------------------------------------------------------------------------------------------------

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        tracking = str(uuid.uuid4())
        try:
            return await self._handle(request, tracking)
        except HandshakeRefused as refused:
            text = f"{refused.reason} TrackingId:{tracking}"
            log.info("simulated service refused", status=refused.status, why=refused.reason)
            return web.Response(status=refused.status, reason=text, text=text, headers={"TrackingId": tracking})

    async def _handle(self, request: web.Request, tracking: str) -> web.StreamResponse:
        path = unquote(request.path)
        connection = self.namespace.find(path.removeprefix("/$hc/"))
        if connection.faults.unavailable:
            raise HandshakeRefused(*connection.faults.unavailable)
        if not path.startswith("/$hc/"):
            return await relay_http(
                self.namespace, request, connection=connection, ident=_ident(tracking), timeout=self._http_timeout
            )
        match request.query.get("sb-hc-action", "connect"):
            case "listen":
                return await self._listen(request, connection, tracking)
            case "connect":
                return await self._connect(request, connection, tracking)
            case "accept" | "request" as action:
                return await self._rendezvous(request, connection, action)
        raise HandshakeRefused(400, "InvalidRequest: unknown sb-hc-action.")

    # --- listeners ----------------------------------------------------------------------------------------------------

    async def _listen(self, request: web.Request, connection: HybridConnection, tracking: str) -> web.WebSocketResponse:
        if connection.faults.refuse_listen:
            raise HandshakeRefused(*connection.faults.refuse_listen.pop(0))
        expires_at = self.namespace.authorise(request, connection, LISTEN)
        if len(connection.listeners) >= 25:  # the documented limit of a hybrid connection
            raise HandshakeRefused(403, "QuotaExceeded: 25 listeners are connected already.")
        # Pings are answered by `ControlReader`, because a fault may be to ignore them.
        ws = web.WebSocketResponse(autoping=False, compress=False, max_msg_size=1 << 20)
        await ws.prepare(request)
        ident = request.query.get("sb-hc-id") or tracking
        assert request.transport is not None
        registration = Registration(ws, request.transport, ident=ident, expires_at=expires_at)
        await self._serve_listener(connection, registration)
        return ws

    async def _serve_listener(self, connection: HybridConnection, registration: Registration) -> None:
        connection.listeners.append(registration)
        connection.counts["listen"] += 1
        connection.counts["most listeners"] = max(connection.counts["most listeners"], len(connection.listeners))
        expiring = asyncio.create_task(self._expire(connection, registration))
        reader = ControlReader(self, connection, registration)
        try:
            async for message in registration.ws:
                await reader.take(message)
        finally:
            expiring.cancel()
            connection.listeners.remove(registration)
            for queue in registration.responses.values():  # senders that wait get 502
                queue.put_nowait(None)

    async def _expire(self, connection: HybridConnection, registration: Registration) -> None:
        while (left := registration.expires_at - time.time()) > 0:
            registration.renewed.clear()
            try:
                await asyncio.wait_for(registration.renewed.wait(), left)
            except TimeoutError:
                break
        connection.counts["expired"] += 1
        if not registration.frozen:
            await registration.ws.close(code=self._expiry_code, message=b"ExpiredToken: The token is expired.")

    async def renew(self, connection: HybridConnection, registration: Registration, *, token: object) -> None:
        try:
            registration.expires_at = self.namespace.check(str(token), connection, LISTEN)
        except HandshakeRefused as refused:
            connection.counts["renew refused"] += 1
            await registration.ws.close(code=WSCloseCode.POLICY_VIOLATION, message=refused.reason.encode())
        else:
            connection.counts["renew"] += 1
            registration.renewed.set()

    # --- senders and their rendezvous ---------------------------------------------------------------------------------

    async def _connect(
        self, request: web.Request, connection: HybridConnection, tracking: str
    ) -> web.WebSocketResponse:
        self.namespace.authorise(request, connection, SEND)
        ident = _ident(tracking)
        waiting = self.namespace.wait(ident, connection, "accept")
        connection.counts["connect"] += 1
        try:
            await self._announce_sender(request, waiting=waiting, ident=ident)
            return await self._join(request, waiting)
        finally:
            self.namespace.forget(ident)

    async def _announce_sender(self, request: web.Request, *, waiting: Waiting, ident: str) -> None:
        faults = waiting.connection.faults
        await asyncio.sleep(faults.accept_delay)
        registration = self.namespace.pick(waiting.connection, request)
        path = request.rel_url.raw_path.removeprefix("/$hc/")
        headers = {k: v for k, v in request.headers.items() if k.lower() != "servicebusauthorization"}
        peer = (request.transport and request.transport.get_extra_info("peername")) or ("", 0)
        accept: dict[str, object] = {
            "address": self.namespace.address(path, "accept", ident=ident, query=own_query(request)),
            "id": ident,
            "connectHeaders": headers,
            "remoteEndpoint": {"address": peer[0], "port": peer[1]},
        }
        # Announced twice, the second rendezvous is refused, because an address is good once.
        for _ in range(2 if faults.duplicate_accept else 1):
            await registration.announce({"accept": accept})

    async def _join(self, request: web.Request, waiting: Waiting) -> web.WebSocketResponse:
        """Hold the sender's handshake until its listener came; then pass messages until one of them leaves."""
        try:
            outcome = await asyncio.wait_for(waiting.joined, self._rendezvous_timeout)
        except TimeoutError:
            raise HandshakeRefused(504, "GatewayTimeout: The listener did not accept in time.") from None
        if isinstance(outcome, HandshakeRefused):
            raise outcome
        ws = _websocket(outcome.ws.ws_protocol)
        await ws.prepare(request)
        waiting.connection.counts["bridged"] += 1
        await _bridge(Socket(ws, request), outcome)
        return ws

    async def _rendezvous(
        self, request: web.Request, connection: HybridConnection, action: str
    ) -> web.WebSocketResponse:
        if connection.faults.refuse_rendezvous:
            raise HandshakeRefused(*connection.faults.refuse_rendezvous.pop(0))
        waiting = self.namespace.waiting.get(request.query.get("sb-hc-id", ""))
        if waiting is None or waiting.action != action or waiting.connection is not connection or waiting.used:
            raise HandshakeRefused(403, "Forbidden: The rendezvous address is unknown, used up or expired.")
        waiting.used = True
        if status := request.query.get("sb-hc-statusCode"):
            refused = HandshakeRefused(int(status), request.query.get("sb-hc-statusDescription", "Rejected"))
            waiting.resolve(refused)
            connection.counts["rejected"] += 1
            # The rejection goes to the sender; the listener's own handshake always ends with 410.
            raise HandshakeRefused(410, "Gone: The sender has been told of the rejection.")
        ws = _websocket(request.headers.get("Sec-WebSocket-Protocol", "").split(",")[0].strip())
        await ws.prepare(request)
        waiting.resolve(Socket(ws, request))
        # The handler holds the websocket open while `_join` passes messages.
        await waiting.done.wait()
        return ws


class ControlReader:
    """Reads a listener's messages on its control channel."""

    def __init__(self, service: HybridService, connection: HybridConnection, registration: Registration) -> None:
        self._service = service
        self._connection = connection
        self._registration = registration
        self._without_body: dict[str, object] | None = None

    async def take(self, message: WSMessage) -> None:
        match message.type:
            case WSMsgType.PING:
                await self._ping(message.data)
            case WSMsgType.TEXT:
                await self._command(json.loads(message.data))
            case WSMsgType.BINARY if self._without_body is not None:
                self._answered(self._without_body, message.data)
                self._without_body = None

    async def _ping(self, data: bytes) -> None:
        self._connection.counts["ping"] += 1
        if self._connection.faults.ping == "disconnect":
            self._registration.transport.abort()
        elif self._connection.faults.ping == "answer" and not self._registration.frozen:
            await self._registration.ws.pong(data)

    async def _command(self, frame: dict[str, dict[str, object]]) -> None:
        match frame:
            case {"renewToken": {"token": token}}:
                await self._service.renew(self._connection, self._registration, token=token)
            case {"response": {"body": True} as head}:
                self._without_body = head
            case {"response": head}:
                self._answered(head, b"")

    def _answered(self, head: dict[str, object], body: bytes) -> None:
        queue = self._registration.responses.get(str(head.get("requestId")))
        if queue is not None:
            queue.put_nowait((head, body))


def _ident(tracking: str) -> str:
    return f"{tracking}_{uuid.uuid4().hex[:8]}"


def _websocket(protocol: str | None) -> web.WebSocketResponse:
    return web.WebSocketResponse(protocols=(protocol,) if protocol else (), compress=False, max_msg_size=0)


async def _bridge(left: Socket, right: Socket) -> None:
    await asyncio.gather(_pump(left, right), _pump(right, left), return_exceptions=True)


async def _pump(source: Socket, target: Socket) -> None:
    try:
        async for message in source.ws:
            if message.type is WSMsgType.TEXT:
                await target.send(message.data.encode(), opcode=1)
            elif message.type is WSMsgType.BINARY:
                await target.send(message.data, opcode=2)
    except ConnectionError:
        await source.ws.close(code=1001)
    # 1006 and 1005 are never sent (RFC 6455 7.4.1): a lost side becomes "going away", a close without a code 1000.
    code = source.ws.close_code
    await target.ws.close(code=1001 if code == 1006 else 1000 if code in (None, 1005) else code)
