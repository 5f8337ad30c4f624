"""The exchanges over a hybrid connection: several at once, up to a limit that both channels share.

A sender sends one text message and gets one answer. An HTTP request gets one response: on the control channel if the
response is bytes and small, at the request's own address otherwise. Every announcement is answered; what exceeds the
limit is refused with 503.

Not here: the control channel (`relay.hybrid.channel`), the socket of one exchange (`relay.hybrid.rendezvous`), what an
action does (`relay.cloud.commands`).
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from gateway.errors import Refusal
from relay.egress import Egress
from relay.hybrid.errors import SOCKET_ERRORS, Trouble, explain
from relay.hybrid.http import HttpAnswer, HttpRequest, pieces
from relay.hybrid.liveness import Lifetimes
from relay.hybrid.protocol import (
    CONTROL_LIMIT,
    Accept,
    Announcement,
    HybridRequest,
    Pointer,
    Unreadable,
    announced,
    reject_url,
    response,
)
from relay.hybrid.rendezvous import Rendezvous, reject, rendezvous

log = structlog.get_logger()

RESERVED = frozenset({502, 504})
"""Statuses by which the service reports that no listener answered; a response of ours with one becomes 503."""


@dataclass(frozen=True)
class LinkLimits:
    """How long (seconds) and how many, each with its reason."""

    sessions: int = 16  # exchanges at once; the actions for one site come one by one
    handshake: float = 15  # the service holds the other side for 30 s
    first_message: float = 10  # a silent sender must not keep a session from others
    answer: float = 30  # the cloud waits no longer
    http_answer: float = 50  # the service gives up after 60 s, which cannot be raised, and after as long a pause
    closing: float = 2  # for the peer's close frame
    drain: float = 60  # a channel that closes waits so long for requests under way; none may take longer
    heartbeat: float | None = 25  # pings; load balancers forget an idle connection after about 4 minutes
    listeners: int = 2  # control channels at once: while one is replaced, the other is there; each is paid for
    stagger: float = 5  # between the openings of the two, so that nothing that ages befalls both at once
    proof_every: float = 20  # between two echoes to each listener
    ask_again: float = 600  # between two echoes while the key may not send: the right may be given meanwhile
    lifetimes: Lifetimes = Lifetimes()  # noqa: RUF009 - frozen
    delays: tuple[float, ...] = (0, 1, 2, 5, 10, 30)  # between attempts, those of Microsoft's clients


class ControlChannel(Protocol):
    """The control channel that an exchange was announced on."""

    async def respond(self, head: str, body: bytes) -> bool:
        """Send a response and its body, which stay together; False when nothing can be sent over it any more."""

    def proven(self) -> None:
        """Note that an exchange it announced came all the way."""


@dataclass(frozen=True)
class Handlers:
    """The callbacks for messages, HTTP requests, and failures of the link."""

    message: Callable[[str], Awaitable[str]]
    request: Callable[[HttpRequest], Awaitable[HttpAnswer]]
    failed: Callable[[Trouble], None]


class Exchanges:
    """Serves announcements. `busy` exchanges are under way; counted since the start are `attended`, and `refused`."""

    def __init__(self, handlers: Handlers, limits: LinkLimits, egress: Egress) -> None:
        self._handlers = handlers
        self._limits = limits
        self._egress = egress
        self.busy = 0
        self.attended = 0
        self.refused = 0

    async def attend(self, announcement: Announcement, origin: ControlChannel) -> None:
        """Carry one exchange through; errors of the link are reported, not raised."""
        self.busy += 1
        self.attended += 1
        overloaded = self.busy > self._limits.sessions
        self.refused += overloaded
        try:
            await self._exchange(announcement, origin, overloaded=overloaded)
        except SOCKET_ERRORS as error:
            self._handlers.failed(explain(error))
        finally:
            self.busy -= 1

    async def _exchange(self, announcement: Announcement, origin: ControlChannel, *, overloaded: bool) -> None:
        match announcement:
            # Refused at once, because a sender that waits in vain is worse off than one that may come back.
            case Accept() if overloaded:
                address = reject_url(announcement.address, 503, "The gateway is busy.")
                await reject(address, self._egress, handshake=self._limits.handshake)
            case Accept():
                await self._serve_sender(announcement, origin)
            case HybridRequest():
                await self._serve_request(announcement, origin, ready=_OVERLOADED if overloaded else None)
            case Pointer():
                await self._serve_pointer(announcement, origin, ready=_OVERLOADED if overloaded else None)
            case Unreadable():
                self._handlers.failed(
                    Trouble("protocol", f"The service sent what is not understood: {announcement.reason}.")
                )

    def _rendezvous(self, address: str) -> AbstractAsyncContextManager[Rendezvous]:
        return rendezvous(address, self._egress, handshake=self._limits.handshake, closing=self._limits.closing)

    async def _finish(self, meeting: Rendezvous, origin: ControlChannel) -> None:
        # Proven only now: the peer's close says that the answer arrived, and an answer sent says nothing.
        if await meeting.closed_by_peer(seconds=self._limits.closing):
            origin.proven()

    # --- messages -----------------------------------------------------------------------------------------------------

    async def _serve_sender(self, accept: Accept, origin: ControlChannel) -> None:
        async with self._rendezvous(accept.address) as meeting:
            try:
                message = await meeting.message(seconds=self._limits.first_message)
            except TimeoutError:
                await meeting.send(_error("timeout", "No message came; one text message is expected."))
                return
            if isinstance(message, bytes):
                await meeting.send(_error("invalid", "The message is binary; one text message is expected."))
                return
            await meeting.send(await self._answer(message))
            await self._finish(meeting, origin)

    async def _answer(self, message: str) -> str:
        try:
            async with asyncio.timeout(self._limits.answer):
                return await self._handlers.message(message)
        except TimeoutError:
            return _error("timeout", "The action took too long. Send it again: what was done is not done twice.")
        except Exception:  # one broken action must not end the link that all others need
            log.exception("action failed")
            return _error("internal", "The gateway failed on this action; its log says where.")

    # --- HTTP mode ----------------------------------------------------------------------------------------------------

    async def _serve_request(self, request: HybridRequest, origin: ControlChannel, *, ready: HttpAnswer | None) -> None:
        answer = ready or await self._http_answer(request, pieces(request.body))
        # Over the control channel it saves the handshake of a rendezvous; the service takes 64 KiB there.
        if isinstance(answer.body, bytes):
            head = _head(request, answer, has_body=bool(answer.body))
            is_small = len(head.encode()) + len(answer.body) <= CONTROL_LIMIT
            if is_small and await origin.respond(head, answer.body):
                origin.proven()
                return
        async with self._rendezvous(request.address) as meeting:
            await self._respond(meeting, request, answer)
            await self._finish(meeting, origin)

    async def _serve_pointer(self, pointer: Pointer, origin: ControlChannel, *, ready: HttpAnswer | None) -> None:
        async with self._rendezvous(pointer.address) as meeting:
            request = announced(await meeting.message(seconds=self._limits.http_answer))
            if not isinstance(request, HybridRequest):
                raise ConnectionResetError("the address of a request gave no request")
            body = meeting.body(pace=self._limits.http_answer) if request.body_follows else pieces()
            await self._respond(meeting, request, ready or await self._http_answer(request, body))
            await self._finish(meeting, origin)

    async def _http_answer(self, request: HybridRequest, body: AsyncIterator[bytes]) -> HttpAnswer:
        """The answer of the handler; a streamed body has its first piece already, within the same limit of time."""
        http_request = HttpRequest(request.method, request.target, request.headers, body)
        try:
            async with asyncio.timeout(self._limits.http_answer):
                return await _begun(await self._handlers.request(http_request))
        except Refusal as refusal:
            return HttpAnswer(refusal.http_status, _JSON, _words(refusal.code, str(refusal)))
        except TimeoutError:
            return HttpAnswer(503, _JSON, _words("timeout", "The gateway took too long."))
        except Exception:  # as for messages
            log.exception("http request failed")
            return HttpAnswer(500, _JSON, _words("internal", "The gateway failed on this; its log says where."))

    async def _respond(self, meeting: Rendezvous, request: HybridRequest, answer: HttpAnswer) -> None:
        await meeting.send(_head(request, answer, has_body=bool(answer.body)))
        if answer.body:
            body = pieces(answer.body) if isinstance(answer.body, bytes) else answer.body
            await meeting.send_body(body, pace=self._limits.http_answer)


async def _begun(answer: HttpAnswer) -> HttpAnswer:
    """Wait for the first piece of a body."""
    # Until the first piece is here, a failure can still be answered with a status.
    if isinstance(answer.body, bytes):
        return answer
    async for piece in answer.body:
        if piece:
            return replace(answer, body=_from(piece, answer.body))
    return replace(answer, body=b"")


async def _from(first: bytes, others: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in others:
        yield piece


def _head(request: HybridRequest, answer: HttpAnswer, *, has_body: bool) -> str:
    # Sent as they are, 502 and 504 would look as if no listener had answered.
    status = 503 if answer.status in RESERVED else answer.status
    return response(request.id, status, headers=answer.headers, has_body=has_body)


def _error(code: str, message: str) -> str:
    return json.dumps({"status": "error", "code": code, "message": message})


def _words(code: str, message: str) -> bytes:
    return json.dumps({"code": code, "message": message}).encode()


_JSON = {"Content-Type": "application/json"}
_OVERLOADED = HttpAnswer(503, {**_JSON, "Retry-After": "5"}, _words("busy", "The gateway is busy."))
