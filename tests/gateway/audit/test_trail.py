"""The audit trail: written, continued, torn and tampered with, on a real disk."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit.trail import BEGINNING, Head, Trail, chained, judged, lines, read, verified
from gateway.errors import AuditNotWritten

MESSAGES = [f"<AuditMessage number='{number}'/>" for number in range(1, 7)]


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    """A trail of six messages in three files."""
    trail = Trail(tmp_path / "audit", file_bytes=300)
    for message in MESSAGES:
        trail.append([message])
    return trail


def found(trail: Trail, expected: Head | None = None) -> list[tuple[str, str, int, str]]:
    return [(each.code, each.file, each.line, each.text) for each in verified(trail, expected=expected)]


def change(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))


def test_messages_are_chained_over_files_that_only_the_owner_reads(trail: Trail) -> None:
    assert [path.name for path in trail.files()] == [
        "audit-000000000001.log",
        "audit-000000000003.log",
        "audit-000000000005.log",
    ]
    assert [(line.number, line.message) for line in lines(trail)] == list(enumerate(MESSAGES, start=1))
    assert next(lines(trail)).previous == BEGINNING
    assert trail.head() == trail.said_head()
    assert found(trail) == []
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [*trail.files(), trail.folder / "head"]}
    assert (modes, stat.S_IMODE(trail.folder.stat().st_mode)) == ({0o600}, 0o700)


def test_another_process_goes_on_where_the_first_ended(trail: Trail) -> None:
    Trail(trail.folder, file_bytes=300).append(["seven"])
    trail.append(["eight", "nine"])
    assert [line.number for line in lines(trail)] == [*range(1, 10)]
    assert found(trail) == []


def test_many_threads_of_two_trails_make_one_chain(tmp_path: Path) -> None:
    trails = [Trail(tmp_path / "audit", file_bytes=2000) for _ in range(2)]
    threads = [Thread(target=lambda each=each: [each.append(["x"]) for _ in range(20)]) for each in trails]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ([line.number for line in lines(trails[0])], found(trails[0])) == ([*range(1, 41)], [])


def test_a_changed_line_is_named(trail: Trail) -> None:
    change(trail.files()[1], b"number='3'", b"number='X'")
    assert found(trail) == [("changed", "audit-000000000003.log", 1, "Message 3 is not what was written.")]


def test_a_line_that_was_written_anew_with_its_hash_does_not_fit_the_next(trail: Trail) -> None:
    path = trail.files()[1]
    third = path.read_bytes().splitlines()[0]
    line = read(third)
    assert line is not None
    forged, _ = chained(Head(2, line.previous), ["<AuditMessage forged='yes'/>"])
    change(path, third + b"\n", forged)
    assert found(trail) == [
        ("replaced", "audit-000000000003.log", 2, "Message 3, before this line, is not the one that was written there.")
    ]


def test_a_removed_line_is_named(trail: Trail) -> None:
    path = trail.files()[1]
    change(path, path.read_bytes().splitlines(keepends=True)[0], b"")
    assert found(trail) == [("removed", "audit-000000000003.log", 1, "Messages 3 to 3 are missing before this line.")]


def test_a_removed_file_is_named(trail: Trail) -> None:
    trail.files()[1].unlink()
    assert found(trail) == [("removed", "audit-000000000005.log", 1, "Messages 3 to 4 are missing before this line.")]


def test_lines_that_were_put_in_or_are_none_are_named(trail: Trail) -> None:
    first, second = trail.files()[0].read_bytes().splitlines(keepends=True)
    trail.files()[0].write_bytes(first + second + first + b"nonsense\n")
    assert found(trail)[:2] == [
        ("inserted", "audit-000000000001.log", 3, "Message 1 stands after message 2: put in, or moved."),
        ("changed", "audit-000000000001.log", 4, "This is not a line of the trail."),
    ]


def test_lines_that_were_cut_off_at_the_end_are_missed(trail: Trail) -> None:
    path = trail.files()[2]
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    said = "Messages 6 to 6 are missing at the end, by the file head."
    assert found(trail) == [("removed", "audit-000000000005.log", 1, said)]


def test_a_trail_that_was_written_anew_as_a_whole_is_told_by_a_line_that_was_noted(
    trail: Trail, tmp_path: Path
) -> None:
    noted = trail.head()
    forged = Trail(tmp_path / "forged")
    forged.append([message.replace("2", "Z") for message in MESSAGES])
    assert found(forged) == []
    assert [text for *_, text in found(forged, noted)] == ["Message 6 is another one than by what was noted elsewhere."]
    assert found(trail, noted) == []


def test_the_oldest_files_may_be_moved_away(trail: Trail) -> None:
    trail.files()[0].unlink()
    trail.append(["seven"])
    assert ([line.number for line in lines(trail)], found(trail)) == ([3, 4, 5, 6, 7], [])


@pytest.mark.parametrize("torn", [b"7", b"7\tabc", "7\t\xe4".encode()[:-1]])
def test_a_piece_of_a_line_that_a_power_cut_left_is_taken_away(trail: Trail, torn: bytes) -> None:
    with trail.files()[2].open("ab") as file:
        file.write(torn)
    Trail(trail.folder, file_bytes=1000).append(["seven"])
    assert ([line.number for line in lines(trail)][-2:], found(trail)) == ([6, 7], [])


def test_a_file_that_a_power_cut_left_empty_is_filled(trail: Trail) -> None:
    (trail.folder / "audit-000000000007.log").touch(mode=0o600)
    Trail(trail.folder, file_bytes=300).append(["seven"])
    assert ([line.number for line in lines(trail)], found(trail)) == ([*range(1, 8)], [])


FULL = """
import resource, signal, sys
from pathlib import Path
from gateway.audit.trail import Trail
from gateway.errors import AuditNotWritten
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
trail = Trail(Path(sys.argv[1]))
trail.append(["one"])
resource.setrlimit(resource.RLIMIT_FSIZE, (400, resource.RLIM_INFINITY))
try:
    trail.append(["x" * 1000])
