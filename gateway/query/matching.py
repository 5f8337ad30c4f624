"""Attribute matching (PS3.4 C.2.2.2): an identifier, that is a query data set, becomes conditions on columns.

Worklist C-FIND, archive C-FIND and QIDO-RS all use it. Universal, single value, wildcard, list of UID, range and
sequence matching are offered; each rule stands at the lines that obey it. Columns hold the result of `column_value`:
text in which an unknown value is ''. An attribute stored without a value matches universal keys only.

Not here: which attributes can be matched (the owner's table of `Key`), how a condition is decided
(`gateway.query.conditions`), how names compare (`gateway.query.person_names`), how an answer is sent.
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
"""They say how to read the query, and are not matched: character set, level, view, time zone (PS3.4 C.4.1.1.3.1)."""

_DATE = re.compile(
    r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})"
)  # 20261122, or 2026.11.22 as ACR-NEMA wrote it (PS3.5 6.2 DA)
_TIME = re.compile(r"([01][0-9]|2[0-3])(?::?([0-5][0-9])(?::?([0-5][0-9]|60)(?:\.([0-9]{1,6}))?)?)?")
_UID = re.compile(r"[0-9.]{1,64}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_WHOLE_DAY = ("000000.000000", "235960.999999")  # 60: a leap second is a legal TM

_UNREADABLE = "\ufffd"
"""Stands in a decoded value for bytes that are no characters of the character set."""

_NO_TEXT = re.compile("[\ufffd\x1b\ud800-\udfff]")
"""An unreadable character, the beginning of a code extension, or half of a surrogate pair, which no database takes."""


def conditions(identifier: Dataset, keys: Iterable[Key]) -> list[Condition]:
    """Turn a query into conditions on the columns; an empty list is satisfied by every row.

    Raises InvalidQuery, naming the attribute and never its value, for what cannot be understood.
    """
    present = {keyword_for_tag(tag) for tag in identifier.keys()}  # noqa: SIM118 - iterating a Dataset decodes it
    used = [key for key in keys if key.path.partition(".")[0] in present]
    return conditions_on({key.path: _key_text(identifier, key) for key in used}, used)


def conditions_on(values: Mapping[str, str], keys: Iterable[Key]) -> list[Condition]:
    """`conditions` of an identifier that was read before: the texts of its attributes, by path."""
    used = [(key, text) for key in keys if not is_universal(text := values.get(key.path, ""))]
    return _joined([_condition(key, text) for key, text in used], {key.path: text for key, text in used})


def ignored(identifier: Dataset, keys: Iterable[Key]) -> list[str]:
    """Name the attributes with a value that no key can match: they were not applied (pending status FF01)."""
    return ignored_of([path for path, _ in valued(identifier)], keys)


def ignored_of(paths: Iterable[str], keys: Iterable[Key]) -> list[str]:
    """`ignored` for an identifier that was read before: the paths of its attributes with a value."""
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
    """A value without its padding, to which empty component groups belong; '' for a name of delimiters alone."""
    # Leading and trailing spaces do not count in single value matching (PS3.4 C.2.2.2.1); upper and lower case do.
    bare = text.replace("\0", "").strip()
    if not is_name:
        return bare
    return bare.rstrip("= ") if bare.strip("^= ") else ""


def is_universal(text: str) -> bool:
    """Does a key with this text match everything (PS3.4 C.2.2.2.3)?"""
    # A lone `*` is universal (PS3.4 C.2.2.2.4 Note 1). So it is for every kind, because modalities send it in dates and
    # UIDs as well, where a wildcard would otherwise be an error.
    return not text.strip("*")


def requested(identifier: Dataset, data_set: Dataset) -> Dataset:
    """Cut an answer down to the requested attributes (PS3.4 C.4.1.1.3.2).

    A requested attribute that is unknown comes back empty. A sequence has the requested attributes of its items, or all
    of them when none is named. (0008,0005) is answered whenever it is stored. Elements are shared with `data_set`, not
    copied: encode the answer, do not change it.
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
    """The text of a key in the query; '' for absent, empty and anything below an empty sequence."""
    # A sequence without an item, or with empty keys alone, is universal (PS3.4 C.2.2.2.6).
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
    # PS3.4 C.2.2.2.6 allows one item, whose keys all have to match within one and the same stored item.
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
    """The attributes of a query that have a value: path and text, unreadable as U+FFFD. Raises InvalidQuery."""
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
    # Such a query states the wrong SpecificCharacterSet. An error, because it would match nothing or the wrong rows.
    if _NO_TEXT.search(text):
        raise InvalidQuery(f"{name} is not in the character set that the query names.")
    if key.kind is Kind.UID:
        return AnyOf(key, _uids(name, text))
    # Lists are for UIDs (PS3.4 C.2.2.2.2); multiple value matching needs a negotiation that is not offered (C.2.2.2.8).
    if "\\" in text:
        raise InvalidQuery(f"{name} has more than one value; lists are allowed for UIDs only.")
    if key.kind is Kind.TEXT:
        return Like(key, (person_names.glob(text),)) if _is_wild(text) else AnyOf(key, (text,))
    if key.kind is Kind.NAME:
        return Like(key, person_names.patterns(text))
    if _is_wild(text):  # PS3.4 C.2.2.2.4: wildcards are for text and names
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
    """Range matching (PS3.4 C.2.2.2.5): `a-b`, `a-` or `-b`, the ends included; `a` is the range of one."""
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
    parts = _DATE.fullmatch(text)
    if not parts:
        return None
    year, month, day = parts[1], parts[3], parts[4]
    try:
        date(int(year), int(month), int(day))
    except ValueError:
        return None
    return year + month + day


