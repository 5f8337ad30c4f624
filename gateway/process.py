"""The life of a process: exit codes, stop signals, systemd's readiness and watchdog, and several processes at once.

A service's `__main__` is

    def main() -> None:
        settings = load(WorklistSettings)
        configure(settings.log_level, process="worklist")
        with ...:
            until_stopped(still_working)

    if __name__ == "__main__":
        sys.exit(run(main))

Exit codes: 0 stopped by a signal, 1 could not go on, 78 (EX_CONFIG) the settings are wrong and a restart will not help,
130 interrupted before it was ready.

Not for: threads or sockets of a service.
"""

import asyncio
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic

import structlog

from gateway.errors import GatewayError, SettingsError
from gateway.log import configure

EXIT_OK, EXIT_FAILED, EXIT_SETTINGS, EXIT_INTERRUPTED = 0, 1, 78, 130
LOOK_SECONDS = 5.0
"""How often a waiting process checks that it still works, unless systemd's watchdog wants it more often."""

log = structlog.get_logger()


def run(main: Callable[[], None]) -> int:
    """Run `main` and return its exit code; every reason is written once, on standard error."""
    if not structlog.is_configured():  # its default shows the values of variables with a trace, secrets included
        configure("INFO", process=Path(sys.argv[0]).stem)
    try:
        main()
    except SettingsError as error:
        print(f"Cannot start, the settings are wrong:\n{error}", file=sys.stderr)
        return EXIT_SETTINGS
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except (GatewayError, OSError) as error:  # expected kinds of failure: a sentence says it, a trace adds nothing
        log.error("process ended", reason=str(error))
        return EXIT_FAILED
    except Exception:
        log.exception("process crashed")
        return EXIT_FAILED
    return EXIT_OK


def until_stopped(still_working: Callable[[], None] = lambda: None) -> None:
    """Notify systemd that the service is ready, then block until SIGTERM or SIGINT.

    `still_working` is called every few seconds in the main thread; it raises when the process can no longer do its
    work, and that ends the process: a service that is restarted is better than one that lingers.
    """
    with _stop_signals() as stop:
        notify("READY=1")
        while not stop.wait(_look_seconds()):
            still_working()
            notify("WATCHDOG=1")
        notify("STOPPING=1")


async def until_stopped_async(still_working: Callable[[], None] = lambda: None) -> None:
    """The same as `until_stopped` for a process that lives in asyncio; call it in the main thread's loop."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notify("READY=1")
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _look_seconds())
        if not stop.is_set():
            still_working()
            notify("WATCHDOG=1")
    notify("STOPPING=1")


def notify(state: str) -> None:
    """Send one line to systemd (sd_notify(3)); without NOTIFY_SOCKET nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # Linux abstract namespace
        address = "\0" + address[1:]
    # A full or vanished notification socket must not end the service; systemd's own timer then decides.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
        channel.sendto(state.encode(), address)


def supervise(commands: Mapping[str, Sequence[str]], *, grace_seconds: float = 20.0) -> int:
    """Run several processes in the foreground until one ends or a stop signal comes; then stop all of them.

    Returns 0 when a signal came and all ended with 0; otherwise the exit code of the one that ended first, or 1 if that
    was 0: a service that ends by itself is a failure.
    """
    children: dict[str, subprocess.Popen[bytes]] = {}
    with _stop_signals() as stop:
        try:
            for name, command in commands.items():
                children[name] = subprocess.Popen(list(command), stdin=subprocess.DEVNULL)
            while not stop.wait(0.1):
                for name, child in children.items():
                    if (code := child.poll()) is not None:
                        log.error("process ended by itself, stopping the others", name=name, exit_code=code)
                        return code if code > 0 else EXIT_FAILED
        finally:
            end(children.values(), grace_seconds=grace_seconds)
    return max((EXIT_OK if child.returncode == 0 else EXIT_FAILED for child in children.values()), default=EXIT_OK)


def end(children: Iterable[subprocess.Popen[bytes]], *, grace_seconds: float) -> None:
    """Terminate all child processes, side by side; kill those still there after `grace_seconds`."""
    everyone = list(children)
    for child in everyone:
        if child.poll() is None:
            child.terminate()
    deadline = monotonic() + grace_seconds
    for child in everyone:
        try:
            child.wait(max(0.0, deadline - monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the block is over, so that a child process is never started and forgotten."""
    waiting: list[int] = []
    before = {
        number: signal.signal(number, lambda which, _frame: waiting.append(which))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for which in waiting:
        signal.raise_signal(which)


class _Stop:
    def __init__(self, reader: int) -> None:
        self._reader = reader

    def wait(self, seconds: float) -> bool:
        """Wait for a stop signal; True when it came."""
        return bool(select.select([self._reader], [], [], seconds)[0])


@contextlib.contextmanager
def _stop_signals() -> Iterator[_Stop]:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)  # a full pipe holds signals enough

    def remember(_number: int, _frame: object) -> None:
        # A byte to a pipe and no more, because a Python signal handler may run while the main thread holds any lock.
        with contextlib.suppress(BlockingIOError):
            os.write(writer, b"!")

    before = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield _Stop(reader)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def _look_seconds() -> float:
    """Half of systemd's watchdog time, as sd_watchdog_enabled(3) recommends, and never longer than our own."""
    microseconds = int(os.environ.get("WATCHDOG_USEC") or 0)
    return min(LOOK_SECONDS, microseconds / 2_000_000) if microseconds else LOOK_SECONDS
