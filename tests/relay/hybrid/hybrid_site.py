"""A gateway's link and the service it hangs on, for the tests of `relay.hybrid.listener` and its neighbours."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from relay.hybrid.exchange import LinkLimits
from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import HybridSender, SelfEcho
from relay.hybrid.tokens import SasTokens, TokenSource
from simulator.azure.hybrid_namespace import HybridConnection
from simulator.azure.hybrid_service import HybridService
from simulator.azure.hybrid_tokens import Key
from tests.tools.waiting import PATIENCE_SECONDS, until

TOKENS = SasTokens("site", "the key")
PATIENT = LinkLimits(delays=(0, 0.05, 0.1), proof_every=60, listeners=1)
"""Reconnects at once, and is not nervous."""


@dataclass
class Site:
    service: HybridService
    connection: HybridConnection
    listener: HybridListener
    sender: HybridSender


async def echo(text: str) -> str:
    return json.dumps({"status": "echo", "payload": json.loads(text)})


@asynccontextmanager
async def namespace(**options: float) -> AsyncIterator[HybridService]:
    service = HybridService(**options)  # type: ignore[arg-type]
    service.namespace.add("actions", {"site": Key("the key"), "deaf": Key("k", frozenset({"Send"}))})
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


@asynccontextmanager
async def running(listener: HybridListener) -> AsyncIterator[None]:
    task = asyncio.create_task(listener.run())
    try:
        yield
        assert not task.done(), "the listener has ended"
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def site(
    *,
    on_message: Callable[[str], Awaitable[str]] = echo,
    on_request: Callable[[HttpRequest], Awaitable[HttpAnswer]] | None = None,
    limits: LinkLimits = PATIENT,
    tokens: TokenSource = TOKENS,
    proves: bool = True,
    echo_timeout: float = 0.5,
    **options: float,
) -> AsyncIterator[Site]:
    """A listener that is connected and proves itself, and a sender beside it."""
    async with namespace(**options) as service:
        at = endpoint(service.namespace.base, "actions")
        sender = HybridSender(at, tokens, timeout=PATIENCE_SECONDS)
        prove = SelfEcho(HybridSender(at, tokens, timeout=echo_timeout))
        listener = HybridListener(
            at,
            tokens,
            on_message=on_message,
            on_request=on_request,
            prove=prove if proves else None,
            limits=limits,
        )
        async with running(listener):
            await until(lambda: listener.state.connected_since is not None)
            yield Site(service, service.namespace.connections["actions"], listener, sender)
        await sender.close()
        await prove.close()