def _times(text: str) -> tuple[str, str] | None:
    parts = _TIME.fullmatch(text)
    if not parts:
        return None
    digits = "".join(part or "" for part in parts.groups()[:3])
    exact = f"{digits}.{parts[4]}" if parts[4] else digits
    # A time without minutes or seconds is the whole hour or minute (PS3.5 Table 6.2-1, TM): `10` runs from 10:00:00 to
    # 10:59:59.999999, and `-10` ends there.
    return exact + "000000.000000"[len(exact) :], exact + "235959.999999"[len(exact) :]


def _joined(wanted: list[Condition], texts: Mapping[str, str]) -> list[Condition]:
    """Put a range of dates and a range of times that belong together into one period."""
    # Two ranges mean one period from the first date and time to the last (PS3.4 K.6.1.2.2). In any other mixture, such
    # as one day and a range of times, date and time are matched apart.
    ranges = {c.key.path: c for c in wanted if isinstance(c, Between) and "-" in texts[c.key.path]}
    pairs = [(ranges[c.key.of_date], c) for c in ranges.values() if c.key.of_date in ranges]
    apart: list[Condition] = [c for c in wanted if not any(c in pair for pair in pairs)]
    return apart + [_period(days, times) for days, times in pairs]


def _period(days: Between, times: Between) -> Period:
    # Where the date is open, the time at that end means nothing.
    low = (days.low, times.low or _WHOLE_DAY[0]) if days.low else None
    high = (days.high, times.high or _WHOLE_DAY[1]) if days.high else None
    return Period(days.key, times.key, low, high)


# --- answers


def _requested_element(identifier: Dataset, element: DataElement) -> DataElement:
    if element.VR != "SQ":
        return element
    items = _items(identifier, element.keyword)
    if not items or not items[0]:
        return element
    return DataElement(element.tag, "SQ", [requested(items[0], item) for item in element.value])


def _is_answerable(tag: BaseTag) -> bool:
    return tag.element != 0 and not tag.is_private and tag not in NOT_MATCHED and dictionary_has_tag(tag)


@lru_cache(maxsize=512)  # a modality requests the same attributes all day
def _empty(tag: BaseTag) -> DataElement:
    return DataElement(tag, dictionary_VR(tag).split(" or ")[0], None)  # "US or SS": empty, either will do
