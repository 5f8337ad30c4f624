"""Sends HTTP bodies: bytes from memory, slices of files, parts as they are made.

An answer of known length is sent by the kernel and may be requested in ranges. One that is made while it is
sent is chunked. A body that has begun can only be completed or cut off.

Not here: the parts themselves (`relay.dicomweb.negotiation`), conditional requests (`relay.dicomweb.conditional`).
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

_READ = 1 << 20  # bytes


async def send(
    request: web.Request, bodies: Iterable[Body], headers: Mapping[str, str], current: Version, *, status: int = 200
) -> web.StreamResponse:
    """Send bodies one after the other, with their common length in bytes: 304 when the client has this version, 206
    for a range.

    Raises NotFound when a file is gone, RangeNotSatisfiable.
    """
    if conditional.is_known(current, request.headers):
        return web.Response(status=304, headers=current.headers)
    pieces = list(bodies)
    # Before the status line, because a body that has begun can only be cut off.
    await asyncio.to_thread(_check_files, pieces)
    size = negotiation.size(pieces)
    sent = {**headers, **current.headers}
    if status == 200:  # a 206 of WADO-RS (not every object is acceptable) is no range of bytes
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
    """Send parts that are all there as multipart/related. The same version has the same bytes."""
    # The version is the boundary, too: a random one would change the bytes, and ranges of them could not be joined.
    headers = {"Content-Type": negotiation.multipart_type(part_type, current.tag)}
    return await send(request, negotiation.multipart(parts, current.tag), headers, current, status=status)


async def stream_parts(
    request: web.Request, parts: AsyncIterator[Part], part_type: str, *, status: int = 200
) -> web.StreamResponse:
    """Send parts as they are made. An error of the first part becomes an error response; a later one cuts off."""
    boundary = secrets.token_hex(16)
    part = await anext(parts, None)  # before the status line, so that its error can still become a status
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
    # The last file stays open, because a compressed frame may be many fragments of it.
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
    # From the page cache to the socket, without passing through this process. uvloop has no sendfile.
    await asyncio.get_running_loop().sendfile(request.transport, file, piece.offset, piece.size)


async def _write_chunked(response: web.StreamResponse, piece: Body) -> None:
    # Without a length in front the body is chunked (RFC 9112 Section 7.1), which sendfile cannot write.
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
