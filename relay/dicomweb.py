"""DICOMweb over HTTP (PS3.18): thin handlers between aiohttp and the archive.

Every handler does the same: read what is asked (`relay.qido`, `relay.wado`), ask the archive in a thread, send
(`relay.bodies`). Everything here only reads. Errors are raised and become answers in `relay.web`.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from aiohttp import web

from gateway.errors import InvalidQuery
from pacs import Archive, Picture, Stored, Viewport, frames, rendered
from relay import qido, wado
from relay.bodies import send, send_parts, stream_parts
from relay.bulkdata import bulk_data
from relay.dicom_json import DicomJson, published, text
from relay.rendering import Renderer
from relay.wado import MediaRange, Offer, Part, Rendering, Slice

ROOT = "/dicom-web"
STUDY = "/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"
FRAMES = INSTANCE + "/frames/{frames}"

THUMBNAIL = Viewport(256, 256)
THUMBNAIL_QUALITY = 75

_KEYS = {"study": qido.STUDY_INSTANCE_UID, "series": qido.SERIES_INSTANCE_UID, "instance": qido.SOP_INSTANCE_UID}
_BATCH = 20
"""Data sets of metadata per write; a mammogram's has 10 kB, a tomosynthesis's up to 1 MB."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Target = tuple[Stored, int | None]
"""What is rendered: an instance and one of its frames, None for the one that represents it."""
T = TypeVar("T")


