"""A small HTTP proxy that does nothing but CONNECT, as hospitals have it, for loopback: demo and tests.

It can require Basic authentication and refuse hosts, and it records every place that was requested.

Not for: anything but this machine.
"""

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from types import MappingProxyType


class Proxy:
    """`start`, and `stop`; `requested` are the places it connected to, `turned_away` how many requests it refused.

    `hosts` are names that only it can resolve, `places` hosts with their ports (`host:port`) that it connects to
    elsewhere, `refuses` hosts that it does not connect to.
    """

    def __init__(self, *, credentials: str = "", hosts: Mapping[str, str] = MappingProxyType({})) -> None:
        self._wanted = f"Basic {b64encode(credentials.encode()).decode()}" if credentials else ""
        self._hosts = hosts
        self.places: dict[str, tuple[str, int]] = {}
        self.refuses: frozenset[str] = frozenset()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.requested: list[str] = []
        self.turned_away = 0
        self.port = 0

    async def start(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Up to the empty line; what follows belongs to the tunnel and stays in the reader.
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, place, _ = head[0].split(" ", 2)
        fields = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
        status = self._judge(method, place, {name.lower(): value for name, value in fields.items()})
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        await writer.drain()
        if not status.startswith("200"):
            self.turned_away += 1
            return
        self.requested.append(place)
        host, _, port = place.rpartition(":")
        there = await asyncio.open_connection(*self.places.get(place, (self._hosts.get(host, host), int(port))))
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    def _judge(self, method: str, place: str, fields: dict[str, str]) -> str:
        if self._wanted and fields.get("proxy-authorization") != self._wanted:
            return '407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="proxy"'
        if method != "CONNECT" or place.rpartition(":")[0] in self.refuses:
            return "403 Forbidden"
        return "200 Connection established"


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    finally:
        target.close()
