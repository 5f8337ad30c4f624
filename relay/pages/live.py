"""Server-sent events (HTML Standard, Section 9.2) by which open pages learn that something changed.

A message has the whole state: which parts changed, never their content. A page then requests itself again, through the
middleware. Messages come with each change and at least every BEAT_SECONDS. One watcher serves all streams.

Not here: the pages' values (`relay.pages.worklist_board`), the script (`relay/pages/static/app.js`).
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
"""Between two looks at the health report, which reads both databases and the disk."""

BEAT_SECONDS = 10.0
"""The longest time between two messages; after 25 seconds without one, a page says that it is old."""

MOST_STREAMS = 64
"""Each is a connection of its own; a site has a handful of screens."""


class Live:
    """The state of everything that pages show, and its streams."""

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
        """Return the parts that pages can follow, by name; a part that has changed has another value. Never raises;
        blocks.

        `run` is this run of the relay, `day` the site's date, `minute` its time (for ages and expensive pages),
        `worklist` and `images` the two databases with their outboxes, `health` the health report without the age of
        its proofs, `refusals` the file of refusals. Read it before the values of a page.
        """
        with self._asking:
            now = self._clock().astimezone()
            parts = {"run": self._run, "day": now.strftime("%Y%m%d"), "minute": now.strftime("%H%M")}
            parts["health"] = self._health_now()
            parts["refusals"] = version(self._refusals) if self._refusals else ""
            return parts | {name: _version(owner) for name, owner in self._owners.items()}

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Send the state at once, with each change, and every BEAT_SECONDS, until one of the two sides closes.

        Raises Denied (503) beyond MOST_STREAMS.
        """
        if self._closing or len(self._wakes) >= MOST_STREAMS:
            raise Denied(
                f"{MOST_STREAMS} pages are kept up to date already; this one is read again in a while.",
                status=503, code="too_many_pages", headers={"Retry-After": "10"},
            )  # fmt: skip
        wake = asyncio.Event()
        self._wakes.add(wake)
        # X-Accel-Buffering: nginx would collect messages before it passes them on.
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        try:
            await response.prepare(request)
            await self._look()
            while not self._closing:
                self._expect_watching()
                wake.clear()
                # Always the whole state, so a lost message loses nothing; no patient data, so the stream needs no lock.
                await response.write(self._message())
                with suppress(TimeoutError):  # not wait_for: in Python 3.11 it may lose a cancellation
                    async with asyncio.timeout(BEAT_SECONDS):
                        await wake.wait()
        except ConnectionError:  # the page was closed, which is how streams end
            pass
        finally:
            self._wakes.discard(wake)
        return response

    async def close(self, _: web.Application) -> None:
        """End every stream; for `on_shutdown`, because aiohttp waits for open requests."""
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
        message = {"at": self._clock().astimezone().strftime("%H:%M:%S %Z"), "state": self._state}
        return f"event: state\ndata: {json.dumps(message)}\n\n".encode()

    def _health_now(self) -> str:
        if time.monotonic() >= self._health_due:
            # Not with every look: it reads both databases and the disk.
            self._health_state = _fingerprint(self._health())
            self._health_due = time.monotonic() + HEALTH_SECONDS
        return self._health_state


def _version(owner: Owner) -> str:
    try:
        return str(owner.data_version())  # changes with each commit of any process, and reads no table
    except (DatabaseNotReady, OutOfResources):  # a state like any other: the page, read again, shows the error
        return "unavailable"


def _fingerprint(report: HealthReport) -> str:
    # Without the times of proofs: half of them are made at this moment, and every look would be a change.
    said = [(name, check.ok, check.detail) for name, check in report.checks.items()]
    return hashlib.sha256(json.dumps([report.healthy, said]).encode()).hexdigest()[:12]
