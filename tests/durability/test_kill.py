"""SIGKILL at random moments; `tests/benchmarks/kill` does the same some thousand times."""

import subprocess
import sys
from pathlib import Path

from simulator.site import free_port
from tests.durability import objects
from tests.durability.killing import Machines, campaign
from tests.durability.truth import Folder, faults, rows
from tests.durability.zygote import ROOT, Pacs, Zygote, environment

KILLS = 200


def test_nothing_acknowledged_is_lost_and_nothing_partial_is_seen_however_often_it_is_killed(tmp_path: Path) -> None:
    with Zygote() as zygote:
        tally = campaign(zygote, tmp_path, kills=KILLS, seed=20261122, progress=lambda _: None)
    print(tally.table())
    assert tally.faults == []
    assert tally.kills == KILLS
    assert tally.acknowledged > KILLS  # it was busy when it died
    assert set(tally.states) == {
        "an unfinished file",
        "a file in its place without a row",
        "a row, its name still in incoming",
        "everything but the answer",
    }


def test_a_process_started_from_its_command_dies_and_comes_back_the_same(tmp_path: Path) -> None:
    folder, machines, numbers = Folder(tmp_path / "data"), Machines(free_port()), list(range(30))
    for _ in range(2):
        command = [sys.executable, "-m", "pacs"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment(folder.path, machines.port))
        pacs = Pacs(process.pid, machines.port)
        pacs.wait_until_listening()
        assert faults(folder, machines.begun, machines.acknowledged) == []
        threads = machines.send(numbers)
        while len(machines.acknowledged) < 10:
            assert not pacs.ended(0.001)
        pacs.kill()
        process.wait()
        for thread in threads:
            thread.join()
    with Zygote() as zygote:
        pacs = zygote.start(folder.path, machines.port)
        pacs.wait_until_listening()
        for thread in machines.send(numbers):
            thread.join()
        assert faults(folder, numbers, numbers) == []
        assert set(rows(folder)) == {objects.uid(number) for number in numbers}
        pacs.kill()
