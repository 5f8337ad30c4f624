"""The message contract with the cloud: actions come in, events go out, each a pydantic model.

Worklist and archive build events with them, the relay reads actions with them, and `docs/messages/` shows an example of
each with its JSON Schema. Import them from this package; there is one file for each subject.

* Reading is strict about kept values (`gateway.messages.fields`), and ignores unknown keys.
* Writing never fails on a modality's data: events carry texts as they came, and measures as numbers or null.

Not here: the effect of an action (`relay.cloud.commands`), delivery (`relay.delivery.delivery`), the outbox.
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
