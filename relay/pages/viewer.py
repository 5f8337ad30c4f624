"""The viewer at /viewer: OHIF's files from the data folder, the page and the configuration that make it ours.

Rules. What OHIF's makers wrote is installed once (`gateway viewer install`) and lies in a folder of its own; what we
wrote comes with this package, so that an update of the gateway updates it. Only names of a known kind are files, any
other path is a page of the viewer. The gateway works without it, and says how to add it. Studies are opened from our
own pages: OHIF's list shows a server that fails as one that is empty.

OHIF's decoders of JPEG 2000, JPEG-LS and HTJ2K evaluate code that they put together. They run in workers, and a worker
obeys the policy its script came with: so scripts come with one that allows it, and no page does.

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
"""Written into the folder by the installer: which edition lies there."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self' 'unsafe-inline'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
WORKER_POLICY = "default-src 'none'; script-src 'self' 'unsafe-eval'; connect-src 'self'"
"""Counts for a script only where it is started as a worker, which has no page it could do harm to."""

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
    """Whether the version of OHIF that this gateway is made for lies in the folder. Reads one small file."""
    try:
        mark = json.loads((folder / MARK).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(mark, dict) and mark.get("edition") == viewer_bundle.EDITION


def link(study_instance_uid: str) -> str:
    """The address of a study in the viewer, on this server."""
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
        """Lead to our own list of studies, where studies are found and errors are told from emptiness."""
        await self._expect_installed()
        return web.Response(status=302, headers={"Location": "/studies"})

    async def file(self, request: web.Request) -> web.StreamResponse:
        """Give a file of the viewer, compressed if there is a compressed one, or the page for any other path."""
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
        ours = _OURS / name
        return ours if ours.is_file() else self._folder / name

    async def _expect_installed(self) -> None:
        if not await asyncio.to_thread(is_installed, self._folder):
            raise NotFound(
                "The viewer is not installed on this gateway. An engineer adds it with the command "
                "'gateway viewer install'; the list of studies leads to the pictures of each without it."
            )


def caching(name: str) -> str:
    """How long a browser may keep a file.

    For ever, when its name has the hash of its content; files that we change keep their name, so that it is asked for
    them each time, as for all others.
    """
    return (
        "max-age=31536000, immutable" if _HASHED.fullmatch(name) and name not in viewer_bundle.CHANGES else "no-cache"
    )
