"""The pages that people look at: what they say, and that they are safe and readable without scripts."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from pydicom import Dataset

from gateway.messages import Check
from operations.viewer.install import install
from relay.access.permissions import rule
from tests.relay import served
from tests.relay.dicomweb.reader import Reader
from tests.relay.pages import viewer_archive
from tests.relay.served import OTHER_STUDY, STUDY, Site
from worklist import Item

HOSTILE = '<script>alert(1)</script>^"O\'EVE" &amp;\u202ekcab\u2066'
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber")
HOSTILE_NUMBER = "\"><b onload=1>'"
HOSTILE_STUDY = "2.25.666"
PAGES = ["/", "/board", "/board?wall", "/board?wall=names", "/studies", f"/studies/{STUDY}", f"/studies/{OTHER_STUDY}"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data_sets = [*served.first_study(), served.other_study()]
    items = [
        served.item(),
        served.item("ACC-3", StudyInstanceUID="2.25.900", PatientName="MOLINA^ROSA", PatientID="9990000034"),
    ]
    with served.site(tmp_path_factory.mktemp("site"), data_sets, items) as running:
        yield running


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site where every text that a page shows, from the machine and from the cloud, means harm."""
    with served.site(tmp_path_factory.mktemp("hostile"), [hostile_image()], [hostile_item()]) as running:
        running.report = running.report.model_copy(
            update={"checks": {"<b>check": Check(ok=False, detail="<img src=x onerror=alert(1)>", proven_at=None)}}
        )
        yield running


def hostile_image() -> Dataset:
    return served.mammogram(
        "RCC", 1, StudyInstanceUID=HOSTILE_STUDY, SeriesInstanceUID=f"{HOSTILE_STUDY}.1",
        SOPInstanceUID=f"{HOSTILE_STUDY}.1.1", SpecificCharacterSet="ISO_IR 192", PatientName=HOSTILE,
        PatientID=HOSTILE, AccessionNumber=HOSTILE_NUMBER, StudyDescription=HOSTILE, StudyDate="<i>", StudyTime="<i>",
        Modality="<i>MG", StationName="<i>S", Manufacturer=HOSTILE, ManufacturerModelName="a\0b<i>",
    )  # fmt: skip


def hostile_item() -> Item:
    return served.item(
        HOSTILE_NUMBER, StudyInstanceUID=HOSTILE_STUDY, PatientName=HOSTILE.replace("\u202e", "").replace("\u2066", "")
    )


def read(site: Site, path: str) -> Reader:
    answer = site.get(path, accept="text/html")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    return Reader(answer.body)


# --- the overview -----------------------------------------------------------------------------------------------------


def test_the_first_page_says_in_one_sentence_whether_it_works(site: Site) -> None:
    page = read(site, "/")
    assert "✓ Everything is working" in page.text
    assert "Image archive ✓ Working Seen to work 12 seconds ago" in page.text
    assert "Van 7" in page.text


@pytest.mark.parametrize("path", ["/", "/storage", "/refusals"])
def test_a_page_that_is_not_in_the_audit_trail_shows_no_patient(site: Site, path: str) -> None:
    assert not rule("GET", path).recorded
    body = site.get(path, accept="text/html").body.decode()
    shown = {str(ds[keyword].value) for ds in served.first_study() for keyword in PATIENT if keyword in ds}
    assert len(shown) >= 3
    assert [value for value in shown if value in body] == []


def test_the_first_page_says_what_came_last_and_from_where(site: Site) -> None:
    page = read(site, "/")
    assert "Last image received just now 22 Nov 2026, " in page.text
    assert "RCC from MODALITY" in page.text
    assert page.links("/studies/") == [f"/studies/{OTHER_STUDY}"]


def test_the_first_page_counts_the_day_and_what_is_owed(site: Site) -> None:
    page = read(site, "/")
    assert "Scheduled 2 In progress 0 Completed 0 Images of today's exams 5" in page.text
    assert "Waiting for the cloud 6 the oldest from just now Parked 0" in page.text
    assert "Images kept 6" in page.text


def test_the_first_page_names_nobody(site: Site) -> None:
    page = read(site, "/")
    assert not {"BJÖRK,", "MOLINA,", "9990000018", "9990000034"} & set(page.words)


