"""Others who speak the protocol: Microsoft's Node clients against our service, and our listener against another one.

They are run where they are: node with the folder of its modules in HYCO_MODULES (hyco-ws and hyco-https), and in
HYBRID_STANDIN the path of a stand-in that shares no line with ours. OPERATIONS does not need them; CI may lack them.
"""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import HybridSender, SelfEcho
from relay.hybrid.tokens import SasTokens
from tests.relay.hybrid.hybrid_site import PATIENT, TOKENS, echo, namespace, running, site
from tests.relay.hybrid.test_listener import call
from tests.tools.waiting import until

MODULES, STANDIN = os.environ.get("HYCO_MODULES", ""), os.environ.get("HYBRID_STANDIN", "")
node = pytest.mark.skipif(
    not (shutil.which("node") and MODULES and (Path(MODULES) / "hyco-ws").is_dir()),
    reason="node and HYCO_MODULES, the folder with hyco-ws and hyco-https, are needed",
)
another = pytest.mark.skipif(not STANDIN, reason="HYBRID_STANDIN, the path of another stand-in, is needed")


@asynccontextmanager
async def started(*command: str, **environment: str) -> AsyncIterator[asyncio.StreamReader]:
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    assert child.stdout is not None
    try:
        yield child.stdout
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


def hyco(role: str, base: str) -> tuple[str, ...]:
    return ("node", str(Path(__file__).with_name("hyco.js")), role, base)


@node
async def test_their_sender_is_answered_by_our_listener() -> None:
    async with site() as here, started(*hyco("sends", here.service.namespace.base), NODE_PATH=MODULES) as output:
        answer = json.loads(await asyncio.wait_for(output.readline(), 10))
    assert answer == {"status": "echo", "payload": {"from": "node"}}


@node
async def test_their_listener_answers_our_sender() -> None:
    async with (
        namespace() as service,
        started(*hyco("listens-ws", service.namespace.base), NODE_PATH=MODULES) as output,
    ):
        assert await asyncio.wait_for(output.readline(), 10) == b"listens\n"
        sender = HybridSender(endpoint(service.namespace.base, "actions"), TOKENS, timeout=5)
        assert [await sender.exchange(text) for text in ("one", "é" * 50_000)] == [
            "node heard one",
            f"node heard {'é' * 50_000}",
        ]
        await sender.close()


@node
@pytest.mark.parametrize(("size", "more"), [(0, 0), (1000, 0), (300_000, 0), (0, 300_000)])
async def test_their_listener_answers_http_requests_by_way_of_our_service(size: int, more: int) -> None:
    async with namespace() as service:
        role = hyco("listens-https", service.namespace.base)
        async with started(*role, NODE_PATH=MODULES) as output:
            assert await asyncio.wait_for(output.readline(), 10) == b"listens\n"
            answer = await call(service, "POST", f"/actions/x?{more}", b"b" * size)
    assert answer == (200, b"z" * more + f"POST {size}".encode())


@another
async def test_our_listener_serves_and_proves_itself_at_another_service() -> None:
    async def mirror(request: HttpRequest) -> HttpAnswer:
        return HttpAnswer(200, body=await request.content())

    command = (sys.executable, STANDIN, "--hc", "actions", "--key-name", "site", "--key", "the key")
    async with started(*command) as output:
        base = json.loads(await asyncio.wait_for(output.readline(), 20))["base"]
        at = endpoint(base, "actions")
        sender = HybridSender(at, TOKENS, timeout=5)
        listener = HybridListener(
            at, TOKENS, on_message=echo, on_request=mirror, prove=SelfEcho(sender), limits=PATIENT
        )
        async with running(listener):
            await until(lambda: listener.state.last_proven is not None)
            assert json.loads(await sender.exchange('"é"')) == {"status": "echo", "payload": "é"}
            assert await posted(base, b"b" * 5_000_000) == (200, b"b" * 5_000_000)
            assert await posted(base, b"") == (200, b"")
        await sender.close()


async def posted(base: str, body: bytes) -> tuple[int, bytes]:
    import aiohttp

    token = await SasTokens("site", "the key").token(endpoint(base, "actions").audience)
    headers = {"ServiceBusAuthorization": token.text}
    url = f"{base.replace('ws://', 'http://')}/actions/x"
    async with aiohttp.ClientSession() as http, http.post(url, data=body, headers=headers) as answer:
        return answer.status, await answer.read()
