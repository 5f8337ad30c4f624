"""The cookies of signing in (RFC 6265bis), whether a request is a page for a person, and where one may be led to. Pure.

Rules. Where the browser speaks HTTPS, whoever ends TLS, the cookie is Secure and named `__Host-`, so that no other host
and no plain connection can set it. What the browser speaks is in the Origin of the form that signs in.

Not here: what a cookie proves (`relay.access.sessions`), the forms (`relay.pages.sign_in`).
"""

import re
from typing import Literal
from urllib.parse import quote, urlsplit

from aiohttp import web

SESSION, PROVIDER = "gateway-session", "gateway-provider"
"""Who is signed in; and meanwhile, which browser was sent to the identity provider."""

DISPLAY_SECONDS = 400 * 86_400
"""The longest a browser keeps a cookie: a display that is switched off at night stays signed in."""

_LOCAL = re.compile(r"/(?:[!-.0-\[\]-~][!-\[\]-~]*)?")
"""A path on this server: no host behind two slashes, and no backslash, which browsers take for one."""

_READING = ("GET", "HEAD")
_NEVER = ("/sign-in", "/sign-out", "/session")


def is_page(request: web.Request) -> bool:
    """Does a person open a page? Scripts of pages, images and programs do not ask for HTML."""
    return request.method in _READING and is_page_or_form(request)


def is_page_or_form(request: web.Request) -> bool:
    """Will a person see the answer, to a page or to a form that was sent?"""
    return "text/html" in request.headers.get("Accept", "")


def is_by_person(request: web.Request) -> bool:
    """Did a person do something? A page that asks for itself again, with `refresh` or by script, did not."""
    return request.method not in _READING or (is_page(request) and "refresh" not in request.query)


def is_browser(request: web.Request) -> bool:
    """Was this sent by a browser, for a page or its script? (Fetch Metadata, or a cookie of ours)"""
    return "Sec-Fetch-Mode" in request.headers or bool(value(request, SESSION))


def local(path: str) -> str:
    """Where somebody may be led after signing in: the path, if it is one of this server, else the overview."""
    is_local = _LOCAL.fullmatch(path) and path.partition("?")[0] not in _NEVER and not path.startswith("/sign-in/")
    return path if is_local else "/"


def sign_in_path(request: web.Request) -> str:
    """The sign-in page that leads back to what is asked for; for a form, to the page that has it."""
    asked = request.path_qs if request.method in _READING else _path(request.headers.get("Referer", ""))
    return f"/sign-in?next={quote(local(asked), safe='/')}"


def _path(url: str) -> str:
    try:
        found = urlsplit(url)
    except ValueError:  # brackets that do not close
        return "/"
    return f"{found.path}?{found.query}" if found.query else found.path


def origin(request: web.Request) -> str:
    """What the browser calls this server, behind whatever proxy; only for what passed the door as of the same site."""
    said = request.headers.get("Origin", "null")
    return said if said != "null" else f"{request.scheme}://{request.host}"


def value(request: web.Request, name: str) -> str:
    """The value of a cookie; by HTTPS only of the one that was set by HTTPS."""
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
    """Let the browser keep a token, for so many seconds or as long as it runs."""
    secure = origin.startswith("https://")
    response.set_cookie(
        f"__Host-{name}" if secure else name, token,
        path="/", httponly=True, secure=secure, samesite=same_site, max_age=seconds,
    )  # fmt: skip


def take(response: web.Response, name: str) -> None:
    """Let the browser forget it, under both names."""
    response.set_cookie(name, "", path="/", max_age=0, httponly=True, samesite="Strict")
    response.set_cookie(f"__Host-{name}", "", path="/", max_age=0, httponly=True, samesite="Strict", secure=True)
