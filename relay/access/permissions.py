"""One table from HTTP routes to the role that they need and the audit message that they are. Pure.

The first row that matches decides. A path without a row needs `operator` (`viewer`, if it only reads) and is recorded,
so that a new route is never open by mistake. A higher role may do all that a lower one may. Routes without
authentication have rows, and hold no patient data.

Not here: authentication (`relay.access.users`, `relay.access.oidc_tokens`), refusing (`relay.access.middleware`).
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import urlsplit


class Role(IntEnum):
    """A role; a higher one may do all that a lower one may."""

    VIEWER = 1
    """Read worklist, studies, images and the state of the site."""
    OPERATOR = 2
    """Also act: release, send, decide."""
    ADMIN = 3
    """Also delete."""

    @classmethod
    def named(cls, name: str) -> "Role":
        """Return the role of this name, in lower case. Raises ValueError."""
        try:
            return ROLES[name]
        except KeyError:
            raise ValueError(f"a role is one of {', '.join(ROLES)}") from None


ROLES: Mapping[str, Role] = MappingProxyType({role.name.lower(): role for role in Role})


class Recorded(IntEnum):
    """The audit message (PS3.15 A.5.3) of a request."""

    NOTHING = 0
    """It shows no patient data and changes nothing."""
    QUERY = 1
    ACCESSED = 2
    TRANSFERRED = 3
    ACTION = 4


@dataclass(frozen=True, slots=True)
class Rule:
    """Role and audit message of a request; `role` None: no authentication."""

    role: Role | None
    recorded: Recorded


READING = ("GET", "HEAD")

_SHOWN = Rule(Role.VIEWER, Recorded.ACCESSED)
_SEARCHED = Rule(Role.VIEWER, Recorded.QUERY)
_GIVEN = Rule(Role.VIEWER, Recorded.TRANSFERRED)
_ACTED = Rule(Role.OPERATOR, Recorded.ACTION)
_HARMLESS = Rule(Role.VIEWER, Recorded.NOTHING)
_PUBLIC = Rule(None, Recorded.NOTHING)

_WEB, _API, _ANY = "/dicom-web", "/api/v1", "**"
_STUDY, _SERIES = "studies/*", "studies/*/series/*"
_INSTANCE = "studies/*/series/*/instances/*"

_READ: tuple[tuple[str, Rule], ...] = (
    ("/healthz", _PUBLIC),
    ("/assets/**", _PUBLIC),
    ("/sign-in", _PUBLIC),
    ("/sign-in/**", _PUBLIC),
    ("/session", _HARMLESS),  # a page polls whether its session goes on
    ("/metrics", _HARMLESS),  # numbers, polled every few seconds
    ("/viewer/**", _HARMLESS),  # OHIF's program; the images it shows come by DICOMweb
    (_WEB, _GIVEN),  # WADO-URI
    (f"{_WEB}/wado", _GIVEN),
    (f"{_WEB}/studies", _SEARCHED),
    (f"{_WEB}/series", _SEARCHED),
    (f"{_WEB}/instances", _SEARCHED),
    (f"{_WEB}/{_STUDY}/series", _SEARCHED),
    (f"{_WEB}/{_STUDY}/instances", _SEARCHED),
    (f"{_WEB}/{_SERIES}/instances", _SEARCHED),
    (f"{_WEB}/{_STUDY}", _GIVEN),
    (f"{_WEB}/{_SERIES}", _GIVEN),
    (f"{_WEB}/{_INSTANCE}", _GIVEN),
    (f"{_WEB}/studies/**", _SHOWN),
    (f"{_API}/openapi.json", _HARMLESS),
    (f"{_API}/peers", _HARMLESS),
    (f"{_API}/changes", _SEARCHED),
    (f"{_API}/worklist", _SEARCHED),
    (f"{_API}/studies", _SEARCHED),
    (f"{_API}/studies/*/archive", _GIVEN),
    (f"{_API}/instances/*/file", _GIVEN),
    (f"{_API}/studies/**", _SHOWN),
    (f"{_API}/instances/**", _SHOWN),
    ("/events", _HARMLESS),  # says that something changed, never what
    ("/", _HARMLESS),  # these three name no patient, and an open one renews itself every minute
    ("/storage", _HARMLESS),
    ("/refusals", _HARMLESS),
    ("/board", _SEARCHED),
    ("/studies", _SEARCHED),
    ("/queue", _SEARCHED),
    ("/quarantine", _SEARCHED),
    ("/queue/**", _SEARCHED),
    ("/quarantine/**", _SHOWN),
    ("/studies/*", _SHOWN),
    ("/studies/**", _SHOWN),
    ("/**", _SEARCHED),
)
_CHANGED: tuple[tuple[str, Rule], ...] = (
    ("/sign-in", _PUBLIC),  # their outcome is in the trail as User Authentication
    ("/sign-in/**", _PUBLIC),
    ("/sign-out", _PUBLIC),
    ("/session", _HARMLESS),
    ("/**", _ACTED),
)
_DELETED: tuple[tuple[str, Rule], ...] = (("/**", Rule(Role.ADMIN, Recorded.ACTION)),)


def rule(method: str, path: str) -> Rule:
    """Return the rule of a request; `path` is the decoded path without the query."""
    table = _READ if method in READING else _DELETED if method == "DELETE" else _CHANGED
    parts = path.split("/")[1:]
    return next(found for pattern, found in table if _fits(parts, pattern.split("/")[1:]))


def _fits(parts: list[str], pattern: list[str]) -> bool:
    # Part by part: `*` is any one part, `**` at the end any that follow.
    if pattern[-1] == _ANY:
        pattern, parts = pattern[:-1], parts[: len(pattern) - 1]
    return len(parts) == len(pattern) and all(
        wanted in {"*", part} for part, wanted in zip(parts, pattern, strict=True)
    )


@lru_cache(maxsize=256)  # called for every request
def is_loopback(host: str) -> bool:
    """Is this host name or address, in brackets or not, this machine's loopback?"""
    name = host.strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower().rstrip(".") == "localhost"
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1
    return (mapped or address).is_loopback


