"""The audit trail of HTTP: which requests are recorded, and when.

A request is on disk, with its outcome, before the first byte of its answer leaves; if it cannot be written, the answer
is 503. Actions are recorded before they are done as well. Reading the same study by the same user from the same address
is recorded once in FOLD_SECONDS; actions are never folded.

Not here: files (`gateway.audit.trail`), messages (`gateway.audit.messages`), which message a request is
(`relay.access.permissions`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic

import structlog
from pydicom import Dataset

from gateway.audit import messages
from gateway.audit.messages import Actor, AuditEvent, EventOutcome, Patient
from gateway.audit.trail import Head, Trail
from gateway.dataset.dicom_json import text
from gateway.errors import AuditNotWritten
from pacs import Archive
from relay.access.permissions import Recorded

# A viewer reads one study in hundreds of requests, and PS3.15 A.5.3.6 has one message for an accessed study.
FOLD_SECONDS = 60.0
_FOLDED = 10_000

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and the status of its answer. `target` is the path with its query; `study` the Study Instance UID of
    the study concerned, empty for none."""

    actor: Actor
    recorded: Recorded
    method: str
    target: str
    status: int
    study: str = ""


class Recorder:
    """Writes the relay's trail; `site` is the Audit Enterprise Site ID of every message."""

    def __init__(self, trail: Trail, *, site: str, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._trail = trail
        self._site = site
        self._clock = clock
        self._waiting: list[tuple[str, asyncio.Future[Head]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._folded: OrderedDict[tuple[object, ...], float] = OrderedDict()
        self.trouble = ""
        """Why the trail could not be written the last time; empty when it could."""

    async def record(self, exchange: Exchange, *, patient_id: Callable[[str], str]) -> None:
        """Record an exchange, unless it is folded. Raises AuditNotWritten; then nothing may be shown."""
        key = (exchange.actor, exchange.recorded, exchange.status >= 400, exchange.study or exchange.target)
        if exchange.recorded is not Recorded.ACTION and self._is_folded(key):
            return
        is_known = exchange.study and exchange.status < 400
        patient = Patient(await asyncio.to_thread(patient_id, exchange.study) if is_known else "", exchange.study)
        await self.write(written(exchange, patient, self.event(outcome(exchange.status))))
        self._fold(key)

    async def login(self, actor: Actor, *, succeeded: bool) -> None:
        """Record a login or an attempt, unless it is folded. Raises AuditNotWritten."""
        key = ("login", actor, succeeded)
        if not self._is_folded(key):
            result = EventOutcome.SUCCESS if succeeded else EventOutcome.MINOR_FAILURE
            await self.write(messages.authentication(self.event(result), actor))
            self._fold(key)

    async def signed_in(self, actor: Actor) -> None:
        """Record the begin of a browser session, every one. Raises AuditNotWritten; then it may not begin."""
        await self.write(messages.authentication(self.event(), actor))

    async def signed_out(self, actor: Actor) -> None:
        """Record the end of a browser session. Raises AuditNotWritten."""
        await self.write(messages.authentication(self.event(), actor, messages.LOGOUT))

    def event(self, result: EventOutcome = EventOutcome.SUCCESS) -> AuditEvent:
        """Make the event of this moment."""
        return AuditEvent(self._clock(), self._site, result)

    async def write(self, message: str) -> Head:
        """Write one message; returns when it is on disk. Raises AuditNotWritten."""
        done: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return await done

    async def _write_all(self) -> None:
        # Requests that wait at the same time share one sync of the disk.
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                head = await asyncio.to_thread(self._trail.append, [message for message, _ in batch])
            except AuditNotWritten as error:
                if not self.trouble:  # once per outage
                    log.error("audit trail not written", reason=str(error))
                self.trouble = str(error)
                for _, done in batch:
                    if not done.done():
                        # One instance each: an exception that several tasks raise would collect all their tracebacks.
                        done.set_exception(AuditNotWritten(str(error)))
            else:
                self.trouble = ""
                for _, done in batch:
                    if not done.done():
                        done.set_result(head)

    def _is_folded(self, key: tuple[object, ...]) -> bool:
        return monotonic() - self._folded.get(key, -FOLD_SECONDS) < FOLD_SECONDS

    def _fold(self, key: tuple[object, ...]) -> None:
        self._folded[key] = monotonic()
        self._folded.move_to_end(key)
        if len(self._folded) > _FOLDED:
            self._folded.popitem(last=False)


def written(exchange: Exchange, patient: Patient, event: AuditEvent) -> str:
    """Write the message of an exchange (PS3.15 A.5.3)."""
    match exchange.recorded:
        case Recorded.TRANSFERRED:
            return messages.transferred(event, exchange.actor, patient)
        case Recorded.ACCESSED if exchange.study:
            return messages.accessed(event, exchange.actor, patient)
        case Recorded.ACTION:
            description = f"{exchange.method} was answered with {exchange.status}"
            return messages.alert(event, exchange.actor, messages.RESTRICTED_FUNCTION, exchange.target, description)
        case _:
            return messages.query(event, exchange.actor, exchange.target)


def outcome(status: int) -> EventOutcome:
    """Translate an HTTP status to an Event Outcome Indicator (PS3.15 A.5)."""
    if status < 400:
        return EventOutcome.SUCCESS
    return EventOutcome.MINOR_FAILURE if status < 500 else EventOutcome.SERIOUS_FAILURE


def patient_ids(archive: Archive) -> Callable[[str], str]:
    """Return a function that looks up the Patient ID of a study; empty for a study that is not in the archive."""

    def patient_id(study_instance_uid: str) -> str:
        identifier = Dataset()
        identifier.StudyInstanceUID = study_instance_uid
        return next((text(each, "PatientID") for each in archive.find("STUDY", identifier, limit=1)), "")

    return patient_id
