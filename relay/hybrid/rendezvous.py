"""The connection of one exchange: opened at the address that was announced, used once.

Not here: which exchanges there are and what is said in them (`relay.hybrid.exchange`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

# Not aiohttp, which the control channel uses: a body larger than memory is one message in many frames, and aiohttp can
# neither send nor receive a message in pieces.
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode

from relay.egress import Egress
from relay.hybrid.errors import CLOSED
from relay.hybrid.protocol import MESSAGE_BYTES

FRAME = 64 * 1024
"""Most bytes of one frame of a body. The service relays in 32 KiB buffers, so longer ones gain nothing."""

GONE = 410
"""Status by which the service confirms that the sender got a rejection."""


class Rendezvous:
    """An open connection. Its errors are those that `relay.hybrid.errors.explain` understands."""

    def __init__(self, ws: ClientConnection) -> None:
        self._ws = ws

    async def message(self, *, seconds: float) -> str | bytes:
        """The next message, complete. Raises TimeoutError, and ConnectionResetError above MESSAGE_BYTES."""
        async with asyncio.timeout(seconds):
            parts = [part async for part in self._bounded()]
        return "".join(parts) if isinstance(parts[0], str) else b"".join(parts)  # type: ignore[arg-type]

    async def _bounded(self) -> AsyncIterator[str | bytes]:
        size = 0
        async for part in self._ws.recv_streaming():
            size += len(part)
            if size > MESSAGE_BYTES:
                raise ConnectionResetError(CLOSED[1009].text)
            yield part

    async def body(self, *, pace: float) -> AsyncIterator[bytes]:
        """The next message piece by piece. Raises TimeoutError after a pause of more than `pace` seconds."""
        received = self._ws.recv_streaming(decode=False)
        while True:
            try:
                async with asyncio.timeout(pace):
                    piece = await anext(received)
            except StopAsyncIteration:
                return
            if piece:  # the service ends a body with an empty frame
                yield bytes(piece)

    async def send(self, message: str | bytes) -> None:
        await self._ws.send(message)

    async def send_body(self, body: AsyncIterator[bytes], *, pace: float) -> None:
        """Send one message in frames, as fast as the other side takes it.

        Raises TimeoutError when neither `body` nor the other side moves for `pace` seconds, and whatever `body` raises;
        the message is cut off then and the connection of no more use.
        """
        async with asyncio.timeout(pace) as patience:
            await self._ws.send(_paced(body, patience, pace))

    async def closed_by_peer(self, *, seconds: float) -> bool:
        """Wait for the peer to close, which confirms that it has the answer; False when the line was cut instead."""
        try:
            await self.message(seconds=seconds)
        except TimeoutError:
            return True  # a peer that leaves the closing to us has the answer as well
        except ConnectionClosed as ended:
            return ended.rcvd is not None
        return True


async def _paced(body: AsyncIterator[bytes], patience: asyncio.Timeout, pace: float) -> AsyncIterator[bytes]:
    now = asyncio.get_running_loop().time
    async for piece in body:
        for start in range(0, len(piece), FRAME):
            patience.reschedule(now() + pace)
            yield piece[start : start + FRAME]


@asynccontextmanager
async def rendezvous(address: str, egress: Egress, *, handshake: float, closing: float) -> AsyncIterator[Rendezvous]:
    """Open an announced address within `handshake` seconds; leaving the block closes it, within `closing` seconds.

    An exception closes it with code 1011, so that a cut message is not taken for complete.
    """
    proxy = egress.proxy_for(address)
    to_proxy: dict[str, Any] = {"proxy_ssl": egress.tls_for(proxy)} if proxy else {}
    async with asyncio.timeout(handshake):
        ws = await connect(
            address,
            proxy=proxy,
            **to_proxy,
            ssl=egress.tls_for(address),
            compression=None,
            open_timeout=None,
            close_timeout=closing,
            ping_interval=None,  # every read and write here has a limit of its own
            max_size=(None, MESSAGE_BYTES),
            max_queue=4,
            user_agent_header=None,
        )
    try:
        yield Rendezvous(ws)
    except BaseException:
        await ws.close(CloseCode.INTERNAL_ERROR)
        raise
    await ws.close()


async def reject(address: str, egress: Egress, *, handshake: float) -> None:
    """Open an address that rejects. The handshake fails; 410 means that the sender has the rejection."""
    try:
        async with rendezvous(address, egress, handshake=handshake, closing=handshake):
            pass
    except InvalidStatus as error:
        if error.response.status_code != GONE:
            raise
