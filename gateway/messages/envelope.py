"""The base of every message, the identity of an event, the envelope around it, and the priorities.

Not for: the fields of any one message.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

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
"""Order of sending: 1 worklist and MPPS, 2 metadata with its thumbnail, 3 thumbnails alone, 4 full images.

From 4 on the entries are deferred actions of the cloud and no events; 5 is for site tasks, that is tests and
diagnostics.
"""

LAST_EVENT = 3
"""The last priority of an event; the outbox's triggers have the same limit (0004_requests.sql)."""


class Message(BaseModel):
    """What all messages share: they do not change, and unknown keys are ignored."""

    # Unknown keys are ignored, so that the cloud can add some before every site has the release that reads them.
    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)


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
