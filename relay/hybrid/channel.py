"""One control channel of a hybrid connection, from its opening to its end.

The channel is read at all times: each announcement runs in a task of its own (`relay.hybrid.exchange`), so that no
sender delays another, and no exchange delays the renewal of the token.

Not here: opening, replacing and proving channels (`relay.hybrid.listener`).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Literal, TypeAlias

import aiohttp

from relay.hybrid.errors import SOCKET_ERRORS, Trouble, closed, explain
from relay.hybrid.exchange import Exchanges
from relay.hybrid.protocol import Announcement, FrameReader, Token, renew_token

NORMAL_CLOSURE = (1000).to_bytes(2, "big")
"""RFC 6455 Section 7.4.1."""

ClientWebSocket: TypeAlias = aiohttp.ClientWebSocketResponse[Literal[True]]


class Channel:
    """An open control channel. `opened_at` and `heard_at` (of the last announcement) are monotonic seconds.

    `leave` closes it in order: exchanges under way are finished, and everything that the service announces before it
    confirms the close is still served.
    """

    def __init__(
        self,
        ws: ClientWebSocket,
        token: Token,
        *,
        listener_id: str,
        new_token: Callable[[], Awaitable[Token]],
        exchanges: Exchanges,
        proven: Callable[[], None],
        failed: Callable[[Trouble], None],
    ) -> None:
        self._ws = ws
        self._token = token
        self._new_token = new_token
        self._exchanges = exchanges
        self._on_proven = proven
        self._on_failed = failed
        self._writing = asyncio.Lock()  # a response and its body are two messages that must follow each other
        self._leaving = False
        self._ended = asyncio.Event()
        self._busy = 0  # of this channel; `Exchanges.busy` counts those of both
        self._idle = asyncio.Event()
        self._idle.set()
        self.listener_id = listener_id
        self.opened_at = self.heard_at = time.monotonic()

    async def serve(self, tasks: asyncio.TaskGroup) -> Trouble:
        """Serve until the channel ends and return why. Exchanges under way go on in `tasks`."""
        renewing = tasks.create_task(self._renew_at_half_life())
        try:
            return await self._read(tasks)
        finally:
            renewing.cancel()
            self._ended.set()
            await self.close()

    async def close(self) -> None:
        """Close at once."""
        self._leaving = True
        await self._ws.close()

    async def leave(self, *, drain: float, seconds: float) -> None:
        """Finish the exchanges announced here, for at most `drain` seconds; then send a close frame, and close.

        `serve` goes on meanwhile. The service has `seconds` to take the close frame, and as long to confirm it.
        """
        # The service takes requests for lost whose channel has gone, so the channel stays until they are answered.
        with suppress(TimeoutError):
            async with asyncio.timeout(drain):
                await self._idle.wait()
        async with self._writing:
            self._leaving = True  # requests announced from here on are answered over addresses of their own
            with suppress(*SOCKET_ERRORS):  # a dead line is closed below
                async with asyncio.timeout(seconds):
                    await self._ws.send_frame(NORMAL_CLOSURE, aiohttp.WSMsgType.CLOSE)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()
        await self.close()

    async def respond(self, head: str, body: bytes) -> bool:
        async with self._writing:
            if self._leaving or self._ws.closed:
                return False
            await self._ws.send_str(head)
            if body:
                await self._ws.send_bytes(body)
        return True

    def proven(self) -> None:
        self._on_proven()

    async def _read(self, tasks: asyncio.TaskGroup) -> Trouble:
        frames = FrameReader()
        while True:
            message = await self._ws.receive()
            if message.type is aiohttp.WSMsgType.ERROR:
                return explain(message.data)
            announcements = _announcements(frames, message)
            if announcements is None:
                return closed(self._ws.close_code, str(message.extra or ""))
            for announcement in announcements:
                self.heard_at = time.monotonic()
                tasks.create_task(self._attend(announcement))

    async def _attend(self, announcement: Announcement) -> None:
        self._busy += 1
        self._idle.clear()
        try:
            await self._exchanges.attend(announcement, self)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def _renew_at_half_life(self) -> None:
        expires_at = self._token.expires_at
        while True:
            # At half of the time that is left: if no token can be had now, there are more attempts before the end.
            await asyncio.sleep(max(1, (expires_at - time.time()) * random.uniform(0.45, 0.55)))  # noqa: S311
            try:
                token = await self._new_token()
                if await self.respond(renew_token(token), b""):
                    expires_at = token.expires_at
            except SOCKET_ERRORS as error:
                self._on_failed(explain(error))


def _announcements(frames: FrameReader, message: aiohttp.WSMessage) -> list[Announcement] | None:
    """The announcements in a message; None when it ends the connection."""
    if message.type is aiohttp.WSMsgType.TEXT:
        return frames.text(message.data)
    if message.type is aiohttp.WSMsgType.BINARY:
        return frames.binary(message.data)
    return None
