"""Worklist answers encoded straight from the DICOM JSON of an item (PS3.4 C.4.1.1.3.2).

A requested attribute that is unknown comes back empty; a requested sequence has the requested attributes of its items,
or all of them when the query names none. The character set is the one configured for the peer; else that of the query
if the whole answer fits into it; else UTF-8. In a configured set, letters that it lacks lose their accents or become
`?`, and `Answer.is_approximate` is true.

Not for: which items are answered (`store`), the bytes of a text (`gateway.dataset.character_sets`).
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset.character_sets import UNICODE, CharacterSet, DoesNotFit
from gateway.dataset.data_sets import encode
from gateway.dataset.dicom_json import DicomJson, Element, PersonName, element, items, tag, texts
from gateway.query.identifiers import Identifier, Shape
from gateway.query.matching import NOT_MATCHED, SPECIFIC_CHARACTER_SET

KEPT = 2048
"""Encoded answers in the cache, some 4 kB each: today's list, which modalities query again and again."""

_STEP, _STATION, _CHARACTER_SET = map(
    tag, ("ScheduledProcedureStepSequence", "ScheduledStationAETitle", "SpecificCharacterSet")
)
_LETTERS = frozenset({"LO", "LT", "SH", "ST", "UC", "UT"})  # and PN: what (0008,0005) is about (PS3.5 6.1.2.2)
_CODES = frozenset({"AE", "AS", "CS", "DA", "DT", "TM"})
_SHORT_TEXTS = _CODES | {"LO", "LT", "PN", "SH", "ST", "UI"}
_LONG = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_LONGEST = 0xFFFE
_HEADER = struct.Struct("<HHI")
_SHORT_HEADER = struct.Struct("<HH2sH")
_LONG_HEADER = struct.Struct("<HH2sxxI")


class Answer(NamedTuple):
    """One answer in the transfer syntax of its form."""

    data: bytes
    is_approximate: bool


class _Field(NamedTuple):
    """A requested attribute: its key in DICOM JSON, its tag, its encoding when empty, and the attributes of its items.

    `vr` is the dictionary's if it is one of short texts, and `head` then the bytes before the length.
    """

    key: str
    number: int
    empty: bytes | None
    inner: tuple["_Field", ...]
    vr: str = ""
    head: bytes = b""


@dataclass(frozen=True, eq=False)
class Form:
    """The parts that all answers of a query have in common. Equal queries have the same one."""

    fields: tuple[_Field, ...]
    transfer_syntax: str
    character_set: CharacterSet
    in_unicode: "Form | None"
    """The form for answers that do not fit into the character set; None when the peer's is configured."""


def form(identifier: Identifier, transfer_syntax: str, *, wanted: CharacterSet | None) -> Form:
    """The form of the answers to a query; `wanted` is the character set configured for the peer."""
    return _form(identifier.shape, transfer_syntax, wanted or identifier.character_set, is_fixed=wanted is not None)


@lru_cache(maxsize=256)
def _form(shape: Shape, transfer_syntax: str, character_set: CharacterSet, *, is_fixed: bool) -> Form:
    in_unicode = None
    if not is_fixed and character_set != UNICODE:
        in_unicode = _form(shape, transfer_syntax, UNICODE, is_fixed=True)
    named = shape
    # (0008,0005) is in every answer, requested or not, because its texts cannot be read without it. The default
    # repertoire has no defined term (PS3.3 C.12.1.1.2).
    if character_set.terms:
        named = tuple(sorted({**dict(shape), int(SPECIFIC_CHARACTER_SET): None}.items()))
    return Form(_fields(named, transfer_syntax), transfer_syntax, character_set, in_unicode)


def _fields(shape: Shape, transfer_syntax: str) -> tuple[_Field, ...]:
    return tuple(_field(number, inner, transfer_syntax) for number, inner in shape if number & 0xFFFF)


def _field(number: int, inner: Shape | None, transfer_syntax: str) -> _Field:
    key, items = f"{number:08X}", _fields(inner or (), transfer_syntax)
    is_implicit = transfer_syntax == ImplicitVRLittleEndian
    is_unknown = not dictionary_has_tag(number)
    # An empty answer needs a VR. Of a private attribute (odd group) only the stored item knows it.
    if is_unknown or number >> 16 & 1 or (number in NOT_MATCHED and number != SPECIFIC_CHARACTER_SET):
        return _Field(key, number, None, items)
    vr = dictionary_VR(number).split(" or ")[0]
    empty = _header(number, vr, 0, is_implicit=is_implicit)
    if vr not in _SHORT_TEXTS:
        return _Field(key, number, empty, items)
    return _Field(key, number, empty, items, vr, empty[:4] if is_implicit else empty[:6])


