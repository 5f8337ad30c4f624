"""A browser signs in, is locked, and signs out, as staff at a shared workstation do; axe-core judges what it sees.

`SCREENSHOTS=docs/screenshots` keeps what was seen.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.access.permissions import Role
from relay.access.sessions import IDLE_MINUTES
from relay.access.users import UserFile, account
from tests.journeys.test_pages import keep
from tests.relay import served
from tests.relay.access.test_middleware import PASSWORD, door_in, trail
from tests.relay.access.test_oidc_login import site_with
from tests.relay.served import first_study, item
from tests.tools import axe
from tests.tools.browser import CHROMIUM, Page, page
from tests.tools.clock import Clock
from tests.tools.waiting import wait_until

IDLE = 60 * IDLE_MINUTES

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Page]:
    folder = tmp_path / "window"
    folder.mkdir()
    with page(folder) as opened:
        yield opened


def opened(browser: Page, url: str, title: str) -> None:
    browser.open(url)
    shown(browser, title)


def shown(browser: Page, title: str) -> None:
    browser.wait(f"document.readyState === 'complete' && document.title.startsWith('{title} ')", what=title)


def sign_in(browser: Page, name: str, password: str = PASSWORD, *, also: str = "") -> None:
    fields = (
        f"document.getElementById('name').value = '{name}'; document.getElementById('password').value = '{password}'"
    )
    browser.evaluate(f"{fields}; {also}; document.querySelector('main form').requestSubmit(); true")


def where(browser: Page) -> str:
    return str(browser.evaluate("location.pathname + location.search"))


def test_somebody_signs_in_comes_to_where_they_wanted_and_signs_out(
    tmp_path: Path, browser: Page, pytestconfig: pytest.Config
) -> None:
    judge = axe.source(pytestconfig, tmp_path)
    with served.site(tmp_path, first_study(), [item()], access=door_in(tmp_path)) as site:
        opened(browser, f"{site.url}/studies?name=bj", "Sign in")
        assert axe.violations(browser, judge) == []
        sign_in(browser, "vera", "not the password")
        shown(browser, "Error: Sign in")
        assert axe.violations(browser, judge) == []
        sign_in(browser, "vera")
        shown(browser, "Studies")
        assert where(browser) == "/studies?name=bj"
        assert axe.violations(browser, judge) == []
        assert browser.evaluate("document.cookie") == ""
        asked = "fetch('/dicom-web/studies').then(answer => answer.status)"  # as the viewer does
        assert browser.evaluate(asked) == 200
        browser.evaluate("document.querySelector('.person button').click()")
        shown(browser, "Sign in")
        assert browser.evaluate("document.querySelector('[role=status]').textContent") == "You are signed out."
        assert browser.evaluate(asked) == 401
        opened(browser, f"{site.url}/board", "Sign in")


def test_an_open_page_is_locked_by_itself_and_its_reader_comes_back_to_it(
    tmp_path: Path, browser: Page, pytestconfig: pytest.Config
) -> None:
    judge, clock = axe.source(pytestconfig, tmp_path), Clock()
    with served.site(tmp_path, first_study(), [item()], access=door_in(tmp_path, clock=clock)) as site:
        opened(browser, f"{site.url}/board?q=bj", "Sign in")
        sign_in(browser, "otto")
        shown(browser, "Worklist")
        clock.now += IDLE
        shown(browser, "Locked")
        assert "BJÖRK" not in browser.evaluate("document.body.textContent")
        assert axe.violations(browser, judge) == []
        sign_in(browser, "vera")
        shown(browser, "Worklist")
        assert where(browser) == "/board?q=bj"


def test_who_moves_the_mouse_is_not_locked(tmp_path: Path, browser: Page) -> None:
    clock = Clock()
    with served.site(tmp_path, first_study(), [item()], access=door_in(tmp_path, clock=clock)) as site:
        opened(browser, f"{site.url}/board", "Sign in")
        sign_in(browser, "otto")
        shown(browser, "Worklist")

        def moved_and_told() -> int:
            browser.drag((100.0, 100.0), (200.0, 150.0))
            return browser.posted.count(f"{site.url}/session")

        for _ in range(2):
            before = moved_and_told()
            clock.now += 0.6 * IDLE
            wait_until(lambda before=before: moved_and_told() > before, "the page's word that somebody is there")  # type: ignore[misc]
        assert browser.evaluate("fetch('/session').then(answer => answer.status)") == 204
        assert where(browser) == "/board"


def test_somebody_signs_in_with_the_identity_provider_of_another_site(
    tmp_path: Path, browser: Page, pytestconfig: pytest.Config
) -> None:
    judge = axe.source(pytestconfig, tmp_path)
    with site_with(tmp_path) as (site, provider, _):
        opened(browser, f"{site.url}/board?q=a", "Sign in")
        assert axe.violations(browser, judge) == []
        keep(browser, "sign-in")
        press = "document.querySelector('form.or').requestSubmit(); true"
        browser.evaluate(press)
        shown(browser, "Provider")
        assert browser.evaluate("location.host") == provider.url.removeprefix("http://")
        browser.evaluate("document.querySelector('button').click()")
        shown(browser, "Worklist")
        assert (where(browser), browser.evaluate("document.cookie")) == ("/board?q=a", "")
        browser.evaluate(f"location.href = '{provider.url}/authorize'; true")
        shown(browser, "Provider")
        browser.evaluate(f"location.href = '{site.url}/studies'; true")  # a link of another site
        shown(browser, "Studies")
    assert len(provider.asked) == 1


def test_a_wallboard_stays_on(tmp_path: Path, browser: Page) -> None:
    clock = Clock()
    with served.site(tmp_path, first_study(), [item()], access=door_in(tmp_path, clock=clock)) as site:
        opened(browser, f"{site.url}/", "Sign in")
        sign_in(browser, "vera", also="document.getElementById('display').checked = true")
        shown(browser, "Wallboard")
        clock.now += IDLE
        site.worklist.schedule(item("ACC-2"), action_id="action-2", content_hash="2", now=served.NOW)
        browser.wait("document.body.textContent.includes('ACC-2')", what="the new appointment")
        assert where(browser) == "/board?wall"
        opened(browser, f"{site.url}/studies", "Sign in")


def test_who_is_removed_is_out_with_the_next_click(tmp_path: Path, browser: Page) -> None:
    with served.site(tmp_path, first_study(), access=door_in(tmp_path)) as site:
        users = UserFile(tmp_path / "users.json")
        users.add(account("temp", Role.VIEWER, PASSWORD, n=2**10))
        opened(browser, f"{site.url}/", "Sign in")
        sign_in(browser, "temp")
        shown(browser, "Working")
        users.remove("temp")
        opened(browser, f"{site.url}/studies", "Locked")
    assert trail(tmp_path)[-1]["event"] == ["User Authentication", "Logout"]
