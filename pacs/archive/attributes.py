"""Reads the attributes of a received data set as DICOM JSON (PS3.18 Annex F), without bulk data.

* Pixel data is named, not read: `{"vr": "OW", "BulkDataURI": "7FE00010"}`. So are binary values longer than
  `INLINE_BYTES`, and any value longer than `LONGEST_VALUE`. The URI is the path of tags and item numbers within the
  data set.
* A sequence deeper than `DEEPEST_SEQUENCE` is named as UN.
* Zeros before, behind and between the elements of the whole data set are padding.
* The memory for one data set is bounded (`TooMuch`).
* A data set that ends inside an element, or without the delimiter of its fragments, is cut off (`CutOff`).

Not for: the bytes of a value (`pacs.archive.values`).
"""

import struct
import zlib
from functools import lru_cache
from mmap import mmap

from pydicom.datadict import dictionary_VR, private_dictionary_VR
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.dataset.dicom_json import DicomJson, Element, number
from gateway.errors import InvalidDataSet
from pacs.archive.values import BINARY, Encodings, encodings_of, read

INLINE_BYTES = 1 << 14
"""A 12 bit VOI LUT has 8 kB and is needed by every viewer; anything larger than twice that is fetched on its own."""

LONGEST_VALUE = 1 << 18
"""Bytes of a text or a list of numbers; in JSON, and while that is made, it takes up to thirty times as many."""

LARGEST_READ = 1 << 24
"""Bytes of everything that is not bulk data, each element and item counted as `_ELEMENT_COST` at least. The largest
tomosynthesis has less than one megabyte."""

LARGEST_INFLATED = 1 << 28
"""Most bytes that a deflated data set may unpack to; a bomb is refused."""

DEEPEST_SEQUENCE = 64
"""Levels of sequences that are read; a structured report has less than twenty."""

