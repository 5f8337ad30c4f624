"""Signing in by the form, over real HTTP: what browsers and programs get, how sessions end, what the trail has."""

import re
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest

from relay.access.middleware import AccessPolicy
from relay.access.permissions import Role
from relay.access.rate_limits import Guessing
from relay.access.users import UserFile, account
from tests.relay import served
from tests.relay.access.test_middleware import PASSWORD, ask, basic, door_in, told, trail
from tests.relay.served import STUDY, Answer, Site, first_study, item
from tests.tools.clock import Clock

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("guarded")
    with served.site(folder, first_study(), [item()], access=door_in(folder)) as site:
        yield site


def send(site: Site, path: str, values: dict[str, str] | None = None, **headers: str) -> Answer:
    """Send a form as our own page does."""
    return ask(site, path, method="POST", body=urlencode(values or {}).encode(), **{**FORM, **headers})


def sign_in(site: Site, name: str = "vera", password: str = PASSWORD, **more: str) -> Answer:
    return send(site, "/sign-in", {"name": name, "password": password, **more})


def cookie(answer: Answer) -> dict[str, str]:
    """The header that a browser sends from then on."""
    kept = SimpleCookie(answer.headers["Set-Cookie"])
    return {"Cookie": "; ".join(f"{name}={morsel.value}" for name, morsel in kept.items())}


# ---- who is led here -------------------------------------------------------------------------------------------------


def test_a_browser_is_led_to_the_sign_in_page_and_from_there_back(guarded: Site) -> None:
    led = ask(guarded, "/studies?name=b%C3%B6rk&since=1", **HTML)
    assert (led.status, led.headers["Location"]) == (303, "/sign-in?next=/studies%3Fname%3Db%25C3%25B6rk%26since%3D1")
    page = ask(guarded, led.headers["Location"], **HTML)
    [where] = re.findall(r'name="next" value="([^"]*)"', page.body.decode())
    assert (page.status, where) == (200, "/studies?name=b%C3%B6rk&amp;since=1")
    back = sign_in(guarded, next="/studies?name=b%C3%B6rk&since=1")
    assert (back.status, back.headers["Location"]) == (303, "/studies?name=b%C3%B6rk&since=1")
    assert ask(guarded, "/studies", **HTML, **cookie(back)).status == 200


def test_a_form_that_is_sent_after_the_session_does_nothing_and_leads_back_to_its_page(guarded: Site) -> None:
    page = f"{guarded.url}/queue/images/1/release?destination=cloud"
    led = send(guarded, "/queue/images/1/release", {"by": "vera"}, **HTML, Referer=page)
    where = "/sign-in?next=/queue/images/1/release%3Fdestination%3Dcloud"
    assert (led.status, led.headers["Location"]) == (303, where)
    assert send(guarded, "/queue/cloud/now", **HTML, Referer="http://[").headers["Location"] == "/sign-in?next=/"


@pytest.mark.parametrize("path", ["/", "/dicom-web/studies", "/api/v1/studies"])
def test_programs_get_the_challenge_as_before(guarded: Site, path: str) -> None:
    answer = ask(guarded, path, Accept="application/dicom+json")
    assert told(answer) == (401, "not_authenticated")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="screening-gateway", charset="UTF-8"'
    assert ask(guarded, path, **HTML, **basic("vera", "wrong password")).status == 401


def test_scripts_of_pages_get_a_challenge_that_opens_no_window_for_a_password(guarded: Site) -> None:
    for sent in ({"Sec_Fetch_Mode": "cors"}, {"Cookie": "gateway-session=unknown"}):
        answer = ask(guarded, "/dicom-web/studies", Accept="*/*", **sent)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'SignIn realm="screening-gateway"')


def test_without_users_there_is_no_sign_in_page(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path, policy=AccessPolicy(is_open=True))) as site:
        users = UserFile(tmp_path / "users.json")
        for name in users.read():
            users.remove(name)
        local = {"Host": f"localhost:{site.port}"}
        assert [ask(site, path, **HTML, **local).status for path in ("/", "/sign-in", "/session")] == [200, 404, 204]
        assert b"Sign out" not in ask(site, "/", **HTML, **local).body


