"""A browser opens studies in the viewer, from a running site: what is on its canvases is compared with what the archive
renders, so that the place, the side and the polarity of every picture are seen.

`SCREENSHOTS=docs/screenshots` keeps what was seen, with images of a size that is nice to look at.
"""

import io
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import HTJ2KLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from operations.viewer.fetch import fetch, verify
from relay.pages import viewer
from relay.pages.viewer_bundle import VERSION
from simulator.exam.exam import SCREENING_VIEWS, Exam
from simulator.exam.phantom import mammogram, raw_mammogram, tomosynthesis
from simulator.site import Site, SiteError, wait_until
from tests.journeys.test_access import PASSWORD, gateway
from tests.tools import axe, corpus
from tests.tools.browser import CHROMIUM, Page, page

SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
ROWS, COLUMNS = (1664, 1280) if SCREENSHOTS else (416, 320)
FRAMES = 12
EXAM, TOMO_EXAM, CODED_EXAM = (Exam(accession_number=f"VIEWER{number}") for number in (1, 2, 3))
WIDE, HIGH = 96, 84
"""The size to which pictures are reduced before they are compared."""
SAME, OTHER = 2.0, 6.0
"""Mean difference, of 255, below which two pictures are the same, and above which they are not."""

Picture = NDArray[np.float64]

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="Chromium is not installed"),
    pytest.mark.skipif(not shutil.which("npm"), reason="npm, which fetches the viewer, is not installed"),
]

CANVASES = "[...document.querySelectorAll('canvas.cornerstone-canvas')]"
PAINTED = f"""
    {CANVASES}.map(canvas => {{
        const small = new OffscreenCanvas({WIDE}, {HIGH}).getContext('2d');
        small.imageSmoothingQuality = 'high';
        small.drawImage(canvas, 0, 0, {WIDE}, {HIGH});
        const {{ x, y, width, height }} = canvas.getBoundingClientRect();
        const grey = [...small.getImageData(0, 0, {WIDE}, {HIGH}).data].filter((_, index) => index % 4 === 0);
        return {{ x, y, width, height, grey }};
    }})"""
FRAME = f"Number((document.body.innerText.match(/\\((\\d+)\\/{FRAMES}\\)/) || [])[1] || 0)"
PLAY = "document.querySelector('[data-cy=cine-player-play-pause]')"


@dataclass(frozen=True)
class Viewport:
    """One place on the page: where it is, and what is painted there, reduced."""

    x: float
    y: float
    width: float
    height: float
    picture: Picture

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + self.width / 2, self.y + self.height / 2


