"""Browser sign-in with the identity provider: authorization code with PKCE (OpenID Connect Core 1.0, 3.1; RFC 7636).

State, nonce and verifier of a sign-in are kept for PATIENCE_SECONDS, count once, and only for the browser that has the
state in a cookie as well. The relay exchanges the code; it never sees a password.

Not here: checking ID tokens (`relay.access.oidc_tokens`), pages and cookies (`relay.pages.sign_in`).
"""

import base64
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote_plus, urlencode, urlsplit

import structlog

from gateway.errors import Denied
from relay.access.oidc_provider import ProviderAway
from relay.access.oidc_tokens import Tokens
from relay.access.permissions import require_https
from relay.access.users import User, basic

RETURN = "/sign-in/return"
"""Path of the redirect URI; the provider has to know it with this server's address in front."""

PATIENCE_SECONDS = 600.0
_REMEMBERED = 1000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Begun:
    """A sign-in that has begun: `origin` is this server's for the browser, `where` the page to return to, `at` Unix
    time."""

    origin: str
    where: str
    nonce: str
    verifier: str
    at: float


class CodeFlow:
    """The relay as a client of the provider; without a secret a public client."""

    def __init__(
        self, tokens: Tokens, client_id: str, *, secret: str = "", clock: Callable[[], float] = time.time
    ) -> None:
        self._tokens = tokens
        self._client_id = client_id
        self._secret = secret
        self._clock = clock
        self._begun: OrderedDict[str, Begun] = OrderedDict()

    @property
    def host(self) -> str:
        """The provider's host name, for people."""
        return urlsplit(self._tokens.provider.url).hostname or self._tokens.provider.url

    async def begin(self, origin: str, where: str) -> tuple[str, str]:
        """Return the state for the browser's cookie, and the address of the authorization request.

        Raises Denied (503) while the provider cannot be reached.
        """
        address = await self._endpoint("authorization_endpoint")
        state, now = secrets.token_urlsafe(32), self._clock()
        begun = Begun(origin, where, secrets.token_urlsafe(32), secrets.token_urlsafe(48), now)
        self._begun[state] = begun
        if len(self._begun) > _REMEMBERED:
            self._begun.popitem(last=False)
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            # By the name under which the browser knows this server: no setting, and the provider checks it.
            "redirect_uri": origin + RETURN,
            "scope": "openid profile",
            "state": state,
            "nonce": begun.nonce,
            "code_challenge": challenge(begun.verifier),
            "code_challenge_method": "S256",
            # A lock that the provider's own session opens is none.
            "prompt": "login",
        }
        return state, f"{address}{'&' if '?' in address else '?'}{urlencode(query)}"

    async def finish(self, answer: Mapping[str, str], state: str) -> tuple[User, Begun]:
        """Return the user whom the provider vouches for; `state` is that of the browser's cookie. Raises Denied."""
        begun = self._expected(answer, state)
        if error := answer.get("error", ""):
            word = error[:64] if error.isprintable() else "?"
            log.warning("identity provider refused", error=word)
            raise _refused(f"The identity provider signed nobody in: {word}.")
        # RFC 9207: an answer that names its issuer has to name ours, against mix-up with another provider.
        if answer.get("iss", self._tokens.provider.url) != self._tokens.provider.url:
            raise _refused("The answer is of another identity provider than RELAY_OIDC_ISSUER.")
        token = await self._exchanged(answer.get("code", ""), begun)
        user = await self._tokens.check_identity(token, self._client_id, nonce=begun.nonce, since=begun.at)
        return user, begun

    def _expected(self, answer: Mapping[str, str], state: str) -> Begun:
        is_same = bool(state) and hmac.compare_digest(answer.get("state", "").encode(), state.encode())
        begun = self._begun.pop(state, None) if is_same else None  # popped: a state counts once
        if begun is None or self._clock() - begun.at > PATIENCE_SECONDS:
            raise _refused("This sign-in was not begun here, or too long ago; begin again.")
        return begun

    async def _exchanged(self, code: str, begun: Begun) -> str:
        # OpenID Connect Core 1.0, 3.1.3.
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": begun.origin + RETURN,
            "code_verifier": begun.verifier,
            "client_id": self._client_id,
        }
        address = await self._endpoint("token_endpoint")
        try:
            found = await self._tokens.provider.post(address, form, self._authorization())
        except ProviderAway as error:
            log.warning("code not exchanged", reason=str(error))
            raise _refused(f"The identity provider gave no token ({error}); the log has this, too.") from error
        return str(found.get("id_token", ""))

    def _authorization(self) -> Mapping[str, str]:
        if not self._secret:
            return {}
        # RFC 6749 Section 2.3.1: both parts are form-encoded before they become Basic.
        return {"Authorization": basic(quote_plus(self._client_id), quote_plus(self._secret))}

    async def _endpoint(self, name: str) -> str:
        try:
            found = (await self._tokens.provider.discovery()).get(name)
            return require_https(str(found))
        except (ProviderAway, ValueError) as error:
            log.warning("identity provider not reached", wanted=name, reason=str(error))
            raise Denied(
                "The identity provider cannot be reached; try again in a minute, or sign in with a password.",
                status=503, code="identity_provider_away", headers={"Retry-After": "60"},
            ) from error  # fmt: skip


def challenge(verifier: str) -> str:
    """Return the code challenge of a verifier (RFC 7636 Section 4.2, S256)."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _refused(message: str) -> Denied:
    return Denied(message, status=403, code="not_signed_in")