def test_a_hop_that_does_not_work_is_a_word_a_shape_and_a_reason(site: Site) -> None:
    healthy = site.report
    broken = {"delivery": Check(ok=False, detail="No round trip for more than 180 seconds.")}
    site.report = healthy.model_copy(update={"healthy": False, "checks": broken})
    page = read(site, "/")
    site.report = healthy
    assert "! Not everything is working: Cloud events" in page.text
    assert "▲ Cloud events: No round trip for more than 180 seconds. See the details" in page.text
    assert "Cloud events ! Not working Not seen to work yet No round trip for more than 180 seconds." in page.text


def test_an_empty_site_says_that_it_is_empty(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served.site(tmp_path_factory.mktemp("empty")) as site:
        pages = [read(site, path).text for path in ("/", "/board", "/board?wall", "/studies")]
    assert "No image has been received since this gateway was set up." in pages[0]
    assert "No appointments are scheduled for today." in pages[1]
    assert "No appointments are scheduled for today." in pages[2]
    assert "No images have been received yet." in pages[3]


def test_what_cannot_be_asked_is_another_page_than_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served.site(tmp_path_factory.mktemp("away")) as site:
        site.archive.database_path.rename(site.archive.database_path.with_suffix(".away"))
        site.archive.close()
        answers = [site.get(path, accept="text/html") for path in ("/", "/board", "/studies")]
        site.archive.database_path.with_suffix(".away").rename(site.archive.database_path)
    assert [answer.status for answer in answers] == [503, 503, 503]
    for answer in answers:
        page = Reader(answer.body)
        assert "This does not mean that there is nothing: the gateway could not ask." in page.text
        assert "No images have been received" not in page.text


# --- the board --------------------------------------------------------------------------------------------------------


def test_the_board_shows_the_day_with_views_that_are_here_and_missing(site: Site) -> None:
    page = read(site, "/board")
    assert "Worklist today, Sunday 22 November 2026" in page.text
    assert "BJÖRK, ANNA 9990000018 ACC-1 ○ Scheduled 3 of 4 and 1 tomosynthesis" in page.text
    assert "Left mediolateral oblique is missing" in page.text
    assert "MOLINA, ROSA 9990000034 ACC-3 ○ Scheduled 0 of 4" in page.text
    assert [image["src"] for image in page.all("img")] == [
        f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.{number}/thumbnail?accept=image/jpeg"
        for number in (1, 2, 3)
    ]


def test_the_board_of_another_day_is_one_link_away(site: Site) -> None:
    assert read(site, "/board").links("/board?date") == ["/board?date=2026-11-21", "/board?date=2026-11-23"]
    page = read(site, "/board?date=2026-11-23")
    assert "No appointments are scheduled for this day." in page.text
    assert "/board" in page.links("/board")


@pytest.mark.parametrize("asked", ["molina", "Molina, R", "acc-3", "ROSA"])
def test_the_board_is_filtered_by_name_or_accession_number(site: Site, asked: str) -> None:
    page = read(site, "/board?" + urlencode({"q": asked}))
    assert "MOLINA, ROSA" in page.text
    assert "BJÖRK" not in page.text
    assert "Show all 2" in page.text


def test_a_filter_that_nothing_passes_says_so(site: Site) -> None:
    page = read(site, "/board?q=nobody")
    assert "None of the 2 appointments of this day has “nobody” in its name or accession number." in page.text


def test_a_day_that_is_none_is_refused_in_words(site: Site) -> None:
    answer = site.get("/board?date=yesterday", accept="text/html")
    assert answer.status == 400
    assert "The date of a worklist has to be a day like 2026-11-22." in Reader(answer.body).text


@pytest.mark.parametrize(
    ("path", "shown", "hidden"),
    [("/board?wall", "09:15 AB ACC-1", "BJÖRK,"), ("/board?wall=names", "09:15 BJÖRK, ANNA ACC-1", "AB")],
)
def test_a_wallboard_shows_names_only_when_asked(site: Site, path: str, shown: str, hidden: str) -> None:
    page = read(site, path)
    assert shown in page.text
    assert hidden not in page.words
    assert page.all("nav") == []
    assert page.all("body")[0]["data-follows"] == "run day worklist images"


# --- studies ----------------------------------------------------------------------------------------------------------

FORM = {"name": "", "participant": "", "accession": "", "since": "", "until": "", "modality": ""}


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [STUDY, OTHER_STUDY]),
        ({"name": "bjork"}, [STUDY]),
        ({"name": "Björk, Anna"}, [STUDY]),
        ({"name": "anna"}, [STUDY]),
        ({"name": "anna^*"}, []),
        ({"participant": "999 000 0018"}, [STUDY]),
        ({"participant": "999000001?"}, [STUDY]),
        ({"participant": "99900"}, []),
        ({"accession": "ACC-2"}, [OTHER_STUDY]),
        ({"accession": "ACC*"}, [STUDY, OTHER_STUDY]),
        ({"since": "2026-11-22"}, [STUDY]),
        ({"until": "2026-11-21"}, [OTHER_STUDY]),
        ({"since": "2026-11-21", "until": "2026-11-22"}, [STUDY, OTHER_STUDY]),
        ({"modality": "sr"}, [STUDY]),
        ({"modality": "CT"}, []),
        ({"name": "anna", "accession": "ACC-2"}, []),
    ],
)
def test_studies_are_found_as_people_search(site: Site, asked: dict[str, str], found: list[str]) -> None:
    page = read(site, "/studies?" + urlencode(FORM | asked))
    assert page.links("/studies/") == [f"/studies/{uid}" for uid in found]
    assert ("No study here matches this." in page.text) is (not found)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"since": "22/11/2026"}, "The first study date has to be a day like 2026-11-22."),
        ({"since": "2026-11-23", "until": "2026-11-22"}, "The first study date is after the last one."),
        ({"page": "0"}, "The page of a search is a number from 1 to 4000."),
        ({"page": "²"}, "The page of a search is a number from 1 to 4000."),
        (
            {"surname": "x"},
            "A search has name, participant, accession, since, until, modality, page, and nothing else.",
        ),
        ({"name": "x" * 2000}, "PatientName is longer than any value of its kind."),
    ],
)
def test_what_cannot_be_searched_is_a_sentence_and_not_an_empty_list(
    site: Site, asked: dict[str, str], reason: str
) -> None:
    answer = site.get("/studies?" + urlencode(asked), accept="text/html")
    page = Reader(answer.body)
    assert answer.status == 400
    assert reason in page.text
    assert page.all("table") == []


