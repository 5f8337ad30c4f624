"""Disk space: how full a volume is, judged by two watermarks.

From the first on people are warned, from the second on no images are taken. Nothing is remembered: when there is room
again, images are taken again.

Not for: making room; that is `gateway prune`.
"""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Fullness(StrEnum):
    """The state of a volume by the watermarks."""

    ROOMY = "roomy"
    ALMOST_FULL = "almost full"
    TOO_FULL = "too full"


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Used per cent of the volume: people are warned from the first on, no images are taken from the second on."""

    warn_percent: float = 85.0
    stop_percent: float = 95.0  # the rest keeps worklist, outboxes and logs on the same volume going


USUAL_WATERMARKS = Watermarks()


@dataclass(frozen=True, slots=True)
class Volume:
    """Size of a volume and the bytes an ordinary user may still write to it."""

    total_bytes: int
    free_bytes: int

    @property
    def used_percent(self) -> float:
        """Used per cent, 0 to 100."""
        # Blocks reserved for root count as used, because the services cannot write to them.
        return 100.0 * (self.total_bytes - self.free_bytes) / self.total_bytes if self.total_bytes else 100.0

    def fullness(self, marks: Watermarks) -> Fullness:
        """Judge it by the watermarks."""
        if self.used_percent >= marks.stop_percent:
            return Fullness.TOO_FULL
        return Fullness.ALMOST_FULL if self.used_percent >= marks.warn_percent else Fullness.ROOMY


def volume_of(folder: Path) -> Volume:
    """The volume a folder is on. Raises OSError when the folder is not there."""
    volume = os.statvfs(folder)
    return Volume(volume.f_blocks * volume.f_frsize, volume.f_bavail * volume.f_frsize)
