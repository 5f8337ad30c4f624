"""What the pages of care know of a site beyond its two databases: settings, files of others, what the loops believe.

Values and where to find them. Not for: what pages show of it (`relay.pages.queue`, `relay.pages.storage`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.disk_space import USUAL_WATERMARKS, Watermarks
from pacs import RetentionPolicy


@dataclass(frozen=True, slots=True)
class CircuitState:
    """What a loop believes of its destination. `failures` is 0 while it works; then nobody waits for `knock_at`."""

    failures: int
    knock_at: datetime | None
    trouble: str
    proven_at: datetime | None


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """`policy` None: nothing goes by itself. `refusals` is the file of refusals, `backups` where backups are noted."""

    refusals: Path | None = None
    backups: Path | None = None
    policy: RetentionPolicy | None = None
    watermarks: Watermarks = USUAL_WATERMARKS
    circuits: Callable[[], Mapping[str, CircuitState]] = dict
