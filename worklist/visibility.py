"""Visibility rules: which items a peer is shown, besides the keys of its query. Pure; no database, no clock.

A site has one rule for all peers, and others for single calling AE titles:

* Station. `open`: the query decides; an item that names no station is for any. `calling`: the calling AE title replaces
  the station of the query. `strict`: only items that name the calling AE title, and match the query as well.
* States: only items in one of them.
* Window: only items in this stretch of the site's wall time. `today` and `-1d..+7d` are whole days of the calendar,
  `-12h..+24h` counts from now, an end may be left open (`-12h..`), `any` is always.
* Limit: after so many answers the query fails with A700 and a comment (PS3.4 Table K.4-1).

Not for: matching a query (`gateway.query.matching`), the SELECT (`worklist.item_rows`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Literal, Self, get_args

from gateway.query.conditions import AnyOf, Between, Condition, Key, Kind, Period, matches
from worklist.items import ItemState

Station = Literal["open", "calling", "strict"]
Moment = tuple[str, str]
"""Date and time as the columns have them: YYYYMMDD and HHMMSS.FFFFFF, wall time of the site."""
Bounds = tuple[Moment | None, Moment | None]

SHOWN: tuple[ItemState, ...] = ("scheduled", "in_progress")
"""States of the items a modality is answered, unless set otherwise."""

LARGEST_WINDOW = 1000
"""Hours or days; nobody means more, and dates stay dates."""

_SPS = "ScheduledProcedureStepSequence"
_STATION = f"{_SPS}.ScheduledStationAETitle"
_DATE, _TIME = f"{_SPS}.ScheduledProcedureStepStartDate", f"{_SPS}.ScheduledProcedureStepStartTime"

_NAMES = "EXISTS (SELECT 1 FROM json_each(station_ae_titles) AS named WHERE {})"
_NAMED = Key(_STATION, Kind.TEXT, "named.value", within=_NAMES)
_OWN = Key(_STATION, Kind.TEXT, "named.value", within=f"(station_ae_titles = '[]' OR {_NAMES})")
_STATE = Key("state", Kind.TEXT, "state", within="likely({})")  # else SQLite searches by state before by patient
_DAY = Key(_DATE, Kind.DATE, "date")
_CLOCK = Key(_TIME, Kind.TIME, "time", of_date=_DATE)

_WINDOW = re.compile(r"(?:-([0-9]{1,4})([hd]))?\.\.(?:\+([0-9]{1,4})([hd]))?")


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of time around now, in whole days of the calendar or in hours; None leaves that side open."""

    before: int | None = None
    after: int | None = None
    unit: Literal["d", "h"] = "d"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `any`, `today`, `-12h..+24h`, `-1d..+7d`. Raises ValueError saying how it is written."""
        if text in ("any", "today"):
            return cls() if text == "any" else cls(0, 0)
        found = _WINDOW.fullmatch(text)
        units = {unit for unit in (found[2], found[4]) if unit} if found else set()
        if found is None or len(units) != 1:
            raise ValueError("a window is written any, today, -12h..+24h or -1d..+7d, one side may be left out")
        before, after = (None if side is None else int(side) for side in (found[1], found[3]))
        if max(before or 0, after or 0) > LARGEST_WINDOW:
            raise ValueError(f"a window reaches {LARGEST_WINDOW} hours or days at most")
        return cls(before, after, "d" if units == {"d"} else "h")

    def bounds(self, now: datetime, *, site: tzinfo | None = None) -> Bounds:
        """The first and last moment in the wall time of the site; `site` None is the zone of this computer."""
        first = None if self.before is None else self._moment(now, -self.before, site)
        last = None if self.after is None else self._moment(now, self.after, site)
        if self.unit == "h":
            return first, last
        # 60: a leap second is a legal TM
        return first and (first[0], "000000.000000"), last and (last[0], "235960.999999")

    def _moment(self, now: datetime, side: int, site: tzinfo | None) -> Moment:
        if self.unit == "d":
            moment = now.astimezone(site) + timedelta(days=side)
        else:  # hours go by while clocks are changed, so they are counted in UTC
            moment = (now.astimezone(UTC) + timedelta(hours=side)).astimezone(site)
        return f"{moment:%Y%m%d}", f"{moment:%H%M%S.%f}"


@dataclass(frozen=True, slots=True)
class VisibilityRule:
    """Which items one peer is shown; `limit` 0 is none."""

    station: Station = "open"
    states: tuple[str, ...] = SHOWN
    window: Window = Window()
    limit: int = 0


@dataclass(frozen=True, slots=True)
class PeerRule:
    """The differences for one calling AE title; None is as for all."""

    ae_title: str
    station: Station | None = None
    states: tuple[str, ...] | None = None
    window: Window | None = None
    limit: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `MAMMO_1=station:strict;states:scheduled+in_progress;window:today;limit:200`, any part left out.

        Raises ValueError with a sentence for the operator.
        """
        ae_title, _, words = text.partition("=")
        peer = cls(ae_title.strip())
        for word in filter(None, (word.strip() for word in words.split(";"))):
            name, _, value = word.partition(":")
            peer = replace(peer, **{name.strip(): _read(name.strip(), value.strip())})  # type: ignore[arg-type]
        return peer

    def over(self, usual: VisibilityRule) -> VisibilityRule:
        """The rule of this peer, where `usual` is the site's."""
        return VisibilityRule(
            station=usual.station if self.station is None else self.station,
            states=usual.states if self.states is None else self.states,
            window=usual.window if self.window is None else self.window,
            limit=usual.limit if self.limit is None else self.limit,
        )


