"""DICOMweb as its clients see it: dicomweb-client of PyPI, and requests as the OHIF viewer makes them."""

import hashlib
import io
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest
from dicomweb_client import DICOMwebClient
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from tests.relay import served
from tests.relay.served import OTHER_STUDY, STUDY, Answer, Site
from tests.tools import corpus

ROOT = "/dicom-web"
RCC = f"{ROOT}/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1"
LCC = f"{ROOT}/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.2"
RMLO = f"{ROOT}/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.3"
TOMO = f"{ROOT}/studies/{STUDY}/series/{STUDY}.2/instances/{STUDY}.2.1"
REPORT = f"{ROOT}/studies/{STUDY}/series/{STUDY}.3/instances/{STUDY}.1.9"
OTHER = f"{ROOT}/studies/{OTHER_STUDY}/series/{OTHER_STUDY}.1/instances/{OTHER_STUDY}.1.1"
VIEWER = "multipart/related; type=application/octet-stream; transfer-syntax=*"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    data_sets = [*served.first_study(), served.other_study()]
    with served.site(tmp_path_factory.mktemp("site"), data_sets) as running:
        yield running


@pytest.fixture(scope="module")
def client(site: Site) -> DICOMwebClient:
    return DICOMwebClient(url=site.url + ROOT)


def parts(answer: Answer) -> list[tuple[str, bytes]]:
    """Take a multipart body apart: Content-Type and content of each part."""
    boundary = re.search(r"boundary=(\S+)", answer.headers["Content-Type"])
    assert boundary, answer.headers["Content-Type"]
    limit = boundary[1].encode()
    assert answer.body.endswith(b"\r\n--" + limit + b"--\r\n")
    pieces = answer.body.removesuffix(b"--" + limit + b"--\r\n").split(b"--" + limit + b"\r\n")[1:]
    split = [piece.removesuffix(b"\r\n").partition(b"\r\n\r\n") for piece in pieces]
    return [(head.decode().removeprefix("Content-Type: "), body) for head, _, body in split]


def mammogram_of(picture: NDArray[np.uint16], number: int) -> Dataset:
    ds = served.mammogram("RCC", number)
    ds.Rows, ds.Columns = picture.shape
    ds.PixelData = (picture + number).astype(np.uint16).tobytes()
    return ds


def value(data_set: dict[str, dict[str, list[object]]], key: str) -> object:
    return data_set[key]["Value"][0]


# --- dicomweb-client


def test_dicomweb_client_finds_studies_series_and_instances(client: DICOMwebClient) -> None:
    studies = client.search_for_studies(search_filters={"PatientName": "Björk*", "StudyDate": "20261101-20261130"})
    assert [value(study, "0020000D") for study in studies] == [STUDY]
    assert (value(studies[0], "00201206"), value(studies[0], "00201208")) == (3, 5)
    assert studies[0]["00080061"]["Value"] == ["MG", "SR"]
    series = client.search_for_series(STUDY)
    assert [(value(each, "00200011"), value(each, "00201209")) for each in series] == [(1, 3), (2, 1), (3, 1)]
    instances = client.search_for_instances(STUDY, f"{STUDY}.1", fields=["ViewPosition"])
    assert [value(each, "00185101") for each in instances] == ["CC", "CC", "MLO"]


def test_dicomweb_client_pages_through_what_is_more_than_asked(client: DICOMwebClient, site: Site) -> None:
    assert len(client.search_for_instances(limit=4, get_remaining=True)) == 6
    answer = site.get(f"{ROOT}/instances?limit=4")
    assert len(answer.json()) == 4
    assert answer.headers["Warning"] == ('299 screening-gateway "There are additional results that can be requested."')
    assert site.get(f"{ROOT}/instances?limit=4&offset=4").headers["Warning"] is None


def test_dicomweb_client_retrieves_an_instance_as_it_was_stored(client: DICOMwebClient) -> None:
    ds = client.retrieve_instance(STUDY, f"{STUDY}.1", f"{STUDY}.1.2")
    assert ds.file_meta.TransferSyntaxUID == JPEG2000Lossless
    assert (ds.PatientName, ds.ViewPosition) == ("BJÖRK^ANNA", "CC")


def test_dicomweb_client_retrieves_a_whole_study(client: DICOMwebClient) -> None:
    assert sorted(str(ds.SOPInstanceUID) for ds in client.retrieve_study(STUDY)) == [
        f"{STUDY}.1.1",
        f"{STUDY}.1.2",
        f"{STUDY}.1.3",
        f"{STUDY}.1.9",
        f"{STUDY}.2.1",
    ]


