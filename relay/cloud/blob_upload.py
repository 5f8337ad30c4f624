"""Uploads a file to an Azure blob by a URL with its own signature (SAS), in blocks that a later attempt resumes.

* Blocks are named after the content of the file and their number, so the service knows which of them it has.
* The list of blocks is committed at the end, with the SHA-256 of the file in the metadata.
* An attempt that staged a block and was cut is followed by the next at once; one that staged none fails.

Not here: which files (`relay.cloud.full_images`), how fast (`relay.cloud.throttle`), pauses between attempts
(`relay.delivery.delivery`).
"""

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import aiohttp
import structlog
from yarl import URL

from gateway.errors import CloudError, GatewayError
from relay.cloud.throttle import Throttle
from relay.egress import DIRECT, Egress
from relay.hybrid.errors import explain

log = structlog.get_logger()

BLOCK_BYTES = 4 * 1024 * 1024
"""Most that a cut costs; the largest object has a thousand blocks, and the service takes fifty thousand."""

CHUNK_BYTES = 64 * 1024
"""Bytes sent at once, so that a slow line is not filled in bursts."""

VERSION = "2021-12-02"
SECONDS = 30.0
"""Limit of a query, and of a block in addition to the time of its bytes."""

SLOWEST = 10_000
"""Bytes a second below which a block counts as stuck."""

_NEVER = frozenset({400, 404, 405, 409, 411, 412, 413, 415})
"""Statuses that the same request would get for ever: no such container, a blob of another kind, a locked one."""

_DAMAGED, _NOT_ALLOWED = "Md5Mismatch", "AuthorizationPermissionMismatch"
"""Error codes of a block that arrived damaged, and of a query that a valid URL does not allow. Any other 403 says that
the URL is expired, signed wrongly, or not for this network.
"""


class UrlRefused(GatewayError):
    """The URL is expired, revoked, or does not allow to write; a new one is needed."""


class UploadRefused(GatewayError):
    """The storage refuses this file for good; the message has the status."""


class Interrupted(GatewayError):
    """The line was cut, or the storage has a passing trouble."""


@dataclass(frozen=True)
class Block:
    """A part of a file: where it begins, how long it is, and its name (base64, all of one length, as Azure wants)."""

    id: str
    offset: int
    size: int


def blocks(sha256: str, size: int, *, block_bytes: int = BLOCK_BYTES) -> list[Block]:
    """Cut a file of a given content (hex digest) into blocks."""
    offsets = range(0, size, block_bytes)
    return [
        Block(_block_id(sha256, number), offset, min(block_bytes, size - offset))
        for number, offset in enumerate(offsets)
    ]


def missing(wanted: list[Block], staged: Mapping[str, int]) -> list[Block]:
    """The blocks that the service does not have in full length."""
    return [block for block in wanted if staged.get(block.id) != block.size]


def block_list(wanted: list[Block]) -> bytes:
    """The body that commits blocks in their order."""
    items = "".join(f"<Latest>{block.id}</Latest>" for block in wanted)
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'.encode()


def staged_blocks(answer: bytes) -> dict[str, int]:
    """Read names and sizes from the service's answer; an answer that is not understood counts as no blocks."""
    try:
        root = ElementTree.fromstring(answer)  # noqa: S314 - expat of today refuses bombs; bounded by the caller
        found = root.iterfind("./UncommittedBlocks/Block")
        return {block.findtext("Name", ""): int(block.findtext("Size", "0")) for block in found}
    except (ElementTree.ParseError, ValueError):
        return {}


def beneath(container_url: str, name: str) -> str:
    """The URL of a blob of this name in a container or folder; the signature in the query stays as it is."""
    parts = urlsplit(container_url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}").geturl()


def _block_id(sha256: str, number: int) -> str:
    # After the content and not the upload: a block staged before a cut, before a restart or under another URL is the
    # same block, so the upload needs no record of its progress.
    return base64.b64encode(f"{sha256[:32]}-{number:06d}".encode()).decode()


