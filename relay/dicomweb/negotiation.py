"""WADO-RS content negotiation (PS3.18 Sections 8.7 and 10.4), multipart bodies and rendering parameters. Pure.

Objects go as stored unless the client names another transfer syntax: without one, and for `transfer-syntax=*`, it gets
the stored syntax, labelled in each part. Another syntax, or an image type that implies one, is offered when it can be
made without loss; otherwise NotAcceptable (406). The query parameter `accept` wins over the header.

Not here: HTTP (`relay.dicomweb.routes`), pixels (`pacs`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from gateway.errors import InvalidQuery, NotAcceptable, NotFound
from pacs import RECODED_AS, Viewport, Window

MULTIPART = "multipart/related"
DICOM = "application/dicom"
OCTETS = "application/octet-stream"
JSON_TYPES = ("application/dicom+json", "application/json")
IMAGE_TYPES = ("image/jpeg", "image/png")

_MOST_FRAMES = 10_000
# The SOP class that represents a series or study, best first: For Processing is raw and looks wrong.
_SHOWN_FIRST = (
    "1.2.840.10008.5.1.4.1.1.1.2",  # Digital Mammography X-Ray, For Presentation
    "1.2.840.10008.5.1.4.1.1.13.1.4",  # Breast Projection X-Ray, For Presentation
    "1.2.840.10008.5.1.4.1.1.13.1.3",  # Breast Tomosynthesis
    "any other",
    "1.2.840.10008.5.1.4.1.1.13.1.5",  # Breast Projection X-Ray, For Processing
    "1.2.840.10008.5.1.4.1.1.1.2.1",  # Digital Mammography X-Ray, For Processing: raw, so last
)


@dataclass(frozen=True)
class MediaRange:
    """One entry of an Accept header (RFC 9110 Section 12.5.1 with the parameters of PS3.18 Section 8.7.3)."""

    media_type: str
    part_type: str = ""
    transfer_syntax: str = ""
    quality: float = 1.0


@dataclass(frozen=True)
class Offer:
    """A media type that can be sent; `part_type` is set for multipart only."""

    media_type: str
    part_type: str = ""
    transfer_syntax: str = ""


@dataclass(frozen=True)
class Slice:
    """Bytes of a file that are sent without being read into memory."""

    path: Path
    offset: int
    size: int


Body = bytes | Slice


@dataclass(frozen=True)
class Part:
    """One part of a multipart body: pieces that follow one another."""

    content_type: str
    pieces: tuple[Body, ...]


@dataclass(frozen=True)
class Rendering:
    """Rendering parameters; `window` None takes the object's own, `viewport` None its own size. `quality`: 1 to 100."""

    window: Window | None
    viewport: Viewport | None
    quality: int


ANYTHING = (MediaRange("*/*"),)


@lru_cache(maxsize=256)  # the few programs of a site each send the same header every time
def accepted(header: str, parameter: str = "") -> tuple[MediaRange, ...]:
    """Read an Accept header or parameter; an empty one accepts anything. Entries that are no media ranges are skipped.

    Raises NotAcceptable when there are only such.
    """
    # The parameter wins (PS3.18 Section 8.3.3.1), and OHIF depends on it.
    # An unescaped "+" of application/dicom+json arrives as a space in a query parameter.
    text = parameter.strip().replace("dicom json", "dicom+json") or header
    ranges = tuple(r for r in map(_range, _split(text, ",")) if r is not None)
    if text.strip() and not ranges:
        raise NotAcceptable("The Accept header or parameter names no media type.")
    return ranges or ANYTHING


def choose(offers: Sequence[Offer], ranges: Sequence[MediaRange]) -> Offer:
    """Return the offer with the highest quality, on a tie the first. Raises NotAcceptable naming all offers."""
    ranked = [(_quality(offer, ranges), -order, offer) for order, offer in enumerate(offers)]
    quality, _, offer = max(ranked, key=lambda entry: entry[:2])
    if quality <= 0:
        raise NotAcceptable(f"It can be given as {', '.join(map(_described, offers))}, not as the client asks.")
    return offer


