"""The pages that people look at: what they say, and that they are safe and readable without scripts."""

from collections.abc import Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from gateway.messages import Check
from relay.html import age
from tests.relay import served
from tests.relay.served import OTHER_STUDY, STUDY, Site


class Reader(HTMLParser):
    """Collects what a page says: its text in order, and every tag with its attributes."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page.decode())

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data_sets = [*served.first_study(), served.other_study()]
    items = [
        served.item(),
        served.item("ACC-3", StudyInstanceUID="2.25.900", PatientName="MOLINA^ROSA", PatientID="9990000034"),
    ]
    with served.site(tmp_path_factory.mktemp("site"), data_sets, items) as running:
        yield running


def test_the_first_page_says_in_one_sentence_whether_it_works(site: Site) -> None:
    page = Reader(site.get("/", accept="text/html").body)
    assert "Everything is working" in page.text
    assert "Images ✓ Working Seen to work 12 seconds ago" in page.text
    assert "Van 7" in page.text


def test_the_first_page_shows_the_day_with_views_that_are_here_and_missing(site: Site) -> None:
    page = Reader(site.get("/", accept="text/html").body)
    assert "BJÖRK, ANNA 9990000018 ACC-1 Scheduled 3 of 4" in page.text
    assert "Left mediolateral oblique is missing" in page.text
    assert "MOLINA, ROSA 9990000034 ACC-3 Scheduled 0 of 4" in page.text
    shown = [image["src"] for image in page.all("img")]
    assert shown == [
        f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.{number}/thumbnail?accept=image/jpeg"
        for number in (1, 2, 3)
    ]


def test_the_first_page_shows_the_latest_studies_and_the_queue(site: Site) -> None:
    page = Reader(site.get("/", accept="text/html").body)
    assert [link["href"] for link in page.all("a") if "/studies/" in (link["href"] or "")] == [
        f"/studies/{STUDY}",
        f"/studies/{OTHER_STUDY}",
        f"/studies/{STUDY}",
    ]
    assert "Waiting 6 the oldest from just now Parked 0 Delivered 0 Images kept 6" in page.text


def test_a_hop_that_does_not_work_is_a_word_a_shape_and_a_reason(site: Site) -> None:
    healthy = site.report
    broken = {"delivery": Check(ok=False, detail="No round trip for more than 180 seconds.")}
    site.report = healthy.model_copy(update={"healthy": False, "checks": broken})
    page = Reader(site.get("/").body)
    site.report = healthy
    assert "Something needs attention: Cloud events" in page.text
    assert "Cloud events ! Not working No round trip for more than 180 seconds." in page.text


def test_the_quick_look_hangs_right_beside_left_and_cc_above_mlo(site: Site) -> None:
    page = Reader(site.get(f"/studies/{STUDY}", accept="text/html").body)
    assert [figure["class"] for figure in page.all("figure")] == ["right", "left", "right", "left"]
    assert [image["alt"] for image in page.all("img")[:3]] == [
        "Right craniocaudal view",
        "Left craniocaudal view",
        "Right mediolateral oblique view",
    ]
    assert "No left mediolateral oblique view" in page.text
    assert "Not for diagnosis." in page.text


def test_the_quick_look_shows_what_disagrees_with_the_worklist(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served.site(
        tmp_path_factory.mktemp("wrong"), [served.mammogram("RCC", 1, PatientID="1")], [served.item()]
    ) as site:
        page = Reader(site.get(f"/studies/{STUDY}").body)
    assert "Patient ID of 1 image differs from the worklist." in page.text


def test_a_study_that_is_not_here_has_a_page_that_says_so(site: Site) -> None:
    answer = site.get("/studies/1.2.3", accept="text/html")
    assert answer.status == 404
    assert "This study is not in the archive of this gateway." in Reader(answer.body).text
    assert site.get("/studies/<script>", accept="text/html").status == 400


@pytest.mark.parametrize("path", ["/", f"/studies/{OTHER_STUDY}"])
def test_hostile_names_are_text_and_never_markup(site: Site, path: str) -> None:
    answer = site.get(path)
    assert b"<script>" not in answer.body
    assert "<script>alert(1)</script>, EVE" in Reader(answer.body).text


@pytest.mark.parametrize("path", ["/", "/?refresh", f"/studies/{STUDY}", "/nothing"])
def test_pages_are_readable_by_everyone_and_ask_nobody_else(site: Site, path: str) -> None:
    page = Reader(site.get(path, accept="text/html").body)
    assert page.all("html")[0]["lang"] == "en-GB"
    assert len(page.all("h1")) == 1
    assert all(image["alt"] for image in page.all("img"))
    assert all(header["scope"] for header in page.all("th"))
    addresses = [attributes.get("src") or attributes.get("href") or "/" for _, attributes in page.tags]
    assert all(address.startswith(("/", "#")) for address in addresses)
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)


def test_the_first_page_refreshes_itself_only_when_asked(site: Site) -> None:
    assert not any("http-equiv" in meta for meta in Reader(site.get("/").body).all("meta"))
    assert {"http-equiv": "refresh", "content": "15"} in Reader(site.get("/?refresh").body).all("meta")


def test_an_empty_site_says_that_it_is_empty(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served.site(tmp_path_factory.mktemp("empty")) as site:
        page = Reader(site.get("/").body)
    assert "No appointments are scheduled for today." in page.text
    assert "No images have been received yet." in page.text


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (None, ""),
        ("2026-11-22T09:29:59.500Z", "just now"),
        ("2026-11-22T09:29:20.000Z", "40 seconds ago"),
        ("2026-11-22T09:28:30.000Z", "1 minute ago"),
        ("2026-11-22T06:30:00.000Z", "3 hours ago"),
        ("2026-11-19T09:30:00.000Z", "3 days ago"),
        ("2026-11-22T09:31:00.000Z", "just now"),
    ],
)
def test_ages_are_words(then: str | None, expected: str) -> None:
    assert age(then, datetime(2026, 11, 22, 9, 30, tzinfo=UTC)) == expected
