"""The state of a site in numbers: health, worklist, archive, disk, and the kinds of findings of a short fsck.

Not for: judging it.
"""

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from gateway.disk_space import volume_of
from gateway.errors import GatewayError
from gateway.outbox import Outbox
from operations import databases
from operations.site_settings import SiteSettings
from pacs.archive.files import Files
from pacs.commitment.rows import CommitmentRows
from pacs.maintenance.fsck import Fsck

Facts = dict[str, object]

FSCK_SECONDS = 20.0
"""How long index and files are compared; enough for about a hundred thousand files."""


def health(settings: SiteSettings) -> object:
    try:
        with urllib.request.urlopen(f"{settings.url}/healthz", timeout=10) as answer:  # noqa: S310 - our own address
            return json.load(answer)
    except urllib.error.HTTPError as error:  # not well, and the body says why
        return json.load(error)


def worklist(settings: SiteSettings) -> Facts:
    with databases.worklist(settings.worklist) as worklist:
        states = Counter(f"{item.date} {item.state}" for item in worklist.items())
        return {
            "items": dict(sorted(states.items())[-200:]),
            "open_steps": len(worklist.open_steps()),
            "outbox": _pending(worklist.outbox),
            "database_bytes": settings.worklist.db_path.stat().st_size,
        }


def archive(settings: SiteSettings) -> Facts:
    with databases.archive(settings.pacs) as archive:
        return {
            **archive.statistics(),
            **archive.listing.received(),
            "damaged": archive.condition().damaged,
            "quarantined": len(archive.quarantine.objects()),
            "promises": CommitmentRows(archive).facts(),
            "outbox": _pending(archive.outbox),
            "database_bytes": settings.pacs.db_path.stat().st_size,
        }


def _pending(outbox: Outbox) -> Facts:
    # Counts and reasons in our words; no parameters of an entry, because they hold patient data.
    parked = Counter(f"{entry.message_type}: {entry.reason}" for entry in outbox.entries("parked"))
    waiting = Counter(f"{entry.message_type}: {entry.reason}" for entry in outbox.entries("open"))
    return {**outbox.counts(), "oldest_open": outbox.oldest_open(), "parked": dict(parked), "waiting": dict(waiting)}


def disk(settings: SiteSettings) -> Mapping[str, object]:
    folders = {"images": settings.pacs.storage_path, "data": settings.relay.data_dir}
    return {name: _volume(folder) for name, folder in folders.items()}


def _volume(folder: Path) -> Facts:
    volume = volume_of(folder)
    return {"total_bytes": volume.total_bytes, "free_bytes": volume.free_bytes}


def fsck(settings: SiteSettings, *, now: datetime) -> Facts:
    """Compare index and files for FSCK_SECONDS; gives the number of findings of each kind, without names of files."""
    found: Counter[str] = Counter()
    deadline, is_whole = time.monotonic() + FSCK_SECONDS, True
    with databases.archive(settings.pacs) as archive:

        def seen() -> None:
            if time.monotonic() > deadline:
                raise _Enough

        try:
            check = Fsck(archive, Files(settings.pacs.storage_path), at_rest=False, seen=seen)
            for finding in check.findings(hashes=False, now=now.astimezone(UTC)):
                found[finding.code] += 1
        except _Enough:
            is_whole = False
    return {"findings": dict(found), "everything_looked_at": is_whole}


class _Enough(GatewayError):
    """The time for comparing is over."""
