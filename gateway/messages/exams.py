"""The events about an exam: its performed procedure step, and its quality by its images.

Not for: the transitions of a step (`worklist.mpps`), the rules of quality (`relay.exams.exam`).
"""

import hashlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Literal

from gateway.messages.envelope import EventParameters, Message


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
        # The revision makes "as it was before" a message of its own. The digest distinguishes two events with the same
        # revision, which a site counts again after it was restored from a backup.
        return f"{self.study_instance_uid}/{self.accession_number}/quality/{self.revision}/{self.digest}"

    @property
    def subject(self) -> str:
        # That of the exam's images, so that the quality arrives after the images it is about.
        return self.study_instance_uid
