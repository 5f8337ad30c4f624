"""Character sets (PS3.3 C.12.1.1.2): encoding of texts, and an error for letters that do not fit. pydicom decodes.

* Default repertoire: ASCII and nothing else, whatever bytes a lenient reader would take.
* Single-byte sets, UTF-8, GB18030, GBK: one codec. ISO_IR 13 has JIS X 0201 whole, half-width katakana beside ASCII.
* Code extensions (PS3.5 6.1.2.5): each run of letters behind the escape sequence of the first set in the list that has
  them. After each delimiter (backslash, control characters, in names `^` and `=`) the first set is active again.

Not here: the choice of the set for an answer (`worklist.answers`).
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from pydicom import charset

# Latin alphabet No. 9 is younger than pydicom's tables, and it does not take the escape sequence off GB 2312.
charset.python_encoding.update({"ISO_IR 203": "iso8859_15", "ISO 2022 IR 203": "iso8859_15"})
charset.CODES_TO_ENCODINGS[b"\x1b-b"] = "iso8859_15"
charset.ENCODINGS_TO_CODES["iso8859_15"] = b"\x1b-b"
charset.handled_encodings = ("iso2022_jp", "iso2022_jp_2")  # type: ignore[assignment]  # a tuple of three

UTF_8 = "ISO_IR 192"

_ASCII = "ISO 2022 IR 6"
_SINGLE = {
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": "iso8859_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 126": "iso8859_7",
    "ISO_IR 127": "iso8859_6",
    "ISO_IR 138": "iso8859_8",
    "ISO_IR 144": "iso8859_5",
    "ISO_IR 148": "iso8859_9",
    "ISO_IR 166": "tis_620",
    "ISO_IR 203": "iso8859_15",
}
_WHOLE = {UTF_8: "utf_8", "GB18030": "gb18030", "GBK": "gbk"}
"""Sets that go without code extensions (PS3.3 Table C.12-5)."""

_ESCAPES = {
    "ISO 2022 IR 13": b"\x1b)I",
    "ISO 2022 IR 100": b"\x1b-A",
    "ISO 2022 IR 101": b"\x1b-B",
    "ISO 2022 IR 109": b"\x1b-C",
    "ISO 2022 IR 110": b"\x1b-D",
    "ISO 2022 IR 126": b"\x1b-F",
    "ISO 2022 IR 127": b"\x1b-G",
    "ISO 2022 IR 138": b"\x1b-H",
    "ISO 2022 IR 144": b"\x1b-L",
    "ISO 2022 IR 148": b"\x1b-M",
    "ISO 2022 IR 166": b"\x1b-T",
    "ISO 2022 IR 203": b"\x1b-b",
    "ISO 2022 IR 149": b"\x1b$)C",
    "ISO 2022 IR 58": b"\x1b$)A",
    "ISO 2022 IR 87": b"\x1b$B",
    "ISO 2022 IR 159": b"\x1b$(D",
}
"""Escape sequences that invoke a set (PS3.3 Tables C.12-3 and C.12-4)."""

_MULTI_BYTE = {
    "ISO 2022 IR 149": "euc_kr",
    "ISO 2022 IR 58": "gb2312",
    "ISO 2022 IR 87": "iso2022_jp",
    "ISO 2022 IR 159": "iso2022_jp_2",
}
_IN_G0 = frozenset({"ISO 2022 IR 87", "ISO 2022 IR 159"})
"""These take the place of ASCII in G0, which has to be invoked again afterwards."""

_NAME_DELIMITERS = re.compile(r"([\^=\\\r\n\f\t])")
_TEXT_DELIMITERS = re.compile(r"([\\\r\n\f\t])")
_SPELLING = re.compile(r"ISO[ _-]?(2022)?[ _-]?IR[ _-]?([0-9]{1,3})")
_BARRED = {"ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "đ": "d", "Đ": "D", "\u0131": "i", "ß": "ss", "æ": "ae", "Æ": "AE",
           "œ": "oe", "Œ": "OE", "\u2019": "'", "\u2018": "'", "\u2013": "-", "\u2014": "-"}  # fmt: skip


class DoesNotFit(Exception):
    """A text has letters that its character set has not. Never says which: it may be a name."""


@dataclass(frozen=True)
class CharacterSet:
    """One value of Specific Character Set (0008,0005); without terms it is the default repertoire."""

    terms: tuple[str, ...]

    def encoded(self, text: str) -> bytes:
        """A text but a person's name. Raises DoesNotFit."""
        return self._encoded(text, _TEXT_DELIMITERS)

    def encoded_name(self, text: str) -> bytes:
        """A person name with its component groups. Raises DoesNotFit."""
        return self._encoded(text, _NAME_DELIMITERS)

    def nearest(self, text: str) -> str:
        """The text as far as it fits: letters without their accents where need be, and `?` for what is left."""
        return "".join(letter if self._has(letter) else self._substitute(letter) for letter in _composed(text))

    def _encoded(self, text: str, delimiters: re.Pattern[str]) -> bytes:
        if text.isascii():
            return text.encode("ascii")
        if len(self.terms) > 1:
            return b"".join(self._extended(part) for part in delimiters.split(_composed(text)))
        return self._plain(text)

    def _plain(self, text: str) -> bytes:
        term = self.terms[0].replace("2022 ", "").replace("ISO IR", "ISO_IR") if self.terms else ""
        codec = _WHOLE.get(term) or _SINGLE.get(term, "ascii")
        # Not by pydicom, which replaces letters that do not fit and only warns: either the same letters are on the
        # modality's screen, or an operator hears about it.
        try:
            data = text.encode(codec)
        except UnicodeEncodeError:
            raise DoesNotFit from None
        if codec == "shift_jis" and (len(data) != len(text) or data.decode(codec) != text):
            raise DoesNotFit  # two bytes are not JIS X 0201, and its yen sign would be read as a backslash
        return data

    def _extended(self, text: str) -> bytes:
        """A text without delimiters, in as many sets as it takes."""
        first = self.terms[0]  # active at each delimiter (PS3.5 6.1.2.5.3), which is said and not left to be known
        ascii_again = b"\x1b(J" if first == "ISO 2022 IR 13" else b"\x1b(B"
        parts, in_g0, in_g1 = bytearray(), "", first
        for letter in text:
            term, code = self._coded(letter)
            if term in _IN_G0 and term != in_g0:
                parts += _ESCAPES[term]
                in_g0 = term
            elif term == _ASCII and in_g0:
                parts += ascii_again
                in_g0 = ""
            elif term not in _IN_G0 and term not in (_ASCII, in_g1):
                parts += _ESCAPES[term]
                in_g1 = term
            parts += code
        parts += ascii_again if in_g0 else b""
        parts += _ESCAPES.get(first, b"") if in_g1 != first and first not in _IN_G0 else b""
        return bytes(parts)

    def _coded(self, letter: str) -> tuple[str, bytes]:
        """The first set that has a letter, and its code there."""
        if letter.isascii():
            return _ASCII, letter.encode("ascii")
        for term in self.terms:
            if code := _code(term, letter):
                return term, code
        raise DoesNotFit

    def _has(self, letter: str) -> bool:
        try:
            self.encoded(letter)
        except DoesNotFit:
            return False
        return True

    def _substitute(self, letter: str) -> str:
        base = unicodedata.normalize("NFD", letter)[0]
        plain = _BARRED.get(base, base)
        return plain if all(self._has(each) for each in plain) else "?"


