"""The plug is pulled at random moments: a real run is recorded and replayed on a volume that forgets.

What is proven: of the system calls the process really made, in the order in which it made them, there is no moment (of
those tried) after which something acknowledged is missing or something partial is seen, under either rule for what a
volume keeps (see `volume`). What is not: that a disk keeps what it reports as synced.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from gateway.simulator.site import free_port
from pacs import Archive
from pacs.receiving import Origin
from tests.durability import calls, objects
from tests.durability.calls import Call
from tests.durability.killing import Machines
from tests.durability.truth import Folder, faults
from tests.durability.volume import Names, Volume, success
from tests.durability.zygote import ROOT, Pacs, environment

CUTS = 100
MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""Where the remains are looked at: what survives is decided already, so no disk has to be waited for."""

OBJECTS = (range(0, 45), range(45, 60))
"""What is sent in the process's first life, which ends as asked, and in its second, which is killed."""

pytestmark = pytest.mark.skipif(bool(calls.missing()), reason=calls.missing())


@dataclass(frozen=True)
class Run:
    """A recorded run: the folder it was on, and its calls, one list for each life of the process."""

    data: Path
    lives: tuple[list[Call], ...]

    def moments(self) -> int:
        return sum(map(len, self.lives))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "data").mkdir()
    machines, lives = Machines(free_port()), []
    for number, numbers in enumerate(OBJECTS):
        log = folder / f"{number}.log"
        command = [*calls.recording(log), sys.executable, "-m", "pacs"]
        tracer = subprocess.Popen(command, cwd=ROOT, env=environment(folder / "data", machines.port))
        pacs = Pacs(child(tracer.pid), machines.port)
        pacs.wait_until_listening()
        for thread in machines.send(list(numbers)):
            thread.join()
        pacs.end(signal.SIGKILL if number else signal.SIGTERM)
        tracer.wait(30)
        pacs.close()
        lives.append(calls.read(log))
    assert machines.refused == []
    assert machines.acknowledged == {number for numbers in OBJECTS for number in numbers}
    return Run(folder / "data", tuple(lives))


def child(tracer: int) -> int:
    """The traced process; strace forks others first, to find out what the kernel can do."""
    for _ in range(20_000):
        for pid in Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(sys.executable.encode()):
                    return int(pid)
        time.sleep(0.001)
    raise AssertionError("strace started nothing")


def cut(run: Run, names: Names, moments: set[int], look: Callable[[Volume], None]) -> None:
    """Replay a run and stop at some moments for a look."""
    volume, moment = Volume(run.data, names), 0
    for life in run.lives:
        volume.restart()
        for call in life:
            volume.replay(call)
            moment += 1
            if moment in moments:
                look(volume)


@pytest.mark.parametrize("names", Names)
def test_whenever_the_plug_is_pulled_everything_acknowledged_is_there_afterwards(run: Run, names: Names) -> None:
    chance, found, looked = Random(20261122), list[str](), 0
    sent = [number for numbers in OBJECTS for number in numbers]

    def look(volume: Volume) -> None:
        nonlocal looked
        looked += 1
        with tempfile.TemporaryDirectory(dir=MEMORY) as name:
            folder = Folder(Path(name, "data"))
            volume.remains(folder.path, chance)
            acknowledged = [number for number in sent if objects.uid(number) in volume.answered]
            found.extend(f"cut {looked}: {fault}" for fault in after_a_start(folder, sent, acknowledged, names))

    cut(run, names, set(chance.sample(interesting(run), CUTS)), look)
    assert found == []
    assert looked == CUTS


def interesting(run: Run) -> list[int]:
    """The moments that are about the volume or an answer; most are Python reading its own files."""
    below = str(run.data).encode()
    everything = enumerate(call for life in run.lives for call in life)
    return [at for at, call in everything if call.name != "openat" or call.texts()[0].startswith(below)]


def after_a_start(folder: Folder, sent: list[int], acknowledged: list[int], names: Names) -> list[str]:
    """What is wrong once the archive has started on what was left, and once the rest has been sent again."""
    archive = Archive.open(folder.index, folder.instances)
    with closing(archive), closing(archive.files):
        found = faults(folder, sent, acknowledged)
        if names is Names.STRICT:  # its name in incoming may be lost, so it is found by fsck, not by a start
            found = [fault for fault in found if not fault.endswith("has no row")]
        for number in set(sent) - set(acknowledged):
            send(archive, number)
        return found + faults(folder, sent, sent)


def send(archive: Archive, number: int) -> None:
    origin = Origin(objects.SOP_CLASS, objects.uid(number), objects.EXPLICIT, "MAMMO_1", "a1")
    receiving = archive.receive(origin, now=datetime.now(UTC))
    receiving.write(memoryview(objects.data_set(number)))
    receiving.finish()


STEPS = ["written", "file synced", "linked", "folder synced", "row logged", "log synced", "answered"]


def test_before_every_success_file_folder_and_log_were_synced_in_that_order(run: Run) -> None:
    for life, numbers in zip(run.lives, OBJECTS, strict=True):
        named = list(with_paths(life))
        for number in numbers:
            assert steps(named, Folder(run.data).place(objects.uid(number)), objects.uid(number)) == STEPS


def with_paths(life: list[Call]) -> Iterator[tuple[Call, str]]:
    """Each call with the path of its first descriptor, or its last path."""
    paths: dict[int, str] = {}
    for call in life:
        if call.name == "openat" and call.result >= 0:
            paths[call.result] = call.texts()[0].decode()
            yield call, paths[call.result]
        elif call.name == "close":
            paths.pop(call.numbers()[0], None)
        elif call.name in ("link", "linkat"):
            yield call, call.texts()[1].decode()
        elif call.numbers():
            yield call, paths.get(call.numbers()[0], "")


def steps(named: list[tuple[Call, str]], target: Path, uid: str) -> list[str]:
    """What happened for one object, each after the one before had come back; of several, the last that counts."""
    found: dict[str, Call] = {}
    for call, path in named:
        if path.endswith(".part") and Path(path).name.startswith(target.stem):
            found |= {"written": call} if call.name == "write" else {}
            found |= {"file synced": call} if call.name == "fsync" else {}
        elif call.name == "link" and path == str(target):
            found["linked"] = call
        elif call.name == "fsync" and path == str(target.parent) and "folder synced" not in found:
            found |= {"folder synced": call} if "linked" in found else {}
        elif call.name == "pwrite64" and path.endswith("-wal") and call.holds(uid.encode()):
            found |= {} if "log synced" in found else {"row logged": call}
        elif call.name == "fdatasync" and path.endswith("-wal") and "row logged" in found:
            found.setdefault("log synced", call)
        elif call.name == "sendto" and success(call) == uid:
            found["answered"] = call
            break
    ordered = sorted(found, key=lambda step: found[step].began)
    assert all(found[one].ended < found[next_].began for one, next_ in pairwise(ordered)), f"{uid}: {found}"
    return ordered
