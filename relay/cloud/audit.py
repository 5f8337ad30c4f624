"""What the cloud changes on the worklist, told to the audit trail: each action is a Procedure Record (PS3.15 A.5.3.15).

It is noted beside the answer and never holds it up or fails it: an appointment that is not taken because a disk is full
would be missed by a person. What cannot be written waits and is tried again, and what is too much is counted, as for
the machines (`gateway.audit.recorder`). Patient and study are looked up by the thread that writes; of an item that has
left the worklist meanwhile, the accession number is told.

Not here: HTTP (`relay.access.audit`), MPPS (`worklist.audit`).
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
    """Tells a recording; call it after an action was carried out."""

    def __init__(self, recorder: AuditRecorder, worklist: Worklist) -> None:
        self._recorder = recorder
        self._worklist = worklist

    def __call__(self, action: Action) -> None:
        if isinstance(action, WorklistAction):
            event, kind = self._recorder.event(), _kind(action)
            number = action.parameters.worklist_item.accession_number
            self._recorder.note(
                lambda: [messages.procedure(event, Actor(CLOUD), kind, self._patient(number), accession_number=number)]
            )

    def _patient(self, accession_number: str) -> Patient:
        try:
            item = self._worklist.item(accession_number)
        except NotFound:
            return Patient("", "")
        return Patient(item.participant_id, item.study_instance_uid)


def _kind(action: WorklistAction) -> messages.EventAction:
    return "C" if isinstance(action, CreateItem | CreateTestItem) else "U"
