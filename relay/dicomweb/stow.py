"""STOW-RS (PS3.18 Section 10.5): objects uploaded over HTTP, stored one after the other.

Each object has a result of its own: stored, stored with a warning, or failed with the archive's reason. 200 when all
are stored, 202 when some are, 409 when none is, 507 when none is for want of space. A request that breaks off has
stored the objects that were complete; sending it again does no harm.

Not here: users and roles, storing (`relay.dicomweb.stow_store`).
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from gateway.errors import OutOfResources, PeerError, Refusal
from pacs import Archive, Part10, read_part10
from relay.dicomweb import negotiation, resources
from relay.dicomweb.json_answers import dumped
from relay.dicomweb.negotiation import MediaRange
from relay.dicomweb.spool import Spool
from relay.dicomweb.stow_store import PROCESSING_FAILURE, StowStore
from relay.dicomweb.wado_rs import address
from relay.render_pool import Renderer, RenderingFailed

PIECE = 1 << 20
"""Bytes received at a time."""

MOST_AT_ONCE = 4
"""Concurrent uploads; each holds an object in the spool and a thread while the archive takes it."""

CANNOT_UNDERSTAND, OUT_OF_RESOURCES, NOT_OF_THE_STUDY = 0xC000, 0xA700, 0xA900
"""Failure reasons (PS3.18 Section 10.5.3.2: the statuses of C-STORE, PS3.4 B.2.3)."""


class MalformedBody(Refusal):
    """A request's body is not what its Content-Type says."""

    dimse_status: ClassVar[int] = 0xC000
    http_status: ClassVar[int] = 400
    code: ClassVar[str] = "malformed_body"


class UnsupportedMediaType(Refusal):
    """A request's body is of a type that is not taken (PS3.18 Table 10.5.3-1)."""

    dimse_status: ClassVar[int] = 0xC000
    http_status: ClassVar[int] = 415
    code: ClassVar[str] = "unsupported_media_type"


class BodyTooLarge(Refusal):
    """A request's body is larger than is taken."""

    dimse_status: ClassVar[int] = 0xA700
    http_status: ClassVar[int] = 413
    code: ClassVar[str] = "too_large"


@dataclass(frozen=True)
class Result:
    """Result of one object. `found` is None when it could not be read; `address` is its URL once stored; `status` is
    that of the C-STORE."""

    found: Part10 | None
    status: int
    address: str = ""
    lost: str = ""
    """Why the archive gave no answer; empty when it did."""

    @property
    def is_stored(self) -> bool:
        """Stored, perhaps with a warning (Bxxx)."""
        return self.status == 0x0000 or self.status >> 12 == 0xB


class Stow:
    """The handler."""

    def __init__(
        self, archive: Archive, stow_store: StowStore, renderer: Renderer, spool: Spool, *, most_bytes: int
    ) -> None:
        self._archive = archive
        self._stow_store = stow_store
        self._renderer = renderer
        self._spool = spool
        self._most_bytes = most_bytes
        self._under_way = 0

    def routes(self) -> list[web.RouteDef]:
        """List the two resources: any study, or one."""
        return [
            web.post(f"{resources.ROOT}/studies", self.store),
            web.post(resources.ROOT + resources.STUDY, self.store),
        ]

    async def store(self, request: web.Request) -> web.Response:
        """Store the objects of a request; the answer has the result of each.

        Raises BodyTooLarge, MalformedBody, UnsupportedMediaType, OutOfResources, NotAcceptable, InvalidQuery.
        """
        media_type, root = resources.json_type(request), resources.root(request)
        study = next(iter(resources.uids(request)), "")
        if request.content_length is not None and request.content_length > self._most_bytes:
            raise BodyTooLarge(f"An upload may have {self._most_bytes} bytes; send the objects in several requests.")
        with self._turn(), _only_refusals():
            results = [result async for result in self._results(request, study, root)]
        if not results:
            raise MalformedBody("The body holds no object.")
        if all(result.lost for result in results):
            raise OutOfResources(f"Nothing can be stored at present: {results[0].lost}")
        return web.Response(status=status(results), body=dumped(answer(results)), content_type=media_type)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._under_way >= MOST_AT_ONCE:
            raise OutOfResources("Other uploads are under way; try again in a moment.")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    async def _results(self, request: web.Request, study: str, root: str) -> AsyncIterator[Result]:
        left = self._most_bytes
        # One object at a time is on disk, and none is in memory.
        async for part in _parts(request):
            with self._spool.file() as path:
                left -= await _received(part, path, left)
                yield await self._result(path, study, root)

    async def _result(self, path: Path, study: str, root: str) -> Result:
        try:
            found = await self._renderer.run(read_part10, path)
        except (Refusal, RenderingFailed):
            return Result(None, CANNOT_UNDERSTAND)
        if study and found.study_instance_uid != study:
            return Result(found, NOT_OF_THE_STUDY)
        try:
            result_status = await asyncio.to_thread(self._stow_store.store, path, found)
        except PeerError as error:
            return Result(found, PROCESSING_FAILURE, lost=str(error))
        result = Result(found, result_status)
        if not result.is_stored:
            return result
        stored = await asyncio.to_thread(self._archive.instance, found.sop_instance_uid)
        return Result(found, result_status, address(stored, root))


