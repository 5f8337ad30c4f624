"""Rate limits by address, and delays after wrong passwords. Values and a clock; no HTTP.

A token bucket holds `burst` requests and fills at `rate` a second. Wrong passwords count by address and by name: TRIES
are free, then each doubles the wait up to LONGEST_WAIT, and a right one resets them. At most REMEMBERED are kept, the
least recently used goes first.

Not here: the refusal (`relay.access.middleware`).
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

REMEMBERED = 10_000
"""Addresses and names at a time; about 2 MB."""

TRIES = 5
"""Wrong passwords that are free; people mistype twice and try their old one."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 300.0
"""Seconds. Five minutes let 288 guesses a day through, and are short enough for a person who mistyped."""


def client(address: str) -> str:
    """Return the key under which an address is counted."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv6Address):
        # A subscriber has a whole /64, and could change the address with each request.
        return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
    return str(found)


@dataclass(slots=True)
class _Bucket:
    left: float
    at: float


class Buckets:
    """One token bucket per client; `rate` 0 lets everything pass."""

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._all: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, address: str) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        if not self._rate:
            return 0.0
        now, key = self._clock(), client(address)
        bucket = self._all.pop(key, None) or _Bucket(self._burst, now)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._rate)
        bucket.at = now
        self._all[key] = bucket
        if len(self._all) > REMEMBERED:
            self._all.popitem(last=False)
        if bucket.left >= 1:
            bucket.left -= 1
            return 0.0
        return (1 - bucket.left) / self._rate


@dataclass(slots=True)
class _Guesses:
    count: int
    free_at: float


class Guessing:
    """Counts wrong passwords by address and by name."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._all: OrderedDict[str, _Guesses] = OrderedDict()

    def wait(self, address: str, name: str) -> float:
        """Return the seconds until the next try; 0 for now."""
        until = max((self._all[key].free_at for key in _keys(address, name) if key in self._all), default=0.0)
        return max(0.0, until - self._clock())

    def wrong(self, address: str, name: str) -> None:
        """Count a wrong password."""
        for key in _keys(address, name):
            guesses = self._all.pop(key, None) or _Guesses(0, 0.0)
            guesses.count += 1
            guesses.free_at = self._clock() + pause(guesses.count)
            self._all[key] = guesses
            if len(self._all) > REMEMBERED:
                self._all.popitem(last=False)

    def right(self, address: str, name: str) -> None:
        """Reset both counts."""
        for key in _keys(address, name):
            self._all.pop(key, None)


def pause(wrong: int) -> float:
    """Return the seconds to wait after so many wrong passwords in a row."""
    beyond = wrong - TRIES
    return 0.0 if beyond < 0 else min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(beyond, 20))  # 20: a float may overflow


def _keys(address: str, name: str) -> tuple[str, str]:
    return f"address {client(address)}", f"name {name[:64].casefold()}"
