"""Signing in and out at a browser: the form, the way back to where somebody was, and what a page asks of its session.

Rules. A page that nobody may see yet leads here (`relay.access.middleware`) and from here back, only ever to a path of
this server. Signing in makes a new session and ends the one before; it is in the audit trail before it counts. Every
form works without scripts. The cookie is SameSite=Strict: who comes by a link of another site has it with the next
request, so such a visit is passed on by a page of ours first.

Not here: checking passwords (`relay.access.middleware`), what the identity provider is asked
(`relay.access.oidc_login`), how long sessions last (`relay.access.sessions`), how cookies look
(`relay.access.cookies`).
"""

from aiohttp import web

from gateway.audit.messages import Actor
from gateway.errors import Denied, NotFound
from relay.access import cookies, oidc_login
from relay.access.middleware import ADDRESS, AccessControl
from relay.access.oidc_login import CodeFlow
from relay.access.users import User
from relay.pages.html import bare_page


class SignIn:
    """The handlers. They are there as long as anybody can be known."""

    def __init__(self, access: AccessControl) -> None:
        self._access = access

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/sign-in", self.form),
            web.post("/sign-in", self.sign_in),
            web.post("/sign-out", self.sign_out),
            web.post("/sign-in/provider", self.ask_provider),
            web.get(oidc_login.RETURN, self.come_back),
            web.get("/session", self.session),
            web.post("/session", self.session),
        ]

    async def form(self, request: web.Request) -> web.Response:
        """Ask who it is, and say who was here if the session is locked. Raises NotFound while nobody is known."""
        self._expect_users()
        where = cookies.local(request.query.get("next", ""))
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            return onward(where)
        return self._form(request, where)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Begin a session and lead back. A wrong password gives the form again, with 403: 401 would ask in a window."""
        self._expect_users()
        form = await request.post()
        name, password = str(form.get("name", "")).strip(), str(form.get("password", ""))
        where, is_display = cookies.local(str(form.get("next", ""))), form.get("display") == "on"
        account = self._access.passwords.account(name)  # before the check: what changes meanwhile ends the session
        try:
            user = await self._access.by_password(request[ADDRESS], name, password)
        except Denied as error:
            status = 403 if error.status == 401 else error.status
            page = self._form(request, where, status=status, name=name, trouble=str(error), is_display=is_display)
            if "Retry-After" in error.http_headers:
                page.headers["Retry-After"] = error.http_headers["Retry-After"]
            return page
        response = web.Response(status=303, headers={"Location": "/board?wall" if is_display else where})
        await self._exchange(request, user)
        token = self._access.sessions.begin(user, account, is_display=is_display)
        seconds = cookies.DISPLAY_SECONDS if is_display else None
        cookies.give(response, cookies.SESSION, token, origin=cookies.origin(request), seconds=seconds)
        return response

    async def ask_provider(self, request: web.Request) -> web.Response:
        """Lead to the identity provider. By a page of ours: a form may not be passed on to another site."""
        code = self._expect_provider()
        form = await request.post()
        where, ours = cookies.local(str(form.get("next", ""))), cookies.origin(request)
        try:
            state, address = await code.begin(ours, where)
        except Denied as error:
            return self._form(request, where, status=error.status, trouble=str(error))
        response = onward(address)
        # Lax: the way back is a visit from the provider's site.
        cookies.give(
            response, cookies.PROVIDER, state, origin=ours, same_site="Lax", seconds=round(oidc_login.PATIENCE_SECONDS)
        )
        return response

    async def come_back(self, request: web.Request) -> web.Response:
        """Begin a session for whom the identity provider vouches, and lead back; else the form with what was wrong."""
        code = self._expect_provider()
        state = cookies.value(request, cookies.PROVIDER)
        try:
            user, begun = await code.finish(request.query, state)
        except Denied as error:
            await self._access.recorder.login(Actor("the identity provider", request[ADDRESS]), succeeded=False)
            response = self._form(request, "/", status=403 if error.status == 401 else error.status, trouble=str(error))
            cookies.take(response, cookies.PROVIDER)
            return response
        await self._exchange(request, user)
        response = onward(begun.where)
        cookies.take(response, cookies.PROVIDER)
        cookies.give(response, cookies.SESSION, self._access.sessions.begin(user, None), origin=begun.origin)
        return response

    async def sign_out(self, request: web.Request) -> web.Response:
        """End the session, if there is one, and show the form."""
        await self._end(request)
        response = web.Response(status=303, headers={"Location": "/sign-in?out"})
        cookies.take(response, cookies.SESSION)
        return response

    async def session(self, _: web.Request) -> web.Response:
        """Say that the session goes on; the door says 401 when it does not. POST: a person is there."""
        return web.Response(status=204)

    async def _exchange(self, request: web.Request, user: User) -> None:
        """Record that somebody signs in, before it counts, and end the session that was here."""
        await self._access.recorder.signed_in(Actor(user.name, request[ADDRESS]))
        await self._end(request)

    async def _end(self, request: web.Request) -> None:
        """End the session of this browser, and tell so unless that was done when it was locked."""
        found = self._access.sessions.end(cookies.value(request, cookies.SESSION))
        if found is not None and not found.is_end_recorded:
            await self._access.recorder.signed_out(Actor(found.user.name, request[ADDRESS]))

    def _form(
        self,
        request: web.Request,
        where: str,
        *,
        status: int = 200,
        name: str = "",
        trouble: str = "",
        is_display: bool = False,
    ) -> web.Response:
        found = self._access.sessions.find(cookies.value(request, cookies.SESSION))
        return bare_page(
            "sign_in.html", status=status, where=where, name=name, trouble=trouble, is_display=is_display,
            locked=found.user.name if found is not None and found.is_over else "",
            provider=self._access.code.host if self._access.code is not None else "",
            is_out="out" in request.query, minutes=self._access.sessions.idle_seconds / 60,
        )  # fmt: skip

    def _expect_provider(self) -> CodeFlow:
        if self._access.code is None:
            raise NotFound("No identity provider signs people in here; RELAY_OIDC_CLIENT_ID says so.")
        return self._access.code

    def _expect_users(self) -> None:
        if self._access.is_open():
            raise NotFound("Nobody has to sign in here, as long as there are no users ('gateway users add').")


def onward(where: str) -> web.Response:
    """Lead somewhere by a page of ours, so that the browser takes it for our own request."""
    return bare_page("redirect.html", where=where)
