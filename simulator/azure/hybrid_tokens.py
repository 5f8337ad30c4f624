"""Authorisation of listeners and senders, as the Hybrid Connections service does it. Not for: issuing tokens."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, unquote_plus, urlsplit

LISTEN, SEND = "Listen", "Send"
_SCHEME = "SharedAccessSignature "


class HandshakeRefused(Exception):
    """The service answers with an HTTP status instead of opening the connection."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason


@dataclass(frozen=True)
class Key:
    text: str = field(repr=False)
    rights: frozenset[str] = frozenset({LISTEN, SEND})


@dataclass(frozen=True)
class Bearer:
    """A token of Entra ID: opaque here, with the rights of its holder and the time (Unix) it expires."""

    expires_at: float
    rights: frozenset[str] = frozenset({LISTEN, SEND})


@dataclass(frozen=True)
class Resource:
    """The resource that a token has to be made for: a hybrid connection of a namespace with the names `hosts`.

    `bearers` are the tokens of Entra ID that are known, by their text.
    """

    hosts: frozenset[str]
    path: str
    keys: Mapping[str, Key]
    bearers: Mapping[str, Bearer] = field(default_factory=dict)


def check(token: str | None, resource: Resource, *, right: str, now: float) -> float:
    """Give the time a valid token expires; otherwise raise HandshakeRefused."""
    # A missing right is documented as 403; the service in the field answers 401, and so does this.
    if not token:
        raise HandshakeRefused(401, "MissingToken: Relay security token is required.")
    if (bearer := resource.bearers.get(token.removeprefix("Bearer "))) is not None:
        return _check_bearer(bearer, right=right, now=now)
    fields = dict(part.split("=", 1) for part in token.removeprefix(_SCHEME).split("&") if "=" in part)
    if not token.startswith(_SCHEME) or not {"sr", "sig", "se", "skn"} <= fields.keys():
        raise HandshakeRefused(401, "MalformedToken: The token is malformed.")
    key = resource.keys.get(unquote_plus(fields["skn"]))
    if key is None or not _is_signed(fields, key):
        raise HandshakeRefused(401, "InvalidSignature: The token has an invalid signature.")
    if not fields["se"].isdecimal() or float(fields["se"]) <= now:
        raise HandshakeRefused(401, "ExpiredToken: The token is expired.")
    _check_audience(unquote_plus(fields["sr"]), resource)
    if right not in key.rights:
        raise HandshakeRefused(401, f"Unauthorized: Authorization failed for specified action: {right}.")
    return float(fields["se"])


def _check_bearer(bearer: Bearer, *, right: str, now: float) -> float:
    if bearer.expires_at <= now:
        raise HandshakeRefused(401, "ExpiredToken: The token is expired.")
    if right not in bearer.rights:
        raise HandshakeRefused(401, f"Unauthorized: Authorization failed for specified action: {right}.")
    return bearer.expires_at


def _is_signed(fields: Mapping[str, str], key: Key) -> bool:
    # Not the gateway's own signing (`relay.hybrid.tokens`): two sides that share a mistake would agree with each other.
    digest = hmac.new(key.text.encode(), f"{fields['sr']}\n{fields['se']}".encode(), hashlib.sha256).digest()
    return hmac.compare_digest(base64.b64encode(digest), unquote(fields["sig"]).encode())


def _check_audience(audience: str, resource: Resource) -> None:
    """A token is valid for its namespace, or for one entity and all below it; the scheme does not matter."""
    parts = urlsplit(audience)
    path, own = parts.path.strip("/").lower(), resource.path.lower()
    if (parts.hostname or "") not in resource.hosts:
        raise HandshakeRefused(401, "InvalidAudience: The token is for another namespace.")
    if path and own != path and not own.startswith(f"{path}/"):
        raise HandshakeRefused(401, "InvalidAudience: The token is for another entity.")
