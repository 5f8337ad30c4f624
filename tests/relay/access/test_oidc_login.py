"""Signing in with an identity provider, step by step over real HTTP, and everything in it that may be wrong."""

import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest

from relay.access.oidc_login import PATIENCE_SECONDS, RETURN, CodeFlow, challenge
from relay.access.oidc_tokens import Issuer, Tokens
from tests.relay import served
from tests.relay.access.identity_provider import CLIENT, SECRET, IdentityProvider, provided
from tests.relay.access.test_middleware import ask, door_in, trail
from tests.relay.pages.test_sign_in import HTML, cookie, send
from tests.relay.served import Answer, Site


@contextmanager
def site_with(folder: Path, **known: object) -> Iterator[tuple[Site, IdentityProvider, CodeFlow]]:
    """A site whose people sign in with a provider."""
    with provided(**known) as provider:
        tokens = Tokens(Issuer(provider.url, "api"))
        code = CodeFlow(tokens, CLIENT, secret=provider.secret)
        with served.site(folder, access=door_in(folder, tokens=tokens, code=code)) as site:
            yield site, provider, code


def begin(site: Site, where: str = "/board?q=a", **headers: str) -> tuple[str, dict[str, str]]:
    """Press the button: the address the browser is sent to, and the cookie it got."""
    page = send(site, "/sign-in/provider", {"next": where}, **headers)
    assert page.status == 200
    [address] = re.findall(r'content="0; url=([^"]*)"', page.body.decode())
    return html.unescape(address), cookie(page)


def back(site: Site, provider: IdentityProvider, address: str, kept: dict[str, str]) -> Answer:
    """Show the provider who it is, and come back as it says."""
    led = urlsplit(provider.redirection(dict(parse_qsl(urlsplit(address).query))))
    return ask(site, f"{led.path}?{led.query}", **HTML, Sec_Fetch_Site="cross-site", **kept)


def trouble(answer: Answer) -> tuple[int, str]:
    found = re.findall(r'role="alert">([^<]*)<', answer.body.decode())
    return answer.status, html.unescape("".join(found))


@pytest.mark.parametrize("secret", ["", SECRET])
def test_somebody_signs_in_with_the_provider_and_comes_to_where_they_wanted(tmp_path: Path, secret: str) -> None:
    with site_with(tmp_path, secret=secret) as (site, provider, _):
        form = ask(site, "/sign-in?next=/board", **HTML).body.decode()
        assert "Sign in with localhost" in form
        address, kept = begin(site)
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert address.startswith(f"{provider.url}/authorize?")
        assert {name: asked[name] for name in ("response_type", "client_id", "redirect_uri", "scope", "prompt")} == {
            "response_type": "code", "client_id": CLIENT, "redirect_uri": f"{site.url}{RETURN}",
            "scope": "openid profile", "prompt": "login",
        }  # fmt: skip
        answer = back(site, provider, address, kept)
        assert (answer.status, b'content="0; url=/board?q=a"' in answer.body) == (200, True)
        set_cookies = answer.headers.get_all("Set-Cookie") or []
        [session] = [each for each in set_cookies if each.startswith("gateway-session=")]
        assert session.endswith("; HttpOnly; Path=/; SameSite=Strict")
        known = {"Cookie": session.partition(";")[0]}
        page = ask(site, "/board", **HTML, **known).body.decode()
        assert '<span class="words">ida</span>' in page
        assert ask(site, "/queue/cloud/now", method="POST", **known).status == 303  # operator, by the claim
    first = trail(tmp_path)[0]
    assert (first["event"], first["outcome"]) == (["User Authentication", "Login"], "0")
    assert first["who"] == "ida@127.0.0.1"


def test_the_browser_that_was_sent_away_keeps_that_for_ten_minutes_and_shows_it_on_the_way_back(tmp_path: Path) -> None:
    with site_with(tmp_path) as (site, _, _code):
        plain = send(site, "/sign-in/provider").headers["Set-Cookie"]
        assert re.fullmatch(r"gateway-provider=[\w-]{43}; HttpOnly; Max-Age=600; Path=/; SameSite=Lax", plain)
        address, kept = begin(site, Host="gateway.example", Origin="https://gateway.example")
        assert parse_qs(urlsplit(address).query)["redirect_uri"] == [f"https://gateway.example{RETURN}"]
        assert kept["Cookie"].startswith("__Host-gateway-provider=")


