"""The relay's HTTP server: the application, its routes, and the one place where errors become HTTP answers.

Rules. A refusal is answered with its status and a sentence: JSON `{"code", "message"}` under the DICOMweb root, a page
elsewhere. No page needs a script, none loads anything from another host, and the content security policy forbids both.
Query strings hold names and are never logged. It listens where the settings say, on loopback unless told otherwise.

Not here: what DICOMweb means (`relay.dicomweb`), what pages show (`relay.board`), the REST for scripts (`relay.rest`),
who may come in (`relay.door`), and with which slow clients patience ends (`relay.slow`).
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from gateway.errors import DatabaseNotReady, Denied, OutOfResources, Refusal
from gateway.messages import HealthReport
from gateway.renewal import ServerTls
from pacs import Archive
from relay import dicomweb, qido, rest, slow
from relay.board import Board
from relay.dicomweb import Changes
from relay.door import Door
from relay.holding import HOLDS
from relay.rendering import Renderer
from relay.spool import Spool
from relay.viewer import Viewer
from worklist import Worklist

log = structlog.get_logger()

PAGES = Path(str(files("relay") / "pages"))
ASSETS = {"app.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml"}
SHUTDOWN_SECONDS = 5.0
"""How long answers under way may take after the relay was told to stop."""

IDLE_SECONDS = 20.0
"""How long a connection may be without a whole request head: before the first, between two, while one dribbles in."""

REFRESH_SECONDS = 15

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "screening-gateway",
}
_ANSWERS = {
    404: ("not_found", "There is no such resource."),
    405: ("method_not_allowed", "This resource has no such method; the header Allow has those it has."),
    413: ("too_large", "The request is larger than anything this server reads."),
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def application(
    archive: Archive,
    worklist: Worklist,
    renderer: Renderer,
    *,
    spool: Spool,
    changes: Changes = Changes(),  # noqa: B008 - frozen
    health: Callable[[], HealthReport],
    metrics: Callable[[], bytes] = bytes,
    site: str,
    viewer: Path,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    door: Door | None = None,
    peers: Sequence[str] = (),
    holds: Collection[str] = HOLDS,
    patience_seconds: float = slow.PATIENCE_SECONDS,
) -> web.Application:
    """Make the whole application: DICOMweb, REST, pages, viewer, health, metrics.

    `viewer` is the folder of the viewer's files; it may be empty or missing. The renderer has to be entered and the
    spool open before it serves. `holds` are the findings that hold images back from the cloud (`relay.holding`).
    Without a door whoever reaches it may do everything, and nothing is recorded: for tests and benchmarks.
    """
    board = Board(archive, worklist, health=health, clock=clock, holds=holds)
    middlewares: list[Middleware] = [_explained, slow.bounded(patience_seconds), *([door.middleware] if door else [])]
    app = web.Application(middlewares=middlewares, client_max_size=64 * 1024)
    app.on_response_prepare.append(_harden)
    if door:
        app.on_response_prepare.append(door.before_headers)
    app.add_routes(rest.Rest(archive, worklist, renderer, peers=peers, clock=clock).routes())
    app.add_routes(dicomweb.DicomWeb(archive, renderer, spool, changes, clock=clock).routes())
    app.add_routes(Viewer(viewer).routes())
    app.add_routes(_Pages(board, health=health, metrics=metrics, site=site).routes())
    return app


@asynccontextmanager
async def serving(
    app: web.Application, *, host: str, port: int, tls: ServerTls | None = None, idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[int]:
    """Serve until the block is left; gives the port, which the system chooses when 0 was asked. With `tls` by HTTPS."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, keepalive_timeout=idle_seconds)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=_renewed(tls) if tls else None).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _renewed(tls: ServerTls) -> ssl.SSLContext:
    """The context to listen with; each handshake then takes the one of today, also without a name in it (RFC 6066)."""
    listening = tls.context()

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _listening: ssl.SSLContext) -> None:
        connection.context = tls.context()

    listening.sni_callback = choose
    return listening


