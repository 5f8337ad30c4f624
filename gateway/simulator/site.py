"""A whole site on this machine: worklist, pacs, relay and the stand-in cloud as processes of their own, on free ports.

The demonstration and the journeys run on it. The processes are the real ones (`python -m worklist` and so on); they get
nothing but their variables, so that neither a `.env` file nor the caller's own settings leak in.

Not for: a real site; there it is systemd (`systemd/`) or `gateway run` that starts the processes.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

import gateway
from gateway.errors import GatewayError
from gateway.process import end

OURS = ("GATEWAY_", "WORKLIST_", "PACS_", "RELAY_", "AZURE_", "LOG_LEVEL", "NOTIFY_SOCKET", "WATCHDOG_", "CREDENTIALS_")
SERVICES = ("worklist", "pacs", "relay")
READY_SECONDS = 60.0
"""How long a start may take; a cold start on a small machine reads much code from disk."""


class SiteError(GatewayError):
    """A process of the site did not do what it was started for; the message ends with the last lines it wrote."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(fact: Callable[[], bool], *, what: str, seconds: float = READY_SECONDS) -> None:
    """Look again and again until `fact` holds. Raises SiteError naming `what` never came."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise SiteError(f"{what} did not come within {seconds:.0f} s.")
        time.sleep(0.02)


class Site:
    """The processes and their variables. Use it as a context manager: leaving it leaves nothing running."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, name: str, *arguments: str) -> None:
        """Start one process, `python -m name`; its log is `logs/<last part of name>.log` in the folder."""
        with self._open_log(name) as log:
            self._running[name] = subprocess.Popen(
                [sys.executable, "-m", name, *arguments],
                cwd=self.folder,
                env=self._whole_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we then stop them in order
            )

    def wait_for_port(self, name: str, port: int) -> None:
        """Wait until a process listens. Raises SiteError at once when it ended instead."""
        wait_until(lambda: self._listens(name, port), what=f"{name} on port {port}")

    def kill(self, name: str) -> None:
        """End a process as a power cut would: SIGKILL, nothing is tidied up."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, name: str | None = None) -> None:
        """Ask one process, or all, to stop, and wait until it is gone."""
        names = [name] if name else list(self._running)
        end([self._running.pop(each) for each in names], grace_seconds=20)

    def log(self, name: str) -> str:
        """All that a process wrote so far."""
        path = self._log_path(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def _listens(self, name: str, port: int) -> bool:
        if (code := self._running[name].poll()) is not None:
            last = "\n".join(self.log(name).splitlines()[-10:])
            raise SiteError(f"{name} ended with exit code {code} instead of starting:\n{last}")
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def _log_path(self, name: str) -> Path:
        return self.folder / "logs" / f"{name.rpartition('.')[2]}.log"

    def _open_log(self, name: str) -> TextIO:
        path = self._log_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")

    def _whole_environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        packages = str(Path(gateway.__file__).parents[1])  # also when run from a checkout that is not installed
        return {**inherited, "PYTHONPATH": packages, **self.environment}
