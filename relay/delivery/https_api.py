"""The cloud's HTTPS API as a destination for events.

`HttpsDestination` posts every event with its envelope to `{base}/events`. `ManageDestination` speaks the API that the
screening programme's cloud offers today, which takes two things: the image of an action, and the failure of an action.
`base` ends where the API's own paths begin, as in `https://programme.example/api/v1`.

Not here: when an event is sent again (`relay.delivery.delivery`).
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from ipaddress import ip_address
from types import MappingProxyType
from typing import BinaryIO
from urllib.parse import quote, urlsplit

import aiohttp

from gateway.errors import CloudError, Conflict, NotFound
from gateway.outbox import Entry
from relay.delivery.delivery import Event, kind_of_message, weight_of_message
from relay.delivery.quota import IMAGES
from relay.egress import DIRECT, Egress
from relay.hybrid.errors import explain

MOST_BYTES = 100 * 1024 * 1024
"""The programme's API refuses larger images; finding that out over a van's line would take half an hour."""

NEVER = frozenset({400, 409, 413, 422})
"""Answers to the content: the same request would get them again for ever."""

DOUBTFUL = frozenset({404, 410, 500})
"""Answers that may be about the content or about the API itself: the programme's API answers 500 when it is unwell, and
also to an image that it will never take (its action is over, a view differs within a series)."""

JSON = MappingProxyType({"Content-Type": "application/json"})

SECONDS = 30.0
"""Limit of an exchange of small messages; an upload gets more by its size."""

SLOWEST = 20_000
"""Bytes a second below which an upload counts as stuck."""

CHUNK = 64 * 1024
"""Bytes sent between two checks of the allowed rate."""

BearerToken = Callable[[], Awaitable[str]]
"""Gives the token for the next request; raises CloudError when none can be had now."""


def fixed_token(text: str) -> BearerToken:
    """A token that never changes, from the settings."""

    async def give() -> str:
        return text

    return give


def api_url(text: str) -> str:
    """Check the address of an API and give it without a final slash. Raises ValueError in words for the operator."""
    url = text.strip().rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ValueError("the address of the API must look like https://programme.example/api/v1")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError("http:// is not encrypted and allowed to this machine only; use https://")
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Api:
    """Makes requests with a bearer token, in bounded time, and turns what goes wrong into CloudError."""

    def __init__(self, base: str, token: BearerToken, *, seconds: float, egress: Egress = DIRECT) -> None:
        self._base = base
        self._token = token
        self._egress = egress
        self._seconds = seconds
        self._http: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        data: str | AsyncIterator[bytes] | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        extra_seconds: float = 0,
    ) -> None:
        """Return when the cloud answered 2xx; otherwise raise CloudError."""
        try:
            async with asyncio.timeout(self._seconds + extra_seconds):
                status = await self._status(method, path, data=data, headers=headers)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CloudError(f"{method} {self._base}: {explain(error).text}", permanent=False) from error
        judge(status)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()

    async def _status(
        self, method: str, path: str, *, data: str | AsyncIterator[bytes] | None, headers: Mapping[str, str]
    ) -> int:
        headers = {"Authorization": f"Bearer {await self._token()}", **headers}
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=10))
        # Not redirected: the body would be lost, or the token carried to another host.
        async with self._http.request(
            method,
            f"{self._base}{path}",
            data=data,
            headers=headers,
            allow_redirects=False,
            proxy=self._egress.proxy_for(self._base),
            ssl=self._egress.tls_for(self._base) or True,
        ) as answer:
            await answer.read()
            return answer.status


def judge(status: int) -> None:
    """Return when `status` confirms; otherwise raise CloudError, permanent if the content itself was refused."""
    if 200 <= status < 300:
        return
    if status in NEVER:
        raise CloudError(f"The cloud's API refused the content with HTTP {status}.", permanent=True)
    # Not permanent: a new token lets the same event through, so nothing may park meanwhile.
    if status in (401, 403):
        raise CloudError(f"The cloud's API refused the token with HTTP {status}. Check it.", permanent=False)
    raise CloudError(f"The cloud's API answered HTTP {status}.", permanent=False, doubtful=status in DOUBTFUL)


class HttpsDestination:
    """Posts each event as JSON. The cloud recognises a repeat by the envelope's message_id."""

    def __init__(self, base: str, token: BearerToken, *, seconds: float = SECONDS, egress: Egress = DIRECT) -> None:
        self._api = Api(base, token, seconds=seconds, egress=egress)

    async def send(self, event: Event) -> None:
        await self._api.request("POST", "/events", data=event.text, headers=JSON)

    async def close(self) -> None:
        await self._api.close()


