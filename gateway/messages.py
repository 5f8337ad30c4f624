"""Every message that crosses the line to the cloud: actions come in, events go out.

The shapes are the wire contract, so they are written here once, as pydantic models: the worklist and the archive build
their events with them, the relay reads actions with them, and `docs/messages/` shows one example of each with its JSON
Schema. Reading is strict about what we keep (`gateway.fields`: what DICOM cannot hold is refused at this border, never
at the modality) and blind to what we do not know (unknown keys are ignored). Writing never fails on what a modality
sent: events carry texts as they came and measures as numbers or null.

Not here: what an action does (`relay.commands`), how an event travels (`relay.delivery`), the outbox itself.
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, Literal, Self

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
    OptionalUid,
    PatientId,
    PersonName,
    Sex,
    TargetUrl,
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
        "image.upload_completed": 2,
        "image.unavailable": 2,
        "worklist.test_item_performed": 2,
        "gateway.selftest_completed": 2,
        "gateway.diagnostics_completed": 2,
        "image.request": 4,
        "worklist.create_test_item": 5,
        "gateway.selftest": 5,
        "gateway.diagnostics": 5,
    }
)
"""Who goes first: 1 worklist and MPPS, 2 metadata with its thumbnail, 3 thumbnails alone, 4 full images.

From 4 on it is not events that wait but what the cloud asked for and what takes its time; 5 is what the gateway does
for itself: tests and diagnostics.
"""

LAST_EVENT = 3
"""The last priority of what leaves as an event."""


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


class Answering(EventParameters):
    """What became of something the cloud has asked for; `request_id` is the id of that action."""

    request_id: str

    @property
    def subject(self) -> str:
        return f"answers/{self.request_id}"


class UploadCompleted(Answering):
    """A full image is where it was wanted. `sha256` and `size_bytes` are of the file as it was uploaded.

    That is the stored one, unless a lossless compression was asked for; the transfer syntax says so.
    """

    sop_instance_uid: str
    sha256: str
    size_bytes: int
    transfer_syntax_uid: str

    @property
    def message_type(self) -> str:
        return "image.upload_completed"

    @property
    def message_id(self) -> str:
        return f"{self.request_id}/{self.sop_instance_uid}/uploaded"


class ImageUnavailable(Answering):
    """A full image cannot be given; ask again, with another action id, once the reason is out of the way."""

    sop_instance_uid: str
    code: Literal["not_found", "not_convertible", "held_back", "url_refused", "refused"]
    reason: str

    @property
    def message_type(self) -> str:
        return "image.unavailable"

    @property
    def message_id(self) -> str:
        return f"{self.request_id}/{self.sop_instance_uid}/unavailable"


class SeenHop(Message):
    """One hop of a test: `ok`, `failed` or `skipped`, and what was seen."""

    name: str
    state: str
    detail: str = ""
    seconds: float = 0.0


class Tested(Answering):
    """How a test went, hop by hop; `reason` says why it did not run at all, or not to its end."""

    passed: bool
    reason: str = ""
    hops: tuple[SeenHop, ...] = ()

    @property
    def message_id(self) -> str:
        return f"{self.request_id}/tested"


class SelftestCompleted(Tested):
    @property
    def message_type(self) -> str:
        return "gateway.selftest_completed"


class TestItemPerformed(Tested):
    """The emulator has performed a test item, or tried to."""

    @property
    def message_type(self) -> str:
        return "worklist.test_item_performed"


class DiagnosticsCompleted(Answering):
    """A diagnostics bundle is where it was wanted, or on site as `file`; or there is none, because of `reason`."""

    file: str = ""
    sha256: str = ""
    size_bytes: int = 0
    reason: str = ""

    @property
    def message_type(self) -> str:
        return "gateway.diagnostics_completed"

    @property
    def message_id(self) -> str:
        return f"{self.request_id}/diagnostics"


class Finding(Message):
    code: str
    text: str


class ExamQuality(EventParameters):
    """What an exam looks like so far.

    `state` is scheduled, in_progress, complete, incomplete, discontinued or cancelled; `views` counts exposures.
    `revision` grows with every change of the judgement, so the highest one is the exam as it is.
    """

    accession_number: str = ""
    study_instance_uid: str
    revision: int
    state: str
    views: dict[str, int]
    findings: tuple[Finding, ...] = ()

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to tell: an exam that is only scheduled, or was cancelled before, has nothing."""
        return self.state not in {"scheduled", "cancelled"}

    @property
    def digest(self) -> str:
        """The same for the same judgement, whatever its revision."""
        return hashlib.sha256(self.model_dump_json(exclude={"revision"}).encode()).hexdigest()[:16]

    @property
    def message_type(self) -> str:
        return "exam.quality"

    @property
    def message_id(self) -> str:
        # The digest tells revisions apart that a site counted again after it was restored from a backup.
        return f"{self.study_instance_uid}/{self.accession_number}/quality/{self.revision}/{self.digest}"

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
        "image.upload_completed": UploadCompleted,
        "image.unavailable": ImageUnavailable,
        "worklist.test_item_performed": TestItemPerformed,
        "gateway.selftest_completed": SelftestCompleted,
        "gateway.diagnostics_completed": DiagnosticsCompleted,
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
