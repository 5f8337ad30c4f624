"""Reads one value: the bytes of each VR become DICOM JSON (PS3.5 6.2, PS3.18 F.2.3).

Text is decoded with the data set's own character set and trimmed of padding; nothing else is corrected.

Not for: finding a value and its VR (`pacs.archive.attributes`).
"""

import base64
import math
import struct
from collections.abc import Callable
from functools import lru_cache, partial

from pydicom.charset import convert_encodings, decode_bytes

from gateway.dataset.dicom_json import NAME_GROUPS, Element

Encodings = list[str] | None
"""The encodings of the character set in (0008,0005); None before that was read."""

BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}
_NUMBERS = {"FL": "f", "FD": "d", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_PLAIN_VRS = frozenset({"AE", "AS", "AT", "CS", "DA", "DS", "DT", "IS", "TM", "UI", *_NUMBERS})
_OFTEN_SEEN = 64
"""Most bytes of a value in the cache; longer values rarely occur twice."""
_TEXT_DELIMITERS = {0x09, 0x0A, 0x0C, 0x0D, 0x5C}
_PN_DELIMITERS = {0x3D, 0x5C, 0x5E}
"""Delimiters at which a character set that an escape sequence switched on ends (PS3.5 6.1.2.5.3)."""


def read(vr: str, raw: bytes, encodings: Encodings) -> Element:
    """An element in DICOM JSON. It may be shared with other data sets and must not be changed."""
    if vr in _PLAIN_VRS and len(raw) <= _OFTEN_SEEN:
        return _plain_value(vr, raw)
    return {"vr": vr, **_READERS[vr](raw, encodings)} if raw else {"vr": vr}


@lru_cache(maxsize=16_384)
def _plain_value(vr: str, raw: bytes) -> Element:
    # Cached, because the images of one machine and series have most values in common; only for VRs whose value does
    # not depend on the character set.
    return {"vr": vr, **_READERS[vr](raw, None)} if raw else {"vr": vr}


def encodings_of(raw: bytes) -> list[str]:
    """The encodings that (0008,0005) names, in pydicom's names."""
    names = [name.strip(" \0") for name in raw.decode("latin-1").split("\\")]
    return convert_encodings(names)


def _list(values: list[object]) -> dict[str, object]:
    """PS3.18 F.2.5: an empty value among others is null, and no value at all is no Value."""
    return {"Value": values} if any(value is not None for value in values) else {}


def _numbers(kind: str, raw: bytes, _encodings: Encodings) -> dict[str, object]:
    values = struct.unpack_from(f"<{len(raw) // struct.calcsize(f'<{kind}')}{kind}", raw)
    # JSON has no NaN and no infinity.
    return _list([value if math.isfinite(value) else None for value in values])


def _inline(raw: bytes, _encodings: Encodings) -> dict[str, object]:
    return {"InlineBinary": base64.b64encode(raw).decode()}


def _tags(raw: bytes, _encodings: Encodings) -> dict[str, object]:
    words = struct.unpack_from(f"<{len(raw) // 4 * 2}H", raw)
    return _list([f"{words[i]:04X}{words[i + 1]:04X}" for i in range(0, len(words), 2)])


def _long_text(raw: bytes, encodings: Encodings) -> dict[str, object]:
    stripped = _decoded(raw, encodings, _TEXT_DELIMITERS).rstrip(" \0")
    return {"Value": [stripped]} if stripped else {}


def _codes(raw: bytes, _encodings: Encodings) -> dict[str, object]:
    # Texts of the default repertoire; letters outside of it are read as Latin-1, because they would be lost otherwise.
    return _split(raw.decode("latin-1"), _plain)


def _texts(raw: bytes, encodings: Encodings) -> dict[str, object]:
    return _split(_decoded(raw, encodings, _TEXT_DELIMITERS), _plain)


def _names(raw: bytes, encodings: Encodings) -> dict[str, object]:
    return _split(_decoded(raw, encodings, _PN_DELIMITERS), _person_name)


def _split(decoded: str, convert: Callable[[str], object]) -> dict[str, object]:
    if "\\" in decoded:
        return _list([convert(part) for part in decoded.split("\\")])
    value = convert(decoded)
    return {} if value is None else {"Value": [value]}


def _decoded(raw: bytes, encodings: Encodings, delimiters: set[int]) -> str:
    if raw.isascii() and b"\x1b" not in raw:
        return raw.decode("ascii")
    return raw.decode("latin-1") if encodings is None else decode_bytes(raw, encodings, delimiters)


def _plain(part: str) -> object:
    return part.strip(" \0") or None


def _right_trimmed(part: str) -> object:
    return part.rstrip(" \0") or None


def _person_name(part: str) -> object:
    groups = zip(NAME_GROUPS, part.rstrip(" \0").split("="), strict=False)
    return {name: group for name, group in groups if group} or None


def _integer(part: str) -> object:
    plain = part.strip(" \0")
    try:
        return int(plain) if plain else None
    except ValueError:
        return plain  # stays text, because a malformed number must not cost the image


def _decimal(part: str) -> object:
    plain = part.strip(" \0")
    try:
        number = float(plain) if plain else None
    except ValueError:
        return plain
    return number if number is None or math.isfinite(number) else plain


_READERS: dict[str, Callable[[bytes, Encodings], dict[str, object]]] = {
    **dict.fromkeys(BINARY, _inline),
    **{vr: partial(_numbers, kind) for vr, kind in _NUMBERS.items()},
    **dict.fromkeys(("AE", "AS", "CS", "DA", "DT", "TM", "UI"), _codes),
    **dict.fromkeys(("LO", "SH"), _texts),
    **dict.fromkeys(("LT", "ST", "UR", "UT"), _long_text),
    "AT": _tags,
    "DS": lambda raw, _: _split(raw.decode("latin-1"), _decimal),
    "IS": lambda raw, _: _split(raw.decode("latin-1"), _integer),
    "PN": _names,
    "UC": lambda raw, encodings: _split(_decoded(raw, encodings, _TEXT_DELIMITERS), _right_trimmed),
}
"""How the value of each VR is read (PS3.5 6.2, PS3.18 F.2.3)."""
