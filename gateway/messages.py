"""Every message that crosses the line to the cloud: actions come in, events go out.

The shapes are the wire contract, so they are written here once, as pydantic models: the worklist and the archive build
their events with them, the relay reads actions with them, and `docs/messages/` shows one example of each with its JSON
Schema. Reading is strict about what we keep (`gateway.fields`: what DICOM cannot hold is refused at this border, never
at the modality) and blind to what we do not know (unknown keys are ignored). Writing never fails on what a modality
sent: events carry texts as they came and measures as numbers or null.

Not here: what an action does (`relay.commands`), how an event travels (`relay.delivery`), the outbox itself.

Later actions (`image.request`, `gateway.selftest`, `gateway.diagnostics`) take one model and one line in `ACTIONS`;
until then they are answered as unsupported.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gateway.fields import (
    AccessionNumber,
    ActionId,
    CodeString,
    Date,
    DicomJson,
    ItemStatus,
    LongText,
    Measure,
    OptionalActionId,
    OptionalDate,
    PatientId,
    PersonName,
    Sex,
    Time,
    TimeZone,
)

SCHEMA_VERSION: Final = 1
SOURCE_SYSTEM = "screening-gateway"
LOCAL_ACTION = "file-"
"""How the action ids begin that were made on site, from a file; the cloud does not know them and is not told."""

PRIORITY: Mapping[str, int] = MappingProxyType(
    {
        "gateway.heartbeat": 1,
        "mpps.in_progress": 1,
        "mpps.completed": 1,
        "mpps.discontinued": 1,
        "exam.quality": 2,
        "study.image_received": 2,
        "image.rejected": 2,
        "image.quarantined": 2,
    }
)
"""Who goes first: 1 worklist and MPPS, 2 metadata with its thumbnail, 3 thumbnails alone, 4 full images."""


class Message(BaseModel):
    """What all messages share: they do not change, and unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)


# --- actions: imperative, from the cloud ------------------------------------------------------------------------------


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


class Echo(Action):
    """Anything at all may come with an echo; `payload` is the whole of it, untouched."""

    action_type: Literal["echo"]
    payload: dict[str, object]

    @model_validator(mode="before")
    @classmethod
    def _keep_everything(cls, data: dict[str, object]) -> dict[str, object]:
        return {"action_type": data.get("action_type"), "payload": data}


ACTIONS: Mapping[str, type[Action]] = MappingProxyType(
    {
        "worklist.create_item": CreateItem,
        "worklist.create_test_item": CreateTestItem,
        "worklist.update_item": UpdateItem,
        "worklist.update_status": UpdateStatus,
        "worklist.cancel_item": CancelItem,
        "worklist.reschedule_item": RescheduleItem,
        "echo": Echo,
        "health": Health,
    }
)


# --- events: past tense, to the cloud ---------------------------------------------------------------------------------


class EventParameters(Message):
    """The `parameters` of an event. The fact's owner puts `model_dump(mode="json")` into its outbox.

    `message_id` is the same whenever the same fact is told; facts of one `subject` are told in order.
    """

    @property
    def message_type(self) -> str:
        raise NotImplementedError

    @property
    def message_id(self) -> str:
        raise NotImplementedError

    @property
    def subject(self) -> str:
        raise NotImplementedError

    @property
    def priority(self) -> int:
        return PRIORITY[self.message_type]


class ImagedParticipant(Message):
    nhs_number: str = ""
    patient_name: str = ""


class Study(Message):
    accession_number: str = ""
    study_instance_uid: str
    modality: str = ""
    study_date: str = ""
    study_time: str = ""
    study_description: str = ""


class Series(Message):
    series_instance_uid: str
    series_number: str = ""
    series_description: str = ""


class Dimensions(Message):
    rows: int | None = None
    columns: int | None = None
    frames: int | None = None


class Acquisition(Message):
    """How the image was taken (PS3.3 C.8.11.7); the unit is in the name.

    `view_code` and `view_modifiers` are SNOMED CT codes, `view_position` is the older text.
    """

    view_position: str = ""
    view_code: str = ""
    view_modifiers: tuple[str, ...] = ()
    laterality: str = ""
    presentation_intent: str = ""
    partial_view: str = ""
    breast_implant_present: str = ""
    organ_dose_dgy: Measure = None
    entrance_dose_mgy: Measure = None
    kvp: Measure = None
    exposure_uas: Measure = None
    half_value_layer_mm: Measure = None
    compression_force_n: Measure = None
    body_part_thickness_mm: Measure = None
    anode_target_material: str = ""
    filter_material: str = ""
    detector_id: str = ""


class Thumbnail(Message):
    """A small picture to recognise an image by, never to read; `data` is base64, `note` a warning to show with it."""

    data: str
    format: Literal["jpeg"] = "jpeg"
    width: int
    height: int
    note: str = ""


