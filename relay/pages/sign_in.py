"""Signing in and out at a browser: the form, the redirects, and the session's heartbeat.

The middleware redirects to the form, and the form redirects back, to a path of this server only. Signing in makes a new
session, ends the previous one, and is in the audit trail before it counts. Every form works without scripts.

Not here: checking passwords (`relay.access.middleware`), the identity provider (`relay.access.oidc_login`), sessions
(`relay.access.sessions`), cookies (`relay.access.cookies`).
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
    """The handlers. Each raises NotFound where it has no use: without users, or without an identity provider."""

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
        """Show the form, with the user's name if the session is locked. Raises NotFound without users."""
        self._expect_users()
        where = cookies.local(request.query.get("next", ""))
        # The cookie is SameSite=Strict: a visitor by a link of another site sends it with the next request only.
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            return onward(where)
        return self._form(request, where)

    async def sign_in(self, request: web.Request) -> web.Response:
        """Begin a session and redirect back; with a wrong password show the form again."""
        self._expect_users()
        form = await request.post()
        name, password = str(form.get("name", "")).strip(), str(form.get("password", ""))
        where, is_display = cookies.local(str(form.get("next", ""))), form.get("display") == "on"
        account = self._access.passwords.account(name)  # before the check: a change during it ends the session
        try:
            user = await self._access.by_password(request[ADDRESS], name, password)
        except Denied as error:
            status = 403 if error.status == 401 else error.status  # 401 would open the browser's password dialog
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
        """Send the browser to the identity provider."""
        code = self._expect_provider()
        form = await request.post()
        where, ours = cookies.local(str(form.get("next", ""))), cookies.origin(request)
        try:
            state, address = await code.begin(ours, where)
        except Denied as error:
            return self._form(request, where, status=error.status, trouble=str(error))
        # By a page of ours, because form-action forbids that a form is redirected to another site.
        response = onward(address)
        # Lax: the browser comes back by a redirect from the provider's site.
        cookies.give(
            response, cookies.PROVIDER, state, origin=ours, same_site="Lax", seconds=round(oidc_login.PATIENCE_SECONDS)
        )
        return response

    async def come_back(self, request: web.Request) -> web.Response:
        """Begin a session for the identity provider's user and redirect back; else show the form with the reason."""
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
        response = onward(begun.where)  # a request from our own page has the Strict cookie, a redirect would not
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
        """Answer 204: the session goes on; else the middleware answers 401. POST: a person is active."""
        return web.Response(status=204)

    async def _exchange(self, request: web.Request, user: User) -> None:
        # Recorded before the session exists: one that cannot be recorded may not begin.
        await self._access.recorder.signed_in(Actor(user.name, request[ADDRESS]))
        await self._end(request)

    async def _end(self, request: web.Request) -> None:
        # The end of a locked session is in the trail since the first request after it.
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
    """Make a page that redirects to `where`, so that the browser takes the next request for one of this site."""
    return bare_page("redirect.html", where=where)
