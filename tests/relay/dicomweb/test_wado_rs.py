"""What DICOMweb gives that is asked in a particular way: a range, a version, a method, a transfer syntax; deletions."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
)
from requests import HTTPError

from pacs import RetentionPolicy
from relay.dicomweb.routes import Changes
from tests.relay import served
from tests.relay.dicomweb.test_routes import LCC, OTHER, RCC, REPORT, RMLO, ROOT, TOMO, parts
from tests.relay.served import OTHER_STUDY, STUDY, Site
from tests.tools import corpus

MULTIPART = 'multipart/related; type="application/dicom"; transfer-syntax='
DEFLATED = f"{ROOT}/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.4"
RECEIVED = "Sun, 22 Nov 2026 09:30:00 GMT"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    deflated = served.mammogram("LMLO", 4, syntax=DeflatedExplicitVRLittleEndian)
    data_sets = [*served.first_study(), deflated, served.other_study()]
    with served.site(tmp_path_factory.mktemp("site"), data_sets) as running:
        yield running


RESOURCES = [
    RCC,
    f"{RCC}?accept=application/dicom",
    f"{ROOT}/studies/{STUDY}",
    f"{TOMO}/frames/1,3",
    f"{RCC}/bulkdata/7FE00010",
    f"{TOMO}/bulkdata/7FE00010",
]


@pytest.mark.parametrize("path", RESOURCES)
def test_pieces_put_together_are_the_whole(site: Site, path: str) -> None:
    whole = site.get(path)
    size, tag = len(whole.body), whole.headers["ETag"]
    first = site.get(path, Range="bytes=0-99", If_Range=tag)
    rest = site.get(path, Range="bytes=100-", If_Range=tag)
    assert (first.status, rest.status, whole.headers["Accept-Ranges"]) == (206, 206, "bytes")
    assert first.headers["Content-Range"] == f"bytes 0-99/{size}"
    assert rest.headers["Content-Range"] == f"bytes 100-{size - 1}/{size}"
    assert first.body + rest.body == whole.body


def test_any_range_of_a_multipart_body_is_its_bytes(site: Site) -> None:
    whole = site.get(f"{ROOT}/studies/{STUDY}").body
    for begin in range(0, len(whole), 997):
        piece = site.get(f"{ROOT}/studies/{STUDY}", Range=f"bytes={begin}-{begin + 1200}")
        assert piece.body == whole[begin : begin + 1201]


def test_bulk_data_may_come_by_itself_and_in_part(site: Site) -> None:
    value = site.get(f"{RCC}/bulkdata/7FE00010", accept="application/octet-stream")
    assert (value.headers["Content-Type"], value.body) == ("application/octet-stream", corpus.GREY.tobytes())
    piece = site.get(f"{RCC}/bulkdata/7FE00010", accept="application/octet-stream", Range="bytes=64-127")
    assert (piece.status, piece.body) == (206, corpus.GREY.tobytes()[64:128])


def test_a_range_behind_the_end_is_refused(site: Site) -> None:
    answer = site.get(RCC, Range="bytes=999999-")
    assert (answer.status, answer.json()["code"]) == (416, "range_not_satisfiable")  # type: ignore[index]


@pytest.mark.parametrize("path", [*RESOURCES, f"{ROOT}/studies/{STUDY}/metadata", f"{RCC}/rendered"])
def test_what_a_client_has_is_not_sent_again(site: Site, path: str) -> None:
    tag = site.get(path).headers["ETag"]
    again = site.get(path, If_None_Match=tag)
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    assert site.get(path, If_None_Match='"another"').status == 200


def test_an_object_has_the_date_it_was_received_on(site: Site) -> None:
    assert site.get(RCC).headers["Last-Modified"] == RECEIVED
    assert site.get(RCC, If_Modified_Since=RECEIVED).status == 304
    assert site.get(f"{ROOT}/studies/{STUDY}").headers["Last-Modified"] is None


@pytest.mark.parametrize(
    "path", [*RESOURCES, f"{RCC}/metadata", f"{RCC}/rendered", f"{ROOT}/studies", f"{RCC}/thumbnail"]
)
def test_head_is_get_without_the_body(site: Site, path: str) -> None:
    head, whole = site.get(path, method="HEAD"), site.get(path)
    assert (head.status, head.body) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag"):
        assert head.headers[name] == whole.headers[name] or head.headers[name] is None


# --- other transfer syntaxes


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1])
@pytest.mark.parametrize("path", [RCC, LCC, RMLO])
def test_an_object_comes_in_the_transfer_syntax_that_is_named(site: Site, path: str, syntax: str) -> None:
    answer = site.get(path, accept=f"application/dicom; transfer-syntax={syntax}")
    ds = dcmread(io.BytesIO(answer.body))
    assert answer.headers["Content-Type"] == f"application/dicom; transfer-syntax={syntax}"
    assert ds.file_meta.TransferSyntaxUID == syntax
    assert answer.headers["Content-Length"] == str(len(answer.body))
    if syntax == ExplicitVRLittleEndian:
        assert np.array_equal(ds.pixel_array, corpus.GREY)


def test_a_study_comes_in_one_transfer_syntax(site: Site) -> None:
    answer = site.get(f"{ROOT}/studies/{STUDY}", accept=f"{MULTIPART}{ExplicitVRLittleEndian}")
    found = [dcmread(io.BytesIO(content)) for _, content in parts(answer)]
    assert answer.status == 200
    assert {str(ds.file_meta.TransferSyntaxUID) for ds in found} == {ExplicitVRLittleEndian}
    assert [ds.SOPInstanceUID.rpartition(".")[2] for ds in found] == ["1", "2", "3", "4", "1", "9"]


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [("image/jls", JPEGLSLossless), ("image/jp2", JPEG2000Lossless), ("image/jpeg", JPEGLosslessSV1)],
)
def test_frames_come_in_the_image_type_that_is_asked_for(site: Site, kind: str, syntax: str) -> None:
    found = parts(site.get(f"{TOMO}/frames/2,1", accept=f'multipart/related; type="{kind}"'))
    assert [content_type for content_type, _ in found] == [f"{kind}; transfer-syntax={syntax}"] * 2


def test_frames_come_uncompressed_when_that_is_named(site: Site) -> None:
    accept = f"multipart/related; type=application/octet-stream; transfer-syntax={ExplicitVRLittleEndian}"
    for path in (LCC, RMLO):
        assert [frame for _, frame in parts(site.get(f"{path}/frames/1", accept=accept))] == [corpus.GREY.tobytes()]


def test_what_was_deflated_is_given_as_frames_and_values(site: Site) -> None:
    assert [frame for _, frame in parts(site.get(f"{DEFLATED}/frames/1"))] == [corpus.GREY.tobytes()]
    assert [value for _, value in parts(site.get(f"{DEFLATED}/bulkdata/7FE00010"))] == [corpus.GREY.tobytes()]


def test_dicomweb_client_gets_frames_rendered_pictures_and_bulk_data_of_every_kind(site: Site) -> None:
    client, tomo = DICOMwebClient(url=site.url + ROOT), (STUDY, f"{STUDY}.2", f"{STUDY}.2.1")
    kinds = (("image/jls", str(JPEGLSLossless)),)
    assert len(client.retrieve_instance_frames(*tomo, [1, 2, 3], media_types=kinds)) == 3
    assert len(client.retrieve_instance_frames_rendered(*tomo, [1, 2])) > 100
    assert len(list(client.iter_study(STUDY))) == 6
    assert len(client.retrieve_study_metadata(STUDY)) == 6
    native = client.retrieve_instance(*tomo, media_types=(("application/dicom", str(ExplicitVRLittleEndian)),))
    assert native.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    address = f"{client.base_url}/studies/{STUDY}/series/{STUDY}.2/instances/{STUDY}.2.1/bulkdata/7FE00010"
    assert len(client.retrieve_bulkdata(address)) == 3


# --- QIDO-RS


def test_counts_and_modalities_come_at_every_level(site: Site) -> None:
    for path in ("/series?Modality=SR", "/instances?Modality=SR"):
        [found] = site.get(ROOT + path).json()  # type: ignore[misc]
        assert found["00080061"]["Value"] == ["MG", "SR"]
        assert [found[key]["Value"] for key in ("00201206", "00201208", "00201209")] == [[3], [6], [1]]


def test_keys_go_into_sequences_and_across_levels(site: Site) -> None:
    path = f"{ROOT}/studies/{STUDY}/instances?Modality=MG&SOPClassUID={served.TOMO_CLASS}&includefield=NumberOfFrames"
    assert [found["00280008"]["Value"] for found in site.get(path).json()] == [[3]]  # type: ignore[attr-defined]
    scheduled = f"{ROOT}/series?RequestAttributesSequence.ScheduledProcedureStepID=SPS*"
    assert site.get(scheduled).status == 204


# --- requests that cannot be served


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/studies?limit=a", {}, 400),
        ("GET", "/studies?includefield=", {}, 200),
        ("GET", "/studies?StudyDate=20261301", {}, 400),
        ("GET", "/studies?SeriesDescription=x", {}, 400),
        ("GET", "/series?RequestAttributesSequence.PatientID.Modality=x", {}, 400),
        ("GET", "/studies?PatientName=%ff", {}, 400),
        ("GET", "/studies", {"Accept": "application/dicom+xml"}, 406),
        ("GET", "/studies", {"Accept": "nonsense"}, 406),
        ("GET", f"/studies/{STUDY}/series/2.25.404", {}, 404),
        ("GET", f"/studies/{OTHER_STUDY}/series/{STUDY}.1", {}, 404),
        ("GET", f"/studies/{'1' * 65}", {}, 400),
        ("GET", f"/studies/{STUDY}/series/x/metadata", {}, 400),
        ("GET", RCC.removeprefix(ROOT) + "/frames/1,,2", {}, 400),
        ("GET", RCC.removeprefix(ROOT) + "/frames/2", {}, 404),
        ("GET", RCC.removeprefix(ROOT) + "/frames/1", {"Accept": "multipart/related; type=image/jxl"}, 406),
        ("GET", RCC.removeprefix(ROOT) + "/rendered?viewport=0,0", {}, 400),
        ("GET", RCC.removeprefix(ROOT) + "/rendered?viewport=99999,1", {}, 400),
        ("GET", RCC.removeprefix(ROOT) + "/rendered?window=1,2,cubic", {}, 400),
        ("GET", RCC.removeprefix(ROOT) + "/bulkdata/00280010", {}, 404),
        ("GET", RCC.removeprefix(ROOT) + "/bulkdata/00540220/0/00420011", {}, 404),
        ("GET", REPORT.removeprefix(ROOT), {"Accept": f"{MULTIPART}{JPEGLSLossless}"}, 406),
        ("GET", OTHER.removeprefix(ROOT) + "/thumbnail", {"Accept": "image/webp"}, 406),
        ("PUT", "/studies", {}, 405),
        ("POST", f"/studies/{STUDY}/series", {}, 405),
        ("DELETE", "/studies", {}, 405),
        ("DELETE", f"/studies/{STUDY}", {}, 403),
        ("GET", "/workitems", {}, 404),
    ],
)
def test_a_bad_request_has_its_status_and_a_sentence(
    site: Site, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = site.get(ROOT + path, method=method, **headers)
    assert answer.status == status
    if status >= 400:
        said = answer.json()
        assert isinstance(said, dict)
        assert sorted(said) == ["code", "message"]
        assert said["message"].endswith(".")


# --- deletions


def test_a_study_goes_when_the_rules_let_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("deleting")
    with served.site(folder, served.first_study(), changes=Changes(deletes=RetentionPolicy(days=0))) as site:
        client = DICOMwebClient(url=site.url + ROOT)
        with pytest.raises(HTTPError) as refused:
            client.delete_study(STUDY)
        assert refused.value.response.status_code == 409
        assert refused.value.response.json()["message"] == (
            f"Study {STUDY} stays as it is:"
            " the cloud has not confirmed all of it; the cloud is still owed events of it."
        )
        for entry in site.archive.outbox.entries("open"):
            site.archive.outbox.delivered(entry, now=served.NOW)
        assert site.get(f"{ROOT}/studies/{STUDY}/series/2.25.404", method="DELETE").status == 404
        client.delete_instance(STUDY, f"{STUDY}.1", f"{STUDY}.1.1")
        client.delete_series(STUDY, f"{STUDY}.3")
        assert site.archive.statistics() | {"bytes": 0} == {"studies": 1, "series": 2, "instances": 3, "bytes": 0}
        client.delete_study(STUDY)
        assert site.archive.statistics() == {"studies": 0, "series": 0, "instances": 0, "bytes": 0}
        assert site.get(f"{ROOT}/studies/{STUDY}").status == 404
