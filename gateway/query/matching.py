"""Matching by the book: what an identifier (query data set) asks becomes conditions.

Worklist C-FIND, archive C-FIND and QIDO-RS all decide here what a query means. Not here: which attributes can be
matched (the owner's table of `Key`), how a condition is decided (`gateway.query.conditions`), and how an answer is
sent.

The rules are those of PS3.4 C.2.2.2:

* Universal (C.2.2.2.3, C.2.2.2.6): a key that is absent, empty, or a sequence with no item or only empty keys in its
  item matches everything. So does a lone `*` (C.2.2.2.4 Note 1); we read it so for every kind, because modalities
  send it in dates and UIDs as well.
* Unknown: an attribute that is stored without a value matches universal keys only.
* Single value (C.2.2.2.1): equal, with upper and lower case told apart, leading and trailing spaces ignored.
* Wildcards (C.2.2.2.4): `*` is any run of characters, also none, `?` exactly one; text and names only. In a UID, date,
  time or number they are an error.
* List of UIDs (C.2.2.2.2): values separated by backslash, one of them has to be equal. A list of anything else is an
  error: it needs a negotiation (C.2.2.2.8) that we do not offer.
* Range (C.2.2.2.5): `a-b`, `a-`, `-b`, the ends included, for dates and times. A time that leaves out minutes or
  seconds means the whole hour or minute (PS3.5 Table 6.2-1, TM): `10` is 10:00:00 to 10:59:59.999999, `-10` ends there.
* Date and time together: a time key may name its date key (`of_date`). If both are asked with ranges, they are one
  period from the first date and time to the last (K.6.1.2.2); where the date is open, the time at that end says
  nothing. In any other mixture the two are matched apart.
* Sequences (C.2.2.2.6): the query has one item, and all its keys have to match within the same stored item.
* Person names: without regard to case and accents, across the component groups (`gateway.query.person_names`).
* Letters that the character set of the query has not are no value (`SpecificCharacterSet` is wrong): an error.

Columns hold what `column_value` makes of an attribute: text in which an unknown value is ''.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from functools import lru_cache

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from gateway.errors import InvalidQuery
from gateway.query import person_names
from gateway.query.conditions import AnyOf, Between, Condition, Key, Kind, Like, Period

LONGEST_VALUE = 1024
"""Characters of one key; more than any VR that can be matched may have (PN: 3 groups of 64)."""

SPECIFIC_CHARACTER_SET = Tag(0x0008, 0x0005)
NOT_MATCHED = frozenset({SPECIFIC_CHARACTER_SET, Tag(0x0008, 0x0052), Tag(0x0008, 0x0053), Tag(0x0008, 0x0201)})
"""Say how to read the query rather than what to look for: character set, level, view, time zone (PS3.4 C.4.1.1.3.1)."""

_DATE = re.compile(
    r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})"
)  # 20261122, or 2026.11.22 as ACR-NEMA wrote it (PS3.5 6.2 DA)
_TIME = re.compile(r"([01][0-9]|2[0-3])(?::?([0-5][0-9])(?::?([0-5][0-9]|60)(?:\.([0-9]{1,6}))?)?)?")
_UID = re.compile(r"[0-9.]{1,64}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_WHOLE_DAY = ("000000.000000", "235960.999999")  # 60: a leap second is a legal TM

_UNREADABLE = "\ufffd"
"""What a value is decoded to where its bytes are no letters of the character set."""

_NO_TEXT = re.compile("[\ufffd\x1b\ud800-\udfff]")
"""That, the beginning of a code extension, or half of a surrogate pair, which no database takes."""


def conditions(identifier: Dataset, keys: Iterable[Key]) -> list[Condition]:
    """Say what a query asks of the columns; an empty list is satisfied by every row.

    Raises InvalidQuery, naming the attribute and never its value, for what cannot be understood.
    """
    present = {keyword_for_tag(tag) for tag in identifier.keys()}  # noqa: SIM118 - iterating a Dataset decodes it
    asked = [key for key in keys if key.path.partition(".")[0] in present]
    return conditions_on({key.path: _key_text(identifier, key) for key in asked}, asked)


def conditions_on(values: Mapping[str, str], keys: Iterable[Key]) -> list[Condition]:
    """`conditions` of an identifier that was read before: the texts of its attributes, by path."""
    asked = [(key, text) for key in keys if not is_universal(text := values.get(key.path, ""))]
    return _joined([_condition(key, text) for key, text in asked], {key.path: text for key, text in asked})


def ignored(identifier: Dataset, keys: Iterable[Key]) -> list[str]:
    """Name the attributes with a value that no key can match: they were not applied (pending status FF01)."""
    return ignored_of([path for path, _ in valued(identifier)], keys)


def ignored_of(paths: Iterable[str], keys: Iterable[Key]) -> list[str]:
    """`ignored` among the attributes that were asked with a value, by path."""
    known = {key.path for key in keys}
    return [path for path in paths if path not in known]


def column_value(kind: Kind, text: str) -> str:
    """Turn an attribute's text into the form that is stored and compared; '' when it has no usable value."""
    bare = plain(text)
    if kind is Kind.NAME:
        return person_names.fold(bare)
    if kind is Kind.DATE:
        return _day(bare) or ""
    if kind is Kind.TIME:
        return (_times(bare) or ("", ""))[0]
    if kind is Kind.NUMBER:
        return str(int(bare)) if _NUMBER.fullmatch(bare) else ""
    return bare