DEFAULT_REPERTOIRE = CharacterSet(())
UNICODE = CharacterSet((UTF_8,))


@lru_cache(maxsize=256)
def character_set(value: str) -> CharacterSet:
    """The set of a value of (0008,0005), in its usual misspellings too; several terms are separated by backslash.

    Raises ValueError when a term is not known.
    """
    terms = tuple(_term(part) for part in value.split("\\"))
    if not any(terms) or terms == (_ASCII,):
        return DEFAULT_REPERTOIRE
    if terms[0] in _MULTI_BYTE:
        terms = ("", *terms)  # a multi-byte set cannot be the first one, so it extends the default repertoire
    if terms[0] in _WHOLE or len(terms) == 1:
        return CharacterSet(terms[:1])  # pydicom ignores the rest as well
    extended = tuple(term.replace("ISO_IR", "ISO 2022 IR") if term else _ASCII for term in terms if term not in _WHOLE)
    return CharacterSet(extended)


def _term(text: str) -> str:
    term = text.strip(" \0").upper()
    if spelled := _SPELLING.fullmatch(term):
        term = f"ISO {spelled[1]} IR {spelled[2]}" if spelled[1] else f"ISO_IR {spelled[2]}"
    if term in ("", "ISO_IR 6", _ASCII):
        return _ASCII if term else ""
    if term not in _SINGLE and term not in _WHOLE and term not in _ESCAPES:
        raise ValueError("not a character set of PS3.3 C.12.1.1.2")
    return term


@lru_cache(maxsize=4096)
def _code(term: str, letter: str) -> bytes:
    """A letter in one of the sets of a code extension; empty when the set does not have it."""
    if term == _ASCII:
        return b""
    try:
        if term not in _MULTI_BYTE:
            code = letter.encode(_SINGLE[term.replace("ISO 2022", "ISO").replace("ISO IR", "ISO_IR")])
            return code if len(code) == 1 and not code.isascii() else b""
        code = letter.encode(_MULTI_BYTE[term])
    except UnicodeEncodeError:
        return b""
    if term not in _IN_G0:
        return code
    escape = _ESCAPES[term]  # the codec writes it, and ASCII's behind
    return code[len(escape) : len(escape) + 2] if code.startswith(escape) else b""


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