def test_studies_come_by_the_page(tmp_path_factory: pytest.TempPathFactory) -> None:
    many = [
        served.mammogram(
            "RCC", 1, StudyInstanceUID=f"2.25.{n}", SeriesInstanceUID=f"2.25.{n}.1", SOPInstanceUID=f"2.25.{n}.1.1",
            StudyTime=f"10{n:02}00",
        )
        for n in range(10, 37)
    ]  # fmt: skip
    with served.site(tmp_path_factory.mktemp("many"), many) as site:
        first, second = read(site, "/studies?modality=MG"), read(site, "/studies?modality=MG&page=2")
    assert first.links("/studies/") == [f"/studies/2.25.{n}" for n in range(36, 11, -1)]
    assert second.links("/studies/") == ["/studies/2.25.11", "/studies/2.25.10"]
    assert [link["rel"] for link in first.all("a") if "rel" in link] == ["next"]
    assert [link["rel"] for link in second.all("a") if "rel" in link] == ["prev"]


def test_each_study_of_the_list_has_its_four_views(site: Site) -> None:
    page = read(site, "/studies")
    assert [image["title"] for image in page.all("img")] == ["RCC", "LCC", "RMLO", "RCC"]
    assert page.text.count("is missing") == 1 + 3


# --- one study --------------------------------------------------------------------------------------------------------


def test_the_quick_look_hangs_right_beside_left_and_cc_above_mlo(site: Site) -> None:
    page = read(site, f"/studies/{STUDY}")
    assert [figure["class"] for figure in page.all("figure")] == ["right", "left", "right", "left"]
    assert [image["alt"] for image in page.all("img")[:3]] == [
        "Right craniocaudal view",
        "Left craniocaudal view",
        "Right mediolateral oblique view",
    ]
    assert "No left mediolateral oblique view" in page.text
    assert "Not for diagnosis." in page.text


def test_the_quick_look_says_how_to_add_the_viewer(site: Site) -> None:
    page = read(site, f"/studies/{STUDY}")
    assert "The viewer is not installed; an engineer adds it with gateway viewer install" in page.text
    assert page.links("/viewer") == []


