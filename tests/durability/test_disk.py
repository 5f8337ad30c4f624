"""A disk that is full or read-only: A700 with a comment, the worklist goes on, and so does the archive afterwards.

The volumes are real ones, mounted for the test, which needs root; the errors are the kernel's. What cannot be had on a
machine is left out and says why. Calls that fail one by one are in `test_each_call`.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from simulator.site import Site
from tests.durability import objects
from tests.durability.truth import Folder, faults
from tests.durability.zygote import Zygote
from tests.tools.raw_peer import RawPeer
from tests.worklist.samples import item
from worklist import Worklist

LARGE = 39
"""The number of an object of more than four megabytes."""

NO_SPACE, READ_ONLY = "No space left on device", "Read-only file system"


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A volume of its own on a folder, as long as the context lasts."""
    folder.mkdir(parents=True, exist_ok=True)
    tried = subprocess.run(["mount", *options, str(folder)], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"no volume can be mounted here: {tried.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def store(port: int, number: int) -> tuple[int | None, str]:
    """Send one object; status and comment of the answer."""
    with RawPeer(port, objects.SOP_CLASS, objects.EXPLICIT) as peer:
        answer = peer.store(objects.SOP_CLASS, objects.uid(number), objects.data_set(number))
    return answer.status, answer.error_comment or ""


STORED = (0x0000, "")


def fill(volume: Path) -> Path:
    """Leave not a byte."""
    ballast = volume / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def test_a_full_volume_takes_no_images_but_the_worklist_goes_on_and_so_do_both_when_there_is_room(
    tmp_path: Path,
) -> None:
    with mounted(tmp_path / "site", "-t", "tmpfs", "-o", "size=24m", "none") as volume, Site(volume) as site:
        site.start("worklist", "pacs")
        machine = site.modality()
        Worklist.attach(site.data / "worklist.db").schedule(
            item(), action_id="action-1", content_hash="1", now=datetime.now(UTC)
        )
        assert store(site.ports["pacs"], 1) == STORED
        ballast = fill(volume)
        status, comment = store(site.ports["pacs"], 2)
        assert (status, "full" in comment) == (0xA700, True), comment
        assert list((site.data / "instances" / "incoming").iterdir()) == []
        assert [found.AccessionNumber for found in machine.find(accession_number="ACC1")] == ["ACC1"]
        ballast.unlink()
        assert store(site.ports["pacs"], 2) == STORED
        machine.begin(machine.find(accession_number="ACC1")[0], now=datetime.now(UTC))


def test_an_object_that_no_longer_fits_is_refused_and_leaves_nothing(zygote: Zygote, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    with mounted(folder.instances, "-t", "tmpfs", "-o", "size=7m", "none"):
        pacs = zygote.listening(folder.path)
        assert store(pacs.port, LARGE) == STORED
        status, comment = store(pacs.port, LARGE + 40)
        assert (status, comment) == (0xA700, f"The object cannot be stored: {NO_SPACE}.")
        assert faults(folder, [LARGE], [LARGE]) == []
        assert store(pacs.port, 1) == STORED
        assert faults(folder, [LARGE, 1], [LARGE, 1]) == []
        pacs.kill()


def test_a_volume_that_takes_no_more_names_refuses_and_takes_them_again_later(zygote: Zygote, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    with mounted(folder.instances, "-t", "tmpfs", "-o", "size=20m,nr_inodes=40", "none"):
        pacs = zygote.listening(folder.path)
        assert store(pacs.port, 1) == STORED
        ballast = [folder.instances / f"ballast{number}" for number in range(40)]
        with suppress(OSError):
            for file in ballast:
                file.touch()
        assert store(pacs.port, 2) == (0xA700, f"The object cannot be stored: {NO_SPACE}.")
        for file in ballast:
            file.unlink(missing_ok=True)
        assert store(pacs.port, 2) == STORED
        assert faults(folder, [1, 2], [1, 2]) == []
        pacs.kill()


def test_an_index_that_has_no_room_refuses_and_no_file_stays(zygote: Zygote, tmp_path: Path) -> None:
    folder = Folder(tmp_path / "data")
    with mounted(folder.index.parent, "-t", "tmpfs", "-o", "size=4m", "none") as volume:
        pacs = zygote.listening(folder.path)
        assert store(pacs.port, 1) == STORED
        ballast = fill(volume)
        status, comment = store(pacs.port, 2)
        assert (status, "pacs.db cannot be used now" in comment) == (0xA700, True), comment
        assert faults(folder, [1], [1]) == []
        ballast.unlink()
        assert store(pacs.port, 2) == STORED
        assert faults(folder, [1, 2], [1, 2]) == []
        pacs.kill()


def test_a_volume_that_turns_read_only_refuses_and_is_written_again_when_it_can_be(
    zygote: Zygote, tmp_path: Path
) -> None:
    folder = Folder(tmp_path / "data")
    with mounted(folder.instances, "--bind", str(folder.instances)):
        pacs = zygote.listening(folder.path)
        assert store(pacs.port, 1) == STORED
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder.instances)], check=True)
        assert store(pacs.port, 2) == (0xA700, f"The object cannot be stored: {READ_ONLY}.")
        subprocess.run(["mount", "-o", "remount,bind,rw", str(folder.instances)], check=True)
        assert store(pacs.port, 2) == STORED
        assert faults(folder, [1, 2], [1, 2]) == []
        pacs.kill()
