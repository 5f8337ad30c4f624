"""WADO-URI: parameters become what to give, and the real server gives it."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless

from gateway.errors import InvalidQuery, Refusal
from pacs import Viewport, Window
from relay.dicomweb import wado_uri
from relay.dicomweb.negotiation import Rendering
from tests.relay import served
from tests.relay.served import STUDY, Site
from tests.tools import corpus

RCC = f"requestType=WADO&studyUID={STUDY}&seriesUID={STUDY}.1&objectUID={STUDY}.1.1"
RMLO = RCC.removesuffix("1") + "3"
TOMO = f"requestType=WADO&studyUID={STUDY}&seriesUID={STUDY}.2&objectUID={STUDY}.2.1"
REPORT = f"requestType=WADO&studyUID={STUDY}&seriesUID={STUDY}.3&objectUID={STUDY}.1.9"
SAME = [("requestType", "WADO"), ("studyUID", "1.2"), ("seriesUID", "1.3"), ("objectUID", "1.4")]


def look(*parameters: tuple[str, str]) -> Rendering:
    return wado_uri.look(wado_uri.read([*SAME, *parameters]), rows=200, columns=100)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ([], Rendering(None, None, 90)),
        ([("imageQuality", "40")], Rendering(None, None, 40)),
        ([("windowCenter", "1e3"), ("windowWidth", "400.5")], Rendering(Window(1000, 400.5, "LINEAR"), None, 90)),
        ([("rows", "50")], Rendering(None, Viewport(8192, 50, 0, 0, 100, 200), 90)),
        ([("rows", "50"), ("columns", "40")], Rendering(None, Viewport(40, 50, 0, 0, 100, 200), 90)),
        ([("region", "0.5,0,1,0.5")], Rendering(None, Viewport(50, 100, 50, 0, 50, 100), 90)),
        ([("region", "0.5,0,1,0.5"), ("columns", "10")], Rendering(None, Viewport(10, 8192, 50, 0, 50, 100), 90)),
    ],
)
def test_parameters_say_how_a_picture_looks(parameters: list[tuple[str, str]], expected: Rendering) -> None:
    assert look(*parameters) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        SAME[1:],
        SAME[:3],
        [*SAME, ("anonymize", "yes")],
        [*SAME, ("annotation", "patient")],
        [*SAME, ("studyUID", "1.2")],
        [*SAME, ("frameNumber", "0")],
        [*SAME, ("imageQuality", "101")],
        [*SAME, ("windowCenter", "1")],
        [*SAME, ("windowCenter", "a"), ("windowWidth", "1")],
        [*SAME, ("region", "0,0,1")],
        [*SAME, ("region", "0,0,2,1")],
        [*SAME, ("region", "0.5,0,0.5,1")],
        [*SAME, ("rows", "9999")],
        [*SAME, ("transferSyntax", "explicit")],
    ],
)
def test_what_is_not_understood_or_not_kept_is_refused(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidQuery) as refused:
        wado_uri.read(parameters)
    assert str(refused.value).endswith(".")


@given(st.lists(st.tuples(st.sampled_from(["region", "rows", "frameNumber", "windowCenter"]), st.text(max_size=20))))
def test_any_query_is_read_or_refused(parameters: list[tuple[str, str]]) -> None:
    try:
        wado_uri.look(wado_uri.read([*SAME, *parameters]), rows=10, columns=10)
    except Refusal as refusal:
        assert refusal.http_status == 400


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served.site(tmp_path_factory.mktemp("site"), served.first_study()) as running:
        yield running


@pytest.mark.parametrize("root", ["/dicom-web", "/dicom-web/wado"])
def test_an_image_is_given_as_a_picture(site: Site, root: str) -> None:
    answer = site.get(f"{root}?{RCC}&rows=20&contentType=image/png,image/jpeg")
    picture = Image.open(io.BytesIO(answer.body))
    assert (answer.headers["Content-Type"], picture.format, picture.size) == ("image/png", "PNG", (16, 20))


def test_an_object_is_given_as_stored_or_in_the_syntax_named(site: Site) -> None:
    stored = site.get(f"/dicom-web/wado?{RMLO}&contentType=application/dicom")
    assert stored.body == site.archive.instance(f"{STUDY}.1.3").path.read_bytes()
    assert stored.headers["Content-Type"] == f"application/dicom; transfer-syntax={JPEGLSLossless}"
    explicit = f"contentType=application/dicom&transferSyntax={ExplicitVRLittleEndian}"
    native = dcmread(io.BytesIO(site.get(f"/dicom-web/wado?{RMLO}&{explicit}").body))
    assert np.array_equal(native.pixel_array, corpus.GREY)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        (REPORT, 200),
        (f"{REPORT}&contentType=image/jpeg", 406),
        (f"{TOMO}&frameNumber=3", 200),
        (f"{TOMO}&frameNumber=4", 404),
        (f"{RCC}&contentType=text/html", 406),
        (f"{RCC}&contentType=application/dicom&rows=10", 400),
        (f"{RCC}&contentType=application/dicom&transferSyntax=1.2.840.10008.1.2.4.50", 406),
        (f"{RCC}&region=0,0,1,2", 400),
        ("requestType=WADO", 400),
        ("", 400),
        (f"requestType=WADO&studyUID={STUDY}&seriesUID={STUDY}.1&objectUID=2.25.404", 404),
    ],
)
def test_each_request_has_its_status(site: Site, query: str, status: int) -> None:
    assert site.get(f"/dicom-web/wado?{query}").status == status
