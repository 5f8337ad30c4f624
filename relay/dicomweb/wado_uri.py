"""WADO-URI (PS3.18 Section 9): one object or picture by query parameters, for older viewers and report systems.

Parameter names are case-sensitive, as the standard writes them. An unknown parameter is refused, and so are
`anonymize`, `annotation` and presentation states, which are not supported. `application/dicom` has the stored transfer
syntax unless `transferSyntax` names another. Without a content type the answer is a picture where there is one, else
the object. `read` and `look` are pure.

Not here: objects and pictures themselves (`relay.dicomweb.wado_rs`, `relay.dicomweb.rendered`).
"""

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from aiohttp import web

from gateway.dataset.dicom_json import number
from gateway.errors import InvalidQuery, NotAcceptable
from pacs import Archive, Stored, Viewport, Window
from relay.access.middleware import STUDY
from relay.dicomweb import negotiation, qido, resources
from relay.dicomweb.negotiation import MediaRange, Offer, Rendering
from relay.dicomweb.rendered import Pictures
from relay.dicomweb.wado_rs import Retrieval

_KNOWN = frozenset(
    {
        *("requestType", "studyUID", "seriesUID", "objectUID", "contentType", "charset", "transferSyntax"),
        *("rows", "columns", "region", "windowCenter", "windowWidth", "frameNumber", "imageQuality"),
    }
)
_PICTURE = frozenset({"rows", "columns", "region", "windowCenter", "windowWidth", "frameNumber", "imageQuality"})
_DECIMAL = r"[-+]?[0-9]{1,9}(\.[0-9]{0,9})?([eE][-+]?[0-9]{1,2})?"


@dataclass(frozen=True)
class UriRequest:
    """A request as read. `region` is left, top, right and bottom as fractions of the image from 0 to 1; `size` is
    columns and rows in pixels; `frame` counts from 1; `quality` is 1 to 100."""

    study: str
    series: str
    instance: str
    media_types: str
    transfer_syntax: str
    is_about_a_picture: bool
    frame: int | None
    size: tuple[int, int] | None
    region: tuple[float, float, float, float] | None
    window: Window | None
    quality: int


def read(parameters: Iterable[tuple[str, str]]) -> UriRequest:
    """Read a query string. Raises InvalidQuery, naming the parameter and never its value."""
    given = _once(parameters)
    if given.get("requestType") != "WADO":
        raise InvalidQuery("The parameter requestType has to be WADO.")
    missing = [name for name in ("studyUID", "seriesUID", "objectUID") if not given.get(name)]
    if missing:
        raise InvalidQuery(f"The parameter {missing[0]} is missing.")
    frame, quality = given.get("frameNumber"), _whole(given, "imageQuality", "90", most=100)
    return UriRequest(
        study=qido.uid(given["studyUID"]),
        series=qido.uid(given["seriesUID"]),
        instance=qido.uid(given["objectUID"]),
        media_types=given.get("contentType", ""),
        transfer_syntax=qido.uid(given["transferSyntax"]) if given.get("transferSyntax") else "",
        is_about_a_picture=not _PICTURE.isdisjoint(given),
        frame=_whole(given, "frameNumber", "1") if frame is not None else None,
        size=_size(given),
        region=_region(given["region"]) if "region" in given else None,
        window=_window(given),
        quality=quality,
    )


def look(parameters: UriRequest, rows: int, columns: int) -> Rendering:
    """Translate to rendering parameters, for an image of `rows` and `columns` pixels."""
    viewport = None
    if parameters.size or parameters.region:
        left, top, right, bottom = parameters.region or (0.0, 0.0, 1.0, 1.0)
        x, y = round(left * columns), round(top * rows)
        width, height = max(1, round(right * columns) - x), max(1, round(bottom * rows) - y)
        size = parameters.size or (width, height)
        viewport = Viewport(size[0], size[1], x, y, width, height)
    return Rendering(parameters.window, viewport, parameters.quality)


def preferred(media_types: str) -> list[MediaRange]:
    """Read a content type; of several the first is preferred (PS3.18 Section 9.1.2.2.1)."""
    ranges = negotiation.accepted(media_types)
    return [replace(each, quality=each.quality / place) for place, each in enumerate(ranges, start=1)]


