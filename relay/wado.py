"""WADO-RS (PS3.18 Section 10.4) without a socket: which form a client accepts, which parts a body has, what a rendering
request asks for.

Rules. The query parameter `accept` wins over the header (PS3.18 Section 8.3.3.1; OHIF depends on it). Types may be
quoted or not. Stored objects are given as stored: without a transfer syntax, and for `transfer-syntax=*`, the client
gets the syntax the modality sent, labelled in each part. PS3.18 Section 8.7.3.3 would have Explicit VR Little Endian as
the default, which would cost a transcoding nobody asked for. A client that names another syntax than the stored one is
told so (406). A body of several parts is always labelled multipart: a viewer shows a shifted picture otherwise.

Not here: HTTP (`relay.dicomweb`), pixels (`pacs`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import InvalidQuery, NotAcceptable, NotFound

MULTIPART = "multipart/related"
DICOM = "application/dicom"
OCTETS = "application/octet-stream"
JSON_TYPES = ("application/dicom+json", "application/json")
IMAGE_TYPES = ("image/jpeg", "image/png")

_MOST_FRAMES = 10_000
_MOST_PIXELS = 16_384
"""Longest side of a viewport; a mammogram at its own size has 4,096."""


@dataclass(frozen=True)
class MediaRange:
    """One entry of an Accept header (RFC 9110 Section 12.5.1 with the parameters of PS3.18 Section 8.7.3)."""

    media_type: str
    part_type: str = ""
    transfer_syntax: str = ""
    quality: float = 1.0


@dataclass(frozen=True)
class Offer:
    """A form in which something can be given; `part_type` is set for multipart forms only."""

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
    """One part of a multipart body."""

    content_type: str
    body: Body
    location: str = ""


ANYTHING = (MediaRange("*/*"),)


def accepted(header: str, parameter: str = "") -> tuple[MediaRange, ...]:
    """Read what a client accepts; nothing said means anything. Entries that are not media ranges are passed over."""
    # An unescaped "+" of application/dicom+json arrives as a space in a query parameter.
    text = parameter.strip().replace("dicom json", "dicom+json") or header
    ranges = tuple(r for r in map(_range, _split(text, ",")) if r is not None)
    if text.strip() and not ranges:
        raise NotAcceptable("The Accept header or parameter names no media type.")
    return ranges or ANYTHING


def choose(offers: Sequence[Offer], ranges: Sequence[MediaRange]) -> Offer:
    """Return the offer the client likes best, on a tie the first. Raises NotAcceptable naming all offers."""
    liked = [(_quality(offer, ranges), -order, offer) for order, offer in enumerate(offers)]
    quality, _, offer = max(liked, key=lambda entry: entry[:2])
    if quality <= 0:
        raise NotAcceptable(f"It can be given as {' or '.join(map(_described, offers))}, not as the client asks.")
    return offer


def is_acceptable(offer: Offer, ranges: Sequence[MediaRange]) -> bool:
    """Tell whether the client takes this form at all."""
    return _quality(offer, ranges) > 0


def multipart(parts: Iterable[Part], boundary: str) -> Iterator[Body]:
    """Write a multipart body piece by piece (RFC 2046 Section 5.1.1: CRLF, closing boundary)."""
    line = f"--{boundary}"
    for part in parts:
        location = f"Content-Location: {part.location}\r\n" if part.location else ""
        yield f"{line}\r\nContent-Type: {part.content_type}\r\n{location}\r\n".encode()
        yield part.body
        line = f"\r\n--{boundary}"
    yield f"{line}--\r\n".encode()


def multipart_type(part_type: str, boundary: str) -> str:
    """Return the Content-Type of a multipart body; the type is quoted because it holds a slash (RFC 2045)."""
    return f'{MULTIPART}; type="{part_type}"; boundary={boundary}'


def part_type(media_type: str, transfer_syntax_uid: str) -> str:
    """Return the Content-Type of one part: compressed frames have to say what they are (PS3.18 Section 8.7.3.5.2)."""
    return f"{media_type}; transfer-syntax={transfer_syntax_uid}"


def size(bodies: Iterable[Body]) -> int:
    """Bytes that the pieces take on the wire."""
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


def numbers(parameter: str, text: str, *, least: int, most: int) -> tuple[float, ...]:
    """Read a list of decimal numbers of a rendering parameter; empty places count as 0. Raises InvalidQuery."""
    fields = text.split(",")
    if not least <= len(fields) <= most:
        raise InvalidQuery(f"The parameter {parameter} has {least} to {most} numbers separated by commas.")
    if not all(re.fullmatch(r"(-?[0-9]{1,9}(\.[0-9]{0,9})?)?", field.strip()) for field in fields):
        raise InvalidQuery(f"The parameter {parameter} is made of decimal numbers.")
    return tuple(float(field.strip() or 0) for field in fields)


def quality(parameters: Mapping[str, str]) -> int:
    """Read `quality`, 1 to 100 (PS3.18 Section 8.3.5.1.2)."""
    text = parameters.get("quality", "90")
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 100:
        raise InvalidQuery("The parameter quality is a whole number from 1 to 100.")
    return int(text)


def absolute(data_set: Mapping[str, object], base: str) -> dict[str, object]:
    """Return DICOM JSON with every BulkDataURI made absolute; `base` ends with the instance's `/bulkdata`."""
    return {key: _absolute(element, base) for key, element in data_set.items()}


def _absolute(element: object, base: str) -> object:
    if not isinstance(element, Mapping):
        return element
    if "BulkDataURI" in element:
        return {**element, "BulkDataURI": f"{base}/{element['BulkDataURI']}"}
    if element.get("vr") == "SQ" and "Value" in element:
        return {**element, "Value": [absolute(item, base) for item in element["Value"]]}
    return element


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
    """Split outside quoted strings; an unclosed quote goes to the end."""
    return re.findall(rf'(?:[^{separator}"]|"(?:\\.|[^"\\])*"?)+', text) or [""]


def _parameter(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip().lower(), re.sub(r"\\(.)", r"\1", value.strip().strip('"'))


def _weight(text: str) -> float:
    return min(float(text), 1.0) if re.fullmatch(r"[0-9](\.[0-9]{0,6})?", text) else 1.0


def _quality(offer: Offer, ranges: Sequence[MediaRange]) -> float:
    """The weight that the most specific matching range gives (RFC 9110 Section 12.5.1)."""
    fitting = [r for r in ranges if _fits(offer, r)]
    return max(fitting, key=_specificity).quality if fitting else 0.0


def _fits(offer: Offer, wanted: MediaRange) -> bool:
    return (
        _within(offer.media_type, wanted.media_type)
        and (wanted.part_type == "" or _within(offer.part_type, wanted.part_type))
        and wanted.transfer_syntax in {"", "*", offer.transfer_syntax}
    )


def _within(media_type: str, pattern: str) -> bool:
    """Tell whether a type is in a range: */*, image/* or the type itself."""
    main, _, sub = pattern.partition("/")
    return main in {"*", media_type.partition("/")[0]} and sub in {"*", media_type.partition("/")[2]}


def _specificity(wanted: MediaRange) -> tuple[int, int, float]:
    wildcards = wanted.media_type.count("*") + wanted.part_type.count("*")
    named = (wanted.part_type != "") + (wanted.transfer_syntax not in {"", "*"})
    return -wildcards, named, wanted.quality


def _described(offer: Offer) -> str:
    part = f'; type="{offer.part_type}"' if offer.part_type else ""
    syntax = f"; transfer-syntax={offer.transfer_syntax}" if offer.transfer_syntax else ""
    return offer.media_type + part + syntax
