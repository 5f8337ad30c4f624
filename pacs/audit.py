"""The archive's audit messages: stored objects, queries, retrievals and storage commitment.

Stored objects are counted by association and study, and reported when the association ends, at the latest
REPORT_SECONDS after the first. A refused object is not counted.

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

# Not each object by itself, because PS3.15 A.5.3.7 has one message for the objects of a patient that go over together;
# not only at the end of the association, because a killed process loses what it has only counted.
REPORT_SECONDS = 15.0
MOST_STUDIES = 100
"""Studies that are counted at one time, of all associations; at one more all are reported."""

LOOKED_UP = 1000
"""References of a commitment whose studies are looked up."""

_UID_BYTES = 125
_TALLY_BYTES = 1_000
"""Memory of one UID and one tally while it waits to be written; measured."""


@dataclass(slots=True)
class _Tally:
    """The objects of one study that came over one association."""

    peer: Actor
    patient: Patient
    event: AuditEvent
    classes: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=monotonic)


class ArchiveAudit:
    """The observer of the archive's application; `recorder` writes its messages."""

    def __init__(
        self, recorder: AuditRecorder | NoAudit, archive: Archive, *, report_seconds: float = REPORT_SECONDS
    ) -> None:
        self._recorder = recorder
        self._archive = archive
        self._report_seconds = report_seconds
        self._counting = threading.Lock()
        self._open: dict[tuple[str, str], _Tally] = {}
        """By association and study."""
        recorder.flush_each_time(self._report_old)
        self.turned_away = recorder.turned_away
        self.queried = recorder.queried

    def ended(self, association: Association) -> None:
        """Report the objects that came over an association that has ended."""
        self._report(lambda of, _tally: of == association.id)

    def watched(self, receiving: Receiving, association: Association) -> Incoming:
        """Wrap an object that is being received, so that it is counted once it is stored."""
        return _Watched(receiving, lambda: self._stored(association, receiving))

    def began(self, request: Request, instances: Sequence[Stored]) -> None:
        """Objects begin to leave (Begin Transferring DICOM Instances, A.5.3.3)."""
        event, peer, to = self._recorder.event(), actor(request.association), request.command.move_destination or ""
        studies = list(dict.fromkeys(each.study_instance_uid for each in instances))
        self._recorder.note(
            lambda: [messages.transfer_begun(event, peer, self._patient(each), to=to) for each in studies],
            holds=_UID_BYTES * len(studies),
        )

    def transferred(self, request: Request, instances: Sequence[Stored], progress: Progress | None) -> None:
        """All, some or none have left (DICOM Instances Transferred, A.5.3.7); `progress` None: the peer was lost."""
        event, peer, to = self._recorder.event(), actor(request.association), request.command.move_destination or ""
        sent = studies(instances, progress)
        self._recorder.note(
            lambda: [
                messages.transferred(replace(event, outcome=each.outcome), peer, self._patient(study), to=to,
                                     classes=each.classes)
                for study, each in sent.items()
            ],
            holds=_TALLY_BYTES * len(sent),
        )  # fmt: skip

    def committed(self, request: Request, sop_instance_uids: Sequence[str]) -> None:
        """Storage commitment was requested: the named instances are read (DICOM Instances Accessed, A.5.3.6)."""
        event, peer, named = self._recorder.event(), actor(request.association), sop_instance_uids[:LOOKED_UP]
        self._recorder.note(
            lambda: [messages.accessed(event, peer, self._patient(each)) for each in self._studies_of(named)],
            holds=_UID_BYTES * len(named),
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
            self._report(lambda _of, _tally: True)

    def _report_old(self) -> None:
        before = monotonic() - self._report_seconds
        self._report(lambda _of, tally: tally.began <= before)

    def _report(self, is_due: Callable[[str, _Tally], bool]) -> None:
        """Record the tallies that are due, and begin new ones."""
        with self._counting:
            due = {key: tally for key, tally in self._open.items() if is_due(key[0], tally)}
            for key in due:
                del self._open[key]
        if reported := list(due.values()):
            self._recorder.note(
                lambda: [messages.stored(t.event, t.peer, t.patient, t.classes) for t in reported],
                holds=_TALLY_BYTES * len(reported),
            )

    # ---- in the thread that writes, because it reads the database and a modality must not wait for that --------------

    def _patient(self, study_instance_uid: str) -> Patient:
        identifier = Dataset()
        identifier.StudyInstanceUID = study_instance_uid
        known = next((verbatim(each, "PatientID") for each in self._archive.find("STUDY", identifier, limit=1)), "")
        return Patient(known, study_instance_uid)

    def _studies_of(self, sop_instance_uids: Iterable[str]) -> Iterable[str]:
        """The studies of instances; an instance that is not stored was not read, and is left out."""
        studies: dict[str, None] = {}
        for uid in sop_instance_uids:
            with suppress(NotFound):
                studies[self._archive.instance(uid).study_instance_uid] = None
        return studies


@dataclass(slots=True)
class Sent:
    """The objects of a study that were sent: by class, and how many were wanted."""

    classes: Counter[str] = field(default_factory=Counter)
    wanted: int = 0

    @property
    def outcome(self) -> EventOutcome:
        went = self.classes.total()
        if went == self.wanted:
            return EventOutcome.SUCCESS
        return EventOutcome.MINOR_FAILURE if went else EventOutcome.SERIOUS_FAILURE


def studies(instances: Sequence[Stored], progress: Progress | None) -> dict[str, Sent]:
    """The outcome of a retrieval, by study."""
    # Objects go in order, so those behind the last sub-operation were not sent.
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
    """An object that is being received, and reported when it is finished."""

    # `write` is the receiving's own bound method, because it is called for every piece of every image.
    __slots__ = ("_receiving", "_when_finished", "discard", "write")

    def __init__(self, receiving: Receiving, when_finished: Callable[[], None]) -> None:
        self.write, self.discard = receiving.write, receiving.discard
        self._receiving = receiving
        self._when_finished = when_finished

    def finish(self) -> None:
        self._receiving.finish()
        self._when_finished()
