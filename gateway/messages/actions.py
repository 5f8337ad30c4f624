"""The actions: imperative messages from the cloud.

Values that DICOM cannot hold are refused on reading (`gateway.messages.fields`).

Not for: the effect of an action (`relay.cloud.commands`).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, Self

from pydantic import Field, model_validator

from gateway.messages.envelope import SCHEMA_VERSION, Message
from gateway.messages.fields import (
    AccessionNumber,
    ActionId,
    CodeString,
    Date,
    DicomJson,
    ItemStatus,
    LongText,
    OptionalActionId,
    OptionalDate,
    OptionalUid,
    PatientId,
    PersonName,
    Sex,
    TargetUrl,
    Time,
    TimeZone,
)

LOCAL_ACTION = "file-"
"""Prefix of the action ids that were made on site, from a file; no event about them goes to the cloud."""


class SourceReference(Message):
    """The cloud's own names for what an action is about; kept and given back, never interpreted."""

    appointment_id: str = ""
    participant_id: str = ""


class Participant(Message):
    nhs_number: PatientId
    name: PersonName
    birth_date: OptionalDate = ""
    sex: Sex = ""


class Scheduled(Message):
    """When the participant is expected: site-local wall time, unless `timezone` names another IANA zone."""

    date: Date
    time: Time
    timezone: TimeZone = ""


class Procedure(Message):
    modality: CodeString
    study_description: LongText = ""


class WorklistItem(Message):
    """One appointment as the modality shall see it.

    `dicom` may carry more attributes of the answer as DICOM JSON; the named fields win over the same attributes in it.
    """

    accession_number: AccessionNumber
    participant: Participant
    scheduled: Scheduled
    procedure: Procedure
    dicom: DicomJson = Field(default_factory=dict)


class ItemReference(Message):
    accession_number: AccessionNumber


class ItemWithStatus(ItemReference):
    status: ItemStatus


class ItemWithTime(ItemReference):
    scheduled: Scheduled


class NewItem(Message):
    worklist_item: WorklistItem


class ChangedStatus(Message):
    worklist_item: ItemWithStatus


class CancelledItem(Message):
    worklist_item: ItemReference


class RescheduledItem(Message):
    worklist_item: ItemWithTime


class Action(Message):
    """What every action carries. `action_id` makes a repeat recognisable; only what creates something requires one."""

    schema_version: Literal[1] = SCHEMA_VERSION
    action_type: str
    action_id: OptionalActionId = ""
    timestamp: str = ""
    source_system: str = ""
    source_reference: SourceReference = SourceReference()


class CreateItem(Action):
    action_type: Literal["worklist.create_item"]
    action_id: ActionId
    parameters: NewItem


class CreateTestItem(Action):
    action_type: Literal["worklist.create_test_item"]
    action_id: ActionId
    parameters: NewItem


class UpdateItem(Action):
    """Everything about an item that is still scheduled is replaced, but its accession number and its study."""

    action_type: Literal["worklist.update_item"]
    parameters: NewItem


class UpdateStatus(Action):
    action_type: Literal["worklist.update_status"]
    parameters: ChangedStatus


class CancelItem(Action):
    action_type: Literal["worklist.cancel_item"]
    parameters: CancelledItem


class RescheduleItem(Action):
    action_type: Literal["worklist.reschedule_item"]
    parameters: RescheduledItem


class Health(Action):
    action_type: Literal["health"]


class WantedImage(Message):
    """Which objects are wanted, where, and how.

    `target_url` is where an object shall be put: an Azure blob's URL with its signature (SAS), or, for a study, that of
    a container or folder in which each object becomes `<SOP Instance UID>.dcm`. Without it the cloud's HTTPS API takes
    them. `transfer_syntax` is that of a lossless compression on the way; without it objects go as they are stored.
    """

    sop_instance_uid: OptionalUid = ""
    study_instance_uid: OptionalUid = ""
    target_url: TargetUrl = ""
    transfer_syntax: OptionalUid = ""

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if bool(self.sop_instance_uid) == bool(self.study_instance_uid):
            raise ValueError("must name either a sop_instance_uid or a study_instance_uid")
        return self


class RequestImage(Action):
    action_type: Literal["image.request"]
    action_id: ActionId
    parameters: WantedImage


class Forced(Message):
    """`force`: also while a clinic is under way."""

    force: bool = False


class RunSelftest(Action):
    action_type: Literal["gateway.selftest"]
    action_id: ActionId
    parameters: Forced = Forced()


class Target(Message):
    target_url: TargetUrl = ""


class CollectDiagnostics(Action):
    """Without a `target_url` the bundle stays on site, and the event says under which name."""

    action_type: Literal["gateway.diagnostics"]
    action_id: ActionId
    parameters: Target = Target()


class Echo(Action):
    """Anything at all may come with an echo; `payload` is the whole of it, untouched."""

    action_type: Literal["echo"]
    payload: dict[str, object]

    @model_validator(mode="before")
    @classmethod
    def _keep_everything(cls, data: dict[str, object]) -> dict[str, object]:
        # The one action whose unknown keys are kept: the answer has to be what came.
        return {"action_type": data.get("action_type"), "payload": data}


ACTIONS: Mapping[str, type[Action]] = MappingProxyType(
    {
        "worklist.create_item": CreateItem,
        "worklist.create_test_item": CreateTestItem,
        "worklist.update_item": UpdateItem,
        "worklist.update_status": UpdateStatus,
        "worklist.cancel_item": CancelItem,
        "worklist.reschedule_item": RescheduleItem,
        "image.request": RequestImage,
        "gateway.selftest": RunSelftest,
        "gateway.diagnostics": CollectDiagnostics,
        "echo": Echo,
        "health": Health,
    }
)