def status(results: Sequence[Result]) -> int:
    """The status of the answer (PS3.18 Table 10.5.3-1; 507 of RFC 4918 when there is no room)."""
    stored = sum(result.is_stored for result in results)
    if stored == len(results):
        return 200
    if stored:
        return 202
    return 507 if all(result.status == OUT_OF_RESOURCES for result in results) else 409


def answer(results: Sequence[Result]) -> dict[str, object]:
    """The Store Instances Response Module (PS3.3 C.12.1.17) as DICOM JSON."""
    stored = [_stored_item(result) for result in results if result.is_stored]
    failed = [_failed_item(result) for result in results if not result.is_stored and result.found]
    others = [{"00081197": _us(result.status)} for result in results if not result.is_stored and not result.found]
    studies = {result.address.partition("/series/")[0] for result in results if result.address}
    sequences = {"00081198": failed, "00081199": stored, "0008119A": others}
    module: dict[str, object] = {"00081190": {"vr": "UR", "Value": sorted(studies)}} if len(studies) == 1 else {}
    return module | {key: {"vr": "SQ", "Value": items} for key, items in sequences.items() if items}


def _stored_item(result: Result) -> dict[str, object]:
    warning = {} if result.status == 0x0000 else {"00081196": _us(result.status)}
    return {**_reference(result), "00081190": {"vr": "UR", "Value": [result.address]}, **warning}


def _failed_item(result: Result) -> dict[str, object]:
    return {**_reference(result), "00081197": _us(result.status)}


def _reference(result: Result) -> dict[str, object]:
    assert result.found
    return {"00081150": _ui(result.found.sop_class_uid), "00081155": _ui(result.found.sop_instance_uid)}


def _ui(uid: str) -> dict[str, object]:
    return {"vr": "UI", "Value": [uid]}


def _us(number: int) -> dict[str, object]:
    return {"vr": "US", "Value": [number]}


# --- the body


def is_object(media: MediaRange) -> bool:
    """Is a body or part of this media type one object?"""
    return media.media_type in {negotiation.DICOM, negotiation.OCTETS}


async def _parts(request: web.Request) -> AsyncIterator[BodyPartReader | StreamReader]:
    """Yield the objects of a body: the parts of multipart/related, or the only one of application/dicom."""
    [media, *_] = negotiation.accepted(request.headers.get("Content-Type", ""))
    if media.media_type == negotiation.DICOM:
        yield request.content
        return
    if media.media_type != negotiation.MULTIPART or media.part_type not in {"", negotiation.DICOM}:
        raise UnsupportedMediaType(
            f'Objects are taken as {negotiation.MULTIPART}; type="{negotiation.DICOM}", and nothing else.'
        )
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if isinstance(part, MultipartReader):
            raise MalformedBody("A part is a multipart body itself; each has to be one object.")
        named = part.headers.get("Content-Type", negotiation.DICOM)
        if not is_object(negotiation.accepted(named)[0]):
            raise UnsupportedMediaType(f"Each part has to be {negotiation.DICOM}.")
        yield part


async def _received(part: BodyPartReader | StreamReader, path: Path, most: int) -> int:
    """Stream one object into a file and return its size in bytes. Raises BodyTooLarge."""
    size = 0
    with path.open("wb", buffering=0) as file:
        while piece := await _piece(part):
            size += len(piece)
            if size > most:
                raise BodyTooLarge("The upload is larger than is taken; send the objects in several requests.")
            await asyncio.to_thread(file.write, piece)
    return size


async def _piece(part: BodyPartReader | StreamReader) -> bytes:
    return await (part.read_chunk(PIECE) if isinstance(part, BodyPartReader) else part.read(PIECE))


@contextmanager
def _only_refusals() -> Iterator[None]:
    try:
        yield
    # Which of these aiohttp raises for a malformed multipart body depends on the place where it stops.
    except (ValueError, AssertionError, RuntimeError, HttpProcessingError) as error:
        raise MalformedBody("The body is not multipart as its Content-Type says, or breaks off.") from error
