"""The worklist's audit messages: queries, and the steps that modalities create, update and read.

A step is a Procedure Record (PS3.15 A.5.3.15): created by N-CREATE, updated by N-SET, read by N-GET.

Not for: writing (`gateway.audit.recorder`).
"""

from pydicom import Dataset

from gateway.audit import messages
from gateway.audit.messages import Patient
from gateway.audit.recorder import AuditRecorder, NoAudit, actor
from gateway.dicom.application import Association, Request
from worklist.store import Worklist


class ModalityAudit:
    """The observer of the worklist's application; `recorder` writes its messages."""

    def __init__(self, recorder: AuditRecorder | NoAudit, worklist: Worklist) -> None:
        self._recorder = recorder
        self._worklist = worklist
        self.turned_away = recorder.turned_away
        self.queried = recorder.queried

    def ended(self, association: Association) -> None:
        """Do nothing, because every message here is of one request and none of a whole association."""

    def step(self, request: Request, mpps_instance_uid: str, action: messages.EventAction) -> None:
        """A step was begun, changed or read."""
        event, peer = self._recorder.event(), actor(request.association)
        # The message is made by the thread that writes, because it reads the step from the database, and the modality
        # must not wait for that.
        self._recorder.note(
            lambda: [messages.procedure(event, peer, action, self._patient(mpps_instance_uid), mpps_instance_uid)]
        )

    def _patient(self, mpps_instance_uid: str) -> Patient:
        step = self._worklist.step(mpps_instance_uid)
        scheduled: list[Dataset] = list(step.get("ScheduledStepAttributesSequence") or [])
        study = next((str(each.StudyInstanceUID) for each in scheduled if each.get("StudyInstanceUID")), "")
        return Patient(str(step.get("PatientID") or ""), study)
