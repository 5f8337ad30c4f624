"""The types of the relay's settings: how each is read from the environment, and which values are refused.

Every reader raises ValueError with the expected form. Not for: which settings there are (`relay.settings`).
"""

from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, IPvAnyNetwork, SecretStr
from pydantic_settings import NoDecode

from gateway.settings import CommaList, split_commas
from relay.access.permissions import Role, require_https
from relay.delivery.https_api import api_url
from relay.delivery.quota import limits
from relay.egress import proxy_url
from relay.hybrid.protocol import endpoint


def _unless_empty(check: Callable[[str], object]) -> Callable[[str], str]:
    def checked(text: str) -> str:
        if text:
            check(text)
        return text

    return checked


def _namespace(text: str) -> None:
    endpoint(text, "any")


def _proxy(secret: SecretStr | None) -> SecretStr | None:
    return SecretStr(proxy_url(secret.get_secret_value())) if secret else None


def _titles(value: object) -> object:
    """The AE titles of PACS_PEERS; errors in it are the archive's to report."""
    if isinstance(value, str):
        return tuple(part.strip().partition("=")[0] for part in value.split(",") if part.strip())
    return value


def _origin(text: str) -> str:
    parts = urlsplit(text)
    # Compared as text later, so it must be exactly what a browser sends (RFC 6454 Section 6.2).
    if parts.scheme not in {"http", "https"} or not parts.netloc or text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("an origin is scheme://host or scheme://host:port and nothing behind it")
    return text.lower()


def _grants(value: object) -> object:
    if not isinstance(value, str):
        return value
    # From the right, because a claim's value may have "=" in it.
    pairs = [part.strip().rpartition("=") for part in value.split(",") if part.strip()]
    for name, _, role in pairs:
        if not name:
            raise ValueError("each has to be VALUE=ROLE")
        Role.named(role)
    return tuple((name, role) for name, _, role in pairs)


Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, split_commas]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], NoDecode, split_commas]
Grants = Annotated[tuple[tuple[str, str], ...], NoDecode, BeforeValidator(_grants)]
CalledTitles = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_titles)]


def _without_none(value: object) -> object:
    return tuple(each for each in value if each != "none") if isinstance(value, tuple) else value


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("a destination is named twice")
    return names


def _limits(texts: tuple[str, ...]) -> tuple[str, ...]:
    limits(texts)
    return texts


DestinationName = Literal["hybrid", "https", "manage", "servicebus"]
Destinations = Annotated[
    tuple[DestinationName, ...], NoDecode, BeforeValidator(_without_none), split_commas, AfterValidator(_each_once)
]
QuotaLimits = Annotated[CommaList, AfterValidator(_limits)]
ProviderUrl = Annotated[str, AfterValidator(_unless_empty(require_https))]
ApiUrl = Annotated[str, AfterValidator(_unless_empty(api_url))]
Namespace = Annotated[str, AfterValidator(_unless_empty(_namespace))]
Proxy = Annotated[SecretStr | None, AfterValidator(_proxy)]
