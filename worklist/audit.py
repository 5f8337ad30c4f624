"""What the worklist tells the audit trail: queries, and what machines say of the steps they perform.

A step is a Procedure Record (PS3.15 A.5.3.15): created by N-CREATE, updated by N-SET, read by N-GET. Its patient and
study are looked up by the thread that writes.

Not for: writing (`gateway.audit.recorder`).
"""

from pydicom import Dataset

from gateway.audit import messages
from gateway.audit.messages import Patient
from gateway.audit.recorder import AuditRecorder, NoAudit, actor
from gateway.dicom.application import Association, Request
from worklist.store import Worklist


class ModalityAudit:
    """Tells a recording; the `Witness` of the worklist's application."""

    def __init__(self, recorder: AuditRecorder | NoAudit, worklist: Worklist) -> None:
        self._recorder = recorder
        self._worklist = worklist
        self.turned_away = recorder.turned_away
        self.queried = recorder.queried

    def ended(self, association: Association) -> None:
        """Nothing is kept until the end of an association."""

    def step(self, request: Request, mpps_instance_uid: str, action: messages.EventAction) -> None:
        """A step was begun, changed or read."""
        event, who = self._recorder.event(), actor(request.association)
        self._recorder.note(
            lambda: [messages.procedure(event, who, action, self._patient(mpps_instance_uid), mpps_instance_uid)]
        )

    def _patient(self, mpps_instance_uid: str) -> Patient:
        step = self._worklist.step(mpps_instance_uid)
        scheduled: list[Dataset] = list(step.get("ScheduledStepAttributesSequence") or [])
        study = next((str(each.StudyInstanceUID) for each in scheduled if each.get("StudyInstanceUID")), "")
        return Patient(str(step.get("PatientID") or ""), study)
