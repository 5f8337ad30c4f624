"""Facts about a site beyond its two databases, for the operator's pages: settings, files, circuits of delivery.

Not here: the pages' values (`relay.pages.queue`, `relay.pages.storage`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.disk_space import USUAL_WATERMARKS, Watermarks
from pacs import RetentionPolicy


@dataclass(frozen=True, slots=True)
class CircuitState:
    """State of a destination's circuit. `failures` in a row, 0 while it works; `knock_at` is the time of the next try
    after a failure; `trouble` says the last one; `proven_at` is the last confirmation in this run."""

    failures: int
    knock_at: datetime | None
    trouble: str
    proven_at: datetime | None


@dataclass(frozen=True, slots=True)
class SiteFacts:
    """The facts. `policy` None: retention removes nothing by itself. `refusals` is the file of refusals, `backups` the
    file with the last backup; None: there is no such file."""

    refusals: Path | None = None
    backups: Path | None = None
    policy: RetentionPolicy | None = None
    watermarks: Watermarks = USUAL_WATERMARKS
    circuits: Callable[[], Mapping[str, CircuitState]] = dict