def test_dicomweb_client_retrieves_metadata_of_a_series(client: DICOMwebClient) -> None:
    metadata = client.retrieve_series_metadata(STUDY, f"{STUDY}.1")
    assert [value(each, "00080018") for each in metadata] == [f"{STUDY}.1.1", f"{STUDY}.1.2", f"{STUDY}.1.3"]
    assert value(metadata[0], "00100010") == {"Alphabetic": "BJÖRK^ANNA"}
    assert [value(each, "00280004") for each in metadata] == ["MONOCHROME2", "MONOCHROME2", "MONOCHROME1"]
    assert metadata[0]["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}


def test_dicomweb_client_follows_bulk_data_out_of_metadata(client: DICOMwebClient) -> None:
    metadata = client.retrieve_instance_metadata(STUDY, f"{STUDY}.1", f"{STUDY}.1.1")
    address = metadata["7FE00010"]["BulkDataURI"]
    assert address == client.base_url + f"/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1/bulkdata/7FE00010"
    assert client.retrieve_bulkdata(address) == [corpus.GREY.tobytes()]


def test_dicomweb_client_retrieves_frames(client: DICOMwebClient) -> None:
    assert client.retrieve_instance_frames(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", [1]) == [corpus.GREY.tobytes()]
    both = client.retrieve_instance_frames(STUDY, f"{STUDY}.2", f"{STUDY}.2.1", [1, 3])
    assert [len(frame) > 0 for frame in both] == [True, True]
    assert both[0] != both[1]


def test_dicomweb_client_retrieves_rendered_pictures(client: DICOMwebClient) -> None:
    picture = Image.open(io.BytesIO(client.retrieve_instance_rendered(STUDY, f"{STUDY}.1", f"{STUDY}.1.1")))
    assert (picture.format, picture.size) == ("JPEG", (corpus.COLUMNS, corpus.ROWS))
    png = client.retrieve_instance_rendered(STUDY, f"{STUDY}.1", f"{STUDY}.1.1", media_types=("image/png",))
    assert Image.open(io.BytesIO(png)).format == "PNG"


# --- as the OHIF viewer asks (its list of requests, in order)

COMMON = "limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060%2C00080090%2C00100030"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/studies?{COMMON}", [STUDY, OTHER_STUDY]),
        (f"/studies?{COMMON}&PatientName=*rk*&00100020=*18&ModalitiesInStudy=MG", [STUDY]),
        (f"/studies?{COMMON}&AccessionNumber=*2", [OTHER_STUDY]),
        (f"/studies?{COMMON}&StudyDate=20261122-20261122", [STUDY]),
        (f"/studies?{COMMON}&StudyInstanceUID={STUDY}%5C{OTHER_STUDY}", [STUDY, OTHER_STUDY]),
        (f"/studies?00100020=9990000026&{COMMON}", [OTHER_STUDY]),
    ],
)
def test_the_viewer_finds_studies(site: Site, path: str, expected: list[str]) -> None:
    answer = site.get(ROOT + path, accept="application/dicom+json")
    assert [value(study, "0020000D") for study in answer.json()] == expected


def test_the_viewer_finds_the_series_of_a_study(site: Site) -> None:
    fields = "includefield=00080021%2C00080031%2C0008103E%2C00200011"
    series = site.get(f"{ROOT}/studies/{STUDY}/series?{fields}", accept="application/dicom+json").json()
    assert [(value(each, "0020000E"), value(each, "00080060")) for each in series] == [
        (f"{STUDY}.1", "MG"),
        (f"{STUDY}.2", "MG"),
        (f"{STUDY}.3", "SR"),
    ]


def test_the_viewer_finds_what_it_hangs_by_in_the_metadata(site: Site) -> None:
    metadata = site.get(f"{ROOT}/studies/{STUDY}/series/{STUDY}.1/metadata", accept="application/dicom+json").json()
    assert all({"0020000D", "00280010", "00280004", "00200062", "00540220", "00281050"} <= set(m) for m in metadata)


@pytest.mark.parametrize("accept", [VIEWER, VIEWER.replace("=application/octet-stream", '="application/octet-stream"')])
@pytest.mark.parametrize(
    ("instance", "syntax"),
    [
        (RCC, "1.2.840.10008.1.2.1"),
        (LCC, str(JPEG2000Lossless)),
        (RMLO, str(JPEGLSLossless)),
        (OTHER, "1.2.840.10008.1.2.1"),
    ],
)
def test_the_viewer_gets_frames_that_say_what_they_are(site: Site, instance: str, syntax: str, accept: str) -> None:
    answer = site.get(f"{instance}/frames/1", accept=accept)
    assert answer.headers["Content-Type"].startswith('multipart/related; type="application/octet-stream"; boundary=')
    [(content_type, frame)] = parts(answer)
    assert content_type == f"application/octet-stream; transfer-syntax={syntax}"
    assert len(frame) > 100