def test_who_comes_by_a_link_of_another_site_is_passed_on_once_so_that_the_cookie_comes_along(guarded: Site) -> None:
    page = ask(guarded, "/sign-in?next=/board", **HTML, Sec_Fetch_Site="cross-site")
    assert (page.status, b'content="0; url=/board"' in page.body) == (200, True)
    assert b'name="password"' in ask(guarded, "/sign-in?next=/board", **HTML, Sec_Fetch_Site="same-origin").body


# ---- the cookie ------------------------------------------------------------------------------------------------------


def test_the_cookie_is_for_this_server_alone_and_no_script_reads_it(guarded: Site) -> None:
    plain = sign_in(guarded).headers["Set-Cookie"]
    assert re.fullmatch(r"gateway-session=[\w-]{43}; HttpOnly; Path=/; SameSite=Strict", plain)
    through = {"Host": "gateway.example", "Origin": "https://gateway.example"}
    secure = send(guarded, "/sign-in", {"name": "vera", "password": PASSWORD}, **through).headers["Set-Cookie"]
    assert re.fullmatch(r"__Host-gateway-session=[\w-]{43}; HttpOnly; Path=/; SameSite=Strict; Secure", secure)


@pytest.mark.parametrize(("name", "status"), [("vera", 403), ("otto", 202), ("anna", 202)])
def test_roles_count_for_a_session_as_for_a_password(guarded: Site, name: str, status: int) -> None:
    known = cookie(sign_in(guarded, name))
    assert ask(guarded, f"/dicom-web/studies/{STUDY}/metadata", **known).status == 200
    answer = ask(guarded, f"/api/v1/studies/{STUDY}/send", method="POST", body=b'{"to": "SITE_PACS"}', **known)
    assert answer.status == status


def test_a_form_of_another_site_signs_nobody_in_or_out(guarded: Site) -> None:
    known = cookie(sign_in(guarded))
    for path in ("/sign-in", "/sign-out"):
        form = {"name": "vera", "password": PASSWORD}
        assert told(send(guarded, path, form, Sec_Fetch_Site="cross-site", **known)) == (403, "cross_site")
    assert ask(guarded, "/", **HTML, **known).status == 200


def test_a_page_says_who_is_signed_in_and_offers_to_sign_out(guarded: Site) -> None:
    page = ask(guarded, "/", **HTML, **cookie(sign_in(guarded, "otto"))).body.decode()
    assert '<span class="words">otto</span> <button type="submit">Sign out</button>' in page
    assert "Sign out" not in ask(guarded, "/", **HTML, **basic("otto")).body.decode()


# ---- wrong passwords -------------------------------------------------------------------------------------------------


def test_a_wrong_password_gives_the_form_again_and_too_many_are_slowed_down(tmp_path: Path) -> None:
    clock = Clock()
    with served.site(tmp_path, access=door_in(tmp_path, guessing=Guessing(clock=clock))) as site:
        answers = [sign_in(site, "anna", f"wrong password {n}", next="/board") for n in range(6)]
        assert [each.status for each in answers] == [403] * 5 + [429]
        assert answers[5].headers["Retry-After"] == "1"
        page = answers[0].body.decode()
        assert '<p class="trouble" role="alert">Name and password do not go together.</p>' in page
        assert ('value="anna"' in page, 'value="/board"' in page, "wrong password" in page) == (True, True, False)
        assert ask(site, "/api/v1/peers", **basic("anna")).status == 429  # one count for both doors
        clock.now += 1
        assert sign_in(site, "anna").status == 303
    assert [(each["outcome"], each["who"]) for each in trail(tmp_path)] == [
        ("4", "anna@127.0.0.1"),
        ("0", "anna@127.0.0.1"),
    ]


@pytest.mark.parametrize("form", [{}, {"name": "vera"}, {"password": PASSWORD}, {"name": "gateway-check"}])
def test_half_a_form_signs_nobody_in(guarded: Site, form: dict[str, str]) -> None:
    assert (answer := send(guarded, "/sign-in", form)).status in {403, 429}
    assert "Set-Cookie" not in answer.headers


