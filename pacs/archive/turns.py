"""`Turns`: a lock for each UID.

Not for: other processes; the lock of the folder keeps them out (`pacs.archive.files`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Gives one thread at a time the turn of a UID; different UIDs do not wait for each other."""

    def __init__(self) -> None:
        # One condition and a set instead of a lock per UID, which would have to be removed when the last thread leaves.
        self._condition = threading.Condition()
        self._taken: set[str] = set()

    @contextmanager
    def turn(self, uid: str) -> Iterator[None]:
        """Wait until no other thread has the turn of this UID, and hold it until the block is left."""
        with self._condition:
            self._condition.wait_for(lambda: uid not in self._taken)
            self._taken.add(uid)
        try:
            yield
        finally:
            with self._condition:
                self._taken.remove(uid)
                self._condition.notify_all()
