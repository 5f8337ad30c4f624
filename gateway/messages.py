"""Every message that crosses the line to the cloud: actions come in, events go out.

The shapes are the wire contract, so they are written here once, as pydantic models: the worklist and the archive build
their events with them, the relay reads actions with them, and `docs/messages/` shows one example of each with its JSON
Schema. Reading is strict about what we keep (a value that DICOM cannot hold is refused at this border, never at the
modality) and blind to what we do not know (unknown keys are ignored). Writing never fails on what a modality sent:
events carry texts as they came and measures as numbers or null.

Not here: what an action does (`relay.commands`), how an event travels (`relay.delivery`), the outbox itself.

Later actions (`image.request`, `gateway.selftest`, `gateway.diagnostics`) take one model and one line in `ACTIONS`;
until then they are answered as unsupported.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

SCHEMA_VERSION: Final = 1
SOURCE_SYSTEM = "screening-gateway"

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


# --- the kinds of text DICOM can hold (PS3.5 Table 6.2-1) -------------------------------------------------------------

_EIGHT_DIGITS = re.compile(r"[0-9]{8}")
_EARLIEST, _LATEST = "18500101", "99981231"  # beyond are typing errors, and what no time zone can be applied to
_NOT_TEXT = re.compile(r"[\\\x00-\x1f\x7f]")  # a backslash separates values, controls belong to character sets
_CODE_STRING = re.compile(r"[A-Z0-9_ ]*")
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9])?)?")
_ACTION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")


def _text(value: str) -> str:
    if _NOT_TEXT.search(value):
        raise ValueError("must not contain a backslash or control characters")
    return value


def _code_string(value: str) -> str:
    if not _CODE_STRING.fullmatch(value):
        raise ValueError("must hold upper case letters, digits, spaces and underscores only")
    return value


def _date(value: str) -> str:
    # strptime alone would also read "2026111 " and other digits than ASCII's.
    if _EIGHT_DIGITS.fullmatch(value) and _EARLIEST <= value <= _LATEST:
        try:
            datetime.strptime(value, "%Y%m%d")
        except ValueError:
            pass
        else:
            return value
    raise ValueError("must be a date of the calendar written YYYYMMDD")


def _optional_date(value: str) -> str:
    return _date(value) if value else value


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise ValueError("must be a time written HHMMSS, HHMM or HH")
    return value


def _person_name(value: str) -> str:
    groups = value.split("=")
    if len(groups) > 3 or any(len(group) > 64 or group.count("^") > 4 for group in groups):
        raise ValueError("must be a person name of at most 3 groups of 64 characters with 5 components each")
    if not value.strip("^= "):
        raise ValueError("must not be empty")
    return value


def _attributes(value: dict[str, object]) -> dict[str, object]:
    # Checked as a whole, so that an error never names a key: keys come from outside as well.
    for tag, element in value.items():
        if not _TAG.fullmatch(tag) or not isinstance(element, dict) or not isinstance(element.get("vr"), str):
            raise ValueError("must be DICOM JSON: eight hexadecimal digits naming an object with its vr (PS3.18 F.2)")
    return value


def _action_id(value: str) -> str:
    if not _ACTION_ID.fullmatch(value):
        raise ValueError("must be 1 to 128 letters, digits, dots, colons, hyphens and underscores")
    return value


def _optional_action_id(value: str) -> str:
    return _action_id(value) if value else value


def _time_zone(value: str) -> str:
    try:
        if value:
            ZoneInfo(value)
    except (ValueError, KeyError, OSError):
        raise ValueError("must be the IANA name of a time zone, such as Europe/London or UTC") from None
    return value


def _status_word(value: object) -> object:
    return re.sub(r"[\s-]+", "_", value.strip().lower()) if isinstance(value, str) else value


def _empty_if_null(value: object) -> object:
    return "" if value is None else value


def _measure(value: object) -> float | None:
    """Give a number as JSON can hold it; a value nobody can read as a number is absent, not an error."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


# What a validator demands is repeated as a pattern where JSON Schema can say it: the schemas are for the cloud's team.
ActionId = Annotated[str, AfterValidator(_action_id), Field(json_schema_extra={"pattern": "^[A-Za-z0-9._:-]{1,128}$"})]
OptionalActionId = Annotated[str, BeforeValidator(_empty_if_null), AfterValidator(_optional_action_id)]
AccessionNumber = Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_text)]  # SH
PatientId = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_text)]  # LO
PersonName = Annotated[
    str,
    Field(min_length=1, description="DICOM PN: LAST^FIRST^MIDDLE^PREFIX^SUFFIX"),
    AfterValidator(_text),
    AfterValidator(_person_name),
]
LongText = Annotated[str, BeforeValidator(_empty_if_null), Field(max_length=64), AfterValidator(_text)]  # LO, type 2
CodeString = Annotated[
    str,
    Field(min_length=1, max_length=16, json_schema_extra={"pattern": "^[A-Z0-9_ ]+$"}),
    AfterValidator(_code_string),
]  # CS
Date = Annotated[str, AfterValidator(_date), Field(description="DICOM DA", json_schema_extra={"pattern": "^[0-9]{8}$"})]
OptionalDate = Annotated[
    str,
    BeforeValidator(_empty_if_null),
    AfterValidator(_optional_date),
    Field(description="DICOM DA", json_schema_extra={"pattern": "^([0-9]{8})?$"}),
]  # type 2
Time = Annotated[
    str,
    AfterValidator(_time),
    Field(description="DICOM TM without fraction", json_schema_extra={"pattern": "^[0-9]{2}([0-9]{2}){0,2}$"}),
]
TimeZone = Annotated[
    str, BeforeValidator(_empty_if_null), AfterValidator(_time_zone), Field(description="IANA name; empty: site-local")
]
Sex = Annotated[Literal["M", "F", "O", ""], BeforeValidator(_empty_if_null)]  # PS3.3 C.7.1.1, type 2
ItemStatus = Annotated[
    Literal["scheduled", "in_progress", "completed", "discontinued", "cancelled"], BeforeValidator(_status_word)
]
"""The state of a worklist item; read in any case and with blanks or hyphens, as `IN PROGRESS`."""
Measure = Annotated[float | None, BeforeValidator(_measure)]


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
    dicom: Annotated[dict[str, object], AfterValidator(_attributes)] = Field(default_factory=dict)


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

    Without a thumbnail, `thumbnail_reason` says why there is none.
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

    `started_at` and `ended_at` are the modality's wall time, ISO 8601 without an offset.
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
