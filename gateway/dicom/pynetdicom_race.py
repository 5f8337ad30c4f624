"""A race of pynetdicom's, closed: the thread of an association may take the answer that a `send_*` call waits for.

pynetdicom (3.0.4) pauses that thread before it sends, but takes it for paused already from the moment it looks whether
it has to pause: one that has just been let through goes on and reads the answer of a quick peer, and the caller waits
in vain until its timeout. Here looking and going on are one step.

Not for: associations that others request of us (`listener`), or that we make ourselves (`requestor`).
"""

import threading

from pynetdicom.association import Association


def steady(association: Association) -> Association:
    """Close the race for an association that pynetdicom requested, and give it back."""
    association._reactor_checkpoint = _Checkpoint(association)
    return association


class _Checkpoint(threading.Event):
    """Set from the beginning, as the one whose place it takes, at which nobody waits then."""

    def __init__(self, association: Association) -> None:
        super().__init__()
        self._association = association
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set, however long that takes: pynetdicom gives no timeout."""
        with self._cond:  # type: ignore[attr-defined]  # `clear` waits for it
            while not self.is_set():
                # Said anew: who calls may have served a request of the peer meanwhile, and unsaid it.
                self._association._is_paused = True
                self._cond.wait(timeout)  # type: ignore[attr-defined]
            self._association._is_paused = False
        return True
