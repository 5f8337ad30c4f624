"""A browser looks at the pages of who looks after a site, and decides there: with real machines and the real processes.

`SCREENSHOTS=docs/screenshots` keeps what was seen.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime

import pytest

from gateway.remote_ae import Peer
from pacs import Archive
from simulator.modality.modality import Modality, ModalityError
from simulator.site import Site
from tests.journeys.test_pages import LOADED, SIZE, browser, judge, keep, opened, press, resize, window
from tests.tools import axe
from tests.tools.browser import CHROMIUM, Page
from tests.tools.clinic import COMPLETE, Clinic, accession
from tests.tools.waiting import wait_until

__all__ = ["browser", "judge", "window"]

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed")

REASON = "The cloud answered 400: thumbnail is larger than it takes."


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with its cloud after a morning on which something of everything went wrong."""
    settings = {"GATEWAY_SITE": "Van 7, Leeds", "PACS_RETENTION_DAYS": "90"}
    with Site(tmp_path_factory.mktemp("site"), settings=settings) as site:
        site.start_cloud()
        site.start("worklist", "pacs")
        morning = Clinic(site, **SIZE)
        morning.schedule()
        morning.perform()
        [step] = [morning.begin(7)]
        image = morning.view("RCC", step.exam)
        [_] = morning.machine.store([image])
        image.PatientID = "9990009999"
        with suppress(ModalityError):
            [_] = morning.machine.store([image])
        with closing(archive(site)) as kept:
            kept.outbox.serve(("hybrid",), now=datetime.now(UTC))
            for entry in kept.outbox.entries("open")[:2]:
                kept.outbox.set_aside(entry.id, reason=REASON, now=datetime.now(UTC))
        refused(site, "MAMMO_ROOM_3")
        site.start("relay")
        yield site


def archive(site: Site) -> Archive:
    return Archive.attach(site.data / "pacs.db", site.data / "instances")


def refused(site: Site, ae_title: str) -> None:
    """Let a machine call the archive by a wrong name."""
    wrong = Peer("ARCHIV", "127.0.0.1", site.ports["pacs"])
    with suppress(ModalityError):
        Modality(ae_title, worklist=wrong, pacs=wrong).echo_pacs()


def number(site: Site) -> int:
    with closing(archive(site)) as kept:
        return max(found.id for found in kept.quarantine.objects())


def paths(site: Site) -> dict[str, str]:
    aside = f"/quarantine/{number(site)}"
    with closing(archive(site)) as kept:
        [group] = kept.outbox.overview.parked_alike()
    return {
        "delivery": "/queue",
        "release": f"/queue/pacs/{group.first_id}/release-alike",
        "storage": "/storage",
        "quarantine": "/quarantine",
        "set-aside": aside,
        "decide": f"{aside}/replace",
        "refusals": "/refusals",
    }


NAMES = ("delivery", "release", "storage", "quarantine", "set-aside", "decide", "refusals")
KEPT = {"delivery", "storage", "set-aside", "refusals"}
"""Of which the documentation has pictures."""


@pytest.mark.parametrize("name", NAMES)
def test_a_page_of_care_loads_without_complaints(browser: Page, site: Site, name: str) -> None:
    resize(browser, 1280, 1000)
    opened(browser, site, paths(site)[name])
    browser.wait(f"{LOADED} && [...document.images].every(each => each.naturalWidth)", what="All pictures")
    if name in KEPT:
        keep(browser, name)
    assert browser.problems == []
    assert [url for url in browser.requests if not url.startswith((site.url, "about:", "data:"))] == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1280, 400])
def test_a_page_of_care_breaks_no_rule_of_accessibility(
    browser: Page, site: Site, judge: str, name: str, width: int
) -> None:
    resize(browser, width, 900)
    opened(browser, site, paths(site)[name])
    browser.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; }), true")
    assert axe.violations(browser, judge) == []
    assert browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0


def test_a_refusal_is_on_the_page_within_seconds(browser: Page, site: Site) -> None:
    opened(browser, site, "/refusals")
    refused(site, "NEW_MACHINE")
    browser.wait("document.body?.innerText.includes('NEW_MACHINE at 127.0.0.1')", what="The refusal")
    text = browser.evaluate("document.querySelector('.refusals li').innerText")
    assert "The peer called 'ARCHIV', but this is 'SCREENING_PACS'" in text
    assert "What to do: Correct the called AE title" in text


def test_a_person_releases_what_is_parked_with_the_keyboard_and_the_cloud_gets_it(browser: Page, site: Site) -> None:
    opened(browser, site, "/queue")
    browser.evaluate("document.querySelector('a[href*=\"release-alike\"]').focus(), true")
    press(browser, "Enter", 13)
    browser.wait("document.querySelector('main form button') !== null", what="The question")
    assert REASON in browser.evaluate("document.querySelector('main').innerText")
    browser.evaluate("document.querySelector('main form button').focus(), true")
    press(browser, "Enter", 13)
    browser.wait("document.body?.innerText.includes('Released.')", what="The answer")
    with closing(archive(site)) as kept:
        assert kept.outbox.entries("parked") == []
    browser.wait(
        "document.querySelector('h1')?.innerText.includes('Everything was told')", what="The cloud", seconds=60
    )


def test_a_decision_about_two_objects_is_made_by_name_and_carried_out(browser: Page, site: Site) -> None:
    before = number(site)
    opened(browser, site, f"/quarantine/{before}")
    assert "Patient ID" in browser.evaluate("document.querySelector('main').innerText")
    browser.evaluate("document.querySelector('a[href$=\"/replace\"]').click(), true")
    browser.wait("document.getElementById('by') !== null", what="The question")
    browser.evaluate("document.getElementById('by').focus(), true")
    browser.call("Input.insertText", text="J. Smith")
    browser.evaluate("document.querySelector('main form button').click(), true")
    browser.wait("document.body?.innerText.includes('by decision of J. Smith')", what="What became of it")
    with closing(archive(site)) as kept:
        wait_until(lambda: before not in {each.id for each in kept.quarantine.objects()}, "the end of what was decided")
        [found] = kept.quarantine.objects()
        assert found.reason.endswith("by decision of J. Smith.")
        assert found.id != before


def test_an_exam_that_was_told_says_so(browser: Page, site: Site) -> None:
    opened(browser, site, "/queue")
    said = browser.evaluate("document.getElementById('exams').parentElement.innerText")
    assert accession(COMPLETE) in said
    assert "Told" in said
