"""Field types of messages: the values DICOM can carry (PS3.5 Table 6.2-1), as pydantic types.

A value that does not fit raises ValueError with the expectation and never the value; `relay.protocol` makes a sentence
of it with the field's name.

Not for: the fields of a message (`gateway.messages`), values from modalities, which are kept as they come.
"""

import math
import re
from datetime import datetime
from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

_EIGHT_DIGITS = re.compile(r"[0-9]{8}")
_EARLIEST, _LATEST = "18500101", "99981231"  # beyond are typing errors, and dates no time zone can be applied to
_NOT_TEXT = re.compile(r"[\\\x00-\x1f\x7f]")  # a backslash separates values, controls belong to character sets
_CODE_STRING = re.compile(r"[A-Z0-9_ ]*")
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9])?)?")
_ACTION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


# Refused on reading and never later, because the cloud can correct a value and a modality at work cannot.
def _text(value: str) -> str:
    if _NOT_TEXT.search(value):
        raise ValueError("must not contain a backslash or control characters")
    return value


def _code_string(value: str) -> str:
    if not _CODE_STRING.fullmatch(value):
        raise ValueError("must hold upper case letters, digits, spaces and underscores only")
    return value


def _date(value: str) -> str:
    # strptime alone would also read "2026111 " and other digits than ASCII's.
    if _EIGHT_DIGITS.fullmatch(value) and _EARLIEST <= value <= _LATEST:
        try:
            datetime.strptime(value, "%Y%m%d")
        except ValueError:
            pass
        else:
            return value
    raise ValueError("must be a date of the calendar written YYYYMMDD")


def _optional_date(value: str) -> str:
    return _date(value) if value else value


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise ValueError("must be a time written HHMMSS, HHMM or HH")
    return value


def _person_name(value: str) -> str:
    groups = value.split("=")  # alphabetic, ideographic, phonetic (PS3.5 6.2.1)
    if len(groups) > 3 or any(len(group) > 64 or group.count("^") > 4 for group in groups):
        raise ValueError("must be a person name of at most 3 groups of 64 characters with 5 components each")
    if not value.strip("^= "):
        raise ValueError("must not be empty")
    return value


def _attributes(value: dict[str, object]) -> dict[str, object]:
    # Checked as a whole, so that an error never names a key: keys come from outside as well.
    for tag, element in value.items():
        if not _TAG.fullmatch(tag) or not isinstance(element, dict) or not isinstance(element.get("vr"), str):
            raise ValueError("must be DICOM JSON: eight hexadecimal digits naming an object with its vr (PS3.18 F.2)")
    return value


def _action_id(value: str) -> str:
    if not _ACTION_ID.fullmatch(value):
        raise ValueError("must be 1 to 128 letters, digits, dots, colons, hyphens and underscores")
    return value


def _optional_action_id(value: str) -> str:
    return _action_id(value) if value else value


def _time_zone(value: str) -> str:
    try:
        if value:
            ZoneInfo(value)
    except (ValueError, KeyError, OSError):
        raise ValueError("must be the IANA name of a time zone, such as Europe/London or UTC") from None
    return value


def _status_word(value: object) -> object:
    return re.sub(r"[\s-]+", "_", value.strip().lower()) if isinstance(value, str) else value


def _empty_if_null(value: object) -> object:
    return "" if value is None else value


def _optional_uid(value: str) -> str:
    if value and not (len(value) <= 64 and _UID.fullmatch(value)):
        raise ValueError("must be a UID: numbers with dots between them, 64 characters at most")
    return value


def _target_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = not value or (parts.scheme == "https" and parts.hostname) or _is_http_on_loopback(value)
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an https address")
    return value


def _is_http_on_loopback(url: str) -> bool:
    # For the simulated cloud beside a gateway. By address and not by name, because a name may resolve to anything.
    parts = urlsplit(url)
    try:
        return parts.scheme == "http" and ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _measure(value: object) -> float | None:
    """A number as JSON can hold it; a value that cannot be read as a number is absent, not an error."""
    # Written by modalities, in any shape; an event about a stored image may not fail on it.
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# A validator's rule is repeated as a pattern where JSON Schema can say it, because the cloud's team works by schemas.
ActionId = Annotated[str, AfterValidator(_action_id), Field(json_schema_extra={"pattern": "^[A-Za-z0-9._:-]{1,128}$"})]
OptionalActionId = Annotated[str, BeforeValidator(_empty_if_null), AfterValidator(_optional_action_id)]
AccessionNumber = Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_text)]
"""VR SH."""
PatientId = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_text)]
"""VR LO."""
PersonName = Annotated[
    str,
    Field(min_length=1, description="DICOM PN: LAST^FIRST^MIDDLE^PREFIX^SUFFIX"),
    AfterValidator(_text),
    AfterValidator(_person_name),
]
LongText = Annotated[str, BeforeValidator(_empty_if_null), Field(max_length=64), AfterValidator(_text)]
"""VR LO, Type 2: may be empty."""
CodeString = Annotated[
    str,
    Field(min_length=1, max_length=16, json_schema_extra={"pattern": "^[A-Z0-9_ ]+$"}),
    AfterValidator(_code_string),
]
Date = Annotated[str, AfterValidator(_date), Field(description="DICOM DA", json_schema_extra={"pattern": "^[0-9]{8}$"})]
OptionalDate = Annotated[
    str,
    BeforeValidator(_empty_if_null),
    AfterValidator(_optional_date),
    Field(description="DICOM DA", json_schema_extra={"pattern": "^([0-9]{8})?$"}),
]
Time = Annotated[
    str,
    AfterValidator(_time),
    Field(description="DICOM TM without fraction", json_schema_extra={"pattern": "^[0-9]{2}([0-9]{2}){0,2}$"}),
]
TimeZone = Annotated[
    str, BeforeValidator(_empty_if_null), AfterValidator(_time_zone), Field(description="IANA name; empty: site-local")
]
Sex = Annotated[Literal["M", "F", "O", ""], BeforeValidator(_empty_if_null)]
"""PS3.3 C.7.1.1, Type 2."""
ItemStatus = Annotated[
    Literal["scheduled", "in_progress", "completed", "discontinued", "cancelled"], BeforeValidator(_status_word)
]
"""The state of a worklist item; read in any case and with blanks or hyphens, as `IN PROGRESS`."""
OptionalUid = Annotated[str, BeforeValidator(_empty_if_null), AfterValidator(_optional_uid)]
"""VR UI."""
TargetUrl = Annotated[str, BeforeValidator(_empty_if_null), AfterValidator(_target_url)]
"""The target of an upload; it may carry a signature, so it is a secret. http is for this machine only."""
Measure = Annotated[float | None, BeforeValidator(_measure)]
"""A number, or null for a value that cannot be read as one."""
DicomJson = Annotated[dict[str, object], AfterValidator(_attributes)]
"""Attributes in the DICOM JSON model (PS3.18 F.2)."""
