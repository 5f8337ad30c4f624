"""STOW-RS: dicomweb-client and hand-made requests against the real server and the real archive behind it."""

import io
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread, dcmwrite
from requests import HTTPError

from gateway.dicom.listener import Listener
from gateway.disk_space import Watermarks
from gateway.remote_ae import Peer
from pacs import Archive
from pacs.commitment.reporter import Reporter
from pacs.scp import application
from relay.dicomweb.routes import Changes
from relay.dicomweb.stow_store import StowStore
from simulator.site import free_port
from tests.relay import served
from tests.relay.served import STUDY, Answer, Site

ROOT = "/dicom-web/studies"
SERIES = f"{STUDY}/series/{STUDY}.1/instances"
TYPE = 'multipart/related; type="application/dicom"; boundary=limit'
MG = "1.2.840.10008.5.1.4.1.1.1.2"
LARGEST = 100_000


@contextmanager
def uploading(folder: Path, *, is_served: bool = True, largest: int = LARGEST) -> Iterator[Site]:
    """A site whose relay hands uploads to the archive, which is served or not."""
    port = free_port()
    stow_store = StowStore(Peer("SCREENING_PACS", "127.0.0.1", port), "GATEWAY_UPLOAD")
    with served.site(folder, changes=Changes(stow_store, largest)) as site:
        if not is_served:
            yield site
            return
        service = application(site.archive, Reporter(site.archive, ()), ae_title="SCREENING_PACS")
        with Listener(service, host="127.0.0.1", port=port):
            yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with uploading(tmp_path_factory.mktemp("site")) as running:
        yield running


def part10(ds: Dataset) -> bytes:
    written = io.BytesIO()
    dcmwrite(written, ds, enforce_file_format=True)
    return written.getvalue()


def read(ds: Dataset) -> Dataset:
    """The same as a client has it that read a file; dicomweb-client sends no preamble otherwise."""
    return dcmread(io.BytesIO(part10(ds)))


def body(*objects: bytes, kind: str = "application/dicom") -> bytes:
    parts = [f"--limit\r\nContent-Type: {kind}\r\n\r\n".encode() + each + b"\r\n" for each in objects]
    return b"".join(parts) + b"--limit--\r\n"


def posted(site: Site, content: bytes, *, path: str = ROOT, media_type: str = TYPE, accept: str = "") -> Answer:
    return site.get(path, method="POST", body=content, accept=accept, Content_Type=media_type)


def view(number: int, **attributes: object) -> Dataset:
    return served.mammogram("RCC", number, **attributes)


def test_dicomweb_client_stores_what_it_can_then_retrieve(site: Site) -> None:
    client = DICOMwebClient(url=site.url + "/dicom-web")
    answer = client.store_instances([read(view(21)), read(view(22))])
    assert answer.RetrieveURL == f"{site.url}{ROOT}/{STUDY}"
    assert [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID, item.RetrieveURL)
        for item in answer.ReferencedSOPSequence
    ] == [(MG, f"{STUDY}.1.{n}", f"{site.url}{ROOT}/{SERIES}/{STUDY}.1.{n}") for n in (21, 22)]
    assert "FailedSOPSequence" not in answer
    assert client.retrieve_instance(STUDY, f"{STUDY}.1", f"{STUDY}.1.22").InstanceNumber == 22


def test_it_comes_in_like_an_image_of_a_modality(site: Site) -> None:
    content = part10(view(31))
    assert posted(site, body(content)).status == 200
    stored = site.archive.instance(f"{STUDY}.1.31")
    assert stored.calling_ae_title == "GATEWAY_UPLOAD"
    kept = stored.path.read_bytes()[stored.data_set_offset :]
    assert content.endswith(kept)
    assert stored.sop_instance_uid in [entry.message_id for entry in site.archive.outbox.entries("open")]
    assert list((site.folder / "spool").iterdir()) == []


def test_one_object_may_come_by_itself(site: Site) -> None:
    assert posted(site, part10(view(32)), media_type="application/dicom").status == 200


def test_the_same_object_twice_is_one(site: Site) -> None:
    content = body(part10(view(33)), part10(view(33)))
    assert (posted(site, content).status, posted(site, content).status) == (200, 200)