def test_the_relays_own_credential_does_not_sign_in_at_the_form(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site:
        assert sign_in(site, "gateway-check", (tmp_path / "relay-token").read_text()).status == 403


# ---- how sessions end ------------------------------------------------------------------------------------------------


def test_signing_out_ends_the_session_for_whoever_has_its_cookie(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site:
        known = cookie(sign_in(site))
        out = send(site, "/sign-out", **known)
        assert (out.status, out.headers["Location"]) == (303, "/sign-in?out")
        assert all("Max-Age=0" in each for each in out.headers.get_all("Set-Cookie") or [])
        assert ask(site, "/api/v1/peers", **known).status == 401
        assert send(site, "/sign-out", **known).status == 303
    assert [(each["event"], each["who"]) for each in trail(tmp_path)] == [
        (["User Authentication", "Login"], "vera@127.0.0.1"),
        (["User Authentication", "Logout"], "vera@127.0.0.1"),
    ]


def test_signing_in_ends_the_session_that_the_browser_had(guarded: Site) -> None:
    first = cookie(sign_in(guarded))
    second = cookie(send(guarded, "/sign-in", {"name": "otto", "password": PASSWORD}, **first))
    assert [ask(guarded, "/api/v1/peers", **each).status for each in (first, second)] == [401, 200]


def test_a_user_who_is_removed_or_gets_another_password_is_signed_out_at_once(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site:
        users = UserFile(tmp_path / "users.json")
        known = [cookie(sign_in(site, name)) for name in ("vera", "otto", "anna")]
        users.remove("vera")
        users.replace(account("otto", Role.OPERATOR, "another password", n=2**10))
        assert [ask(site, "/api/v1/peers", **each).status for each in known] == [401, 401, 200]


def test_without_the_trail_nobody_is_signed_in(tmp_path: Path) -> None:
    with served.site(tmp_path, access=door_in(tmp_path)) as site:
        (tmp_path / "audit").write_text("in the way")
        answer = sign_in(site)
        assert (answer.status, answer.headers["Set-Cookie"]) == (503, None)


def test_a_screen_that_only_keeps_itself_up_to_date_is_locked_and_says_who_was_there(tmp_path: Path) -> None:
    clock = Clock()
    with served.site(tmp_path, access=door_in(tmp_path, idle_seconds=900, clock=clock)) as site:
        known = cookie(sign_in(site, "otto"))
        for _ in range(9):
            for path, accept in (("/board", "*/*"), ("/?refresh", "text/html"), ("/session", "*/*")):
                assert ask(site, path, Accept=accept, **known).status in {200, 204}
            clock.now += 100
        assert ask(site, "/session", **known).status == 401
        led = ask(site, "/board?q=a", **HTML, **known)
        page = ask(site, led.headers["Location"], **HTML, **known).body.decode()
        assert "<h1>Locked</h1>" in page
        assert '<strong class="words">otto</strong> was signed in here.' in page
        again = send(site, "/sign-in", {"name": "vera", "password": PASSWORD, "next": "/board?q=a"}, **known)
        assert again.headers["Location"] == "/board?q=a"
    logouts = [each["who"] for each in trail(tmp_path) if each["event"] == ["User Authentication", "Logout"]]
    assert logouts == ["otto@127.0.0.1"]


@pytest.mark.parametrize(("method", "path"), [("GET", "/board"), ("POST", "/session")])
def test_what_a_person_does_keeps_the_session(tmp_path: Path, method: str, path: str) -> None:
    clock = Clock()
    with served.site(tmp_path, access=door_in(tmp_path, idle_seconds=900, clock=clock)) as site:
        known = cookie(sign_in(site))
        for _ in range(8):
            clock.now += 899
            assert ask(site, path, method=method, **HTML, **known).status in {200, 204}


def test_a_wallboard_is_not_locked_and_shows_nothing_else(tmp_path: Path) -> None:
    clock = Clock()
    with served.site(
        tmp_path, first_study(), [item()], access=door_in(tmp_path, idle_seconds=900, clock=clock)
    ) as site:
        answer = sign_in(site, "anna", display="on", next="/studies")
        assert answer.headers["Location"] == "/board?wall"
        assert "Max-Age=34560000" in answer.headers["Set-Cookie"]
        known = cookie(answer)
        clock.now += 900
        paths = ("/board?wall", "/board?wall=names", "/session", "/board", "/", "/studies", "/dicom-web/studies")
        assert [ask(site, path, **known).status for path in paths] == [200, 200, 204, 401, 401, 401, 401]
        assert ask(site, "/board", **HTML, **known).headers["Location"] == "/sign-in?next=/board"
        sent = ask(site, f"/api/v1/studies/{STUDY}/send", method="POST", body=b'{"to": "SITE_PACS"}', **known)
        assert sent.status == 401
