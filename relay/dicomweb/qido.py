"""QIDO-RS (PS3.18 Section 10.6) without a socket: query strings to identifiers as C-FIND has them, matches to answers.

Attributes are named by keyword or by eight hexadecimal digits; a dot goes into a sequence (PS3.18 Section 8.3.4.1).
Every match key is also a return key. An unknown parameter is refused.

Not here: matching (`gateway.query.matching`, by the archive), HTTP (`relay.dicomweb.routes`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from pydicom import DataElement, Dataset, Sequence, config
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from gateway.dataset.dicom_json import DicomJson
from gateway.dataset.dicom_json import text as text_of
from gateway.errors import InvalidQuery
from relay.dicomweb.json_answers import published

Level = Literal["STUDY", "SERIES", "IMAGE"]
TagPath = tuple[int, ...]

LIMIT = 1000
"""Most answers to one request, also when the client asks for more; the rest is announced and fetched by `offset`."""

MORE = "There are additional results that can be requested."
FUZZY = "The fuzzymatching parameter is not supported. Only literal matching has been performed."

STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID = "0020000D", "0020000E", "00080018"
INSTANCE_AVAILABILITY, RETRIEVE_URL, CHARACTER_SET = "00080056", "00081190", "00080005"

# PS3.18 Tables 10.6.3-3 to 10.6.3-5: always in the answer, empty when unknown.
_REQUIRED: Mapping[Level, tuple[str, ...]] = {
    "STUDY": (
        "00080020",  # StudyDate
        "00080030",  # StudyTime
        "00080050",  # AccessionNumber
        "00080061",  # ModalitiesInStudy
        "00080090",  # ReferringPhysicianName
        "00100010",  # PatientName
        "00100020",  # PatientID
        "00100030",  # PatientBirthDate
        "00100040",  # PatientSex
        STUDY_INSTANCE_UID,
        "00200010",  # StudyID
        "00201206",  # NumberOfStudyRelatedSeries
        "00201208",  # NumberOfStudyRelatedInstances
    ),
    "SERIES": (
        "00080060",  # Modality
        SERIES_INSTANCE_UID,
        "00200011",  # SeriesNumber
        "00201209",  # NumberOfSeriesRelatedInstances
    ),
    "IMAGE": (
        "00080016",  # SOPClassUID
        SOP_INSTANCE_UID,
        "00200013",  # InstanceNumber
    ),
}
_IF_KNOWN: Mapping[Level, tuple[str, ...]] = {
    "STUDY": (CHARACTER_SET, INSTANCE_AVAILABILITY, "00080201"),  # TimezoneOffsetFromUTC
    "SERIES": (
        CHARACTER_SET,
        "00080201",
        "0008103E",  # SeriesDescription
        "00400244",  # PerformedProcedureStepStartDate
        "00400245",  # PerformedProcedureStepStartTime
        "00400275",  # RequestAttributesSequence
    ),
    "IMAGE": (CHARACTER_SET, INSTANCE_AVAILABILITY, "00080201", "00280010", "00280011", "00280100", "00280008"),
}
_PATH: Mapping[Level, tuple[tuple[str, str], ...]] = {
    "STUDY": (("studies", STUDY_INSTANCE_UID),),
    "SERIES": (("studies", STUDY_INSTANCE_UID), ("series", SERIES_INSTANCE_UID)),
    "IMAGE": (("studies", STUDY_INSTANCE_UID), ("series", SERIES_INSTANCE_UID), ("instances", SOP_INSTANCE_UID)),
}
_LEVELS: tuple[Level, ...] = ("STUDY", "SERIES", "IMAGE")
_UID_OF: Mapping[Level, str] = {"STUDY": STUDY_INSTANCE_UID, "SERIES": SERIES_INSTANCE_UID, "IMAGE": SOP_INSTANCE_UID}

_NEGOTIATION = frozenset({"accept", "accept-charset", "charset"})  # PS3.18 Section 8.3.3: about the answer
_SWITCHES = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_CONTROLS = frozenset({"includefield", "limit", "offset", *_SWITCHES})
_NOT_MATCHABLE = frozenset({"AT", "SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "UR"})


@dataclass(frozen=True)
class Search:
    """A query as read.

    `identifier` holds the match keys only; `fields` the keys (DICOM JSON, e.g. "00100020") requested beyond the
    required ones; `everything` is `includefield=all`; `warnings` go out as Warning 299 header fields.
    """

    level: Level
    identifier: Dataset
    fixed: frozenset[str]
    fields: frozenset[str]
    everything: bool
    limit: int
    offset: int
    warnings: tuple[str, ...]


def read(level: Level, path: Mapping[str, str], parameters: Iterable[tuple[str, str]]) -> Search:
    """Read a query string.

    `path` holds the UIDs that the resource itself fixes, by DICOM JSON key; `parameters` the decoded pairs in order.
    Raises InvalidQuery, naming the parameter and never its value.
    """
    pairs = [(name, value) for name, value in parameters if name.lower() not in _NEGOTIATION]
    controls = [(name.lower(), value) for name, value in pairs if name.lower() in _CONTROLS]
    keys = _match_keys(path, [(name, value) for name, value in pairs if name.lower() not in _CONTROLS])
    included = [name for key, value in controls if key == "includefield" for name in _listed(value)]
    single = _once(controls)
    return Search(
        level=level,
        identifier=_identifier(keys),
        fixed=frozenset(path),
        fields=frozenset(_key(tags[0]) for tags in [*keys, *map(_attribute, _named(included))]),
        everything="all" in included,
        limit=min(_count("limit", single.get("limit", str(LIMIT))), LIMIT),
        offset=_count("offset", single.get("offset", "0")),
        warnings=tuple(_warnings(single)),
    )


def answers(search: Search, matches: Iterable[DicomJson], root: str) -> list[DicomJson]:
    """Project the archive's data sets to the requested attributes; `root` is the DICOMweb URL, no final slash."""
    required, known = _shape(search)
    return [_answer(search, match, root, required, known) for match in matches]


