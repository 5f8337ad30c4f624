"""What the archive tells the audit trail of its associations: objects that came, queries, retrievals, commitments.

Rules. Objects that are stored are counted by association and study, and told when the association ends, at the latest
TOLD_SECONDS after the first of them: PS3.15 A.5.3.7 has one message for the objects of a patient that go over together,
and a process that is killed loses what is only counted. An object that is refused has not been transferred. What needs
the database is looked up by the thread that writes.

Not for: writing (`gateway.audit.recorder`).
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import monotonic

from pydicom import Dataset

from gateway.audit import messages
from gateway.audit.messages import Actor, AuditEvent, EventOutcome, Patient
from gateway.audit.recorder import AuditRecorder, NoAudit, actor
from gateway.dataset.dicom_json import verbatim
from gateway.dicom.application import Association, Incoming, Progress, Request
from gateway.errors import NotFound
from pacs.archive.archive import Archive, Stored
from pacs.archive.receiving import Receiving

TOLD_SECONDS = 15.0
MOST_STUDIES = 100
"""Studies that are counted at one time, of all associations; at one more all are told."""

LOOKED_UP = 1000
"""References of a commitment whose studies are looked up."""

_UID_BYTES = 125
_TALLY_BYTES = 1_000
"""What one takes in memory while it waits to be written; measured."""


@dataclass(slots=True)
class _Tally:
    """What has come of one study over one association."""

    who: Actor
    patient: Patient
    event: AuditEvent
    classes: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=monotonic)


class ArchiveAudit:
    """Tells a recording; the `Witness` of the archive's application."""

    def __init__(
        self, recorder: AuditRecorder | NoAudit, archive: Archive, *, told_seconds: float = TOLD_SECONDS
    ) -> None:
        self._recorder = recorder
        self._archive = archive
        self._told_seconds = told_seconds
        self._counting = threading.Lock()
        self._open: dict[tuple[str, str], _Tally] = {}
        """By association and study."""
        recorder.flush_each_time(self._tell_old)
        self.turned_away = recorder.turned_away
        self.queried = recorder.queried

    def ended(self, association: Association) -> None:
        """An association is over: tell what came over it."""
        self._tell(lambda of, _tally: of == association.id)

    def watched(self, receiving: Receiving, association: Association) -> Incoming:
        """An object on its way in that is counted once it is kept."""
        return _Watched(receiving, lambda: self._stored(association, receiving))

    def began(self, request: Request, instances: Sequence[Stored]) -> None:
        """Objects begin to leave (Begin Transferring DICOM Instances, A.5.3.3)."""
        event, who, to = self._recorder.event(), actor(request.association), request.command.move_destination or ""
        studies = list(dict.fromkeys(each.study_instance_uid for each in instances))
        self._recorder.note(
            lambda: [messages.transfer_begun(event, who, self._patient(each), to=to) for each in studies],
            holds=_UID_BYTES * len(studies),
        )

    def transferred(self, request: Request, instances: Sequence[Stored], progress: Progress | None) -> None:
        """They have left, all, some or none (DICOM Instances Transferred, A.5.3.7); None: the peer was lost."""
        event, who, to = self._recorder.event(), actor(request.association), request.command.move_destination or ""
        sent = studies(instances, progress)
        self._recorder.note(
            lambda: [
                messages.transferred(replace(event, outcome=each.outcome), who, self._patient(study), to=to,
                                     classes=each.classes)
                for study, each in sent.items()
            ],
            holds=_TALLY_BYTES * len(sent),
        )  # fmt: skip

    def committed(self, request: Request, sop_instance_uids: Sequence[str]) -> None:
        """Safekeeping was asked for: what is named is looked at (DICOM Instances Accessed, A.5.3.6)."""
        event, who, asked = self._recorder.event(), actor(request.association), sop_instance_uids[:LOOKED_UP]
        self._recorder.note(
            lambda: [messages.accessed(event, who, self._patient(each)) for each in self._studies_of(asked)],
            holds=_UID_BYTES * len(asked),
        )

    def _stored(self, association: Association, receiving: Receiving) -> None:
        study, patient_id = receiving.about
        with self._counting:
            tally = self._open.get((association.id, study))
            if tally is None:
                tally = _Tally(actor(association), Patient(patient_id, study), self._recorder.event())
                self._open[association.id, study] = tally
            tally.classes[receiving.origin.sop_class_uid] += 1
            is_full = len(self._open) > MOST_STUDIES
        if is_full:
            self._tell(lambda _of, _tally: True)

    def _tell_old(self) -> None:
        before = monotonic() - self._told_seconds
        self._tell(lambda _of, tally: tally.began <= before)

    def _tell(self, is_due: Callable[[str, _Tally], bool]) -> None:
        """Note what is due, and begin to count anew."""
        with self._counting:
            due = {key: tally for key, tally in self._open.items() if is_due(key[0], tally)}
            for key in due:
                del self._open[key]
        if told := list(due.values()):
            self._recorder.note(
                lambda: [messages.stored(t.event, t.who, t.patient, t.classes) for t in told],
                holds=_TALLY_BYTES * len(told),
            )

    # ---- in the thread that writes -----------------------------------------------------------------------------------

    def _patient(self, study_instance_uid: str) -> Patient:
        identifier = Dataset()
        identifier.StudyInstanceUID = study_instance_uid
        known = next((verbatim(each, "PatientID") for each in self._archive.find("STUDY", identifier, limit=1)), "")
        return Patient(known, study_instance_uid)

    def _studies_of(self, sop_instance_uids: Iterable[str]) -> Iterable[str]:
        """The studies of instances; one that is not here was not looked at, and who asked is told."""
        studies: dict[str, None] = {}
        for uid in sop_instance_uids:
            with suppress(NotFound):
                studies[self._archive.instance(uid).study_instance_uid] = None
        return studies


@dataclass(slots=True)
class Sent:
    """What of a study was sent: by class, and how many of how many."""

    classes: Counter[str] = field(default_factory=Counter)
    wanted: int = 0

    @property
    def outcome(self) -> EventOutcome:
        went = self.classes.total()
        if went == self.wanted:
            return EventOutcome.SUCCESS
        return EventOutcome.MINOR_FAILURE if went else EventOutcome.SERIOUS_FAILURE


def studies(instances: Sequence[Stored], progress: Progress | None) -> dict[str, Sent]:
    """What became of a retrieval, by study. Objects go in order: what was not reached when it ended was not sent."""
    tried = len(instances) - progress.remaining if progress else 0
    failed = frozenset(progress.failed_uids) if progress else frozenset()
    found: dict[str, Sent] = {}
    for number, stored in enumerate(instances):
        sent = found.setdefault(stored.study_instance_uid, Sent())
        sent.wanted += 1
        if number < tried and stored.sop_instance_uid not in failed:
            sent.classes[stored.sop_class_uid] += 1
    return found


class _Watched:
    """An object on its way in; its pieces go straight to where they are written."""

    __slots__ = ("_receiving", "_told", "discard", "write")

    def __init__(self, receiving: Receiving, told: Callable[[], None]) -> None:
        self.write, self.discard = receiving.write, receiving.discard
        self._receiving = receiving
        self._told = told

    def finish(self) -> None:
        self._receiving.finish()
        self._told()
