"""The authentication middleware of the HTTP server: every request passes it before its handler, every answer before it
leaves.

In order: request rate of the address, Host and Origin, user (Basic, bearer or session), role, handler, audit trail. An
unauthenticated page request is redirected to sign-in; API clients get 401 with `WWW-Authenticate: Basic`; our own page
scripts get a scheme that browsers do not know. A password is never logged; a user who lacks a role is named.

Not here: rules (`relay.access.permissions`), passwords (`relay.access.users`), tokens (`relay.access.oidc_tokens`),
sessions (`relay.access.sessions`), the sign-in page (`relay.pages.sign_in`), counting (`relay.access.rate_limits`).
"""

import asyncio
import base64
import binascii
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from types import MappingProxyType
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.http import StreamWriter
from aiohttp.typedefs import Middleware

from gateway.audit import messages
from gateway.audit.messages import Actor, EventOutcome
from gateway.errors import AuditNotWritten, Denied, NotFound, Refusal
from relay.access import cookies, proxy_headers
from relay.access.audit import Exchange, Recorder
from relay.access.oidc_login import CodeFlow
from relay.access.oidc_tokens import Tokens
from relay.access.permissions import READING, Recorded, Role, Rule, foreign_origin, is_loopback, rule
from relay.access.proxy_headers import Network
from relay.access.rate_limits import Buckets, Guessing
from relay.access.sessions import IDLE_MINUTES, Session, Sessions
from relay.access.users import OWN, OwnToken, Passwords, User

ANYBODY = User("anybody", Role.ADMIN)
"""The user of every request while access is open."""

USER = web.RequestKey("user", User)
"""The user of a request, set before its handler runs. The names under operators' decisions come from here."""

STUDY = web.RequestKey("study", str)
"""The Study Instance UID for the audit trail, set by handlers whose path does not have it."""

ADDRESS = web.RequestKey("address", str)
"""The address a request comes from, behind the proxies that are trusted."""

SIGNED_IN = web.RequestKey("signed_in", bool)
"""Set for a request with a browser session, which can be ended."""

_RULE = web.RequestKey("rule", Rule)
_PASSED = web.RequestKey("passed", bool)  # the audit trail has this request

_CORS_PATHS = ("/dicom-web", "/api/")
_BASIC = 'Basic realm="screening-gateway", charset="UTF-8"'
_BEARER = 'Bearer realm="screening-gateway"'
# A scheme that browsers do not know: after a browser's own password dialog nobody could sign out.
_PAGE = 'SignIn realm="screening-gateway"'
_LONGEST_CREDENTIAL = 8000  # characters; bounds the work for an unauthenticated client

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = structlog.get_logger()


@dataclass(frozen=True)
class AccessPolicy:
    """Access as the settings have it."""

    is_open: bool
    """No authentication as long as there are no users: the address is loopback and no setting demands them."""
    origins: frozenset[str] = frozenset()
    """Origins whose pages may read here (CORS), compared exactly."""
    proxies: tuple[Network, ...] = ()
    """Reverse proxies whose X-Forwarded-For or Forwarded is trusted."""


