"""Reader of C-FIND identifiers: the requested attributes (the shape), and the values that are matched.

Unusual identifiers are left to pydicom: letters beyond ASCII, private or binary values, attributes out of order. A
property test holds both readers to the same result.

Not here: the meaning of a value (`gateway.query.matching`), the answers.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian

from gateway.dataset.character_sets import DEFAULT_REPERTOIRE, CharacterSet, character_set
from gateway.dataset.data_sets import decode
from gateway.errors import InvalidQuery
from gateway.query import matching

Shape = tuple[tuple[int, "Shape | None"], ...]
"""Tags in ascending order, each with the shape of its items: None when it is no sequence, () for all attributes."""

_TEXTS = frozenset({b"AE", b"CS", b"DA", b"DT", b"LO", b"LT", b"PN", b"SH", b"ST", b"TM", b"UC", b"UI", b"UT"})
_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
"""VRs with a length of four bytes (PS3.5 Table 7.1-1)."""

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_DEEPEST = 4  # levels of sequences; a worklist query has two (PS3.4 Table K.6-1), and recursion has to end
_CHARACTER_SET = int(matching.SPECIFIC_CHARACTER_SET)
_HEADER = struct.Struct("<HHI").unpack_from
_LENGTH = struct.Struct("<H").unpack_from
_LONG_LENGTH = struct.Struct("<I").unpack_from


class _Unusual(Exception):
    """An identifier that pydicom shall read."""


@dataclass(frozen=True, slots=True)
class Identifier:
    """`values` are the texts of the keys that are not universal, by path as in `conditions.Key`."""

    shape: Shape
    values: Mapping[str, str]
    character_set: CharacterSet = DEFAULT_REPERTOIRE


def read(data: bytes, transfer_syntax: str) -> Identifier:
    """Read an identifier in one of the uncompressed transfer syntaxes.

    Raises InvalidDataSet when it cannot be read, InvalidQuery when it is no query or in no known character set.
    """
    # By hand, because a modality sends the same two dozen empty keys all day: 20 µs where pydicom takes 300.
    reader = _Reader(data, is_implicit=transfer_syntax == ImplicitVRLittleEndian)
    try:
        shape, end = reader.elements(0, len(data))
        if end != len(data):
            raise _Unusual
    except (_Unusual, struct.error, ValueError):
        return from_data_set(decode(data, transfer_syntax))
    return Identifier(shape, reader.values, reader.character_set)


def from_data_set(data_set: Dataset) -> Identifier:
    """The same of a data set. Raises InvalidQuery."""
    named = data_set.get("SpecificCharacterSet") or ""
    values = dict(matching.valued(data_set))
    try:
        named_set = character_set(named if isinstance(named, str) else "\\".join(named))
    except ValueError:
        if not all(text.isascii() for text in values.values()):
            raise InvalidQuery("SpecificCharacterSet names a character set that is not known.") from None
        named_set = DEFAULT_REPERTOIRE  # with ASCII alone nothing depends on it
    return Identifier(_shape(data_set), values, named_set)


def _shape(data_set: Dataset) -> Shape:
    return tuple((int(tag), _shape_of_items(data_set, tag)) for tag in sorted(data_set.keys()))


def _shape_of_items(data_set: Dataset, tag: int) -> Shape | None:
    element = data_set[tag]
    if element.VR != "SQ":
        return None
    if len(element.value or ()) > 1:
        raise InvalidQuery(f"{element.keyword or tag} has to have one item in a query, not {len(element.value)}.")
    return _shape(element.value[0]) if element.value else ()


@dataclass(slots=True)
class _Reader:
    data: bytes
    is_implicit: bool
    values: dict[str, str] = field(default_factory=dict)
    character_set: CharacterSet = DEFAULT_REPERTOIRE

    def elements(self, start: int, end: int, prefix: str = "", depth: int = 0) -> tuple[Shape, int]:
        """Read elements to the end, or to the delimiter of an item; gives where it stopped."""
        shape: list[tuple[int, Shape | None]] = []
        last = -1
        while start < end:
            group, element, length = _HEADER(self.data, start)
            tag = group << 16 | element
            if tag == _ITEM_END:
                return tuple(shape), start
            if tag <= last:  # PS3.5 7.1 wants ascending tags; pydicom sorts, and of two with one tag keeps the later
                raise _Unusual
            last = tag
            vr, start, length = self._header(tag, start, length)
            if vr == b"SQ":
                inner, start = self._items(tag, start, length, end=end, prefix=prefix, depth=depth + 1)
                shape.append((tag, inner))
                continue
            if start + length > end:
                raise _Unusual
            if length:
                self._take(tag, vr, self.data[start : start + length], prefix)
            shape.append((tag, None))
            start += length
        return tuple(shape), start

    def _header(self, tag: int, start: int, length: int) -> tuple[bytes, int, int]:
        """VR, start and length of a value."""
        if self.is_implicit:
            return _vr(tag), start + 8, length
        vr = self.data[start + 4 : start + 6]
        if vr == b"UN":  # its value may be a sequence in Implicit VR (PS3.5 6.2.2)
            raise _Unusual
        if vr in _LONG:
            return vr, start + 12, _LONG_LENGTH(self.data, start + 8)[0]
        return vr, start + 8, _LENGTH(self.data, start + 6)[0]

    def _items(self, tag: int, start: int, length: int, *, end: int, prefix: str, depth: int) -> tuple[Shape, int]:
        """Read a sequence of no item or one."""
        stop = end if length == _UNDEFINED else start + length
        if depth > _DEEPEST or stop > end:
            raise _Unusual
        shape: Shape = ()
        count = 0
        while start < stop:
            group, element, size = _HEADER(self.data, start)
            start += 8
            if group << 16 | element == _SEQUENCE_END:
                return shape, start
            count += 1
            if group << 16 | element != _ITEM or count > 1:
                raise _Unusual
            item_end = stop if size == _UNDEFINED else start + size
            shape, start = self.elements(start, item_end, f"{prefix}{_name(tag)}.", depth)
            if (start == item_end) is (size == _UNDEFINED):  # an end without its delimiter, or in the wrong place
                raise _Unusual
            start += 8 if size == _UNDEFINED else 0
        if start != stop or length == _UNDEFINED:
            raise _Unusual
        return shape, start

    def _take(self, tag: int, vr: bytes, raw: bytes, prefix: str) -> None:
        if vr not in _TEXTS or not raw.isascii() or b"\x1b" in raw or len(raw) > matching.LONGEST_VALUE:
            raise _Unusual
        text = matching.plain(raw.decode("ascii"), is_name=vr == b"PN")
        if tag == _CHARACTER_SET:
            if prefix:  # an item may have a character set of its own (PS3.5 7.5.3)
                raise _Unusual
            self.character_set = character_set(text)
        elif tag not in matching.NOT_MATCHED and not matching.is_universal(text):
            self.values[prefix + _name(tag)] = text


@lru_cache(maxsize=1024)
def _name(tag: int) -> str:
    keyword = keyword_for_tag(tag)
    if not keyword or not tag & 0xFFFF:
        raise _Unusual
    return keyword


@lru_cache(maxsize=1024)
def _vr(tag: int) -> bytes:
    try:
        return dictionary_VR(Tag(tag)).encode()
    except KeyError:
        raise _Unusual from None
