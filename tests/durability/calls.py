"""What a process asked of the kernel, read from a log of strace: the order of writes, syncs, names and answers.

Nothing is patched to record: strace stops the process at its system calls. It can also let a call fail (`failing`), as
a broken disk would, or kill the process in front of one (`killing`).
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.tools.waiting import PATIENCE_SECONDS, wait_until

CHANGING = (
    "openat,write,pwrite64,ftruncate,fsync,fdatasync,"
    "link,linkat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat"
)
"""The calls that change a volume, or make a change durable."""

LONGEST = 1 << 20
"""Bytes of a buffer that are written to the log, more than any single write of ours."""

_LINE = re.compile(r"(\d+) +(?:<\.\.\. \w+ resumed>)?(.*)")
_CALL = re.compile(r"(\w+)\((.*)\)\s+= (-?\d+)", re.DOTALL)
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that came back. `began` and `ended` are positions in the order of everything that happened."""

    began: int
    ended: int
    process: int
    name: str
    arguments: str
    result: int

    def texts(self) -> list[bytes]:
        """Its arguments that are bytes or paths."""
        return [bytes.fromhex(found.replace("\\x", "")) for found in _TEXT.findall(self.arguments)]

    def holds(self, wanted: bytes) -> bool:
        """Do these bytes stand in one of its arguments?"""
        return "".join(f"\\x{byte:02x}" for byte in wanted) in self.arguments

    def numbers(self) -> list[int]:
        """Its arguments that are plain numbers: descriptor, length, offset."""
        without_texts = _TEXT.sub("", self.arguments)
        return [int(part) for part in re.split(r"[, ]+", without_texts) if part.isdecimal()]


def missing() -> str:
    """Why calls cannot be seen here; '' when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed (apt-get install strace)"
    tried = subprocess.run(["strace", "-o", os.devnull, "true"], check=False, capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.strip()}"


def recording(log: Path) -> list[str]:
    """What to put in front of a command to record it."""
    calls = f"trace={CHANGING},close,sendto"
    return [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-xx",
        "-s",
        str(LONGEST),
        "-e",
        calls,
        "-e",
        "signal=none",
        "-o",
        str(log),
    ]


def read(log: Path) -> list[Call]:
    """The calls of a log in the order in which they came back; `close` where it began: its number is free from then."""
    begun: dict[str, tuple[int, str]] = {}
    found = []
    with log.open() as lines:
        for position, line in enumerate(lines):
            match = _LINE.match(line)
            if match is None:
                continue
            thread, rest = match.groups()
            began, before = begun.pop(thread, (position, ""))
            if rest.endswith("<unfinished ...>"):
                begun[thread] = (position, rest.removesuffix("<unfinished ...>"))
            elif call := _CALL.match(before + rest):
                found.append(Call(began, position, int(thread), call[1], call[2], int(call[3])))
    return sorted(found, key=lambda call: call.began if call.name == "close" else call.ended)


@contextmanager
def failing(pid: int, call: str, *, error: str, when: int) -> Iterator[list[str]]:
    """Let the so many-th such call of each thread of a running process fail (strace(1), `--inject`).

    Gives a list of the calls that failed; it is filled when the context is left.
    """
    failed: list[str] = []
    with tempfile.NamedTemporaryFile() as log:
        with _attached(pid, call, f"error={error}:when={when}", log.name):
            yield failed
        failed += re.findall(r"^\d+ +(\w+)\(.*\(INJECTED\)$", Path(log.name).read_text(), re.MULTILINE)


@contextmanager
def killing(pid: int, call: str, *, when: int) -> Iterator[None]:
    """Kill a running process in front of the so many-th such call of a thread. If it dies, wait for its end within."""
    with _attached(pid, call, f"signal=SIGKILL:when={when}", os.devnull):
        yield


@contextmanager
def _attached(pid: int, call: str, injection: str, log: str) -> Iterator[None]:
    options = ["-e", f"trace={call}", "-e", f"inject={call}:{injection}"]
    tracer = subprocess.Popen(["strace", "-f", "-p", str(pid), "-o", log, *options], stderr=subprocess.DEVNULL)
    try:
        _wait_until_traced(pid, tracer)
        yield
        tracer.send_signal(signal.SIGINT)  # detaches, and the process goes on
        tracer.wait(PATIENCE_SECONDS)
    finally:
        tracer.kill()
        tracer.wait()


def _wait_until_traced(pid: int, tracer: "subprocess.Popen[bytes]") -> None:
    """Return when strace holds every thread, or has killed the process in front of a call that came before that."""
    mark = f"TracerPid:\t{tracer.pid}\n"
    wait_until(lambda: all(mark in _status(thread) for thread in _threads(pid)), "strace at every thread")


def _threads(pid: int) -> list[Path]:
    """The threads of a process; none when it has ended, which it may while the folder is read."""
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def _status(thread: Path) -> str:
    try:
        return (thread / "status").read_text()
    except OSError:  # the thread has ended meanwhile
        return ""
