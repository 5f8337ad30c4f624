"""How fast full images leave, and when they wait: clinic traffic comes first on a line that may be slow.

A token bucket fills at the allowed rate and holds the bytes of one second. While the archive receives, no upload of a
full image or of a block begins.

Not here: priorities between events (`relay.delivery.delivery`).
"""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

QUIET = timedelta(seconds=2)
"""Time since the last receipt before an upload begins. Between two images of an exam a machine takes longer, because
only receiving must not be slowed down, and not the whole exam."""

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
        """Take out so many bytes and return the seconds to wait before sending them."""
        if not self.rate:
            return 0.0
        with self._lock:
            now = self._clock()
            # May become negative: a later caller waits longer, so the order is kept without a queue.
            self._left = min(self.rate, self._left + (now - self._filled_at) * self.rate) - size
            self._filled_at = now
            return max(0.0, -self._left / self.rate)

    async def wait(self, size: int) -> None:
        """Return when so many bytes may be sent."""
        if (seconds := self.take(size)) > 0:
            await asyncio.sleep(seconds)


class Throttle:
    """The bucket that all full images share, and the pause of the archive that they wait for."""

    def __init__(self, rate: int, *, received_last: Callable[[], datetime]) -> None:
        self.bucket = Bucket(rate)
        self._received_last = received_last

    async def until_quiet(self) -> None:
        """Return when the archive has received nothing for `QUIET`."""
        # A receipt in the future is a clock that was set back, and no reason to wait.
        while timedelta(0) <= datetime.now(UTC) - await asyncio.to_thread(self._received_last) < QUIET:
            await asyncio.sleep(LOOK_SECONDS)