def plain(text: str, *, is_name: bool = False) -> str:
    """A value without its padding, to which empty component groups belong; a name of nothing but delimiters is none."""
    bare = text.replace("\0", "").strip()
    if not is_name:
        return bare
    return bare.rstrip("= ") if bare.strip("^= ") else ""


def is_universal(text: str) -> bool:
    """Does a key with this text match everything?"""
    return not text.strip("*")


def requested(identifier: Dataset, data_set: Dataset) -> Dataset:
    """Cut an answer down to what was asked (PS3.4 C.4.1.1.3.2).

    Asked and unknown attributes come back empty, sequences with what was asked of their items (all of them when
    nothing was), others not at all. (0008,0005) is answered whenever it is stored, asked or not. Elements are shared
    with `data_set`, not copied: encode the answer, do not change it.
    """
    answer = Dataset()
    if SPECIFIC_CHARACTER_SET in data_set:
        answer[SPECIFIC_CHARACTER_SET] = data_set[SPECIFIC_CHARACTER_SET]
    for tag in identifier.keys():  # noqa: SIM118 - iterating a Dataset decodes every element, its keys do not
        if tag in data_set:
            answer[tag] = _requested_element(identifier, data_set[tag])
        elif _is_answerable(tag):
            answer[tag] = _empty(tag)
    return answer


# --- reading the identifier


def _key_text(identifier: Dataset, key: Key) -> str:
    """The text that was asked of a key; '' for absent, empty and anything below an empty sequence."""
    *sequences, keyword = key.path.split(".")
    item = identifier
    for name in sequences:
        items = _items(item, name)
        if not items:
            return ""
        item = items[0]
    return _text(_element(item, keyword, keyword), keyword) if keyword in item else ""


def _items(data_set: Dataset, keyword: str) -> Sequence[Dataset]:
    if keyword not in data_set:
        return ()
    element = _element(data_set, keyword, keyword)
    if element.VR != "SQ":
        raise InvalidQuery(f"{keyword} has to be a sequence.")
    items: Sequence[Dataset] = element.value or ()
    if len(items) > 1:
        raise InvalidQuery(f"{keyword} has to have one item in a query, not {len(items)}.")
    return items


def _element(data_set: Dataset, tag: BaseTag | str, name: str) -> DataElement:
    """Decode an element; its VR may make that impossible (an IS that is no number)."""
    try:
        return data_set[tag]
    except (ValueError, TypeError, NotImplementedError, BytesLengthException):
        raise InvalidQuery(f"{name} has no readable value.") from None


def _text(element: DataElement, name: str) -> str:
    value = element.value
    if value is None:
        return ""
    if isinstance(value, bytes) or element.VR == "SQ":
        raise InvalidQuery(f"{name} has no readable value.")
    text = "\\".join(str(part) for part in value) if isinstance(value, MultiValue | list) else str(value)
    if len(text) > LONGEST_VALUE and element.VR != "UI":
        raise InvalidQuery(f"{name} is longer than any value of its kind.")
    return plain(text, is_name=element.VR == "PN")


