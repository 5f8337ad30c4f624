"""Sends bodies over HTTP: bytes from memory, slices of files by the kernel, parts as they are made.

A stored object goes from the page cache to the socket (sendfile) without passing through this process. Once a body has
begun it can only be completed or cut off, so whatever can fail is tried before.

Not here: what the parts are (`relay.dicomweb.negotiation`), what a condition means (`relay.dicomweb.conditional`).
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from aiohttp import web

from gateway.errors import NotFound
from relay.dicomweb import conditional, negotiation
from relay.dicomweb.conditional import Version
from relay.dicomweb.negotiation import Body, Part, Slice

_READ = 1 << 20


async def send(
    request: web.Request, bodies: Iterable[Body], headers: Mapping[str, str], current: Version, *, status: int = 200
) -> web.StreamResponse:
    """Send bodies one after the other, with the length of them all: 304 when the client has them, 206 for a range.

    Raises NotFound when a file is gone, RangeNotSatisfiable.
    """
    if conditional.is_known(current, request.headers):
        return web.Response(status=304, headers=current.headers)
    pieces = list(bodies)
    await asyncio.to_thread(_check_files, pieces)
    size = negotiation.size(pieces)
    sent = {**headers, **current.headers}
    if status == 200:
        sent["Accept-Ranges"] = "bytes"
        if (wanted := conditional.byte_range(current, request.headers, size)) is not None:
            status, pieces = 206, list(_within(pieces, *wanted))
            sent["Content-Range"] = f"bytes {wanted[0]}-{wanted[1] - 1}/{size}"
    response = web.StreamResponse(status=status, headers=sent)
    response.content_length = negotiation.size(pieces)
    await response.prepare(request)
    if request.method != "HEAD":
        with _Files() as files:
            for piece in pieces:
                await _write(request, response, piece, files)
    await response.write_eof()
    return response


async def send_parts(
    request: web.Request, parts: Iterable[Part], part_type: str, current: Version, *, status: int = 200
) -> web.StreamResponse:
    """Send parts that are all there as multipart/related. The same version has the same boundary: the same bytes."""
    headers = {"Content-Type": negotiation.multipart_type(part_type, current.tag)}
    return await send(request, negotiation.multipart(parts, current.tag), headers, current, status=status)


async def stream_parts(
    request: web.Request, parts: AsyncIterator[Part], part_type: str, *, status: int = 200
) -> web.StreamResponse:
    """Send parts as they are made; what is raised before the first is answered as an error."""
    boundary = secrets.token_hex(16)
    part = await anext(parts, None)
    response = web.StreamResponse(
        status=status, headers={"Content-Type": negotiation.multipart_type(part_type, boundary)}
    )
    await response.prepare(request)
    while part is not None and request.method != "HEAD":
        for piece in negotiation.framed(part, boundary):
            await _write_chunked(response, piece)
        part = await anext(parts, None)
    await response.write_eof(negotiation.closing(boundary))
    return response


class _Files(ExitStack):
    """Keeps the file that was sent from last open: a frame may have many fragments."""

    _last: tuple[Path, BinaryIO] | None = None

    async def opened(self, path: Path) -> BinaryIO:
        if self._last is None or self._last[0] != path:
            self.close()
            self._last = path, self.enter_context(await asyncio.to_thread(path.open, "rb"))
        return self._last[1]


async def _write(request: web.Request, response: web.StreamResponse, piece: Body, files: _Files) -> None:
    if not isinstance(piece, Slice):
        await response.write(piece)
        return
    if request.transport is None:
        raise ConnectionResetError("The client has gone.")
    file = await files.opened(piece.path)
    await asyncio.get_running_loop().sendfile(request.transport, file, piece.offset, piece.size)


async def _write_chunked(response: web.StreamResponse, piece: Body) -> None:
    """Without a length in front the body goes in chunks (RFC 9112 Section 7.1), which the kernel cannot write."""
    if not isinstance(piece, Slice):
        await response.write(piece)
        return
    with await asyncio.to_thread(piece.path.open, "rb") as file:
        file.seek(piece.offset)
        left = piece.size
        while left and (read := await asyncio.to_thread(file.read, min(left, _READ))):
            left -= len(read)
            await response.write(read)
    if left:
        raise ConnectionResetError("The file ended before its part did.")


def _within(pieces: Iterable[Body], begin: int, end: int) -> Iterator[Body]:
    """Cut a range of bytes out of bodies that follow one another."""
    position = 0
    for piece in pieces:
        size = piece.size if isinstance(piece, Slice) else len(piece)
        first, last = max(begin - position, 0), min(end - position, size)
        position += size
        if first >= last:
            continue
        if isinstance(piece, Slice):
            yield Slice(piece.path, piece.offset + first, last - first)
        else:
            yield piece[first:last]


def _check_files(pieces: Sequence[Body]) -> None:
    for path in {piece.path for piece in pieces if isinstance(piece, Slice)}:
        if not path.is_file():
            raise NotFound("The index knows this object, but its file is gone; run `gateway fsck`.")
