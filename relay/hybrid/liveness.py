"""When an open control channel is replaced, though nothing says that it is broken. Pure: times in, a moment out.

An open connection proves nothing. Three kinds of it are dead and look alive: a line that is half open (pings notice
it), a listener to which the service routes nothing, and one that it has forgotten; the last two answer pings for ever.

* When the gateway may send itself an echo, each channel is sent one again and again. A channel on which nothing was
  announced for `deaf_after` seconds is *deaf*.
* When the key may not send, silence may also be the cloud's. A *quiet* channel is then replaced all the same: a new
  registration is what heals all three kinds, and replacing costs a handshake and loses nothing.
* An *old* channel is replaced every few hours in any case; the two of a site at different times.

What is announced counts, not what became of it: a channel that hears is not to blame when an exchange fails afterwards.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal["deaf", "quiet", "old"]


@dataclass(frozen=True)
class Lifetimes:
    """Seconds. `deaf_after` leaves room for two echoes, each given up after 15 s, and keeps well below two minutes."""

    deaf_after: float = 75
    quiet_after: float = 100
    old_after: float = 6 * 3600


@dataclass(frozen=True)
class Due:
    """A channel is to be replaced at this moment, for this reason, unless something is heard before."""

    at: float
    reason: Reason


def due(*, opened_at: float, heard_at: float, echoes: bool, lifetimes: Lifetimes) -> Due:
    """When a channel is to be replaced. `echoes`: whether the gateway can send itself one. Any clock, in seconds."""
    silent = Due(heard_at + lifetimes.deaf_after, "deaf") if echoes else Due(heard_at + lifetimes.quiet_after, "quiet")
    old = Due(opened_at + lifetimes.old_after, "old")
    return min(old, silent, key=lambda each: each.at)
