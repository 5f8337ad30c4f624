"""The demonstration: proves every hop or names the one that failed, and leaves nothing running in any case."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from simulator.demo import HOPS
from tests.tools.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simulator.demo", *arguments],
        env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def lines_until(demo: subprocess.Popen[str], beginning: str) -> Iterator[str]:
    """What it prints, up to the line that begins so."""
    for line in output(demo):
        yield line
        if line.startswith(beginning):
            return
    raise AssertionError(f"{beginning} was never printed")


def output(demo: subprocess.Popen[str]) -> TextIO:
    assert demo.stdout is not None
    return demo.stdout


def ended(demo: subprocess.Popen[str]) -> tuple[int, str]:
    rest, _ = demo.communicate(timeout=3 * PATIENCE_SECONDS)
    return demo.returncode, rest


def running_in(folder: Path) -> dict[str, int]:
    """Processes whose working directory is below a folder: what each is, and its id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(folder):
                found[(process / "cmdline").read_text().split("\0")[-2]] = int(process.name)
        except (OSError, IndexError):  # it has just ended
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left(tmp_path: Path) -> Iterator[None]:
    yield
    left = running_in(tmp_path)
    for pid in left.values():
        os.kill(pid, signal.SIGKILL)
    assert left == {}


def test_once_proves_every_hop_and_tidies_up(tmp_path: Path) -> None:
    code, printed = ended(start(tmp_path, "--once"))
    assert code == 0, printed
    assert [line.split()[0] for line in printed.splitlines()[:-1]] == ["ok"] * HOPS
    assert printed.splitlines()[-1].startswith(f"One exam, {HOPS} hops, ")
    assert list(tmp_path.iterdir()) == []


def test_without_once_it_runs_until_ctrl_c_and_keeps_the_data(tmp_path: Path) -> None:
    demo = start(tmp_path)
    shown = "".join(lines_until(demo, "Data and logs stay in "))
    assert "/dicom-web/studies" in shown
    assert {"simulator.cloud", "pacs", "relay", "worklist"} <= running_in(tmp_path).keys()
    demo.send_signal(signal.SIGINT)
    assert ended(demo)[0] == 0
    [folder] = tmp_path.iterdir()
    assert len(list((folder / "data" / "instances").rglob("*.dcm"))) == 4


def test_a_hop_that_fails_is_named(tmp_path: Path) -> None:
    demo = start(tmp_path, "--once")
    list(lines_until(demo, "ok      pacs starts"))
    os.kill(running_in(tmp_path)["pacs"], signal.SIGKILL)
    code, printed = ended(demo)
    assert code == 1
    assert "Failed at the hop 'modality: R CC stored': No association with SCREENING_PACS" in printed


def test_a_process_that_dies_afterwards_ends_the_demonstration(tmp_path: Path) -> None:
    demo = start(tmp_path)
    list(lines_until(demo, "Data and logs stay in "))
    os.kill(running_in(tmp_path)["pacs"], signal.SIGKILL)
    code, printed = ended(demo)
    assert code == 1
    assert "pacs ended by itself with exit code -9." in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demonstration_is_no_success(tmp_path: Path, number: signal.Signals) -> None:
    demo = start(tmp_path, "--once")
    list(lines_until(demo, "ok      worklist starts"))
    demo.send_signal(number)
    assert ended(demo)[0] == 130