def test_a_client_that_asks_for_images_gets_the_media_type_of_the_stored_frames(site: Site) -> None:
    accept = f"multipart/related; type=image/jls; transfer-syntax={JPEGLSLossless}"
    [(content_type, _)] = parts(site.get(f"{RMLO}/frames/1", accept=accept))
    assert content_type == f"image/jls; transfer-syntax={JPEGLSLossless}"


@pytest.mark.parametrize("resource", ["thumbnail", "rendered"])
def test_the_accept_parameter_wins_over_the_viewer_s_wrong_header(site: Site, resource: str) -> None:
    answer = site.get(
        f"{RMLO}/{resource}?accept=image/jpeg", accept='multipart/related; type="application/octet-stream"'
    )
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/jpeg")


# --- stored objects


def test_an_object_comes_back_byte_for_byte(site: Site) -> None:
    stored = site.archive.instance(f"{STUDY}.1.3")
    answer = site.get(RMLO, accept="application/dicom")
    assert answer.headers["Content-Type"] == f"application/dicom; transfer-syntax={JPEGLSLossless}"
    assert hashlib.sha256(answer.body).hexdigest() == stored.sha256
    [(_, same)] = parts(site.get(RMLO))
    assert same == answer.body


def test_large_objects_come_back_byte_for_byte(tmp_path_factory: pytest.TempPathFactory) -> None:
    picture = np.arange(2000 * 2000, dtype=np.uint16).reshape(2000, 2000)
    large = [mammogram_of(picture, number) for number in (1, 2)]
    with served.site(tmp_path_factory.mktemp("large"), large) as site:
        found = parts(site.get(f"{ROOT}/studies/{STUDY}"))
        stored = site.archive.locate(STUDY)
    assert [hashlib.sha256(body).hexdigest() for _, body in found] == [each.sha256 for each in stored]


def test_a_client_that_insists_on_what_cannot_be_made_is_told_what_there_is(site: Site) -> None:
    baseline = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50'
    answer = site.get(RMLO, accept=baseline)
    assert (answer.status, answer.json()["code"]) == (406, "not_acceptable")
    assert str(JPEGLSLossless) in answer.json()["message"]


def test_a_study_in_several_syntaxes_is_given_in_part_to_a_client_that_takes_one(site: Site) -> None:
    accept = f'multipart/related; type="application/dicom"; transfer-syntax={JPEGLSLossless}'
    answer = site.get(f"{ROOT}/studies/{STUDY}", accept=accept)
    assert answer.status == 206  # the report has no pixels that could be compressed
    assert [dcmread(io.BytesIO(body)).SOPInstanceUID for _, body in parts(answer)] == [
        f"{STUDY}.1.1",
        f"{STUDY}.1.2",
        f"{STUDY}.1.3",
        f"{STUDY}.2.1",
    ]


def test_head_says_how_long_the_body_would_be(site: Site) -> None:
    head, whole = site.get(RCC, method="HEAD"), site.get(RCC)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == whole.headers["Content-Length"] == str(len(whole.body))


def test_an_object_whose_file_is_gone_is_said_to_be_gone(tmp_path_factory: pytest.TempPathFactory) -> None:
    with served.site(tmp_path_factory.mktemp("gone"), [served.mammogram("RCC", 1)]) as site:
        site.archive.instance(f"{STUDY}.1.1").path.unlink()
        answer = site.get(RCC)
    assert (answer.status, answer.json()["code"]) == (404, "not_found")


# --- bulk data


def test_compressed_pixels_come_frame_by_frame_as_bulk_data(site: Site) -> None:
    found = parts(site.get(f"{TOMO}/bulkdata/7FE00010"))
    assert [content_type for content_type, _ in found] == ["image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5"] * 3


def test_a_long_value_inside_a_sequence_is_fetched_by_its_path(site: Site) -> None:
    icon = site.get(f"{OTHER}/metadata").json()[0]["00880200"]["Value"][0]
    address = icon["00091010"]["BulkDataURI"]
    assert address == f"{site.url}{OTHER}/bulkdata/00880200/1/00091010"
    [(_, content)] = parts(site.get(address.removeprefix(site.url)))
    assert content == b"\1\2" * 10_000


