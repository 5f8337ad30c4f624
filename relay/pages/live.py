"""Tells open pages that something has changed, as server-sent events (HTML Standard, Section 9.2).

Rules. What is told is *that* a part changed, never what: a page then asks for itself again, through the door like
everybody, so a stream holds no patient data. One watcher serves all streams, and looks only while there is one. Each
message has the whole state, so that a lost one loses nothing, and comes every BEAT_SECONDS without any change as well:
a page that hears nothing knows that it is old. Streams end when the server does; aiohttp would wait for them.

Not here: what pages show (`relay.pages.worklist_board`), and what they do about it (`relay/pages/static/app.js`).
"""

import asyncio
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from aiohttp import web

from gateway.errors import DatabaseNotReady, Denied, OutOfResources
from gateway.messages import HealthReport
from gateway.outbox import Owner
from gateway.refusals.log import version
from pacs import Archive
from worklist import Worklist

LOOK_SECONDS = 0.5
"""Between two looks; one costs 20 microseconds as long as nothing has changed."""

HEALTH_SECONDS = 5.0
"""Between two looks at the health report, which asks both databases and the disk."""

BEAT_SECONDS = 10.0
"""Between two messages at most; pages say after 25 seconds that they have heard nothing."""

MOST_STREAMS = 64
"""Each is a connection of its own; a site has a handful of screens."""


class Live:
    """The state of everything that pages show, and the streams that tell of it."""

    def __init__(
        self,
        archive: Archive,
        worklist: Worklist,
        *,
        health: Callable[[], HealthReport],
        clock: Callable[[], datetime],
        refusals: Path | None = None,
    ) -> None:
        self._refusals = refusals
        self._owners: dict[str, Owner] = {"worklist": worklist, "images": archive}
        self._health = health
        self._clock = clock
        self._run = secrets.token_hex(4)
        self._asking = threading.Lock()
        self._health_state = ""
        self._health_due = 0.0
        self._state: Mapping[str, str] = {}
        self._wakes: set[asyncio.Event] = set()
        self._watching: asyncio.Task[None] | None = None
        self._closing = False

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/events", self.stream, allow_head=False)]

    def state(self) -> dict[str, str]:
        """What pages can follow, by name; a part that has changed has another value. Never raises; it blocks.

        `run` is this run of the relay, `day` the site's date, `minute` its time, for what grows old by itself or is
        dear to make; `worklist` and `images` are the two databases with what they owe the cloud, `health` is what the
        report says, without how fresh its proofs are, `refusals` the file of these. Read it before what a page shows,
        so that nothing falls in between.
        """
        with self._asking:
            now = self._clock().astimezone()
            parts = {"run": self._run, "day": now.strftime("%Y%m%d"), "minute": now.strftime("%H%M")}
            parts["health"] = self._health_now()
            parts["refusals"] = version(self._refusals) if self._refusals else ""
            return parts | {name: _version(owner) for name, owner in self._owners.items()}

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Tell the state at once, whenever it changes, and every few seconds, until one of the two sides goes."""
        if self._closing or len(self._wakes) >= MOST_STREAMS:
            raise Denied(
                f"{MOST_STREAMS} pages are kept up to date already; this one is read again in a while.",
                status=503, code="too_many_pages", headers={"Retry-After": "10"},
            )  # fmt: skip
        wake = asyncio.Event()
        self._wakes.add(wake)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        try:
            await response.prepare(request)
            await self._look()
            while not self._closing:
                self._expect_watching()
                wake.clear()
                await response.write(self._message())
                with suppress(TimeoutError):  # not wait_for: in Python 3.11 it may lose a cancellation
                    async with asyncio.timeout(BEAT_SECONDS):
                        await wake.wait()
        except ConnectionError:  # whoever looked has gone, which is how streams end
            pass
        finally:
            self._wakes.discard(wake)
        return response

    async def close(self, _: web.Application) -> None:
        """End every stream; for `on_shutdown`."""
        self._closing = True
        if self._watching is not None:
            self._watching.cancel()
        for wake in self._wakes:
            wake.set()

    def _expect_watching(self) -> None:
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while self._wakes:
            await asyncio.sleep(LOOK_SECONDS)
            await self._look()

    async def _look(self) -> None:
        state = await asyncio.to_thread(self.state)
        if state != self._state:
            self._state = state
            for wake in self._wakes:
                wake.set()

    def _message(self) -> bytes:
        told = {"at": self._clock().astimezone().strftime("%H:%M:%S %Z"), "state": self._state}
        return f"event: state\ndata: {json.dumps(told)}\n\n".encode()

    def _health_now(self) -> str:
        if time.monotonic() >= self._health_due:
            self._health_state = _fingerprint(self._health())
            self._health_due = time.monotonic() + HEALTH_SECONDS
        return self._health_state


def _version(owner: Owner) -> str:
    try:
        return str(owner.data_version())
    except (DatabaseNotReady, OutOfResources):  # a state like any other: the page, asked again, says what is wrong
        return "unavailable"


def _fingerprint(report: HealthReport) -> str:
    """Another text for a report that says something else; a newer proof of the same is none, half of them are "now"."""
    said = [(name, check.ok, check.detail) for name, check in report.checks.items()]
    return hashlib.sha256(json.dumps([report.healthy, said]).encode()).hexdigest()[:12]
