"""How much may leave to a destination, and when: bytes a second and bytes a day, by class and by the hour.

A limit is written `CLASS=AMOUNT` or `CLASS@HH:MM-HH:MM=AMOUNT`, several of them separated by commas:

    RELAY_RATES=images@07:00-19:00=200k,images=2M
    RELAY_BUDGETS=thumbnails@05:00-21:00=50M,images@05:00-21:00=0

Hours are the site's; a window may go over midnight. The first limit of a class whose window is open counts; without
one there is no limit, and 0 means not now. A rate is bytes a second; a budget is bytes within one window, or within a
day if it has no window. k, M and G are powers of 1000. Status is never limited.

Not for: which entry is next (`relay.delivery.delivery`).
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from types import MappingProxyType

STATUS, METADATA, THUMBNAILS, IMAGES = 1, 2, 3, 4
"""The classes, which are the priorities of `gateway.messages`."""

# Without STATUS, which is a few hundred bytes, and the clinic waits for it.
NAMES: Mapping[str, int] = MappingProxyType({"metadata": METADATA, "thumbnails": THUMBNAILS, "images": IMAGES})

BURST_SECONDS = 5
"""Seconds of a rate that may leave at once after a pause: enough for a message in one piece, and for a short burst."""

LEAST_BURST = 64 * 1024
"""Bytes; a thumbnail has to fit on the slowest line as well."""

_LIMIT = re.compile(r"(\w+)(?:@(\d\d:\d\d)-(\d\d:\d\d))?=(\d+)([kMG]?)")
_UNIT = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}


@dataclass(frozen=True, slots=True)
class Limit:
    """So many bytes of one class, always or between two times of day."""

    kind: int
    amount: int
    begins: time = time.min
    ends: time = time.min

    def applies(self, local: datetime) -> bool:
        """Whether its window is open now."""
        now = local.time()
        if self.begins == self.ends:
            return True
        if self.begins < self.ends:
            return self.begins <= now < self.ends
        return now >= self.begins or now < self.ends

    def began(self, local: datetime) -> datetime:
        """When the window that is open now, or the day, began."""
        # Before its beginning hour, an open window is one over midnight: it began yesterday.
        day = local.date() - timedelta(days=1 if local.time() < self.begins else 0)
        return datetime.combine(day, self.begins, local.tzinfo)


def limits(texts: Iterable[str]) -> tuple[Limit, ...]:
    """Read limits. Raises ValueError in words for the operator."""
    return tuple(map(_limit, texts))


def _limit(text: str) -> Limit:
    found = _LIMIT.fullmatch(text)
    if found is None:
        raise ValueError(f"'{text:.40}' is not like images=2M or images@07:00-19:00=200k")
    name, begins, ends, amount, unit = found.groups()
    if name not in NAMES:
        raise ValueError(f"'{name}' is none of {', '.join(NAMES)}; status is never limited")
    try:
        window = (time.fromisoformat(begins), time.fromisoformat(ends)) if begins else (time.min, time.min)
    except ValueError:
        raise ValueError(f"'{begins}-{ends}' is not a window of the day such as 07:00-19:00") from None
    if begins and window[0] == window[1]:
        raise ValueError(f"the window '{begins}-{ends}' is empty; leave it out for the whole day")
    return Limit(NAMES[name], int(amount) * _UNIT[unit], *window)


@dataclass(slots=True)
class _Bucket:
    """Bytes that may leave at once: filled by the rate, emptied by each message, also below 0."""

    level: float
    at: datetime

    def fill(self, rate: int, now: datetime) -> float:
        # A clock that was set back fills nothing and takes nothing away.
        seconds = max(0.0, (now - self.at).total_seconds())
        self.level = min(self.level + rate * seconds, burst(rate))
        self.at = now
        return self.level


def burst(rate: int) -> int:
    """Bytes that may leave at once under a rate."""
    return max(rate * BURST_SECONDS, LEAST_BURST)


Spent = Callable[[datetime], Mapping[int, int]]
"""Bytes on record that left since a moment, by class."""


class Quota:
    """The quota of one destination. `clock` gives the site's wall time, with its zone."""

    def __init__(self, *, rates: Iterable[Limit] = (), budgets: Iterable[Limit] = (), clock: Callable[[], datetime]):
        self._rates = tuple(rates)
        self._budgets = tuple(budgets)
        self._clock = clock
        self._buckets: dict[int, _Bucket] = {}
        self._spent: dict[Limit, tuple[date, int]] = {}

    def remember(self, spent: Spent) -> None:
        """Take over the bytes that left before this process began.

        Each delivery row records them; a budget that forgot at a restart would be no budget.
        """
        local = self._clock()
        for limit in self._budgets:
            began = limit.began(local)
            self._spent[limit] = began.date(), spent(began).get(limit.kind, 0)

    def rate(self, kind: int) -> int | None:
        """Bytes a second that a class may have now; None without a limit."""
        local = self._clock()
        return next((each.amount for each in self._rates if each.kind == kind and each.applies(local)), None)

    def closed(self) -> frozenset[int]:
        """The classes of which nothing may leave now."""
        # One byte is enough: the last message of a budget may exceed it, because no message is cut in two.
        return frozenset(kind for kind in NAMES.values() if not self.has_room(kind, 1))

    def has_room(self, kind: int, size: int) -> bool:
        """Whether so many bytes of a class may leave now."""
        rate = self.rate(kind)
        if rate is not None and (rate == 0 or self._bucket(kind, rate).fill(rate, self._clock()) < size):
            return False
        budget = self._budget(kind)
        return budget is None or self._spent_of(budget) + size <= budget.amount

    def spend(self, sizes: Mapping[int, int]) -> None:
        """Record that so many bytes of each class are leaving."""
        local = self._clock()
        for kind, size in sizes.items():
            if rate := self.rate(kind):
                self._bucket(kind, rate).level -= size
            for limit in self._budgets:
                if limit.kind == kind and limit.applies(local):
                    self._spent[limit] = limit.began(local).date(), self._spent_of(limit) + size

    def _bucket(self, kind: int, rate: int) -> _Bucket:
        return self._buckets.setdefault(kind, _Bucket(burst(rate), self._clock()))

    def _budget(self, kind: int) -> Limit | None:
        local = self._clock()
        return next((each for each in self._budgets if each.kind == kind and each.applies(local)), None)

    def _spent_of(self, limit: Limit) -> int:
        day, spent = self._spent.get(limit, (None, 0))
        return spent if day == limit.began(self._clock()).date() else 0
