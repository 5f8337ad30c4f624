"""The relay's HTTP server: the application, its routes, and the one place where errors become HTTP answers.

A refusal is answered with its status and a sentence: JSON `{"code", "message"}` under the DICOMweb and REST roots, a
page elsewhere. The server listens where the settings say, on loopback by default.

Not here: DICOMweb (`relay.dicomweb.routes`), pages (`relay.pages.routes`), the REST for scripts (`relay.api.handlers`),
authentication (`relay.access.middleware`), slow clients (`relay.slow_clients`).
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware

from gateway.errors import DatabaseNotReady, Denied, OutOfResources, Refusal
from gateway.messages import HealthReport
from gateway.tls_reload import ServerTls
from pacs import Archive
from relay import slow_clients
from relay.access.middleware import AccessControl
from relay.api import handlers
from relay.dicomweb import routes
from relay.dicomweb.routes import Changes
from relay.dicomweb.spool import Spool
from relay.exams.evidence import Evidence
from relay.exams.instances import Instances
from relay.pages.html import Frame, error_page
from relay.pages.live import Live
from relay.pages.operator_routes import OperatorPages
from relay.pages.overview import Overviews
from relay.pages.routes import SitePages
from relay.pages.sign_in import SignIn
from relay.pages.site_facts import SiteFacts
from relay.pages.studies import Studies
from relay.pages.viewer import Viewer
from relay.pages.worklist_board import Board
from relay.render_pool import Renderer
from worklist import Worklist

log = structlog.get_logger()

SHUTDOWN_SECONDS = 5.0
"""How long answers under way may take after the relay was stopped."""

IDLE_SECONDS = 20.0
"""How long a connection may be without a whole request head: before the first, between two, while one dribbles in."""

# Everything that a page loads comes from this server, its one script included; no page needs it.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self'; style-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer browsers say "Origin: null" of our own forms
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
    evidence: Evidence,
    health: Callable[[], HealthReport],
    metrics: Callable[[], bytes] = bytes,
    site: str,
    viewer: Path,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    access: AccessControl | None = None,
    peers: Sequence[str] = (),
    site_facts: SiteFacts = SiteFacts(),  # noqa: B008 - frozen
    patience_seconds: float = slow_clients.PATIENCE_SECONDS,
) -> web.Application:
    """Make the application: DICOMweb, REST, pages, viewer, health, metrics.

    `viewer` is the folder of the viewer's files; it may be empty or missing. The renderer has to be entered and the
    spool open before it serves. Without `access` every client may do everything, and nothing is recorded: for tests and
    benchmarks.
    """
    instances = Instances(archive)
    board = Board(worklist, instances, evidence, clock=clock)
    overviews = Overviews(archive, worklist, board, instances, health=health, clock=clock)
    studies = Studies(archive, instances, evidence, viewer=viewer)
    live = Live(archive, worklist, health=health, clock=clock, refusals=site_facts.refusals)
    counts = {"/queue": overviews.parked, "/quarantine": archive.quarantine.undecided}
    frame = Frame(site, clock=clock, state=live.state, counts=counts)
    operators = OperatorPages(archive, worklist, frame=frame, renderer=renderer, site_facts=site_facts, clock=clock)
    # In this order: errors of the inner two are explained, and a slow body is bounded before it is authenticated.
    middlewares: list[Middleware] = [
        _explained,
        slow_clients.bounded(patience_seconds),
        *([access.middleware] if access else []),
    ]
    app = web.Application(middlewares=middlewares, client_max_size=64 * 1024)
    app.on_response_prepare.append(_harden)
    if access:
        app.on_response_prepare.append(access.before_headers)
        app.add_routes(SignIn(access).routes())
    app.add_routes(handlers.Rest(archive, worklist, renderer, peers=peers, clock=clock).routes())
    app.add_routes(routes.DicomWeb(archive, renderer, spool, changes, clock=clock).routes())
    app.add_routes(Viewer(viewer).routes())
    app.add_routes(SitePages(frame, overviews, board, studies, health=health, metrics=metrics).routes())
    app.add_routes(operators.routes())
    app.add_routes(live.routes())
    app.on_shutdown.append(live.close)
    return app


@asynccontextmanager
async def serving(
    app: web.Application, *, host: str, port: int, tls: ServerTls | None = None, idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[int]:
    """Serve until the block is left; gives the port, which the system chooses for 0. With `tls` by HTTPS."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, keepalive_timeout=idle_seconds)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=_renewed(tls) if tls else None).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def _renewed(tls: ServerTls) -> ssl.SSLContext:
    """The context to listen with; each handshake then takes the current certificate."""
    listening = tls.context()

    def choose(connection: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _listening: ssl.SSLContext) -> None:
        connection.context = tls.context()

    # Called for each handshake, also without a server name in it (RFC 6066 Section 3).
    listening.sni_callback = choose
    return listening


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
    """Status, code and sentence of an error."""
    if isinstance(error, Denied):
        return error.status, error.word, str(error)
    if isinstance(error, OutOfResources):
        # Not 507, which is for objects that cannot be stored; `relay.dicomweb.stow` answers that itself.
        return 503, error.code, str(error)
    if isinstance(error, Refusal):
        return error.http_status, error.code, str(error)
    if isinstance(error, DatabaseNotReady):
        return 503, "not_ready", str(error)
    if isinstance(error, web.HTTPException):
        code, message = _ANSWERS.get(error.status, ("refused", f"{error.reason}."))
        return error.status, code, message
    return 500, "internal", "The gateway failed to answer this; its log says why."


def _demanded_headers(error: Exception) -> Mapping[str, str]:
    """The headers that a status demands: WWW-Authenticate, Retry-After, Allow (RFC 9110)."""
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
    if request.path.startswith((routes.ROOT, handlers.ROOT)) or "text/html" not in request.headers.get("Accept", ""):
        return web.json_response({"code": code, "message": message}, status=status)
    return error_page(status=status, message=message)


async def _harden(_: web.Request, response: web.StreamResponse) -> None:
    own = response.headers.get("Content-Security-Policy")  # the viewer has one
    response.headers.update({**HEADERS, "Content-Security-Policy": own or HEADERS["Content-Security-Policy"]})
    response.headers.setdefault("Cache-Control", "no-store")  # patient data must not stay in a browser's cache
