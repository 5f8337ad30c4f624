"""A line between a client and a server on this machine, that goes bad in the ways lines do."""

import asyncio
from contextlib import suppress
from typing import Literal, Self

Fault = Literal["refused", "reset", "half-open", "mute", "cut off", "slow"]
"""refused: nobody listens. reset: connections end at the next byte. half-open: they stay, and all bytes vanish for
good. mute: what the client says arrives, the answers vanish. cut off: the next answer ends in its middle. slow: all
takes its time."""

SLOW_SECONDS = 0.05
"""Pause before each chunk on a slow line."""


class BadLine:
    """Listens on a port of its own and passes everything on to `target`, a port; `fault` says how it is just now."""

    def __init__(self, target: int) -> None:
        self.fault: Fault | None = None
        self.port = 0
        self._target = target
        self._ends: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.become(None)
        self._server.close()
        self._end_all()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def become(self, fault: Fault | None) -> None:
        """Go bad, or well again; connections on which bytes were lost stay as they are."""
        if fault == "refused" and self.fault != "refused":
            self._server.close()
            self._end_all()
        if fault != "refused" and self.fault == "refused":
            await self._listen()
        self.fault = fault

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def _end_all(self) -> None:
        for end in list(self._ends):
            end.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        assert serving is not None
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, writer, far_writer)
        self._ends |= {writer, far_writer}
        pumps = {
            asyncio.create_task(connection.pump(reader, far_writer, is_answer=False)),
            asyncio.create_task(connection.pump(far_reader, writer, is_answer=True)),
        }
        self._pumps |= pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        if not connection.lost:
            connection.end()
        await asyncio.wait(pumps)
        connection.end()
        self._ends -= {writer, far_writer}
        self._pumps -= pumps


class _Connection:
    """Two pumps; `lost` are the directions in which bytes have vanished, so that no more can come."""

    def __init__(self, line: BadLine, *ends: asyncio.StreamWriter) -> None:
        self.lost: set[bool] = set()
        self._line = line
        self._writers = ends

    def end(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                await self._pass_on(chunk, writer, is_answer=is_answer)
            if is_answer not in self.lost:
                await asyncio.sleep(0)
                writer.close()

    async def _pass_on(self, chunk: bytes, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        match self._line.fault:
            case "reset":
                self.end()
            case "half-open":
                self.lost |= {True, False}
            case "mute" if is_answer:
                self.lost.add(True)
            case "cut off" if is_answer:
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                self.end()
            case "slow":
                await asyncio.sleep(SLOW_SECONDS)
        if is_answer not in self.lost and not writer.is_closing():
            writer.write(chunk)
            await writer.drain()
