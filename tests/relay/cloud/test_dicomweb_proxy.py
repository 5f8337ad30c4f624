"""The cloud reads DICOMweb through the hybrid connection and gets what the site's own server gives, bit by bit."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from relay.access.users import CLOUD
from relay.cloud.dicomweb_proxy import DicomWebProxy, local_target, own_url, public_url
from relay.cloud.throttle import Bucket
from relay.exams.holding import HoldRules
from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.protocol import endpoint
from tests.relay import served
from tests.relay.access.test_middleware import ask, basic, door_in
from tests.relay.hybrid import hybrid_site
from tests.relay.served import STUDY, first_study, mammogram
from tests.tools import corpus
from tests.tools.memory import forget_peak, peak_memory

PUBLIC = "https://site.servicebus.windows.net/actions"
INSTANCE = f"/dicom-web/studies/{STUDY}/series/{STUDY}.1/instances/{STUDY}.1.1"


def asked(target: str, method: str = "GET", **headers: str) -> HttpRequest:
    return HttpRequest(method, target, headers)


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("/actions/dicom-web/studies?limit=1", "/dicom-web/studies?limit=1"),
        ("/dicom-web/studies", "/dicom-web/studies"),
        ("/actions/", None),
        ("/actions/healthz", None),
        ("/actions/dicom-webbing", None),
        ("/actions/dicom-web/../healthz", None),
        ("/actions/dicom-web/%2e%2e/healthz", None),
        ("/actions/dicom-web/..%2fhealthz", None),
        ("/actions/dicom-web/..\\healthz", None),
        ("//elsewhere.example/dicom-web/studies", "/dicom-web/studies"),
        ("http://elsewhere.example/dicom-web/studies", "/dicom-web/studies"),
    ],
)
def test_nothing_but_dicomweb_is_let_through(target: str, local: str | None) -> None:
    assert local_target(target, "/actions") == local


def test_addresses_are_those_that_each_side_can_reach() -> None:
    assert [own_url(host, 8042) for host in ("0.0.0.0", "10.1.2.3", "::", "fd00::1")] == [
        "http://127.0.0.1:8042",
        "http://10.1.2.3:8042",
        "http://[::1]:8042",
        "http://[fd00::1]:8042",
    ]
    assert public_url(endpoint("site.servicebus.windows.net", "van-7")) == "https://site.servicebus.windows.net/van-7"


async def whole(answer: HttpAnswer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    return b"".join([piece async for piece in answer.body])


def remote(site: served.Site, rate: int = 0, *, authorization: str = "") -> DicomWebProxy:
    return DicomWebProxy(
        site.url, connection="actions", public=PUBLIC, bucket=Bucket(rate), authorization=authorization
    )


def metadata_uri(body: bytes) -> str:
    return str(json.loads(body)[0]["7FE00010"]["BulkDataURI"])


def test_a_study_that_the_cloud_retrieves_is_bit_identical(tmp_path: Path) -> None:
    """All the way: the cloud's HTTP client, the stand-in of the service, the listener, the site's server."""

    async def run(site: served.Site) -> None:
        web = remote(site)

        async with hybrid_site.site(on_request=web) as here, aiohttp.ClientSession() as cloud:
            base = here.service.namespace.base.replace("ws://", "http://") + "/actions"
            tokens = await hybrid_site.TOKENS.token(here.listener._at.audience)
            headers = {"ServiceBusAuthorization": tokens.text}
            async with cloud.get(f"{base}/dicom-web/studies/{STUDY}/instances", headers=headers) as found:
                assert (found.status, len(await found.json(content_type=None))) == (200, 5)
            accept = {**headers, "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
            async with cloud.get(f"{base}/dicom-web/studies/{STUDY}", headers=accept) as given:
                body = await given.read()
            assert given.status == 200
            for stored in site.archive.locate(STUDY):
                assert stored.path.read_bytes() in body
        await web.close()

    with served.site(tmp_path, first_study()) as site:
        asyncio.run(run(site))


def test_addresses_in_metadata_are_those_that_the_cloud_can_reach(tmp_path: Path) -> None:
    async def run(site: served.Site) -> None:
        assert site.access is not None
        web = remote(site, authorization=site.access.own.authorization(CLOUD))
        answer = await web(asked(f"/actions{INSTANCE}/metadata", accept="application/dicom+json"))
        assert metadata_uri(await whole(answer)).startswith(f"{PUBLIC}{INSTANCE}/bulkdata/")
        await web.close()

    with served.site(tmp_path, [mammogram("RCC", 1)], access=door_in(tmp_path)) as site:
        asyncio.run(run(site))


def test_an_image_that_is_held_back_can_be_looked_up_as_on_site(tmp_path: Path) -> None:
    """OPERATIONS ("An image that is held back") and docs/messages say so."""

    async def run(site: served.Site) -> None:
        web = remote(site)
        answer = await web(asked(f"/actions{INSTANCE}/metadata", accept="application/dicom+json"))
        assert (answer.status, len(json.loads(await whole(answer)))) == (200, 1)
        await web.close()

    with served.site(tmp_path, [mammogram("RCC", 1, PatientID="9990000026")]) as site:
        site.worklist.schedule(served.item(), action_id="1", content_hash="1", now=served.NOW)
        held = HoldRules(site.archive, site.worklist)
        assert held.hold([site.archive.data_set(f"{STUDY}.1.1")], now=served.NOW) == [f"{STUDY}.1.1"]
        asyncio.run(run(site))


def test_nobody_else_says_where_answers_shall_send_the_client(tmp_path: Path) -> None:
    for folder, access in ((tmp_path / "open", None), (tmp_path / "guarded", door_in(tmp_path))):
        folder.mkdir()
        with served.site(folder, [mammogram("RCC", 1)], access=access) as site:
            lies = {"X_Forwarded_Root": "https://evil.example", **basic("vera")}
            answer = ask(site, f"{INSTANCE}/metadata", Accept="application/dicom+json", **lies)
            assert metadata_uri(answer.body).startswith(f"{site.url}{INSTANCE}/bulkdata/")


def test_the_cloud_may_read_and_nothing_else(tmp_path: Path) -> None:
    async def run(site: served.Site) -> None:
        web = remote(site)
        answers = [
            await web(asked(f"/actions{INSTANCE}", "DELETE")),
            await web(asked("/actions/healthz")),
            await web(asked("/actions/dicom-web/studies/1.2.3")),
        ]
        assert [answer.status for answer in answers] == [405, 404, 404]
        assert "code" in json.loads(await whole(answers[2]))
        await web.close()

    with served.site(tmp_path) as site:
        asyncio.run(run(site))


async def test_a_server_that_is_away_is_said_to_be() -> None:
    web = DicomWebProxy("http://127.0.0.1:1", connection="actions", public=PUBLIC, bucket=Bucket(0))
    assert (await web(asked("/actions/dicom-web/studies"))).status == 503
    await web.close()


def test_two_hundred_megabytes_pass_in_bounded_memory(tmp_path: Path) -> None:
    async def run(site: served.Site) -> tuple[str, int]:
        web, digest = remote(site), hashlib.sha256()
        path = site.archive.instance(f"{STUDY}.1.1").path
        with path.open("r+b") as file:  # what lies there is sent; that it is no image any more matters to nobody here
            file.truncate(200_000_000)
        size = 0
        forget_peak()
        before = peak_memory()
        answer = await web(asked(f"/actions{INSTANCE}", Accept="application/dicom; transfer-syntax=*"))
        assert not isinstance(answer.body, bytes)
        async for piece in _pieces(answer.body):
            size += len(piece)
            digest.update(piece)
        await web.close()
        assert peak_memory() - before < 30_000  # kB
        return digest.hexdigest(), size

    with served.site(tmp_path, [mammogram("RCC", 1)]) as site:
        path = site.archive.instance(f"{STUDY}.1.1").path
        path.chmod(0o640)
        with site.archive.write() as conn:
            conn.execute("UPDATE instance SET size_bytes = 200000000")
        digest, size = asyncio.run(run(site))
        with path.open("rb") as file:
            assert (size, digest) == (200_000_000, hashlib.file_digest(file, "sha256").hexdigest())


async def _pieces(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in body:
        yield piece


def test_pieces_leave_at_the_allowed_rate(tmp_path: Path) -> None:
    async def run(site: served.Site) -> float:
        web = remote(site, rate=1_000_000)
        began = asyncio.get_running_loop().time()
        answer = await web(asked(f"/actions{INSTANCE}", Accept="application/dicom; transfer-syntax=*"))
        assert len(await whole(answer)) > 1_300_000
        await web.close()
        return asyncio.get_running_loop().time() - began

    large = mammogram("RCC", 1)
    corpus.set_frames(large, [corpus.GREY], large.file_meta.TransferSyntaxUID)
    large.Rows, large.Columns, large.PixelData = 800, 860, bytes(800 * 860 * 2)
    with served.site(tmp_path, [large]) as site:
        assert asyncio.run(run(site)) > 0.3
