"""The REST for scripts as one table: operations with their parameters and answers. Pure.

Routes, the reading of parameters and the OpenAPI 3.1 document are made of it, so they cannot disagree.

Not here: handlers (`relay.api.handlers`), schemas of the answers (`relay.api.schemas`), roles
(`relay.access.permissions`; the document quotes them).
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import get_args, get_origin, get_type_hints

from gateway.errors import InvalidQuery
from relay.access.permissions import rule
from relay.api import schemas as shapes

ROOT = "/api/v1"
OPENAPI = "3.1.1"

UID = r"^[0-9]+(\.[0-9]+)*$"
DEFAULT_LIMIT, MOST = 100, 1000

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the path or the query. `meaning` says the allowed values in words, `pattern` as a regular
    expression of ASCII text, `longest` is in characters."""

    name: str
    meaning: str
    pattern: str
    longest: int
    otherwise: str = ""
    """The meaning of an absent one, in words; query only."""
    numbers: tuple[int, int] | None = None
    """For a whole number: the lowest and the highest allowed."""

    def read(self, value: str) -> str:
        """Return an allowed value unchanged. Raises InvalidQuery, which names the parameter and not the value."""
        # The patterns are JSON Schema's, with anchors; "$" of Python also matches before a newline at the end.
        fits = len(value) <= self.longest and re.fullmatch(self.pattern, value, re.ASCII) and not value.endswith("\n")
        if fits and (self.numbers is None or self.numbers[0] <= int(value) <= self.numbers[1]):
            return value
        raise InvalidQuery(f"{self.name} cannot be this; it is {self.meaning}.")

    @property
    def schema(self) -> Json:
        """The parameter as JSON Schema."""
        if self.numbers is not None:
            return {"type": "integer", "minimum": self.numbers[0], "maximum": self.numbers[1]}
        return {"type": "string", "pattern": self.pattern, "maxLength": self.longest}


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation. `answer` is a dataclass of `relay.api.schemas` or a media type; `refusals` are its HTTP statuses
    beyond those of every operation."""

    name: str
    method: str
    path: str
    summary: str
    answer: type | str
    query: tuple[Parameter, ...] = ()
    body: type | None = None
    status: int = 200
    refusals: tuple[int, ...] = ()


_DIGITS = r"^[0-9]+$"

PATH = {
    "study": Parameter("study", "a Study Instance UID", UID, 64),
    "series": Parameter("series", "a Series Instance UID", UID, 64),
    "instance": Parameter("instance", "a SOP Instance UID", UID, 64),
}
LIMIT = Parameter("limit", f"a whole number from 1 to {MOST}", _DIGITS, 4, str(DEFAULT_LIMIT), (1, MOST))
# 18 digits: below the largest integer of SQLite, 2**63 - 1.
CURSOR = Parameter("cursor", "`next` of the page before", _DIGITS, 18, "the first page", (0, 10**18 - 1))
SINCE = Parameter("since", "`last` of the answer before", _DIGITS, 18, "0: from the beginning", (0, 10**18 - 1))
DATE = Parameter("date", "a day written YYYYMMDD", r"^[0-9]{8}$", 8, "today, by the clock of the site")
STUDY_DATE = Parameter("study_date", "a day written YYYYMMDD", r"^[0-9]{8}$", 8, "any")
ACCESSION = Parameter("accession_number", "1 to 16 characters, exactly", r"^[!-~]{1,16}$", 16, "any")

_STUDY, _INSTANCE = "/studies/{study}", "/instances/{instance}"

OPERATIONS: tuple[Operation, ...] = (
    Operation("list_studies", "GET", "/studies", "Studies, the newest first.", shapes.Studies,
              (LIMIT, CURSOR, STUDY_DATE, ACCESSION)),
    Operation("show_study", "GET", _STUDY, "One study.", shapes.Study, refusals=(404,)),
    Operation("list_series", "GET", _STUDY + "/series", "The series of a study.", shapes.SeriesList, refusals=(404,)),
    Operation("list_instances", "GET", _STUDY + "/instances", "The instances of a study.", shapes.Instances,
              (LIMIT, CURSOR), refusals=(404,)),
    Operation("list_instances_of_series", "GET", _STUDY + "/series/{series}/instances", "The instances of a series.",
              shapes.Instances, (LIMIT, CURSOR), refusals=(404,)),
    Operation("get_archive", "GET", _STUDY + "/archive", "All files of a study, as a ZIP archive.", "application/zip",
              refusals=(404,)),
    Operation("send_study", "POST", _STUDY + "/send", "Have a study sent to a peer, again if need be.", shapes.Owed,
              body=shapes.Destination, status=202, refusals=(404, 413)),
    Operation("show_instance", "GET", _INSTANCE, "One instance.", shapes.Instance, refusals=(404,)),
    Operation("get_file", "GET", _INSTANCE + "/file", "The file (PS3.10), as received.", "application/dicom",
              refusals=(404,)),
    Operation("get_preview", "GET", _INSTANCE + "/preview", "A small picture; not for diagnosis.", "image/jpeg",
              refusals=(404, 406, 500)),
    Operation("send_instance", "POST", _INSTANCE + "/send", "Have an instance sent to a peer, again if need be.",
              shapes.Owed, body=shapes.Destination, status=202, refusals=(404, 413)),
    Operation("show_worklist", "GET", "/worklist", "The worklist of a day.", shapes.Appointments, (DATE,)),
    Operation("list_changes", "GET", "/changes", "What was stored and removed, in order.", shapes.Changes,
              (SINCE, LIMIT)),
    Operation("list_peers", "GET", "/peers", "Whom objects can be sent to.", shapes.Peers),
    Operation("show_openapi", "GET", "/openapi.json", "This document.", "application/json"),
)  # fmt: skip

_REFUSED = {
    400: "A parameter or the body cannot be this; the sentence says which.",
    401: "Nobody is known by what was sent.",
    403: "This needs a higher role.",
    404: "There is no such thing here.",
    406: "It cannot be given in this form: an object without pixels has no picture.",
    413: "The body is too large.",
    429: "Asked too often; Retry-After says when to ask again.",
    500: "The picture could not be made.",
    503: "Cannot be answered now, for instance because the audit trail cannot be written.",
}
# The statuses of the middleware, and of reading parameters.
_ALWAYS = (400, 401, 403, 429, 503)


def parameters(operation: Operation, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Read a query string. Raises InvalidQuery for an unknown or repeated parameter, or a value that is not allowed."""
    known = {parameter.name: parameter for parameter in operation.query}
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            offered = ", ".join(known) or "none"
            raise InvalidQuery(f"There is no such parameter here; there is {offered}.")
        if name in found:
            raise InvalidQuery(f"{name} is given twice.")
        found[name] = known[name].read(value)
    return found


