"""A stand-in of Azure Blob Storage for uploads in blocks by a signed URL; the tests compare it with Azurite.

Put Block, Get Block List, Put Block List and Get Blob Properties. Faults: after `refuse_after` blocks it answers 403,
after `mute_after` blocks it does not answer any more, after `cut_after` bytes it resets the connection.

Not for: anything but this machine; neither `sig` nor `se` is checked.
"""

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

from aiohttp import web


@dataclass
class Blob:
    """One name: the blocks that are staged, and once they are committed, the content's digest and the metadata."""

    staged: dict[str, tuple[int, Path]] = field(default_factory=dict)
    sha256: str = ""
    size: int = 0
    metadata: dict[str, str] = field(default_factory=dict)


class Blobs:
    """All blobs by path. `folder` is scratch space for staged blocks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.blobs: dict[str, Blob] = {}
        self.put_blocks = 0
        self.readable = True
        self.refuse_after: int | None = None
        self.mute_after: int | None = None
        self.cut_after: int | None = None
        self.damage_next = False
        self.url = ""

    def signed(self, name: str) -> str:
        """The URL with the right to write a blob."""
        return f"{self.url}/images/{name}?sv=2021-12-02&sp=rcw&sig=c2lnbmVk%3D"

    @asynccontextmanager
    async def serving(self, *, tls: ssl.SSLContext | None = None) -> AsyncIterator["Blobs"]:
        app = web.Application(client_max_size=128 * 1024 * 1024)
        app.router.add_route("*", "/images/{name:.+}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        blob, comp = self.blobs.setdefault(request.match_info["name"], Blob()), request.query.get("comp", "")
        match request.method, comp:
            case "PUT", "block":
                return await self._put_block(request, blob)
            case "PUT", "blocklist":
                return await self._commit(request, blob)
            case "GET", "blocklist":
                return self._block_list(blob)
            case "HEAD", "":
                return self._properties(blob)
        return _error(400, "InvalidQueryParameterValue")

    async def _put_block(self, request: web.Request, blob: Blob) -> web.Response:
        if self.refuse_after is not None and self.put_blocks >= self.refuse_after:
            return _error(403, "AuthenticationFailed")
        if self.mute_after is not None and self.put_blocks >= self.mute_after:
            await asyncio.Event().wait()  # until the client gives up or the service ends
        content = await self._content(request)
        if content is None:
            return web.Response(status=500)
        if base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode() != request.headers.get(
            "Content-MD5"
        ):
            return _error(400, "Md5Mismatch")
        name = request.query["blockid"]
        # Azure wants the ids of a blob's blocks to have one length.
        if any(len(name) != len(known) for known in blob.staged):
            return _error(400, "InvalidBlobOrBlock")
        # A digest, because a block id is Base64 and may contain a slash.
        path = self._folder / hashlib.sha256(f"{id(blob)} {name}".encode()).hexdigest()
        await asyncio.to_thread(path.write_bytes, content)
        blob.staged[name] = (len(content), path)
        self.put_blocks += 1
        return web.Response(status=201)

    async def _content(self, request: web.Request) -> bytes | None:
        """The body; None when the connection was cut on the way."""
        content = bytearray()
        async for piece in request.content.iter_any():
            content += piece
            if self.cut_after is not None:
                self.cut_after -= len(piece)
                if self.cut_after <= 0 and request.transport is not None:
                    self.cut_after = None
                    request.transport.abort()
                    return None
        if self.damage_next:
            # One bit, as a broken line does; the MD5 has to show it.
            self.damage_next, content[0] = False, content[0] ^ 1
        return bytes(content)

    async def _commit(self, request: web.Request, blob: Blob) -> web.Response:
        names = [element.text or "" for element in ElementTree.fromstring(await request.text())]  # noqa: S314 - our own
        if any(name not in blob.staged for name in names):
            return _error(400, "InvalidBlockList")
        digest = hashlib.sha256()
        for name in names:
            digest.update(await asyncio.to_thread(blob.staged[name][1].read_bytes))
        blob.sha256, blob.size = digest.hexdigest(), sum(blob.staged[name][0] for name in names)
        prefix = "x-ms-meta-"
        blob.metadata = {k.lower().removeprefix(prefix): v for k, v in request.headers.items() if k.startswith(prefix)}
        # Also the blocks that the list does not name: Azure discards them at the commit.
        for _, path in blob.staged.values():
            path.unlink()
        blob.staged = {}
        return web.Response(status=201)

    def _block_list(self, blob: Blob) -> web.Response:
        if not self.readable:
            return _error(403, "AuthorizationPermissionMismatch")
        if not blob.staged and not blob.sha256:
            return _error(404, "BlobNotFound")
        blocks = "".join(f"<Block><Name>{n}</Name><Size>{size}</Size></Block>" for n, (size, _) in blob.staged.items())
        text = f"<BlockList><CommittedBlocks/><UncommittedBlocks>{blocks}</UncommittedBlocks></BlockList>"
        return web.Response(text=text, content_type="application/xml")

    def _properties(self, blob: Blob) -> web.Response:
        if not self.readable:
            return _error(403, "AuthorizationPermissionMismatch")
        if not blob.sha256:
            return _error(404, "BlobNotFound")
        return web.Response(headers={f"x-ms-meta-{name}": value for name, value in blob.metadata.items()})


def _error(status: int, code: str) -> web.Response:
    return web.Response(status=status, headers={"x-ms-error-code": code})
