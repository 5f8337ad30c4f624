"""What of HTTP goes into the audit trail, and when: before the first byte of an answer leaves.

Rules. A request is recorded with how it ended (`relay.access.permissions` says as what). The answer waits until the
line is on disk; if it cannot be written, the answer is 503 and nothing is shown, because an access that nobody can
prove later is what the trail is there to prevent. Worklist and archive never wait for it. What is waiting at one time
is written together.

The same person doing the same to the same study from the same place is recorded once in FOLD_SECONDS: a viewer asks
for one study in hundreds of requests, and PS3.15 A.5.3.6 has one message for a study that is looked at. Actions are
never folded, and are recorded before they are done as well: one that cannot be recorded does not happen.

Not here: the files (`gateway.audit.trail`), the form of messages (`gateway.audit.messages`).
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
from gateway.errors import AuditNotWritten
from pacs import Archive
from relay.access.permissions import Recorded
from relay.dicom_json import text

FOLD_SECONDS = 60.0
_FOLDED = 10_000

_PATIENT_ID = "00100020"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and how it ended. `asked` is the path with its query; `study` the Study Instance UID it is about."""

    who: Actor
    recorded: Recorded
    method: str
    asked: str
    status: int
    study: str = ""


class Recorder:
    """Writes the trail for the relay. Everything that happens here happens at `site`."""

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
        """Write down an exchange, unless that has just been done. Raises AuditNotWritten; then nothing may be shown."""
        key = (exchange.who, exchange.recorded, exchange.status >= 400, exchange.study or exchange.asked)
        if exchange.recorded is not Recorded.ACTION and self._is_folded(key):
            return
        is_known = exchange.study and exchange.status < 400
        patient = Patient(await asyncio.to_thread(patient_id, exchange.study) if is_known else "", exchange.study)
        await self.write(written(exchange, patient, self.event(outcome(exchange.status))))
        self._fold(key)

    async def login(self, who: Actor, *, succeeded: bool) -> None:
        """Write down that somebody logged in, or tried to. Raises AuditNotWritten."""
        key = ("login", who, succeeded)
        if not self._is_folded(key):
            result = EventOutcome.SUCCESS if succeeded else EventOutcome.MINOR_FAILURE
            await self.write(messages.authentication(self.event(result), who))
            self._fold(key)

    async def signed_in(self, who: Actor) -> None:
        """Write down that a session of a browser begins, each one. Raises AuditNotWritten; then it may not."""
        await self.write(messages.authentication(self.event(), who))

    async def signed_out(self, who: Actor) -> None:
        """Write down that a session of a browser has ended. Raises AuditNotWritten."""
        await self.write(messages.authentication(self.event(), who, messages.LOGOUT))

    def event(self, result: EventOutcome = EventOutcome.SUCCESS) -> AuditEvent:
        """What happens now, and ends so."""
        return AuditEvent(self._clock(), self._site, result)

    async def write(self, message: str) -> Head:
        """Write one message; returns when it is on disk. Raises AuditNotWritten."""
        done: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._waiting.append((message, done))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return await done

    async def _write_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                head = await asyncio.to_thread(self._trail.append, [message for message, _ in batch])
            except AuditNotWritten as error:
                if not self.trouble:
                    log.error("audit trail not written", reason=str(error))
                self.trouble = str(error)
                for _, done in batch:
                    if not done.done():
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
    """The message of an exchange."""
    match exchange.recorded:
        case Recorded.TRANSFERRED:
            return messages.transferred(event, exchange.who, patient)
        case Recorded.ACCESSED if exchange.study:
            return messages.accessed(event, exchange.who, patient)
        case Recorded.ACTION:
            told = f"{exchange.method} was answered with {exchange.status}"
            return messages.alert(event, exchange.who, messages.RESTRICTED_FUNCTION, exchange.asked, told)
        case _:
            return messages.query(event, exchange.who, exchange.asked)


def outcome(status: int) -> EventOutcome:
    """How an HTTP status ends an event."""
    if status < 400:
        return EventOutcome.SUCCESS
    return EventOutcome.MINOR_FAILURE if status < 500 else EventOutcome.SERIOUS_FAILURE


def patient_ids(archive: Archive) -> Callable[[str], str]:
    """How the Patient ID of a study is found; empty for a study that is not here."""

    def found(study_instance_uid: str) -> str:
        identifier = Dataset()
        identifier.StudyInstanceUID = study_instance_uid
        return next((text(each, _PATIENT_ID) for each in archive.find("STUDY", identifier, limit=1)), "")

    return found