class DicomWeb:
    """The handlers of the DICOMweb root."""

    def __init__(self, archive: Archive, renderer: Renderer) -> None:
        self._archive = archive
        self._renderer = renderer

    def routes(self) -> list[web.RouteDef]:
        """Return every resource of QIDO-RS and WADO-RS that there is."""
        table: list[tuple[str, Handler]] = [
            ("/studies", self._searching("STUDY")),
            ("/series", self._searching("SERIES")),
            ("/instances", self._searching("IMAGE")),
            (STUDY + "/series", self._searching("SERIES")),
            (STUDY + "/instances", self._searching("IMAGE")),
            (SERIES + "/instances", self._searching("IMAGE")),
            (INSTANCE + "/bulkdata/{location:.+}", self.bulk_data),
            (FRAMES, self.frames),
            (FRAMES + "/rendered", self.rendered),
            (FRAMES + "/thumbnail", self.thumbnail),
        ]
        for resource in (STUDY, SERIES, INSTANCE):
            table += [
                (resource, self.retrieve),
                (resource + "/metadata", self.metadata),
                (resource + "/rendered", self.rendered),
                (resource + "/thumbnail", self.thumbnail),
            ]
        return [web.get(ROOT + path, handler) for path, handler in table]

    def _searching(self, level: qido.Level) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await self.search(request, level)

        return handler

    async def search(self, request: web.Request, level: qido.Level) -> web.Response:
        """QIDO-RS (PS3.18 Section 10.6): 200 with results, 204 without, Warning 299 when there are more."""
        media_type = _json_type(request)
        path = {_KEYS[name]: uid for name, uid in request.match_info.items()}
        search = qido.read(level, path, request.query.items())
        matches = await asyncio.to_thread(self._found, search)
        answers = qido.answers(search, matches[: search.limit], _root(request))
        response = web.Response(body=_dumped(answers), content_type=media_type) if answers else web.Response(status=204)
        for warning in (*search.warnings, *([qido.MORE] if len(matches) > search.limit else [])):
            response.headers.add("Warning", f'299 screening-gateway "{warning}"')
        return response

    def _found(self, search: qido.Search) -> list[DicomJson]:
        """The matches, and one more than asked for, which tells whether there are more."""
        if names := self._archive.unmatched(search.level, search.identifier):
            raise InvalidQuery(f"{', '.join(names)} cannot be matched at this level.")
        found = self._archive.find(search.level, search.identifier, limit=search.limit + 1, offset=search.offset)
        return list(found)

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """WADO-RS (PS3.18 Section 10.4.1.1.1): objects as stored; 206 when the client takes only some of them."""
        ranges, found = _accepted(request), await self._located(request)
        if "instance" in request.match_info:
            offers = [_multipart_offer(found[0]), Offer(wado.DICOM, transfer_syntax=found[0].transfer_syntax_uid)]
            if wado.choose(offers, ranges).media_type == wado.DICOM:
                headers = {"Content-Type": _object_type(found[0])}
                return await send(request, [_whole_file(found[0])], headers)
        given = [stored for stored in found if wado.is_acceptable(_multipart_offer(stored), ranges)]
        if not given:
            wado.choose(list(dict.fromkeys(map(_multipart_offer, found))), ranges)
        parts = [Part(_object_type(stored), _whole_file(stored)) for stored in given]
        return await send_parts(request, parts, wado.DICOM, status=200 if len(given) == len(found) else 206)

    async def metadata(self, request: web.Request) -> web.StreamResponse:
        """WADO-RS metadata (PS3.18 Section 10.4.1.1.2): DICOM JSON of each instance, bulk data by reference."""
        media_type, root = _json_type(request), _root(request)
        data_sets = self._archive.metadata(*_uids(request))
        batch = await asyncio.to_thread(_batch, data_sets)
        response = web.StreamResponse(headers={"Content-Type": media_type})
        await response.prepare(request)
        opening = b"["
        while batch and request.method != "HEAD":
            described = await asyncio.to_thread(_dumped, [_described(data_set, root) for data_set in batch])
            await response.write(opening + described[1:-1])
            opening = b","
            batch = await asyncio.to_thread(_batch, data_sets)
        await response.write_eof(b"]")
        return response

    async def frames(self, request: web.Request) -> web.StreamResponse:
        """WADO-RS frames (PS3.18 Section 10.4.1.1.6), as stored; each part says what it is."""
        stored = (await self._located(request))[0]
        numbers = wado.frame_numbers(request.match_info["frames"], stored.frames)
        found = await asyncio.to_thread(frames, stored.path, numbers)
        first = await asyncio.to_thread(next, found)
        offers = [
            Offer(wado.MULTIPART, part_type, first.transfer_syntax_uid) for part_type in (first.media_type, wado.OCTETS)
        ]
        part_type = wado.choose(offers, _accepted(request)).part_type
        first_part = Part(wado.part_type(part_type, first.transfer_syntax_uid), first.data)
        if len(numbers) == 1:
            return await send_parts(request, [first_part], part_type)

        async def parts() -> AsyncIterator[Part]:
            yield first_part
            async for frame in _in_threads(found):
                yield Part(wado.part_type(part_type, frame.transfer_syntax_uid), frame.data)

        return await stream_parts(request, parts(), part_type)

    async def bulk_data(self, request: web.Request) -> web.StreamResponse:
        """Give what metadata left out (PS3.18 Section 10.4.1.1.5), always as multipart."""
        stored = (await self._located(request))[0]
        offer = Offer(wado.MULTIPART, wado.OCTETS, stored.transfer_syntax_uid)
        wado.choose([offer], _accepted(request))
        return await stream_parts(request, _in_threads(bulk_data(stored, request.match_info["location"])), wado.OCTETS)

    async def rendered(self, request: web.Request) -> web.StreamResponse:
        """Render for people to look at (PS3.18 Section 10.4.1.1.3); several pictures come as multipart."""
        look = wado.rendering(request.query)
        targets = _targets(await self._located(request), request.match_info.get("frames"))
        multipart = [Offer(wado.MULTIPART, media_type) for media_type in wado.IMAGE_TYPES]
        single = [Offer(media_type) for media_type in wado.IMAGE_TYPES] if len(targets) == 1 else []
        offer = wado.choose(single + multipart, _accepted(request))
        if not offer.part_type:
            return await self._picture(request, targets[0], look, offer.media_type)

        async def parts() -> AsyncIterator[Part]:
            for target in targets:
                picture = await self._render(target, look, offer.part_type)
                yield Part(picture.media_type, picture.data)

        return await stream_parts(request, parts(), offer.part_type)

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        """Give one small JPEG of a study, series, instance or frame (PS3.18 Section 10.4.1.1.4)."""
        wado.choose([Offer(wado.IMAGE_TYPES[0])], _accepted(request))
        asked = wado.rendering(request.query)
        look = Rendering(asked.window, asked.viewport or THUMBNAIL, THUMBNAIL_QUALITY)
        targets = _targets(await self._located(request), request.match_info.get("frames"))
        target = min(targets, key=lambda target: wado.thumbnail_rank(target[0].sop_class_uid))
        return await self._picture(request, target, look, wado.IMAGE_TYPES[0])

    async def _located(self, request: web.Request) -> list[Stored]:
        return await asyncio.to_thread(self._archive.locate, *_uids(request))

    async def _picture(self, request: web.Request, target: Target, look: Rendering, media_type: str) -> web.Response:
        """Send one picture, or 304 when the client has it: an object never changes, nor does its picture."""
        tag = hashlib.sha256(f"{target[0].sha256} {target[1]} {look} {media_type}".encode()).hexdigest()[:32]
        headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
        if any(known.value in {tag, "*"} for known in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        picture = await self._render(target, look, media_type)
        return web.Response(body=picture.data, content_type=picture.media_type, headers=headers)

    async def _render(self, target: Target, look: Rendering, media_type: str) -> Picture:
        stored, frame = target
        return await self._renderer.run(
            rendered,
            stored.path,
            frame=frame,
            window=look.window,
            viewport=look.viewport,
            quality=look.quality,
            media_type=media_type,
        )


def _targets(found: Sequence[Stored], frame_list: str | None) -> list[Target]:
    """What a rendering request shows: the frames it names, or every instance that has pixels, or else the first."""
    if frame_list is not None:
        return [(found[0], number) for number in wado.frame_numbers(frame_list, found[0].frames)]
    return [(stored, None) for stored in found if stored.frames] or [(found[0], None)]


def _uids(request: web.Request) -> tuple[str, ...]:
    return tuple(qido.uid(request.match_info[name]) for name in _KEYS if name in request.match_info)


def _root(request: web.Request) -> str:
    """Where the client reaches this root; who passes a request on (`relay.remote_web`) says where that is for him."""
    if forwarded := request.headers.get("X-Forwarded-Root"):
        return f"{forwarded}{ROOT}"
    return f"{request.scheme}://{_host(request)}{ROOT}"


def _host(request: web.Request) -> str:
    """The Host header; dicomweb-client leaves its port out, which is seen when it names our own address."""
    address, port = request.get_extra_info("sockname", ("", 0))[:2]
    return f"{address}:{port}" if request.host == address else request.host


def _accepted(request: web.Request) -> tuple[MediaRange, ...]:
    return wado.accepted(request.headers.get("Accept", ""), request.query.get("accept", ""))


def _json_type(request: web.Request) -> str:
    return wado.choose([Offer(media_type) for media_type in wado.JSON_TYPES], _accepted(request)).media_type


def _multipart_offer(stored: Stored) -> Offer:
    return Offer(wado.MULTIPART, wado.DICOM, stored.transfer_syntax_uid)


def _object_type(stored: Stored) -> str:
    return wado.part_type(wado.DICOM, stored.transfer_syntax_uid)


def _whole_file(stored: Stored) -> Slice:
    return Slice(stored.path, 0, stored.size_bytes)


def _described(data_set: DicomJson, root: str) -> dict[str, object]:
    study, series, instance = (text(data_set, key) for key in _KEYS.values())
    return published(data_set, f"{root}/studies/{study}/series/{series}/instances/{instance}/bulkdata")


def _dumped(data_sets: Sequence[DicomJson]) -> bytes:
    return json.dumps(data_sets, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _batch(data_sets: Iterator[DicomJson]) -> list[DicomJson]:
    return list(islice(data_sets, _BATCH))


async def _in_threads(iterator: Iterator[T]) -> AsyncIterator[T]:
    """Draw from an iterator that blocks."""
    while (item := await asyncio.to_thread(next, iterator, None)) is not None:
        yield item