def test_each_object_has_its_own_result(site: Site) -> None:
    other = part10(view(42, PatientComments="another object under a UID that is taken"))
    content = body(part10(view(41)), b"garbage", part10(view(42)), other)
    answer = posted(site, content)
    assert answer.status == 202
    result = answer.json()
    assert isinstance(result, dict)
    stored, failed = result["00081199"]["Value"], result["00081198"]["Value"]
    assert [item["00081155"]["Value"] for item in stored] == [[f"{STUDY}.1.41"], [f"{STUDY}.1.42"]]
    assert [(item["00081155"]["Value"], item["00081197"]["Value"]) for item in failed] == [
        ([f"{STUDY}.1.42"], [0xC111])
    ]
    assert result["0008119A"]["Value"] == [{"00081197": {"vr": "US", "Value": [0xC000]}}]


def test_objects_of_another_study_than_the_address_fail(site: Site) -> None:
    answer = posted(site, body(part10(view(51))), path=f"{ROOT}/2.25.999")
    assert answer.status == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]  # type: ignore[index]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [({"SOPClassUID": "1.2.3.4"}, 0x0122), ({"SeriesInstanceUID": None}, 0xC000)],
)
def test_what_the_archive_refuses_has_its_reason(site: Site, attributes: dict[str, object], reason: int) -> None:
    answer = posted(site, body(part10(view(52, **attributes))))
    assert answer.status == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [reason]  # type: ignore[index]


@pytest.mark.parametrize(
    ("content", "media_type", "accept", "expected"),
    [
        (b"", TYPE, "", (400, "malformed_body")),
        (b"no boundary in it", TYPE, "", (400, "malformed_body")),
        (b"--limit--\r\n", TYPE, "", (400, "malformed_body")),
        (body(b"x")[:-8], TYPE, "", (400, "malformed_body")),
        (body(b"x"), "multipart/related", "", (400, "malformed_body")),
        (body(b"{}", kind="application/dicom+json"), TYPE, "", (415, "unsupported_media_type")),
        (
            body(b"x"),
            'multipart/related; type="application/dicom+json"; boundary=limit',
            "",
            (415, "unsupported_media_type"),
        ),
        (b"x", "application/zip", "", (415, "unsupported_media_type")),
        (body(b"x"), TYPE, "application/dicom+xml", (406, "not_acceptable")),
        (body(b"x" * LARGEST), TYPE, "", (413, "too_large")),
    ],
)
def test_a_bad_request_has_its_status_and_a_sentence(
    site: Site, content: bytes, media_type: str, accept: str, expected: tuple[int, str]
) -> None:
    answer = posted(site, content, media_type=media_type, accept=accept)
    said = answer.json()
    assert isinstance(said, dict)
    assert (answer.status, said["code"]) == expected
    assert said["message"].endswith(".")


def test_a_body_without_a_length_is_bounded_as_well(site: Site) -> None:
    answer = site.get(ROOT, method="POST", body=iter([body(b"x" * LARGEST + b"x")]), Content_Type=TYPE)  # type: ignore[arg-type]
    assert (answer.status, json.loads(answer.body)["code"]) == (413, "too_large")


def test_an_archive_that_is_away_is_a_503(tmp_path: Path) -> None:
    with uploading(tmp_path, is_served=False) as site:
        answer = posted(site, body(part10(view(1))))
    assert (answer.status, answer.json()["code"]) == (503, "out_of_resources")  # type: ignore[index]
    assert "cannot be reached" in answer.json()["message"]  # type: ignore[index]


def test_no_room_is_a_507_and_what_is_stored_stays(tmp_path: Path) -> None:
    with uploading(tmp_path) as site:
        site.archive.watermarks = Watermarks(0.001, 0.002)
        with pytest.raises(HTTPError) as refused:
            DICOMwebClient(url=site.url + "/dicom-web").store_instances([read(view(1))])
    assert refused.value.response.status_code == 507
    assert refused.value.response.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]


def test_what_a_killed_relay_left_is_gone_at_the_next_start(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "left.part").write_bytes(b"half an object")
    with uploading(tmp_path, is_served=False):
        assert list((tmp_path / "spool").iterdir()) == []
    with closing(Archive.attach(tmp_path / "pacs.db", tmp_path / "instances")) as archive:
        assert archive.statistics()["instances"] == 0
