"""One control channel of a hybrid connection, from its opening to its end, and the exchanges that come over it.

The channel is read at all times: everything announced runs in a task of its own. A sender sends one text message and
gets one answer; an HTTP request gets one response, on the channel when it is small and at the request's own address
when it is not. A response's body is one message in memory: aiohttp cannot send a message in pieces.

Not here: opening, replacing and proving channels (`relay.hybrid`).
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import aiohttp
import structlog

from relay.hybrid_protocol import (
    CONTROL_LIMIT,
    Accept,
    Announcement,
    FrameReader,
    Pointer,
    Request,
    Token,
    Trouble,
    Unreadable,
    closed,
    reject_url,
    renew_token,
    response,
)
from relay.hybrid_sender import MESSAGE_BYTES, SOCKET_ERRORS, explain

log = structlog.get_logger()

ClientWebSocket: TypeAlias = aiohttp.ClientWebSocketResponse[Literal[True]]


@dataclass(frozen=True)
class HttpAnswer:
    """What an HTTP request over the hybrid connection is answered with. Statuses 502 and 504 are the service's own."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Limits:
    """How long (seconds) and how many, each with its reason."""

    sessions: int = 16  # exchanges at once; the actions for one site come one by one
    handshake: float = 15  # the service holds the other side for 30 s
    first_message: float = 10  # a silent sender must not keep a session from others
    answer: float = 30  # the cloud waits no longer
    http_answer: float = 50  # the service gives up after 60 s, which cannot be raised
    farewell: float = 2  # for the peer's close frame
    exchange: float = 300  # all of one exchange: a peer that stops reading must not keep a session for ever
    heartbeat: float = 25  # pings; load balancers forget an idle connection after about 4 minutes
    proof_every: float = 30
    deaf_after: float = 120  # a link that takes nothing is replaced within two minutes
    delays: tuple[float, ...] = (0, 1, 2, 5, 10, 30)  # between attempts, those of Microsoft's clients


@dataclass(frozen=True)
class Handlers:
    """Who answers, and who hears that an exchange came all the way (`proven`) or that something `failed`."""

    message: Callable[[str], Awaitable[str]]
    http: Callable[[Request], Awaitable[HttpAnswer]]
    token: Callable[[], Awaitable[Token]]
    proven: Callable[[], None]
    failed: Callable[[Trouble], None]


