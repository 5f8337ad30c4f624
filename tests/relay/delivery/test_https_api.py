"""What an event told over HTTPS becomes: delivered, tried again, or never; and that the image arrives as it is kept.

With RELAY_TEST_API_URL and RELAY_TEST_API_TOKEN in the environment, the real API is asked whether it is there.
"""

import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from aiohttp import web
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from gateway.errors import CloudError, NotFound
from relay.delivery.https_api import HttpsDestination, ManageDestination, api_url, fixed_token, judge, weight_of_upload
from relay.delivery.quota import IMAGES
from simulator.cloud.programme import API_TOKEN, Cloud
from tests.relay.delivery.told import UID, event, outcome


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, "delivered"), (201, "delivered"), (204, "delivered")]
    + [(status, "parked") for status in (400, 409, 413, 422)]
    + [(status, "tried again") for status in (301, 307, 401, 403, 404, 408, 410, 429, 500, 502, 503, 504)],
)
def test_each_http_status_has_its_outcome(status: int, expected: str) -> None:
    async def run() -> None:
        async with answering(lambda _request: web.Response(status=status, headers={"Location": "/"})) as base:
            destination = HttpsDestination(base, fixed_token("t"))
            assert await outcome(destination) == expected
            await destination.close()

    asyncio.run(run())


@asynccontextmanager
async def answering(handler: Callable[[web.Request], web.StreamResponse]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return handler(request)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_an_api_that_is_not_there_is_tried_again() -> None:
    async def run() -> None:
        async with answering(lambda _request: web.Response()) as base:
            pass
        destination = HttpsDestination(base, fixed_token("t"))
        assert await outcome(destination) == "tried again"
        await destination.close()

    asyncio.run(run())


def test_the_api_gets_the_envelope_and_recognises_a_repeat() -> None:
    async def run() -> None:
        async with Cloud() as cloud:
            destination = HttpsDestination(f"{cloud.addresses.control}/api/v1", fixed_token(API_TOKEN))
            cloud.events.mishaps = ["busy", "lost"]
            outcomes = [await outcome(destination) for _ in range(3)]
            assert outcomes == ["tried again", "tried again", "delivered"]
            assert [event["told"] for event in cloud.events.listed("study.image_received")] == [2]
            assert cloud.events.received[UID].envelope == json.loads(event().text)
            await destination.close()

    asyncio.run(run())


def test_a_wrong_bearer_token_is_tried_again() -> None:
    async def run() -> None:
        async with Cloud() as cloud:
            destination = HttpsDestination(f"{cloud.addresses.control}/api/v1", fixed_token("wrong"))
            assert await outcome(destination) == "tried again"
            await destination.close()

    asyncio.run(run())


@pytest.mark.parametrize("url", ["https://x.example/api/v1/", "http://127.0.0.1:1/api/v1", "http://localhost/a"])
def test_an_api_is_encrypted_or_on_this_machine(url: str) -> None:
    assert api_url(f" {url} ") == url.rstrip("/")


@pytest.mark.parametrize("url", ["", "x.example", "ftp://x.example", "http://x.example/api", "https://"])
def test_any_other_address_of_an_api_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"API|encrypted"):
        api_url(url)


def test_no_refusal_of_the_api_quotes_what_it_said() -> None:
    with pytest.raises(CloudError, match=r"^The cloud's API refused the content with HTTP 422\.$"):
        judge(422)


@pytest.mark.parametrize(("status", "doubtful"), [(404, True), (410, True), (500, True), (401, False), (503, False)])
def test_an_answer_that_may_be_about_the_content_is_doubtful(status: int, doubtful: bool) -> None:
    with pytest.raises(CloudError) as caught:
        judge(status)
    assert (caught.value.permanent, caught.value.doubtful) == (False, doubtful)


def nothing(sop_instance_uid: str, _sha256: str) -> BinaryIO:
    raise NotFound(f"There is no image {sop_instance_uid}.")


REAL = (os.environ.get("RELAY_TEST_API_URL", ""), os.environ.get("RELAY_TEST_API_TOKEN", ""))


@pytest.mark.skipif(not all(REAL), reason="RELAY_TEST_API_URL and RELAY_TEST_API_TOKEN are not set")
async def test_the_real_api_of_the_programme_answers_that_it_is_there() -> None:
    destination = ManageDestination(REAL[0], fixed_token(REAL[1]), opened=nothing)
    assert await outcome(destination, event("mpps.completed")) == "delivered"
    await destination.close()


