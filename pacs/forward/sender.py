"""Sends queue rows to site archives: one thread for each target, one association for all that is due.

Outcomes are recorded once a second and at the end of an association.

Not for: rules (`rules`), statements (`queue_rows`).
"""

import random
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from time import monotonic
from types import TracebackType
from typing import Self

import structlog

from gateway.dicom.requestor import calling, proposals
from gateway.errors import GatewayError, NotFound, PeerError, place
from gateway.remote_ae import Peer
from gateway.tls import CallFiles
from pacs.archive.archive import Archive, Stored
from pacs.archive.verify import Stopped
from pacs.forward.queue_rows import ForwardQueue
from pacs.forward.rules import ANSWERED, Fate, QueueRow, Settled, attempt, batch, pause

LOOK_SECONDS = 0.5
"""Interval at which the queue is read; an image waits this long before it leaves."""

# Not each outcome by itself, because a sync for each small object would take the disk from incoming images.
SETTLE_SECONDS = 1.0
"""How long an outcome may wait until it is recorded; the objects of this time are sent twice if the process dies."""

AT_ONCE = 200
"""Rows of the queue that are read together, and sent over one association."""

AFTER_FAILURE_SECONDS = 10.0

log = structlog.get_logger()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class ForwardSender:
    """Sends from entering to leaving the block.

    `targets` (AE titles, of `peers`) get everything that is stored from now on. Other peers get what an operator
    requests. Peers that want TLS are called with `tls`.
    """

    def __init__(
        self,
        archive: Archive,
        peers: Iterable[Peer],
        targets: Iterable[str],
        *,
        ae_title: str,
        tls: CallFiles | None = None,
        clock: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._queue = ForwardQueue(archive)
        self._targets = tuple(targets)
        self._peers = tuple(peers)
        self._clock = clock
        self._stop = threading.Event()
        # A thread for each, because an archive that does not answer must delay no other.
        routes = [_Route(archive, peer, self._stop, ae_title=ae_title, tls=tls, clock=clock) for peer in self._peers]
        self._threads = [
            threading.Thread(target=route.run, name=f"forward {route.peer.ae_title}", daemon=True) for route in routes
        ]

    def __enter__(self) -> Self:
        known = [peer.ae_title for peer in self._peers]
        self._queue.set_targets(self._targets, known=known, now=self._clock())
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def still_working(self) -> None:
        """Raise RuntimeError when one of the threads has died, so that the process ends and is started again."""
        for thread in self._threads:
            if not thread.is_alive():
                raise RuntimeError(f"The thread '{thread.name}' has died.")


class _Route:
    """The sending thread of one target."""

    def __init__(
        self,
        archive: Archive,
        peer: Peer,
        stop: threading.Event,
        *,
        ae_title: str,
        tls: CallFiles | None,
        clock: Callable[[], datetime],
    ) -> None:
        self.peer = peer
        self._archive = archive
        self._queue = ForwardQueue(archive)
        self._stop = stop
        self._ae_title = ae_title
        self._tls = tls
        self._clock = clock

    def run(self) -> None:
        """Send what is due until the sender is stopped."""
        while not self._stop.is_set():
            seconds = 0.0
            try:
                if not self._forward():
                    seconds = LOOK_SECONDS
            except Stopped:
                return
            except (GatewayError, OSError) as error:  # a full disk or a locked database will pass
                log.warning("forwarding postponed", target=self.peer.ae_title, reason=str(error))
                seconds = AFTER_FAILURE_SECONDS
            self._stop.wait(seconds)

    def _forward(self) -> bool:
        """Send what is due over one association; False when nothing is."""
        due = self._queue.due(self.peer.ae_title, now=self._clock(), limit=AT_ONCE)
        ready = list(batch(self._ready(due)))
        if ready:
            notes = _Notes(self._queue, self.peer.ae_title, self._clock)
            try:
                reason = self._call(ready, notes)
            finally:
                notes.write()
            if reason and not notes.is_answered:
                self._queue.failed(self.peer.ae_title, reason, _pause, now=self._clock())
        return bool(ready)

    def _ready(self, due: Iterable[QueueRow]) -> Iterator[tuple[QueueRow, Stored]]:
        for row in due:
            with suppress(NotFound):  # removed since the queue was read, and its row with it
                yield row, self._archive.instance(row.sop_instance_uid)

    def _call(self, ready: Sequence[tuple[QueueRow, Stored]], notes: "_Notes") -> str:
        """Send a batch up to the first object that cannot be sent now; return the target's failure, '' if it has none.

        What follows goes over the next association.
        """
        contexts = proposals([(stored.sop_class_uid, stored.transfer_syntax_uid) for _, stored in ready])
        under_way: QueueRow | None = None
        try:
            with calling(self.peer, contexts, ae_title=self._ae_title, tls=self._tls, look=self._look) as call:
                for under_way, stored in ready:
                    self._look()
                    settled = attempt(under_way, stored, call)
                    notes.add(settled)
                    if settled.fate not in ANSWERED:
                        return settled.reason if settled.fate is Fate.NOT_NOW else ""
                return ""
        except PeerError as error:
            reason = str(error)
        except (Stopped, GatewayError):
            raise
        except Exception as error:  # noqa: BLE001  one object or answer must not end the thread
            reason = f"The call failed in our own code: {type(error).__name__}, {place(error)}."
        log.warning("target not reached", target=self.peer.ae_title, reason=reason)
        if under_way is not None:
            notes.add(Settled(under_way, Fate.NOT_NOW, reason))
        return reason

    def _look(self) -> None:
        if self._stop.is_set():
            raise Stopped


class _Notes:
    """The outcomes of one association that are not recorded yet."""

    def __init__(self, queue: ForwardQueue, target: str, clock: Callable[[], datetime]) -> None:
        self.is_answered = False
        """Whether the target took or refused at least one object."""
        self._queue = queue
        self._target = target
        self._clock = clock
        self._unwritten: list[Settled] = []
        self._written_at = monotonic()

    def add(self, settled: Settled) -> None:
        """Keep an outcome, and record all of them when the oldest has waited long enough."""
        self._unwritten.append(settled)
        self.is_answered |= settled.fate in ANSWERED
        uid, fate = settled.row.sop_instance_uid, settled.fate.name.lower()
        if settled.fate is Fate.DELIVERED:
            log.info("instance forwarded", target=self._target, sop_instance_uid=uid)
        else:
            log.warning(
                "instance not forwarded", target=self._target, sop_instance_uid=uid, fate=fate, reason=settled.reason
            )
        if monotonic() - self._written_at >= SETTLE_SECONDS:
            self.write()

    def write(self) -> None:
        """Record all outcomes."""
        if self._unwritten:
            self._queue.settle(self._target, self._unwritten, _pause, now=self._clock())
        self._unwritten = []
        self._written_at = monotonic()


def _pause(attempts: int) -> timedelta:
    return pause(attempts, random.random())  # noqa: S311  it spreads calls and is no secret