class Image(Message):
    """One stored instance. `sha256` is that of the data set's file as kept; the thumbnail is added at delivery.

    Without a thumbnail, `thumbnail_reason` says why there is none, and `thumbnail_path` where one can be fetched later:
    below the address of this site's HTTP, which the cloud reaches through the hybrid connection.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    instance_number: str = ""
    dimensions: Dimensions = Dimensions()
    acquisition: Acquisition = Acquisition()
    size_bytes: int
    sha256: str
    thumbnail: Thumbnail | None = None
    thumbnail_reason: str | None = None
    thumbnail_path: str | None = None
    received_at: str


class ImageReceived(EventParameters):
    participant: ImagedParticipant
    study: Study
    series: Series
    image: Image

    @property
    def message_type(self) -> str:
        return "study.image_received"

    @property
    def message_id(self) -> str:
        return self.image.sop_instance_uid

    @property
    def subject(self) -> str:
        return self.study.study_instance_uid


class PerformedSeries(Message):
    series_instance_uid: str
    sop_instance_uids: tuple[str, ...] = ()


class StepChanged(EventParameters):
    """A performed procedure step began, was completed or was discontinued.

    `started_at` and `ended_at` are the modality's wall time, ISO 8601 without an offset. `closed_by` names the person
    who ended the step in the modality's place.
    """

    STATUSES: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"IN PROGRESS": "in_progress", "COMPLETED": "completed", "DISCONTINUED": "discontinued"}
    )

    accession_number: str = ""
    study_instance_uid: str = ""
    mpps_instance_uid: str
    status: Literal["IN PROGRESS", "COMPLETED", "DISCONTINUED"]
    started_at: str = ""
    ended_at: str = ""
    discontinuation_reason: str = ""
    closed_by: str = ""
    performed_series: tuple[PerformedSeries, ...] = ()

    @property
    def message_type(self) -> str:
        return f"mpps.{self.STATUSES[self.status]}"

    @property
    def message_id(self) -> str:
        return f"{self.mpps_instance_uid}/{self.STATUSES[self.status]}"

    @property
    def subject(self) -> str:
        # Never that of the study's images, so that a status does not wait behind them on a slow line.
        return f"mpps/{self.accession_number or self.mpps_instance_uid}"


class ImageRejected(EventParameters):
    """An object a modality sent was refused for good; it is not kept."""

    accession_number: str = ""
    study_instance_uid: str = ""
    sop_instance_uid: str
    reason: str

    @property
    def message_type(self) -> str:
        return "image.rejected"

    @property
    def message_id(self) -> str:
        return f"{self.sop_instance_uid}/rejected"

    @property
    def subject(self) -> str:
        return self.study_instance_uid or self.accession_number or self.sop_instance_uid


class ImageQuarantined(EventParameters):
    """A second, different object came under a UID that is taken; it is kept aside under its `sha256`."""

    accession_number: str = ""
    study_instance_uid: str = ""
    sop_instance_uid: str
    sha256: str
    reason: str

    @property
    def message_type(self) -> str:
        return "image.quarantined"

    @property
    def message_id(self) -> str:
        return f"{self.sop_instance_uid}/quarantined/{self.sha256[:16]}"

    @property
    def subject(self) -> str:
        return self.study_instance_uid or self.accession_number or self.sop_instance_uid


class Finding(Message):
    code: str
    text: str


class ExamQuality(EventParameters):
    """What an exam looks like so far. `revision` grows with every change, so that each has its own message id."""

    accession_number: str = ""
    study_instance_uid: str
    revision: int
    state: str
    views: dict[str, int]
    findings: tuple[Finding, ...] = ()

    @property
    def message_type(self) -> str:
        return "exam.quality"

    @property
    def message_id(self) -> str:
        return f"{self.study_instance_uid}/quality/{self.revision}"

    @property
    def subject(self) -> str:
        return self.study_instance_uid


class Check(Message):
    """One hop: whether it is well, when that was last proven by a round trip, and what to do when it is not."""

    ok: bool
    detail: str = ""
    proven_at: str | None = None


class HealthReport(Message):
    """The `health` of a health answer."""

    healthy: bool
    version: str
    listener_uptime_seconds: float
    checks: dict[str, Check]


class Heartbeat(HealthReport, EventParameters):
    """The gateway is alive. Not a fact that is owed: it is sent past the outbox and never repeated."""

    sent_at: str

    @property
    def message_type(self) -> str:
        return "gateway.heartbeat"

    @property
    def message_id(self) -> str:
        return f"heartbeat/{self.sent_at}"

    @property
    def subject(self) -> str:
        return "heartbeat"


EVENTS: Mapping[str, type[EventParameters]] = MappingProxyType(
    {
        "study.image_received": ImageReceived,
        "mpps.in_progress": StepChanged,
        "mpps.completed": StepChanged,
        "mpps.discontinued": StepChanged,
        "image.rejected": ImageRejected,
        "image.quarantined": ImageQuarantined,
        "exam.quality": ExamQuality,
        "gateway.heartbeat": Heartbeat,
    }
)


class ActionReference(Message):
    action_id: str | None = None


class Envelope(Message):
    """What surrounds every event, at any destination.

    `timestamp` is when the fact was recorded, so a repeat is the same message to the last character.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    message_id: str
    message_type: str
    timestamp: str
    source_system: str = SOURCE_SYSTEM
    site: str
    sequence: int
    source_reference: ActionReference = ActionReference()
    parameters: dict[str, object]