def valued(data_set: Dataset, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The attributes that are asked for with a value: path and text, unreadable as U+FFFD. Raises InvalidQuery."""
    for tag in data_set.keys():  # noqa: SIM118 - see `requested`
        if tag in NOT_MATCHED or tag.element == 0 or tag.is_private_creator:
            continue
        name = prefix + (keyword_for_tag(tag) or str(tag))
        element = _element(data_set, tag, name)
        if element.VR == "SQ":
            for item in element.value or ():
                yield from valued(item, f"{name}.")
        elif isinstance(element.value, bytes):
            yield name, _UNREADABLE
        elif not is_universal(text := _text(element, name)):
            yield name, text


# --- from text to conditions


def _condition(key: Key, text: str) -> Condition:
    name = key.path.rpartition(".")[2]
    if _NO_TEXT.search(text):
        raise InvalidQuery(f"{name} is not in the character set that the query names.")
    if key.kind is Kind.UID:
        return AnyOf(key, _uids(name, text))
    if "\\" in text:
        raise InvalidQuery(f"{name} has more than one value; lists are allowed for UIDs only.")
    if key.kind is Kind.TEXT:
        return Like(key, (person_names.glob(text),)) if _is_wild(text) else AnyOf(key, (text,))
    if key.kind is Kind.NAME:
        return Like(key, person_names.patterns(text))
    if _is_wild(text):
        raise InvalidQuery(f"{name} is a {key.kind}, in which wildcards are not allowed.")
    if key.kind is Kind.NUMBER:
        return AnyOf(key, (_number(name, text),))
    return _range(key, name, text)


def _is_wild(text: str) -> bool:
    return "*" in text or "?" in text


def _uids(name: str, text: str) -> tuple[str, ...]:
    uids = tuple(uid for part in text.split("\\") if (uid := part.strip()))
    if not uids or not all(_UID.fullmatch(uid) for uid in uids):
        raise InvalidQuery(f"{name} has to be a UID, or several separated by backslash.")
    return uids


def _number(name: str, text: str) -> str:
    if not _NUMBER.fullmatch(text):
        raise InvalidQuery(f"{name} has to be a whole number.")
    return str(int(text))


def _range(key: Key, name: str, text: str) -> Between:
    first, hyphen, last = (part.strip() for part in text.partition("-"))
    if not hyphen:
        last = first
    if not (first or last):
        raise InvalidQuery(f"{name} is a range without ends.")
    return Between(key, _bounds(key, name, first)[0], _bounds(key, name, last)[1])


def _bounds(key: Key, name: str, text: str) -> tuple[str, str]:
    """The first and the last moment that a date or time stands for."""
    if not text:
        return "", ""
    if key.kind is Kind.DATE:
        if day := _day(text):
            return day, day
        raise InvalidQuery(f"{name} has to be a date YYYYMMDD or a range of two.")
    if times := _times(text):
        return times
    raise InvalidQuery(f"{name} has to be a time HHMMSS or a range of two.")


def _day(text: str) -> str | None:
    found = _DATE.fullmatch(text)
    if not found:
        return None
    year, month, day = found[1], found[3], found[4]
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return None
    return year + month + day


def _times(text: str) -> tuple[str, str] | None:
    found = _TIME.fullmatch(text)
    if not found:
        return None
    digits = "".join(part or "" for part in found.groups()[:3])
    exact = f"{digits}.{found[4]}" if found[4] else digits
    return exact + "000000.000000"[len(exact) :], exact + "235959.999999"[len(exact) :]


def _joined(wanted: list[Condition], asked: Mapping[str, str]) -> list[Condition]:
    """Put a range of dates and a range of times that belong together into one period."""
    ranges = {c.key.path: c for c in wanted if isinstance(c, Between) and "-" in asked[c.key.path]}
    pairs = [(ranges[c.key.of_date], c) for c in ranges.values() if c.key.of_date in ranges]
    apart: list[Condition] = [c for c in wanted if not any(c in pair for pair in pairs)]
    return apart + [_period(days, times) for days, times in pairs]


def _period(days: Between, times: Between) -> Period:
    low = (days.low, times.low or _WHOLE_DAY[0]) if days.low else None
    high = (days.high, times.high or _WHOLE_DAY[1]) if days.high else None
    return Period(days.key, times.key, low, high)


# --- answers


def _requested_element(identifier: Dataset, element: DataElement) -> DataElement:
    if element.VR != "SQ":
        return element
    asked = _items(identifier, element.keyword)
    if not asked or not asked[0]:
        return element
    return DataElement(element.tag, "SQ", [requested(asked[0], item) for item in element.value])


def _is_answerable(tag: BaseTag) -> bool:
    return tag.element != 0 and not tag.is_private and tag not in NOT_MATCHED and dictionary_has_tag(tag)


@lru_cache(maxsize=512)
def _empty(tag: BaseTag) -> DataElement:
    return DataElement(tag, dictionary_VR(tag).split(" or ")[0], None)
