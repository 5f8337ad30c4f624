"""The life of a process: exit codes, stop signals, systemd, and several processes that live and die together."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import process
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

WAIT = "from gateway.process import *\nimport sys, asyncio\n"
SERVICE = WAIT + "sys.exit(run(until_stopped))"
ASYNC_SERVICE = WAIT + "sys.exit(run(lambda: asyncio.run(until_stopped_async())))"


@contextmanager
def started(program: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this program, killed in the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, **environment}, text=True, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def written_by(program: str) -> tuple[int, str]:
    """Run a program to its end; gives its exit code and what it wrote on standard error."""
    with started(program) as process:
        _, written = process.communicate(timeout=PATIENCE_SECONDS)
    return process.returncode, written


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The receiving end of sd_notify."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(str(tmp_path / "notify"))
        channel.settimeout(PATIENCE_SECONDS)
        yield channel


def ended(main: str) -> tuple[int, str]:
    """Run a process whose main does this; gives its exit code and what it wrote on standard error."""
    errors = "from gateway.errors import *\ndef fail(error): raise error\n"
    return written_by(WAIT + errors + f"sys.exit(run(lambda: {main}))")


@pytest.mark.parametrize(
    ("main", "code", "told"),
    [
        ("None", 0, ""),
        ("fail(SettingsError('WORKLIST_PORT=x cannot be used.'))", 78, "WORKLIST_PORT=x cannot be used."),
        ("fail(CloudError('The line is down.', permanent=False))", 1, "The line is down."),
        ("fail(OSError(98, 'Address already in use'))", 1, "Address already in use"),
        ("fail(ZeroDivisionError('DOE^JANE'))", 1, "ZeroDivisionError"),
        ("fail(KeyboardInterrupt())", 130, ""),
    ],
)
def test_the_exit_code_says_what_became_of_the_process(main: str, code: int, told: str) -> None:
    returned, written = ended(main)
    assert returned == code
    assert told in written
    assert "DOE^JANE" not in written


def test_a_crash_before_the_settings_were_read_shows_no_values() -> None:
    _, written = ended("(lambda secret: fail(ValueError()))('hush')")
    assert '"event": "process crashed"' in written
    assert "hush" not in written


def test_wrong_settings_are_told_plainly() -> None:
    _, written = ended("fail(SettingsError('WORKLIST_PORT=x cannot be used.'))")
    assert written == "Cannot start, the settings are wrong:\nWORKLIST_PORT=x cannot be used.\n"


@pytest.mark.parametrize("program", [SERVICE, ASYNC_SERVICE])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_is_ready_and_stops_when_asked(systemd: socket.socket, program: str, number: signal.Signals) -> None:
    with started(program, NOTIFY_SOCKET=systemd.getsockname()) as service:
        assert systemd.recv(64) == b"READY=1"
        service.send_signal(number)
        assert systemd.recv(64) == b"STOPPING=1"
        assert service.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("program", [SERVICE, ASYNC_SERVICE])
def test_the_watchdog_hears_from_a_service_that_works(systemd: socket.socket, program: str) -> None:
    with started(program, NOTIFY_SOCKET=systemd.getsockname(), WATCHDOG_USEC="100000") as service:
        heard = [systemd.recv(64) for _ in range(3)]
        service.terminate()
        assert heard == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        assert service.wait(PATIENCE_SECONDS) == 0


@pytest.mark.parametrize("call", ["until_stopped(broken)", "asyncio.run(until_stopped_async(broken))"])
def test_a_service_that_no_longer_works_ends_instead_of_lingering(systemd: socket.socket, call: str) -> None:
    program = WAIT + f"def broken(): raise OSError('the accept thread is gone')\nsys.exit(run(lambda: {call}))"
    with started(program, NOTIFY_SOCKET=systemd.getsockname(), WATCHDOG_USEC="100000") as service:
        assert service.wait(PATIENCE_SECONDS) == 1
    assert systemd.recv(64) == b"READY=1"


def test_the_notification_socket_may_be_abstract(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"gateway-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        process.notify("READY=1")
        assert channel.recv(64) == b"READY=1"


def test_a_vanished_notification_socket_does_not_end_the_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    process.notify("READY=1")


SUPERVISE = WAIT + "sys.exit(supervise({name: [sys.executable, '-c', text] for name, text in %r.items()}))"


def touching(path: Path, then: str) -> str:
    return WAIT + f"import os, pathlib\npathlib.Path({str(path)!r}).write_text(str(os.getpid()))\n{then}"


def wait_for(path: Path) -> int:
    wait_until(lambda: path.exists() and path.read_text(), path.name)
    return int(path.read_text())


def test_one_process_that_dies_takes_the_others_with_it(tmp_path: Path) -> None:
    programs = {
        "lives": touching(tmp_path / "lives", "sys.exit(run(until_stopped))"),
        "dies": WAIT + f"import time, pathlib\nwhile not pathlib.Path({str(tmp_path / 'lives')!r}).exists(): "
        "time.sleep(0.01)\nsys.exit(78)",
    }
    with started(SUPERVISE % programs) as supervisor:
        assert supervisor.wait(PATIENCE_SECONDS) == 78
    with pytest.raises(ProcessLookupError):
        os.kill(wait_for(tmp_path / "lives"), 0)


def test_processes_stop_together_when_asked(tmp_path: Path) -> None:
    programs = {name: touching(tmp_path / name, "sys.exit(run(until_stopped))") for name in ("one", "two")}
    with started(SUPERVISE % programs) as supervisor:
        pids = [wait_for(tmp_path / name) for name in programs]
        supervisor.terminate()
        supervisor.wait(PATIENCE_SECONDS)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_child_that_will_not_stop_is_killed() -> None:
    stubborn = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)\n"
         "while True: signal.pause()"],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert stubborn.stdout is not None
    with stubborn.stdout as output:
        output.readline()
        process.end([stubborn], grace_seconds=0.1)
    assert stubborn.returncode == -signal.SIGKILL


def test_a_signal_waits_until_the_block_is_over() -> None:
    program = WAIT + (
        "import signal\n"
        "try:\n"
        "    with uninterrupted():\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        print('done', file=sys.stderr)\n"
        "    print('never', file=sys.stderr)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', file=sys.stderr)\n"
    )
    _, written = written_by(program)
    assert written == "done\ninterrupted\n"
