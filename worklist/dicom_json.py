"""Attributes in DICOM JSON (PS3.18 Annex F), which is how items and steps are kept: read, write, check, convert.

Reading never raises; what is absent, empty or of another shape reads as nothing. Checking is for the border where
data sets come in from outside. Not here: which attributes an item or a step must have.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import MAX_VALUE_LEN, validate_value

from gateway.dataset.data_sets import encode
from gateway.errors import InvalidDataSet, InvalidValue
from gateway.query.conditions import Kind
from gateway.query.matching import column_value

DicomJson = dict[str, object]

UTF_8 = "ISO_IR 192"
_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_TAG = re.compile("[0-9A-Fa-f]{8}")
_CONTROL = re.compile(r"[\\\x00-\x1f\x7f]")  # a backslash separates values, controls belong to character sets
_PARAGRAPHS = frozenset({"LT", "ST", "UT"})  # the VRs that may have line breaks, and backslashes (PS3.5 6.2)


@lru_cache(maxsize=512)
def tag(keyword: str) -> str:
    """The key of an attribute, eight hexadecimal digits."""
    number = tag_for_keyword(keyword)
    if number is None:
        raise KeyError(keyword)
    return f"{number:08X}"


def element(keyword: str, *values: str) -> DicomJson:
    """Write an attribute of text; without values, or with an empty one, it is there and empty."""
    vr = dictionary_VR(keyword)
    if not any(values):
        return {"vr": vr}
    return {"vr": vr, "Value": [_person_name(value) for value in values] if vr == "PN" else list(values)}


def sequence(*items: DicomJson) -> DicomJson:
    """Write a sequence."""
    return {"vr": "SQ", "Value": list(items)} if items else {"vr": "SQ"}


def text(data_set: Mapping[str, object], keyword: str) -> str:
    """The first value of an attribute; person names with their groups joined by `=`. '' when it is not known."""
    return next(iter(texts(data_set, keyword)), "")


def texts(data_set: Mapping[str, object], keyword: str) -> tuple[str, ...]:
    """All values of an attribute that are known."""
    values = (joined_name(value) if isinstance(value, Mapping) else value for value in _values(data_set, keyword))
    return tuple(known for value in values if value is not None and (known := str(value).strip()))


def joined_name(value: Mapping[str, object]) -> str:
    """A person name with its component groups joined by `=`."""
    return "=".join(str(value.get(group) or "") for group in _NAME_GROUPS).rstrip("=")


def items(data_set: Mapping[str, object], keyword: str) -> list[DicomJson]:
    """The items of a sequence."""
    attribute = data_set.get(tag(keyword))
    is_sequence = isinstance(attribute, Mapping) and attribute.get("vr") == "SQ"
    return [item for item in _values(data_set, keyword) if isinstance(item, dict)] if is_sequence else []


def from_data_set(data_set: Dataset) -> DicomJson:
    """Turn what came over an association into DICOM JSON, in which every text is Unicode.

    Raises InvalidDataSet when a value cannot be read.
    """
    try:
        plain: DicomJson = data_set.to_json_dict()
    except Exception as error:
        # Whatever the conversion of a malformed value stumbles over; its text may quote the value.
        raise InvalidDataSet(f"The data set cannot be read ({type(error).__name__}).") from error
    return {**plain, tag("SpecificCharacterSet"): element("SpecificCharacterSet", UTF_8)}


def to_data_set(data_set: DicomJson) -> Dataset:
    """Turn DICOM JSON that was checked, or made by `from_data_set`, into a data set."""
    return Dataset.from_json(data_set)


def check(data_set: Mapping[str, object]) -> None:
    """Refuse what DICOM cannot hold or a modality cannot show.

    Raises InvalidValue that names the attribute, never its value.
    """
    for key, attribute in data_set.items():
        if not _TAG.fullmatch(key):
            raise InvalidValue("Attributes have to be named by eight hexadecimal digits.")
        name = _name(key)
        if not isinstance(attribute, dict):
            raise InvalidValue(f"{name} has to be an object with its vr.")
        try:
            _check_attribute(key, attribute)
        except InvalidValue:
            raise
        except Exception as error:
            # pydicom raises whatever it stumbles over, and quotes values.
            raise InvalidValue(f"{name} has to be {_expected(str(attribute.get('vr')))}.") from error


def _check_attribute(key: str, attribute: DicomJson) -> None:
    name, vr, values = _name(key), attribute.get("vr"), attribute.get("Value", [])
    if vr in _BULK or attribute.keys() & {"BulkDataURI", "InlineBinary"}:
        raise InvalidValue(f"{name} holds binary data, which a worklist does not carry.")
    if keyword_for_tag(int(key, 16)) and vr not in dictionary_VR(int(key, 16)).split(" or "):
        raise InvalidValue(f"{name} has to have the VR {dictionary_VR(int(key, 16))}.")
    if not isinstance(values, list):
        raise InvalidValue(f"{name} has to have a list of values.")
    for value in values:
        if vr == "SQ":
            check(value)
        elif value is not None:
            _check_text(name, str(vr), value)
    if vr != "SQ":
        charset = {tag("SpecificCharacterSet"): element("SpecificCharacterSet", UTF_8)}
        encode(Dataset.from_json({**charset, key: attribute}), ExplicitVRLittleEndian)  # numbers out of range, ...


def _check_text(name: str, vr: str, value: object) -> None:
    text_value = joined_name(value) if isinstance(value, Mapping) else value
    if not isinstance(text_value, str):
        return
    if vr not in _PARAGRAPHS and _CONTROL.search(text_value):
        raise InvalidValue(f"{name} must not contain a backslash or control characters.")
    text_value.encode()  # half a surrogate pair is no character
    validate_value(vr, text_value, config.RAISE)
    kind = {"DA": Kind.DATE, "TM": Kind.TIME}.get(vr)  # pydicom lets pass ranges, which only queries may have
    if kind and not column_value(kind, text_value):
        raise InvalidValue(f"{name} has to be a {kind}.")


def _expected(vr: str) -> str:
    limit = MAX_VALUE_LEN.get(vr, 64 if vr == "PN" else 0)
    return f"a value of VR {vr}" + (f", of at most {limit} characters" if limit else "")


def _values(data_set: Mapping[str, object], keyword: str) -> list[object]:
    attribute = data_set.get(tag(keyword))
    found = attribute.get("Value") if isinstance(attribute, Mapping) else None
    return found if isinstance(found, list) else []


def _name(key: str) -> str:
    return keyword_for_tag(int(key, 16)) or key


def _person_name(value: str) -> DicomJson:
    return {group: part for group, part in zip(_NAME_GROUPS, value.split("="), strict=False) if part}
