"""Records the cloud's changes of the worklist in the audit trail, each as a Procedure Record (PS3.15 A.5.3.15).

Recording never delays or fails an action. Not here: HTTP (`relay.access.audit`), MPPS (`worklist.audit`).
"""

from gateway.audit import messages
from gateway.audit.messages import Actor, Patient
from gateway.audit.recorder import AuditRecorder
from gateway.errors import NotFound
from gateway.messages import Action, CancelItem, CreateItem, CreateTestItem, RescheduleItem, UpdateItem, UpdateStatus
from relay.access.users import CLOUD
from worklist import Worklist

WorklistAction = CreateItem | CreateTestItem | UpdateItem | UpdateStatus | CancelItem | RescheduleItem


class WorklistAudit:
    """Records actions. Call it after an action was carried out; it never waits and never raises."""

    def __init__(self, recorder: AuditRecorder, worklist: Worklist) -> None:
        self._recorder = recorder
        self._worklist = worklist

    def __call__(self, action: Action) -> None:
        if isinstance(action, WorklistAction):
            # Queued and not written: an action refused because a disk is full would cost a participant the appointment.
            # The recorder retries, and counts what it must drop. Its thread also looks up patient and study.
            event, kind = self._recorder.event(), _kind(action)
            number = action.parameters.worklist_item.accession_number
            self._recorder.note(
                lambda: [messages.procedure(event, Actor(CLOUD), kind, self._patient(number), accession_number=number)]
            )

    def _patient(self, accession_number: str) -> Patient:
        try:
            item = self._worklist.item(accession_number)
        except NotFound:  # it has left the worklist meanwhile; the accession number is recorded all the same
            return Patient("", "")
        return Patient(item.participant_id, item.study_instance_uid)


def _kind(action: WorklistAction) -> messages.EventAction:
    return "C" if isinstance(action, CreateItem | CreateTestItem) else "U"
