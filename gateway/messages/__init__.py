"""Every message that crosses the line to the cloud: actions come in, events go out.

The shapes are the wire contract, so they are written here once, as pydantic models: the worklist and the archive build
their events with them, the relay reads actions with them, and `docs/messages/` shows one example of each with its JSON
Schema. Reading is strict about what we keep (`gateway.messages.fields`: what DICOM cannot hold is refused at this
border, never at the modality) and blind to what we do not know (unknown keys are ignored). Writing never fails on what
a modality sent: events carry texts as they came and measures as numbers or null.

One file for each subject; who imports a message says `from gateway.messages import ...` and need not know which. Here
is only the table of all events, as that of all actions is with them.

Not here: what an action does (`relay.cloud.commands`), how an event travels (`relay.delivery.delivery`), the outbox
itself.
"""

from collections.abc import Mapping
from types import MappingProxyType

from gateway.messages.actions import (
    ACTIONS,
    LOCAL_ACTION,
    Action,
    CancelItem,
    CancelledItem,
    ChangedStatus,
    CollectDiagnostics,
    CreateItem,
    CreateTestItem,
    Echo,
    Forced,
    Health,
    ItemReference,
    ItemWithStatus,
    ItemWithTime,
    NewItem,
    Participant,
    Procedure,
    RequestImage,
    RescheduledItem,
    RescheduleItem,
    RunSelftest,
    Scheduled,
    SourceReference,
    Target,
    UpdateItem,
    UpdateStatus,
    WantedImage,
    WorklistItem,
)
from gateway.messages.answers import (
    Answering,
    DiagnosticsCompleted,
    ImageUnavailable,
    SeenHop,
    SelftestCompleted,
    Tested,
    TestItemPerformed,
    UploadCompleted,
)
from gateway.messages.envelope import (
    LAST_EVENT,
    PRIORITY,
    SCHEMA_VERSION,
    SOURCE_SYSTEM,
    ActionReference,
    Envelope,
    EventParameters,
    Message,
)
from gateway.messages.exams import (
    ExamQuality,
    Finding,
    PerformedSeries,
    StepChanged,
)
from gateway.messages.health import (
    Check,
    HealthReport,
    Heartbeat,
)
from gateway.messages.images import (
    Acquisition,
    Dimensions,
    Image,
    ImagedParticipant,
    ImageQuarantined,
    ImageReceived,
    ImageRejected,
    Series,
    Study,
    Thumbnail,
)

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

__all__ = [
    "ACTIONS",
    "EVENTS",
    "LAST_EVENT",
    "LOCAL_ACTION",
    "PRIORITY",
    "SCHEMA_VERSION",
    "SOURCE_SYSTEM",
    "Acquisition",
    "Action",
    "ActionReference",
    "Answering",
    "CancelItem",
    "CancelledItem",
    "ChangedStatus",
    "Check",
    "CollectDiagnostics",
    "CreateItem",
    "CreateTestItem",
    "DiagnosticsCompleted",
    "Dimensions",
    "Echo",
    "Envelope",
    "EventParameters",
    "ExamQuality",
    "Finding",
    "Forced",
    "Health",
    "HealthReport",
    "Heartbeat",
    "Image",
    "ImageQuarantined",
    "ImageReceived",
    "ImageRejected",
    "ImageUnavailable",
    "ImagedParticipant",
    "ItemReference",
    "ItemWithStatus",
    "ItemWithTime",
    "Message",
    "NewItem",
    "Participant",
    "PerformedSeries",
    "Procedure",
    "RequestImage",
    "RescheduleItem",
    "RescheduledItem",
    "RunSelftest",
    "Scheduled",
    "SeenHop",
    "SelftestCompleted",
    "Series",
    "SourceReference",
    "StepChanged",
    "Study",
    "Target",
    "TestItemPerformed",
    "Tested",
    "Thumbnail",
    "UpdateItem",
    "UpdateStatus",
    "UploadCompleted",
    "WantedImage",
    "WorklistItem",
]
