"""Handlers of the REST for scripts under /api/v1; each unpacks, asks the archive or worklist, and answers.

Lists are paged by cursors. Sending to a peer enqueues a row that the archive's process works off (`pacs.ForwardQueue`).

Not here: operations and parameters (`relay.api.operations`), answers (`relay.api.schemas`), DICOMweb.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

import gateway
from gateway.errors import NotFound, UnknownDestination
from pacs import Archive, ForwardQueue, Stored, preview
from relay.access.middleware import STUDY
from relay.api import operations, schemas
from relay.api.operations import DEFAULT_LIMIT, OPERATIONS, PATH, ROOT, Operation
from relay.api.zip_stream import zipped
from relay.dicomweb import conditional
from relay.dicomweb.bodies import send
from relay.dicomweb.negotiation import DICOM, Slice, part_type
from relay.render_pool import Renderer
from worklist import Worklist

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["ROOT", "Rest"]

Parameters = dict[str, str]
"""The parameters of path and query."""

Doing = Callable[[web.Request, Parameters], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Rest:
    """The handlers; each has the name of its operation."""

    def __init__(
        self,
        archive: Archive,
        worklist: Worklist,
        renderer: Renderer,
        *,
        peers: Sequence[str],
        clock: Callable[[], datetime],
    ) -> None:
        self._archive = archive
        self._listing = archive.listing
        self._forwarding = ForwardQueue(archive)
        self._worklist = worklist
        self._renderer = renderer
        self._peers = tuple(peers)
        self._clock = clock

    def routes(self) -> list[web.RouteDef]:
        """List a route for each operation, and HEAD for each GET."""
        return [web.route(each.method, ROOT + each.path, self._handling(each)) for each in OPERATIONS] + [
            web.head(ROOT + each.path, self._handling(each)) for each in OPERATIONS if each.method == "GET"
        ]

    def _handling(self, operation: Operation) -> Handler:
        do: Doing = getattr(self, operation.name)

        async def handler(request: web.Request) -> web.StreamResponse:
            parameters = {name: PATH[name].read(value) for name, value in request.match_info.items()}
            return await do(request, parameters | operations.parameters(operation, request.query.items()))

        return handler

    async def list_studies(self, _: web.Request, parameters: Parameters) -> web.Response:
        limit = int(parameters.get("limit", DEFAULT_LIMIT))
        before = int(parameters["cursor"]) if "cursor" in parameters else None
        matched = {name: parameters[name] for name in ("study_date", "accession_number") if name in parameters}
        # One row more than the limit shows whether there is a next page.
        rows = await asyncio.to_thread(self._listing.studies, before=before, limit=limit + 1, **matched)
        cursor = str(rows[limit - 1].id) if len(rows) > limit else ""  # a row id: no arrival or removal moves it
        return _json(schemas.Studies(tuple(map(schemas.study, rows[:limit])), cursor))

    async def show_study(self, _: web.Request, parameters: Parameters) -> web.Response:
        return _json(schemas.study(await asyncio.to_thread(self._listing.study, parameters["study"])))

    async def list_series(self, _: web.Request, parameters: Parameters) -> web.Response:
        rows = await asyncio.to_thread(self._listing.series, parameters["study"])
        return _json(schemas.SeriesList(tuple(schemas.series(parameters["study"], row) for row in rows)))

    async def list_instances(self, _: web.Request, parameters: Parameters) -> web.Response:
        uids = [parameters[name] for name in ("study", "series") if name in parameters]
        found = await asyncio.to_thread(self._archive.locate, *uids)
        begin = int(parameters.get("cursor", 0))  # a position: the objects of a study keep their order
        end = begin + int(parameters.get("limit", DEFAULT_LIMIT))
        cursor = str(end) if end < len(found) else ""
        return _json(schemas.Instances(tuple(map(schemas.instance, found[begin:end])), cursor))

    list_instances_of_series = list_instances

    async def get_archive(self, request: web.Request, parameters: Parameters) -> web.StreamResponse:
        found = await asyncio.to_thread(self._archive.locate, parameters["study"])
        # Before the status line, because a ZIP archive that has begun can only be cut off.
        await asyncio.to_thread(_require_files, found)
        headers = {
            "Content-Type": "application/zip",
            "Content-Disposition": f'attachment; filename="{parameters["study"]}.zip"',
        }
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            async for block in _in_threads(zipped(map(_entry, found))):
                await response.write(block)
        await response.write_eof()
        return response

    async def show_instance(self, request: web.Request, parameters: Parameters) -> web.Response:
        return _json(schemas.instance(await self._instance(request, parameters)))

    async def get_file(self, request: web.Request, parameters: Parameters) -> web.StreamResponse:
        stored = await self._instance(request, parameters)
        headers = {
            "Content-Type": part_type(DICOM, stored.transfer_syntax_uid),
            "Content-Disposition": f'attachment; filename="{stored.sop_instance_uid}.dcm"',
        }
        current = conditional.version("file", stored.sha256, modified=stored.received_at)
        return await send(request, [Slice(stored.path, 0, stored.size_bytes)], headers, current)

    async def get_preview(self, request: web.Request, parameters: Parameters) -> web.Response:
        stored = await self._instance(request, parameters)
        picture = await self._renderer.run(preview, stored.path)
        return web.Response(body=picture.data, content_type=picture.media_type)

    async def send_study(self, request: web.Request, parameters: Parameters) -> web.Response:
        return await self._enqueue(request, study_instance_uid=parameters["study"])

    async def send_instance(self, request: web.Request, parameters: Parameters) -> web.Response:
        return await self._enqueue(request, sop_instance_uid=parameters["instance"])

    async def show_worklist(self, _: web.Request, parameters: Parameters) -> web.Response:
        date = parameters.get("date") or f"{self._clock().astimezone():%Y%m%d}"
        items = await asyncio.to_thread(self._worklist.items, date=date)
        return _json(schemas.Appointments(date, tuple(map(schemas.appointment, items))))

    async def list_changes(self, _: web.Request, parameters: Parameters) -> web.Response:
        since, limit = int(parameters.get("since", 0)), int(parameters.get("limit", DEFAULT_LIMIT))
        # Numbers of a counter of its own, because ids of instances are used again after the newest is removed, and
        # times are equal within a millisecond.
        found = await asyncio.to_thread(self._listing.changes, since, limit=limit + 1)
        changes = tuple(schemas.Change(**asdict(change)) for change in found[:limit])
        return _json(schemas.Changes(changes, changes[-1].number if changes else since, len(found) > limit))

    async def list_peers(self, _: web.Request, _parameters: Parameters) -> web.Response:
        return _json(schemas.Peers(tuple(map(schemas.Peer, self._peers))))

    async def show_openapi(self, _: web.Request, _parameters: Parameters) -> web.Response:
        return web.json_response(operations.document(gateway.__version__))

    async def _instance(self, request: web.Request, parameters: Parameters) -> Stored:
        stored = await asyncio.to_thread(self._archive.instance, parameters["instance"])
        request[STUDY] = stored.study_instance_uid  # for the audit trail: the path does not have it
        return stored

    async def _enqueue(self, request: web.Request, **uid: str) -> web.Response:
        # A row of the queue and 202, because a study can take longer than a request and the peer may be away.
        to = operations.destination(await request.read())
        if to not in self._peers:
            raise UnknownDestination("There is no such peer; /api/v1/peers has those that PACS_PEERS names.")
        count = await asyncio.to_thread(self._forwarding.ask, to, now=self._clock(), **uid)
        return _json(schemas.Owed(to, count), status=202)


def _json(shape: "DataclassInstance", *, status: int = 200) -> web.Response:
    # "replace": text of a broken character set may have lone surrogates, which UTF-8 does not.
    body = json.dumps(asdict(shape), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return web.Response(body=body, status=status, content_type="application/json")


def _entry(stored: Stored) -> tuple[str, Path, int]:
    return f"{stored.series_instance_uid}/{stored.sop_instance_uid}.dcm", stored.path, stored.size_bytes


def _require_files(found: Sequence[Stored]) -> None:
    if gone := [stored for stored in found if not stored.path.is_file()]:
        raise NotFound(f"{len(gone)} files of this study are gone though the index has them; run 'gateway fsck'.")


async def _in_threads(blocks: Iterator[bytes]) -> AsyncIterator[bytes]:
    # Each step of the iterator reads a file, so each is a call of its own in a thread.
    while (block := await asyncio.to_thread(next, blocks, None)) is not None:
        yield block
