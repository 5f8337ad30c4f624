"""Worker processes of the relay that decode pixels.

Each worker has one job at a time: a worker that dies takes down that job only, and the next job gets a new worker. A
job over its time is ended by killing its worker. Workers end with the relay, also when it is killed.

Not here: how a picture is made (`pacs.images.pictures`), HTTP.
"""

import asyncio
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import ParamSpec, TypeVar

from gateway.errors import Refusal
from pacs import start_worker

P = ParamSpec("P")
T = TypeVar("T")

WORKERS = 2
"""Decoding a 17 MB mammogram takes about 0.3 s of one core; the site's box has a few, and C-STORE needs them too."""

PATIENCE_SECONDS = 60.0
"""Limit of a job. The slowest accepted object (a compressed tomosynthesis slice) takes 2 s on a slow box."""


class RenderingFailed(Refusal):
    """The worker that decoded this object died or did not come to an end; other objects are not affected."""

    dimse_status, http_status, code = 0xC000, 500, "rendering_failed"


class Renderer:
    """Runs picture-making functions in worker processes; used as an async context manager."""

    def __init__(self, workers: int = WORKERS, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._patience = patience_seconds
        self._count = workers
        self._all: list[_Worker] = []
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()

    async def __aenter__(self) -> "Renderer":
        self._all = [_Worker() for _ in range(self._count)]
        for worker in self._all:
            self._idle.put_nowait(worker)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self._all))

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a top-level function in a worker and return what it returns or raise what it raises.

        Raises RenderingFailed when the worker dies or exceeds its time. Waits while all workers are busy.
        """
        worker = await self._idle.get()
        # Shielded: a client that goes away must not give back a worker that is still busy.
        job = asyncio.ensure_future(self._finish(worker, functools.partial(function, *args, **kwargs)))
        return await asyncio.shield(job)

    async def _finish(self, worker: "_Worker", call: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(worker.run, call, self._patience)
        finally:
            self._idle.put_nowait(worker)


# A process, because decoders are C code that a hostile or broken object can crash, hang, or make greedy.
class _Worker:
    """One process with one job at a time; started at its first job, replaced after its death."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._pid = 0

    def run(self, call: Callable[[], T], patience: float) -> T:
        try:
            future = self._started().submit(call)
            watchdog = threading.Timer(patience, self._kill)
            watchdog.start()
            try:
                return future.result()
            finally:
                watchdog.cancel()
        except BrokenProcessPool as error:
            self.stop()
            raise RenderingFailed("The picture could not be made: decoding this object failed badly.") from error

    def stop(self) -> None:
        if self._pool is not None:
            self._kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool, self._pid = None, 0

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            spawn = multiprocessing.get_context("spawn")  # a fork would copy threads' locks and open sockets
            self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_begin)
            self._pid = self._pool.submit(os.getpid).result()
        return self._pool

    def _kill(self) -> None:
        with suppress(ProcessLookupError):  # it is gone already
            if self._pid:
                os.kill(self._pid, signal.SIGKILL)


def _begin() -> None:
    """Bound memory, ignore Ctrl-C (the relay decides when to stop), end when the relay is gone, however it went."""
    start_worker()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
