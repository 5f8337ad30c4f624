"""HTTP to the identity provider, by the site's egress: discovery document, keys and tokens.

Only https, or http on this machine; no redirects; answers are JSON objects up to 1 MB. The discovery document has to
name the configured issuer.

Not here: checking tokens (`relay.access.oidc_tokens`), the flow at a browser (`relay.access.oidc_login`).
"""

import json
from collections.abc import Mapping

import aiohttp

from relay.access.permissions import require_https
from relay.egress import DIRECT, Egress

_TIMEOUT = aiohttp.ClientTimeout(total=10)
_LONGEST_ANSWER = 1_000_000


class ProviderAway(Exception):
    """The identity provider gives no usable answer; the message says why."""


class Provider:
    """One issuer. Every method raises ProviderAway."""

    def __init__(self, url: str, *, egress: Egress = DIRECT) -> None:
        self.url = url
        self._egress = egress

    async def discovery(self) -> Mapping[str, object]:
        """Fetch the discovery document."""
        found = await self.get(self.url.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self.url:  # OpenID Connect Discovery 1.0, 4.3
            raise ProviderAway("its discovery document names another issuer than RELAY_OIDC_ISSUER")
        return found

    async def get(self, url: str) -> Mapping[str, object]:
        """Fetch the JSON object at an address."""
        return await self._request("GET", url, None, {})

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Mapping[str, object]:
        """Send a form; return the JSON object of the answer."""
        return await self._request("POST", url, dict(form), headers)

    async def _request(
        self, method: str, url: str, form: dict[str, str] | None, headers: Mapping[str, str]
    ) -> Mapping[str, object]:
        try:
            require_https(url)
            proxy, tls = self._egress.proxy_for(url), self._egress.tls_for(url) or True
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.request(
                    method, url, data=form, headers=headers, allow_redirects=False, proxy=proxy, ssl=tls
                ) as answer,
            ):
                return await _object(answer)
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise ProviderAway(type(error).__name__) from error


async def _object(answer: aiohttp.ClientResponse) -> Mapping[str, object]:
    if answer.status != 200:
        raise ProviderAway(f"it answered {answer.status}")
    body = bytearray()  # piece by piece, because a wrong address may answer with anything of any length
    async for piece in answer.content.iter_chunked(65536):
        body += piece
        if len(body) > _LONGEST_ANSWER:
            raise ProviderAway("its answer is too long")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ProviderAway("its answer is not a JSON object")
    return found
