"""The routes of the site's pages, the health check, the metrics and the pages' own files.

Not here: the pages' values (`relay.pages.overview`, `relay.pages.worklist_board`, `relay.pages.studies`), HTML
(`relay.pages.html`), the viewer (`relay.pages.viewer`), the operator's pages (`relay.pages.operator_routes`).
"""

import asyncio
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from aiohttp import web

from gateway.messages import HealthReport
from relay.dicomweb import qido
from relay.pages.html import Frame
from relay.pages.overview import Overviews
from relay.pages.studies import Studies, wanted
from relay.pages.worklist_board import Board, read_date

STATIC = Path(str(files("relay") / "pages" / "static"))
ASSETS = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "session.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
REFRESH_SECONDS = 15


class SitePages:
    """The handlers. `metrics` and `health` read the databases and are called in threads."""

    def __init__(
        self,
        frame: Frame,
        overviews: Overviews,
        board: Board,
        studies: Studies,
        *,
        health: Callable[[], HealthReport],
        metrics: Callable[[], bytes],
    ) -> None:
        self._frame = frame
        self._overviews = overviews
        self._board = board
        self._studies = studies
        self._health = health
        self._metrics = metrics

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.overview),
            web.get("/board", self.board),
            web.get("/studies", self.search),
            web.get("/studies/{study}", self.study),
            web.get("/healthz", self.health),
            web.get("/metrics", self.metrics),
            web.get("/assets/{name}", self.asset),
        ]

    async def overview(self, request: web.Request) -> web.Response:
        """Show the state of the site. `?refresh`: with a meta refresh, for browsers without scripts."""
        refresh = REFRESH_SECONDS if "refresh" in request.query else None
        return await self._frame.page(
            request,
            "overview.html",
            lambda: {"overview": self._overviews.overview(), "refresh": refresh},
            current="/",
            follows=("worklist", "images", "health", "minute"),
        )

    async def board(self, request: web.Request) -> web.Response:
        """Show the worklist of a day: `date`, `q` (a part of a name or number), `wall` (`names`: with names)."""
        query = request.query
        day = read_date(query.get("date", ""))
        return await self._frame.page(
            request,
            "wallboard.html" if "wall" in query else "board.html",
            lambda: {"day": self._board.day(day, sought=query.get("q", "")), "names": query.get("wall") == "names"},
            current="/board",
            follows=("worklist", "images"),
        )

    async def search(self, request: web.Request) -> web.Response:
        """Search the studies. Raises InvalidQuery."""
        # Before the page is made: a search that failed must not look like one without results.
        query = wanted(request.query)
        return await self._frame.page(
            request,
            "studies.html",
            lambda: {"found": self._studies.search(query)},
            current="/studies",
            follows=("images",),
        )

    async def study(self, request: web.Request) -> web.Response:
        """Show one study's pictures."""
        uid = qido.uid(request.match_info["study"])
        return await self._frame.page(
            request,
            "study.html",
            lambda: {"study": self._studies.study(uid)},
            current="/studies",
            follows=("worklist", "images"),
        )

    async def health(self, _: web.Request) -> web.Response:
        """Answer 200 while every hop is proven, else 503; the body is the health report in both cases."""
        report = await asyncio.to_thread(self._health)
        return web.Response(
            status=200 if report.healthy else 503, text=report.model_dump_json(), content_type="application/json"
        )

    async def metrics(self, _: web.Request) -> web.Response:
        """Answer in Prometheus's text format, 0.0.4."""
        body = await asyncio.to_thread(self._metrics)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def asset(self, request: web.Request) -> web.StreamResponse:
        """Send one of the pages' own files."""
        media_type = ASSETS.get(request.match_info["name"])
        if media_type is None:
            raise web.HTTPNotFound
        # no-cache: the names stay the same, so that a browser asks after each update of the gateway.
        return web.FileResponse(
            STATIC / request.match_info["name"], headers={"Content-Type": media_type, "Cache-Control": "no-cache"}
        )