def object_offers(transfer_syntax_uid: str) -> list[Offer]:
    """List the media types of a stored object, the stored transfer syntax first."""
    # Not Explicit VR Little Endian first, as PS3.18 Section 8.7.3.3 has it: that default would decode every mammogram
    # for clients that did not say what they can read.
    syntaxes = [transfer_syntax_uid, *(uid for uid in RECODED_AS if uid != transfer_syntax_uid)]
    return [offer for uid in syntaxes for offer in (Offer(MULTIPART, DICOM, uid), Offer(DICOM, transfer_syntax=uid))]


def frame_offers(media_type: str, transfer_syntax_uid: str) -> list[Offer]:
    """List the media types of an object's frames, the stored one first."""
    # Octets for compressed frames, too: OHIF requests them so, and reads the transfer syntax of each part.
    stored = [Offer(MULTIPART, kind, transfer_syntax_uid) for kind in dict.fromkeys((media_type, OCTETS))]
    others = [Offer(MULTIPART, kind, uid) for uid, kind in RECODED_AS.items() if uid != transfer_syntax_uid]
    return stored + others


def multipart(parts: Iterable[Part], boundary: str) -> Iterator[Body]:
    """Write a whole multipart body piece by piece (RFC 2046 Section 5.1.1)."""
    for part in parts:
        yield from framed(part, boundary)
    yield closing(boundary)


def framed(part: Part, boundary: str) -> tuple[Body, ...]:
    """Write one part: its delimiter and header, its body, the line end that belongs to the next delimiter."""
    return f"--{boundary}\r\nContent-Type: {part.content_type}\r\n\r\n".encode(), *part.pieces, b"\r\n"


def closing(boundary: str) -> bytes:
    """Write the closing delimiter (RFC 2046 Section 5.1.1)."""
    return f"--{boundary}--\r\n".encode()  # viewers show nothing when it is absent


def multipart_type(part_type: str, boundary: str) -> str:
    """Return the Content-Type of a multipart body; the type is quoted because it holds a slash (RFC 2045)."""
    # Every body of parts is labelled so: a viewer that took the delimiter for pixels would show a shifted picture.
    return f'{MULTIPART}; type="{part_type}"; boundary={boundary}'


def part_type(media_type: str, transfer_syntax_uid: str) -> str:
    """Return the Content-Type of one part; compressed frames need the transfer syntax (PS3.18 Section 8.7.3.5.2)."""
    return f"{media_type}; transfer-syntax={transfer_syntax_uid}"


def size(bodies: Iterable[Body]) -> int:
    """Count the bytes of the pieces."""
    return sum(body.size if isinstance(body, Slice) else len(body) for body in bodies)


def frame_numbers(text: str, count: int) -> tuple[int, ...]:
    """Read a frame list like "1,3,5" (PS3.18 Section 10.4.1.1.6). Raises InvalidQuery; NotFound beyond `count`."""
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise InvalidQuery("A frame list is whole numbers from 1, separated by commas.")
    numbers = tuple(map(int, text.split(",")))
    if 0 in numbers or len(numbers) > _MOST_FRAMES:
        raise InvalidQuery(f"Frames are numbered from 1, and one request names at most {_MOST_FRAMES} of them.")
    if max(numbers) > count:
        raise NotFound(f"There is no frame {max(numbers)}; the instance has {count}.")
    return numbers


def thumbnail_rank(sop_class_uid: str) -> int:
    """Rank a SOP class as the thumbnail of its series or study; the smallest is chosen (DICOM Supplement 203)."""
    return _SHOWN_FIRST.index(sop_class_uid) if sop_class_uid in _SHOWN_FIRST else _SHOWN_FIRST.index("any other")


