"""The log lines of our own services, from the journal or from files; other lines are counted and left out.

Not for: writing logs (`gateway.log`).
"""

import json
import subprocess
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

LOG_BYTES = 4_000_000
"""Of log lines, before they are compressed to about a tenth; a busy day writes less."""

LOG_LINES = 20_000

LONGEST_LINE = 16_384

UNITS = ("gateway-worklist", "gateway-pacs", "gateway-relay")


def own_lines(lines: Iterable[str]) -> tuple[list[str], int]:
    """The newest lines of our services, and the number of lines left out."""
    ours: deque[str] = deque(maxlen=LOG_LINES)
    left_out = 0
    for line in lines:
        # Only JSON with the fields of `gateway.log`, because any other line, as a trace, may name a participant.
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


def journal() -> Iterable[str]:
    """The lines of the services in the journal; none where there is no journal, as in a container."""
    units = [word for unit in UNITS for word in ("--unit", unit)]
    command = ["journalctl", "--no-pager", "--output", "cat", "--lines", str(LOG_LINES), *units]
    try:
        done = subprocess.run(command, capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").splitlines()


def of_files(paths: Sequence[Path]) -> Iterable[str]:
    """The lines of log files, one file after the other."""
    for path in paths:
        with path.open(encoding="utf-8", errors="replace") as file:
            yield from file
