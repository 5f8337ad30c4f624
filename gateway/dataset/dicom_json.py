"""Data sets in the DICOM JSON model (PS3.18 Annex F): their attributes are read, written and converted here.

An attribute is named by its keyword or by its tag. Reading never raises for what a data set holds: an attribute that
is absent, empty or of another shape reads as nothing, because machines and the cloud send every shape.

Not for: images, which are not converted but walked (`pacs.archive.attributes`); the rules of a worklist item
(`worklist.validation`); data sets in HTTP answers (`relay.dicomweb.json_answers`).
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, Self

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from gateway.dataset.character_sets import UTF_8
from gateway.errors import InvalidDataSet

Element = dict[str, object]
"""An attribute: {"vr"} with "Value", "InlineBinary", "BulkDataURI", or nothing when it is empty (PS3.18 F.2.2)."""

DicomJson = dict[str, Element]
"""A data set: tag, eight upper case hexadecimal digits, to attribute."""

NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
"""The component groups of a person's name, in the order in which a PN has them (PS3.5 6.2.1)."""

_TAG = re.compile("[0-9A-Fa-f]{8}")
_WHOLE_NUMBER = re.compile("[0-9]{1,10}")
"""As many digits as an IS can have (PS3.5 6.2)."""


class PersonName(NamedTuple):
    """The component groups of a person's name (PS3.5 6.2.1) as they came; '' for a group that is not known.

    As text (`str`) they are joined by `=`, as a PN is written.
    """

    alphabetic: str = ""
    ideographic: str = ""
    phonetic: str = ""

    @classmethod
    def of(cls, value: object) -> Self:
        """A value of a PN, {"Alphabetic", "Ideographic", "Phonetic"}; a plain text is taken for the first group."""
        if isinstance(value, dict):
            return cls(*[str(value.get(group) or "") for group in NAME_GROUPS])
        return cls("" if value is None else str(value))

    def __str__(self) -> str:
        return "=".join(self).rstrip("=")

    @property
    def shown(self) -> str:
        """The name as it is shown to people: the alphabetic group, or the first that there is."""
        return next(filter(None, self), "").strip()


# ---- names -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def tag(name: str) -> str:
    """The key of an attribute in a data set, of its keyword or of its tag in hexadecimal digits.

    Raises KeyError for a keyword that the data dictionary (PS3.6) has not.
    """
    if _TAG.fullmatch(name):  # no keyword is written like this
        return name.upper()
    number = tag_for_keyword(name)
    if number is None:
        raise KeyError(name)
    return f"{number:08X}"


# ---- read ------------------------------------------------------------------------------------------------------------


def values(data_set: Mapping[str, object], name: str) -> list[object]:
    """All values of an attribute as they are; an empty one among others is None (PS3.18 F.2.5)."""
    attribute = data_set.get(tag(name))
    stored = attribute.get("Value") if isinstance(attribute, dict) else None
    return stored if isinstance(stored, list) else []


def items(data_set: Mapping[str, object], name: str) -> list[DicomJson]:
    """The items of a sequence, themselves and no copies; none of what is not a sequence."""
    attribute = data_set.get(tag(name))
    if not isinstance(attribute, dict) or attribute.get("vr") != "SQ":
        return []
    stored = attribute.get("Value")
    return [item for item in stored if isinstance(item, dict)] if isinstance(stored, list) else []


def verbatim(data_set: Mapping[str, object], name: str) -> str:
    """The first value as text, exactly as it came, for what is kept or passed on; '' when it is not known.

    A person's name has its component groups joined by `=`.
    """
    # Not by `values`: this runs forty times for each image between its last byte and Success.
    attribute = data_set.get(tag(name))
    stored = attribute.get("Value") if isinstance(attribute, dict) else None
    first = stored[0] if isinstance(stored, list) and stored else ""
    return first if isinstance(first, str) else _written(first)


def text(data_set: Mapping[str, object], name: str) -> str:
    """The first value as text without white space around it, for what is compared or shown; '' when it is not known.

    A person's name has its component groups joined by `=`. Of several values the first counts, also when it is empty:
    where one is allowed (VM 1), a second does not take its place. Whether there is any, `texts` says.
    """
    return verbatim(data_set, name).strip()


def texts(data_set: Mapping[str, object], name: str) -> tuple[str, ...]:
    """All values that are known, each as `text` reads the first."""
    return tuple(known for value in values(data_set, name) if (known := _written(value).strip()))


def person_name(data_set: Mapping[str, object], name: str) -> PersonName:
    """The first value of an attribute that holds persons' names."""
    names = values(data_set, name)
    return PersonName.of(names[0]) if names else PersonName()


def number(data_set: Mapping[str, object], name: str) -> int | None:
    """The first value as a whole number of rows, frames and the like: 0 or more, at most ten digits. Else None."""
    digits = text(data_set, name)
    return int(digits) if _WHOLE_NUMBER.fullmatch(digits) else None


def _written(value: object) -> str:
    if value is None:
        return ""
    return str(PersonName.of(value)) if isinstance(value, dict) else str(value)


# ---- write -----------------------------------------------------------------------------------------------------------


def element(keyword: str, *values: str) -> Element:
    """Write an attribute of text; without values, or with an empty one, it is there and empty."""
    vr = dictionary_VR(keyword)
    if not any(values):
        return {"vr": vr}
    return {"vr": vr, "Value": [_person_name(value) for value in values] if vr == "PN" else list(values)}


def sequence(*items: Mapping[str, object]) -> Element:
    """Write a sequence."""
    return {"vr": "SQ", "Value": list(items)} if items else {"vr": "SQ"}


def _person_name(value: str) -> dict[str, str]:
    return {group: part for group, part in zip(NAME_GROUPS, value.split("="), strict=False) if part}


# ---- convert ---------------------------------------------------------------------------------------------------------


def from_data_set(data_set: Dataset) -> DicomJson:
    """Turn a data set that came over an association into DICOM JSON, in which every text is Unicode.

    Raises InvalidDataSet when a value cannot be read.
    """
    try:
        plain: DicomJson = data_set.to_json_dict()
    except Exception as error:
        # Whatever the conversion of a malformed value stumbles over; its text may quote the value.
        raise InvalidDataSet(f"The data set cannot be read ({type(error).__name__}).") from error
    return {**plain, tag("SpecificCharacterSet"): element("SpecificCharacterSet", UTF_8)}


def to_data_set(data_set: DicomJson) -> Dataset:
    """Turn DICOM JSON into a data set. It has to come from `from_data_set` or be checked: else pydicom raises."""
    return Dataset.from_json(data_set)
