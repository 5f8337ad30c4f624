"""Sends bodies over HTTP: bytes from memory, slices of files by the kernel, parts as they are made.

A stored object goes from the page cache to the socket (sendfile) without passing through this process. Once a body has
begun it can only be completed or cut off, so whatever can fail is tried before.

Not here: what the parts are (`relay.wado`).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from aiohttp import web

from gateway.errors import NotFound
from relay import wado
from relay.wado import Body, Part, Slice


async def send(
    request: web.Request, bodies: Iterable[Body], headers: Mapping[str, str], *, status: int = 200
) -> web.StreamResponse:
    """Send bodies one after the other, with the length of them all. Raises NotFound when a file is gone."""
    pieces = list(bodies)
    await asyncio.to_thread(_check_files, pieces)
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = wado.size(pieces)
    await response.prepare(request)
    if request.method != "HEAD":
        for piece in pieces:
            await _write(request, response, piece)
    await response.write_eof()
    return response


async def send_parts(
    request: web.Request, parts: Iterable[Part], part_type: str, *, status: int = 200
) -> web.StreamResponse:
    """Send parts that are all there as multipart/related."""
    boundary = secrets.token_hex(16)
    headers = {"Content-Type": wado.multipart_type(part_type, boundary)}
    return await send(request, wado.multipart(parts, boundary), headers, status=status)


async def stream_parts(request: web.Request, parts: AsyncIterator[Part], part_type: str) -> web.StreamResponse:
    """Send parts as they are made; what is raised before the first is answered as an error."""
    boundary = secrets.token_hex(16)
    part = await anext(parts, None)
    response = web.StreamResponse(headers={"Content-Type": wado.multipart_type(part_type, boundary)})
    await response.prepare(request)
    while part is not None and request.method != "HEAD":
        for piece in wado.framed(part, boundary):
            await _write(request, response, piece)
        part = await anext(parts, None)
    await response.write_eof(wado.closing(boundary))
    return response


async def _write(request: web.Request, response: web.StreamResponse, piece: Body) -> None:
    if not isinstance(piece, Slice):
        await response.write(piece)
        return
    if request.transport is None:
        raise ConnectionResetError("The client has gone.")
    with await asyncio.to_thread(piece.path.open, "rb") as file:
        await asyncio.get_running_loop().sendfile(request.transport, file, piece.offset, piece.size)


def _check_files(pieces: Sequence[Body]) -> None:
    for piece in pieces:
        if isinstance(piece, Slice) and not piece.path.is_file():
            raise NotFound("The index knows this object, but its file is gone; run `gateway fsck`.")
