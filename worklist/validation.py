"""Checks the values of DICOM JSON that the cloud and operators send for the worklist.

Not for: the required attributes of an item (`worklist.items`) or a step (`worklist.mpps_table`); data sets of
modalities, which are stored as they come.
"""

import re
from collections.abc import Mapping

from pydicom import config
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.valuerep import MAX_VALUE_LEN, validate_value

from gateway.dataset.character_sets import UTF_8
from gateway.dataset.data_sets import encode
from gateway.dataset.dicom_json import DicomJson, Element, PersonName, element, tag
from gateway.errors import InvalidValue
from gateway.query.conditions import Kind
from gateway.query.matching import column_value

_BULK = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TAG = re.compile("[0-9A-Fa-f]{8}")
_CONTROL = re.compile(r"[\\\x00-\x1f\x7f]")  # a backslash separates values, controls belong to character sets
_PARAGRAPHS = frozenset({"LT", "ST", "UT"})  # the VRs that may have line breaks, and backslashes (PS3.5 6.2)
_IN_UNICODE: DicomJson = {tag("SpecificCharacterSet"): element("SpecificCharacterSet", UTF_8)}


def checked(data_set: Mapping[str, object]) -> DicomJson:
    """Return the data set if DICOM can hold it and a modality can show it.

    Raises InvalidValue that names the attribute, never its value.
    """
    return {key: _checked_attribute(key, attribute) for key, attribute in data_set.items()}


def _checked_attribute(key: str, attribute: object) -> Element:
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
    return attribute


def _check_attribute(key: str, attribute: Element) -> None:
    name, vr, values = _name(key), attribute.get("vr"), attribute.get("Value", [])
    if vr in _BULK or attribute.keys() & {"BulkDataURI", "InlineBinary"}:
        raise InvalidValue(f"{name} holds binary data, which a worklist does not carry.")
    if keyword_for_tag(int(key, 16)) and vr not in dictionary_VR(int(key, 16)).split(" or "):
        raise InvalidValue(f"{name} has to have the VR {dictionary_VR(int(key, 16))}.")
    if not isinstance(values, list):
        raise InvalidValue(f"{name} has to have a list of values.")
    for value in values:
        if vr == "SQ":
            checked(value)
        elif value is not None:
            _check_text(name, str(vr), value)
    if vr != "SQ":
        encode(Dataset.from_json({**_IN_UNICODE, key: attribute}), ExplicitVRLittleEndian)  # numbers out of range, ...


def _check_text(name: str, vr: str, value: object) -> None:
    text = str(PersonName.of(value)) if isinstance(value, dict) else value
    if not isinstance(text, str):
        return
    if vr not in _PARAGRAPHS and _CONTROL.search(text):
        raise InvalidValue(f"{name} must not contain a backslash or control characters.")
    text.encode()  # half a surrogate pair is no character
    validate_value(vr, text, config.RAISE)
    kind = {"DA": Kind.DATE, "TM": Kind.TIME}.get(vr)  # pydicom lets pass ranges, which only queries may have
    if kind and not column_value(kind, text):
        raise InvalidValue(f"{name} has to be a {kind}.")


def _expected(vr: str) -> str:
    limit = MAX_VALUE_LEN.get(vr, 64 if vr == "PN" else 0)
    return f"a value of VR {vr}" + (f", of at most {limit} characters" if limit else "")


def _name(key: str) -> str:
    return keyword_for_tag(int(key, 16)) or key
