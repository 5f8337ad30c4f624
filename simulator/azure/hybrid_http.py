"""HTTP request mode of the Hybrid Connections stand-in: an ordinary request goes through to a listener.

The listener answers on its control channel or, when it opens the request's rendezvous address, over that.

Not for: websockets (`hybrid_service`).
"""

import asyncio
import json
from dataclasses import dataclass

from aiohttp import WSMsgType, web

from simulator.azure.hybrid_namespace import HybridConnection, Namespace, Registration, Socket, Waiting, own_query
from simulator.azure.hybrid_tokens import SEND, HandshakeRefused

HOP_HEADERS = ("connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade", "close")
CONNECTION_HEADERS = frozenset((*HOP_HEADERS, "keep-alive", "proxy-connection", "expect"))
"""Headers that belong to one hop and are not passed on."""

INLINE_LIMIT = 64 * 1024  # bytes of headers and body; the service documents 64 kB for the control channel


@dataclass(frozen=True)
class Call:
    """One request on its way: the head that the listener gets, and the body."""

    ident: str
    head: dict[str, object]
    body: bytes
    inline: bool


async def relay_http(
    namespace: Namespace, request: web.Request, *, connection: HybridConnection, ident: str, timeout: float
) -> web.StreamResponse:
    namespace.authorise(request, connection, SEND)
    namespace.pick(connection, request)  # 404 without a listener, before a body is read
    address = namespace.address(connection.path, "request", ident=ident)
    call = await _call(request, ident=ident, address=address)
    # Once more, because the listener of before may have left while the body was read.
    registration = namespace.pick(connection, request)
    connection.counts["http inline" if call.inline else "http rendezvous"] += 1
    waiting = namespace.wait(ident, connection, "request")
    registration.responses[ident] = asyncio.Queue()
    try:
        async with asyncio.timeout(timeout):
            head, body = await _ask(call, registration, waiting=waiting)
    except TimeoutError:
        raise HandshakeRefused(504, "GatewayTimeout: The listener did not respond in the required time.") from None
    finally:
        namespace.forget(ident)
        del registration.responses[ident]
    return _answer(head, body)


async def _call(request: web.Request, *, ident: str, address: str) -> Call:
    headers = _headers(request)
    # A small request travels on the control channel; a large or chunked one is announced there by its address only.
    chunked = request.content_length is None and request.body_exists
    size = (request.content_length or 0) + sum(len(name) + len(value) for name, value in headers.items())
    body = await request.read()
    query = own_query(request)
    head: dict[str, object] = {
        "address": address,
        "id": ident,
        "requestTarget": request.rel_url.raw_path + (f"?{query}" if query else ""),
        "method": request.method,
        "requestHeaders": headers,
        "body": bool(body),
    }
    return Call(ident, head, body, inline=not chunked and size <= INLINE_LIMIT)


def _headers(request: web.Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        if name.lower() not in CONNECTION_HEADERS | {"servicebusauthorization"}:
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers | {"Via": ", ".join(filter(None, [headers.get("Via"), "1.1 127.0.0.1"]))}


async def _ask(call: Call, registration: Registration, *, waiting: Waiting) -> tuple[dict[str, object], bytes]:
    if call.inline:
        await registration.announce({"request": call.head}, call.body or None)
    else:
        await registration.announce({"request": {"address": call.head["address"]}})  # nothing else, not even an id
    # The listener chooses its route: a large response comes over the rendezvous, also to a small request.
    on_control = asyncio.ensure_future(registration.responses[call.ident].get())
    either: tuple[asyncio.Future[object], ...] = (on_control, waiting.joined)  # type: ignore[assignment]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if waiting.joined.done():
            return await _ask_over(waiting.joined.result(), call)
        answer = on_control.result()
    finally:
        on_control.cancel()
    if answer is None:
        raise HandshakeRefused(502, "BadGateway: The listener went away.")
    return answer


async def _ask_over(joined: Socket | HandshakeRefused, call: Call) -> tuple[dict[str, object], bytes]:
    if isinstance(joined, HandshakeRefused):
        raise joined
    if not call.inline:
        await joined.send(json.dumps({"request": call.head}).encode(), opcode=1)
        if call.body:
            await joined.send(call.body, opcode=2, empty_end=True)
    message = await joined.ws.receive()
    if message.type is not WSMsgType.TEXT:
        raise HandshakeRefused(502, "BadGateway: The rendezvous closed without a response.")
    head = json.loads(message.data)["response"]
    if not head.get("body"):
        return head, b""
    body = await joined.ws.receive()
    if body.type is not WSMsgType.BINARY:
        raise HandshakeRefused(502, "BadGateway: The rendezvous closed within a response.")
    return head, body.data


def _answer(head: dict[str, object], body: bytes) -> web.Response:
    given = head.get("responseHeaders")
    headers = (
        {k: str(v) for k, v in given.items() if k.lower() not in CONNECTION_HEADERS} if isinstance(given, dict) else {}
    )
    return web.Response(status=int(str(head["statusCode"])), body=body, headers=headers | {"Via": "1.1 127.0.0.1"})
