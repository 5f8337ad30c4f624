"""The watermarks of a volume."""

from pathlib import Path

import pytest

from gateway.disk_space import Fullness, Volume, Watermarks, volume_of


@pytest.mark.parametrize(
    ("free", "fullness"),
    [
        (100, Fullness.ROOMY),
        (16, Fullness.ROOMY),
        (15, Fullness.ALMOST_FULL),
        (6, Fullness.ALMOST_FULL),
        (5, Fullness.TOO_FULL),
        (0, Fullness.TOO_FULL),
    ],
)
def test_the_watermarks_are_met_exactly(free: int, fullness: Fullness) -> None:
    assert Volume(100, free).fullness(Watermarks(85, 95)) is fullness


def test_a_volume_of_no_size_is_full() -> None:
    assert Volume(0, 0).fullness(Watermarks()) is Fullness.TOO_FULL


def test_a_real_volume_is_looked_at(tmp_path: Path) -> None:
    volume = volume_of(tmp_path)
    assert 0 <= volume.free_bytes <= volume.total_bytes
    with pytest.raises(FileNotFoundError):
        volume_of(tmp_path / "gone")