def rendering(parameters: Mapping[str, str]) -> Rendering:
    """Read the rendering parameters of a query (PS3.18 Section 8.3.5.1). Raises InvalidQuery."""
    quality = parameters.get("quality", "90")
    if not re.fullmatch(r"[0-9]{1,3}", quality) or not 1 <= int(quality) <= 100:
        raise InvalidQuery("The parameter quality is a whole number from 1 to 100.")
    return Rendering(
        window=_window(parameters["window"]) if "window" in parameters else None,
        viewport=_viewport(parameters["viewport"]) if "viewport" in parameters else None,
        quality=int(quality),
    )


def _window(text: str) -> Window:
    center, width, function = [field.strip() for field in (text + ",,").split(",")[:3]]
    if not (_is_number(center) and _is_number(width)) or text.count(",") > 2:
        raise InvalidQuery("The parameter window is center,width,function.")
    return Window(float(center), float(width), (function or "linear").upper().replace("-", "_"))


def _viewport(text: str) -> Viewport:
    fields = [field.strip() for field in text.split(",")]
    if len(fields) not in {2, 3, 4, 5, 6} or not all(field == "" or _is_number(field) for field in fields):
        raise InvalidQuery("The parameter viewport is width,height,x,y,region width,region height.")
    width, height, x, y, region_width, region_height = map(_pixels, fields + [""] * (6 - len(fields)))
    return Viewport(width or 0, height or 0, x or 0, y or 0, region_width, region_height)


def _pixels(field: str) -> int | None:
    return round(float(field)) if field else None


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?[0-9]{1,9}(\.[0-9]{0,9})?", text) is not None


def _range(text: str) -> MediaRange | None:
    name, *fields = _split(text, ";")
    media_type = name.strip().lower()
    if not re.fullmatch(r"[^\s/;,\"]+/[^\s/;,\"]+", media_type):
        return None
    parameters = dict(map(_parameter, fields))
    return MediaRange(
        media_type,
        parameters.get("type", "").lower(),
        parameters.get("transfer-syntax", ""),
        _weight(parameters.get("q", "1")),
    )


def _split(text: str, separator: str) -> list[str]:
    # Outside quoted strings only; an unclosed quote goes to the end.
    return re.findall(rf'(?:[^{separator}"]|"(?:\\.|[^"\\])*"?)+', text) or [""]


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), re.sub(r"\\(.)", r"\1", value.strip().strip('"'))


def _weight(text: str) -> float:
    return min(float(text), 1.0) if re.fullmatch(r"[0-9](\.[0-9]{0,6})?", text) else 1.0


def _quality(offer: Offer, ranges: Sequence[MediaRange]) -> float:
    # The most specific range that matches decides (RFC 9110 Section 12.5.1), not the one with the highest weight.
    fitting = [r for r in ranges if _fits(offer, r)]
    return max(fitting, key=_specificity).quality if fitting else 0.0


def _fits(offer: Offer, wanted: MediaRange) -> bool:
    return (
        _within(offer.media_type, wanted.media_type)
        and (wanted.part_type == "" or _within(offer.part_type, wanted.part_type))
        and wanted.transfer_syntax in {"", "*", offer.transfer_syntax}
    )


def _within(media_type: str, pattern: str) -> bool:
    main, _, sub = pattern.partition("/")  # */*, image/* or the type itself
    return main in {"*", media_type.partition("/")[0]} and sub in {"*", media_type.partition("/")[2]}


def _specificity(wanted: MediaRange) -> tuple[int, int, float]:
    wildcards = wanted.media_type.count("*") + wanted.part_type.count("*")
    named = (wanted.part_type != "") + (wanted.transfer_syntax not in {"", "*"})
    return -wildcards, named, wanted.quality


def _described(offer: Offer) -> str:
    part = f'; type="{offer.part_type}"' if offer.part_type else ""
    syntax = f"; transfer-syntax={offer.transfer_syntax}" if offer.transfer_syntax else ""
    return offer.media_type + part + syntax
