"""A whole site on this machine: worklist, pacs, relay and the stand-in cloud as processes of their own, on free ports.

The demonstration and the journeys run on it. The processes are the real ones (`python -m worklist` and so on), with
no settings but this site's.

Not for: a real site; there it is systemd (`systemd/`) or `gateway run` that starts the processes.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, TextIO

import gateway
from gateway.errors import GatewayError
from gateway.process import end, uninterrupted
from gateway.remote_ae import Peer
from simulator.cloud.remote_control import RemoteControl
from simulator.modality.modality import Modality

OURS = ("GATEWAY_", "WORKLIST_", "PACS_", "RELAY_", "AZURE_", "LOG_LEVEL", "NOTIFY_SOCKET", "WATCHDOG_", "CREDENTIALS_")
"""How the names of a gateway's variables begin; the caller's own are not inherited."""

AE_TITLE = "SIM_MAMMO"
"""Of the machine; the archive finds it at the port `modality`."""

CLOUD = "simulator.cloud"
READY_SECONDS = 60.0
"""How long a start may take; a cold start on a small machine reads much code from disk."""


class SiteError(GatewayError):
    """A process of the site did not do what it was started for; the message ends with the last lines it wrote."""


def hold_port() -> socket.socket:
    """Hold a free TCP port of the loopback interface, `getsockname()[1]`, until the socket is closed.

    The socket never listens. A server may bind the port, and again after it was killed, if it sets SO_REUSEADDR.
    """
    holder = socket.socket()
    # Two sockets may be bound to one port if both set SO_REUSEADDR and none of them listens yet (socket(7)).
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def free_port() -> int:
    """A free TCP port of the loopback interface, held (`hold_port`) until this process ends."""
    holder = hold_port()
    atexit.register(holder.close)
    port: int = holder.getsockname()[1]
    return port


def wait_until(fact: Callable[[], bool], *, what: str, seconds: float = READY_SECONDS) -> None:
    """Look again and again until `fact` holds. Raises SiteError naming `what` never came."""
    deadline = time.monotonic() + seconds
    while not fact():
        if time.monotonic() > deadline:
            raise SiteError(f"{what} did not come within {seconds:.0f} s.")
        time.sleep(0.02)


class Site:
    """Use it as a context manager: leaving it leaves nothing running. `settings` are variables added to its own."""

    def __init__(self, folder: Path, *, settings: Mapping[str, str] = MappingProxyType({})) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._held = {name: hold_port() for name in ("worklist", "pacs", "relay", "modality")}
        self.ports: dict[str, int] = {name: holder.getsockname()[1] for name, holder in self._held.items()}
        self.control = RemoteControl("")
        self.settings = {
            "GATEWAY_DATA_DIR": str(self.data),
            "GATEWAY_SITE": "simulated",
            "WORKLIST_HOST": "127.0.0.1",
            "WORKLIST_PORT": str(self.ports["worklist"]),
            "PACS_HOST": "127.0.0.1",
            "PACS_PORT": str(self.ports["pacs"]),
            "PACS_PEERS": f"{AE_TITLE}=127.0.0.1:{self.ports['modality']}",
            "RELAY_HTTP_HOST": "127.0.0.1",
            "RELAY_HTTP_PORT": str(self.ports["relay"]),
            "RELAY_DESTINATION": "hybrid",
            **settings,
        }
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for holder in self._held.values():
            holder.close()

    @property
    def url(self) -> str:
        """Where the pages are; DICOMweb is below `/dicom-web`."""
        return f"http://127.0.0.1:{self.ports['relay']}"

    def modality(self, ae_title: str = AE_TITLE) -> Modality:
        """A machine configured with this site's two DICOM addresses."""
        return Modality(
            ae_title,
            worklist=Peer("SCREENING_MWL", "127.0.0.1", self.ports["worklist"]),
            pacs=Peer("SCREENING_PACS", "127.0.0.1", self.ports["pacs"]),
        )

    def start_cloud(self) -> None:
        """Start the stand-in cloud and add the settings that connect a gateway to it."""
        self._spawn(CLOUD)
        wait_until(lambda: self._said(CLOUD, "{"), what="The stand-in cloud's address")
        facts = json.loads(next(line for line in self.log(CLOUD).splitlines() if line.startswith("{")))
        self.settings |= facts["settings"]
        self.control = RemoteControl(facts["control"])

    def start(self, *names: str) -> None:
        """Start some of worklist, pacs and relay and wait until they listen. Raises SiteError when one ends."""
        # All are spawned before the first is waited for, because each reads much code before it listens.
        for name in names:
            self._spawn(name)
        for name in names:
            wait_until(lambda name=name: self._listens(name), what=f"{name} on port {self.ports[name]}")  # type: ignore[misc]

    def attend(self) -> None:
        """Block as long as every process lives. Raises SiteError when one ended by itself."""
        while True:
            for name in self._running:
                self._expect_alive(name)
            time.sleep(0.5)

    def kill(self, name: str) -> None:
        """End a process as a power cut would: SIGKILL, nothing is tidied up."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self, *names: str) -> None:
        """Ask some processes, or all, to stop, and wait until they are gone."""
        with uninterrupted():  # an impatient second Ctrl-C leaves nothing behind either
            end([self._running.pop(name) for name in names or tuple(self._running)], grace_seconds=20)

    def log(self, name: str) -> str:
        """All that a process wrote so far."""
        path = self._log_path(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def environment(self) -> dict[str, str]:
        """The variables of this site's processes, and of commands that are to talk to it."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        packages = str(Path(gateway.__file__).parents[1])  # also when run from a checkout that is not installed
        return {**inherited, "PYTHONPATH": packages, **self.settings}

    def _spawn(self, module: str) -> None:
        # Uninterrupted, because a process started but not yet in `_running` would outlive the site.
        with self._open_log(module) as log, uninterrupted():
            self._running[module] = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=self.folder,  # settings read `.env` in the working directory; here there is none
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the caller, who then stops them in order
            )

    def _listens(self, name: str) -> bool:
        self._expect_alive(name)
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.ports[name])) == 0

    def _said(self, name: str, beginning: str) -> bool:
        self._expect_alive(name)
        # A line without its end is still being written.
        return any(line.startswith(beginning) for line in self.log(name).splitlines(keepends=True) if "\n" in line)

    def _expect_alive(self, name: str) -> None:
        if (code := self._running[name].poll()) is not None:
            last = "\n".join(self.log(name).splitlines()[-10:])
            raise SiteError(f"{name} ended by itself with exit code {code}. Its last lines:\n{last}")

    def _log_path(self, name: str) -> Path:
        return self.folder / "logs" / f"{name.rpartition('.')[2]}.log"

    def _open_log(self, name: str) -> TextIO:
        path = self._log_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
