"""What is served below /viewer, with which headers; whether it paints is seen in tests/journeys/test_viewer.py."""

import gzip
import json
from collections.abc import Iterator

import pytest

from operations.viewer.install import install, remove
from relay.pages import viewer
from relay.pages.viewer_bundle import SCRIPT
from tests.relay import served
from tests.relay.pages import viewer_archive
from tests.relay.pages.viewer_archive import DECODER
from tests.relay.served import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with served.site(folder) as running:
        install(viewer_archive.written(folder / "ohif.tgz"), running.viewer)
        yield running


@pytest.fixture
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site without a viewer."""
    with served.site(tmp_path_factory.mktemp("site")) as running:
        yield running


def test_the_page_is_ours_and_may_not_evaluate_code(site: Site) -> None:
    answer = site.get("/viewer/viewer?StudyInstanceUIDs=1.2.3", accept="text/html")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"Not for diagnosis" in answer.body
    assert answer.headers["Content-Security-Policy"] == viewer.PAGE_POLICY
    assert "unsafe-eval" not in viewer.PAGE_POLICY
    assert (answer.headers["X-Frame-Options"], answer.headers["Server"]) == ("DENY", "screening-gateway")


@pytest.mark.parametrize("path", ["/", "/healthz", "/dicom-web/studies", "/assets/app.css", "/viewer/none.js"])
def test_nothing_else_allows_to_evaluate_code(site: Site, path: str) -> None:
    assert "unsafe" not in site.get(path).headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("name", "media_type", "caching"),
    [
        ("app-config.js", "text/javascript; charset=utf-8", "no-cache"),
        ("viewer.css", "text/css; charset=utf-8", "no-cache"),
        ("index.html", "text/html; charset=utf-8", "no-cache"),
        ("app.bundle.css", "text/css; charset=utf-8", "no-cache"),
        (SCRIPT, "text/javascript; charset=utf-8", "no-cache"),  # changed by us, under the name of its old content
        (DECODER, "text/javascript; charset=utf-8", "max-age=31536000, immutable"),
        ("0ddf166f7a343eda.wasm", "application/wasm", "max-age=31536000, immutable"),
        ("a34f9d1faa5f3315.woff2", "font/woff2", "max-age=31536000, immutable"),
    ],
)
def test_a_file_says_what_it_is_and_how_long_it_lasts(site: Site, name: str, media_type: str, caching: str) -> None:
    answer = site.get(f"/viewer/{name}")
    assert (answer.status, answer.headers["Content-Type"], answer.headers["Cache-Control"]) == (
        200,
        media_type,
        caching,
    )


def test_a_script_comes_compressed_to_who_takes_that(site: Site) -> None:
    plain, squeezed = site.get(f"/viewer/{DECODER}"), site.get(f"/viewer/{DECODER}", Accept_Encoding="gzip")
    assert (plain.body, plain.headers["Content-Encoding"]) == (b"decoder" * 200, None)
    assert (gzip.decompress(squeezed.body), squeezed.headers["Content-Encoding"]) == (plain.body, "gzip")
    assert len(squeezed.body) < len(plain.body) / 10


def test_a_file_that_the_browser_has_is_not_sent_again(site: Site) -> None:
    tag = site.get(f"/viewer/{SCRIPT}").headers["ETag"]
    answer = site.get(f"/viewer/{SCRIPT}", If_None_Match=tag)
    assert (answer.status, answer.body) == (304, b"")


@pytest.mark.parametrize(
    "name",
    [
        "..%2fpacs.db",
        "../pacs.db",
        "%2e%2e/worklist.db",
        "..%2f..%2fweb.py",
        "%2fetc%2fhosts.js",
        "assets%2f..%2f..%2fpacs.db",
        ".hidden.js",
        "installed.json",
        f"{DECODER}.gz",
        "LICENSE.png%00.js",
        "none.js",
        "assets",
    ],
)
def test_only_the_viewers_own_files_are_files(site: Site, name: str) -> None:
    answer = site.get(f"/viewer/{name}")
    is_the_page = answer.body == (viewer._OURS / "index.html").read_bytes()
    assert (answer.status, is_the_page) in {(404, False), (200, True)}


def test_without_a_study_it_leads_to_our_pages(site: Site) -> None:
    for path in ("/viewer", "/viewer/"):
        answer = site.get(path)
        assert (answer.status, answer.headers["Location"]) == (302, "/studies")


def test_without_a_viewer_it_says_how_to_add_one(bare: Site) -> None:
    for path in ("/viewer/", "/viewer/viewer?StudyInstanceUIDs=1.2.3", "/viewer/app-config.js"):
        answer = bare.get(path, accept="text/html")
        assert answer.status == 404
        assert "An engineer adds it with the command &#39;gateway viewer install&#39;" in answer.body.decode()


def test_it_is_there_once_it_is_installed_and_gone_when_removed_without_a_restart(bare: Site) -> None:
    assert not viewer.is_installed(bare.viewer)
    install(viewer_archive.written(bare.viewer.parent / "ohif.tgz"), bare.viewer)
    assert viewer.is_installed(bare.viewer)
    assert bare.get("/viewer/app-config.js").status == 200
    remove(bare.viewer)
    assert not viewer.is_installed(bare.viewer)
    assert bare.get("/viewer/app-config.js").status == 404


@pytest.mark.parametrize("mark", [b"", b"[]", b'{"edition": "3.9.0"}', b"{"])
def test_another_edition_or_a_broken_mark_is_no_viewer(bare: Site, mark: bytes) -> None:
    bare.viewer.mkdir()
    (bare.viewer / viewer.MARK).write_bytes(mark)
    assert not viewer.is_installed(bare.viewer)


def test_a_link_names_the_study() -> None:
    assert viewer.link("1.2.840.1") == "/viewer/viewer?StudyInstanceUIDs=1.2.840.1"


def test_an_error_below_the_viewer_is_json_for_programs(bare: Site) -> None:
    assert json.loads(bare.get("/viewer/x.js").body)["code"] == "not_found"
