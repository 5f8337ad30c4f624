"""The renderer: results and errors cross the process border, a dead or stuck worker costs one picture."""

import asyncio
import os
import signal
import time

import pytest

from gateway.errors import NotFound
from relay.render_pool import Renderer, RenderingFailed


def double(number: int) -> int:
    return 2 * number


def refuse() -> None:
    raise NotFound("There is nothing.", offending=(0x7FE00010,))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def whoami() -> int:
    return os.getpid()


def test_results_and_refusals_come_back_as_they_were() -> None:
    async def scenario() -> None:
        async with Renderer(1) as renderer:
            assert await renderer.run(double, 21) == 42
            with pytest.raises(NotFound, match="There is nothing") as refused:
                await renderer.run(refuse)
            assert refused.value.offending == (0x7FE00010,)

    asyncio.run(scenario())


def test_a_worker_that_dies_costs_its_own_picture_only() -> None:
    async def scenario() -> list[object]:
        async with Renderer(2) as renderer:
            await asyncio.gather(renderer.run(double, 1), renderer.run(double, 1))
            calls = [renderer.run(time.sleep, 0.3), renderer.run(die), renderer.run(double, 2), renderer.run(double, 3)]
            return list(await asyncio.gather(*calls, return_exceptions=True))

    slept, dead, four, six = asyncio.run(scenario())
    assert (slept, four, six) == (None, 4, 6)
    assert isinstance(dead, RenderingFailed)
    assert dead.http_status == 500


def test_a_worker_that_does_not_come_to_an_end_is_replaced() -> None:
    async def scenario() -> int:
        async with Renderer(1, patience_seconds=3.0) as renderer:  # which the second job has to keep as well
            with pytest.raises(RenderingFailed):
                await renderer.run(time.sleep, 60)
            return await renderer.run(double, 5)

    assert asyncio.run(scenario()) == 10


def test_a_client_that_goes_away_leaves_the_worker_in_order() -> None:
    async def scenario() -> int:
        async with Renderer(1) as renderer:
            await renderer.run(double, 1)
            gone = asyncio.create_task(renderer.run(time.sleep, 0.2))
            await asyncio.sleep(0.05)
            gone.cancel()
            return await renderer.run(double, 4)

    assert asyncio.run(scenario()) == 8


def test_no_worker_outlives_its_renderer() -> None:
    async def scenario() -> int:
        async with Renderer(1) as renderer:
            return await renderer.run(whoami)

    pid = asyncio.run(scenario())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
