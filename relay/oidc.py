"""Bearer tokens of an identity provider (OpenID Connect Core 1.0, RFC 7519, RFC 9068), checked here and offline.

Rules. The provider is found by its discovery document, which has to name the issuer that is configured. Its keys are
kept for KEYS_SECONDS; a token with a key that is not among them has them read again, at most every AGAIN_SECONDS,
which is how keys are rotated. While the provider is away, known keys go on. Only RS256 and ES256 are taken, with a key
made for them; issuer, audience, expiry and subject have to be there and right. The role is the highest that the
configured claim grants; a token that grants none is nobody's.

Not here: passwords (`relay.users`), what a role may do (`relay.access`).
"""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType

import aiohttp
import jwt
import structlog

from gateway.errors import Denied
from relay.access import ROLES, Role, require_https
from relay.hybrid_way import STRAIGHT, Way
from relay.users import User

ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
"""What is taken, and the type of key (RFC 7518 6.1) that it goes with."""

KEYS_SECONDS, AGAIN_SECONDS = 3600.0, 30.0
LEEWAY_SECONDS = 30
"""Clocks of hospitals differ by seconds."""

_TIMEOUT = aiohttp.ClientTimeout(total=10)
_LONGEST_ANSWER = 1_000_000
_LONGEST_NAME = 128

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whom to believe, and for what. `roles` maps values of the claim to roles; `claim` is a path with dots."""

    url: str
    audience: str
    claim: str = "roles"
    roles: Mapping[str, Role] = field(default_factory=lambda: MappingProxyType(ROLES))


class ProviderAway(Exception):
    """The identity provider's keys cannot be had now; the message says why."""


class Tokens:
    """Checks tokens of one issuer."""

    def __init__(self, issuer: Issuer, *, way: Way = STRAIGHT, clock: Callable[[], float] = monotonic) -> None:
        self._issuer = issuer
        self._way = way
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._lock = asyncio.Lock()

    async def check(self, token: str) -> User:
        """Who this is. Raises Denied: 401 for a token that is not good, 403 without a role, 503 without keys."""
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(str(header.get("kid", "")), str(header.get("alg", "")))
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[str(header["alg"])],  # one of ours, and one that goes with the key: `_key` saw to it
                audience=self._issuer.audience,
                issuer=self._issuer.url,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise invalid(_reason(error)) from error
        return self._user(claims)

    def _user(self, claims: Mapping[str, object]) -> User:
        granted = [
            self._issuer.roles[value] for value in values(claims, self._issuer.claim) if value in self._issuer.roles
        ]
        if not granted:
            raise Denied(
                f"The token's claim {self._issuer.claim} grants no role here; RELAY_OIDC_ROLES says which values do.",
                status=403, code="no_role",
            )  # fmt: skip
        name = claims.get("preferred_username") or claims.get("sub")
        return User(str(name)[:_LONGEST_NAME], max(granted))

    async def _key(self, kid: str, algorithm: str) -> jwt.PyJWK:
        if algorithm not in ALGORITHMS:
            raise invalid(f"it is not signed with {' or '.join(ALGORITHMS)}")
        async with self._lock:
            if self._is_old() or (kid not in self._keys and self._may_try()):
                await self._read()
        found = self._keys.get(kid) or (next(iter(self._keys.values())) if not kid and len(self._keys) == 1 else None)
        if found is None or found.key_type != ALGORITHMS[algorithm]:
            raise invalid("it is not signed with a key of the identity provider")
        return found

    def _is_old(self) -> bool:
        is_due = self._read_at is None or self._clock() - self._read_at > KEYS_SECONDS
        return is_due and self._may_try()

    def _may_try(self) -> bool:
        return self._tried_at is None or self._clock() - self._tried_at > AGAIN_SECONDS

    async def _read(self) -> None:
        self._tried_at = self._clock()
        try:
            self._keys = usable(await self._fetched())
            self._read_at = self._clock()
        except (ProviderAway, aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            reason = str(error) if isinstance(error, ProviderAway) else type(error).__name__
            log.warning("identity provider not reached", reason=reason, keys_known=len(self._keys))
            if not self._keys:
                raise Denied(
                    "The identity provider cannot be reached to check this token; try again in a minute.",
                    status=503, code="identity_provider_away", headers={"Retry-After": "60"},
                ) from error  # fmt: skip

    async def _fetched(self) -> Mapping[str, object]:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            found = await self._json(session, self._issuer.url.rstrip("/") + "/.well-known/openid-configuration")
            if found.get("issuer") != self._issuer.url:
                raise ProviderAway("its discovery document names another issuer than RELAY_OIDC_ISSUER")
            return await self._json(session, str(found.get("jwks_uri", "")))

    async def _json(self, session: aiohttp.ClientSession, url: str) -> Mapping[str, object]:
        require_https(url)
        proxy, tls = self._way.proxy_for(url), self._way.tls_for(url) or True
        async with session.get(url, allow_redirects=False, proxy=proxy, ssl=tls) as answer:
            if answer.status != 200:
                raise ProviderAway(f"it answered {answer.status}")
            body = bytearray()
            async for piece in answer.content.iter_chunked(65536):
                body += piece
                if len(body) > _LONGEST_ANSWER:
                    raise ProviderAway("its answer is too long")
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ProviderAway("its answer is not a JSON object")
        return found


def usable(found: Mapping[str, object]) -> dict[str, jwt.PyJWK]:
    """The keys of a JWK set (RFC 7517) that can sign what is taken here, by their id; others are passed over."""
    keys: dict[str, jwt.PyJWK] = {}
    listed = found.get("keys")
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or each.get("kty") not in ALGORITHMS.values() or each.get("use", "sig") != "sig":
            continue
        try:
            keys[str(each.get("kid", ""))] = jwt.PyJWK.from_dict(each)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # a key of a kind this library does not know; those that matter are looked up by id
    return keys


def values(claims: Mapping[str, object], path: str) -> Iterable[str]:
    """The texts of a claim, a list or one text with spaces, at a path such as realm_access.roles."""
    found: object = claims.get(path, claims)
    for name in () if path in claims else path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, str):
        return found.split()
    return [value for value in found if isinstance(value, str)] if isinstance(found, list) else []


def invalid(reason: str) -> Denied:
    """Refuse a token (RFC 6750 3.1)."""
    challenge = {"WWW-Authenticate": 'Bearer realm="screening-gateway", error="invalid_token"'}
    return Denied(f"This token is not accepted: {reason}.", status=401, code="invalid_token", headers=challenge)


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not valid yet; compare the clocks"),
    (jwt.InvalidAudienceError, "it is for another audience than RELAY_OIDC_AUDIENCE"),
    (jwt.InvalidIssuerError, "it is of another issuer than RELAY_OIDC_ISSUER"),
    (jwt.MissingRequiredClaimError, "it lacks exp, iss, aud or sub"),
    (jwt.InvalidSignatureError, "its signature is wrong"),
)


def _reason(error: Exception) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "it cannot be read")