class BlobUpload:
    """The upload of one open file to one URL. `sent_blocks` counts the blocks this object sent."""

    def __init__(
        self,
        url: str,
        content: BinaryIO,
        sha256: str,
        *,
        throttle: Throttle,
        content_type: str = "application/dicom",
        egress: Egress = DIRECT,
    ) -> None:
        self._url = url
        self._content = content
        self._sha256 = sha256
        self._throttle = throttle
        self._content_type = content_type
        self._egress = egress
        self.sent_blocks = 0

    async def run(self) -> None:
        """Return when the blob is complete. Raises UrlRefused, UploadRefused, or CloudError (not permanent)."""
        size = (await asyncio.to_thread(os.fstat, self._content.fileno())).st_size
        wanted = blocks(self._sha256, size)
        async with aiohttp.ClientSession() as http:
            while True:
                before = self.sent_blocks
                try:
                    await self._attempt(http, wanted)
                except Interrupted as error:
                    if self.sent_blocks == before:
                        raise CloudError(str(error), permanent=False) from error
                    log.warning("upload interrupted", reason=str(error), sent_blocks=self.sent_blocks)
                else:
                    return

    async def _attempt(self, http: aiohttp.ClientSession, wanted: list[Block]) -> None:
        # Only the confirmation of an earlier attempt may have been lost.
        if await self._is_there(http):
            return
        # The service drops uncommitted blocks after a week; then they are missing, and sent again.
        for block in missing(wanted, await self._staged(http)):
            await self._throttle.until_quiet()
            await self._put_block(http, block)
            self.sent_blocks += 1
        headers = {"x-ms-blob-content-type": self._content_type, "x-ms-meta-sha256": self._sha256}
        query = {"comp": "blocklist"}
        _judge(await self._request(http, "PUT", query, data=block_list(wanted), headers=headers, seconds=SECONDS))

    async def _is_there(self, http: aiohttp.ClientSession) -> bool:
        answer = await self._request(http, "HEAD", {}, seconds=SECONDS)
        return answer.status == 200 and answer.headers.get("x-ms-meta-sha256") == self._sha256

    async def _staged(self, http: aiohttp.ClientSession) -> dict[str, int]:
        answer = await self._request(
            http, "GET", {"comp": "blocklist", "blocklisttype": "uncommitted"}, seconds=SECONDS
        )
        if answer.status == 200:
            return staged_blocks(answer.body)
        if answer.status == 404 or (answer.status == 403 and answer.code == _NOT_ALLOWED):
            return {}  # nothing there yet, or the URL may write and not read
        _judge(answer)
        return {}

    async def _put_block(self, http: aiohttp.ClientSession, block: Block) -> None:
        content = await asyncio.to_thread(self._read, block)
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        headers = {"Content-MD5": base64.b64encode(md5).decode(), "Content-Length": str(block.size)}
        # The allowed rate may be lower than what counts as stuck.
        slowest = min(self._throttle.bucket.rate or SLOWEST, SLOWEST)
        seconds = SECONDS + block.size / slowest
        query = {"comp": "block", "blockid": block.id}
        _judge(await self._request(http, "PUT", query, data=self._paced(content), headers=headers, seconds=seconds))

    async def _paced(self, content: bytes) -> AsyncIterator[bytes]:
        view = memoryview(content)
        for offset in range(0, len(content), CHUNK_BYTES):
            chunk = bytes(view[offset : offset + CHUNK_BYTES])
            await self._throttle.bucket.wait(len(chunk))
            yield chunk

    def _read(self, block: Block) -> bytes:
        content = os.pread(self._content.fileno(), block.size, block.offset)
        if len(content) < block.size:
            raise UploadRefused("The stored file is shorter than it was; run 'gateway fsck'.")
        return content

    async def _request(
        self,
        http: aiohttp.ClientSession,
        method: str,
        query: Mapping[str, str],
        *,
        seconds: float,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "_Answer":
        """Send a request; raises Interrupted when no answer came."""
        sent = {"x-ms-version": VERSION, **(headers or {})}
        try:
            async with (
                asyncio.timeout(seconds),
                # Not redirected: the URL's host is one that this site allows.
                http.request(
                    method,
                    self._address(query),
                    data=data,
                    headers=sent,
                    timeout=_NO_TOTAL,
                    allow_redirects=False,
                    proxy=self._egress.proxy_for(self._url),
                    ssl=self._egress.tls_for(self._url) or True,
                ) as answer,
            ):
                return _Answer(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Interrupted(explain(error).text) from error

    def _address(self, query: Mapping[str, str]) -> URL:
        """The URL with more parameters in its query."""
        # Appended as text and marked as encoded, because quoting the signature anew would break it.
        added = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
        joint = "&" if "?" in self._url else "?"
        return URL(f"{self._url}{joint}{added}" if added else self._url, encoded=True)


_NO_TOTAL = aiohttp.ClientTimeout(total=None, sock_connect=15)


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Azure's error code, or ''."""
        # A header of the peer goes into logs and events, so it must look like a code.
        code = self.headers.get("x-ms-error-code", "")
        return code if code.isalnum() else ""


def _judge(answer: _Answer) -> None:
    """Return for a success; raise the error that the answer means otherwise."""
    if 200 <= answer.status < 300:
        return
    said = f"HTTP {answer.status}{f' ({answer.code})' if answer.code else ''}"
    if answer.status in (401, 403):
        raise UrlRefused(f"The storage refused the URL with {said}: it is expired, or does not allow to write.")
    if answer.status in _NEVER and answer.code != _DAMAGED:
        raise UploadRefused(f"The storage refused the object with {said}.")
    raise Interrupted(f"The storage answered {said}.")
