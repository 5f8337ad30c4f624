"""How long the HTTP server is patient with clients that send or take almost nothing.

Rules. A body that comes with less than LEAST_BYTES in PATIENCE_SECONDS is not waited for (408), unless it is we who do
not read it. An answer that nobody takes for UNTAKEN_SECONDS ends with its connection; the kernel looks after that
(TCP_USER_TIMEOUT), because files are sent by it. Heads of requests are the server's (`relay.web`, IDLE_SECONDS).

Not here: how often somebody may ask (`relay.access.rate_limits`).
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
    """What gives a request to its handler, and takes it away when its sender falls asleep."""

    @web.middleware
    async def waiting(request: web.Request, handler: Handler) -> web.StreamResponse:
        return await _handled(request, handler, patience_seconds)

    return waiting


async def _handled(request: web.Request, handler: Handler, patience_seconds: float) -> web.StreamResponse:
    connection = request.get_extra_info("socket")
    if connection is not None and connection.family in {socket.AF_INET, socket.AF_INET6}:
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
    """Wait until the body has come, or has not gone on."""
    seen = 0
    while not request.content.is_eof():
        await asyncio.sleep(patience_seconds)
        came, seen = request.content.total_bytes - seen, request.content.total_bytes
        is_read = request.transport is not None and request.transport.is_reading()
        if came < LEAST_BYTES and is_read and not request.content.is_eof():
            return True
    return False
