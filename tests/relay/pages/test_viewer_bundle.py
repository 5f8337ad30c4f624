"""Which of OHIF's files are kept, and what is changed in them."""

from html.parser import HTMLParser
from importlib.resources import files

import pytest

from relay.pages.viewer_bundle import CHANGES, SCRIPT, STYLE, UnexpectedBundle, expect_whole, kept, patched


@pytest.mark.parametrize(
    ("member", "name"),
    [
        ("package/LICENSE", "LICENSE"),
        (f"package/dist/{SCRIPT}", SCRIPT),
        ("package/dist/app.bundle.css", "app.bundle.css"),
        ("package/dist/1602.css", "1602.css"),
        ("package/dist/compute.bundle.0fc3a3ee85296cf2.js", "compute.bundle.0fc3a3ee85296cf2.js"),
        ("package/dist/0ddf166f7a343eda.wasm", "0ddf166f7a343eda.wasm"),
        ("package/dist/assets/images/CT-Bone.png", "assets/images/CT-Bone.png"),
    ],
)
def test_what_the_viewer_consists_of_is_kept(member: str, name: str) -> None:
    assert kept(member) == name


@pytest.mark.parametrize(
    "member",
    [
        "package/dist/index.html",
        "package/dist/app-config.js",
        "package/dist/sw.js",
        "package/dist/init-service-worker.js",
        "package/dist/google.js",
        "package/dist/ort/ort.min.js",
        "package/dist/dicom-microscopy-viewer/dataLoader.worker.min.js",
        f"package/dist/{SCRIPT}.map",
        "package/dist/customizations/index.html",
        "package/dist/../../1602.css",
        "package/dist/assets/images/../../../../x.png",
        "/1602.css",
        "1602.css",
        "",
    ],
)
def test_what_is_ours_or_not_needed_or_leads_elsewhere_is_left_out(member: str) -> None:
    assert kept(member) is None


@pytest.mark.parametrize("name", CHANGES)
def test_the_root_of_the_host_becomes_the_viewers(name: str) -> None:
    change = CHANGES[name]
    assert patched(name, b"a " + change.old * change.count + b" z") == b"a " + change.new * change.count + b" z"


def test_another_file_stays_as_it_is() -> None:
    assert patched("1180.bundle.762993518ea30ae3.js", b"any") == b"any"


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [(SCRIPT, 0, 1), (SCRIPT, 2, 1), ("1180.bundle.762993518ea30ae3.js", 1, 0)],
)
def test_another_count_is_refused_and_explained(name: str, count: int, expected: int) -> None:
    with pytest.raises(UnexpectedBundle) as refused:
        patched(name, CHANGES[SCRIPT].old * count)
    assert str(refused.value) == (
        f"{name} says '__webpack_require__.p = \"/\";' {count} times instead of {expected}: "
        "this is not @ohif/app 3.13.2 as this gateway knows it, and it was not installed."
    )


def test_a_file_that_is_missing_is_named() -> None:
    with pytest.raises(UnexpectedBundle, match=r"The archive of @ohif/app 3\.13\.2 has no LICENSE, app\.bundle\.css;"):
        expect_whole(set(CHANGES) - {STYLE})


def test_our_page_loads_this_version_and_has_no_script_inside() -> None:
    class Reader(HTMLParser):
        loaded: tuple[str, ...] = ()
        inside = False

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.inside = tag in {"script", "style"}
            self.loaded += tuple(value for name, value in attrs if name in {"src", "href"} and tag != "a" and value)

        def handle_data(self, data: str) -> None:
            assert not (self.inside and data.strip())

    reader = Reader()
    reader.feed((files("relay") / "pages" / "viewer_page" / "index.html").read_text())
    assert reader.loaded == (
        "/assets/icon.svg",
        f"/viewer/{STYLE}",
        "/viewer/viewer.css",
        "/assets/session.js",
        "/viewer/app-config.js",
        f"/viewer/{SCRIPT}",
    )
