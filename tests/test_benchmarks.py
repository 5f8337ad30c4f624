"""Every benchmark still runs, in its smallest form: what it measures changes, and a table nobody can print is none.

The figures mean nothing here, and are not looked at. Not here: `kill` and `faults`, which have tests of their own;
`store` and `link`, which take minutes; `latency`, which fails by its figures.
"""

import subprocess
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"

SMALLEST = {
    "associate": "--repetitions 1",
    "find": "--sizes 50 --repetitions 1 --queries 2",
    "pages": "--times 1",
    "scale": "--sizes 400,800",
    "upload": "--mb 8",
    "web": "--instances 400 --peer-instances 40 --repetitions 1",
}


@pytest.mark.parametrize("name", SMALLEST)
def test_a_benchmark_runs_and_prints_its_table(name: str) -> None:
    command = [str(BENCHMARKS / name), *SMALLEST[name].split()]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr[-2000:]
