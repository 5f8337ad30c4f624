"""Bearer tokens against an identity provider that is a real HTTP server: discovery, keys, rotation, what is refused."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from gateway.errors import Denied
from relay.access.oidc_tokens import AGAIN_SECONDS, KEYS_SECONDS, Issuer, Tokens, usable, values
from relay.access.permissions import Role
from relay.access.users import User
from tests.tools.certificates import rsa_key
from tests.tools.clock import Clock

AUDIENCE = "screening-gateway"
RSA_1, RSA_2 = rsa_key(2048), rsa.generate_private_key(65537, 2048)
EC_1 = ec.generate_private_key(ec.SECP256R1())


def jwk(key: Any, kid: str, **more: str) -> dict[str, object]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": kid, **more}


@dataclass
class Provider:
    """An identity provider; what it says of itself can be changed."""

    keys: list[dict[str, object]] = field(default_factory=lambda: [jwk(RSA_1, "one"), jwk(EC_1, "two", use="sig")])
    url: str = ""
    said: dict[str, object] = field(default_factory=dict)
    asked: int = 0
    is_away: bool = False

    async def discovery(self, _: web.Request) -> web.Response:
        if self.is_away:
            raise web.HTTPServiceUnavailable
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.said})

    async def jwks(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys})

    def token(self, key: Any = RSA_1, kid: str = "one", algorithm: str = "RS256", **changed: object) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "u1", "exp": now + 300, "roles": ["viewer"], **changed}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid} if kid else {})


@asynccontextmanager
async def provided(**changed: object) -> AsyncIterator[tuple[Provider, Tokens, Clock]]:
    """A running provider and somebody who believes it."""
    provider, clock = Provider(), Clock()
    app = web.Application()
    app.add_routes([web.get("/.well-known/openid-configuration", provider.discovery), web.get("/keys", provider.jwks)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield provider, Tokens(Issuer(provider.url, AUDIENCE, **changed), clock=clock), clock  # type: ignore[arg-type]
    finally:
        await runner.cleanup()


async def refused(tokens: Tokens, token: str) -> tuple[int, str]:
    with pytest.raises(Denied) as error:
        await tokens.check(token)
    return error.value.status, str(error.value)


async def test_tokens_of_both_algorithms_are_taken_and_the_keys_read_once() -> None:
    async with provided() as (provider, tokens, _):
        assert await tokens.check(provider.token()) == User("u1", Role.VIEWER)
        token = provider.token(EC_1, "two", "ES256", roles=["operator", "viewer", "else"], preferred_username="otto")
        assert await tokens.check(token) == User("otto", Role.OPERATOR)
        assert provider.asked == 1


async def test_a_claim_within_a_claim_and_values_of_the_sites_own_grant_roles() -> None:
    async with provided(claim="realm_access.roles", roles={"mammo-it": Role.ADMIN}) as (provider, tokens, _):
        token = provider.token(roles=None, realm_access={"roles": ["mammo-it", "viewer"]})
        assert await tokens.check(token) == User("u1", Role.ADMIN)
        assert (await refused(tokens, provider.token(roles=["admin"])))[0] == 403


def forged(provider: Provider) -> dict[str, str]:
    good = provider.token()
    head, body, signature = good.split(".")
    public = RSA_1.public_key().public_numbers().n.to_bytes(256, "big")
    return {
        "it has expired": provider.token(exp=int(time.time()) - 60),
        "it is not valid yet; compare the clocks": provider.token(nbf=int(time.time()) + 600),
        "it is for another audience than RELAY_OIDC_AUDIENCE, or at a browser RELAY_OIDC_CLIENT_ID": provider.token(
            aud="another"
        ),
        "it is of another issuer than RELAY_OIDC_ISSUER": provider.token(iss="https://another.example"),
        "it lacks exp, iss, aud or sub": provider.token(exp=None),
        "its signature is wrong": provider.token(RSA_2),
        "it is not signed with RS256 or ES256": jwt.encode({"sub": "u1"}, public, algorithm="HS256"),
        "it cannot be read": "not.a.token",
        "it is not signed with a key of the identity provider": provider.token(EC_1, "one", "ES256"),
        "its signature is wrong ": f"{head}.{body}.{signature[:-4]}AAAA",
    }


async def test_what_is_wrong_with_a_token_is_said() -> None:
    async with provided() as (provider, tokens, _):
        for reason, token in forged(provider).items():
            assert await refused(tokens, token) == (401, f"This token is not accepted: {reason.strip()}.")
        none = jwt.encode({"sub": "u1", "roles": ["admin"]}, "", algorithm="none")
        assert (await refused(tokens, none))[0] == 401
        no_subject = provider.token(sub=None)
        assert (await refused(tokens, no_subject))[0] == 401


async def test_a_new_key_is_fetched_when_a_token_names_it_and_not_more_often_than_allowed() -> None:
    async with provided() as (provider, tokens, clock):
        await tokens.check(provider.token())
        assert (await refused(tokens, provider.token(RSA_2, "three")))[0] == 401
        provider.keys = [jwk(RSA_2, "three")]
        assert (await refused(tokens, provider.token(RSA_2, "three")))[0] == 401  # asked too short a time ago
        assert provider.asked == 1
        clock.now += AGAIN_SECONDS + 1
        assert await tokens.check(provider.token(RSA_2, "three")) == User("u1", Role.VIEWER)
        assert (await refused(tokens, provider.token()))[0] == 401  # the old key is gone
        assert provider.asked == 2


async def test_known_keys_go_on_while_the_provider_is_away() -> None:
    async with provided() as (provider, tokens, clock):
        provider.is_away = True
        status, sentence = await refused(tokens, provider.token())
        assert (status, sentence) == (
            503,
            "The identity provider cannot be reached to check this token; try again in a minute.",
        )
        provider.is_away = False
        clock.now += AGAIN_SECONDS + 1
        await tokens.check(provider.token())
        provider.is_away = True
        clock.now += KEYS_SECONDS + 1
        assert await tokens.check(provider.token()) == User("u1", Role.VIEWER)


async def test_a_provider_that_names_another_issuer_or_keys_without_https_is_not_believed() -> None:
    for said in ({"issuer": "https://another.example"}, {"jwks_uri": "http://keys.example/keys"}, {"jwks_uri": None}):
        async with provided() as (provider, tokens, _):
            provider.said = said
            assert (await refused(tokens, provider.token()))[0] == 503


def test_keys_for_other_uses_and_of_other_kinds_are_passed_over() -> None:
    shown = [
        jwk(RSA_1, "a"),
        jwk(RSA_1, "b", use="enc"),
        {"kty": "oct", "k": "AAAA", "kid": "c"},
        {"kty": "EC", "kid": "d"},
    ]
    assert list(usable({"keys": [*shown, "nonsense", None]})) == ["a"]
    assert usable({"keys": "none"}) == usable({}) == {}


VALUES: list[tuple[dict[str, object], str, list[str]]] = [
    ({"roles": ["a", 1, "b"]}, "roles", ["a", "b"]),
    ({"scope": "a b"}, "scope", ["a", "b"]),
    ({"x": {"y": {"z": ["a"]}}}, "x.y.z", ["a"]),
    ({"https://site.example/roles": ["a"]}, "https://site.example/roles", ["a"]),
    ({"roles": {"a": 1}}, "roles", []),
    ({}, "roles", []),
    ({"x": "text"}, "x.y", []),
]


@pytest.mark.parametrize(("claims", "path", "found"), VALUES)
def test_the_values_of_a_claim_are_found(claims: dict[str, object], path: str, found: list[str]) -> None:
    assert list(values(claims, path)) == found
