"""A worklist of its own for each test of this room."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from worklist import Worklist


@pytest.fixture
def worklist(tmp_path: Path) -> Iterator[Worklist]:
    opened = Worklist.open(tmp_path / "worklist.db")
    yield opened
    opened.close()
