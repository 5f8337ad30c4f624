"""The HTTP server: health, headers, and errors as answers."""

from collections.abc import Iterator

import pytest

from gateway.messages import Check
from tests.relay import served
from tests.relay.served import Site


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with served.site(tmp_path_factory.mktemp("site")) as running:
        yield running


def test_health_is_200_with_the_facts_while_every_hop_is_proven(site: Site) -> None:
    answer = site.get("/healthz")
    assert (answer.status, answer.json()) == (200, site.report.model_dump(mode="json"))


def test_health_is_503_with_the_same_facts_when_a_hop_is_not(site: Site) -> None:
    broken = {"cloud": Check(ok=False, detail="No round trip for more than 180 seconds.")}
    site.report = site.report.model_copy(update={"healthy": False, "checks": broken})
    answer = site.get("/healthz")
    assert (answer.status, answer.json()["checks"]["cloud"]["ok"]) == (503, False)


@pytest.mark.parametrize("path", ["/", "/healthz", "/assets/app.css", "/nothing", "/dicom-web/studies", "/dicom-web/x"])
def test_every_answer_forbids_foreign_scripts_frames_and_guessing(site: Site, path: str) -> None:
    headers = site.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "script-src 'self'; connect-src 'self';" in policy
    assert "unsafe" not in policy
    assert (headers["X-Content-Type-Options"], headers["X-Frame-Options"]) == ("nosniff", "DENY")
    assert headers["Server"] == "screening-gateway"


def test_an_unknown_resource_is_json_for_programs_and_a_page_for_people(site: Site) -> None:
    program, person = site.get("/nothing"), site.get("/nothing", accept="text/html")
    assert program.json() == {"code": "not_found", "message": "There is no such resource."}
    assert (person.status, person.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert "There is no such resource." in person.body.decode()


def test_nothing_can_be_uploaded_where_that_is_not_offered(site: Site) -> None:
    answer = site.get("/dicom-web/studies", method="POST")
    assert (answer.status, answer.json()["code"]) == (403, "not_offered")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_nothing_can_be_changed(site: Site, method: str) -> None:
    answer = site.get("/dicom-web/studies", method=method)
    assert (answer.status, answer.json()["code"]) == (405, "method_not_allowed")
    assert answer.headers["Allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    "path", ["/assets/../web.py", "/assets/%2e%2e/web.py", "/assets/%2fetc%2fpasswd", "/assets/base.html"]
)
def test_only_the_assets_themselves_are_files(site: Site, path: str) -> None:
    assert site.get(path).status == 404


def test_an_internal_failure_says_so_and_nothing_else(site: Site) -> None:
    with site.archive.write() as conn:
        conn.execute("ALTER TABLE study RENAME TO elsewhere")
    answer = site.get("/dicom-web/studies?PatientName=*")
    assert answer.status == 500
    assert answer.json() == {"code": "internal", "message": "The gateway failed to answer this; its log says why."}


def test_a_database_that_is_away_is_unavailable_and_not_empty(site: Site) -> None:
    site.archive.database_path.rename(site.archive.database_path.with_suffix(".away"))
    site.archive.close()
    answer = site.get("/dicom-web/studies?PatientName=SMITH")
    assert answer.status == 503
    assert answer.json() == {
        "code": "out_of_resources",
        "message": "The database pacs.db cannot be used now: unable to open database file.",
    }
