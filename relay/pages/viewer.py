"""The viewer at /viewer: OHIF's files from the data folder, with our own page, style and configuration.

OHIF is installed by `gateway viewer install` into a folder of its own; our files come with this package. A path that is
no file name of a known type is a page of the viewer. Without OHIF the handlers raise NotFound, with the remedy.

Not here: OHIF's files themselves (`relay.pages.viewer_bundle`).
"""

import asyncio
import json
import re
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from gateway.errors import NotFound
from relay.pages import viewer_bundle
from relay.pages.viewer_bundle import ROOT

MARK = "installed.json"
"""Written by the installer: the edition in the folder."""

# 'unsafe-inline' for styles alone, because OHIF writes them inline.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self' 'unsafe-inline'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# OHIF's decoders of JPEG 2000, JPEG-LS and HTJ2K build functions out of text; with wasm-unsafe-eval alone such images
# stay black. They run in workers, and a worker obeys the policy of its own script.
WORKER_POLICY = "default-src 'none'; script-src 'self' 'unsafe-eval'; connect-src 'self'"
"""Has an effect only in a worker, which has no page; the page itself may not evaluate code."""

_OURS = Path(str(files("relay") / "pages" / "viewer_page"))
_PAGE = "index.html"
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)
_HASHED = re.compile(r"(.+\.)?[0-9a-f]{16}\.\w+")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".wasm": "application/wasm",
    ".woff2": "font/woff2",
}


def is_installed(folder: Path) -> bool:
    """Does the folder hold the edition of OHIF that this gateway is made for? Reads one small file."""
    try:
        mark = json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(mark, dict) and mark.get("edition") == viewer_bundle.EDITION


def link(study_instance_uid: str) -> str:
    """Return the path of a study in the viewer."""
    return f"{ROOT}viewer?StudyInstanceUIDs={quote(study_instance_uid, safe='')}"


class Viewer:
    """The handlers below /viewer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(ROOT.rstrip("/"), self.entry),
            web.get(ROOT, self.entry),
            web.get(ROOT + "{name:.+}", self.file),
        ]

    async def entry(self, _: web.Request) -> web.StreamResponse:
        """Redirect to our own list of studies."""
        await self._expect_installed()
        # OHIF's own list says "no studies" when the server fails, and screen readers cannot use it.
        return web.Response(status=302, headers={"Location": "/studies"})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Send a file of the viewer, compressed if there is a compressed one, or the page for any other path."""
        await self._expect_installed()
        name = request.match_info["name"]
        path = self._path(name) if Path(name).suffix else _OURS / _PAGE
        if path is None or not await asyncio.to_thread(path.is_file):
            raise NotFound("The viewer has no such file.")
        headers = {
            "Content-Type": _TYPES[path.suffix],
            "Content-Security-Policy": WORKER_POLICY if path.suffix == ".js" else PAGE_POLICY,
            "Cache-Control": caching(path.name),
        }
        return web.FileResponse(path, headers=headers)

    def _path(self, name: str) -> Path | None:
        if not _NAME.fullmatch(name) or Path(name).suffix not in _TYPES:
            return None
        ours = _OURS / name  # first, so that an update of the gateway updates them without a new installation
        return ours if ours.is_file() else self._folder / name

    async def _expect_installed(self) -> None:
        if not await asyncio.to_thread(is_installed, self._folder):
            raise NotFound(
                "The viewer is not installed on this gateway. An engineer adds it with the command "
                "'gateway viewer install'; the list of studies leads to the pictures of each without it."
            )


def caching(name: str) -> str:
    """Return the Cache-Control of a file: for ever if its name has the hash of its content, else revalidated."""
    # The files that we change keep OHIF's name, so the hash in it is not that of their content.
    return (
        "max-age=31536000, immutable" if _HASHED.fullmatch(name) and name not in viewer_bundle.CHANGES else "no-cache"
    )
