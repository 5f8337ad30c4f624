"""A listener on an Azure Relay hybrid connection, which takes the cloud's messages and requests.

* Two control channels are open. When one ends, the next attempt follows after 0, 1, 2, 5, 10, then each 30 seconds, for
  ever, with jitter; lasting troubles (a refused token, no such hybrid connection) are retried slowly.
* Echoes through the service prove each channel (`SelfEcho`); a deaf, quiet or old one is replaced
  (`relay.hybrid.liveness`), make before break.
* The token is renewed on the open channel at half its life.
* At most 16 exchanges run on both channels together; more are refused with 503.

Not here: the frames (`relay.hybrid.protocol`), one channel (`relay.hybrid.channel`), the exchanges over it
(`relay.hybrid.exchange`), sending (`relay.hybrid.sender`).
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
from relay.egress import DIRECT, Egress
from relay.hybrid.channel import Channel
from relay.hybrid.errors import MAY_NOT_SEND, SOCKET_ERRORS, LinkError, Trouble, explain, pause
from relay.hybrid.exchange import Exchanges, Handlers, LinkLimits
from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.liveness import Due, due
from relay.hybrid.protocol import MESSAGE_BYTES, Endpoint
from relay.hybrid.tokens import TokenSource

log = structlog.get_logger()


@dataclass(frozen=True)
class LinkState:
    """The state of the link. `last_proven` is when an exchange last came all the way through the service.

    `echoes` is False when the key may not send: then only the cloud's own messages prove the link, and a quiet cloud
    leaves it connected and no more.
    """

    listener_ids: tuple[str, ...] = ()  # of the channels that are open
    connected_since: datetime | None = None
    last_proven: datetime | None = None
    echoes: bool = True
    last_error: str = ""
    last_error_code: str = ""
    last_error_at: datetime | None = None
    connections: int = 0  # control channels opened since the start
    replaced: int = 0  # of those given up because they were deaf
    renewed: int = 0  # and because they were old or quiet


class HybridListener:
    """Listens for ever: `await run()`, ended by cancelling it. `state` may be read at any time, from any thread.

    `on_message` takes the text of an action and returns the text of its answer. `on_request` answers requests that come
    in HTTP mode; without it they get 501. If one of them raises, the peer gets an error and the link lives on.
    `prove` makes an exchange through the service with the listener of the id it is given (with any, when the id is
    empty) or raises CloudError; without it only the cloud's messages prove.
    """

    def __init__(
        self,
        at: Endpoint,
        tokens: TokenSource,
        *,
        on_message: Callable[[str], Awaitable[str]],
        on_request: Callable[[HttpRequest], Awaitable[HttpAnswer]] | None = None,
        prove: Callable[[str], Awaitable[None]] | None = None,
        limits: LinkLimits | None = None,
        egress: Egress = DIRECT,
    ) -> None:
        self._at = at
        self._tokens = tokens
        self._prove = prove
        self._limits = limits or LinkLimits()
        self._egress = egress
        self._open: dict[str, Channel] = {}
        self._ready = asyncio.Event()
        self.exchanges = Exchanges(Handlers(on_message, on_request or _not_offered, self._failed), self._limits, egress)
        self.state = LinkState(echoes=prove is not None)

    async def run(self) -> None:
        try:
            async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as tasks:
                for number in range(self._limits.listeners):
                    tasks.create_task(self._keep_listening(number, http=http, tasks=tasks))
                tasks.create_task(self._keep_proving())
        finally:
            await self._tokens.close()

    # --- one channel after the other ----------------------------------------------------------------------------------

    async def _keep_listening(self, number: int, *, http: aiohttp.ClientSession, tasks: asyncio.TaskGroup) -> None:
        # One after the other, so that nothing that ages with a channel befalls both at once.
        await asyncio.sleep(number * self._limits.stagger)
        lane = _Lane(age_offset=self._limits.lifetimes.old_after * number / self._limits.listeners)
        channel = await self._open_patiently(lane, http)
        while True:
            channel = await self._serve_and_succeed(channel, lane, http=http, tasks=tasks)
            lane.age_offset = 0

    async def _serve_and_succeed(
        self, channel: Channel, lane: "_Lane", *, http: aiohttp.ClientSession, tasks: asyncio.TaskGroup
    ) -> Channel:
        """Serve until the channel ended or is to be replaced, and return its successor, which is open."""
        serving = tasks.create_task(self._serve(channel, tasks))
        watching = tasks.create_task(self._until_due(channel, lane))
        await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        if serving.done():
            return await self._reopen(channel, lane, serving.result(), http=http)
        return await self._replace(channel, lane, watching.result(), http=http, tasks=tasks)

    async def _serve(self, channel: Channel, tasks: asyncio.TaskGroup) -> Trouble:
        try:
            return await channel.serve(tasks)
        finally:
            self._closed(channel)

    async def _reopen(
        self, channel: Channel, lane: "_Lane", trouble: Trouble, *, http: aiohttp.ClientSession
    ) -> Channel:
        self._failed(trouble)
        if time.monotonic() - channel.opened_at > self._limits.delays[-1]:
            lane.attempt = 0  # it had lasted: the pauses begin anew
        return await self._open_patiently(lane, http, after=trouble)

    async def _replace(
        self, channel: Channel, lane: "_Lane", why: Due, *, http: aiohttp.ClientSession, tasks: asyncio.TaskGroup
    ) -> Channel:
        if why.reason == "deaf":
            self._failed(Trouble("deaf", "The link was open, but nothing came through it. It is being replaced."))
        # Make before break, so that replacing loses nothing.
        successor = await self._open_patiently(lane, http)
        is_deaf = why.reason == "deaf"
        self.state = replace(
            self.state, replaced=self.state.replaced + is_deaf, renewed=self.state.renewed + (not is_deaf)
        )
        tasks.create_task(channel.leave(drain=self._limits.drain, seconds=self._limits.closing))
        return successor

    async def _until_due(self, channel: Channel, lane: "_Lane") -> Due:
        while True:
            end = due(
                opened_at=channel.opened_at - lane.age_offset,
                heard_at=channel.heard_at,
                echoes=self.state.echoes,
                lifetimes=self._limits.lifetimes,
            )
            if (left := end.at - time.monotonic()) <= 0:
                return end
            await asyncio.sleep(min(left, self._limits.proof_every))  # `echoes` and `heard_at` may change meanwhile

    # --- opening ------------------------------------------------------------------------------------------------------

    async def _open_patiently(
        self, lane: "_Lane", http: aiohttp.ClientSession, *, after: Trouble | None = None
    ) -> Channel:
        trouble = after
        while True:
            if trouble is not None:
                await asyncio.sleep(pause(self._limits.delays, lane.attempt, trouble, jitter=random.random()))  # noqa: S311
                lane.attempt += 1
            try:
                async with asyncio.timeout(self._limits.handshake):
                    return await self._open_one(http)
            except SOCKET_ERRORS as error:
                trouble = explain(error)
                self._failed(trouble)

    async def _open_one(self, http: aiohttp.ClientSession) -> Channel:
        listener_id = str(uuid.uuid4())
        token = await self._tokens.token(self._at.audience)
        url = self._at.listen_url(listener_id)
        ws = await http.ws_connect(
            url,
            headers={"ServiceBusAuthorization": token.text},  # a token in the address would be in every proxy's log
            heartbeat=self._limits.heartbeat,
            autoclose=False,  # else a peer that hangs up right after its close frame turns its code into 1006
            max_msg_size=MESSAGE_BYTES,
            timeout=aiohttp.ClientWSTimeout(ws_close=self._limits.closing),
            proxy=self._egress.proxy_for(url),
            ssl=self._egress.tls_for(url) or True,
        )
        channel = Channel(
            ws,
            token,
            listener_id=listener_id,
            new_token=lambda: self._tokens.token(self._at.audience),
            exchanges=self.exchanges,
            proven=self._proven,
            failed=self._failed,
        )
        self._opened(channel)
        return channel

    # --- proof --------------------------------------------------------------------------------------------------------

    async def _keep_proving(self) -> None:
        while self._prove is not None:
            await self._ready.wait()
            # Each channel by its id: an echo to any of them would leave a deaf one undetected.
            await asyncio.gather(*(self._prove_one(listener_id) for listener_id in list(self._open)))
            await asyncio.sleep(self._limits.proof_every if self.state.echoes else self._limits.ask_again)

    async def _prove_one(self, listener_id: str) -> None:
        assert self._prove is not None
        try:
            await self._prove(listener_id)
        except CloudError as error:
            if listener_id not in self._open:
                return  # the channel ended while its echo was under way, and its own trouble is the better report
            if isinstance(error, LinkError) and error.trouble.code in MAY_NOT_SEND:
                self.state = replace(self.state, echoes=False)  # the key itself is good: it listens with it
            self._failed(Trouble("not_proven", f"The gateway's echo to itself did not come back. {error}"))
        else:
            self.state = replace(self.state, echoes=True)

    # --- what is known ------------------------------------------------------------------------------------------------

    def _opened(self, channel: Channel) -> None:
        self._open[channel.listener_id] = channel
        self._ready.set()
        self.state = replace(
            self.state,
            listener_ids=tuple(self._open),
            connected_since=self.state.connected_since or datetime.now(UTC),
            connections=self.state.connections + 1,
        )
        log.info("hybrid connection open", hybrid_connection=self._at.path, listener_id=channel.listener_id)

    def _closed(self, channel: Channel) -> None:
        del self._open[channel.listener_id]
        if not self._open:
            self._ready.clear()
            self.state = replace(self.state, connected_since=None)
        self.state = replace(self.state, listener_ids=tuple(self._open))

    def _proven(self) -> None:
        self.state = replace(self.state, last_proven=datetime.now(UTC))

    def _failed(self, trouble: Trouble) -> None:
        self.state = replace(
            self.state, last_error=trouble.text, last_error_code=trouble.code, last_error_at=datetime.now(UTC)
        )
        log.warning("hybrid connection trouble", hybrid_connection=self._at.path, code=trouble.code, text=trouble.text)


@dataclass
class _Lane:
    """The place of one channel and its successors: `attempt` counts openings that failed or did not last.

    `age_offset` makes the first channel of the second lane old sooner, so that the two are never replaced at one time.
    """

    attempt: int = 0
    age_offset: float = 0


async def _not_offered(_request: HttpRequest) -> HttpAnswer:
    return HttpAnswer(501, body=b"This gateway takes no HTTP requests over its hybrid connection.\n")