@lru_cache(maxsize=KEPT)
def packed(form: Form, data_set: str, station: str) -> Answer:
    """The answer for an item, given in DICOM JSON; an item for any station gets `station`."""
    stored: DicomJson = json.loads(data_set)
    _assign(stored, station)
    try:
        return Answer(_packed(form, stored), is_approximate=False)
    except DoesNotFit:
        if form.in_unicode is not None:
            return Answer(_packed(form.in_unicode, stored), is_approximate=False)
    return Answer(_packed(form, stored, fit=form.character_set.nearest), is_approximate=True)


def _assign(stored: DicomJson, station: str) -> None:
    # Scheduled Station AE Title is Type 1 in an answer (PS3.4 Table K.6-1), so an item for any station needs one here.
    for step in items(stored, "ScheduledProcedureStepSequence"):
        if not texts(step, "ScheduledStationAETitle"):
            step[_STATION] = element("ScheduledStationAETitle", station)


def _packed(form: Form, stored: DicomJson, *, fit: Callable[[str], str] = str) -> bytes:
    named: Element = {"vr": "CS", "Value": list(form.character_set.terms)}
    packer = _Packer(form.transfer_syntax == ImplicitVRLittleEndian, form.character_set, fit)
    return packer.data_set({**stored, _CHARACTER_SET: named}, form.fields)


@dataclass(frozen=True, slots=True)
class _Packer:
    is_implicit: bool
    character_set: CharacterSet
    fit: Callable[[str], str]
    """Applied to a text before it is encoded."""

    def data_set(self, stored: DicomJson, fields: tuple[_Field, ...]) -> bytes:
        """The requested attributes of a data set, encoded."""
        # Not by pydicom, because a pydicom data set for each answer takes twenty times as long; a property test
        # compares every answer with its encoding. Most attributes have one ASCII value and are encoded in this loop.
        parts: list[bytes] = []
        length_bytes = 4 if self.is_implicit else 2
        for key, number, empty, inner, vr, head in fields:
            attribute = stored.get(key)
            if not isinstance(attribute, dict):
                parts.append(empty or b"")
                continue
            value = _ascii(attribute) if attribute["vr"] == vr else None
            if value is None:
                parts.append(self._element(key, number, attribute, inner))
                continue
            if len(value) % 2:
                value += b"\0" if vr == "UI" else b" "
            parts += (head, len(value).to_bytes(length_bytes, "little"), value)
        return b"".join(parts)

    def _element(self, key: str, number: int, attribute: Element, inner: tuple[_Field, ...]) -> bytes:
        vr = str(attribute["vr"])
        values = attribute.get("Value") or ()
        assert isinstance(values, list | tuple)
        if not values:
            value = b""
        elif vr == "SQ":
            value = b"".join(self._item(item, inner) for item in values)
        elif vr == "PN":
            value = self.character_set.encoded_name(self.fit("\\".join(map(_name, values))))
        elif vr in _LETTERS:
            value = self.character_set.encoded(self.fit("\\".join(map(_text, values))))
        elif vr in _CODES or vr == "UI":
            value = "\\".join(map(_text, values)).encode("ascii", "replace")
        else:  # numbers and other rare VRs
            return encode(Dataset.from_json({key: attribute}), self._transfer_syntax)
        if len(value) % 2:
            value += b"\0" if vr == "UI" else b" "
        return _header(number, vr, len(value), is_implicit=self.is_implicit) + value

    def _item(self, item: DicomJson, inner: tuple[_Field, ...]) -> bytes:
        wanted = inner or tuple(_Field(key, int(key, 16), None, ()) for key in sorted(item))
        fields = tuple(each for each in wanted if each.key != _CHARACTER_SET)  # it is that of the whole answer
        data = self.data_set(item, fields)
        return _HEADER.pack(0xFFFE, 0xE000, len(data)) + data

    @property
    def _transfer_syntax(self) -> str:
        return ImplicitVRLittleEndian if self.is_implicit else ExplicitVRLittleEndian


def _header(number: int, vr: str, length: int, *, is_implicit: bool) -> bytes:
    group, element = number >> 16, number & 0xFFFF
    if is_implicit:
        return _HEADER.pack(group, element, length)
    if length > _LONGEST and vr not in _LONG:
        vr = "UN"  # PS3.5 6.2.2 Note 2
    if vr in _LONG or vr == "UN":
        return _LONG_HEADER.pack(group, element, vr.encode(), length)
    return _SHORT_HEADER.pack(group, element, vr.encode(), length)


def _ascii(attribute: Element) -> bytes | None:
    """The value of an attribute that has at most one, in ASCII; None for any other."""
    values = attribute.get("Value")
    if not values:
        return b""
    if not isinstance(values, list) or len(values) > 1:
        return None
    [text] = values
    if isinstance(text, dict):
        text = text.get("Alphabetic") if len(text) == 1 else None
    return text.encode() if isinstance(text, str) and text.isascii() else None


def _name(value: object) -> str:
    return str(PersonName.of(value)) if isinstance(value, dict) else _text(value)


def _text(value: object) -> str:
    return "" if value is None else str(value)
