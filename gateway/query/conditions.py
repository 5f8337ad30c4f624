"""Conditions on columns, and their decision, in SQL (`where`) or in Python for one row (`matches`).

Both decide the same, which a property test compares, so a query can be explained row by row. Columns hold the result
of `matching.column_value`: text in which an unknown value is ''.

Not here: which conditions a query means (`gateway.query.matching`), the SELECT around them.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

_LAST = "\U0010ffff"
"""Sorts behind every letter."""


class Kind(StrEnum):
    """How a key is compared; decided by its VR."""

    TEXT = "text"  # AE, CS, LO, SH, ...
    NUMBER = "number"  # IS, US, ...: whole numbers, by value
    UID = "uid"
    DATE = "date"
    TIME = "time"
    NAME = "name"


@dataclass(frozen=True)
class Key:
    """One attribute that can be matched, and the column that holds its `column_value`.

    `path` is the keyword, after those of its sequences: `ScheduledProcedureStepSequence.Modality`.
    `of_date` is the path of the date key that a time key makes one period with.
    `within` puts the condition into a larger one, where the column is another table's: `EXISTS (SELECT ... AND {})`.
    """

    path: str
    kind: Kind
    column: str
    of_date: str = ""
    within: str = "{}"


@dataclass(frozen=True)
class AnyOf:
    """The column equals one of the values."""

    key: Key
    values: tuple[str, ...]


@dataclass(frozen=True)
class Like:
    """The column has the form of one of the patterns; `*` and `?` are wildcards and `[[]` is a bracket, as in GLOB."""

    key: Key
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Between:
    """The column is known and within the bounds, which are included; '' leaves that side open."""

    key: Key
    low: str
    high: str


@dataclass(frozen=True)
class Period:
    """Date and time are known and, taken together, within the bounds; None leaves that side open."""

    day: Key
    time: Key
    low: tuple[str, str] | None
    high: tuple[str, str] | None


Condition = AnyOf | Like | Between | Period

Bind = Callable[[str], str]
"""Takes a value and gives the name of the parameter that carries it."""


def where(wanted: Sequence[Condition]) -> tuple[str, dict[str, str]]:
    """Write conditions as an SQL expression over the columns, with its named parameters (`key_0`, `key_1`, ...)."""
    parameters: dict[str, str] = {}

    def bind(value: str) -> str:
        name = f"key_{len(parameters)}"
        parameters[name] = value
        return f":{name}"

    return " AND ".join(_sql(condition, bind) for condition in wanted) or "1", parameters


def matches(condition: Condition, row: Mapping[str, str | None]) -> bool:
    """Decide the same as `where` on a row of plain column values."""
    if isinstance(condition, Period):
        day, time = row[condition.day.column] or "", row[condition.time.column] or ""
        after = condition.low is None or (day, time) >= condition.low
        return bool(day and time) and after and (condition.high is None or (day, time) <= condition.high)
    value = row[condition.key.column] or ""
    if isinstance(condition, AnyOf):
        return value in condition.values
    if isinstance(condition, Like):
        return bool(value) and any(fnmatchcase(value, pattern) for pattern in condition.patterns)
    return bool(value) and condition.low <= value and (not condition.high or value <= condition.high)


def _sql(condition: Condition, bind: Bind) -> str:
    if isinstance(condition, Period):
        return _period_sql(condition, bind)
    column = condition.key.column
    if isinstance(condition, AnyOf):
        inner = _any_of_sql(column, condition.values, bind)
    elif isinstance(condition, Like):
        inner = _like_sql(column, condition.patterns, bind)
    else:
        inner = _between_sql(column, condition, bind)
    return condition.key.within.format(inner)


def _any_of_sql(column: str, values: tuple[str, ...], bind: Bind) -> str:
    if len(values) == 1:
        return f"{column} = {bind(values[0])}"
    return f"{column} IN (SELECT value FROM json_each({bind(json.dumps(values))}))"  # one parameter for any number


def _like_sql(column: str, patterns: tuple[str, ...], bind: Bind) -> str:
    # The letters that all patterns begin with are given as a range as well, because only a range uses an index.
    starts = [re.split(r"[*?\[]", pattern)[0] for pattern in patterns]
    start = starts[0] if all(other.startswith(starts[0]) for other in starts) else ""
    if start:
        ends = f"{column} >= {bind(start)}", f"{column} < {bind(start + _LAST)}"
        # With the hint that it is narrow, because SQLite takes a range for a quarter of the rows, and would rather read
        # another index from end to end.
        within = " AND ".join(f"likelihood({end}, 0.001)" for end in ends)
    else:
        within = f"{column} > ''"
    either = " OR ".join(f"{column} GLOB {bind(pattern)}" for pattern in patterns)
    return f"({within} AND ({either}))"


def _between_sql(column: str, condition: Between, bind: Bind) -> str:
    if not condition.high:
        return f"{column} >= {bind(condition.low)}"
    if not condition.low:  # an unknown value is '', which would be below any bound
        return f"({column} > '' AND {column} <= {bind(condition.high)})"
    return f"{column} BETWEEN {bind(condition.low)} AND {bind(condition.high)}"


def _period_sql(condition: Period, bind: Bind) -> str:
    day, time = condition.day.column, condition.time.column
    parts = [f"{day} > ''", f"{time} > ''"]
    if condition.low:
        parts.append(f"({day}, {time}) >= ({bind(condition.low[0])}, {bind(condition.low[1])})")
    if condition.high:
        parts.append(f"({day}, {time}) <= ({bind(condition.high[0])}, {bind(condition.high[1])})")
    return f"({' AND '.join(parts)})"
