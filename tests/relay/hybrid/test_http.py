"""HTTP mode of the hybrid connection: bodies larger than memory, and answers that fail on the way."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import aiohttp
import pytest

from gateway.errors import NotFound, TooLarge
from relay.hybrid.http import HttpAnswer, HttpRequest, pieces
from relay.hybrid.protocol import endpoint
from simulator.azure.hybrid_service import HybridService
from tests.relay.hybrid.hybrid_site import PATIENT, TOKENS, namespace, site
from tests.relay.hybrid.test_listener import call

MB = 1_000_000
LARGE = 200 * MB


@asynccontextmanager
async def apart(service: HybridService) -> AsyncIterator[asyncio.subprocess.Process]:
    """A listener in a process of its own, which tells how its memory grows."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.relay.hybrid.streaming", service.namespace.base, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    while b"listens" not in await child.stdout.readline():
        pass
    try:
        yield child
    finally:
        child.terminate()
        await child.wait()


async def growth(child: asyncio.subprocess.Process) -> int:
    assert child.stdout is not None
    while not (line := await child.stdout.readline()).strip().isdigit():
        pass
    return int(line)


async def request(service: HybridService, method: str, target: str, *, body: object = None) -> int:
    """How many bytes the answer has, or for POST says."""
    url = service.namespace.base.replace("ws://", "http://") + target
    token = await TOKENS.token(endpoint(service.namespace.base, "actions").audience)
    headers = {"ServiceBusAuthorization": token.text}
    async with aiohttp.ClientSession() as http, http.request(method, url, data=body, headers=headers) as answer:
        assert answer.status == 200
        if method == "POST":
            return int(await answer.text())
        return sum([len(piece) async for piece in answer.content.iter_chunked(MB)])


async def test_a_body_of_200_mb_goes_either_way_through_a_few_mb_of_memory() -> None:
    async def large() -> AsyncIterator[bytes]:
        for _ in range(LARGE // MB):
            yield bytes(MB)

    async with namespace() as service, apart(service) as child:
        assert await request(service, "GET", f"/actions/x?{LARGE}") == LARGE
        sent = await growth(child)
        assert await request(service, "POST", "/actions/x", body=large()) == LARGE
        received = await growth(child)
    assert max(sent, received) < 8 * MB


@pytest.mark.parametrize("size", [0, 1, 65_000, 65_536, 1_000_000])
async def test_an_answer_in_pieces_is_whole_whatever_its_size(size: int) -> None:
    async def answer(_request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, body=pieces(b"", b"a" * size, b""))

    async with site(on_request=answer) as here:
        assert await call(here.service, "GET", "/actions/x") == (200, b"a" * size)


async def broken(first: bytes) -> AsyncIterator[bytes]:
    if first:
        yield first
    raise OSError("the file is gone")


async def stalled() -> AsyncIterator[bytes]:
    yield b"first"
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (HttpAnswer(200, body=broken(b"")), 500),  # nothing was said yet: the failure has a status
        (HttpAnswer(200, body=broken(b"first")), 502),  # cut off, and the service says so
        (HttpAnswer(200, body=stalled()), 502),
        (HttpAnswer(502), 503),
        (HttpAnswer(504), 503),
    ],
)
async def test_an_answer_that_cannot_be_given_whole_is_never_taken_for_whole(answer: HttpAnswer, status: int) -> None:
    async def give(_request: HttpRequest) -> HttpAnswer:
        return answer

    async with site(on_request=give, limits=replace(PATIENT, http_answer=2.0)) as here:
        assert (await call(here.service, "GET", "/actions/x"))[0] == status


async def test_a_refusal_is_answered_with_its_own_status_and_words() -> None:
    async def refuse(request: HttpRequest) -> HttpAnswer:
        if request.method == "POST":
            return HttpAnswer(200, body=await request.content(limit=10))
        raise NotFound("There is no such study.")

    async with site(on_request=refuse) as here:
        found = await call(here.service, "GET", "/actions/x")
        assert found == (404, b'{"code": "not_found", "message": "There is no such study."}')
        assert (await call(here.service, "POST", "/actions/x", b"b" * 11))[0] == TooLarge.http_status
        assert (await call(here.service, "POST", "/actions/x", b"b" * 100_000))[0] == TooLarge.http_status


async def test_headers_are_found_whatever_their_capitals() -> None:
    asked = HttpRequest("GET", "/", {"Accept": "application/dicom+json"})
    assert (asked.header("ACCEPT"), asked.header("Range")) == ("application/dicom+json", "")
