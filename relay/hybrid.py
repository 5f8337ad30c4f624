"""The gateway's ear to the cloud: a listener on an Azure Relay hybrid connection that cannot be dead and look alive.

Its rules, in plain words:

* One control channel is open. When it ends, the next attempt follows after 0, 1, 2, 5, 10, then each 30 seconds, for
  ever, with jitter. What only somebody else can mend (a refused token, no such hybrid connection) is tried slowly.
* An open connection proves nothing: the service may have forgotten it while it still answers pings. Only an exchange
  that came all the way does. The gateway sends itself an echo each 30 seconds (`SelfEcho`), and a channel that saw no
  exchange for 120 seconds is deaf: a second one is opened, then the first is closed.
* The token is renewed on the open channel at half its life.
* Exchanges run side by side, at most 16; more are refused with 503, for a sender that waits in vain is worse off than
  one that is told to come back.

Not here: the frames (`relay.hybrid_protocol`), one channel and its exchanges (`relay.hybrid_channel`), sending
(`relay.hybrid_sender`), what an action does (`relay.commands`). What others need of those is named here again.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import aiohttp
import structlog

from gateway.errors import CloudError
from relay.hybrid_channel import Channel
from relay.hybrid_exchange import Exchanges, Handlers, Limits
from relay.hybrid_http import HttpAnswer, HttpRequest
from relay.hybrid_protocol import MESSAGE_BYTES, Endpoint, endpoint
from relay.hybrid_sender import HybridDestination, HybridSender, SasTokens, SelfEcho, TokenSource
from relay.hybrid_trouble import SOCKET_ERRORS, Trouble, explain, pause

__all__ = [
    "Endpoint",
    "HttpAnswer",
    "HttpRequest",
    "HybridDestination",
    "HybridListener",
    "HybridSender",
    "Limits",
    "LinkState",
    "SasTokens",
    "SelfEcho",
    "TokenSource",
    "endpoint",
]

log = structlog.get_logger()


@dataclass(frozen=True)
class LinkState:
    """What is known of the link. `last_proven` is when an exchange last came all the way through the service."""

    listener_id: str = ""
    connected_since: datetime | None = None
    last_proven: datetime | None = None
    last_error: str = ""
    last_error_code: str = ""
    last_error_at: datetime | None = None
    connections: int = 0  # control channels opened since the start
    replaced: int = 0  # of those given up because they were deaf


class HybridListener:
    """Listens for ever: `await run()`, ended by cancelling it. `state` may be read at any time, from any thread.

    `on_message` takes the text of an action and gives the text of its answer. `on_request` answers requests that come
    in HTTP mode; without it they get 501. If one of them raises, the peer is told so and the link lives on.
    `prove` makes an exchange through the service or raises CloudError; without it only the cloud's messages prove.
    """

    def __init__(
        self,
        at: Endpoint,
        tokens: TokenSource,
        *,
        on_message: Callable[[str], Awaitable[str]],
        on_request: Callable[[HttpRequest], Awaitable[HttpAnswer]] | None = None,
        prove: Callable[[], Awaitable[None]] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._at = at
        self._tokens = tokens
        self._prove = prove
        self._limits = limits or Limits()
        self._attempt = 0
        self._exchanges = Exchanges(Handlers(on_message, on_request or _not_offered, self._failed), self._limits)
        self.state = LinkState()

    async def run(self) -> None:
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
            channel = await self._open_patiently(http)
            while True:
                channel = await self._serve_and_succeed(channel, http=http, tasks=tasks)

    # --- one channel after the other ----------------------------------------------------------------------------------

    async def _serve_and_succeed(
        self, channel: Channel, *, http: aiohttp.ClientSession, tasks: asyncio.TaskGroup
    ) -> Channel:
        """Serve until the channel ended or is deaf, and give its successor, which is open."""
        serving = tasks.create_task(channel.serve(tasks))
        watching = tasks.create_task(self._until_deaf(channel))
        proving = tasks.create_task(self._keep_proving())
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        proving.cancel()
        if serving.done():
            return await self._reopen(channel, serving.result(), http=http)
        return await self._replace(channel, http=http, tasks=tasks)

    async def _reopen(self, channel: Channel, trouble: Trouble, *, http: aiohttp.ClientSession) -> Channel:
        self.state = replace(self.state, connected_since=None)
        self._failed(trouble)
        if time.monotonic() - channel.opened_at > self._limits.delays[-1]:
            self._attempt = 0  # it had lasted: the row of pauses begins anew
        return await self._open_patiently(http, after=trouble)

    async def _replace(self, deaf: Channel, *, http: aiohttp.ClientSession, tasks: asyncio.TaskGroup) -> Channel:
        self._failed(Trouble("deaf", "The link was open, but nothing came through it. It is being replaced."))
        successor = await self._open_patiently(http)
        self.state = replace(self.state, replaced=self.state.replaced + 1)
        tasks.create_task(deaf.close())
        return successor

    async def _open_patiently(self, http: aiohttp.ClientSession, *, after: Trouble | None = None) -> Channel:
        trouble = after
        while True:
            if trouble is not None:
                await asyncio.sleep(pause(self._limits.delays, self._attempt, trouble, jitter=random.random()))  # noqa: S311
                self._attempt += 1
            try:
                async with asyncio.timeout(self._limits.handshake):
                    return await self._open(http)
            except SOCKET_ERRORS as error:
                trouble = explain(error)
                self._failed(trouble)

    async def _open(self, http: aiohttp.ClientSession) -> Channel:
        listener_id = str(uuid.uuid4())
        token = await self._tokens.token(self._at.audience)
        ws = await http.ws_connect(
            self._at.listen_url(listener_id),
            headers={"ServiceBusAuthorization": token.text},  # a token in the address would be in every proxy's log
            heartbeat=self._limits.heartbeat,
            autoclose=False,  # else a peer that hangs up right after its close frame turns its code into 1006
            max_msg_size=MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=self._limits.farewell),
        )
        self._opened(listener_id)
        return Channel(
            ws,
            token,
            new_token=lambda: self._tokens.token(self._at.audience),
            exchanges=self._exchanges,
            proven=self._proven,
            failed=self._failed,
        )

    # --- proof --------------------------------------------------------------------------------------------------------

    async def _until_deaf(self, channel: Channel) -> None:
        while (left := channel.proven_at + self._limits.deaf_after - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _keep_proving(self) -> None:
        while self._prove is not None:
            try:
                await self._prove()
            except CloudError as error:
                self._failed(Trouble("not_proven", f"The gateway's echo to itself did not come back. {error}"))
            await asyncio.sleep(self._limits.proof_every)

    # --- what is known ------------------------------------------------------------------------------------------------

    def _opened(self, listener_id: str) -> None:
        self.state = replace(
            self.state,
            listener_id=listener_id,
            connected_since=datetime.now(UTC),
            connections=self.state.connections + 1,
        )
        log.info("hybrid connection open", hybrid_connection=self._at.path, listener_id=listener_id)

    def _proven(self) -> None:
        self.state = replace(self.state, last_proven=datetime.now(UTC))

    def _failed(self, trouble: Trouble) -> None:
        self.state = replace(
            self.state, last_error=trouble.text, last_error_code=trouble.code, last_error_at=datetime.now(UTC)
        )
        log.warning("hybrid connection trouble", hybrid_connection=self._at.path, code=trouble.code, text=trouble.text)


async def _not_offered(_request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(501, body=b"This gateway takes no HTTP requests over its hybrid connection.\n")
