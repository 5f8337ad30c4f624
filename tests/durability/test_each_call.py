"""One receipt, call by call: each system call that changes the disk fails once, and the process dies once before each.

The calls of one receipt are found by counting: the first number at which nothing happened is one past the last.
"""

from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.durability import calls, objects
from tests.durability.truth import Folder, faults
from tests.durability.zygote import Pacs, Zygote
from tests.tools.raw_peer import RawPeer

pytestmark = pytest.mark.skipif(bool(calls.missing()), reason=calls.missing())


def store(pacs: Pacs, number: int) -> tuple[int | None, str]:
    """Send one object; status and comment of the answer, None when there was no answer."""
    with suppress(OSError, AssertionError, IndexError):
        with RawPeer(pacs.port, objects.SOP_CLASS, objects.EXPLICIT) as peer:
            answer = peer.store(objects.SOP_CLASS, objects.uid(number), objects.data_set(number))
        return answer.status, answer.error_comment or ""
    return NO_ANSWER


STORED, NO_ANSWER = (0x0000, ""), (None, "")


CALLS = ("openat", "mkdir", "write", "fsync", "link", "pwrite64", "fdatasync", "unlink")
"""What a receipt asks of the kernel to change the disk; each of them more than once."""


@pytest.mark.parametrize("call", CALLS)
def test_the_process_dies_before_each_call_of_a_receipt(zygote: Zygote, tmp_path: Path, call: str) -> None:
    folder, sent = Folder(tmp_path / "data"), list[int]()
    for when, number in enumerate(objects.small(), 1):
        pacs = zygote.listening(folder.path)
        with calls.killing(pacs.pid, call, when=when):
            answer = store(pacs, number)
            assert answer == STORED or pacs.ended(20)
        if answer == STORED:
            break
        pacs = zygote.listening(folder.path)
        assert faults(folder, [*sent, number], sent) == []
        assert store(pacs, number) == STORED
        sent.append(number)
        pacs.kill()
    assert sent, f"{call} was never called"
    assert faults(folder, [*sent, number], [*sent, number]) == []
    pacs.kill()


@pytest.mark.parametrize("call", CALLS)
def test_each_call_of_a_receipt_fails_and_the_next_receipt_works_without_a_restart(
    zygote: Zygote, tmp_path: Path, call: str
) -> None:
    folder, sent = Folder(tmp_path / "data"), list[int]()
    pacs = zygote.listening(folder.path)
    for when, number in enumerate(objects.small(), 1):
        with calls.failing(pacs.pid, call, error="ENOSPC", when=when) as failed:
            status, comment = store(pacs, number)
        assert (status, bool(comment)) in [(0x0000, False), (0xA700, True)]
        assert store(pacs, number) == STORED
        sent.append(number)
        if not failed:
            break
    assert len(sent) > 1, f"{call} was never called"
    pacs.kill()
    pacs = zygote.listening(folder.path)
    assert faults(folder, sent, sent) == []
    pacs.kill()


@pytest.mark.parametrize("call", CALLS)
def test_each_call_of_a_receipt_fails_and_the_process_dies_right_after_it(
    zygote: Zygote, tmp_path: Path, call: str
) -> None:
    folder, sent = Folder(tmp_path / "data"), list[int]()
    for when, number in enumerate(objects.small(), 1):
        pacs = zygote.listening(folder.path)
        with calls.failing(pacs.pid, call, error="EIO", when=when) as failed:
            status, comment = store(pacs, number)
        pacs.kill()
        assert (status, bool(comment)) in [(0x0000, False), (0xA700, True)]
        assert status == 0xA700 or "fsync" not in failed  # what could not be synced is not said to be stored
        pacs = zygote.listening(folder.path)
        assert faults(folder, [*sent, number], [*sent, number] if status == 0x0000 else sent) == []
        assert store(pacs, number) == STORED
        pacs.kill()
        sent.append(number)
        if not failed:
            break
    assert len(sent) > 1, f"{call} was never called"


def store_another(pacs: Pacs, number: int) -> int | None:
    """Send a different object under the UID of one that is stored; the status, None when there was no answer."""
    data_set = objects.data_set(number)
    with suppress(OSError, AssertionError, IndexError):
        with RawPeer(pacs.port, objects.SOP_CLASS, objects.EXPLICIT) as peer:
            answer = peer.store(objects.SOP_CLASS, objects.uid(number), data_set[:-1] + bytes((data_set[-1] ^ 1,)))
        return answer.status
    return None


def set_aside(folder: Folder) -> set[str]:
    with closing(folder.database()) as conn:
        return {name for (name,) in conn.execute("SELECT file_name FROM quarantine")}


@pytest.mark.parametrize("call", ["link", "fsync", "write", "pwrite64", "fdatasync", "unlink"])
def test_the_process_dies_before_each_call_of_a_receipt_that_is_set_aside(
    zygote: Zygote, tmp_path: Path, call: str
) -> None:
    folder, refused = Folder(tmp_path / "data"), 0
    for when, number in enumerate(objects.small(), 1):
        pacs = zygote.listening(folder.path)
        assert store(pacs, number) == STORED
        with calls.killing(pacs.pid, call, when=when):
            answer = store_another(pacs, number)
            assert answer is not None or pacs.ended(20)
        if answer is not None:
            break
        pacs = zygote.listening(folder.path)
        assert set_aside(folder) == folder.quarantine()
        assert store_another(pacs, number) == 0xC111
        refused += 1
        pacs.kill()
        assert folder.incoming() == []
    assert refused, f"{call} was never called"
    assert (len(set_aside(folder)), set_aside(folder)) == (refused + 1, folder.quarantine())
    pacs.kill()


@pytest.mark.parametrize("call", ["link", "fsync", "write", "pwrite64", "fdatasync", "unlink"])
def test_each_call_of_a_receipt_that_is_set_aside_fails_and_rows_and_files_agree(
    zygote: Zygote, tmp_path: Path, call: str
) -> None:
    folder, refused = Folder(tmp_path / "data"), 0
    pacs = zygote.listening(folder.path)
    for when, number in enumerate(objects.small(), 1):
        assert store(pacs, number) == STORED
        with calls.failing(pacs.pid, call, error="ENOSPC", when=when) as failed:
            assert store_another(pacs, number) in (0xA700, 0xC111)
        assert store_another(pacs, number) == 0xC111
        refused += 1
        if not failed:
            break
    assert refused > 1, f"{call} was never called"
    pacs.kill()
    pacs = zygote.listening(folder.path)
    assert (len(set_aside(folder)), set_aside(folder)) == (refused, folder.quarantine())
    pacs.kill()
