"""A whole site for each journey: the real three processes and the stand-in cloud, on free ports, in a fresh folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A running site; whatever a journey does to it, nothing is left running."""
    with Site(tmp_path) as site:
        site.start_cloud()
        site.start("worklist", "pacs")
        site.start("relay")
        yield site
