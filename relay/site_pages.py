"""The routes of everything that people look at, and of the health check, the metrics and the pages' own files.

Not here: what the pages show (`relay.board`), how it becomes HTML (`relay.html`), the viewer (`relay.viewer`).
"""

import asyncio
from collections.abc import Callable

from aiohttp import web

from gateway.messages import HealthReport
from relay import qido
from relay.board import Board
from relay.html import PAGES, Frame

ASSETS = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
REFRESH_SECONDS = 15


class SitePages:
    """The handlers. `metrics` and `health` look into the databases and are called in threads."""

    def __init__(
        self, board: Board, frame: Frame, *, health: Callable[[], HealthReport], metrics: Callable[[], bytes]
    ) -> None:
        self._board = board
        self._frame = frame
        self._health = health
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.overview),
            web.get("/studies/{study}", self.study),
            web.get("/healthz", self.health),
            web.get("/metrics", self.metrics),
            web.get("/assets/{name}", self.asset),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        """Say whether it works. With `?refresh` it reads itself again, for browsers without scripts."""
        refresh = REFRESH_SECONDS if "refresh" in request.query else None
        return await self._frame.page(
            "status.html",
            lambda: {"status": self._board.status(), "refresh": refresh},
            current="/",
            follows=("worklist", "images", "health"),
        )

    async def study(self, request: web.Request) -> web.Response:
        """Show one study's pictures."""
        uid = qido.uid(request.match_info["study"])
        return await self._frame.page(
            "study.html",
            lambda: {"study": self._board.study(uid)},
            current="/studies",
            follows=("worklist", "images"),
        )

    async def health(self, _: web.Request) -> web.Response:
        """200 while every hop is proven, else 503; the facts are in the body either way."""
        report = await asyncio.to_thread(self._health)
        return web.Response(
            status=200 if report.healthy else 503, text=report.model_dump_json(), content_type="application/json"
        )

    async def metrics(self, _: web.Request) -> web.Response:
        """What Prometheus collects; its text format, 0.0.4."""
        body = await asyncio.to_thread(self._metrics)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """Give one of the pages' own files."""
        media_type = ASSETS.get(request.match_info["name"])
        if media_type is None:
            raise web.HTTPNotFound
        return web.FileResponse(
            PAGES / request.match_info["name"], headers={"Content-Type": media_type, "Cache-Control": "no-cache"}
        )