def destination(body: bytes) -> str:
    """Read the body of an operation that sends: the AE title of a peer. Raises InvalidQuery."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise InvalidQuery('The body has to be JSON, such as {"to": "SITE_PACS"}.') from None
    if not isinstance(found, dict) or set(found) != {"to"} or not isinstance(found["to"], str):
        raise InvalidQuery('The body has to be an object with "to", the AE title of a peer, and nothing else.')
    return found["to"]


def document(version: str) -> Json:
    """Make the OpenAPI document; `version` is the gateway's."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation)
    shown = {each for operation in OPERATIONS for each in (operation.answer, operation.body) if isinstance(each, type)}
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "Screening gateway: REST for scripts",
            "version": version,
            "description": "What the archive and the worklist of this site hold, in plain JSON. DICOM clients use "
            "/dicom-web instead.",
        },
        "servers": [{"url": ROOT}],
        "security": [{"password": []}, {"token": []}, {}],  # {}: a site without users answers this machine
        "paths": paths,
        "components": {
            "schemas": _schemas({*shown, shapes.Error}),
            "securitySchemes": {
                "password": {"type": "http", "scheme": "basic"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


def path_parameters(operation: Operation) -> list[str]:
    """Return the parameter names in the path of an operation."""
    return re.findall(r"\{(\w+)\}", operation.path)


def _described(operation: Operation) -> Json:
    needed = rule(operation.method, (ROOT + operation.path).replace("{", "").replace("}", "")).role
    listed = [_parameter(PATH[name], "path") for name in path_parameters(operation)]
    listed += [_parameter(parameter, "query") for parameter in operation.query]
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"Needs the role {needed.name.lower()}." if needed else "Needs nobody known.",
        "parameters": listed,
        "responses": {str(operation.status): _answer(operation.answer), **_refusals(operation)},
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _content(operation.body)}
    return described


def _parameter(parameter: Parameter, place: str) -> Json:
    unless = f" Without it: {parameter.otherwise}." if parameter.otherwise else ""
    described = f"{parameter.meaning[:1].upper()}{parameter.meaning[1:]}.{unless}"
    named: Json = {"name": parameter.name, "in": place, "required": place == "path"}
    return named | {"description": described, "schema": parameter.schema}


def _answer(answer: type | str) -> Json:
    if isinstance(answer, type):
        return {"description": (answer.__doc__ or "").strip(), "content": _content(answer)}
    return {"description": f"Bytes of the type {answer}.", "content": {answer: {}}}


def _refusals(operation: Operation) -> Json:
    return {
        str(status): {"description": _REFUSED[status], "content": _content(shapes.Error)}
        for status in sorted({*_ALWAYS, *operation.refusals})
    }


def _content(shape: type) -> Json:
    return {"application/json": {"schema": _reference(shape)}}


def _reference(shape: type) -> Json:
    return {"$ref": f"#/components/schemas/{shape.__name__}"}


def _schemas(shown: set[type]) -> dict[str, Json]:
    # The docstring of a class is the description of its schema, so clients read it.
    schemas: dict[str, Json] = {}
    waiting = sorted(shown, key=lambda shape: shape.__name__)
    while waiting:
        shape = waiting.pop()
        if shape.__name__ in schemas or not is_dataclass(shape):
            continue
        hints = get_type_hints(shape)
        schemas[shape.__name__] = {
            "type": "object",
            "description": (shape.__doc__ or "").strip(),
            "properties": {each.name: _schema(hints[each.name]) for each in fields(shape)},
            "required": [each.name for each in fields(shape)],
            "additionalProperties": False,
        }
        waiting += [inner for hint in hints.values() for inner in get_args(hint) if isinstance(inner, type)]
    return dict(sorted(schemas.items()))


_PLAIN: Mapping[object, str] = {str: "string", int: "integer", bool: "boolean"}


def _schema(hint: object) -> Json:
    if get_origin(hint) is tuple:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    return {"type": _PLAIN[hint]} if hint in _PLAIN else _reference(hint)  # type: ignore[arg-type]
