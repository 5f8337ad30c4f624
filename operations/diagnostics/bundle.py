"""Packs a bundle for support into a `.tar.gz`, by the rules of `configuration`, `state` and `service_logs`.

A few hundred kB, most of them log lines, up to `service_logs.LOG_BYTES` uncompressed.

Not for: a copy of anything that could be restored (`operations.backup.backup`).
"""

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from gateway.hops import reason
from operations.diagnostics import configuration, service_logs, state
from operations.site_settings import SiteSettings

Facts = dict[str, object]


def collect(settings: SiteSettings, target: Path, *, logs: Sequence[Path] | None, now: datetime) -> Facts:
    """Write the bundle and give its file, size and number of log lines. Raises FileExistsError."""
    parts: dict[str, Callable[[], object]] = {
        "versions": configuration.versions,
        "settings": lambda: configuration.settings_facts(settings),
        "health": lambda: state.health(settings),
        "worklist": lambda: state.worklist(settings),
        "archive": lambda: state.archive(settings),
        "disk": lambda: state.disk(settings),
        "fsck": lambda: state.fsck(settings, now=now),
    }
    # Each part by itself, because a bundle is made when something is broken, and the other parts show what.
    made = {name: _made(make) for name, make in parts.items()}
    lines, left_out = service_logs.own_lines(service_logs.of_files(logs) if logs else service_logs.journal())
    made["about"] = {
        "site": settings.relay.site,
        "made_at": now.isoformat(timespec="seconds"),
        "log_lines": len(lines),
        "log_lines_left_out": left_out,
    }
    _pack(target, made, lines, now=now)
    return {"file": str(target), "size_bytes": target.stat().st_size, "log_lines": len(lines)}


def _made(make: Callable[[], object]) -> object:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - whatever it is, the other parts have to be made
        return {"not_made": reason(error)}


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
