"""The health report: one fact per hop, judged by when it was last proven, never by an open connection.

Pure functions over facts (`relay.health.facts`, `relay.health.site_health`). The same report answers the `health`
action, `/healthz`, the overview and each heartbeat. Not for: looking facts up; remedies beyond a sentence.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gateway.disk_space import USUAL_WATERMARKS, Fullness, Volume, Watermarks
from gateway.messages import Check, HealthReport
from gateway.sqlite import utc_text

PROVEN_WITHIN = timedelta(minutes=3)
"""A hop is well while its last round trip is younger; twice the longest pause between two proofs, and some."""


@dataclass(frozen=True, slots=True)
class HopFact:
    """The state of one hop to the cloud. `trouble` is the last failure in words, empty when there is none.

    `instead` is, in words, the stand-in for a proof of a hop that cannot be proven; with one the hop is well, and its
    check says that it is not proven.
    """

    name: str
    proven_at: datetime | None
    trouble: str = ""
    instead: str = ""


@dataclass(frozen=True, slots=True)
class PortFact:
    """The state of a DICOM port: the hop to it, and in words when a machine last used it."""

    hop: HopFact
    spoke: str = ""


@dataclass(frozen=True, slots=True)
class Forwards:
    """The forward rows of one site archive. `oldest` is UTC text; `reason` why it waits, if that is known."""

    target: str
    open: int
    parked: int
    oldest: str | None = None
    reason: str = ""
    parked_because: str = ""


@dataclass(frozen=True, slots=True)
class QueueFact:
    """The pending entries of one database for the cloud, and of the archive's also the rows for the site archives.

    `oldest` is UTC text, None when nothing is open; `parked_because` is why the newest parked entry is; `trouble` why
    the database cannot be read.
    """

    name: str
    open: int = 0
    parked: int = 0
    oldest: str | None = None
    parked_because: str = ""
    trouble: str = ""
    forwards: tuple[Forwards, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """The images' volume; `trouble` says why it cannot be looked at."""

    volume: Volume | None = None
    watermarks: Watermarks = USUAL_WATERMARKS
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Images:
    """Number of stored files known to be damaged, and when the scrub began and ended its last pass (UTC text)."""

    damaged: int
    scrub_began_at: str | None = None
    scrub_ended_at: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a report is made of. No hops means that no cloud is configured."""

    version: str
    started_at: datetime
    hops: tuple[HopFact, ...]
    queues: tuple[QueueFact, ...]
    disk: Disk
    images: Images | None = None
    audit: str = ""
    """Why the audit trail cannot be written; empty when nothing is wrong."""
    exams: str = ""
    """Which exams could not be judged; empty when nothing is wrong."""
    ports: tuple[PortFact, ...] = ()


def report(facts: Facts, *, now: datetime) -> HealthReport:
    """Judge the facts; the site is healthy when every check is ok."""
    checks = {
        **(_hops(facts.hops, now=now) if facts.hops else {"cloud": Check(ok=True, detail="No cloud is configured.")}),
        **{port.hop.name: _port(port, now=now) for port in facts.ports},
        **{queue.name: _queue(queue, now=now) for queue in facts.queues},
        "disk": _disk(facts.disk, now=now),
        **({"audit": Check(ok=False, detail=facts.audit)} if facts.audit else {}),
        **({"exams": Check(ok=False, detail=facts.exams)} if facts.exams else {}),
        **({} if facts.images is None else {"images": _images(facts.images, now=now)}),
    }
    return HealthReport(
        healthy=all(check.ok for check in checks.values()),
        version=facts.version,
        listener_uptime_seconds=round((now - facts.started_at).total_seconds(), 3),
        checks=checks,
    )


def _hops(hops: Iterable[HopFact], *, now: datetime) -> dict[str, Check]:
    return {hop.name: _hop(hop, now=now) for hop in hops}


def _hop(hop: HopFact, *, now: datetime) -> Check:
    proven_at = None if hop.proven_at is None else utc_text(hop.proven_at)
    # A fresh proof outweighs a later trouble: one failed attempt does not make a hop unwell.
    if hop.proven_at is not None and now - hop.proven_at <= PROVEN_WITHIN:
        return Check(ok=True, detail=hop.trouble, proven_at=proven_at)
    if hop.instead:
        return Check(ok=True, detail=hop.instead, proven_at=proven_at)
    if hop.proven_at is None:
        return Check(ok=False, detail=hop.trouble or "Not proven since the start; the first round trip is awaited.")
    detail = hop.trouble or f"No round trip for more than {PROVEN_WITHIN.total_seconds():.0f} seconds."
    return Check(ok=False, detail=detail, proven_at=proven_at)


def _port(port: PortFact, *, now: datetime) -> Check:
    # The time of the last use is reported and never judged: at night machines are silent.
    check = _hop(port.hop, now=now)
    return check.model_copy(update={"detail": " ".join(filter(None, (check.detail, port.spoke)))})


def _queue(queue: QueueFact, *, now: datetime) -> Check:
    if queue.trouble:
        return Check(ok=False, detail=queue.trouble)
    pending = f"{queue.open} open since {queue.oldest}" if queue.oldest else "nothing open"
    parked = f" {queue.parked} parked, the newest because: {queue.parked_because}" if queue.parked else ""
    detail = " ".join([f"Owed to the cloud: {pending}.{parked}", *(_forwards(each) for each in queue.forwards)])
    # Ok however many are pending: a destination that fails is a failing hop, and has a check of its own.
    return Check(ok=True, detail=detail, proven_at=utc_text(now))


def _forwards(rows: Forwards) -> str:
    waits = f"{rows.open} open since {rows.oldest}. {rows.reason}".rstrip() if rows.oldest else "nothing open."
    parked = f" {rows.parked} parked, because: {rows.parked_because}" if rows.parked else ""
    return f"Owed to {rows.target}: {waits}{parked}"


def _disk(disk: Disk, *, now: datetime) -> Check:
    if disk.volume is None:
        return Check(ok=False, detail=disk.trouble)
    detail = f"{disk.volume.used_percent:.0f}% used, {_about(disk.volume.free_bytes)} free."
    match disk.volume.fullness(disk.watermarks):
        case Fullness.TOO_FULL:
            return Check(ok=False, detail=f"{detail} No images are taken: make room now.", proven_at=utc_text(now))
        case Fullness.ALMOST_FULL:
            detail += " Make room soon."
    return Check(ok=True, detail=detail, proven_at=utc_text(now))


def _about(size: int) -> str:
    """A size in two figures."""
    # Exact bytes would make another report after each image, and browsers reload their pages.
    rounded = float(f"{size:.1e}")
    return f"{rounded / 1e9:g} GB" if rounded >= 1e9 else f"{rounded / 1e6:g} MB"


def _images(images: Images, *, now: datetime) -> Check:
    if images.damaged:
        detail = f"{images.damaged} stored files are damaged; 'gateway fsck --hashes' says which and what to do."
        return Check(ok=False, detail=detail, proven_at=utc_text(now))
    if images.scrub_ended_at is not None:
        return Check(ok=True, detail="All files were read again and are well.", proven_at=images.scrub_ended_at)
    since = f"They are being read again since {images.scrub_began_at}." if images.scrub_began_at else ""
    return Check(ok=True, detail=f"No stored file is known to be damaged. {since}".strip(), proven_at=utc_text(now))