@pytest.mark.parametrize(
    "location", ["00091010", "nonsense", "00880200/2/00091010", "00100010", "00880200/1", "../../etc"]
)
def test_bulk_data_that_is_not_there_is_not_found(site: Site, location: str) -> None:
    assert site.get(f"{OTHER}/bulkdata/{location}").status == 404


# --- pictures


def test_a_study_is_rendered_as_one_picture_for_each_image(site: Site) -> None:
    found = parts(site.get(f"{ROOT}/studies/{STUDY}/rendered"))
    assert [content_type for content_type, _ in found] == ["image/jpeg"] * 4
    assert all(Image.open(io.BytesIO(body)).format == "JPEG" for _, body in found)


def test_frames_are_rendered_one_or_several(site: Site) -> None:
    assert site.get(f"{TOMO}/frames/2/rendered").headers["Content-Type"] == "image/jpeg"
    assert len(parts(site.get(f"{TOMO}/frames/1,3/rendered"))) == 2


@pytest.mark.parametrize(
    "resource", [f"{ROOT}/studies/{STUDY}", f"{ROOT}/studies/{STUDY}/series/{STUDY}.2", RCC, f"{TOMO}/frames/1"]
)
def test_there_is_a_thumbnail_of_everything(site: Site, resource: str) -> None:
    picture = Image.open(io.BytesIO(site.get(f"{resource}/thumbnail").body))
    assert (picture.format, max(picture.size)) == ("JPEG", 256)


def test_a_picture_is_made_once_for_a_client_that_keeps_it(site: Site) -> None:
    first = site.get(f"{RCC}/thumbnail")
    again = site.get(f"{RCC}/thumbnail", If_None_Match=first.headers["ETag"])
    other = site.get(f"{RCC}/thumbnail?viewport=64,64", If_None_Match=first.headers["ETag"])
    assert (again.status, again.body, other.status) == (304, b"", 200)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{REPORT}/rendered", 406, "no_picture"),
        (f"{REPORT}/thumbnail", 406, "no_picture"),
        (f"{REPORT}/frames/1", 404, "not_found"),
        (f"{TOMO}/frames/4", 404, "not_found"),
        (f"{TOMO}/frames/0", 400, "invalid_query"),
        (f"{RCC}/rendered?window=1,0", 400, "invalid"),
        (f"{RCC}/rendered?quality=0", 400, "invalid_query"),
        (f"{RCC}/rendered?accept=image/gif", 406, "not_acceptable"),
        (f"{RCC}/metadata?accept=application/dicom%2Bxml", 406, "not_acceptable"),
        (f"{ROOT}/studies/1.2.3.4/metadata", 404, "not_found"),
        (f"{ROOT}/studies/1.2.3.4", 404, "not_found"),
        (f"{ROOT}/studies/not-a-uid/metadata", 400, "invalid_query"),
        (f"{ROOT}/studies/{'1.' * 40}1", 400, "invalid_query"),
        (f"{ROOT}/studies?NoSuchKeyword=1", 400, "invalid_query"),
        (f"{ROOT}/studies?Modality=MG", 400, "invalid_query"),
        (f"{ROOT}/studies?StudyDate=tomorrow", 400, "invalid_query"),
        (f"{ROOT}/studies?limit=-1", 400, "invalid_query"),
        (f"{ROOT}/patients", 404, "not_found"),
    ],
)
def test_what_cannot_be_given_is_refused_with_a_word_and_a_sentence(
    site: Site, path: str, status: int, code: str
) -> None:
    answer = site.get(path)
    assert (answer.status, answer.json()["code"]) == (status, code)
    assert answer.json()["message"].endswith(".")


def test_no_match_is_an_answer_and_not_an_error(site: Site) -> None:
    answer = site.get(f"{ROOT}/studies?PatientID=nobody")
    assert (answer.status, answer.body) == (204, b"")


def test_fuzzy_matching_is_said_not_to_be_done(site: Site) -> None:
    answer = site.get(f"{ROOT}/studies?PatientName=BJORK*&fuzzymatching=true")
    assert len(answer.json()) == 1
    assert "Only literal matching" in answer.headers["Warning"]


def test_metadata_of_a_study_is_one_array(site: Site) -> None:
    answer = site.get(f"{ROOT}/studies/{STUDY}/metadata", accept="application/json")
    assert answer.headers["Content-Type"] == "application/json"
    assert len(json.loads(answer.body)) == 5