@dataclass(frozen=True, slots=True)
class VisibilityRules:
    """The rules of a site: the usual one, and those of single peers. `site` None is the zone of this computer."""

    usual: VisibilityRule = VisibilityRule()
    peers: Mapping[str, VisibilityRule] = field(default_factory=dict)
    site: tzinfo | None = None

    def for_peer(self, calling_ae_title: str, *, now: datetime) -> "Visibility":
        """The visibility of a peer at the moment `now`."""
        rule = self.peers.get(calling_ae_title, self.usual)
        return Visibility(calling_ae_title, rule, rule.window.bounds(now, site=self.site))


@dataclass(frozen=True, slots=True)
class Visibility:
    """The items that one peer is shown at one moment; `period` is its window then."""

    calling_ae_title: str
    rule: VisibilityRule = VisibilityRule()
    period: Bounds = (None, None)

    def station(self, queried: str) -> str:
        """The station that an item for any station is answered with; `queried` is the title in the query."""
        return self.calling_ae_title if self.rule.station == "calling" else queried

    def conditions(self, query: Sequence[Condition]) -> list[Condition]:
        """The conditions that an item has to satisfy: those of the query, changed and completed by the rule."""
        # Conditions like those of a query, so that one SELECT serves both, and `why_not` evaluates the same list. A
        # second implementation for `gateway worklist explain` would drift.
        low, high = self.period
        wanted: list[Condition] = [AnyOf(_STATE, self.rule.states)]
        if low or high:
            wanted.append(Period(_DAY, _CLOCK, low, high))
        if self.rule.station == "strict":
            wanted.append(AnyOf(_NAMED, (self.calling_ae_title,)))
        if self.rule.station == "calling":
            wanted.append(AnyOf(_OWN, (self.calling_ae_title,)))
            query = [condition for condition in query if _path(condition) != _STATION]
        return [*query, *wanted]

    def why_not(
        self, query: Sequence[Condition], row: Mapping[str, str], *, stations: Sequence[str], station: str
    ) -> tuple[str, ...]:
        """The reasons why an item is not answered, a sentence each; none if it is.

        `row` has its columns as they are matched, `stations` the titles it names, `station` the one it is answered with
        if it names none.
        """
        return tuple(
            self._reason(condition, row, stations)
            for condition in self.conditions(query)
            if not any(
                matches(condition, {**row, "station.value": title, "named.value": title})
                for title in (stations if _is_named(condition) else stations or (station,))
            )
        )

    def _reason(self, condition: Condition, row: Mapping[str, str], stations: Sequence[str]) -> str:
        peer = self.calling_ae_title
        match condition:
            case AnyOf(key=key) if key is _STATE:
                return f"It is {row['state']}, and {peer} is shown what is {' or '.join(self.rule.states)}."
            case AnyOf(key=key) if key is _NAMED or key is _OWN:
                named = f"It is for {', '.join(stations)}" if stations else "It names no station"
                return f"{named}, and {peer} is shown its own items{' only' if key is _NAMED else ''}."
            case Period(day=day) if day is _DAY:
                return f"It is on {row['date']} at {row['time'][:6]}, outside {peer}'s window {self._written_window()}."
            case Period(day=day, time=time):
                return f"{_keyword(day)} and {_keyword(time)} together do not match."
            case _:
                addressees = f": it is for {', '.join(stations)}" if _path(condition) == _STATION else ""
                return f"{_keyword(condition.key)} does not match{addressees}."

    def _written_window(self) -> str:
        low, high = (f"{moment[0]} {moment[1][:6]}" if moment else "" for moment in self.period)
        return " ".join(filter(None, (low and f"from {low}", high and f"to {high}")))


def known_states(states: tuple[str, ...]) -> tuple[str, ...]:
    """The states, if all are states of an item. Raises ValueError."""
    if unknown := set(states) - set(get_args(ItemState)):
        raise ValueError(f"no such state: {', '.join(sorted(unknown))}")
    return states


def first_day(wanted: Sequence[Condition]) -> str:
    """The first date that conditions allow, YYYYMMDD; '' where they set no bound."""
    days = [c.low for c in wanted if isinstance(c, Between) and c.key.column == _DAY.column]
    days += [c.low[0] for c in wanted if isinstance(c, Period) and c.low and c.day.column == _DAY.column]
    return max(days, default="")


def unsatisfied(verdicts: Iterator[tuple[str, ...]], limit: int) -> Iterator[tuple[str, ...]]:
    """Add to the reasons of items, in the order of answers, that the limit was reached before them."""
    answered = 0
    for reasons in verdicts:
        answered += not reasons
        beyond = limit and not reasons and answered > limit
        yield (f"It would be answer {answered}, and {limit} are given.",) if beyond else reasons


def _read(name: str, value: str) -> object:
    match name:
        case "station":
            if value not in get_args(Station):
                raise ValueError(f"a station is one of {', '.join(get_args(Station))}")
            return value
        case "states":
            return known_states(tuple(state.strip() for state in value.split("+")))
        case "window":
            return Window.parse(value)
        case "limit":
            if not re.fullmatch("[0-9]{1,6}", value):
                raise ValueError("a limit is a number of answers, 0 for none")
            return int(value)
    raise ValueError("a peer is written MAMMO_1=station:strict;states:scheduled+in_progress;window:today;limit:200")


def _is_named(condition: Condition) -> bool:
    return isinstance(condition, AnyOf) and condition.key is _NAMED


def _path(condition: Condition) -> str:
    return condition.day.path if isinstance(condition, Period) else condition.key.path


def _keyword(key: Key) -> str:
    return key.path.rpartition(".")[2]
