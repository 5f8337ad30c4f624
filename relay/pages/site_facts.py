"""What the pages of care know of a site beyond its two databases: settings, files of others, what the loops believe.

Values and where to find them. Not for: what pages show of it (`relay.pages.queue`, `relay.pages.storage`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from gateway.disk_space import USUAL_WATERMARKS, Watermarks
from gateway.refusals import FILE_NAME
from pacs import Policy
from relay.delivery.delivery import Delivery
from relay.settings import RelaySettings


@dataclass(frozen=True, slots=True)
class Breaker:
    """What a loop believes of its destination. `failures` is 0 while it works; then nobody waits for `knock_at`."""

    failures: int
    knock_at: datetime | None
    trouble: str
    proven_at: datetime | None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """`policy` None: nothing goes by itself. `refusals` is the file of refusals, `backups` where backups are noted."""

    refusals: Path | None = None
    backups: Path | None = None
    policy: Policy | None = None
    watermarks: Watermarks = USUAL_WATERMARKS
    breakers: Callable[[], Mapping[str, Breaker]] = dict


def of_site(settings: RelaySettings, deliveries: Sequence[Delivery]) -> Surroundings:
    """The surroundings of a relay with these settings and loops."""
    days, needs_commitment = settings.retention_days, settings.deletion_needs_commitment
    return Surroundings(
        refusals=settings.data_dir / FILE_NAME,
        backups=settings.pacs_db_path.parent,
        policy=Policy(days, needs_commitment) if days else None,
        watermarks=settings.watermarks,
        breakers=lambda: {each.name: _breaker(each) for each in deliveries},
    )


def _breaker(delivery: Delivery) -> Breaker:
    circuit = delivery.circuit
    return Breaker(circuit.failures, circuit.knock_at, delivery.trouble, delivery.proven_at)