class Channel:
    """An open control channel; `proven_at` (monotonic seconds) is its opening or the last exchange over it."""

    def __init__(
        self, ws: ClientWebSocket, token: Token, *, http: aiohttp.ClientSession, handlers: Handlers, limits: Limits
    ) -> None:
        self._ws = ws
        self._token = token
        self._http = http
        self._handlers = handlers
        self._limits = limits
        self._writing = asyncio.Lock()  # a response and its body must not be torn apart
        self._busy = 0
        self.opened_at = self.proven_at = time.monotonic()

    async def serve(self, tasks: asyncio.TaskGroup) -> Trouble:
        """Serve until the channel ends and say why it did. Exchanges under way go on in `tasks`."""
        renewing = tasks.create_task(self._renew_at_half_life())
        try:
            return await self._read(tasks)
        finally:
            renewing.cancel()
            await self.close()

    async def close(self) -> None:
        await self._ws.close()

    async def _read(self, tasks: asyncio.TaskGroup) -> Trouble:
        frames = FrameReader()
        while True:
            message = await self._ws.receive()
            if message.type is aiohttp.WSMsgType.ERROR:
                return explain(message.data)
            announcements = _announcements(frames, message)
            if announcements is None:
                return closed(self._ws.close_code, str(message.extra or ""))
            for announcement in announcements:
                tasks.create_task(self._attend(announcement))

    async def _renew_at_half_life(self) -> None:
        expires_at = self._token.expires_at
        while True:
            # Half of what is left: a token that could not be had now is asked for again well before the end.
            await asyncio.sleep(max(1, (expires_at - time.time()) * random.uniform(0.45, 0.55)))  # noqa: S311
            try:
                token = await self._handlers.token()
                async with self._writing:
                    await self._ws.send_str(renew_token(token))
                expires_at = token.expires_at
            except SOCKET_ERRORS as error:
                self._handlers.failed(explain(error))

    # --- exchanges ----------------------------------------------------------------------------------------------------

    async def _attend(self, announcement: Announcement) -> None:
        self._busy += 1
        try:
            async with asyncio.timeout(self._limits.exchange):
                await self._exchange(announcement, overloaded=self._busy > self._limits.sessions)
        except SOCKET_ERRORS as error:
            self._handlers.failed(explain(error))
        finally:
            self._busy -= 1

    async def _exchange(self, announcement: Announcement, *, overloaded: bool) -> None:
        match announcement:
            case Accept() if overloaded:
                await self._reject(announcement)
            case Accept():
                await self._serve_sender(announcement)
            case Request():
                await self._serve_request(announcement, _OVERLOADED if overloaded else None)
            case Pointer():
                await self._serve_pointer(announcement, _OVERLOADED if overloaded else None)
            case Unreadable():
                self._handlers.failed(
                    Trouble("protocol", f"The service sent what is not understood: {announcement.reason}.")
                )

    def _proven(self) -> None:
        self.proven_at = time.monotonic()
        self._handlers.proven()

    @asynccontextmanager
    async def _rendezvous(self, address: str) -> AsyncIterator[ClientWebSocket]:
        async with asyncio.timeout(self._limits.handshake):
            ws = await self._http.ws_connect(
                address,
                autoclose=False,
                max_msg_size=MESSAGE_BYTES,
                timeout=aiohttp.ClientWSTimeout(ws_close=self._limits.farewell),
            )
        try:
            yield ws
        finally:
            await ws.close()

    async def _reject(self, accept: Accept) -> None:
        try:
            async with self._rendezvous(reject_url(accept.address, 503, "The gateway is busy.")):
                pass
        except aiohttp.WSServerHandshakeError as error:
            if error.status != 410:  # 410 is how the service says that it told the sender
                raise

    async def _serve_sender(self, accept: Accept) -> None:
        async with self._rendezvous(accept.address) as ws:
            try:
                message = await ws.receive(timeout=self._limits.first_message)
            except TimeoutError:
                await ws.send_str(_error("timeout", "No message came; one text message is expected."))
                return
            if message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(await self._answer(message.data))
                await self._farewell(ws)
            elif message.type is aiohttp.WSMsgType.BINARY:
                await ws.send_str(_error("invalid", "The message is binary; one text message is expected."))

    async def _answer(self, message: str) -> str:
        try:
            async with asyncio.timeout(self._limits.answer):
                return await self._handlers.message(message)
        except TimeoutError:
            return _error("timeout", "The action took too long. Send it again: what was done is not done twice.")
        except Exception:  # one broken action must not end the link that all others need
            log.exception("action failed")
            return _error("internal", "The gateway failed on this action; its log says where.")

    async def _farewell(self, ws: ClientWebSocket) -> None:
        """Let the peer close, which says that it has the answer. One that leaves it to us is no worse; a cut is."""
        try:
            message = await ws.receive(timeout=self._limits.farewell)
        except TimeoutError:
            self._proven()
        else:
            if message.type is not aiohttp.WSMsgType.CLOSED:
                self._proven()

    # --- HTTP mode ----------------------------------------------------------------------------------------------------

    async def _serve_request(self, request: Request, ready: HttpAnswer | None) -> None:
        answer = ready or await self._http_answer(request)
        head = _head(request, answer)
        if len(head.encode()) + len(answer.body) <= CONTROL_LIMIT:
            async with self._writing:
                await _send(self._ws, head, answer.body)
            self._proven()
            return
        async with self._rendezvous(request.address) as ws:
            await _send(ws, head, answer.body)
            await self._farewell(ws)

    async def _serve_pointer(self, pointer: Pointer, ready: HttpAnswer | None) -> None:
        async with self._rendezvous(pointer.address) as ws:
            request = await self._read_request(ws)
            answer = ready or await self._http_answer(request)
            await _send(ws, _head(request, answer), answer.body)
            await self._farewell(ws)

    async def _read_request(self, ws: ClientWebSocket) -> Request:
        frames = FrameReader()
        while True:
            announcements = _announcements(frames, await ws.receive(timeout=self._limits.http_answer))
            match announcements:
                case [Request() as request]:
                    return request
                case []:
                    continue  # its body follows
                case _:
                    raise aiohttp.ClientPayloadError("the address of a request gave no request")

    async def _http_answer(self, request: Request) -> HttpAnswer:
        try:
            async with asyncio.timeout(self._limits.http_answer):
                return await self._handlers.http(request)
        except TimeoutError:
            return HttpAnswer(503, body=b"The gateway took too long.\n")
        except Exception:  # as for actions
            log.exception("http request failed")
            return HttpAnswer(500, body=b"The gateway failed on this request; its log says where.\n")


_OVERLOADED = HttpAnswer(503, headers={"Retry-After": "5"}, body=b"The gateway is busy.\n")


def _announcements(frames: FrameReader, message: aiohttp.WSMessage) -> list[Announcement] | None:
    """What a message announces; None when it ends the connection."""
    if message.type is aiohttp.WSMsgType.TEXT:
        return frames.text(message.data)
    if message.type is aiohttp.WSMsgType.BINARY:
        return frames.binary(message.data)
    return None


def _head(request: Request, answer: HttpAnswer) -> str:
    return response(request.id, answer.status, headers=answer.headers, has_body=bool(answer.body))


async def _send(ws: ClientWebSocket, head: str, body: bytes) -> None:
    await ws.send_str(head)
    if body:
        await ws.send_bytes(body)


def _error(code: str, message: str) -> str:
    return json.dumps({"status": "error", "code": code, "message": message})
