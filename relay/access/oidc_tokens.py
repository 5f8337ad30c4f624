"""Checks bearer and ID tokens of an identity provider, offline (OpenID Connect Core 1.0, RFC 7519, RFC 9068).

Only RS256 and ES256 are accepted, with a key of that type; issuer, audience, expiry and subject are required. The role
is the highest that the configured claim grants; a token that grants none is refused. Keys are kept for KEYS_SECONDS,
and beyond that while the provider is away.

Not here: how a browser gets a token (`relay.access.oidc_login`), passwords (`relay.access.users`), roles
(`relay.access.permissions`).
"""

import asyncio
import hmac
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType

import jwt
import structlog

from gateway.errors import Denied
from relay.access.oidc_provider import Provider, ProviderAway
from relay.access.permissions import ROLES, Role
from relay.access.users import User
from relay.egress import DIRECT, Egress

ALGORITHMS = {"RS256": "RSA", "ES256": "EC"}
"""Accepted algorithms, and the key type of each (RFC 7518 Section 6.1)."""

KEYS_SECONDS, AGAIN_SECONDS = 3600.0, 30.0
LEEWAY_SECONDS = 30
"""Clocks of hospitals differ by seconds."""

_LONGEST_NAME = 128

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Issuer:
    """A trusted issuer. `roles` maps values of the claim to roles; `claim` is a path with dots."""

    url: str
    audience: str
    claim: str = "roles"
    roles: Mapping[str, Role] = field(default_factory=lambda: MappingProxyType(ROLES))


class Tokens:
    """Checks tokens of one issuer."""

    def __init__(self, issuer: Issuer, *, egress: Egress = DIRECT, clock: Callable[[], float] = monotonic) -> None:
        self._issuer = issuer
        self.provider = Provider(issuer.url, egress=egress)
        self._clock = clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._tried_at: float | None = None
        self._lock = asyncio.Lock()

    async def check(self, token: str) -> User:
        """Return the user of a token. Raises Denied: 401 for an invalid token, 403 without a role, 503 without keys."""
        return self._user(await self._claims(token, self._issuer.audience))

    async def check_identity(self, token: str, client_id: str, *, nonce: str, since: float) -> User:
        """Return the user of an ID token that was requested with this nonce at `since` (Unix). Raises as `check` does.

        OpenID Connect Core 1.0, 3.1.3.7. An `auth_time`, where there is one, must not be before `since`.
        """
        claims = await self._claims(token, client_id)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
            raise invalid("it was not made for this sign-in")
        if claims.get("azp", client_id) != client_id:
            raise invalid("it is for another application than RELAY_OIDC_CLIENT_ID")
        # prompt=login was requested: an older time of authentication is the provider's own session.
        shown_at = claims.get("auth_time", since)
        if not isinstance(shown_at, int | float) or shown_at < since - LEEWAY_SECONDS:
            raise invalid("the identity provider has not asked who it is, although it was told to")
        return self._user(claims)

    async def _claims(self, token: str, audience: str) -> Mapping[str, object]:
        try:
            header = jwt.get_unverified_header(token)
            key = await self._key(str(header.get("kid", "")), str(header.get("alg", "")))
            claims: Mapping[str, object] = jwt.decode(
                token,
                key.key,
                algorithms=[str(header["alg"])],  # one of ALGORITHMS and of the key's type, which `_key` has checked
                audience=audience,
                issuer=self._issuer.url,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise invalid(_reason(error)) from error
        return claims

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
        # An unknown key id reads the keys again, because that is how providers rotate them; at most every
        # AGAIN_SECONDS, so that invented ids cannot make us flood the provider.
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
        except ProviderAway as error:
            log.warning("identity provider not reached", reason=str(error), keys_known=len(self._keys))
            # Known keys go on: a clinic does not stop while the provider is away.
            if not self._keys:
                raise Denied(
                    "The identity provider cannot be reached to check this token; try again in a minute.",
                    status=503, code="identity_provider_away", headers={"Retry-After": "60"},
                ) from error  # fmt: skip

    async def _fetched(self) -> Mapping[str, object]:
        found = await self.provider.discovery()
        return await self.provider.get(str(found.get("jwks_uri", "")))


def usable(found: Mapping[str, object]) -> dict[str, jwt.PyJWK]:
    """Return the keys of a JWK set (RFC 7517) for ALGORITHMS by their id; others are skipped."""
    keys: dict[str, jwt.PyJWK] = {}
    listed = found.get("keys")
    for each in listed if isinstance(listed, list) else []:
        if not isinstance(each, dict) or each.get("kty") not in ALGORITHMS.values() or each.get("use", "sig") != "sig":
            continue
        try:
            keys[str(each.get("kid", ""))] = jwt.PyJWK.from_dict(each)
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # a kind of key that the library does not know; a token that needs it fails by its id
    return keys


def values(claims: Mapping[str, object], path: str) -> Iterable[str]:
    """Return the texts of a claim, a list or one text with spaces, at a path such as realm_access.roles."""
    found: object = claims.get(path, claims)  # names of claims are often URLs, dots and all
    for name in () if path in claims else path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    if isinstance(found, str):
        return found.split()
    return [value for value in found if isinstance(value, str)] if isinstance(found, list) else []


def invalid(reason: str) -> Denied:
    """Make the refusal of a token (RFC 6750 Section 3.1)."""
    challenge = {"WWW-Authenticate": 'Bearer realm="screening-gateway", error="invalid_token"'}
    return Denied(f"This token is not accepted: {reason}.", status=401, code="invalid_token", headers=challenge)


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (jwt.ExpiredSignatureError, "it has expired"),
    (jwt.ImmatureSignatureError, "it is not valid yet; compare the clocks"),
    (
        jwt.InvalidAudienceError,
        "it is for another audience than RELAY_OIDC_AUDIENCE, or at a browser RELAY_OIDC_CLIENT_ID",
    ),
    (jwt.InvalidIssuerError, "it is of another issuer than RELAY_OIDC_ISSUER"),
    (jwt.MissingRequiredClaimError, "it lacks exp, iss, aud or sub"),
    (jwt.InvalidSignatureError, "its signature is wrong"),
)


def _reason(error: Exception) -> str:
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "it cannot be read")
