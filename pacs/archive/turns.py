"""One thread at a time deals with a UID, while others deal with other UIDs.

Not for: other processes; they are kept out by the lock of the folder (`pacs.archive.files`).
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """Lets one thread at a time deal with the same UID, and different UIDs pass each other."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._taken: set[str] = set()

    @contextmanager
    def turn(self, uid: str) -> Iterator[None]:
        """Wait until nobody deals with a UID, and be the one who does until the block is left."""
        with self._condition:
            self._condition.wait_for(lambda: uid not in self._taken)
            self._taken.add(uid)
        try:
            yield
        finally:
            with self._condition:
                self._taken.remove(uid)
                self._condition.notify_all()
