"""The events about an exam: its performed procedure step, and what its images make of it.

Not for: which steps are taken (`worklist.mpps`), how an exam is judged (`relay.exams`).
"""

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