def test_the_quick_look_leads_to_the_viewer_once_it_is_installed(tmp_path: Path) -> None:
    with served.site(tmp_path, served.first_study()) as site:
        install(viewer_archive.written(tmp_path / "ohif.tgz"), site.viewer)
        page = read(site, f"/studies/{STUDY}")
    assert page.links("/viewer") == [f"/viewer/viewer?StudyInstanceUIDs={STUDY}"]
    assert "gateway viewer install" not in page.text


def test_the_quick_look_shows_what_disagrees_with_the_worklist(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served.site(
        tmp_path_factory.mktemp("wrong"), [served.mammogram("RCC", 1, PatientID="1")], [served.item()]
    ) as site:
        study, board = read(site, f"/studies/{STUDY}"), read(site, "/board")
    assert "Patient ID of 1 image differs from the worklist." in study.text
    assert "▲ Patient ID of 1 image differs from the worklist." in board.text
    assert "1 needs a look 09:15 ACC-1" in board.text


def test_a_study_that_is_not_here_has_a_page_that_says_so(site: Site) -> None:
    answer = site.get("/studies/1.2.3", accept="text/html")
    assert answer.status == 404
    assert "This study is not in the archive of this gateway." in Reader(answer.body).text
    assert site.get("/studies/<script>", accept="text/html").status == 400


# --- all pages --------------------------------------------------------------------------------------------------------

HOSTILE_PAGES = ["/", "/board", "/board?wall=names", "/studies", f"/studies/{HOSTILE_STUDY}",
                 "/board?q=" + quote('"><script>'), "/studies?name=" + quote('"><script>\u202e'),
                 "/board?date=" + quote("<script>"), "/<script>", "/studies?name=%00%ff", "/studies?name=%ED%A0%80",
                 "/board?q=%ED%A0%80%00"]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE_PAGES)
def test_hostile_text_is_text_and_never_markup(hostile: Site, path: str) -> None:
    answer = hostile.get(quote(path, safe="/?=%&"), accept="text/html")
    assert answer.status < 500
    body = answer.body.decode()
    page = Reader(body.encode())
    assert {tag for tag, _ in page.tags} & {"b", "i"} == set()
    assert [script["src"] for script in page.all("script")] == ["/assets/app.js"]
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)
    assert not set("\0\u202e\u2066") & set(body)


def test_hostile_text_is_there_to_be_seen(hostile: Site) -> None:
    assert '<script>alert(1)</script>, "O\'EVE" &amp;\ufffdkcab\ufffd' in read(hostile, "/studies").text
    assert HOSTILE_NUMBER in read(hostile, "/board").text
    assert "<img src=x onerror=alert(1)>" in read(hostile, "/").text


@pytest.mark.parametrize("path", [*PAGES, "/?refresh", "/nothing"])
def test_pages_are_readable_by_everyone_and_ask_nobody_else(site: Site, path: str) -> None:
    page = Reader(site.get(path, accept="text/html").body)
    assert page.all("html")[0]["lang"] == "en-GB"
    assert len(page.all("h1")) == 1
    assert all(image["alt"] for image in page.all("img"))
    assert all(header["scope"] for header in page.all("th"))
    labels = {label["for"] for label in page.all("label")}
    assert {field["id"] for field in page.all("input") if field.get("type") != "hidden"} == labels
    addresses = [attributes.get("src") or attributes.get("href") or "/" for _, attributes in page.tags]
    assert all(address.startswith(("/", "#")) for address in addresses)
    assert not any(name.startswith("on") or name == "style" for _, attributes in page.tags for name in attributes)


@pytest.mark.parametrize(
    ("path", "current"), [("/", "/"), ("/board", "/board"), ("/studies", "/studies"), (f"/studies/{STUDY}", "/studies")]
)
def test_the_navigation_marks_where_one_is(site: Site, path: str, current: str) -> None:
    page = read(site, path)
    assert [link["href"] for link in page.all("a") if "aria-current" in link] == [current]


def test_the_first_page_refreshes_itself_without_a_script_only_when_asked(site: Site) -> None:
    assert not any("http-equiv" in meta for meta in read(site, "/").all("meta"))
    assert {"http-equiv": "refresh", "content": "15"} in read(site, "/?refresh").all("meta")


def test_a_page_of_an_error_has_the_navigation_and_is_not_live(site: Site) -> None:
    page = Reader(site.get("/nothing", accept="text/html").body)
    assert "There is no such resource." in page.text
    assert page.links("/board") == ["/board"]
    assert "data-follows" not in page.all("body")[0]