def test_an_answer_counts_once_and_only_for_the_browser_that_asked(tmp_path: Path) -> None:
    with site_with(tmp_path) as (site, provider, _):
        address, kept = begin(site)
        _, other = begin(site)
        sentence = "This sign-in was not begun here, or too long ago; begin again."
        assert trouble(back(site, provider, address, {})) == (403, sentence)
        assert trouble(back(site, provider, address, other)) == (403, sentence)
        assert back(site, provider, address, kept).status == 200
        assert trouble(back(site, provider, address, kept)) == (403, sentence)
    assert [each["who"] for each in trail(tmp_path)] == ["the identity provider@127.0.0.1", "ida@127.0.0.1"]


NOT_ASKED = "the identity provider has not asked who it is, although it was told to"
ANOTHER_AUDIENCE = "it is for another audience than RELAY_OIDC_AUDIENCE, or at a browser RELAY_OIDC_CLIENT_ID"
AWAY = "The identity provider cannot be reached; try again in a minute, or sign in with a password."

WRONG_CLAIMS: list[tuple[dict[str, object], str]] = [
    ({"nonce": "another"}, "it was not made for this sign-in"),
    ({"azp": "another"}, "it is for another application than RELAY_OIDC_CLIENT_ID"),
    ({"aud": "api"}, ANOTHER_AUDIENCE),
    ({"iss": "https://another.example"}, "it is of another issuer than RELAY_OIDC_ISSUER"),
    ({"exp": 1}, "it has expired"),
    ({"auth_time": 1}, NOT_ASKED),
    ({"auth_time": "now"}, NOT_ASKED),
]
NO_TOKEN = "The identity provider gave no token (it answered {}); the log has this, too."
WRONG: list[tuple[str, object, int, str]] = [
    *[("claims", claims, 403, f"This token is not accepted: {why}.") for claims, why in WRONG_CLAIMS],
    (
        "claims", {"roles": ["cleaner"]}, 403,
        "The token's claim roles grants no role here; RELAY_OIDC_ROLES says which values do.",
    ),
    ("answer", {"error": "access_denied"}, 403, "The identity provider signed nobody in: access_denied."),
    (
        "answer", {"iss": "https://another.example"}, 403,
        "The answer is of another identity provider than RELAY_OIDC_ISSUER.",
    ),
    ("answer", {"code": "stolen"}, 403, NO_TOKEN.format(400)),
    ("secret", "changed", 403, NO_TOKEN.format(401)),
    ("said", {"token_endpoint": "http://away.example/token"}, 503, AWAY),
]  # fmt: skip


@pytest.mark.parametrize(("what", "changed", "status", "sentence"), WRONG)
def test_what_is_wrong_with_an_answer_is_said_and_signs_nobody_in(
    tmp_path: Path, what: str, changed: object, status: int, sentence: str
) -> None:
    with site_with(tmp_path, secret=SECRET) as (site, provider, _):
        address, kept = begin(site)
        setattr(provider, what, changed)
        answer = back(site, provider, address, kept)
        assert trouble(answer) == (status, sentence)
        assert not [each for each in answer.headers.get_all("Set-Cookie") or [] if each.startswith("gateway-session=")]
    assert [(each["outcome"], each["who"]) for each in trail(tmp_path)] == [("4", "the identity provider@127.0.0.1")]


def test_while_the_provider_is_away_the_form_says_so_and_passwords_go_on(tmp_path: Path) -> None:
    with site_with(tmp_path) as (site, provider, _):
        provider.said = {"issuer": "https://another.example"}
        assert trouble(send(site, "/sign-in/provider")) == (503, AWAY)
        assert send(site, "/sign-in", {"name": "vera", "password": "correct horse battery"}).status == 303


async def test_who_comes_back_too_late_begins_again() -> None:
    now = 1000.0
    with provided() as provider:
        code = CodeFlow(Tokens(Issuer(provider.url, "api")), CLIENT, clock=lambda: now)
        state, address = await code.begin("https://gateway.example", "/")
        led = provider.redirection(dict(parse_qsl(urlsplit(address).query)))
        now += PATIENCE_SECONDS + 1
        with pytest.raises(Exception, match="too long ago"):
            await code.finish(dict(parse_qsl(urlsplit(led).query)), state)


def test_without_a_client_id_there_is_no_button_and_no_way(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site:
        assert b"Sign in with" not in ask(site, "/sign-in", **HTML).body
        assert [send(site, "/sign-in/provider").status, ask(site, RETURN).status] == [404, 404]


def test_the_challenge_is_that_of_the_standard() -> None:
    """RFC 7636 Appendix B."""
    assert challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
