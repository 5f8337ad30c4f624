"""A bundle for somebody who helps from afar: what runs here, how it is set, how it is, and what it wrote lately.

It holds no patient data and no secrets, by these rules:

* Settings: each with its value, but of a secret only whether it is set, and of an address nothing that is like one.
* Logs: only lines that our own services wrote, which is JSON (`gateway.log` says what may stand in it). Whatever else
  was written to the same place, a library's last words or a trace, is counted and left out.
* Of the databases: counts, times, and reasons in our words. No row, no parameter of an event.

Each part is made by itself; one that cannot be made says so in its place, since a bundle is made when things are wrong.
It has a few hundred kB: the newest lines of the logs, up to `LOG_BYTES` in all.

Not for: a copy of anything that could be restored (`operations.backup.backup`).
"""

import io
import json
import os
import platform
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import urlsplit

from gateway import __version__
from gateway.disk_space import volume_of
from gateway.errors import GatewayError
from gateway.hops import reason
from gateway.outbox import Outbox
from gateway.settings import GatewaySettings, variables
from gateway.sqlite import SQLITE_VERSION
from operations.site_settings import SiteSettings
from pacs import Archive
from pacs.archive.files import Files
from pacs.commitment.rows import CommitmentRows
from pacs.maintenance.fsck import Fsck
from worklist import Worklist

Facts = dict[str, object]

LOG_BYTES = 4_000_000
"""Of log lines, before they are compressed to about a tenth; a busy day writes less."""

LOG_LINES = 20_000

LONGEST_LINE = 16_384

FSCK_SECONDS = 20.0
"""How long index and files are compared; a hundred thousand files or so."""

UNITS = ("gateway-worklist", "gateway-pacs", "gateway-relay")


def collect(settings: SiteSettings, target: Path, *, logs: Sequence[Path] | None, now: datetime) -> Facts:
    """Write the bundle and say what is in it. Raises FileExistsError rather than overwrite anything."""
    parts: dict[str, Callable[[], object]] = {
        "versions": versions,
        "settings": lambda: settings_facts(settings),
        "health": lambda: _health(settings),
        "worklist": lambda: _worklist(settings),
        "archive": lambda: _archive(settings),
        "disk": lambda: _disk(settings),
        "fsck": lambda: _fsck(settings, now=now),
    }
    made = {name: _made(make) for name, make in parts.items()}
    lines, left_out = own_lines(_file_lines(logs) if logs else _journal())
    made["about"] = {
        "site": settings.relay.site,
        "made_at": now.isoformat(timespec="seconds"),
        "log_lines": len(lines),
        "log_lines_left_out": left_out,
    }
    _pack(target, made, lines, now=now)
    return {"file": str(target), "size_bytes": target.stat().st_size, "log_lines": len(lines)}


def versions() -> Facts:
    """What runs here."""
    packages = {each.metadata["Name"]: each.version for each in distributions() if each.metadata["Name"]}
    return {
        "gateway": __version__,
        "python": sys.version,
        "sqlite": SQLITE_VERSION,
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "packages": dict(sorted(packages.items())),
    }


def settings_facts(settings: SiteSettings) -> Facts:
    """Every setting as it is, and of a secret whether it is set."""
    of_all: Facts = {}
    for each in (settings.worklist, settings.pacs, settings.relay):
        of_all |= _one_settings_facts(each)
    return of_all


def own_lines(lines: Iterable[str]) -> tuple[list[str], int]:
    """The newest lines that our services wrote, and how many others there were."""
    ours: deque[str] = deque(maxlen=LOG_LINES)
    left_out = 0
    for line in lines:
        if _is_ours(line):
            ours.append(line.strip())
        elif line.strip():
            left_out += 1
    newest: list[str] = []
    size = 0
    for line in reversed(ours):
        size += len(line) + 1
        if size > LOG_BYTES:
            break
        newest.append(line)
    return newest[::-1], left_out


def _is_ours(line: str) -> bool:
    if len(line) > LONGEST_LINE:
        return False
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and {"event", "level", "process"} <= fields.keys()


