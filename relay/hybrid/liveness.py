"""When an open control channel is replaced although no error was reported. Pure: times in, a moment out.

An open connection proves nothing: a listener to which the service routes nothing, and one that it has forgotten, answer
pings for ever. So a channel is replaced when it is *deaf* (nothing was announced for a time, though echoes are sent to
it), *quiet* (the same, where the key may not send echoes), or *old*.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal["deaf", "quiet", "old"]


@dataclass(frozen=True)
class Lifetimes:
    """Seconds. `deaf_after` leaves room for two echoes, each given up after 15 s, and keeps well below two minutes."""

    deaf_after: float = 75
    quiet_after: float = 100
    old_after: float = 6 * 3600  # replaced in any case, the two channels of a site at different times


@dataclass(frozen=True)
class Due:
    """A channel is to be replaced at this moment, for this reason, unless something is announced on it before."""

    at: float
    reason: Reason


def due(*, opened_at: float, heard_at: float, echoes: bool, lifetimes: Lifetimes) -> Due:
    """When a channel is to be replaced. `echoes`: whether the gateway can send itself one. Any clock, in seconds."""
    # Announcements count and not their outcome: a channel is not to blame when an exchange fails afterwards.
    # Without echoes silence may be the cloud's, and the channel is replaced all the same: a new registration heals
    # every known kind of deafness, costs a handshake, and loses nothing.
    silent = Due(heard_at + lifetimes.deaf_after, "deaf") if echoes else Due(heard_at + lifetimes.quiet_after, "quiet")
    old = Due(opened_at + lifetimes.old_after, "old")
    return min(old, silent, key=lambda each: each.at)