# --- the programme's image API ----------------------------------------------------------------------------------------


@asynccontextmanager
async def manage(cloud: Cloud, file: Path | None, *, rate: int | None = None) -> AsyncIterator[ManageDestination]:
    def opened(sop_instance_uid: str, _sha256: str) -> BinaryIO:
        return file.open("rb") if file else nothing(sop_instance_uid, "")

    cloud.actions["action-1"] = {}
    base = f"{cloud.addresses.control}/api/v1"
    destination = ManageDestination(base, fixed_token(API_TOKEN), opened=opened, rate=lambda: rate)
    try:
        yield destination
    finally:
        await destination.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A Part 10 file of two megabytes with three UIDs and something to send."""
    return part_10_file(tmp_path / "image.dcm", size=2_000_000)


def part_10_file(path: Path, *, size: int) -> Path:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = UID, "1.2.3", "1.2.4"
    ds.add_new("PixelData", "OW", bytes(size))
    ds.save_as(path, enforce_file_format=True)
    return path


def test_an_image_is_put_under_its_action_bit_by_bit(image: Path) -> None:
    async def run() -> None:
        async with Cloud() as cloud, manage(cloud, image) as destination:
            assert [await outcome(destination) for _ in range(2)] == ["delivered", "delivered"]
            [received] = cloud.images.received.values()
            assert (received.action_id, received.sop_instance_uid) == ("action-1", UID)
            assert received.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()

    asyncio.run(run())


def test_an_image_travels_at_the_rate_that_is_allowed(image: Path) -> None:
    async def run() -> None:
        async with Cloud() as cloud, manage(cloud, image, rate=4_000_000) as destination:
            began = time.monotonic()
            assert await outcome(destination) == "delivered"
            assert time.monotonic() - began > 0.45

    asyncio.run(run())


def test_an_image_counts_as_one_and_an_event_by_its_message() -> None:
    sized = event().envelope.model_copy(update={"parameters": {"image": {"sop_instance_uid": UID, "size_bytes": 17}}})
    assert weight_of_upload(replace(event(), envelope=sized)) == {IMAGES: 17}
    assert weight_of_upload(event("mpps.completed")) == {2: len(event("mpps.completed").text)}


def test_a_file_that_is_not_dicom_is_parked(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")

    async def run() -> None:
        async with Cloud() as cloud, manage(cloud, tmp_path / "text") as destination:
            assert await outcome(destination) == "parked"
            assert list(cloud.images._folder.iterdir()) == []

    asyncio.run(run())


def test_a_file_too_large_for_the_api_is_parked_without_sending_it(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(100 * 1024 * 1024 + 1)

    async def run() -> None:
        async with Cloud() as cloud, manage(cloud, tmp_path / "large") as destination:
            assert await outcome(destination) == "parked"

    asyncio.run(run())


def test_an_image_of_no_action_or_no_longer_there_is_parked(image: Path) -> None:
    async def run() -> None:
        async with Cloud() as cloud:
            async with manage(cloud, image) as destination:
                assert await outcome(destination, event(action_id=None)) == "parked"
            async with manage(cloud, None) as destination:
                assert await outcome(destination) == "parked"
            async with manage(cloud, image.with_name("gone")) as destination:
                assert await outcome(destination) == "parked"

    asyncio.run(run())


def test_an_action_that_the_api_does_not_know_yet_is_tried_again(image: Path) -> None:
    async def run() -> None:
        async with Cloud() as cloud, manage(cloud, image) as destination:
            assert await outcome(destination, event(action_id="another")) == "tried again"

    asyncio.run(run())


def test_a_rejected_image_is_recorded_as_the_failure_of_its_action() -> None:
    async def run() -> None:
        async with Cloud() as cloud, manage(cloud, None) as destination:
            assert await outcome(destination, event("image.rejected")) == "delivered"
            assert cloud.images.failures == {"action-1": "Laterality is missing."}

    asyncio.run(run())


def test_an_event_that_the_api_has_no_call_for_is_done_with_once_the_api_answers() -> None:
    async def run() -> None:
        async with Cloud() as cloud, manage(cloud, None) as destination:
            assert await outcome(destination, event("mpps.completed")) == "delivered"
        async with answering(lambda _request: web.Response(status=503)) as base:
            destination = ManageDestination(base, fixed_token("t"), opened=nothing)
            assert await outcome(destination, event("mpps.completed")) == "tried again"
            await destination.close()

    asyncio.run(run())