def uid(text: str) -> str:
    """Return a well-formed UID (PS3.5 Section 9: digits and dots, at most 64 characters). Raises InvalidQuery."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)*", text) or len(text) > 64:
        raise InvalidQuery("A UID has digits and dots only and at most 64 characters.")
    return text


def _match_keys(path: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> dict[TagPath, object]:
    keys: dict[TagPath, object] = {(int(key, 16),): uid(value) for key, value in path.items()}
    for name, text in pairs:
        tags = _attribute(name)
        if tags in keys:
            raise InvalidQuery(f"{_shown(name)} is given more than once; each attribute can be matched once.")
        keys[tags] = _value(name, tags, text)
    return keys


def _identifier(keys: Mapping[TagPath, object]) -> Dataset:
    identifier = Dataset()
    for tags, value in keys.items():
        _put(identifier, tags, value)
    return identifier


def _put(ds: Dataset, tags: TagPath, value: object) -> None:
    tag, *inside = tags
    if inside:
        if tag not in ds:
            ds.add(DataElement(tag, "SQ", Sequence([Dataset()])))
        _put(ds[tag].value[0], tuple(inside), value)
        return
    try:
        # Not validated: wildcards and ranges are no values of their VR.
        ds.add(DataElement(tag, _vr(tag), value, validation_mode=config.IGNORE))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidQuery(f"{_shown(_key(tag))} has no value of its kind.") from error


def _attribute(name: str) -> TagPath:
    tags = tuple(_tag(part, name) for part in name.split("."))
    for tag in tags[:-1]:
        if _vr(tag) != "SQ":
            raise InvalidQuery(f"{_shown(name)} goes into an attribute that is not a sequence.")
    return tags


def _tag(part: str, name: str) -> int:
    if re.fullmatch(r"[0-9A-Fa-f]{8}", part):
        return int(part, 16)
    tag = tag_for_keyword(part) if part else None  # the dictionary has nameless entries
    if tag is None:
        # A key that is silently ignored would answer with other people's images.
        raise InvalidQuery(
            f"{_shown(name)} is not an attribute or a parameter; give a DICOM keyword or eight hexadecimal digits."
        )
    return tag


@lru_cache(maxsize=4096)
def _vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)[:2]  # of a choice ("US or SS") the first
    except KeyError:
        return "UN"


def _value(name: str, tags: TagPath, text: str) -> object:
    vr = _vr(tags[-1])
    if vr in _NOT_MATCHABLE:
        raise InvalidQuery(f"{_shown(name)} cannot be matched; its value representation is {vr}.")
    if not text.strip("*"):
        return ""  # universal matching, PS3.4 C.2.2.2.3
    if vr != "UI":
        return text
    uids = [uid(part) for part in re.split(r"[,\\]", text)]  # PS3.18 8.3.4.1; viewers send backslashes
    return uids[0] if len(uids) == 1 else uids


def _listed(value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


def _named(included: Iterable[str]) -> list[str]:
    return [name for name in included if name != "all"]


def _once(controls: Iterable[tuple[str, str]]) -> dict[str, str]:
    single: dict[str, str] = {}
    for name, value in controls:
        if name in single and name != "includefield":
            raise InvalidQuery(f"The parameter {name} is given more than once.")
        single[name] = value.strip()
    return single


def _count(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InvalidQuery(f"The parameter {name} is a whole number from 0 to 999999999.")
    return int(text)


def _warnings(single: Mapping[str, str]) -> Iterator[str]:
    for name in _SWITCHES:
        value = single.get(name, "false").lower()
        if value not in {"true", "false"}:
            raise InvalidQuery(f"The parameter {name} is either true or false.")
        if value == "true" and name == "fuzzymatching":
            # PS3.18 Section 10.6.3.1: answered literally, with a warning. Names that sound alike are not near each
            # other in an index, and the standard leaves open what fuzzy means.
            yield FUZZY
        elif value == "true":
            raise InvalidQuery(f"The parameter {name} is not supported.")


def _answer(search: Search, match: DicomJson, root: str, required: frozenset[str], known: frozenset[str]) -> DicomJson:
    address = _retrieve_url(search.level, match, root)
    chosen = match if search.everything else {key: match[key] for key in known if key in match}
    answer = published(chosen, f"{address}/bulkdata")
    for key in required:
        answer[key] = match.get(key, {"vr": _vr(int(key, 16))})
    answer[INSTANCE_AVAILABILITY] = {"vr": "CS", "Value": ["ONLINE"]}
    answer[RETRIEVE_URL] = {"vr": "UR", "Value": [address]}
    return dict(sorted(answer.items()))


def _shape(search: Search) -> tuple[frozenset[str], frozenset[str]]:
    # Keys that are always there, and keys that are there when known. PS3.18 Table 10.6.1-2 adds the attributes of the
    # levels that the path does not fix.
    own = _LEVELS.index(search.level)
    levels = [level for level in _LEVELS[: own + 1] if level == search.level or _UID_OF[level] not in search.fixed]
    required = frozenset(key for level in levels for key in _REQUIRED[level])
    identity = frozenset(_UID_OF[level] for level in _LEVELS[: own + 1])
    return required | identity, search.fields | {key for level in levels for key in _IF_KNOWN[level]}


def _retrieve_url(level: Level, match: DicomJson, root: str) -> str:
    return root + "".join(f"/{resource}/{text_of(match, key)}" for resource, key in _PATH[level])


def _key(tag: int) -> str:
    return f"{tag:08X}"


def _shown(name: str) -> str:
    # The name comes from the client and goes into the message of an error: cut and quoted unless it is a keyword.
    known = keyword_for_tag(int(name, 16)) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else ""
    return known or repr(name[:64])
