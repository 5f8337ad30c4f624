"""Waiting for a fact: looked for again and again, and named when it does not come.

Not for: measuring how long something takes. The limit is generous, because only a test that fails lives to see it, and
a machine that runs other things besides may take seconds for what takes milliseconds.
"""

import asyncio
import time
from collections.abc import Callable

PATIENCE_SECONDS = 60.0
"""Much less than a whole test may take (`timeout` in pyproject.toml), so that the message is the one of the wait."""

_PAUSE_SECONDS = 0.002


def wait_until(
    fact: Callable[[], object], what: str = "what the test waits for", *, seconds: float = PATIENCE_SECONDS
) -> None:
    """Return as soon as `fact` gives something true. Raises AssertionError naming `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(_PAUSE_SECONDS)


async def until(
    fact: Callable[[], object], what: str = "what the test waits for", *, seconds: float = PATIENCE_SECONDS
) -> None:
    """The same as `wait_until` in a coroutine: other tasks go on meanwhile."""
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, f"{what} did not come"
        await asyncio.sleep(_PAUSE_SECONDS)
