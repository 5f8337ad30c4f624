"""The wire protocol of Azure Relay Hybrid Connections, as values: addresses, tokens, frames, and what each code means.

A listener opens a control channel (a websocket), over which the service announces senders and requests:

    frame from the service   announcement                              answer of the listener
    ----------------------   ---------------------------------------   ----------------------------------------------
    accept                   Accept: a sender waits                    open its address, or the address that rejects
    request                  HybridRequest, with the body from the     `response`, here or at its address
                             binary message after `body: true`
    request, address only    Pointer: too large for this channel       open the address and read the request there
    anything else            Unreadable, with the reason in words      report it and go on

The listener sends `renew_token`, and `response`, followed by one binary message if it has a body.

No socket and no clock here. Where the service is known to behave otherwise than Microsoft describes, its behaviour is
followed, and a comment says so.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import TypeAlias
from urllib.parse import quote, quote_plus, urlencode, urlsplit

CONTROL_LIMIT = 64 * 1024
"""Most bytes of a response, body included, on the control channel; a longer one goes over the request's own address."""

MESSAGE_BYTES = 16 * 1024 * 1024
"""Most bytes of one message in memory. The libraries' own limits are 1 and 4 MiB, and end the connection."""

# --- addresses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Endpoint:
    """One hybrid connection of one namespace; `base` is `wss://host` or, on loopback only, `ws://host:port`."""

    base: str
    path: str

    @property
    def audience(self) -> str:
        """The URI a token is made for."""
        # The scheme is always http, as Microsoft's clients write it.
        return f"http://{urlsplit(self.base).hostname}/{self.path}"

    def listen_url(self, listener_id: str) -> str:
        return self._url("listen", {"sb-hc-id": listener_id})

    def connect_url(self) -> str:
        return self._url("connect", {})

    def _url(self, action: str, more: Mapping[str, str]) -> str:
        query = urlencode({"sb-hc-action": action, **more})
        return f"{self.base}/$hc/{quote(self.path)}?{query}"


def endpoint(namespace: str, hybrid_connection: str) -> Endpoint:
    """Read the two settings that name a hybrid connection.

    `namespace` is a host (`site.servicebus.windows.net`, reached by TLS on port 443), `wss://host[:port]`, or
    `ws://host:port` for a service on this machine. Raises ValueError, in words fit for the operator.
    """
    text = namespace.strip()
    parts = urlsplit(text if "://" in text else f"wss://{text}")
    path = hybrid_connection.strip("/ ")
    if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("the namespace must be a host name such as site.servicebus.windows.net")
    if parts.scheme == "ws" and not _is_loopback(parts.hostname):
        raise ValueError("ws:// is not encrypted and allowed to this machine only; use the plain host name")
    if not path:
        raise ValueError("the name of the hybrid connection is empty")
    return Endpoint(f"{parts.scheme}://{parts.netloc}", path)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reject_url(address: str, status: int, description: str) -> str:
    """The address that rejects a waiting sender with `status`. Its handshake fails: 410 means the sender has it."""
    return f"{address}&{urlencode({'sb-hc-statusCode': status, 'sb-hc-statusDescription': description})}"


# --- tokens -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Token:
    """A token for the service, and when it expires (Unix seconds)."""

    text: str = field(repr=False)
    expires_at: float


def sign(audience: str, key_name: str, key: str, *, expires_at: int) -> Token:
    """Make a shared access signature."""
    # The key is used as text: although it looks like base64, it is not decoded.
    resource = quote_plus(audience)
    digest = hmac.new(key.encode(), f"{resource}\n{expires_at}".encode(), hashlib.sha256).digest()
    signature = quote_plus(base64.b64encode(digest))
    text = f"SharedAccessSignature sr={resource}&sig={signature}&se={expires_at}&skn={quote_plus(key_name)}"
    return Token(text, expires_at)


# --- frames from the service ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accept:
    """A sender waits, at most 30 s, at `address`, which is good for one use."""

    id: str
    address: str


@dataclass(frozen=True)
class HybridRequest:
    """An HTTP request that a sender made to the hybrid connection; hop-by-hop headers are gone already."""

    id: str
    address: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    body_follows: bool = False


@dataclass(frozen=True)
class Pointer:
    """A request that is read over its own address."""

    address: str


@dataclass(frozen=True)
class Unreadable:
    """A message outside the protocol. `reason` names what is wrong and never quotes the content."""

    reason: str


Announcement: TypeAlias = Accept | HybridRequest | Pointer | Unreadable


class FrameReader:
    """Turns the messages of a control channel or of a request's own socket into announcements.

    Never raises on what the peer sent. A request with a body is kept until its body has come.
    """

    def __init__(self) -> None:
        self._without_body: HybridRequest | None = None

    def text(self, message: str) -> list[Announcement]:
        lost = self._body_did_not_come()
        announcement = _announcement(message)
        if isinstance(announcement, HybridRequest) and announcement.body_follows:
            self._without_body = announcement
            return lost
        return [*lost, announcement]

    def binary(self, message: bytes) -> list[Announcement]:
        request, self._without_body = self._without_body, None
        if request is None:
            return [Unreadable("a binary message came that no request announced")]
        return [replace(request, body=bytes(message), body_follows=False)]

    def _body_did_not_come(self) -> list[Announcement]:
        request, self._without_body = self._without_body, None
        return [] if request is None else [Unreadable("the body that a request announced did not follow it")]


def announced(message: str | bytes) -> Announcement:
    """Read the first message at a request's own address; the body is the next message there."""
    return _announcement(message) if isinstance(message, str) else Unreadable("a message is not text")


def _announcement(message: str) -> Announcement:
    try:
        frame = json.loads(message)
    except (ValueError, RecursionError):
        return Unreadable("a control message is not JSON")
    match frame:
        case {"accept": {"address": str(address), "id": str(ident)}}:
            return Accept(ident, address) if _is_address(address) else Unreadable("an accept has no usable address")
        case {"request": dict(fields)}:
            return _request(fields)
        case dict():
            return Unreadable(f"a control message is none of accept and request (it has {len(frame)} keys)")
        case _:
            return Unreadable("a control message is not a JSON object")


def _request(fields: dict[str, object]) -> Announcement:
    match fields:
        case {"address": str(address), "id": str(ident), "method": str(method), "requestTarget": str(target)}:
            headers, body_follows = _headers(fields.get("requestHeaders")), fields.get("body") is True
            return HybridRequest(ident, address, method, target, headers, body_follows=body_follows)
        case {"address": str(address)} if "method" not in fields and _is_address(address):
            return Pointer(address)
        case _:
            return Unreadable("a request lacks its address, id, method or target")


def _headers(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if isinstance(text, str)}


def _is_address(text: str) -> bool:
    """Whether an address can be opened."""
    # Any host, because the service names it, and it may differ from the namespace's.
    try:
        parts = urlsplit(text)
        return parts.scheme in ("ws", "wss") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # also from a port that is no number
        return False


# --- frames to the service --------------------------------------------------------------------------------------------


def renew_token(token: Token) -> str:
    """The frame with a later token. A good one is not answered; a bad one closes the channel with 1008."""
    return json.dumps({"renewToken": {"token": token.text}})


def response(request_id: str, status: int, *, headers: Mapping[str, str], has_body: bool) -> str:
    """The head of an HTTP answer. Statuses 502 and 504 are the service's own and must not be used."""
    fields = {"requestId": request_id, "statusCode": status, "responseHeaders": dict(headers), "body": has_body}
    return json.dumps({"response": fields})
