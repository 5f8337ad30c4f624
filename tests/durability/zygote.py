"""Real pacs processes, started quickly.

Most of a start is reading Python code: 0.6 s of it, for some 30 ms of work of ours. The zygote has read it and forks a
process for each start, which is then given its variables and runs `pacs.__main__.main` as `python -m pacs` would: it
opens the database, sweeps, listens, and is ended by a real SIGKILL that it cannot see coming. Nothing of it is shared
with the next: the zygote itself opens no file of the archive and starts no thread. One test starts `python -m pacs`
itself, so that the difference stays visible.

`python -m tests.durability.zygote` is the process that forks; `Zygote` is how a test talks to it.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from simulator.site import hold_port

ROOT = Path(__file__).parents[2]
STARTED_WITHIN = 30.0


class Pacs:
    """One process that was started; `kill` it, or find out that it ended by itself."""

    def __init__(self, pid: int, port: int, log: Path | None = None) -> None:
        self.pid = pid
        self.port = port
        self.log = log
        self._descriptor = os.pidfd_open(pid)

    def wait_until_listening(self) -> None:
        """Return when it takes connections, that is, after its start-up has cleaned up."""
        deadline = time.monotonic() + STARTED_WITHIN
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert not self.ended(0.001), f"the pacs process ended by itself: {self._last_words()}"
            assert time.monotonic() < deadline, "the pacs process does not listen"

    def _last_words(self) -> str:
        return self.log.read_text()[-2000:] if self.log else ""

    def ended(self, seconds: float) -> bool:
        """Wait at most so long for the end."""
        if self._descriptor < 0:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait until the kernel has closed everything the process had open."""
        signal.pidfd_send_signal(self._descriptor, number)
        assert self.ended(STARTED_WITHIN), "the pacs process did not end"

    def kill(self) -> None:
        self.end(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        """Leave nothing running, whatever went wrong."""
        if not self.ended(0):
            self.end(signal.SIGKILL)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Zygote:
    """The forking process. Leaving the context ends it and what it started."""

    def __enter__(self) -> Self:
        self._started: list[Pacs] = []
        self._port = hold_port()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.durability.zygote"],
            cwd=ROOT,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for pacs in self._started:
            pacs.close()
        self._process.communicate()
        self._port.close()

    def start(self, data: Path, port: int) -> Pacs:
        """Start a pacs process; it does not listen yet."""
        assert self._process.stdin is not None and self._process.stdout is not None
        log = data.parent / "pacs.log"
        order = {"variables": variables(data, port), "log": str(log)}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        self._started.append(Pacs(int(self._process.stdout.readline()), port, log))
        return self._started[-1]

    def listening(self, data: Path) -> Pacs:
        """Start a pacs process and wait until it listens; one at a time, for all have the same port."""
        for pacs in self._started:
            pacs.close()
        pacs = self.start(data, self._port.getsockname()[1])
        pacs.wait_until_listening()
        return pacs


def environment(data: Path, port: int) -> dict[str, str]:
    """The environment of a process that is started by itself."""
    return {**os.environ, **variables(data, port)}


def variables(data: Path, port: int) -> dict[str, str]:
    """What a pacs process is told. Index and images are in folders of their own, so that no sync helps the other."""
    return {
        "PACS_DB_PATH": str(data / "index" / "pacs.db"),
        "PACS_STORAGE_PATH": str(data / "instances"),
        "PACS_HOST": "127.0.0.1",
        "PACS_PORT": str(port),
        "LOG_LEVEL": "WARNING",
    }


def _serve() -> None:
    from pacs.__main__ import main  # what takes the time; read once, here

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _become(order["variables"], Path(order["log"]))
            from gateway.process import run

            os._exit(run(main))
        print(pid, flush=True)


def _become(settings: Mapping[str, str], log: Path) -> None:
    """Be as a process that was just started: signals, variables, descriptors."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(settings)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)


if __name__ == "__main__":
    _serve()
