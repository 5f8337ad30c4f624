"""What the link and the uploads promise, at the stand-ins and, with credentials in the environment, at Azure itself.

AZURE_RELAY_TEST_NAMESPACE, AZURE_RELAY_TEST_HYBRID_CONNECTION, AZURE_RELAY_TEST_KEY_NAME and AZURE_RELAY_TEST_KEY
(Listen and Send); AZURE_STORAGE_TEST_CONTAINER_URL (with a SAS that may read, create and write). OPERATIONS says how;
Service Bus is in `test_servicebus`, the programme's API in `test_https_api`.
"""

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from relay.cloud.blob_upload import BLOCK_BYTES, BlobUpload, beneath
from relay.cloud.throttle import Throttle
from relay.hybrid.exchange import LinkLimits
from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import Endpoint, endpoint
from relay.hybrid.sender import HybridSender, SelfEcho
from relay.hybrid.tokens import SasTokens
from simulator.azure.blob_storage import Blobs
from tests.relay.hybrid.hybrid_site import echo, namespace, running
from tests.tools.waiting import until

_RELAY = ("NAMESPACE", "HYBRID_CONNECTION", "KEY_NAME", "KEY")
RELAY = tuple(os.environ.get(f"AZURE_RELAY_TEST_{name}", "") for name in _RELAY)
CONTAINER = os.environ.get("AZURE_STORAGE_TEST_CONTAINER_URL", "")

real_relay = pytest.param("real", marks=pytest.mark.skipif(not all(RELAY), reason="AZURE_RELAY_TEST_* is not set"))
real_storage = pytest.param(
    "real", marks=pytest.mark.skipif(not CONTAINER, reason="AZURE_STORAGE_TEST_CONTAINER_URL is not set")
)
at_relays = pytest.mark.parametrize("where", ["stand-in", real_relay])
LIMITS = replace(LinkLimits(), listeners=2)


@dataclass(frozen=True)
class Place:
    """A hybrid connection and who may use it."""

    at: Endpoint
    key_name: str
    key: str

    def sender(self) -> HybridSender:
        return HybridSender(self.at, SasTokens(self.key_name, self.key), timeout=20)


@asynccontextmanager
async def place(where: str) -> AsyncIterator[Place]:
    if where == "real":
        yield Place(endpoint(RELAY[0], RELAY[1]), RELAY[2], RELAY[3])
        return
    async with namespace() as service:
        yield Place(endpoint(service.namespace.base, "actions"), "site", "the key")


async def mirror(request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(200, body=await request.content())


@asynccontextmanager
async def listening(there: Place, *, key: str | None = None) -> AsyncIterator[HybridListener]:
    prove = SelfEcho(there.sender())
    tokens = SasTokens(there.key_name, key or there.key)
    listener = HybridListener(there.at, tokens, on_message=echo, on_request=mirror, prove=prove, limits=LIMITS)
    async with running(listener):
        yield listener
    await prove.close()


@at_relays
async def test_the_link_is_let_in_proves_itself_and_answers_messages(where: str) -> None:
    async with place(where) as there, listening(there) as listener:
        await until(lambda: listener.state.last_proven is not None, seconds=60)
        sender = there.sender()
        said = [await sender.exchange(text) for text in ('{"n": 1}', f'"{"é" * 50_000}"')]
        await sender.close()
        assert [len(text) for text in said] == [
            len('{"status": "echo", "payload": {"n": 1}}'),
            len(await echo(f'"{"é" * 50_000}"')),
        ]


@at_relays
@pytest.mark.parametrize("size", [0, 1_000, 300_000, 5_000_000])
async def test_an_http_request_of_any_size_comes_back(where: str, size: int) -> None:
    async with place(where) as there, listening(there) as listener:
        await until(lambda: listener.state.last_proven is not None, seconds=60)
        token = await SasTokens(there.key_name, there.key).token(there.at.audience)
        url = f"http{there.at.base.removeprefix('ws')}/{there.at.path}/x"
        headers, body = {"ServiceBusAuthorization": token.text}, os.urandom(size)
        async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as answer:
            assert (answer.status, await answer.read() == body) == (200, True)


@at_relays
async def test_a_wrong_key_is_called_so(where: str) -> None:
    async with place(where) as there, listening(there, key="d3Jvbmc=") as listener:
        await until(lambda: listener.state.last_error_code != "", seconds=30)
        assert (listener.state.last_error_code, listener.state.connected_since) == ("token_refused", None)


@pytest.mark.parametrize("where", ["stand-in", real_storage])
async def test_an_upload_that_was_cut_off_goes_on_and_arrives_whole(where: str, tmp_path: Path) -> None:
    (tmp_path / "image.dcm").write_bytes(os.urandom(3 * BLOCK_BYTES + 1_000))
    async with container(where, tmp_path) as url:
        blob = beneath(url, f"{uuid.uuid4()}.dcm")
        with (tmp_path / "image.dcm").open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            first = BlobUpload(blob, content, sha256, throttle=throttle(BLOCK_BYTES))
            cut = asyncio.create_task(first.run())
            await until(lambda: first.sent_blocks >= 1, seconds=60)
            cut.cancel()
            await asyncio.gather(cut, return_exceptions=True)
            again = BlobUpload(blob, content, sha256, throttle=throttle(0))
            await again.run()
        assert first.sent_blocks + again.sent_blocks == 4
        async with aiohttp.ClientSession() as http, http.head(blob) as answer:
            assert (answer.status, answer.headers["x-ms-meta-sha256"]) == (200, sha256)


@asynccontextmanager
async def container(where: str, folder: Path) -> AsyncIterator[str]:
    if where == "real":
        yield CONTAINER
        return
    (folder / "blobs").mkdir()
    async with Blobs(folder / "blobs").serving() as blobs:
        yield blobs.signed("contract")


def throttle(rate: int) -> Throttle:
    return Throttle(rate, received_last=lambda: datetime(2026, 1, 1, tzinfo=UTC))
