"""The REST for scripts: what each operation answers, its document, and a ZIP archive of any size."""

import hashlib
import io
import json
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pacs import ForwardQueue
from pacs.archive.maintenance_rows import MaintenanceRows
from relay.api import operations
from relay.api.zip_stream import BLOCK_BYTES, zipped
from tests.relay import served
from tests.relay.access.test_middleware import ask, told
from tests.relay.served import NOW, OTHER_STUDY, STUDY, Answer, Site, first_study, item, other_study

ROOT = "/api/v1"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served.site(tmp_path_factory.mktemp("rest"), [*first_study(), other_study()], [item()]) as site:
        yield site


def facts(answer: Answer, status: int = 200) -> dict[str, object]:
    assert answer.status == status
    assert answer.headers["Content-Type"].startswith("application/json")
    content = answer.json()
    assert isinstance(content, dict)
    return content


def test_studies_come_by_pages_the_newest_first(site: Site) -> None:
    first = facts(site.get(f"{ROOT}/studies?limit=1"))
    [study] = first["studies"]  # type: ignore[misc]
    assert study == {
        "study_instance_uid": OTHER_STUDY, "accession_number": "ACC-2", "patient_id": "9990000026",
        "patient_name": "<script>alert(1)</script>^EVE", "patient_birth_date": "19620504", "patient_sex": "F",
        "study_date": "20261121", "study_time": "091500", "study_description": "", "modalities": ["MG"],
        "series_count": 1, "instance_count": 1, "size_bytes": study["size_bytes"],
        "first_received_at": "2026-11-22T09:30:00.000Z", "last_received_at": "2026-11-22T09:30:00.000Z",
    }  # fmt: skip
    second = facts(site.get(f"{ROOT}/studies?limit=1&cursor={first['next']}"))
    assert ([each["study_instance_uid"] for each in second["studies"]], second["next"]) == ([STUDY], "")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("query", "found"),
    [("accession_number=ACC-1", [STUDY]), ("study_date=20261121", [OTHER_STUDY]), ("accession_number=ACC", []),
     ("study_date=20261121&accession_number=ACC-1", [])],
)  # fmt: skip
def test_studies_are_found_by_number_and_date(site: Site, query: str, found: list[str]) -> None:
    studies = facts(site.get(f"{ROOT}/studies?{query}"))["studies"]
    assert [each["study_instance_uid"] for each in studies] == found  # type: ignore[attr-defined]


def test_a_study_its_series_and_instances_are_shown(site: Site) -> None:
    assert facts(site.get(f"{ROOT}/studies/{STUDY}"))["modalities"] == ["MG", "SR"]
    series = facts(site.get(f"{ROOT}/studies/{STUDY}/series"))["series"]
    assert [(each["series_instance_uid"], each["modality"], each["instance_count"]) for each in series] == [  # type: ignore[attr-defined]
        (f"{STUDY}.1", "MG", 3), (f"{STUDY}.2", "MG", 1), (f"{STUDY}.3", "SR", 1),
    ]  # fmt: skip
    page = facts(site.get(f"{ROOT}/studies/{STUDY}/instances?limit=3"))
    rest = facts(site.get(f"{ROOT}/studies/{STUDY}/instances?limit=3&cursor={page['next']}"))
    names = [each["sop_instance_uid"] for each in [*page["instances"], *rest["instances"]]]  # type: ignore[misc]
    assert (names, rest["next"]) == ([f"{STUDY}.1.{n}" for n in (1, 2, 3)] + [f"{STUDY}.2.1", f"{STUDY}.1.9"], "")
    of_series = facts(site.get(f"{ROOT}/studies/{STUDY}/series/{STUDY}.2/instances"))["instances"]
    assert of_series == [facts(site.get(f"{ROOT}/instances/{STUDY}.2.1"))]


