"""Encoding of data sets in a transfer syntax, with the oddities that real machines have.

Not for: compressed pixels (`compression`), and not for the content of a data set (`steps`, `exam`, `phantom`).
"""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from types import MappingProxyType
from typing import Literal

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import correct_ambiguous_vr, write_data_element
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SYNTAXES: Mapping[str, str] = MappingProxyType(
    {
        "explicit": str(ExplicitVRLittleEndian),
        "implicit": str(ImplicitVRLittleEndian),
        "deflated": str(DeflatedExplicitVRLittleEndian),
        "jpeg-lossless": str(JPEGLosslessSV1),
        "jpeg-lossless-p14": str(JPEGLossless),
        "jpeg-ls": str(JPEGLSLossless),
        "jpeg-2000": str(JPEG2000Lossless),
        "rle": str(RLELossless),
    }
)
"""Every encoding that images can be made in, by the name it has in a script."""

# PS3.5 7.5: items and sequences end by delimiters when their length is undefined.
_UNDEFINED = b"\xff\xff\xff\xff"
_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_UIDS = "UI"


@dataclass(frozen=True, slots=True)
class Style:
    """The oddities of a machine's encoding; the defaults are what the standard asks for."""

    uid_padding: Literal["standard", "space", "nulls"] = "standard"
    group_lengths: bool = False
    undefined_lengths: bool = False
    sparse: bool = False


PLAIN = Style()


def encoded(ds: Dataset, transfer_syntax: str, style: Style = PLAIN) -> bytes:
    """The bytes of a data set in a transfer syntax. Compressed pixels have to be in it already (`compress`)."""
    body = _Writer(transfer_syntax == ImplicitVRLittleEndian, style).data_set(correct_ambiguous_vr(ds, True), "iso8859")
    if transfer_syntax != DeflatedExplicitVRLittleEndian:
        return body
    # A raw deflate stream without zlib's header (PS3.5 A.5).
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    compressed = deflate.compress(body) + deflate.flush()
    return compressed + b"\0" * (len(compressed) % 2)  # PS3.5 A.5


class _Writer:
    # Element by element, because no library pads a UID with a space or writes a group length.
    def __init__(self, is_implicit: bool, style: Style) -> None:
        self._is_implicit = is_implicit
        self._style = style

    def data_set(self, ds: Dataset, character_set: object, *, is_nested: bool = False) -> bytes:
        # An item without a Specific Character Set of its own has that of the data set around it (PS3.5 7.5.3).
        character_set = ds.get("SpecificCharacterSet", character_set)
        groups = groupby(self._elements(ds), key=lambda element: element.tag.group)
        written = {number: b"".join(self._element(each, character_set) for each in group) for number, group in groups}
        if self._style.group_lengths and not is_nested:
            return b"".join(self._group_length(number, len(body)) + body for number, body in written.items())
        return b"".join(written.values())

    def _elements(self, ds: Dataset) -> Iterator[DataElement]:
        return (each for each in ds if not (self._style.sparse and each.is_empty))

    def _element(self, element: DataElement, character_set: object) -> bytes:
        if element.VR == "SQ":
            return self._sequence(element, character_set)
        if element.VR == _UIDS:
            return self._uids(element)
        target = DicomBytesIO()
        target.is_little_endian, target.is_implicit_VR = True, self._is_implicit
        write_data_element(target, element, convert_encodings(character_set))  # type: ignore[arg-type]
        return target.getvalue()

    def _uids(self, element: DataElement) -> bytes:
        values = element.value if element.VM > 1 else [element.value or ""]
        raw = "\\".join(str(value) for value in values).encode("ascii")
        padding = b" " if self._style.uid_padding == "space" else b"\0"
        raw += padding * (len(raw) % 2)  # UI takes one NULL to even length (PS3.5 6.2); a space is the oddity
        if self._style.uid_padding == "nulls" and raw:
            raw += b"\0\0"
        return self._header(element, "UI", len(raw)) + raw

    def _sequence(self, element: DataElement, character_set: object) -> bytes:
        items = [self.data_set(item, character_set, is_nested=True) for item in element.value]
        if not self._style.undefined_lengths:
            body = b"".join(_ITEM + len(item).to_bytes(4, "little") + item for item in items)
            return self._header(element, "SQ", len(body)) + body
        body = b"".join(_ITEM + _UNDEFINED + item + _ITEM_END + bytes(4) for item in items)
        return self._header(element, "SQ", 0xFFFFFFFF) + body + _SEQUENCE_END + bytes(4)

    def _group_length(self, group: int, length: int) -> bytes:
        element = DataElement(group << 16, "UL", length)
        return self._header(element, "UL", 4) + length.to_bytes(4, "little")

    def _header(self, element: DataElement, vr: str, length: int) -> bytes:
        tag = element.tag.group.to_bytes(2, "little") + element.tag.element.to_bytes(2, "little")
        if self._is_implicit:
            return tag + length.to_bytes(4, "little")
        if vr == "SQ":
            return tag + b"SQ\0\0" + length.to_bytes(4, "little")
        return tag + vr.encode() + length.to_bytes(2, "little")  # UI and UL have 16 bits for it (PS3.5 7.1.2)
