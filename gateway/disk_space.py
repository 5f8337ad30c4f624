"""How full is a volume, and what follows from it: the one place of the watermarks.

Below the first watermark all is well; from it on people are warned; from the second on no images are taken, so that the
worklist, the outboxes and the logs on the same volume go on. What is full is looked at each time, never remembered:
when there is room again, images are taken again.

Not for: making room; that is `gateway prune`.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Fullness(StrEnum):
    """What the watermarks make of a volume."""

    ROOMY = "roomy"
    ALMOST_FULL = "almost full"
    TOO_FULL = "too full"


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Used per cent of the volume: people are warned from the first on, no images are taken from the second on."""

    warn_percent: float = 85.0
    stop_percent: float = 95.0


USUAL_WATERMARKS = Watermarks()


@dataclass(frozen=True, slots=True)
class Volume:
    """Size of a volume and what an ordinary user may still write to it."""

    total_bytes: int
    free_bytes: int

    @property
    def used_percent(self) -> float:
        """What the system keeps for root counts as used: it is no room for images."""
        return 100.0 * (self.total_bytes - self.free_bytes) / self.total_bytes if self.total_bytes else 100.0

    def fullness(self, marks: Watermarks) -> Fullness:
        """Judge it by the watermarks."""
        if self.used_percent >= marks.stop_percent:
            return Fullness.TOO_FULL
        return Fullness.ALMOST_FULL if self.used_percent >= marks.warn_percent else Fullness.ROOMY


def volume_of(folder: Path) -> Volume:
    """Look at the volume a folder is on. Raises OSError when the folder is not there."""
    seen = os.statvfs(folder)
    return Volume(seen.f_blocks * seen.f_frsize, seen.f_bavail * seen.f_frsize)