def start_refusal(host: str, *, has_tls: bool, has_users: bool) -> str:
    """Say why the relay may not listen on `host`, with the remedy; empty when it may."""
    if is_loopback(host):
        return ""
    if not has_tls:
        return (
            f"RELAY_HTTP_HOST={host} is reached from other machines, which needs HTTPS: set RELAY_TLS_CERTIFICATE and "
            "RELAY_TLS_KEY (or GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY), or RELAY_HTTP_HOST=127.0.0.1."
        )
    if not has_users:
        return (
            f"RELAY_HTTP_HOST={host} is reached from other machines, and nobody is known who may log in: "
            "'gateway users add NAME --role admin', or set RELAY_OIDC_ISSUER, or RELAY_HTTP_HOST=127.0.0.1."
        )
    return ""


def foreign_origin(origin: str | None, fetch_site: str | None, *, own: str, allowed: frozenset[str]) -> bool:
    """Was a changing request sent by a page of another site (Fetch Metadata, RFC 6454)?

    `own` is this server's origin, `allowed` those of RELAY_CORS_ORIGINS. Programs send neither header: False.
    """
    if origin is not None and origin in allowed:
        return False
    # Before Origin, because behind a proxy that ends TLS `own` is not the name that the browser called. Pages cannot
    # set it: it is a forbidden header name.
    if fetch_site == "same-origin":
        return False
    if fetch_site is not None and fetch_site != "none":
        return True
    return origin is not None and origin.lower() != own.lower()


def require_https(url: str) -> str:
    """Return the URL of a provider. Raises ValueError unless it is https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname and is_loopback(parts.hostname):
        return url
    raise ValueError("it has to be an https address")
