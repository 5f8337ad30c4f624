"""The cookies of browser sessions (RFC 6265bis), and what kind of browser request is at hand. Pure.

Where the browser speaks HTTPS, to us or to a proxy, the cookie is Secure and named `__Host-`, so that no other host and
no plain connection can set it. The Origin of the sign-in form shows which scheme the browser speaks.

Not here: what a cookie proves (`relay.access.sessions`), forms (`relay.pages.sign_in`).
"""

import re
from typing import Literal
from urllib.parse import quote, urlsplit

from aiohttp import web

SESSION, PROVIDER = "gateway-session", "gateway-provider"
"""The session; and meanwhile, the browser that was sent to the identity provider."""

DISPLAY_SECONDS = 400 * 86_400
"""The longest a browser keeps a cookie: a display that is switched off at night stays signed in."""

_LOCAL = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]*)?")
"""A path on this server: no host behind two slashes, and no backslash, which browsers take for one."""

_READING = ("GET", "HEAD")
_NEVER = ("/sign-in", "/sign-out", "/session")


def is_page(request: web.Request) -> bool:
    """Is this a page load? Scripts of pages, images and programs do not accept HTML."""
    return request.method in _READING and is_page_or_form(request)


def is_page_or_form(request: web.Request) -> bool:
    """Is the answer shown in a browser, to a page load or to a form?"""
    return "text/html" in request.headers.get("Accept", "")


def is_by_person(request: web.Request) -> bool:
    """Does this request extend a session? Page loads and changes do; a page that renews itself, with `refresh` or by
    script, does not."""
    return request.method not in _READING or (is_page(request) and "refresh" not in request.query)


def is_browser(request: web.Request) -> bool:
    """Does this come from a browser? Fetch Metadata or our session cookie shows it."""
    return "Sec-Fetch-Mode" in request.headers or bool(value(request, SESSION))


def local(path: str) -> str:
    """Return the page to open after signing in: `path` if it is one of this server, else the overview."""
    # No open redirect; and not back to signing in or out.
    is_local = _LOCAL.fullmatch(path) and path.partition("?")[0] not in _NEVER and not path.startswith("/sign-in/")
    return path if is_local else "/"


def sign_in_path(request: web.Request) -> str:
    """Return the address of the sign-in page that leads back to this page; for a form, to the page that has it."""
    back = request.path_qs if request.method in _READING else _path(request.headers.get("Referer", ""))
    return f"/sign-in?next={quote(local(back), safe='/')}"


def _path(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that do not close
        return "/"
    return f"{parts.path}?{parts.query}" if parts.query else parts.path


def origin(request: web.Request) -> str:
    """Return the origin under which the browser knows this server, behind proxies as well.

    Only for requests that the middleware has let pass as of the same site: they cannot lie about it.
    """
    sent = request.headers.get("Origin", "null")
    return sent if sent != "null" else f"{request.scheme}://{request.host}"


def value(request: web.Request, name: str) -> str:
    """Return the value of a cookie, empty when absent; over HTTPS only of the one that was set over HTTPS."""
    found = request.cookies.get(f"__Host-{name}", "")
    return found if found or request.secure else request.cookies.get(name, "")


def give(
    response: web.Response,
    name: str,
    token: str,
    *,
    origin: str,
    same_site: Literal["Strict", "Lax"] = "Strict",
    seconds: int | None = None,
) -> None:
    """Set a cookie for `seconds`, or without them for as long as the browser runs."""
    secure = origin.startswith("https://")
    response.set_cookie(
        f"__Host-{name}" if secure else name, token,
        path="/", httponly=True, secure=secure, samesite=same_site, max_age=seconds,
    )  # fmt: skip


def take(response: web.Response, name: str) -> None:
    """Delete a cookie, under both names."""
    response.set_cookie(name, "", path="/", max_age=0, httponly=True, samesite="Strict")
    response.set_cookie(f"__Host-{name}", "", path="/", max_age=0, httponly=True, samesite="Strict", secure=True)
