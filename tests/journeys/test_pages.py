"""A browser looks at the pages of a running site, as staff do: what they see while images arrive and when the gateway
goes, with a keyboard alone, on a narrow screen; and axe-core judges each.

`SCREENSHOTS=docs/screenshots` keeps what was seen, with images of a size that is nice to look at.
"""

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from simulator.site import Site
from tests.relay import served
from tests.tools import axe, clinic
from tests.tools.browser import CHROMIUM, PATIENCE, Page, page
from tests.tools.clinic import COMPLETE, NAMES, TOMOSYNTHESIS, UNDER_WAY, Clinic, accession

SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
SIZE = {"rows": 1248, "columns": 960} if SCREENSHOTS else {"rows": 416, "columns": 320}
FIRST_TO_COME = UNDER_WAY + 1

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with its cloud, in the middle of a morning."""
    with Site(tmp_path_factory.mktemp("site"), settings={"GATEWAY_SITE": "Van 7, Leeds"}) as site:
        site.start_cloud()
        site.start("worklist", "pacs")
        site.start("relay")
        morning = Clinic(site, **SIZE)
        morning.schedule()
        morning.perform()
        yield site


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def browser(window: Page) -> Iterator[Page]:
    window.forget()
    yield window
    resize(window, 1280, 900)


@pytest.fixture(scope="module")
def judge(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe.source(pytestconfig, tmp_path_factory.mktemp("axe"))


def study(number: int) -> str:
    return f"/studies/{clinic.appointment(number, NAMES[number]).study_instance_uid}"


PATHS = {
    "overview": "/",
    "board": "/board",
    "board-filtered": "/board?q=lawson",
    "wallboard": "/board?wall",
    "studies": "/studies",
    "studies-none": "/studies?name=nobody",
    "study": study(COMPLETE),
    "study-tomosynthesis": study(TOMOSYNTHESIS),
    "cannot-search": "/studies?since=yesterday",
    "not-found": "/nowhere",
}
KEPT = {"overview", "board", "wallboard", "studies", "study"}
"""Of which the documentation has pictures."""

LOADED = "document.readyState === 'complete' && [...document.images].every(each => each.complete)"


def opened(browser: Page, site: Site, path: str) -> None:
    browser.open(site.url + path)
    browser.wait(f"location.href !== 'about:blank' && {LOADED}", what=path)


def resize(browser: Page, width: int, height: int, *, scale: float = 1) -> None:
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
    )


def press(browser: Page, key: str, number: int) -> None:
    """Press a key that writes nothing, such as Tab."""
    text = {"text": "\r"} if key == "Enter" else {}
    browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=number, **text)
    browser.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=number)


def keep(browser: Page, name: str) -> None:
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(browser.picture())).convert("RGB").quantize(255, dither=Image.Dither.NONE)
        picture.save(Path(SCREENSHOTS) / f"{name}.png", optimize=True)


# --- every page -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PATHS)
def test_a_page_loads_without_complaints_and_asks_nobody_else(browser: Page, site: Site, name: str) -> None:
    resize(browser, 1280, 1000)
    opened(browser, site, PATHS[name])
    browser.evaluate("scrollTo(0, document.body.scrollHeight)")  # brings the lazy pictures
    browser.evaluate("scrollTo(0, 0)")
    browser.wait(f"{LOADED} && [...document.images].every(each => each.naturalWidth)", what="All pictures")
    if name in KEPT:
        time.sleep(0.3)
        keep(browser, name)
    expected = [problem for problem in browser.problems if "status of 40" in problem]
    assert (browser.problems == []) if name not in {"cannot-search", "not-found"} else (browser.problems == expected)
    assert [url for url in browser.requests if not url.startswith((site.url, "about:", "data:"))] == []


@pytest.mark.parametrize("name", PATHS)
def test_a_page_breaks_no_rule_of_accessibility(browser: Page, site: Site, judge: str, name: str) -> None:
    opened(browser, site, PATHS[name])
    assert axe.violations(browser, judge) == []


@pytest.mark.parametrize("name", PATHS)
def test_a_narrow_page_breaks_none_either(browser: Page, site: Site, judge: str, name: str) -> None:
    resize(browser, 400, 800)
    opened(browser, site, PATHS[name])
    assert axe.violations(browser, judge) == []


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(("width", "scale"), [(400, 1.0), (640, 2.0)])
def test_a_narrow_or_enlarged_page_scrolls_one_way_only(
    browser: Page, site: Site, name: str, width: int, scale: float
) -> None:
    resize(browser, width, 800, scale=scale)
    opened(browser, site, PATHS[name])
    assert browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


# --- with a keyboard --------------------------------------------------------------------------------------------------


FOCUSED = """(() => {
    const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
    const seen = parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== 'none';
    return [Number(at.dataset.place), seen && box.bottom > 0 && box.top < innerHeight];
})()"""
"""What has the focus, and whether that is seen."""


@pytest.mark.parametrize("name", ["overview", "board", "studies", "study"])
def test_everything_is_reached_by_keyboard_in_order_and_seen(browser: Page, site: Site, name: str) -> None:
    opened(browser, site, PATHS[name])
    wanted = browser.evaluate("""
        [...document.querySelectorAll('a[href], button, input, summary, [tabindex="0"]')]
            .filter(each => each.checkVisibility() && each.type !== 'hidden')
            .forEach((each, place) => { each.dataset.place = place; }),
        document.querySelectorAll('[data-place]').length""")
    reached: list[list[object]] = []
    while len(reached) < wanted:
        press(browser, "Tab", 9)
        place, is_seen = browser.evaluate(FOCUSED)
        if not reached or place != reached[-1][0]:  # the parts of a date are reached one by one
            reached.append([place, is_seen])
    assert reached == [[place, True] for place in range(wanted)]


def test_the_first_key_leads_past_the_navigation(browser: Page, site: Site) -> None:
    opened(browser, site, "/board")
    press(browser, "Tab", 9)
    assert browser.evaluate("document.activeElement.className") == "skip"
    press(browser, "Enter", 13)
    assert browser.evaluate("document.activeElement.id") == "main"
    press(browser, "Tab", 9)
    assert browser.evaluate("document.querySelector('main').contains(document.activeElement)")


# --- live -------------------------------------------------------------------------------------------------------------


def row(number: int) -> str:
    return f"document.getElementById('row-{accession(number)}')"


def test_an_image_appears_on_the_board_within_seconds_and_disturbs_nobody(browser: Page, site: Site) -> None:
    morning, number = Clinic(site), FIRST_TO_COME
    opened(browser, site, "/board")
    browser.evaluate("window.stayed = true, document.getElementById('q').focus(), true")
    browser.call("Input.insertText", text="half a na")
    browser.evaluate(f"window.kept = {row(COMPLETE)}, scrollTo(0, 40), true")
    step = morning.begin(number)
    browser.wait(f"{row(number)}.innerText.includes('In progress')", what="The beginning")
    [_] = morning.machine.store([morning.view("RCC", step.exam)])
    began = time.monotonic()
    browser.wait(
        f"{row(number)}.innerText.includes('1 of 4') && !!{row(number)}.querySelector('img')",
        what="The image",
    )
    assert time.monotonic() - began < 30  # a page that is not live changes with the minute at best
    assert browser.evaluate("[stayed, document.activeElement.id, document.activeElement.value, scrollY]") == [
        True, "q", "half a na", 40,
    ]  # fmt: skip
    assert browser.evaluate(f"kept === {row(COMPLETE)} && kept.isConnected")
    assert browser.problems == []


def test_open_details_stay_open_while_the_page_changes(browser: Page, site: Site) -> None:
    opened(browser, site, "/")
    summary = "document.querySelector('#disk summary')"
    browser.evaluate(f"{summary}.click(), {summary}.focus(), true")
    before = browser.evaluate("document.body.dataset.now, document.querySelector('footer p').innerText")
    browser.wait(f"document.querySelector('footer p').innerText !== {before!r}", what="A newer page")
    assert browser.evaluate(f"{summary}.parentElement.open && document.activeElement === {summary}")


def test_ages_grow_by_themselves(browser: Page, site: Site) -> None:
    opened(browser, site, study(COMPLETE))
    age = "document.querySelector('time[data-age]').innerText"
    before = browser.evaluate(age)
    browser.wait(f"{age} !== {before!r}", what="A greater age", seconds=2 * PATIENCE)


def test_updates_can_be_paused_and_go_on(browser: Page, site: Site) -> None:
    morning, number = Clinic(site), FIRST_TO_COME + 1
    opened(browser, site, "/board")
    browser.wait("!document.getElementById('live').hidden", what="The button")
    browser.evaluate("document.getElementById('live-pause').click(), true")
    assert browser.evaluate("document.getElementById('live-said').innerText").startswith("Paused")
    morning.begin(number)
    time.sleep(3)
    assert "Scheduled" in browser.evaluate(f"{row(number)}.innerText")
    browser.evaluate("document.getElementById('live-pause').click(), true")
    browser.wait(f"{row(number)}.innerText.includes('In progress')", what="What came meanwhile")


def test_a_wallboard_keeps_itself_live(browser: Page, site: Site) -> None:
    morning, number = Clinic(site), FIRST_TO_COME + 2
    resize(browser, 1920, 1080)
    opened(browser, site, "/board?wall")
    morning.begin(number)
    browser.wait(f"{row(number)}.innerText.includes('In progress')", what="The beginning")
    assert not any(name.split("^")[0] in browser.evaluate("document.body.innerText") for name in NAMES)


def test_a_page_whose_gateway_is_gone_says_so_and_heals(browser: Page, site: Site, judge: str) -> None:
    opened(browser, site, "/board")
    time.sleep(1)
    assert browser.evaluate("document.getElementById('stale').hidden")
    site.kill("relay")
    began = time.monotonic()
    browser.wait("!document.getElementById('stale').hidden", what="The banner")
    assert time.monotonic() - began < 50  # twice the time of which it speaks
    said = browser.evaluate("document.getElementById('stale').innerText")
    # The second is what it says as soon as it has asked again, which on a busy machine it has.
    assert any(word in said for word in ("No word from the gateway for 25 seconds.", "The gateway does not answer."))
    assert float(browser.evaluate("getComputedStyle(document.querySelector('main table')).opacity")) <= 1
    time.sleep(0.5)
    keep(browser, "board-without-gateway")
    site.start("relay")
    browser.wait("document.getElementById('stale').hidden", what="The page's health")
    assert browser.evaluate("!document.body.classList.contains('is-stale')")


def test_a_page_that_could_not_be_shown_comes_by_itself(browser: Page, tmp_path: Path) -> None:
    with served.site(tmp_path, served.first_study(), [served.item()]) as site:
        database = site.archive.database_path
        database.rename(tmp_path / "away")
        site.archive.close()
        browser.open(f"{site.url}/board")
        browser.wait("!!document.body?.innerText.includes('the gateway could not ask')", what="The reason")
        (tmp_path / "away").rename(database)
        browser.wait("!!document.body?.innerText.includes('ACC-1')", what="The board")
        browser.forget()
