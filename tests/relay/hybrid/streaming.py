"""A listener in a process of its own that answers HTTP requests with as many bytes as their target says.

    python -m tests.relay.hybrid.streaming NAMESPACE

Each answer is told with the growth of this process's memory until then: one line, in bytes.
"""

import asyncio
import resource
import sys
from collections.abc import AsyncIterator

from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import endpoint
from tests.relay.hybrid.hybrid_site import PATIENT, TOKENS, echo

PIECE = 256 * 1024


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def answer(request: HttpRequest) -> HttpAnswer:
    """GET /x?SIZE: so many bytes. POST /x: how many bytes came."""
    before, came = peak(), 0
    async for piece in request.body:
        came += len(piece)
    if request.method == "POST":
        print(peak() - before, flush=True)
        return HttpAnswer(200, body=str(came).encode())

    async def body() -> AsyncIterator[bytes]:
        size = int(request.target.partition("?")[2])
        for start in range(0, size, PIECE):
            yield bytes(min(PIECE, size - start))
        print(peak() - before, flush=True)

    return HttpAnswer(200, body=body())


async def main(namespace: str) -> None:
    listener = HybridListener(
        endpoint(namespace, "actions"), TOKENS, on_message=echo, on_request=answer, limits=PATIENT
    )
    running = asyncio.create_task(listener.run())
    while listener.state.connected_since is None:
        await asyncio.sleep(0.01)
    print("listens", flush=True)
    await running


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
