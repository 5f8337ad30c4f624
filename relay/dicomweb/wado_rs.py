"""WADO-RS objects, metadata, frames and bulk data (PS3.18 Section 10.4) over HTTP.

Objects and frames are slices of the stored files, metadata is the text that the archive wrote on receipt. Another
transfer syntax is made in a worker process, into a file that lives as long as the answer, and is never kept.

Not here: negotiation (`relay.dicomweb.negotiation`), pictures (`relay.dicomweb.rendered`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import islice

from aiohttp import web
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from gateway.errors import NotAcceptable
from pacs import Archive, Frame, Stored, check_recoding, frames, recode, recoded_frame
from relay.dicomweb import conditional, negotiation, resources
from relay.dicomweb.bodies import send, send_parts, stream_parts
from relay.dicomweb.bulkdata import PIXEL_DATA, value_at
from relay.dicomweb.conditional import Version
from relay.dicomweb.json_answers import published_text
from relay.dicomweb.negotiation import Body, Offer, Part, Slice
from relay.dicomweb.resources import FRAMES, INSTANCE, SERIES, STUDY
from relay.dicomweb.spool import Spool
from relay.render_pool import Renderer

_BATCH = 16
"""Data sets of metadata per write; a mammogram's has 10 kB, a tomosynthesis's up to 1 MB."""


class Retrieval:
    """The handlers of stored objects."""

    def __init__(self, archive: Archive, renderer: Renderer, spool: Spool) -> None:
        self._archive = archive
        self._renderer = renderer
        self._spool = spool

    def routes(self) -> list[web.RouteDef]:
        """List the resources of stored objects, without the rendered ones."""
        routes = [web.get(resources.ROOT + path, self.objects) for path in (STUDY, SERIES, INSTANCE)]
        routes += [web.get(f"{resources.ROOT}{path}/metadata", self.metadata) for path in (STUDY, SERIES, INSTANCE)]
        return [
            *routes,
            web.get(f"{resources.ROOT}{INSTANCE}/bulkdata/{{location:.+}}", self.bulk_data),
            web.get(resources.ROOT + FRAMES, self.frames),
        ]

    async def objects(self, request: web.Request) -> web.StreamResponse:
        """WADO-RS (PS3.18 Section 10.4.1.1.1): Part 10 files; 206 when some are not available in an accepted form."""
        found = await self.located(request)
        if "instance" in request.match_info:
            offer = resources.choice(request, negotiation.object_offers(found[0].transfer_syntax_uid))
            if not offer.part_type:
                return await self.whole(request, found[0], offer.transfer_syntax)
        chosen = await asyncio.to_thread(_chosen, found, resources.accepted(request))
        status = 200 if len(chosen) == len(found) else 206
        if all(stored.transfer_syntax_uid == syntax for stored, syntax in chosen):
            parts = [Part(_object_type(syntax), (_whole_file(stored),)) for stored, syntax in chosen]
            return await send_parts(request, parts, negotiation.DICOM, _version([s for s, _ in chosen]), status=status)
        return await stream_parts(request, self._made(chosen), negotiation.DICOM, status=status)

    async def whole(self, request: web.Request, stored: Stored, transfer_syntax_uid: str) -> web.StreamResponse:
        """Send one object by itself, as stored or made into another transfer syntax."""
        headers, current = {"Content-Type": _object_type(transfer_syntax_uid)}, _version([stored], transfer_syntax_uid)
        if transfer_syntax_uid == stored.transfer_syntax_uid or conditional.is_known(current, request.headers):
            return await send(request, [_whole_file(stored)], headers, current)
        with self._spool.file() as path:
            await self._renderer.run(recode, stored.path, transfer_syntax_uid, path)
            return await send(request, [Slice(path, 0, path.stat().st_size)], headers, current)

    async def metadata(self, request: web.Request) -> web.StreamResponse:
        """WADO-RS metadata (PS3.18 Section 10.4.1.1.2): DICOM JSON of each instance, bulk data by reference."""
        media_type, root = resources.json_type(request), resources.root(request)
        found = await self.located(request)
        current = conditional.version(media_type, root, *(stored.sha256 for stored in found))
        if conditional.is_known(current, request.headers):
            return web.Response(status=304, headers=current.headers)
        headers = {"Content-Type": media_type, **current.headers}
        if len(found) <= _BATCH:
            described = await asyncio.to_thread(self._described, found, root)
            return web.Response(body=b"[" + described + b"]", headers=headers)
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        opening, left = b"[", iter(found)
        while request.method != "HEAD" and (some := list(islice(left, _BATCH))):
            described = await asyncio.to_thread(self._described, some, root)
            await response.write(opening + described if described else b"")  # removed meanwhile: a batch may be empty
            opening = b"," if described else opening
        await response.write_eof(b"]" if opening == b"," else b"[]")
        return response

    async def frames(self, request: web.Request) -> web.StreamResponse:
        """WADO-RS frames (PS3.18 Section 10.4.1.1.6), each part labelled with its transfer syntax."""
        stored = (await self.located(request))[0]
        numbers = negotiation.frame_numbers(request.match_info["frames"], stored.frames)
        found = await asyncio.to_thread(frames, stored.path, numbers)
        first = await asyncio.to_thread(next, found)
        offer = resources.choice(request, negotiation.frame_offers(first.media_type, first.transfer_syntax_uid))
        if offer.transfer_syntax != first.transfer_syntax_uid:
            return await stream_parts(request, self._made_frames(stored, numbers, offer), offer.part_type)
        return await self._stored_frames(request, stored, [first], found, offer.part_type)

    async def bulk_data(self, request: web.Request) -> web.StreamResponse:
        """Bulk data (PS3.18 Section 10.4.1.1.5), as multipart or, if the client prefers it, as octets alone."""
        stored, location = (await self.located(request))[0], request.match_info["location"]
        if location == PIXEL_DATA and UID(stored.transfer_syntax_uid).is_encapsulated:
            return await self._compressed_pixels(request, stored)
        syntax = stored.transfer_syntax_uid
        offers = [
            Offer(negotiation.MULTIPART, negotiation.OCTETS, syntax),
            Offer(negotiation.OCTETS, transfer_syntax=syntax),
        ]
        offer = resources.choice(request, offers)
        value = await asyncio.to_thread(value_at, stored, location)
        current, content_type = _version([stored], location, offer), negotiation.part_type(negotiation.OCTETS, syntax)
        if offer.part_type:
            return await send_parts(request, [Part(content_type, (value,))], negotiation.OCTETS, current)
        return await send(request, [value], {"Content-Type": negotiation.OCTETS}, current)

    async def located(self, request: web.Request) -> list[Stored]:
        """Return the instances that the path names. Raises NotFound, InvalidQuery."""
        return await asyncio.to_thread(self._archive.locate, *resources.uids(request))

    async def _compressed_pixels(self, request: web.Request, stored: Stored) -> web.StreamResponse:
        # PS3.18 Section 8.7.3.5.3: the value is an encapsulated stream, so it goes frame by frame, each a part.
        found = await asyncio.to_thread(frames, stored.path, range(1, stored.frames + 1))
        first = await asyncio.to_thread(next, found)
        kinds = (negotiation.OCTETS, first.media_type)
        offer = resources.choice(
            request, [Offer(negotiation.MULTIPART, kind, first.transfer_syntax_uid) for kind in kinds]
        )
        return await self._stored_frames(request, stored, [first], found, offer.part_type, kind=first.media_type)

    async def _stored_frames(
        self,
        request: web.Request,
        stored: Stored,
        begun: list[Frame],
        rest: Iterator[Frame],
        part_type: str,
        *,
        kind: str = "",
    ) -> web.StreamResponse:
        def part(frame: Frame) -> Part:
            return Part(
                negotiation.part_type(kind or part_type, frame.transfer_syntax_uid), tuple(_pieces(stored, frame))
            )

        # Frames of a deflated object are bytes in memory: sent while it is inflated. All others are slices of the file.
        if stored.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            return await stream_parts(request, _each(begun, rest, part), part_type)
        parts = [part(frame) for frame in begun + await asyncio.to_thread(list, rest)]
        return await send_parts(request, parts, part_type, _version([stored], request.path, part_type, kind))

    async def _made(self, chosen: Sequence[tuple[Stored, str]]) -> AsyncIterator[Part]:
        for stored, syntax in chosen:
            if syntax == stored.transfer_syntax_uid:
                yield Part(_object_type(syntax), (_whole_file(stored),))
                continue
            with self._spool.file() as path:
                await self._renderer.run(recode, stored.path, syntax, path)
                yield Part(_object_type(syntax), (Slice(path, 0, path.stat().st_size),))

    async def _made_frames(self, stored: Stored, numbers: Iterable[int], offer: Offer) -> AsyncIterator[Part]:
        for number in numbers:
            frame = await self._renderer.run(recoded_frame, stored.path, number, offer.transfer_syntax)
            yield Part(negotiation.part_type(offer.part_type, offer.transfer_syntax), (frame,))

    def _described(self, some: Sequence[Stored], root: str) -> bytes:
        return b",".join(
            published_text(document, f"{address(stored, root)}/bulkdata")
            for stored, document in self._archive.documents(some)
        )


def _chosen(found: Sequence[Stored], ranges: Sequence[negotiation.MediaRange]) -> list[tuple[Stored, str]]:
    # With the transfer syntax of each. An object that has none the client accepts is left out, and the answer is 206;
    # NotAcceptable only when that is all of them.
    chosen: list[tuple[Stored, str]] = []
    refused: NotAcceptable | None = None
    for stored in found:
        try:
            offers = [offer for offer in negotiation.object_offers(stored.transfer_syntax_uid) if offer.part_type]
            syntax = negotiation.choose(offers, ranges).transfer_syntax
            if syntax != stored.transfer_syntax_uid:
                check_recoding(stored.path, syntax)
            chosen.append((stored, syntax))
        except NotAcceptable as error:
            refused = error
    if refused and not chosen:
        raise refused
    return chosen


async def _each(begun: list[Frame], rest: Iterator[Frame], part: Callable[[Frame], Part]) -> AsyncIterator[Part]:
    for frame in begun:
        yield part(frame)
    while (drawn := await asyncio.to_thread(next, rest, None)) is not None:
        yield part(drawn)


def _version(found: Iterable[Stored], *form: object) -> Version:
    # Last-Modified for one object only: a study also changes when objects are removed, which no time of receipt shows.
    several = list(found)
    modified = several[0].received_at if len(several) == 1 else ""
    return conditional.version(*(stored.sha256 for stored in several), *form, modified=modified)


def _pieces(stored: Stored, frame: Frame) -> Iterator[Body]:
    for piece in frame.pieces:
        yield piece if isinstance(piece, bytes) else Slice(stored.path, piece.offset, piece.length)


def _object_type(transfer_syntax_uid: str) -> str:
    return negotiation.part_type(negotiation.DICOM, transfer_syntax_uid)


def _whole_file(stored: Stored) -> Slice:
    return Slice(stored.path, 0, stored.size_bytes)


def address(stored: Stored, root: str) -> str:
    """Return the URL of an instance; `root` is the DICOMweb root without a final slash."""
    series = f"{root}/studies/{stored.study_instance_uid}/series/{stored.series_instance_uid}"
    return f"{series}/instances/{stored.sop_instance_uid}"