class WadoUri:
    """The handler."""

    def __init__(self, archive: Archive, retrieval: Retrieval, pictures: Pictures) -> None:
        self._archive = archive
        self._retrieval = retrieval
        self._pictures = pictures

    def routes(self) -> list[web.RouteDef]:
        """List the two resources: the DICOMweb root, where some viewers expect it, and `/wado` below it."""
        return [web.get(resources.ROOT, self.retrieve), web.get(f"{resources.ROOT}/wado", self.retrieve)]

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """Answer with the object or a picture of it. Raises InvalidQuery, NotAcceptable, NotFound."""
        wanted = read(request.query.items())
        request[STUDY] = wanted.study  # for the audit trail: the path does not have it
        [stored] = await asyncio.to_thread(self._archive.locate, wanted.study, wanted.series, wanted.instance)
        offer = negotiation.choose(_offers(stored, wanted), preferred(wanted.media_types))
        if offer.media_type == negotiation.DICOM:
            if wanted.is_about_a_picture:
                raise InvalidQuery("An object as application/dicom is given whole and as it is, not as a picture.")
            return await self._retrieval.whole(request, stored, offer.transfer_syntax)
        if wanted.frame is not None:
            negotiation.frame_numbers(str(wanted.frame), stored.frames)
        rows, columns = await asyncio.to_thread(self._dimensions, stored)
        return await self._pictures.picture(
            request, (stored, wanted.frame), look(wanted, rows, columns), offer.media_type
        )

    def _dimensions(self, stored: Stored) -> tuple[int, int]:
        uids = (stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid)
        data_set = next(iter(self._archive.metadata(*uids)))
        return number(data_set, "Rows") or 1, number(data_set, "Columns") or 1


def _offers(stored: Stored, wanted: UriRequest) -> list[Offer]:
    pictures = [Offer(media_type) for media_type in negotiation.IMAGE_TYPES] if stored.frames else []
    objects = [offer for offer in negotiation.object_offers(stored.transfer_syntax_uid) if not offer.part_type]
    if wanted.transfer_syntax:
        objects = [offer for offer in objects if offer.transfer_syntax == wanted.transfer_syntax]
        if not objects:
            raise NotAcceptable("The object cannot be given in this transfer syntax.")
    return pictures + objects


def _once(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    given: dict[str, str] = {}
    for name, value in parameters:
        if name not in _KNOWN:
            raise InvalidQuery(f"The parameter {name[:64]!r} is not one of WADO-URI's that are supported.")
        if name in given:
            raise InvalidQuery(f"The parameter {name} is given more than once.")
        given[name] = value.strip()
    return given


def _whole(given: Mapping[str, str], name: str, otherwise: str, *, most: int = 999_999_999) -> int:
    text = given.get(name, otherwise)
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise InvalidQuery(f"The parameter {name} is a whole number from 1 to {most}.")
    return int(text)


def _size(given: Mapping[str, str]) -> tuple[int, int] | None:
    # One of them alone leaves the other at its maximum: the picture is fitted into both, so the shape is kept.
    if "rows" not in given and "columns" not in given:
        return None
    return _whole(given, "columns", "8192", most=8192), _whole(given, "rows", "8192", most=8192)


def _region(text: str) -> tuple[float, float, float, float]:
    fields = [field.strip() for field in text.split(",")]
    if len(fields) != 4 or not all(re.fullmatch(_DECIMAL, field) for field in fields):
        raise InvalidQuery("The parameter region is four numbers from 0 to 1, separated by commas.")
    left, top, right, bottom = map(float, fields)
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise InvalidQuery("The parameter region is left, top, right and bottom, each from 0 to 1.")
    return left, top, right, bottom


def _window(given: Mapping[str, str]) -> Window | None:
    both = given.get("windowCenter"), given.get("windowWidth")
    if both == (None, None):
        return None
    center, width = (text or "" for text in both)
    if not (re.fullmatch(_DECIMAL, center) and re.fullmatch(_DECIMAL, width)):
        raise InvalidQuery("The parameters windowCenter and windowWidth are numbers, and go together.")
    return Window(float(center), float(width), "LINEAR")