def test_a_file_is_what_is_stored_and_a_preview_is_a_jpeg(site: Site) -> None:
    uid = f"{STUDY}.1.2"
    known, answer = facts(site.get(f"{ROOT}/instances/{uid}")), site.get(f"{ROOT}/instances/{uid}/file")
    assert (hashlib.sha256(answer.body).hexdigest(), len(answer.body)) == (known["sha256"], known["size_bytes"])
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{uid}.dcm"'
    preview = site.get(f"{ROOT}/instances/{uid}/preview")
    assert (preview.status, preview.headers["Content-Type"], preview.body[:3]) == (200, "image/jpeg", b"\xff\xd8\xff")
    assert told(site.get(f"{ROOT}/instances/{STUDY}.1.9/preview"))[0] == 406
    head = site.get(f"{ROOT}/instances/{uid}/file", method="HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(answer.body)))


def test_a_study_comes_as_a_zip_archive_that_others_read(site: Site, tmp_path: Path) -> None:
    answer = site.get(f"{ROOT}/studies/{STUDY}/archive")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        kept = {each.sop_instance_uid: each for each in site.archive.locate(STUDY)}
        for name in archive.namelist():
            stored = kept.pop(name.split("/")[1].removesuffix(".dcm"))
            assert archive.read(name) == stored.path.read_bytes()
    assert kept == {}
    (tmp_path / "study.zip").write_bytes(answer.body)
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-tq", str(tmp_path / "study.zip")], check=True, capture_output=True)


def test_an_archive_with_more_entries_than_a_plain_zip_can_count_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"x")
    count = 65_540
    data = b"".join(zipped((str(number), path, 1) for number in range(count)))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert (len(archive.infolist()), archive.read(str(count - 1))) == (count, b"x")


def test_an_entry_that_is_too_large_for_a_plain_zip_says_so_and_blocks_stay_small(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(5 * BLOCK_BYTES)
    pieces = list(zipped([("sparse", path, 2**32)]))
    assert max(map(len, pieces)) < 2 * BLOCK_BYTES
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        [entry] = archive.infolist()
        assert (entry.extract_version, entry.file_size, entry.compress_type) == (
            45,
            5 * BLOCK_BYTES,
            zipfile.ZIP_STORED,
        )
        assert archive.testzip() is None


def test_a_study_or_an_instance_is_owed_to_a_peer(site: Site) -> None:
    path, body = f"{ROOT}/studies/{STUDY}/send", b'{"to": "SITE_PACS"}'
    assert facts(ask(site, path, method="POST", body=body), 202) == {"to": "SITE_PACS", "instances": 5}
    one = ask(site, f"{ROOT}/instances/{OTHER_STUDY}.1.1/send", method="POST", body=b'{"to": "WORKSTATION"}')
    assert facts(one, 202) == {"to": "WORKSTATION", "instances": 1}
    owed = [each.target for each in ForwardQueue(site.archive).owed("open")]
    assert owed == ["WORKSTATION"] + ["SITE_PACS"] * 5
    assert facts(site.get(f"{ROOT}/peers")) == {"peers": [{"ae_title": "SITE_PACS"}, {"ae_title": "WORKSTATION"}]}


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [(b'{"to": "NOBODY"}', 404, "unknown_destination"), (b"", 400, "invalid_query"), (b"[]", 400, "invalid_query"),
     (b'{"to": 7}', 400, "invalid_query"), (b'{"to": "A", "x": 1}', 400, "invalid_query"),
     (b"\xff", 400, "invalid_query"),
     (b"[" * 60_000, 400, "invalid_query")],
)  # fmt: skip
def test_a_body_that_says_nothing_usable_is_refused(site: Site, body: bytes, status: int, code: str) -> None:
    assert told(ask(site, f"{ROOT}/studies/{STUDY}/send", method="POST", body=body)) == (status, code)


def test_the_worklist_of_a_day_is_shown(site: Site) -> None:
    today = f"{NOW.astimezone():%Y%m%d}"
    found = facts(site.get(f"{ROOT}/worklist"))
    [appointment] = found["appointments"]  # type: ignore[misc]
    assert (found["date"], appointment["accession_number"], appointment["state"]) == (today, "ACC-1", "scheduled")
    assert (appointment["patient_name"], appointment["time"]) == ("BJÖRK^ANNA", "091500")
    assert facts(site.get(f"{ROOT}/worklist?date=20200101")) == {"date": "20200101", "appointments": []}


