"""What the cloud changes on the worklist, told to the audit trail: each action is a Procedure Record (PS3.15 A.5.3.15).

It is told beside the answer and never holds it up or fails it: an appointment that is not taken because a disk is full
would be missed by a person. When the trail cannot be written, health says so, and the worklist itself and the log still
have the action's id.

Not here: HTTP (`relay.audit`), MPPS (`worklist.audit`).
"""

import asyncio
from contextlib import suppress

from gateway import audit_messages as messages
from gateway.audit_messages import Actor, Patient
from gateway.errors import AuditNotWritten, NotFound
from gateway.messages import Action, CancelItem, CreateItem, CreateTestItem, RescheduleItem, UpdateItem, UpdateStatus
from relay.audit import Recorder
from relay.users import CLOUD
from worklist import Worklist

WorklistAction = CreateItem | CreateTestItem | UpdateItem | UpdateStatus | CancelItem | RescheduleItem


class WorklistAudit:
    """Tells the recorder of one relay; call it after an action was carried out, in the loop."""

    def __init__(self, recorder: Recorder, worklist: Worklist) -> None:
        self._recorder = recorder
        self._worklist = worklist
        self._telling: set[asyncio.Task[None]] = set()

    def __call__(self, action: Action) -> None:
        if isinstance(action, WorklistAction):
            task = asyncio.create_task(self._tell(action))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Wait for what is being told."""
        await asyncio.gather(*self._telling, return_exceptions=True)

    async def _tell(self, action: WorklistAction) -> None:
        event, kind = self._recorder.event(), _kind(action)
        with suppress(NotFound, AuditNotWritten):  # it left the worklist meanwhile; the recorder has said the other
            number = action.parameters.worklist_item.accession_number
            item = await asyncio.to_thread(self._worklist.item, number)
            patient = Patient(item.participant_id, item.study_instance_uid)
            await self._recorder.write(messages.procedure(event, Actor(CLOUD), kind, patient))


def _kind(action: WorklistAction) -> messages.Action:
    return "C" if isinstance(action, CreateItem | CreateTestItem) else "U"
