"""One forking process for each file of this room."""

from collections.abc import Iterator

import pytest

from tests.durability.zygote import Zygote


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as zygote:
        yield zygote
