"""Audit recorder: writes the audit messages of DICOM requests and cloud actions beside the work, in a thread.

* Handlers append notes to a queue and continue. The thread makes messages of them and writes all of them every
  PAUSE_SECONDS; a killed process loses the younger ones. Callers that aggregate first register a flush callback
  (`flush_each_time`), and lose what they have not flushed.
* Messages that cannot be written wait, up to MOST_BYTES. Further ones are counted, and the count is written to the
  trail as soon as possible.
* A working chain is written at least every PROOF_SECONDS, so the relay's health shows one that is not (`silence`).

Not for: which request makes which message (`worklist.audit`, `pacs.audit`, `relay.cloud.audit`), the form of messages
(`messages`).
"""

import socket
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import structlog

from gateway.audit import messages
from gateway.audit.messages import Actor, AuditEvent, EventOutcome
from gateway.audit.trail import Head, Trail
from gateway.dicom.application import Association, Request
from gateway.errors import AuditNotWritten, place

PAUSE_SECONDS = 0.5
PROOF_SECONDS = 60.0
SILENT_AFTER = timedelta(minutes=3)
NOTE_BYTES = 5_000
"""Memory of a note at most, besides what it declares as `holds`; a query is up to 4,096 bytes of it."""

MOST_BYTES = 10_000 * NOTE_BYTES
"""Memory of all waiting notes at most; a site with two machines makes 10,000 notes in some days."""

AT_ONCE = 500
LAST_SECONDS = 5.0
"""How long a process that ends may take for the waiting notes."""

FOLD_SECONDS = 600.0
"""A repeat within this time is not noted again, because machines query the same worklist every few seconds."""

_FOLDED = 10_000

RELAY = "relay"
"""Its chain is in the trail's folder itself."""

CHAINS = ("worklist", "pacs")
"""The services that have a chain in a folder of their own, so that none waits for another's lock."""

Make = Callable[[], Iterable[str]]

log = structlog.get_logger()