@pytest.fixture(scope="module")
def archive(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published archive; it is fetched once and kept in pytest's cache."""
    assert pytestconfig.cache
    kept = pytestconfig.cache.mkdir("viewer") / f"ohif-app-{VERSION}.tgz"
    if not kept.exists():
        axe.keep(fetch(tmp_path_factory.mktemp("fetched"), say=print), kept)
    verify(kept)
    return kept


@pytest.fixture(scope="module")
def site(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with the viewer and three studies: views with all that comes beside them, tomosyntheses, encodings."""
    with Site(tmp_path_factory.mktemp("site"), settings={"RELAY_DESTINATION": "none"}) as site:
        command = [sys.executable, "-m", "gateway", "viewer", "install", "--from", str(archive)]
        subprocess.run(command, env=site.environment(), cwd=site.folder, check=True, capture_output=True)
        site.start("worklist", "pacs")
        site.start("relay")
        send(site, [*screening(), *tomosyntheses(), *encodings()])
        yield site


def screening() -> Iterator[Dataset]:
    """Four views, one of them MONOCHROME1 and one in JPEG 2000, and what must not take their places."""
    for view in reversed(SCREENING_VIEWS):
        ds = mammogram(view, EXAM, rows=ROWS, columns=COLUMNS, monochrome1=view == "RMLO")
        yield encoded(ds, JPEG2000Lossless) if view == "LCC" else ds
    yield raw_mammogram("RCC", EXAM, rows=ROWS, columns=COLUMNS)
    yield tomosynthesis("LMLO", EXAM, frames=FRAMES, rows=ROWS // 2, columns=COLUMNS // 2)


def tomosyntheses() -> Iterator[Dataset]:
    for view in ("RMLO", "LMLO"):
        yield tomosynthesis(view, TOMO_EXAM, frames=FRAMES, rows=ROWS // 2, columns=COLUMNS // 2)


def encodings() -> Iterator[Dataset]:
    """Pictures that no breast looks like, because one of these encodings is there for nothing else."""
    syntaxes = (HTJ2KLossless, JPEGLSLossless, RLELossless, JPEGLosslessSV1)
    for view, syntax in zip(SCREENING_VIEWS, syntaxes, strict=True):
        ds = mammogram(view, CODED_EXAM, rows=corpus.ROWS, columns=corpus.COLUMNS)
        ds.PixelData, ds.VOILUTFunction = corpus.GREY.tobytes(), "SIGMOID" if view == "LCC" else "LINEAR"
        yield encoded(ds, syntax)


def encoded(ds: Dataset, transfer_syntax_uid: str) -> Dataset:
    picture = np.frombuffer(ds.PixelData, np.uint16).reshape(ds.Rows, ds.Columns)
    ds.PixelData = encapsulate([corpus.compressed(picture, transfer_syntax_uid)])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = transfer_syntax_uid
    return ds


def send(site: Site, images: list[Dataset]) -> None:
    folder = site.folder / "sent"
    folder.mkdir()
    for number, image in enumerate(images):
        image.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    target = f"SCREENING_PACS@127.0.0.1:{site.ports['pacs']}"
    command = [sys.executable, "-m", "gateway", "send", target, str(folder)]
    subprocess.run(command, env=site.environment(), cwd=site.folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One window for all journeys, so that the viewer is compiled once."""
    with page(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def browser(window: Page) -> Page:
    window.forget()
    return window


# --- what is seen -----------------------------------------------------------------------------------------------------


def opened(browser: Page, site: Site, exam: Exam) -> None:
    browser.open(site.url + viewer.link(exam.study_uid))


def viewports(browser: Page) -> list[Viewport]:
    """All places in reading order; an empty one is not there."""
    found = [
        Viewport(at["x"], at["y"], at["width"], at["height"], np.array(at["grey"], float).reshape(HIGH, WIDE))
        for at in browser.evaluate(PAINTED)
    ]
    return sorted(found, key=lambda each: (each.y, each.x))


def rendered(site: Site, exam: Exam, view: str, *, frame: int | None = None) -> Picture:
    """What the archive renders of a view, in the proportions of the picture itself."""
    kind = " tomosynthesis" if frame else ""
    made = tomosynthesis(view, exam, frames=FRAMES, rows=ROWS // 2, columns=COLUMNS // 2) if frame else None
    ds = made or next(image for image in (*screening(), *encodings()) if named(image, exam, view))
    assert str(ds.SeriesDescription) == f"{view[0]} {view[1:]}{kind}"
    path = f"/dicom-web/studies/{exam.study_uid}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
    frames = f"/frames/{frame}" if frame else ""
    with urllib.request.urlopen(f"{site.url}{path}{frames}/rendered?accept=image/png", timeout=30) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("L"), float)


def named(image: Dataset, exam: Exam, view: str) -> bool:
    return str(image.StudyInstanceUID) == exam.study_uid and str(image.SeriesDescription) == f"{view[0]} {view[1:]}"


def hung(picture: Picture, view: str, viewport: Viewport) -> Picture:
    """A picture as a reader wants it in a place: as high as the place, chest wall at the inner edge, black around."""
    width, height = round(viewport.width), round(viewport.height)
    place = Image.new("L", (width, height))
    image = Image.fromarray(picture.astype(np.uint8))
    image = image.resize((round(height * image.width / image.height), height), Image.Resampling.BILINEAR)
    place.paste(image, (width - image.width if view.startswith("R") else 0, 0))
    return np.asarray(place.resize((WIDE, HIGH), Image.Resampling.BOX), float)


def difference(one: Picture, other: Picture) -> float:
    return float(np.abs(one - other).mean())


def shows(browser: Page, expected: Mapping[str, Picture]) -> list[Viewport]:
    """Wait until the places show these views in this order, and give the places."""
    seen: list[Viewport] = []

    def differences() -> list[float]:
        seen[:] = viewports(browser)
        hanging = zip(seen, expected.items(), strict=False)
        return [difference(place.picture, hung(picture, view, place)) for place, (view, picture) in hanging]

    try:
        wait_until(
            lambda: max(differences(), default=255.0) < SAME and len(seen) == len(expected),
            what="The expected pictures",
        )
    except SiteError as error:
        raise AssertionError(f"{error} Off by {differences()}; the console says {browser.problems}.") from error
    return seen


def four_views(site: Site, exam: Exam) -> dict[str, Picture]:
    return {view: rendered(site, exam, view) for view in SCREENING_VIEWS}


def keep(browser: Page, name: str) -> None:
    """Keep what is seen, for the documentation."""
    if SCREENSHOTS:
        Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
        picture = Image.open(io.BytesIO(browser.picture())).convert("RGB").quantize(128)
        picture.save(Path(SCREENSHOTS) / name, optimize=True)


# --- the journeys -----------------------------------------------------------------------------------------------------


def test_four_views_hang_as_readers_expect_and_nothing_else_is_asked(browser: Page, site: Site) -> None:
    opened(browser, site, EXAM)
    places = shows(browser, four_views(site, EXAM))
    keep(browser, "viewer.png")
    others = [difference(a.picture, b.picture) for a in places for b in places if a is not b]
    assert min(others) > OTHER  # so that none could have stood in another's place
    assert browser.evaluate("document.querySelector('.not-for-diagnosis').checkVisibility()")
    assert [url for url in browser.requests if not url.startswith((site.url, "blob:", "data:"))] == []
    assert browser.problems == []


def test_reset_keeps_the_polarity_of_monochrome1(browser: Page, site: Site) -> None:
    opened(browser, site, EXAM)
    expected = four_views(site, EXAM)
    right_mlo = shows(browser, expected)[2]
    x, y = right_mlo.middle

    def darkened() -> bool:  # the first press in a place only makes it the active one
        browser.drag((x, y), (x + 100, y - 180))
        return difference(viewports(browser)[2].picture, right_mlo.picture) > SAME

    wait_until(darkened, what="Another window")
    browser.press(" ", "Space")
    shows(browser, expected)
    assert browser.problems == []


def test_who_is_signed_in_at_the_browser_sees_the_pictures_and_is_led_out_after_signing_out(
    browser: Page, site: Site
) -> None:
    expected = four_views(site, EXAM)
    assert gateway(site, "users", "add", "vera", "--role", "viewer", typed=f"{PASSWORD}\n").returncode == 0
    try:
        opened(browser, site, EXAM)
        browser.wait("document.title.startsWith('Sign in ')", what="The sign-in page")
        fill = (
            f"document.getElementById('name').value = 'vera'; document.getElementById('password').value = '{PASSWORD}'"
        )
        browser.evaluate(f"{fill}; document.querySelector('form').requestSubmit(); true")
        browser.wait("location.pathname.startsWith('/viewer/')", what="The viewer")
        shows(browser, expected)
        assert browser.problems == []
        browser.evaluate("fetch('/sign-out', {method: 'POST'}); true")  # whose answer the page may not live to see
        browser.wait("document.title.startsWith('Sign in ')", what="The sign-in page again")
    finally:
        gateway(site, "users", "remove", "vera")


def test_every_encoding_is_shown(browser: Page, site: Site) -> None:
    opened(browser, site, CODED_EXAM)
    shows(browser, four_views(site, CODED_EXAM))
    assert browser.problems == []


def test_a_key_changes_to_the_tomosyntheses_and_back(browser: Page, site: Site) -> None:
    opened(browser, site, EXAM)
    flat = four_views(site, EXAM)
    shows(browser, flat)
    browser.press(".", "Period")
    shows(browser, {"LMLO": rendered(site, EXAM, "LMLO", frame=1)})
    browser.press(",", "Comma")
    shows(browser, flat)
    assert browser.problems == []


def test_a_tomosynthesis_hangs_in_its_place_scrolls_and_plays(browser: Page, site: Site) -> None:
    opened(browser, site, TOMO_EXAM)
    first, third, left = (
        rendered(site, TOMO_EXAM, view, frame=number) for view, number in (("RMLO", 1), ("RMLO", 3), ("LMLO", 1))
    )
    right = shows(browser, {"RMLO": first, "LMLO": left})[0]
    browser.wheel(*right.middle, 120)
    browser.wait(f"{FRAME} === 2", what="The second plane")
    browser.wheel(*right.middle, 120)
    shows(browser, {"RMLO": third, "LMLO": left})
    browser.press("c", "KeyC")
    browser.wait(f"!!{PLAY}", what="The button that plays")
    keep(browser, "viewer-tomosynthesis.png")
    browser.evaluate(f"{PLAY}.dispatchEvent(new MouseEvent('click', {{ bubbles: true }})), true")
    for number in (6, FRAMES, 2):
        browser.wait(f"{FRAME} === {number}", what=f"Plane {number} of {FRAMES} while it plays")
    assert browser.problems == []
