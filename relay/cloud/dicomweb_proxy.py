"""DICOMweb for the cloud: QIDO-RS and WADO-RS requests of the hybrid connection, made again at this site's own server.

Only GET below `/dicom-web` is let through. The permission is the Send right of the hybrid connection, which the service
has checked. The answer is streamed at the rate of full images. Each request is logged with its path, which holds UIDs
only.

Not here: the connection (`relay.hybrid.listener`), what DICOMweb answers (`relay.dicomweb.routes`).
"""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from urllib.parse import unquote, urlsplit

import aiohttp
import structlog
from yarl import URL

from gateway.remote_ae import reachable
from relay.cloud.throttle import Bucket
from relay.dicomweb.routes import ROOT
from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.protocol import Endpoint

log = structlog.get_logger()

PIECE_BYTES = 64 * 1024
"""Bytes passed on at once; the service itself passes on 32 kB."""

SECONDS = 45.0
"""Limit until an answer begins; the service gives up after 60."""

_REQUEST_HEADERS = ("accept", "accept-charset", "if-none-match", "range")
"""Request headers that mean something to DICOMweb; all others are dropped."""

_RESPONSE_HEADERS = (
    "Content-Type",
    "ETag",
    "Warning",
    "Cache-Control",
    "Content-Location",
    "Content-Range",
    "Accept-Ranges",
)


class DicomWebProxy:
    """Answers requests that come over one hybrid connection. `close` it."""

    def __init__(
        self,
        url: str,
        *,
        connection: str,
        public: str,
        bucket: Bucket,
        authorization: str = "",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`url` is the address of this site's server, `public` the one the cloud uses: https://host/connection.

        `authorization` is the header for the own server, `tls` verifies that one's certificate.
        """
        self._url = url
        self._prefix = f"/{connection.strip('/')}"
        self._public = public
        self._bucket = bucket
        self._authorization = authorization
        self._tls = tls
        self._http: aiohttp.ClientSession | None = None

    async def __call__(self, request: HttpRequest) -> HttpAnswer:
        target = local_target(request.target, self._prefix)
        if target is None:
            return self._refused(request, 404, "There is nothing here; DICOMweb is below /dicom-web.")
        if request.method != "GET":
            return self._refused(request, 405, "Through the hybrid connection, this site can only be read (GET).")
        try:
            async with asyncio.timeout(SECONDS):
                # By HTTP, to the own port: one server, and no second model of an aiohttp request.
                answer = await self._get(target, request.headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.error("remote request failed", path=_path(target), error=type(error).__name__)
            return self._refused(request, 503, "The gateway's own server did not answer; its log says why.")
        headers = {name: answer.headers[name] for name in _RESPONSE_HEADERS if name in answer.headers}
        return HttpAnswer(answer.status, headers, self._passed_on(answer, _path(target)))

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _get(self, target: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        if self._http is None:
            self._http = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
        sent = {name: value for name, value in headers.items() if name.lower() in _REQUEST_HEADERS}
        # The body is passed on as it comes, so without a content encoding; links in it must lead the cloud back here.
        sent |= {"Accept-Encoding": "identity", "X-Forwarded-Root": self._public}
        sent |= {"Authorization": self._authorization} if self._authorization else {}
        url = URL(f"{self._url}{target}", encoded=True)
        return await self._http.get(url, headers=sent, allow_redirects=False, ssl=self._tls or True)

    async def _passed_on(self, answer: aiohttp.ClientResponse, path: str) -> AsyncIterator[bytes]:
        """The body at the allowed rate; its end is logged. Raises when it is cut off."""
        size, began = 0, time.monotonic()
        try:
            async for piece in answer.content.iter_chunked(PIECE_BYTES):
                await self._bucket.wait(len(piece))
                size += len(piece)
                yield piece
        finally:
            answer.close()
            seconds = round(time.monotonic() - began, 3)
            log.info("remote request answered", path=path, status=answer.status, size_bytes=size, seconds=seconds)

    def _refused(self, request: HttpRequest, status: int, message: str) -> HttpAnswer:
        log.warning("remote request refused", method=request.method[:8], status=status)
        body = json.dumps({"code": "refused", "message": message}).encode()
        return HttpAnswer(status, {"Content-Type": "application/json"}, body)


def own_url(host: str, port: int, *, scheme: str = "http") -> str:
    """The URL at which this machine reaches a server that listens on an address and a port."""
    called = reachable(host)
    return f"{scheme}://{f'[{called}]' if ':' in called else called}:{port}"


def public_url(at: Endpoint) -> str:
    """The URL at which the cloud reaches a hybrid connection."""
    return f"{at.base.replace('ws', 'http', 1)}/{at.path}"


def local_target(target: str, prefix: str) -> str | None:
    """The path and query on this site's server for a sender's request; None for one that is not DICOMweb."""
    parts = urlsplit(target)
    path = parts.path.removeprefix(prefix) if parts.path.startswith(f"{prefix}/") else parts.path
    # Checked unescaped, as the server will read it: no path may lead out of the root again.
    segments = unquote(path).split("/")
    if not path.startswith(f"{ROOT}/") or {".", ".."} & set(segments) or "%2f" in path.lower() or "\\" in unquote(path):
        return None
    return f"{path}?{parts.query}" if parts.query else path


def _path(target: str) -> str:
    return urlsplit(target).path