@pytest.mark.parametrize(
    "path",
    ["/studies?limit=0", "/studies?limit=1001", "/studies?limit=-1", "/studies?limit=1&limit=2", "/studies?cursor=x",
     "/studies?cursor=9999999999999999999", "/studies?PatientName=X", "/changes?since=-1", "/worklist?date=2026-11-22",
     "/studies/1.2.x", "/studies/..", "/studies?limit=%D9%A1", "/instances/1.2.3%0A", "/studies?accession_number="],
)  # fmt: skip
def test_what_is_not_understood_is_refused_in_words(site: Site, path: str) -> None:
    status, code = told(site.get(ROOT + path))
    assert (status, code) in {(400, "invalid_query"), (404, "not_found")}


@pytest.mark.parametrize("path", ["", "/series", "/instances", "/archive"])
def test_a_study_that_is_not_here_is_not_found(site: Site, path: str) -> None:
    assert told(site.get(f"{ROOT}/studies/2.25.9{path}")) == (404, "not_found")


def test_a_file_that_is_gone_is_said_before_an_archive_begins(tmp_path: Path) -> None:
    with served.site(tmp_path, first_study()) as site:
        site.archive.instance(f"{STUDY}.1.2").path.unlink()
        assert told(site.get(f"{ROOT}/studies/{STUDY}/archive")) == (404, "not_found")


def test_changes_are_numbered_for_good(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    with served.site(tmp_path, [*first_study(), other_study()]) as site:
        first = facts(site.get(f"{ROOT}/changes?limit=4"))
        rest = facts(site.get(f"{ROOT}/changes?since={first['last']}"))
        assert [each["number"] for each in [*first["changes"], *rest["changes"]]] == [1, 2, 3, 4, 5, 6]  # type: ignore[misc]
        assert (first["more"], rest["more"], rest["last"]) == (True, False, 6)
        with site.archive.write() as conn:
            MaintenanceRows(site.archive).take_out(conn, f"{OTHER_STUDY}.1.1")
        last = facts(site.get(f"{ROOT}/changes?since=6"))["changes"]
        assert [{**each, "at": each["at"][:4]} for each in last] == [  # type: ignore[attr-defined]
            {
                "number": 7, "kind": "removed", "at": f"{now:%Y}", "study_instance_uid": OTHER_STUDY,
                "series_instance_uid": f"{OTHER_STUDY}.1", "sop_instance_uid": f"{OTHER_STUDY}.1.1",
            }
        ]  # fmt: skip
        numbers = [each["number"] for each in facts(site.get(f"{ROOT}/changes"))["changes"]]  # type: ignore[attr-defined]
        assert numbers == [1, 2, 3, 4, 5, 7]
        served.receive(site.archive, other_study(), tmp_path)
        again = facts(site.get(f"{ROOT}/changes?since=7"))["changes"]
        assert [(each["number"], each["kind"], each["sop_instance_uid"]) for each in again] == [  # type: ignore[attr-defined]
            (8, "stored", f"{OTHER_STUDY}.1.1")
        ]


def test_a_study_that_retention_lets_go_is_told_whole(tmp_path: Path) -> None:
    with served.site(tmp_path, first_study()) as site:
        with site.archive.write() as conn:
            MaintenanceRows(site.archive).order_removal(conn, 1, now=NOW)
        changes = facts(site.get(f"{ROOT}/changes"))["changes"]
    assert {(each["kind"], each["study_instance_uid"]) for each in changes} == {("removed", STUDY)}  # type: ignore[attr-defined]
    assert len(changes) == 5  # type: ignore[arg-type]


def test_the_document_names_every_route_and_answers_as_it_stands(site: Site) -> None:
    document = facts(site.get(f"{ROOT}/openapi.json"))
    assert document == json.loads(json.dumps(operations.document(document["info"]["version"])))  # type: ignore[index]
    described = {(m.upper(), ROOT + path) for path, methods in document["paths"].items() for m in methods}  # type: ignore[attr-defined]
    assert described == {(m, path) for m, path in site.routes if path.startswith(ROOT) and m != "HEAD"}
