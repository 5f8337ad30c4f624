"""A recorded run of a real pacs process, and power cuts in the middle of it.

A run is recorded once (`record`) and replayed on a `Volume`; at each cut the volume's remains are written to a folder,
an archive is started on them, and what it holds is compared with what had been acknowledged on the wire by then.
"""

import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from pacs import Archive
from pacs.archive.receiving import ObjectOrigin
from simulator.site import free_port
from tests.durability import calls, objects
from tests.durability.calls import Call
from tests.durability.killing import Machines
from tests.durability.truth import Folder, faults
from tests.durability.volume import Names, Volume
from tests.durability.zygote import ROOT, Pacs, environment

OBJECTS = (range(0, 45), range(45, 60))
"""What is sent in the process's first life, which ends as asked, and in its second, which is killed."""

SENT = [number for numbers in OBJECTS for number in numbers]

MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
"""Where the remains are looked at: what survives is decided already, so no disk has to be waited for."""


@dataclass(frozen=True)
class Run:
    """A recorded run: the folder it was on, and its calls, one list for each life of the process."""

    data: Path
    lives: tuple[list[Call], ...]

    def moments(self) -> list[int]:
        """The moments that are about the volume or an answer; most are Python reading its own files."""
        below = str(self.data).encode()
        everything = enumerate(call for life in self.lives for call in life)
        return [at for at, call in everything if call.name != "openat" or call.texts()[0].startswith(below)]


def record(folder: Path) -> Run:
    """Let `python -m pacs` take all objects, in two lives, and write down its calls."""
    data = folder / "data"
    data.mkdir()
    machines = Machines(free_port())
    lives = [
        _life(data, folder / f"{end.name}.log", machines, list(numbers), end)
        for numbers, end in zip(OBJECTS, (signal.SIGTERM, signal.SIGKILL), strict=True)
    ]
    assert machines.refused == []
    assert machines.acknowledged == set(SENT)
    return Run(data, tuple(lives))


def power_cuts(run: Run, names: Names, *, cuts: int, seed: int) -> Iterator[str]:
    """Pull the plug so many times at random moments; one sentence for everything that is wrong afterwards."""
    chance = Random(seed)
    at = Counter(chance.choices(run.moments(), k=cuts))
    for moment, volume in _replayed(run, names):
        for _ in range(at[moment]):
            for fault in _after_a_cut(volume, chance):
                yield f"cut after call {moment}: {fault}"


def _life(data: Path, log: Path, machines: Machines, numbers: list[int], end: signal.Signals) -> list[Call]:
    command = [*calls.recording(log), sys.executable, "-m", "pacs"]
    tracer = subprocess.Popen(command, cwd=ROOT, env=environment(data, machines.port))
    try:
        with closing(Pacs(_child(tracer.pid), machines.port)) as pacs:
            pacs.wait_until_listening()
            for thread in machines.send(numbers):
                thread.join()
            pacs.end(end)
        tracer.wait(30)
    finally:
        tracer.kill()
        tracer.wait()
    return calls.read(log)


def _child(tracer: int) -> int:
    """The traced process; strace forks others first, to find out what the kernel can do."""
    for _ in range(20_000):
        for pid in Path(f"/proc/{tracer}/task/{tracer}/children").read_text().split():
            with suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(sys.executable.encode()):
                    return int(pid)
        time.sleep(0.001)
    raise AssertionError("strace started nothing")


def _replayed(run: Run, names: Names) -> Iterator[tuple[int, Volume]]:
    """The volume after each call of a run."""
    volume, moment = Volume(run.data, names), 0
    for life in run.lives:
        volume.restart()
        for call in life:
            volume.replay(call)
            yield moment, volume
            moment += 1


def _after_a_cut(volume: Volume, chance: Random) -> list[str]:
    """What is wrong once the archive has started on what is left, and once the rest has been sent again."""
    acknowledged = [number for number in SENT if objects.uid(number) in volume.answered]
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Folder(Path(name, "data"))
        volume.remains(folder.path, chance)
        with closing(Archive.open(folder.index, folder.instances)) as archive:
            found = faults(folder, SENT, acknowledged)
            if volume.names is Names.STRICT:  # its name in incoming may be lost; fsck finds it then, not a start
                found = [fault for fault in found if not fault.endswith("has no row")]
            for number in set(SENT) - set(acknowledged):
                _send(archive, number)
            return found + faults(folder, SENT, SENT)


def _send(archive: Archive, number: int) -> None:
    origin = ObjectOrigin(objects.SOP_CLASS, objects.uid(number), objects.EXPLICIT, "MAMMO_1", "a1")
    receiving = archive.receive(origin, now=datetime.now(UTC))
    receiving.write(memoryview(objects.data_set(number)))
    receiving.finish()