class _Pages:
    """The handlers of everything that people look at, and of the health check and the metrics."""

    def __init__(
        self, board: Board, *, health: Callable[[], HealthReport], metrics: Callable[[], bytes], site: str
    ) -> None:
        self._board = board
        self._metrics = metrics
        self._health = health
        self._site = site

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.status),
            web.get("/studies/{study}", self.study),
            web.get("/healthz", self.health),
            web.get("/metrics", self.metrics),
            web.get("/assets/{name}", self.asset),
        ]

    async def status(self, request: web.Request) -> web.Response:
        refresh = REFRESH_SECONDS if "refresh" in request.query else None
        status = await asyncio.to_thread(self._board.status)
        return _page("status.html", site=self._site, status=status, refresh=refresh)

    async def study(self, request: web.Request) -> web.Response:
        study = await asyncio.to_thread(self._board.study, qido.uid(request.match_info["study"]))
        return _page("study.html", site=self._site, study=study)

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
        media_type = ASSETS.get(request.match_info["name"])
        if media_type is None:
            raise web.HTTPNotFound
        return web.FileResponse(
            PAGES / request.match_info["name"], headers={"Content-Type": media_type, "Cache-Control": "no-cache"}
        )


@web.middleware
async def _explained(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as error:
        if request.writer.output_size:  # the answer has begun; only cutting it off can still say that it is not whole
            raise
        status, code, message = _explanation(error)
        _note(request, error, status=status, code=code)
        answer = _error(request, status=status, code=code, message=message)
        answer.headers.update(_demanded_headers(error))
        return answer


def _explanation(error: Exception) -> tuple[int, str, str]:
    """Status, word and sentence of whatever was raised."""
    if isinstance(error, Denied):
        return error.status, error.word, str(error)
    if isinstance(error, OutOfResources):
        return 503, error.code, str(error)  # 507 is for what cannot be stored, which `relay.stow` answers itself
    if isinstance(error, Refusal):
        return error.http_status, error.code, str(error)
    if isinstance(error, DatabaseNotReady):
        return 503, "not_ready", str(error)
    if isinstance(error, web.HTTPException):
        code, message = _ANSWERS.get(error.status, ("refused", f"{error.reason}."))
        return error.status, code, message
    return 500, "internal", "The gateway failed to answer this; its log says why."


def _demanded_headers(error: Exception) -> Mapping[str, str]:
    """What HTTP wants beside the status: how to log in, when to come again, which methods there are (RFC 9110)."""
    if isinstance(error, Denied):
        return error.http_headers
    if isinstance(error, web.HTTPMethodNotAllowed):
        return {"Allow": ", ".join(sorted(error.allowed_methods))}
    return {}


def _note(request: web.Request, error: Exception, *, status: int, code: str) -> None:
    # The path holds UIDs only; the query string may hold names and stays out.
    if code == "internal":
        log.error("request failed", method=request.method, path=request.path, exc_info=error)
    elif not isinstance(error, web.HTTPException):
        log.info("request refused", method=request.method, path=request.path, status=status, reason=str(error))


def _error(request: web.Request, *, status: int, code: str, message: str) -> web.Response:
    if request.path.startswith((dicomweb.ROOT, rest.ROOT)) or "text/html" not in request.headers.get("Accept", ""):
        return web.json_response({"code": code, "message": message}, status=status)
    return _page("error.html", http_status=status, message=message)


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    policy = response.headers.get(
        "Content-Security-Policy", HEADERS["Content-Security-Policy"]
    )  # the viewer has its own
    response.headers.update({**HEADERS, "Content-Security-Policy": policy})
    response.headers.setdefault("Cache-Control", "no-store")


def _page(template: str, *, http_status: int = 200, **values: object) -> web.Response:
    text = _TEMPLATES.get_template(template).render(values, http_status=http_status)
    return web.Response(text=text, status=http_status, content_type="text/html")


def _person(name: str) -> str:
    """Write a DICOM person name for people: the first component group, family name in front (PS3.5 Section 6.2)."""
    family, *others = name.split("=", maxsplit=1)[0].split("^")
    return ", ".join(part for part in (family.strip(), " ".join(filter(None, others)).strip()) if part)


def _date(text: str) -> str:
    """Write a DICOM date for people; what is not a date stays as it is."""
    try:
        return datetime.strptime(text, "%Y%m%d").strftime("%-d %b %Y")
    except ValueError:
        return text


_TEMPLATES = Environment(
    loader=FileSystemLoader(PAGES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_TEMPLATES.filters.update(person=_person, date=_date)
