"""The DICOMweb root over HTTP (PS3.18): its routes, searching (QIDO-RS) and deleting.

A handler reads the request, asks the archive in a thread, and sends. Errors are raised; `relay.web` answers them.
Deleting is off unless a setting allows it, and obeys the rules of retention (`pacs.delete`).

Not here: retrieval (`relay.dicomweb.wado_rs`, `relay.dicomweb.wado_uri`, `relay.dicomweb.rendered`), storing
(`relay.dicomweb.stow`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from aiohttp import web

from gateway.errors import InvalidQuery, Refusal
from pacs import Archive, RetentionPolicy, delete
from relay.dicomweb import qido, resources
from relay.dicomweb.json_answers import dumped
from relay.dicomweb.rendered import Pictures
from relay.dicomweb.resources import INSTANCE, ROOT, SERIES, STUDY
from relay.dicomweb.spool import Spool
from relay.dicomweb.stow import Stow
from relay.dicomweb.stow_store import StowStore
from relay.dicomweb.wado_rs import Retrieval
from relay.dicomweb.wado_uri import WadoUri
from relay.render_pool import Renderer

__all__ = ["ROOT", "Changes", "DicomWeb"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class NotOffered(Refusal):
    """The settings of this site do not allow the operation."""

    dimse_status: ClassVar[int] = 0x0124
    http_status: ClassVar[int] = 403
    code: ClassVar[str] = "not_offered"


@dataclass(frozen=True)
class Changes:
    """The changes that DICOMweb may make; `stow_store` or `deletes` None: none of the kind."""

    stow_store: StowStore | None = None
    largest_upload: int = 0
    """Bytes of one request."""
    deletes: RetentionPolicy | None = None


class DicomWeb:
    """The handlers of the DICOMweb root. `spool` has to be open."""

    def __init__(
        self,
        archive: Archive,
        renderer: Renderer,
        spool: Spool,
        changes: Changes = Changes(),
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._archive = archive
        self._changes = changes
        self._clock = clock
        retrieval, pictures = Retrieval(archive, renderer, spool), Pictures(archive, renderer)
        self._routes = [*retrieval.routes(), *pictures.routes(), *WadoUri(archive, retrieval, pictures).routes()]
        if changes.stow_store:
            stow = Stow(archive, changes.stow_store, renderer, spool, most_bytes=changes.largest_upload)
            self._routes += stow.routes()
        else:
            self._routes += [web.post(f"{ROOT}/studies", self.not_stored), web.post(ROOT + STUDY, self.not_stored)]

    def routes(self) -> list[web.RouteDef]:
        """Return a route for each resource and method."""
        searches = [
            ("/studies", self._searching("STUDY")),
            ("/series", self._searching("SERIES")),
            ("/instances", self._searching("IMAGE")),
            (STUDY + "/series", self._searching("SERIES")),
            (STUDY + "/instances", self._searching("IMAGE")),
            (SERIES + "/instances", self._searching("IMAGE")),
        ]
        deletions = [web.delete(ROOT + path, self.delete) for path in (STUDY, SERIES, INSTANCE)]
        return [*(web.get(ROOT + path, handler) for path, handler in searches), *self._routes, *deletions]

    def _searching(self, level: qido.Level) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await self.search(request, level)

        return handler

    async def search(self, request: web.Request, level: qido.Level) -> web.Response:
        """QIDO-RS (PS3.18 Section 10.6): 200 with results, 204 without, Warning 299 when there are more."""
        media_type = resources.json_type(request)
        path = {resources.KEYS[name]: uid for name, uid in request.match_info.items()}
        search = qido.read(level, path, request.query.items())
        body, count = await asyncio.to_thread(self._found, search, resources.root(request))
        response = web.Response(body=body, content_type=media_type) if body else web.Response(status=204)
        for warning in (*search.warnings, *([qido.MORE] if count > search.limit else [])):
            response.headers.add("Warning", f'299 screening-gateway "{warning}"')
        return response

    def _found(self, search: qido.Search, root: str) -> tuple[bytes, int]:
        # One match more than the limit is looked for: it shows that the warning MORE is due.
        if names := self._archive.unmatched(search.level, search.identifier):
            raise InvalidQuery(f"{', '.join(names)} cannot be matched at this level.")
        matches = self._archive.find(search.level, search.identifier, limit=search.limit + 1, offset=search.offset)
        answers = qido.answers(search, matches[: search.limit], root)
        return dumped(answers) if answers else b"", len(matches)

    async def delete(self, request: web.Request) -> web.Response:
        """Delete a study, series or instance if retention allows it: 204, else 409 with every reason."""
        # No part of the standard; dicomweb-client has calls for it.
        uids = resources.uids(request)
        if self._changes.deletes is None:
            raise NotOffered("Nothing is deleted over HTTP here; RELAY_DELETE would allow it.")
        await asyncio.to_thread(delete, self._archive, self._changes.deletes, *uids, now=self._clock())
        return web.Response(status=204)

    async def not_stored(self, _: web.Request) -> web.Response:
        """Refuse an upload. Raises NotOffered."""
        raise NotOffered("Nothing can be uploaded over HTTP here; RELAY_LARGEST_UPLOAD would allow it.")