_ELEMENT_COST = 32
_UNSTATED = frozenset({"", "UN"})
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_ENDS = frozenset({_ITEM_END, _SEQUENCE_END})
_FRAGMENTED = frozenset({"OB", "OW"})
"""VRs whose value of undefined length is in fragments, as the pixels of an icon can be (PS3.5 A.4)."""
_ZEROS = 1 << 16
_PIXELS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL"}
    | {b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
_VR_TEXT = {vr: vr.decode() for vr in _LONG_VRS | _SHORT_VRS}
_TAG_LENGTH = struct.Struct("<HHI")
_EXPLICIT = struct.Struct("<HH2sH")
_U32 = struct.Struct("<I")

Buffer = bytes | memoryview | mmap


def read_attributes(data: Buffer, transfer_syntax_uid: str) -> DicomJson:
    """Read a whole data set as it was received. Raises InvalidDataSet when it cannot be read or was cut off."""
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        data = _inflated(bytes(data))
    walker = _Walker(data, implicit=transfer_syntax_uid == ImplicitVRLittleEndian)
    try:
        found: DicomJson = {}
        walker.data_set(0, len(data), found, _Context())
    except (struct.error, IndexError, ValueError, LookupError) as error:
        raise InvalidDataSet(f"The data set cannot be read ({type(error).__name__} at byte {walker.at}).") from error
    return found


def frame_count(data_set: DicomJson) -> int:
    """The number of frames of an instance; 0 when it has no pixels."""
    if "00280010" not in data_set:
        return 0
    return number(data_set, "NumberOfFrames") or 1


class _TagNames(dict[int, str]):
    """Tags as DICOM JSON writes them; made once each, because every image has much the same ones."""

    def __missing__(self, tag: int) -> str:
        name = f"{tag:08X}"
        if len(self) < 10_000:  # private tags could be any number
            self[tag] = name
        return name


_TAG_NAMES = _TagNames()


class CutOff(InvalidDataSet):
    """The data set ends before it is complete; its sender has to send it again."""


class TooMuch(InvalidDataSet):
    """Reading the data set would take more memory than any image needs, in our walker and in pydicom."""


class _Context:
    """The context of an element: character set, sign of the pixels, owners of private blocks, depth and path."""

    __slots__ = ("creators", "depth", "encodings", "path", "signed")

    def __init__(self, outer: "_Context | None" = None, path: str = "") -> None:
        self.encodings: Encodings = outer.encodings if outer else None
        self.signed: bool = outer.signed if outer else False
        self.creators: dict[int, str] = {}
        self.depth: int = outer.depth + 1 if outer else 0
        self.path = path


# By hand and not by pydicom, because it runs for every image between its last byte and Success: it looks at each
# element once and takes a quarter of a millisecond. pydicom reads what it refuses, and judges it in a property test.
class _Walker:
    """One pass over an encoded data set, little endian."""

    def __init__(self, data: Buffer, *, implicit: bool) -> None:
        self.data = data
        self.implicit = implicit
        self.at = 0
        self.left = LARGEST_READ

    def data_set(self, start: int, end: int, out: DicomJson, context: _Context, *, delimited: bool = False) -> int:
        """Read elements from `start` to `end`, or to the item's delimiter; give the place behind them."""
        self.at = start
        while self.at < end:
            if end - self.at < _TAG_LENGTH.size and context.depth == 0 and self._skip_zeros(end):
                break
            tag, vr, length = self._header()
            if tag == length == context.depth == 0:
                self._skip_zeros(end)
                continue
            if tag == _ITEM_END and delimited:
                return self.at
            if (tag in _PIXELS and context.depth == 0) or (length == _UNDEFINED and vr in _FRAGMENTED):
                out[_TAG_NAMES[tag]] = {
                    "vr": vr if vr in BINARY else "OW",
                    "BulkDataURI": f"{context.path}{tag:08X}",
                }
                self._skip_pixels(length)
                continue
            if vr == "SQ" or length == _UNDEFINED:
                out[_TAG_NAMES[tag]] = self._sequence(tag, vr, length, context)
                continue
            value_at = self.at
            if value_at + length > end:
                raise CutOff(_cut_off(tag, length, end - value_at))
            self.at = value_at + length
            if tag & 0xFFFF:  # a group length says nothing once the group is taken apart
                self._element(tag, vr, slice(value_at, self.at), out, context)
        if delimited:
            raise CutOff("The data set ends inside a sequence item.")
        return self.at

    def _skip_zeros(self, end: int) -> bool:
        """Go behind the zeros that stand here instead of an element. True at the end of the data set."""
        while self.at < end:
            chunk = bytes(self.data[self.at : min(self.at + _ZEROS, end)])
            self.at += len(chunk) - len(chunk.lstrip(b"\0"))
            if any(chunk):
                return False
        return True

    def _header(self) -> tuple[int, str, int]:
        self.left -= _ELEMENT_COST
        if self.left < 0:
            raise TooMuch(f"The attributes take more than {LARGEST_READ >> 20} MB; no image needs that.")
        return self._next_header()

    def _next_header(self) -> tuple[int, str, int]:
        at = self.at
        self.at = at + 8
        if self.implicit:
            group, element, length = _TAG_LENGTH.unpack_from(self.data, at)
            return group << 16 | element, "", length
        group, element, vr, length = _EXPLICIT.unpack_from(self.data, at)
        tag = group << 16 | element
        if group == 0xFFFE:  # items and delimiters have no VR (PS3.5 7.5)
            return tag, "", _U32.unpack_from(self.data, at + 4)[0]
        if vr in _SHORT_VRS:
            return tag, _VR_TEXT[vr], length
        if vr in _LONG_VRS:
            self.at = at + 12
            return tag, _VR_TEXT[vr], _U32.unpack_from(self.data, at + 8)[0]
        if tag == length == 0 and vr == b"\0\0":
            return 0, "", 0
        raise InvalidDataSet(f"Element ({group:04X},{element:04X}) has no value representation that exists.")

    def _element(self, tag: int, stated_vr: str, raw_at: slice, out: DicomJson, context: _Context) -> None:
        vr = stated_vr if stated_vr not in _UNSTATED else self._meant(tag, stated_vr, context)
        length = raw_at.stop - raw_at.start
        if vr == "SQ":  # implicit VR, defined length
            self.at = raw_at.start
            out[_TAG_NAMES[tag]] = self._sequence(tag, stated_vr, length, context)
            return
        if length > (INLINE_BYTES if vr in BINARY else LONGEST_VALUE):
            out[_TAG_NAMES[tag]] = {"vr": vr, "BulkDataURI": f"{context.path}{tag:08X}"}
            return
        self.left -= length
        raw = bytes(self.data[raw_at])
        out[_TAG_NAMES[tag]] = read(vr, raw, context.encodings)
        if tag == 0x00080005:
            context.encodings = encodings_of(raw)
        elif tag == 0x00280103:
            context.signed = raw[:1] == b"\1"
        elif tag & 0x10000 and 0x10 <= tag & 0xFFFF <= 0xFF:
            context.creators[tag >> 16 << 8 | tag & 0xFF] = raw.decode("latin-1").strip(" \0")

    def _meant(self, tag: int, vr: str, context: _Context) -> str:
        """The VR of an element that does not state it, or hides it behind UN (PS3.5 6.2.2 Note 2)."""
        if tag >> 16 & 1:
            known = vr or _private_vr(tag, context.creators)
        elif tag & 0xFFFF == 0:
            return "UL"
        else:
            known = _dictionary_vr(tag)
        if " or " not in known:
            return known
        return ("SS" if context.signed else "US") if known.startswith("US or SS") else "OW"

    def _sequence(self, tag: int, vr: str, length: int, context: _Context) -> Element:
        # Not refused, because an object that nests 80,000 sequences is legal, and may be the only copy.
        if context.depth >= DEEPEST_SEQUENCE:
            self._step_over(tag, vr, length)
            return {"vr": "UN", "BulkDataURI": f"{context.path}{tag:08X}"}
        implicit = self.implicit
        if vr == "UN":  # undefined length: its content is always Implicit VR (PS3.5 6.2.2 Note 2)
            self.implicit = True
        end = len(self.data) if length == _UNDEFINED else self.at + length
        if end > len(self.data):
            raise CutOff(_cut_off(tag, length, len(self.data) - self.at))
        found: list[DicomJson] = []
        while self.at < end:
            item_tag, _, item_length = self._header()
            if item_tag == _SEQUENCE_END and length == _UNDEFINED:
                break
            if item_tag != _ITEM:
                raise InvalidDataSet(f"Sequence ({tag >> 16:04X},{tag & 0xFFFF:04X}) holds something else than items.")
            item: DicomJson = {}
            found.append(item)
            inner = _Context(context, f"{context.path}{tag:08X}/{len(found)}/")
            if item_length == _UNDEFINED:
                self.data_set(self.at, len(self.data), item, inner, delimited=True)
            elif self.at + item_length > end:
                raise InvalidDataSet(f"An item of sequence ({tag >> 16:04X},{tag & 0xFFFF:04X}) is longer than it.")
            else:
                self.data_set(self.at, self.at + item_length, item, inner)
        else:
            if length == _UNDEFINED:
                raise CutOff(f"The data set ends inside sequence ({tag >> 16:04X},{tag & 0xFFFF:04X}).")
        self.implicit = implicit
        return {"vr": "SQ", "Value": found} if found else {"vr": "SQ"}

    def _step_over(self, tag: int, vr: str, length: int) -> None:
        """Skip a sequence whatever it holds."""
        # A loop that keeps nothing but the depth, because recursion would let a sender choose the size of our stack.
        implicit, implicit_below, depth = self.implicit, 0, 0
        while True:
            if tag in _ENDS:
                depth -= 1
                if depth < implicit_below:
                    self.implicit, implicit_below = implicit, 0
            elif length == _UNDEFINED:
                depth += 1
                if vr == "UN" and not self.implicit:
                    self.implicit, implicit_below = True, depth
            else:
                self.at += length
            if self.at > len(self.data) or (depth and self.at + 8 > len(self.data)):
                raise CutOff("The data set ends inside a sequence.")
            if not depth:
                return
            tag, vr, length = self._next_header()

    def _skip_pixels(self, length: int) -> None:
        """Go behind the pixel data; encapsulated fragments are stepped over one by one (PS3.5 A.4)."""
        left = len(self.data) - self.at
        if length != _UNDEFINED:
            if length > left:
                raise CutOff(_cut_off(0x7FE00010, length, left))
            self.at += length
            return
        while self.at + 8 <= len(self.data):
            group, element, size = _TAG_LENGTH.unpack_from(self.data, self.at)
            self.at += 8
            if group << 16 | element == _SEQUENCE_END:
                return
            if group << 16 | element != _ITEM:
                raise InvalidDataSet("The pixel data holds something else than fragments.")
            self.at += size
        raise CutOff("The data set ends in the middle of its pixel data.")


def _private_vr(tag: int, creators: dict[int, str]) -> str:
    creator = creators.get(tag >> 16 << 8 | tag >> 8 & 0xFF)
    if 0x10 <= tag & 0xFFFF <= 0xFF:
        return "LO"
    try:
        # pydicom's private dictionary writes OB_OW where the public one writes "OB or OW".
        return private_dictionary_VR(tag, creator).replace("_", " or ") if creator else "UN"
    except KeyError:
        return "UN"


@lru_cache(maxsize=4096)
def _dictionary_vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _inflated(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(data, LARGEST_INFLATED)
    except zlib.error as error:
        raise InvalidDataSet("The deflated data set cannot be unpacked.") from error
    if inflater.unconsumed_tail:
        raise TooMuch(f"The deflated data set unpacks to more than {LARGEST_INFLATED >> 20} MB.")
    if not inflater.eof:
        raise CutOff("The deflated data set is cut off.")
    return plain


def _cut_off(tag: int, length: int, left: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X}) states {length} bytes but {left} are left: the data set is cut off."