def _one_settings_facts(settings: GatewaySettings) -> Facts:
    facts: Facts = {}
    for variable, name in zip(variables(type(settings)), type(settings).model_fields, strict=True):
        value, field = getattr(settings, name), type(settings).model_fields[name]
        if "Secret" in repr(field.annotation):
            facts[variable] = "set" if value and value.get_secret_value() else "not set"
        else:
            facts[variable] = _without_credentials(str(value))
    return facts


def _without_credentials(text: str) -> str:
    """An address without user, password and query; everything else as it is."""
    if "://" not in text:
        return text
    parts = urlsplit(text)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _made(make: Callable[[], object]) -> object:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts have to be made
        return {"not_made": reason(error)}


def _health(settings: SiteSettings) -> object:
    try:
        with urllib.request.urlopen(f"{settings.url}/healthz", timeout=10) as answer:  # noqa: S310 - our own address
            return json.load(answer)
    except urllib.error.HTTPError as error:  # not well, and the body says why
        return json.load(error)


def _worklist(settings: SiteSettings) -> Facts:
    with closing(Worklist.attach(settings.worklist.db_path)) as worklist:
        states = Counter(f"{item.date} {item.state}" for item in worklist.items())
        return {
            "items": dict(sorted(states.items())[-200:]),
            "open_steps": len(worklist.open_steps()),
            "outbox": _owed(worklist.outbox),
            "database_bytes": settings.worklist.db_path.stat().st_size,
        }


def _archive(settings: SiteSettings) -> Facts:
    with closing(Archive.attach(settings.pacs.db_path, settings.pacs.storage_path)) as archive:
        return {
            **archive.statistics(),
            **archive.listing.received(),
            "damaged": archive.condition().damaged,
            "quarantined": len(archive.quarantine.objects()),
            "promises": CommitmentRows(archive).facts(),
            "outbox": _owed(archive.outbox),
            "database_bytes": settings.pacs.db_path.stat().st_size,
        }


def _owed(outbox: Outbox) -> Facts:
    parked = Counter(f"{entry.message_type}: {entry.reason}" for entry in outbox.entries("parked"))
    waiting = Counter(f"{entry.message_type}: {entry.reason}" for entry in outbox.entries("open"))
    return {**outbox.counts(), "oldest_open": outbox.oldest_open(), "parked": dict(parked), "waiting": dict(waiting)}


def _disk(settings: SiteSettings) -> Mapping[str, object]:
    folders = {"images": settings.pacs.storage_path, "data": settings.relay.data_dir}
    return {name: _volume(folder) for name, folder in folders.items()}


def _volume(folder: Path) -> Facts:
    volume = volume_of(folder)
    return {"total_bytes": volume.total_bytes, "free_bytes": volume.free_bytes}


def _fsck(settings: SiteSettings, *, now: datetime) -> Facts:
    """Compare index and files for a while; only what kinds of findings there are."""
    found: Counter[str] = Counter()
    deadline, is_whole = time.monotonic() + FSCK_SECONDS, True
    with closing(Archive.attach(settings.pacs.db_path, settings.pacs.storage_path)) as archive:

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


def _journal() -> Iterable[str]:
    """What the services wrote to the journal; nothing where there is none, as in a container."""
    units = [word for unit in UNITS for word in ("--unit", unit)]
    command = ["journalctl", "--no-pager", "--output", "cat", "--lines", str(LOG_LINES), *units]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").splitlines()


def _file_lines(paths: Sequence[Path]) -> Iterable[str]:
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file


def _pack(target: Path, parts: Mapping[str, object], lines: Sequence[str], *, now: datetime) -> None:
    with target.open("xb") as file:
        os.fchmod(file.fileno(), 0o640)
        with tarfile.open(fileobj=file, mode="w:gz") as bundle:
            for name, facts in parts.items():
                _add(bundle, f"{name}.json", json.dumps(facts, indent=2, default=str) + "\n", now=now)
            _add(bundle, "log.jsonl", "".join(f"{line}\n" for line in lines), now=now)


def _add(bundle: tarfile.TarFile, name: str, text: str, *, now: datetime) -> None:
    content = text.encode()
    entry = tarfile.TarInfo(f"diagnostics/{name}")
    entry.size, entry.mtime, entry.mode = len(content), int(now.timestamp()), 0o640
    bundle.addfile(entry, io.BytesIO(content))
