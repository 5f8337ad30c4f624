"""How fast full images leave, and when they wait: clinic traffic comes first on a line that may be slow.

A bucket of bytes fills at the allowed rate and holds a second's worth; whoever sends takes out what he sends, and waits
when it is empty. While the archive receives, nothing that can wait is begun.

Not here: priorities between events (`relay.delivery.delivery`).
"""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

QUIET = timedelta(seconds=2)
"""So long ago the last receipt has to be; between two images of an exam a machine takes longer, and that is fine: it is
receiving that must not be slowed down, not the whole exam."""

LOOK_SECONDS = 0.5


class Bucket:
    """Bytes that may be sent now. `rate` in bytes a second, 0 without a limit; threads may share it."""

    def __init__(self, rate: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._left = float(rate)
        self._filled_at = clock()

    def take(self, size: int) -> float:
        """Take out so many bytes and give the seconds to wait before sending them; who comes later waits longer."""
        if not self.rate:
            return 0.0
        with self._lock:
            now = self._clock()
            self._left = min(self.rate, self._left + (now - self._filled_at) * self.rate) - size
            self._filled_at = now
            return max(0.0, -self._left / self.rate)

    async def wait(self, size: int) -> None:
        """Return when so many bytes may be sent."""
        if (seconds := self.take(size)) > 0:
            await asyncio.sleep(seconds)


class Throttle:
    """The bucket that all full images share, and the silence they wait for."""

    def __init__(self, rate: int, *, received_last: Callable[[], datetime]) -> None:
        self.bucket = Bucket(rate)
        self._received_last = received_last

    async def until_quiet(self) -> None:
        """Return when nothing has come in for a moment; a clock that was set back is no reason to wait."""
        while timedelta(0) <= datetime.now(UTC) - await asyncio.to_thread(self._received_last) < QUIET:
            await asyncio.sleep(LOOK_SECONDS)
