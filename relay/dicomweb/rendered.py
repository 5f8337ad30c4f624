"""Rendered resources (PS3.18 Section 10.4.1.1.3) and thumbnails (10.4.1.1.4) over HTTP.

Pictures are rendered in a worker process and kept in memory up to KEPT_BYTES, least recently used first to go.
Concurrent requests for the same picture share one rendering.

Not here: rendering (`pacs.images.pictures`), query parameters (`relay.dicomweb.negotiation`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from pacs import Archive, Picture, Stored, Viewport, rendered
from relay.dicomweb import conditional, negotiation, resources
from relay.dicomweb.bodies import stream_parts
from relay.dicomweb.conditional import Version
from relay.dicomweb.negotiation import Offer, Part, Rendering
from relay.dicomweb.resources import FRAMES, INSTANCE, SERIES, STUDY
from relay.render_pool import Renderer

THUMBNAIL = Viewport(256, 256)
THUMBNAIL_QUALITY = 75

KEPT_BYTES = 64 << 20
"""A hundred views of full size, or some thousand thumbnails: a day's clinic."""

Target = tuple[Stored, int | None]
"""An instance and the number of a frame, None for the one that represents it."""


class Pictures:
    """The handlers, and the cache of pictures."""

    def __init__(self, archive: Archive, renderer: Renderer, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._archive = archive
        self._renderer = renderer
        self._kept = _Kept(kept_bytes)
        self._being_made: dict[str, asyncio.Task[Picture]] = {}

    def routes(self) -> list[web.RouteDef]:
        """List the resources: rendered and thumbnail of each level, and of frames."""
        return [
            route
            for path in (STUDY, SERIES, INSTANCE, FRAMES)
            for route in (
                web.get(f"{resources.ROOT}{path}/rendered", self.rendered),
                web.get(f"{resources.ROOT}{path}/thumbnail", self.thumbnail),
            )
        ]

    async def rendered(self, request: web.Request) -> web.StreamResponse:
        """Answer `/rendered`: one image, or several as multipart. Raises InvalidQuery, NotAcceptable, NotFound."""
        look = negotiation.rendering(request.query)
        targets = _targets(await self._located(request), request.match_info.get("frames"))
        multipart = [Offer(negotiation.MULTIPART, media_type) for media_type in negotiation.IMAGE_TYPES]
        single = [Offer(media_type) for media_type in negotiation.IMAGE_TYPES] if len(targets) == 1 else []
        offer = resources.choice(request, single + multipart)
        if not offer.part_type:
            return await self.picture(request, targets[0], look, offer.media_type)

        async def parts() -> AsyncIterator[Part]:
            for target in targets:
                picture = await self.made(target, look, offer.part_type)
                yield Part(picture.media_type, (picture.data,))

        return await stream_parts(request, parts(), offer.part_type)

    async def thumbnail(self, request: web.Request) -> web.StreamResponse:
        """Answer `/thumbnail`: one small JPEG of a study, series, instance or frame."""
        resources.choice(request, [Offer(negotiation.IMAGE_TYPES[0])])
        requested = negotiation.rendering(request.query)
        look = Rendering(requested.window, requested.viewport or THUMBNAIL, THUMBNAIL_QUALITY)
        targets = _targets(await self._located(request), request.match_info.get("frames"))
        target = min(targets, key=lambda target: negotiation.thumbnail_rank(target[0].sop_class_uid))
        return await self.picture(request, target, look, negotiation.IMAGE_TYPES[0])

    async def picture(self, request: web.Request, target: Target, look: Rendering, media_type: str) -> web.Response:
        """Send one picture, or 304 when the client has it."""
        current = _version(target, look, media_type)
        if conditional.is_known(current, request.headers):
            return web.Response(status=304, headers=current.headers)
        picture = await self.made(target, look, media_type)
        return web.Response(body=picture.data, content_type=picture.media_type, headers=current.headers)

    async def _located(self, request: web.Request) -> list[Stored]:
        return await asyncio.to_thread(self._archive.locate, *resources.uids(request))

    async def made(self, target: Target, look: Rendering, media_type: str) -> Picture:
        """Return the kept picture, join the rendering that runs, or start one."""
        key = _version(target, look, media_type).tag
        if (kept := self._kept.get(key)) is not None:
            return kept
        making = self._being_made.get(key)
        if making is None:
            making = self._being_made[key] = asyncio.create_task(self._make(key, target, look, media_type))
            making.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(making)  # a client that disconnects must not cancel it for the others

    def _forget(self, key: str, done: asyncio.Task[Picture]) -> None:
        del self._being_made[key]
        if not done.cancelled():
            done.exception()  # retrieved, because all clients may have gone and asyncio would log it

    async def _make(self, key: str, target: Target, look: Rendering, media_type: str) -> Picture:
        stored, frame = target
        picture = await self._renderer.run(
            rendered,
            stored.path,
            frame=frame,
            window=look.window,
            viewport=look.viewport,
            quality=look.quality,
            media_type=media_type,
        )
        self._kept.put(key, picture)
        return picture


class _Kept:
    """Pictures by key, up to so many bytes together; the least recently used goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._size = 0
        self._pictures: OrderedDict[str, Picture] = OrderedDict()

    def get(self, key: str) -> Picture | None:
        if key in self._pictures:
            self._pictures.move_to_end(key)
        return self._pictures.get(key)

    def put(self, key: str, picture: Picture) -> None:
        if key in self._pictures or len(picture.data) > self._most:
            return
        self._pictures[key] = picture
        self._size += len(picture.data)
        while self._size > self._most:
            self._size -= len(self._pictures.popitem(last=False)[1].data)


def _version(target: Target, look: Rendering, media_type: str) -> Version:
    # The digest of the file and every parameter, so a kept picture is never out of date.
    return conditional.version(target[0].sha256, target[1], look, media_type)


def _targets(instances: Sequence[Stored], frame_list: str | None) -> list[Target]:
    if frame_list is not None:
        return [(instances[0], number) for number in negotiation.frame_numbers(frame_list, instances[0].frames)]
    # Without any pixels the first instance, whose rendering says why there is none.
    return [(stored, None) for stored in instances if stored.frames] or [(instances[0], None)]
