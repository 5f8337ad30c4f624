"""Puts a file into an Azure blob by a URL that carries its own right to do so (SAS), in blocks, and resumes.

The rules:

* A block is 4 MiB, travels with its MD5, and is named after the content of the whole file and its number. So what was
  staged under the same names is a part of the same file, whoever staged it and when: the service is asked, and what it
  has is not sent again, after a cut, after a restart, and with a new URL.
* The list of blocks is committed at the end, with the SHA-256 of the file in the metadata. A blob that has it already
  is done: only the confirmation was lost.
* A URL may lack the right to read, so a refused question means that nothing is known; a refused block means that the
  URL is of no use any more (`UrlRefused`).
* An attempt that staged something and was cut is followed by the next at once; one that got nowhere fails, and the
  pauses are the caller's.

Uncommitted blocks are dropped by the service after a week. Not here: which files (`relay.cloud.full_images`), how fast
(`relay.cloud.throttle`).
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
"""What a cut costs at most; a thousand blocks for the largest object, and the service takes fifty thousand."""

CHUNK_BYTES = 64 * 1024
"""How much of a block is let go at once, so that a slow line is not filled in bursts."""

VERSION = "2021-12-02"
SECONDS = 30.0
"""For a question, and for a block beside the time its bytes take."""

SLOWEST = 10_000
"""Bytes a second below which a block counts as stuck."""

_NEVER = frozenset({400, 404, 405, 409, 411, 412, 413, 415})
"""Answers that the same request would get for ever: no such container, a blob of another kind, one that is locked."""

_DAMAGED, _NOT_ALLOWED = "Md5Mismatch", "AuthorizationPermissionMismatch"
"""Error codes of a block that arrived other than it was sent, and of a question that a good URL does not allow. Any
other 403 says that the URL is expired, signed wrongly, or not for this network.
"""


class UrlRefused(GatewayError):
    """The URL is expired, revoked, or does not allow to write; a new one is needed."""


class UploadRefused(GatewayError):
    """The storage takes this file by no means; the message says with which status."""


class Interrupted(GatewayError):
    """The line was cut, or the storage has trouble; it will pass."""


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
    """Those of the blocks that the service does not have in full length."""
    return [block for block in wanted if staged.get(block.id) != block.size]


def block_list(wanted: list[Block]) -> bytes:
    """The body that commits blocks in their order."""
    items = "".join(f"<Latest>{block.id}</Latest>" for block in wanted)
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'.encode()


def staged_blocks(answer: bytes) -> dict[str, int]:
    """Read names and sizes out of the service's answer; what is not understood is nothing."""
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
    return base64.b64encode(f"{sha256[:32]}-{number:06d}".encode()).decode()


class BlobUpload:
    """One open file on its way to one URL. `sent_blocks` counts what this object sent."""

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
        """Return when the blob is there. Raises UrlRefused, Refused, or CloudError (not permanent)."""
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
        if await self._is_there(http):
            return
        for block in missing(wanted, await self._staged(http)):
            await self._throttle.until_quiet()
            await self._put_block(http, block)
            self.sent_blocks += 1
        headers = {"x-ms-blob-content-type": self._content_type, "x-ms-meta-sha256": self._sha256}
        query = {"comp": "blocklist"}
        _judge(await self._ask(http, "PUT", query, data=block_list(wanted), headers=headers, seconds=SECONDS))

    async def _is_there(self, http: aiohttp.ClientSession) -> bool:
        answer = await self._ask(http, "HEAD", {}, seconds=SECONDS)
        return answer.status == 200 and answer.headers.get("x-ms-meta-sha256") == self._sha256

    async def _staged(self, http: aiohttp.ClientSession) -> dict[str, int]:
        answer = await self._ask(http, "GET", {"comp": "blocklist", "blocklisttype": "uncommitted"}, seconds=SECONDS)
        if answer.status == 200:
            return staged_blocks(answer.body)
        if answer.status == 404 or (answer.status == 403 and answer.code == _NOT_ALLOWED):
            return {}  # nothing there yet, or the URL does not allow to ask
        _judge(answer)
        return {}

    async def _put_block(self, http: aiohttp.ClientSession, block: Block) -> None:
        content = await asyncio.to_thread(self._read, block)
        md5 = hashlib.md5(content, usedforsecurity=False).digest()
        headers = {"Content-MD5": base64.b64encode(md5).decode(), "Content-Length": str(block.size)}
        slowest = min(self._throttle.bucket.rate or SLOWEST, SLOWEST)
        seconds = SECONDS + block.size / slowest
        query = {"comp": "block", "blockid": block.id}
        _judge(await self._ask(http, "PUT", query, data=self._paced(content), headers=headers, seconds=seconds))

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

    async def _ask(
        self,
        http: aiohttp.ClientSession,
        method: str,
        query: Mapping[str, str],
        *,
        seconds: float,
        data: bytes | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> "_Answer":
        """Raises Interrupted when no answer came."""
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
        """The URL with more in its query; what is signed is not written anew."""
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
        """Azure's word for the error, or ''."""
        code = self.headers.get("x-ms-error-code", "")
        return code if code.isalnum() else ""


def _judge(answer: _Answer) -> None:
    """Raise what an answer means unless it is a success."""
    if 200 <= answer.status < 300:
        return
    said = f"HTTP {answer.status}{f' ({answer.code})' if answer.code else ''}"
    if answer.status in (401, 403):
        raise UrlRefused(f"The storage refused the URL with {said}: it is expired, or does not allow to write.")
    if answer.status in _NEVER and answer.code != _DAMAGED:
        raise UploadRefused(f"The storage refused the object with {said}.")
    raise Interrupted(f"The storage answered {said}.")
