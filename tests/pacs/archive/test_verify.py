"""A file is read twice before it is called damaged."""

import hashlib
from pathlib import Path

from pacs.archive.verify import trouble


def test_a_file_that_reads_wrong_once_is_read_again_before_it_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"what was received")
    wanted = "4f8e1b2d"  # nobody's
    counts: list[int] = []
    assert trouble(path, size_bytes=17, sha256=wanted, after_read=counts.append) == "wrong_hash"
    assert counts == [17, 17]


def test_the_second_reading_counts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"wrong")

    def healed_meanwhile(_count: int) -> None:
        path.write_bytes(b"right")

    good = hashlib.sha256(b"right").hexdigest()
    assert trouble(path, size_bytes=5, sha256=good, after_read=healed_meanwhile) == ""


def test_a_file_that_cannot_be_opened_is_unreadable(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert trouble(loop, size_bytes=1, sha256="") == "unreadable_file"
    assert trouble(tmp_path / "gone", size_bytes=1, sha256="") == "missing_file"
