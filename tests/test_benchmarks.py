"""Every benchmark still runs, in its smallest form: what it measures changes, and a table nobody can print is none.

The figures mean nothing here, and are not looked at. `kill` and `faults` have tests of their own, `store` and `link`
take minutes, `latency` fails by its figures: of these the test sees only that they start. Not here: that a fresh clone
makes the whole environment, which takes a minute and the network; here it is seen that each benchmark asks for it.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "tests" / "benchmarks"
ALL = sorted(path.name for path in BENCHMARKS.iterdir() if path.is_file() and not path.suffix)
ENVIRONMENT = ("scripts/environment", "requirements.lock", "requirements-test.lock", "pyproject.toml")

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


@pytest.mark.parametrize("name", sorted(set(ALL) - set(SMALLEST)))
def test_a_benchmark_that_takes_long_starts(name: str) -> None:
    done = subprocess.run([str(BENCHMARKS / name), "--help"], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout.startswith("usage: ")) == (0, True), done.stderr[-2000:]


@pytest.mark.parametrize("name", ALL)
def test_a_benchmark_in_a_fresh_clone_makes_its_environment_or_says_what_is_missing(name: str, tmp_path: Path) -> None:
    """A machine without Python is the quickest way to see that the environment is asked for, and what is said then."""
    clone, programs = tmp_path / "clone", tmp_path / "programs"
    for part in (f"tests/benchmarks/{name}", *ENVIRONMENT):
        (clone / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, clone / part)
    programs.mkdir()
    for program in ("dirname", "cat", "cksum"):
        (programs / program).symlink_to(str(shutil.which(program)))

    done = subprocess.run(
        [str(clone / "tests" / "benchmarks" / name), "--help"],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    said = "Python 3.11 or later is needed and none was found. Install it, or set PYTHON to where it is.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