class AuditRecorder:
    """The chain of one service, from entering to leaving the block."""

    def __init__(
        self,
        folder: Path,
        chain: str,
        *,
        site: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """`folder` is the trail's."""
        self.trail = Trail(folder) if chain == RELAY else Trail.chain(folder, chain)
        self.trouble = ""
        """Why the trail could not be written the last time; empty when it could."""
        self._chain = chain
        self._site = site
        self._clock = clock
        self._most_bytes = most_bytes
        self._flushes: list[Callable[[], None]] = []
        self._waiting: deque[tuple[Make, int]] = deque()
        self._waiting_bytes = 0
        self._made: list[str] = []
        self._head: Head | None = None
        self._lost = 0
        self._counting = threading.Lock()
        self._folded: OrderedDict[object, float] = OrderedDict()
        self._proven = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)

    def __enter__(self) -> Self:
        self._activity(messages.STARTED)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._activity(messages.STOPPED)
        self._stop.set()
        self._thread.join(LAST_SECONDS)
        self._log_head()  # where journald forwards it to, for `gateway audit verify --expect`
        if left := len(self._made) + len(self._waiting) + self._lost:
            log.error("audit messages lost", chain=self._chain, count=left, reason=self.trouble)

    def event(self, outcome: EventOutcome = EventOutcome.SUCCESS) -> AuditEvent:
        """An event of this moment at this site, with its outcome."""
        return AuditEvent(self._clock(), self._site, outcome)

    def note(self, make: Make, *, holds: int = 0) -> None:
        """Have messages made and written soon. Never waits and never raises; `make` is called in another thread.

        `holds` is how many bytes `make` keeps when it keeps more than an event, an actor and one object.
        """
        # Unlike the relay (`relay.access.audit`), worklist and archive do not wait for the trail: a reader of pictures
        # can be refused and come back, a modality cannot, because that stops a clinic.
        size = NOTE_BYTES + holds
        with self._counting:
            if self._waiting_bytes + size > self._most_bytes:
                self._lost += 1
            else:
                self._waiting.append((make, size))
                self._waiting_bytes += size

    def note_once(self, key: object, make: Make) -> None:
        """The same, unless it was noted in the last FOLD_SECONDS."""
        now = monotonic()
        if now - self._folded.get(key, -FOLD_SECONDS) < FOLD_SECONDS:
            return
        self._folded[key] = now
        if len(self._folded) > _FOLDED:  # keys hold data of the peer, which can make any number of different ones
            self._folded.popitem(last=False)
        self.note(make)

    def flush_each_time(self, flush: Callable[[], None]) -> None:
        """Have `flush` called in the thread each time before it writes, to flush its notes; it must not wait."""
        self._flushes.append(flush)

    # ---- the messages of every service -----------------------------------------------------------------------------

    def turned_away(self, address: str, ae_title: str, reason: str) -> None:
        """An association or a TLS handshake was refused because of the caller's identity (Security Alert, A.5.3.11)."""
        event, who = self.event(EventOutcome.MINOR_FAILURE), Actor(ae_title or address, address)
        self.note_once(("refused", address), lambda: [messages.node_refused(event, who, reason)])

    def queried(self, request: Request) -> None:
        """A C-FIND came (Query, A.5.3.10)."""
        association, syntax = request.association, request.transfer_syntax
        event, sop_class, identifier = self.event(), request.abstract_syntax, request.data_set[: messages.LONGEST_QUERY]
        key = (association.calling_ae_title, association.address, sop_class, hash(request.data_set))
        self.note_once(key, lambda: [messages.found(event, actor(association), sop_class, identifier, syntax)])

    def _activity(self, kind: messages.CodedValue) -> None:
        event, who = self.event(), Actor(f"gateway-{self._chain}@{socket.gethostname()}")
        self.note(lambda: [messages.activity(event, who, kind)])

    def _log_head(self) -> None:
        if self._head is not None:
            log.info("audit trail is at", chain=self._chain, number=self._head.number, hash=self._head.hash)

    # ---- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._write()
        self._log_head()
        while not self._stop.wait(PAUSE_SECONDS):
            self._write()
        while self._write():
            pass

    def _write(self) -> bool:
        """Write the waiting notes, or prove that writing works; returns whether there are more."""
        try:
            for flush in self._flushes:
                flush()
            self._make()
            if self._made:
                self._head = self.trail.append(self._made)
            elif monotonic() - self._proven >= PROOF_SECONDS:
                self.trail.prove()
            else:
                return False
        except Exception as error:  # noqa: BLE001  no error may end this thread, nor the service
            reason = str(error) if isinstance(error, AuditNotWritten) else f"{type(error).__name__} at {place(error)}"
            if not self.trouble:  # once per outage, and not twice a second
                log.error("audit trail not written", chain=self._chain, reason=reason)
            self.trouble = reason
            return False
        self._made, self.trouble, self._proven = [], "", monotonic()
        return bool(self._waiting)

    def _make(self) -> None:
        """Make the next messages, unless there are some that could not be written yet."""
        while self._waiting and len(self._made) < AT_ONCE:
            with self._counting:
                make, size = self._waiting.popleft()
                self._waiting_bytes -= size
            try:
                self._made.extend(make())
            except Exception as error:  # noqa: BLE001  such as a locked database or an odd value
                log.error("audit message not made", chain=self._chain, error=type(error).__name__, place=place(error))
                with self._counting:
                    self._lost += 1  # and the others are written
        if self._lost and len(self._made) < AT_ONCE:
            with self._counting:
                lost, self._lost = self._lost, 0
            self._made.append(messages.lost(self.event(EventOutcome.SERIOUS_FAILURE), lost))


class NoAudit:
    """Null object for a service without an audit trail, as in tests and benchmarks: every note is dropped."""

    def event(self, outcome: EventOutcome = EventOutcome.SUCCESS) -> AuditEvent:
        return AuditEvent(datetime.now(UTC), "", outcome)

    def note(self, make: Make, *, holds: int = 0) -> None: ...

    def flush_each_time(self, flush: Callable[[], None]) -> None: ...

    def turned_away(self, address: str, ae_title: str, reason: str) -> None: ...

    def queried(self, request: Request) -> None: ...


def actor(association: Association) -> Actor:
    """The application on the other side of an association."""
    return Actor(association.calling_ae_title, association.address, association.calling_ae_title)


def silence(folder: Path, *, since: datetime, now: datetime) -> str:
    """The services that have not written their chain for too long, in words; empty when all have.

    `since` is when the observation began, which gives a service that was not there before its time to start.
    """
    silent = [chain for chain in CHAINS if now - max(since, _written_at(folder / chain)) > SILENT_AFTER]
    if not silent:
        return ""
    return (
        f"The audit trail is not written by {' and '.join(silent)} for more than {SILENT_AFTER.seconds // 60} minutes: "
        f"the process does not run, or cannot write below {folder}; its log says so ('audit trail not written')."
    )


def _written_at(folder: Path) -> datetime:
    try:
        return datetime.fromtimestamp((folder / "head").stat().st_mtime, UTC)
    except OSError:  # absent, or not readable for us: either way it is not known to be written
        return datetime.min.replace(tzinfo=UTC)