@dataclass
class AccessControl:
    """Access control of one HTTP server. Use `middleware`, and `before_headers` with `on_response_prepare`."""

    policy: AccessPolicy
    passwords: Passwords
    recorder: Recorder
    own: OwnToken
    patient_id: Callable[[str], str]
    tokens: Tokens | None = None
    code: CodeFlow | None = None
    sessions: Sessions = field(init=False)
    idle_seconds: float = 60 * IDLE_MINUTES
    clock: Callable[[], float] = monotonic
    """Seconds, monotonic; sessions end by it."""
    buckets: Buckets = field(default_factory=lambda: Buckets(0, 1))
    guessing: Guessing = field(default_factory=Guessing)
    _checking: dict[tuple[str, str, str], asyncio.Task[User]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sessions = Sessions(self.passwords.account, idle_seconds=self.idle_seconds, clock=self.clock)

    @property
    def middleware(self) -> Middleware:
        """The aiohttp middleware; it goes inside the one that answers errors."""

        @web.middleware
        async def passing(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self.pass_through(request, handler)

        return passing

    async def pass_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check a request, run its handler, record it. Raises Denied, AuditNotWritten, and errors of the handler."""
        request[ADDRESS] = self._address(request)
        self._not_too_often(request)
        if is_preflight(request):  # before authentication, because browsers send it without credentials
            return self._preflight(request)
        needed = rule(request.method, request.path)
        await self._same_site(request)
        user = await self._known(request, needed)
        if user is None:
            return self._sign_in_first(request)
        request[USER], request[_RULE] = user, needed
        await self._permitted(request, user, needed)
        await self._announce(request, needed)
        try:
            response = await handler(request)
        except AuditNotWritten:
            raise
        except Exception as error:  # a failed request is recorded, too
            if not request.get(_PASSED, False):
                await self._record(request, _status(error))
            raise
        if not request.get(_PASSED, False):
            await self._record(request, response.status)
            request[_PASSED] = True
        return response

    async def before_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Record an answer that a handler streams, before its headers leave; add the headers of CORS.

        Raises AuditNotWritten.
        """
        origin = request.headers.get("Origin", "")
        if request.path.startswith(_CORS_PATHS):
            response.headers.add("Vary", "Origin")
            # Without Allow-Credentials, so pages of these origins get no cookies or passwords of the browser.
            if origin in self.policy.origins:
                response.headers["Access-Control-Allow-Origin"] = origin
                response.headers["Access-Control-Expose-Headers"] = "ETag, Warning, Content-Disposition, Retry-After"
        if _RULE in request and not request.get(_PASSED, False) and response.status < 400:
            try:
                await self._record(request, response.status)
            except AuditNotWritten:
                _unprepare(request)
                raise
            request[_PASSED] = True

    # ---- in ----------------------------------------------------------------------------------------------------------

    def _address(self, request: web.Request) -> str:
        return proxy_headers.client(
            request.remote or "",
            forwarded_for=request.headers.getall("X-Forwarded-For", ()),
            forwarded=request.headers.getall("Forwarded", ()),
            trusted=self.policy.proxies,
        )

    def _not_too_often(self, request: web.Request) -> None:
        wait = self.buckets.wait(request[ADDRESS])
        if wait:
            raise _too_many("This address asks more often than RELAY_HTTP_RATE allows.", wait)

    async def _same_site(self, request: web.Request) -> None:
        # DNS rebinding: a page elsewhere can make its own name resolve to 127.0.0.1, and as long as access is open the
        # browser of this machine would let it do everything.
        if self.is_open() and not is_loopback(_host_name(request.host)):
            raise Denied(
                "Without users, only this machine is answered, and only by the names localhost, 127.0.0.1 and ::1.",
                status=421, code="misdirected",
            )  # fmt: skip
        if request.method in READING:
            return
        # The cookie is Strict, but browsers repeat Basic credentials by themselves, for pages of other sites as well.
        headers, own = request.headers, f"{request.scheme}://{request.host}"
        fetch_site = headers.get("Sec-Fetch-Site")
        allowed = self.policy.origins if request.path.startswith(_CORS_PATHS) else frozenset()
        if foreign_origin(headers.get("Origin"), fetch_site, own=own, allowed=allowed):
            await self._alert(request, Actor(ANYBODY.name, request[ADDRESS]), "sent by a page of another site")
            raise Denied(
                "A page of another site sent this; such requests are taken from pages of this gateway only.",
                status=403, code="cross_site",
            )  # fmt: skip

    def is_open(self) -> bool:
        """Is access open, because there are no users yet?"""
        return self.policy.is_open and self.tokens is None and not self.passwords.any()

    async def _known(self, request: web.Request, needed: Rule) -> User | None:
        kind, _, credential = request.headers.get("Authorization", "").partition(" ")
        if len(credential) <= _LONGEST_CREDENTIAL:
            if kind.lower() == "basic":
                return await self._by_basic(request, credential.strip())
            if kind.lower() == "bearer" and self.tokens is not None:
                return await self._by_token(request, self.tokens, credential.strip())
        if needed.role is None or self.is_open():
            return ANYBODY
        return await self._by_session(request)

    async def _by_session(self, request: web.Request) -> User | None:
        token = cookies.value(request, cookies.SESSION)
        found = self.sessions.find(token)
        if found is None or (found.is_display and not _is_on_display(request)):
            return None
        if found.is_over:
            await self._record_end(found, request[ADDRESS])
            return None
        if cookies.is_by_person(request):
            self.sessions.use(token)
        request[SIGNED_IN] = True
        return User(found.user.name, Role.VIEWER) if found.is_display else found.user

    async def _record_end(self, session: Session, address: str) -> None:
        # A session that expires does so unnoticed, so its end is recorded at the first request after it.
        if session.is_end_recorded:
            return
        session.is_end_recorded = True  # before it is written, because a viewer sends many requests at once
        try:
            await self.recorder.signed_out(Actor(session.user.name, address))
        except AuditNotWritten:
            session.is_end_recorded = False
            raise

    def _sign_in_first(self, request: web.Request) -> web.Response:
        if cookies.is_page_or_form(request) and "Authorization" not in request.headers:
            return web.Response(status=303, headers={"Location": cookies.sign_in_path(request)})
        message = "This needs a user: send a name and a password, or a token of the identity provider."
        if cookies.is_browser(request):
            raise Denied(message, status=401, code="not_authenticated", headers={"WWW-Authenticate": _PAGE})
        raise self._unknown(message)

    async def _by_basic(self, request: web.Request, credential: str) -> User:
        name, password = _basic(credential)
        if name in OWN and _is_here(request) and self.own.fits(password):
            return User(name, Role.VIEWER)
        if (user := self.passwords.remembered(name, password)) is not None:
            return user
        # A viewer starts with dozens of requests at once, each with the password: they share one check of 0.1 s.
        key = (request[ADDRESS], name, password)
        checking = self._checking.get(key)
        if checking is None:
            checking = self._checking[key] = asyncio.create_task(self._logged_in(*key))
            checking.add_done_callback(lambda _: self._checking.pop(key, None))
        return await asyncio.shield(checking)

    async def _logged_in(self, address: str, name: str, password: str) -> User:
        user = await self.by_password(address, name, password)
        await self.recorder.login(Actor(name[:64], address), succeeded=True)
        return user

    async def by_password(self, address: str, name: str, password: str) -> User:
        """Check a password; the caller records the login. Raises Denied: 401 for a wrong one, 429 after too many."""
        if wait := self.guessing.wait(address, name):
            raise _too_many("Too many wrong passwords; wait, then try again.", wait)
        self.guessing.wrong(address, name)  # before the check, so that concurrent guesses count as well
        user = await asyncio.to_thread(self.passwords.check, name, password)
        if user is None:
            log.warning("login refused", user=name[:64] if name.isprintable() else "?", address=address)
            await self.recorder.login(Actor(name[:64], address), succeeded=False)
            raise self._unknown("Name and password do not go together.")
        self.guessing.right(address, name)
        return user

    async def _by_token(self, request: web.Request, tokens: Tokens, credential: str) -> User:
        address = request[ADDRESS]
        try:
            user = await tokens.check(credential)
        except Denied as error:
            if error.status == 401:
                await self.recorder.login(Actor("a bearer token", address), succeeded=False)
            raise
        await self.recorder.login(Actor(user.name, address), succeeded=True)
        return user

    def _unknown(self, message: str) -> Denied:
        challenge = f"{_BASIC}, {_BEARER}" if self.tokens is not None else _BASIC
        return Denied(message, status=401, code="not_authenticated", headers={"WWW-Authenticate": challenge})

    async def _permitted(self, request: web.Request, user: User, needed: Rule) -> None:
        if needed.role is None or user.role >= needed.role:
            return
        await self._alert(request, Actor(user.name, request[ADDRESS]), f"needs the role {needed.role.name.lower()}")
        raise Denied(
            f"This needs the role {needed.role.name.lower()}; {user.name} is {user.role.name.lower()}.",
            status=403, code="not_permitted",
        )  # fmt: skip

    def _preflight(self, request: web.Request) -> web.Response:
        """Answer a CORS preflight (Fetch Standard 3.2). Raises Denied."""
        if request.headers.get("Origin") not in self.policy.origins or not request.path.startswith(_CORS_PATHS):
            raise Denied("No page of this origin may read here; RELAY_CORS_ORIGINS names those that may.",
                         status=403, code="cross_site")  # fmt: skip
        allowed = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST",
            "Access-Control-Allow-Headers": "Authorization, Accept, Content-Type, If-None-Match, Range",
            "Access-Control-Max-Age": "600",
        }
        return web.Response(status=204, headers=allowed)

    # ---- out ---------------------------------------------------------------------------------------------------------

    async def _record(self, request: web.Request, status: int) -> None:
        recorded = request[_RULE].recorded
        if recorded is Recorded.NOTHING or status == 405:  # 405: no handler, so nothing was shown or done
            return
        actor = Actor(request[USER].name, request[ADDRESS])
        study = request.get(STUDY) or request.match_info.get("study", "")
        exchange = Exchange(actor, recorded, request.method, request.path_qs, status, study)
        await self.recorder.record(exchange, patient_id=self.patient_id)

    async def _announce(self, request: web.Request, needed: Rule) -> None:
        # An action that cannot be recorded must not happen, so it is recorded before, too. http_exception: no route.
        if needed.recorded is Recorded.ACTION and request.match_info.http_exception is None:
            actor = Actor(request[USER].name, request[ADDRESS])
            await self._write_alert(request, actor, EventOutcome.SUCCESS, f"{request.method} begins")

    async def _alert(self, request: web.Request, actor: Actor, why: str) -> None:
        await self._write_alert(request, actor, EventOutcome.MINOR_FAILURE, f"{request.method} was refused: {why}")

    async def _write_alert(self, request: web.Request, actor: Actor, result: EventOutcome, description: str) -> None:
        event = self.recorder.event(result)
        function = messages.RESTRICTED_FUNCTION
        await self.recorder.write(messages.alert(event, actor, function, request.path_qs, description))


def is_preflight(request: web.Request) -> bool:
    """Is this a CORS preflight, and not another OPTIONS request?"""
    return request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers


def _unprepare(request: web.Request) -> None:
    # Another response takes the place of this one: aiohttp has set the writer up for its length, and sent nothing yet.
    if isinstance(request.writer, StreamWriter):
        request.writer.chunked, request.writer.length = False, None


def _is_here(request: web.Request) -> bool:
    address, ours = request[ADDRESS], request.get_extra_info("sockname", ("",))[0]
    return is_loopback(address) or address == ours


def _is_on_display(request: web.Request) -> bool:
    # A wallboard is never locked, and for that reason may show the board alone.
    if request.method in READING and request.path == "/board":
        return "wall" in request.query
    return request.path in {"/events", "/session"}


def _basic(credential: str) -> tuple[str, str]:
    """Read name and password (RFC 7617); both empty when they cannot be read."""
    try:
        name, _, password = base64.b64decode(credential, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return name, password


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _too_many(message: str, wait: float) -> Denied:
    headers: Mapping[str, str] = MappingProxyType({"Retry-After": str(max(1, math.ceil(wait)))})
    return Denied(message, status=429, code="too_many_requests", headers=headers)


def _status(error: Exception) -> int:
    """Predict the status that `relay.web` answers an error with, as far as the trail needs it."""
    if isinstance(error, Denied):
        return error.status
    if isinstance(error, web.HTTPException):
        return error.status
    if isinstance(error, NotFound):
        return 404
    return error.http_status if isinstance(error, Refusal) else 500