except AuditNotWritten as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
trail.append(["two"])
"""


def test_a_line_that_does_not_fit_on_the_disk_leaves_nothing_and_is_said(tmp_path: Path) -> None:
    """The kernel refuses to write beyond a size, half-way through the line, as a full disk does."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "audit")], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    assert done.stdout == (
        f"The audit trail in {tmp_path}/audit cannot be written (File too large): make room there, or see that the "
        "folder belongs to this service.\n"
    )
    trail = Trail(tmp_path / "audit")
    assert ([line.message for line in lines(trail)], found(trail)) == (["one", "two"], [])
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 400


def test_a_folder_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("")
    with pytest.raises(AuditNotWritten, match="cannot be written"):
        Trail(tmp_path / "audit").append(["one"])


def test_every_line_is_synced_before_append_returns(tmp_path: Path) -> None:
    code = "import sys, pathlib; from gateway.audit.trail import Trail; Trail(pathlib.Path(sys.argv[1])).append(['m'])"
    record = tmp_path / "calls"
    traced = ["strace", "-f", "-e", "trace=write,pwrite64,fsync", "-y", "-o", str(record)]
    subprocess.run(
        [*traced, sys.executable, "-c", code, str(tmp_path / "audit")], check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    calls = [line.split()[1].partition("(")[0] for line in record.read_text().splitlines() if "/audit" in line]
    assert calls[-3:] == ["write", "fsync", "pwrite64"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=5), st.data())
def test_whatever_byte_of_a_trail_is_changed_it_is_found(texts: list[str], data: st.DataObject) -> None:
    raw, _ = chained(Head(), ["first", *texts, "last"])
    place = data.draw(st.integers(0, len(raw) - 2))
    value = data.draw(st.integers(0, 255).filter(lambda each: each != raw[place]))
    changed = raw[:place] + bytes([value]) + raw[place + 1 :]
    assert judged_as_well(raw)
    assert not judged_as_well(changed)


def judged_as_well(raw: bytes) -> bool:
    before: Head | None = Head()
    for each in raw.rstrip(b"\n").split(b"\n"):
        line = read(each)
        if list(judged(line, before)):
            return False
        before = None if line is None else Head(line.number, line.hash)
    return True
