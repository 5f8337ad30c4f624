"""DICOMweb for the cloud, through the hybrid connection's HTTP mode: an ordinary QIDO-RS or WADO-RS request comes in by
the connection that the gateway opened itself, and gets the answer of the site's own server, streamed.

Rules. Only GET below `/dicom-web` is let through; whoever asks has the hybrid connection's Send right, which the
service has checked, and which is the whole permission. Each request is logged with its path, which holds UIDs only. It
goes to this relay's own port on this machine, so that there is one server and one way to answer; what that gives is
passed on at the rate of full images, piece by piece.

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
"""What is passed on at once; the service itself passes on 32 kB."""

SECONDS = 45.0
"""Until an answer begins; the service gives up after 60."""

_ASKED = ("accept", "accept-charset", "if-none-match", "range")
"""Request headers that mean something to DICOMweb; all others stay outside."""

_GIVEN = ("Content-Type", "ETag", "Warning", "Cache-Control", "Content-Location", "Content-Range", "Accept-Ranges")


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
        """`url` is where this site's server is, `public` where the cloud reaches it: https://host/connection.

        `authorization` is what this relay shows its own server, `tls` what that one's certificate is held against.
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
                answer = await self._ask(target, request.headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.error("remote request failed", path=_path(target), error=type(error).__name__)
            return self._refused(request, 503, "The gateway's own server did not answer; its log says why.")
        headers = {name: answer.headers[name] for name in _GIVEN if name in answer.headers}
        return HttpAnswer(answer.status, headers, self._passed_on(answer, _path(target)))

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def _ask(self, target: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        if self._http is None:
            self._http = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=None))
        asked = {name: value for name, value in headers.items() if name.lower() in _ASKED}
        asked |= {"Accept-Encoding": "identity", "X-Forwarded-Root": self._public}
        asked |= {"Authorization": self._authorization} if self._authorization else {}
        url = URL(f"{self._url}{target}", encoded=True)
        return await self._http.get(url, headers=asked, allow_redirects=False, ssl=self._tls or True)

    async def _passed_on(self, answer: aiohttp.ClientResponse, path: str) -> AsyncIterator[bytes]:
        """Give the body at the allowed rate, and log what was given; one that is cut off raises."""
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
    """Where this machine reaches a server that listens on an address and a port."""
    called = reachable(host)
    return f"{scheme}://{f'[{called}]' if ':' in called else called}:{port}"


def public_url(at: Endpoint) -> str:
    """Where the cloud reaches what is behind a hybrid connection."""
    return f"{at.base.replace('ws', 'http', 1)}/{at.path}"


def local_target(target: str, prefix: str) -> str | None:
    """The path and query on this site's server for what a sender asked for; None for what is not DICOMweb.

    Decided on the path as the server will understand it, unescaped: nothing may lead out of the root again.
    """
    parts = urlsplit(target)
    path = parts.path.removeprefix(prefix) if parts.path.startswith(f"{prefix}/") else parts.path
    segments = unquote(path).split("/")
    if not path.startswith(f"{ROOT}/") or {".", ".."} & set(segments) or "%2f" in path.lower() or "\\" in unquote(path):
        return None
    return f"{path}?{parts.query}" if parts.query else path


def _path(target: str) -> str:
    return urlsplit(target).path
