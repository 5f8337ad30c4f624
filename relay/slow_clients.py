"""How long the HTTP server waits for clients that send or take almost nothing.

A body that arrives with less than LEAST_BYTES in PATIENCE_SECONDS ends with 408. An answer that is not taken for
UNTAKEN_SECONDS ends with its connection. Slow request heads are the server's (`relay.web`, IDLE_SECONDS).

Not here: how often a client may send requests (`relay.access.rate_limits`).
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.errors import Denied

PATIENCE_SECONDS = 15.0
LEAST_BYTES = 1500
"""100 bytes a second; the slowest line that a site has sends ten times that."""

UNTAKEN_SECONDS = 60

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def bounded(patience_seconds: float = PATIENCE_SECONDS) -> Middleware:
    """A middleware that gives a request to its handler, and cancels the handler when the body stalls."""

    @web.middleware
    async def waiting(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await _handled(request, handler, patience_seconds)

    return waiting


async def _handled(request: web.Request, handler: Handler, patience_seconds: float) -> web.StreamResponse:
    connection = request.get_extra_info("socket")
    if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
        # By the kernel, which sends files itself (sendfile), so that no code here sees the answer stall.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_SECONDS * 1000)
    if not request.can_read_body:
        return await handler(request)
    handling = asyncio.ensure_future(handler(request))
    watching = asyncio.create_task(_stalled(request, patience_seconds))
    try:
        await asyncio.wait({handling, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not handling.done() and watching.done() and watching.result():
            raise Denied("The body of this request did not come; send it at once.", status=408, code="too_slow")
        return await handling
    finally:
        watching.cancel()
        handling.cancel()


async def _stalled(request: web.Request, patience_seconds: float) -> bool:
    """True when the body stalls, False when it has come."""
    seen = 0
    while not request.content.is_eof():
        await asyncio.sleep(patience_seconds)
        came, seen = request.content.total_bytes - seen, request.content.total_bytes
        # While reading is paused, the handler is slow and not the client.
        is_read = request.transport is not None and request.transport.is_reading()
        if came < LEAST_BYTES and is_read and not request.content.is_eof():
            return True
    return False