class ManageDestination:
    """Puts images, and patches the actions whose image was rejected.

    `opened` opens the stored Part 10 file of a SOP Instance UID and a SHA-256 (hex), or raises NotFound or Conflict; it
    is called in a thread. `rate` is how many bytes a second an image may have now, None for no limit.
    """

    def __init__(
        self,
        base: str,
        token: BearerToken,
        *,
        opened: Callable[[str, str], BinaryIO],
        rate: Callable[[], int | None] = lambda: None,
        seconds: float = SECONDS,
        egress: Egress = DIRECT,
    ) -> None:
        self._api = Api(base, token, seconds=seconds, egress=egress)
        self._opened = opened
        self._rate = rate

    async def send(self, event: Event) -> None:
        match event.message_type:
            case "study.image_received":
                await self._put_image(_action_path(event), *_content_of(event))
            case "image.rejected":
                await self._patch_failure(_action_path(event), str(event.parameters.get("reason", "")))
            case _:
                # That contract has no call for other events: they count as delivered once the API answers at all.
                await self._api.request("GET", "/status")

    async def close(self) -> None:
        await self._api.close()

    async def _put_image(self, path: str, sop_instance_uid: str, sha256: str) -> None:
        file = await asyncio.to_thread(self._open, sop_instance_uid, sha256)
        with file as content:
            size = content.seek(0, 2)
            content.seek(0)
            if size > MOST_BYTES:
                raise CloudError("The image is larger than the 100 MiB that the cloud's API takes.", permanent=True)
            boundary = uuid.uuid4().hex
            head, tail = _around(boundary, f"{sop_instance_uid}.dcm")
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(len(head) + size + len(tail)),  # else aiohttp sends chunks of unknown number
            }
            rate = self._rate()
            slowest = min(SLOWEST, rate / 2) if rate else SLOWEST  # half, or our own rate limit would look like a stall
            body = self._body(head, content, tail)
            await self._api.request("PUT", path, data=body, headers=headers, extra_seconds=size / slowest)

    async def _body(self, head: bytes, content: BinaryIO, tail: bytes) -> AsyncIterator[bytes]:
        """The form with one file, at the rate that is allowed."""
        yield head
        while chunk := await asyncio.to_thread(content.read, CHUNK):
            # The rate is read for each chunk, because it changes by the hour while a large image is under way.
            began = time.monotonic()
            yield chunk
            if rate := self._rate():
                await asyncio.sleep(max(0.0, began + len(chunk) / rate - time.monotonic()))
        yield tail

    def _open(self, sop_instance_uid: str, sha256: str) -> BinaryIO:
        try:
            return self._opened(sop_instance_uid, sha256)
        except Conflict as error:  # the content that took its place has an event of its own
            raise CloudError(str(error), permanent=True) from error
        except (NotFound, FileNotFoundError) as error:
            raise CloudError(f"The image {sop_instance_uid} is not in the archive any more.", permanent=True) from error

    async def _patch_failure(self, path: str, reason: str) -> None:
        body = json.dumps({"error": reason})
        await self._api.request("PATCH", f"{path}/failure", data=body, headers=JSON)


def form(
    content: BinaryIO, name: str, size: int, *, wait: Callable[[int], Awaitable[None]]
) -> tuple[Mapping[str, str], AsyncIterator[bytes]]:
    """Headers and body of a form with one file; `wait` returns when so many more bytes may be sent."""
    boundary = uuid.uuid4().hex
    head, tail = _around(boundary, name)

    async def body() -> AsyncIterator[bytes]:
        yield head
        while chunk := await asyncio.to_thread(content.read, CHUNK):
            await wait(len(chunk))
            yield chunk
        yield tail

    headers = {
        "Content-Type": f"multipart/form-data; boundary={boundary}",
        "Content-Length": str(len(head) + size + len(tail)),  # else aiohttp sends chunks of unknown number
    }
    return headers, body()


def kind_of_upload(entry: Entry) -> int:
    """The class of an entry at the programme's API, which takes the image itself and not its metadata."""
    return IMAGES if entry.message_type == "study.image_received" else kind_of_message(entry)


def weight_of_upload(event: Event) -> Mapping[int, int]:
    """The bytes that an event sends to the programme's API, by class."""
    # The image's own size, since its metadata do not travel to that API.
    image = event.parameters.get("image")
    size = image.get("size_bytes") if isinstance(image, dict) else None
    return {IMAGES: size} if isinstance(size, int) else weight_of_message(event)


def _around(boundary: str, name: str) -> tuple[bytes, bytes]:
    """What stands before and after the one file of a form (RFC 7578)."""
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/dicom\r\n\r\n"
    return head.encode(), f"\r\n--{boundary}--\r\n".encode()


def _action_path(event: Event) -> str:
    if not event.action_id:
        raise CloudError("The cloud's API takes images of its own actions only, and this has none.", permanent=True)
    return f"/dicom/{quote(event.action_id, safe='')}"


def _content_of(event: Event) -> tuple[str, str]:
    """The SOP Instance UID and the SHA-256 of an event's image."""
    image = event.parameters["image"]
    assert isinstance(image, dict)
    return str(image["sop_instance_uid"]), str(image["sha256"])
