"""The plug is pulled at random moments: a real run is recorded and replayed on a volume that forgets.

What is proven: of the system calls the process really made, in the order in which it made them, there is no moment (of
those tried) after which something acknowledged is missing or something partial is seen, under either rule for what a
volume keeps (see `volume`). What is not: that a disk keeps what it reports as synced.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.durability import calls, objects
from tests.durability.calls import Call
from tests.durability.cutting import OBJECTS, Run, power_cuts, record
from tests.durability.truth import Folder
from tests.durability.volume import Names, success

CUTS = 70

pytestmark = pytest.mark.skipif(bool(calls.missing()), reason=calls.missing())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return record(tmp_path_factory.mktemp("recorded"))


@pytest.mark.parametrize("names", Names)
def test_whenever_the_plug_is_pulled_everything_acknowledged_is_there_afterwards(run: Run, names: Names) -> None:
    assert list(power_cuts(run, names, cuts=CUTS, seed=20261122)) == []


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
