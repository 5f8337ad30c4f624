"""Identifiers of query and retrieve (PS3.4 C.4): their level, the keys it requires, and the encoding of an answer.

* The level is one of the information model's, Patient Root or Study Root (C.6.1.1, C.6.2.1).
* A query has one value of the unique key of each level above (C.4.1.2.2.1), unless relational queries were negotiated
  (C.4.1.2.2.2).
* A retrieval has unique keys alone: one value above the level, a list of UIDs at it (C.4.2.2.1). Keys above may be
  left out.
* An answer has the keys of the query, empty where unknown, and always the level, the unique keys down to it and
  Retrieve AE Title (C.4.1.1.3.2). It is in Unicode.

Not for: matching (`gateway.query.matching`), SQL (`pacs.archive.index`), associations (`handlers`).
"""

from collections.abc import Iterator, Mapping, Sequence

from pydicom import DataElement, Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.multival import MultiValue
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    PatientRootQueryRetrieveInformationModelFind,
    PatientRootQueryRetrieveInformationModelGet,
    PatientRootQueryRetrieveInformationModelMove,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from gateway.dataset.data_sets import encode
from gateway.dataset.dicom_json import DicomJson
from gateway.errors import InvalidQuery
from gateway.query.matching import requested
from pacs.archive.index import Level

PAGE = 500
"""Answers read at once: enough for the database, little for memory."""

_PATIENT_ROOT: tuple[Level, ...] = ("PATIENT", "STUDY", "SERIES", "IMAGE")
_STUDY_ROOT: tuple[Level, ...] = ("STUDY", "SERIES", "IMAGE")

FIND: Mapping[str, tuple[Level, ...]] = {
    PatientRootQueryRetrieveInformationModelFind: _PATIENT_ROOT,
    StudyRootQueryRetrieveInformationModelFind: _STUDY_ROOT,
}
GET: Mapping[str, tuple[Level, ...]] = {
    PatientRootQueryRetrieveInformationModelGet: _PATIENT_ROOT,
    StudyRootQueryRetrieveInformationModelGet: _STUDY_ROOT,
}
MOVE: Mapping[str, tuple[Level, ...]] = {
    PatientRootQueryRetrieveInformationModelMove: _PATIENT_ROOT,
    StudyRootQueryRetrieveInformationModelMove: _STUDY_ROOT,
}
SOP_CLASSES = (*FIND, *GET, *MOVE)

EXTENDED = {**dict.fromkeys(FIND, b"\x01\x01"), **dict.fromkeys([*GET, *MOVE], b"\x01")}
"""Relational queries and retrievals; dates combined with times (PS3.4 C.5.1.1, C.5.2.1)."""

_UNIQUE: Mapping[Level, str] = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


def query_level(sop_class_uid: str, identifier: Dataset, *, relational: bool) -> Level:
    """The level of a C-FIND. Raises InvalidQuery when it is none of the model's, or a level above is not named."""
    level, above = _level(FIND, sop_class_uid, identifier)
    for keyword in (_UNIQUE[upper] for upper in above):
        value = _value(identifier, keyword)
        # Required, because a query without them would list a million instances by mistake.
        if not relational and (not value or "\\" in value or "*" in value or "?" in value):
            raise InvalidQuery(f"{keyword} has to have one value at the level {level}.")
    return level


def wanted(sop_class_uid: str, identifier: Dataset) -> Dataset:
    """The unique keys of a C-GET or C-MOVE. Raises InvalidQuery when they do not name what to retrieve."""
    level, above = _level({**GET, **MOVE}, sop_class_uid, identifier)
    chosen = Dataset()
    for keyword in [*(_UNIQUE[upper] for upper in above), _UNIQUE[level]]:
        value = _value(identifier, keyword)
        is_own = keyword == _UNIQUE[level]
        if is_own and not value:
            raise InvalidQuery(f"{keyword} has to have a value at the level {level}.")
        if "*" in value or "?" in value or ("\\" in value and not (is_own and keyword != "PatientID")):
            raise InvalidQuery(f"{keyword} has to be one value without wildcards in a retrieval.")
        # A key above may be missing, because a UID at the level is enough.
        if value:
            setattr(chosen, keyword, identifier[keyword].value)
    return chosen


def answer(found: DicomJson, identifier: Dataset, level: Level, *, ae_title: str, transfer_syntax: str) -> bytes:
    """One C-FIND answer, encoded."""
    keys = Dataset()
    keys.update(identifier)
    for keyword in ("QueryRetrieveLevel", "RetrieveAETitle", *_unique_keys(level)):
        if keyword not in keys:
            setattr(keys, keyword, None)
    known = Dataset()
    for element in _elements(found, keys):
        known.add(element)
    known.QueryRetrieveLevel, known.RetrieveAETitle, known.InstanceAvailability = level, ae_title, "ONLINE"
    return _encoded(requested(keys, known), transfer_syntax)


def _level(
    models: Mapping[str, tuple[Level, ...]], sop_class_uid: str, identifier: Dataset
) -> tuple[Level, Sequence[Level]]:
    levels = models.get(sop_class_uid)
    if levels is None:
        raise InvalidQuery("The request came in a presentation context of another service.")
    named = _value(identifier, "QueryRetrieveLevel")
    for place, level in enumerate(levels):
        if level == named:
            return level, levels[:place]
    raise InvalidQuery(f"QueryRetrieveLevel has to be {', '.join(levels)}.")


def _value(identifier: Dataset, keyword: str) -> str:
    value = identifier.get(keyword)
    if isinstance(value, MultiValue | list):
        return "\\".join(str(part) for part in value)
    return "" if value is None else str(value).strip(" \0")


def _unique_keys(level: Level) -> list[str]:
    return [_UNIQUE[each] for each in _PATIENT_ROOT[: _PATIENT_ROOT.index(level) + 1]]


def _elements(found: DicomJson, keys: Dataset) -> Iterator[DataElement]:
    """The requested elements of a stored data set; a value that is malformed counts as unknown."""
    character_set = tag_for_keyword("SpecificCharacterSet")
    for tag in {*keys.keys(), character_set}:
        name = f"{tag:08X}"
        element = found.get(name, {})
        if "vr" not in element or "BulkDataURI" in element:
            continue
        try:
            yield Dataset.from_json({name: element})[tag]  # type: ignore[index]
        except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError):
            continue


def _encoded(data_set: Dataset, transfer_syntax: str) -> bytes:
    try:
        return encode(data_set, transfer_syntax)
    except Exception:  # noqa: BLE001  the exception of pydicom on a malformed value depends on the value
        return encode(_encodable(data_set, transfer_syntax), transfer_syntax)


def _encodable(data_set: Dataset, transfer_syntax: str) -> Dataset:
    """The same with malformed values left empty, such as a word where a number is expected."""
    kept = Dataset()
    for element in data_set:
        one = Dataset()
        one.add(element)
        try:
            encode(one, transfer_syntax)
        except Exception:  # noqa: BLE001  as above
            element = DataElement(element.tag, element.VR, None)  # noqa: PLW2901
        kept.add(element)
    return kept
