"""An item: one scheduled procedure step, with the whole data set of its worklist answer (PS3.4 Table K.6-1).

`from_message` makes one from the cloud's message, `from_dicom_json` from a whole data set. Both complete the Type 1 and
Type 2 attributes of the table and refuse values that DICOM cannot hold.

A performed step moves its items from any state (`performed_state`); the cloud or an operator may move an item along
`MOVES` only. An action changes an item once (`ActionOrigin.action_id`), and not at all when a later action has changed
it before (`Item.requested`). The study is fixed when an item is scheduled.

Not for: storing items, matching them, performed steps.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, Self
from uuid import NAMESPACE_OID, uuid5

from gateway.dataset.character_sets import UTF_8
from gateway.dataset.dicom_json import DicomJson, element, items, sequence, tag, text, texts
from gateway.errors import Conflict, InvalidValue
from gateway.messages import WorklistItem
from worklist.validation import checked

ItemState = Literal["scheduled", "in_progress", "completed", "discontinued", "cancelled"]

MOVES: Mapping[ItemState, frozenset[ItemState]] = MappingProxyType(
    {
        "scheduled": frozenset({"in_progress", "completed", "discontinued", "cancelled"}),
        "in_progress": frozenset({"completed", "discontinued"}),
        "completed": frozenset(),
        "discontinued": frozenset({"scheduled"}),
        "cancelled": frozenset({"scheduled"}),
    }
)
"""The states to which the cloud or an operator may move an item. A move to its present state changes nothing."""

_STEP = "ScheduledProcedureStepSequence"

_REQUIRED = ("AccessionNumber", "PatientName", "PatientID")
_REQUIRED_OF_STEP = ("ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime", "Modality")

_TYPE_2 = (
    "ReferringPhysicianName", "PatientBirthDate", "PatientSex", "PatientWeight", "MedicalAlerts", "Allergies",
    "PregnancyStatus", "RequestingPhysician", "AdmissionID", "SpecialNeeds", "CurrentPatientLocation", "PatientState",
    "RequestedProcedurePriority", "PatientTransportArrangements", "ConfidentialityConstraintOnPatientDataDescription",
    "ReferencedStudySequence", "ReferencedPatientSequence",
)  # fmt: skip
_TYPE_2_OF_STEP = ("ScheduledPerformingPhysicianName", "ScheduledStationName", "ScheduledProcedureStepLocation")

_REQUIRED_WITHIN = {
    "RequestedProcedureCodeSequence": ("CodeValue", "CodingSchemeDesignator"),
    "ScheduledProtocolCodeSequence": ("CodeValue", "CodingSchemeDesignator"),
    "ReferencedStudySequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
    "ReferencedPatientSequence": ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"),
}
"""Attributes of Type 1 in the items of optional sequences."""


@dataclass(frozen=True, slots=True)
class ActionOrigin:
    """The action that requests a change: its id, the hash of its content, and when it was made (UTC text).

    Unknown parts are empty; without an action id a repeated request is carried out again.
    """

    action_id: str = ""
    content_hash: str = ""
    asked_at: str = ""


LOCAL = ActionOrigin()
"""A change made on site, now."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One scheduled procedure step.

    `data_set` is the answer to a query, in DICOM JSON; the properties read it. Study Instance UID is empty until the
    item is scheduled, then fixed. `appointment_id` is the cloud's own name, kept and never interpreted. Times ending in
    `_at` are UTC text; `asked_at` is the time of the newest action that changed the item, '' if unknown.
    """

    data_set: DicomJson
    state: ItemState = "scheduled"
    action_id: str = ""
    appointment_id: str = ""
    revision: int = 1
    asked_at: str = ""
    created_at: str = ""
    updated_at: str = ""

    @classmethod
    def from_message(cls, message: WorklistItem, *, action_id: str = "", appointment_id: str = "") -> Self:
        """Make an item from the cloud's message; its named fields win over the same attributes in `dicom`.

        Raises InvalidValue naming the attribute, never its value.
        """
        given = {key.upper(): value for key, value in message.dicom.items()}
        data_set = given | {
            tag("AccessionNumber"): element("AccessionNumber", message.accession_number),
            tag("PatientName"): element("PatientName", message.participant.name),
            tag("PatientID"): element("PatientID", message.participant.nhs_number),
            tag("PatientBirthDate"): element("PatientBirthDate", message.participant.birth_date),
            tag("PatientSex"): element("PatientSex", message.participant.sex),
            tag(_STEP): sequence(_single_step(given) | _scheduled(message)),
        }
        if description := message.procedure.study_description:
            data_set |= {
                tag("StudyDescription"): element("StudyDescription", description),
                tag("RequestedProcedureDescription"): element("RequestedProcedureDescription", description),
            }
        return cls.from_dicom_json(data_set, action_id=action_id, appointment_id=appointment_id)

    @classmethod
    def from_dicom_json(cls, data_set: Mapping[str, object], *, action_id: str = "", appointment_id: str = "") -> Self:
        """Make an item from a whole data set in DICOM JSON, completing the Type 1 and 2 attributes it lacks.

        Raises InvalidValue naming the attribute, never its value.
        """
        # Refused here, because the sender can correct it and a modality could not.
        complete = checked(_completed({key.upper(): value for key, value in data_set.items()}))
        return cls(data_set=complete, action_id=action_id, appointment_id=appointment_id)

    @property
    def step(self) -> DicomJson:
        """The one item of the Scheduled Procedure Step Sequence."""
        return items(self.data_set, _STEP)[0]

    @property
    def accession_number(self) -> str:
        return text(self.data_set, "AccessionNumber")

    @property
    def participant_id(self) -> str:
        return text(self.data_set, "PatientID")

    @property
    def patient_name(self) -> str:
        return text(self.data_set, "PatientName")

    @property
    def birth_date(self) -> str:
        return text(self.data_set, "PatientBirthDate")

    @property
    def sex(self) -> str:
        return text(self.data_set, "PatientSex")

    @property
    def date(self) -> str:
        """YYYYMMDD, wall time of the site."""
        return text(self.step, "ScheduledProcedureStepStartDate")

    @property
    def time(self) -> str:
        """HHMMSS or shorter, wall time of the site."""
        return text(self.step, "ScheduledProcedureStepStartTime")

    @property
    def modality(self) -> str:
        return text(self.step, "Modality")

    @property
    def station_ae_titles(self) -> tuple[str, ...]:
        """The stations the item is for; empty means any."""
        return texts(self.step, "ScheduledStationAETitle")

    @property
    def performing_physician_name(self) -> str:
        return text(self.step, "ScheduledPerformingPhysicianName")

    @property
    def study_description(self) -> str:
        return text(self.data_set, "RequestedProcedureDescription")

    @property
    def study_instance_uid(self) -> str:
        return text(self.data_set, "StudyInstanceUID")

    @property
    def sps_id(self) -> str:
        return text(self.step, "ScheduledProcedureStepID")

    @property
    def requested_procedure_id(self) -> str:
        return text(self.data_set, "RequestedProcedureID")

    def with_study(self, study_instance_uid: str) -> Self:
        """The same item in a study; an item that already names a study stays in that."""
        if self.study_instance_uid:
            return self
        study = {tag("StudyInstanceUID"): element("StudyInstanceUID", study_instance_uid)}
        return replace(self, data_set=self.data_set | study)

    def requested(self, origin: ActionOrigin) -> Self:
        """The same item with the time of the action that changes it. Raises Conflict after a later action."""
        # Ordered by the cloud's time and not by a number in the item, because the existing cloud sends no numbers.
        if not origin.asked_at:
            return self
        if origin.asked_at < self.asked_at:
            raise Conflict(
                f"Item {self.accession_number} was changed by a request of {self.asked_at};"
                f" this one is older, of {origin.asked_at}."
            )
        return replace(self, asked_at=origin.asked_at)

    def updated(self, item: "Item") -> Self:
        """The same item with the content of another. Raises Conflict once it has begun, and for another study."""
        if self.state != "scheduled":
            raise Conflict(f"Item {self.accession_number} is {self.state}; only a scheduled item can be updated.")
        if item.with_study(self.study_instance_uid).study_instance_uid != self.study_instance_uid:
            raise Conflict(f"Item {self.accession_number} is in another study, which is fixed; leave it out.")
        appointment_id = item.appointment_id or self.appointment_id
        return replace(self, data_set=item.with_study(self.study_instance_uid).data_set, appointment_id=appointment_id)

    def rescheduled(self, *, date: str, time: str) -> Self:
        """The same item at another date (YYYYMMDD) and time (HHMMSS).

        Raises InvalidValue when they are malformed, Conflict when the item is over.
        """
        if self.state not in {"scheduled", "in_progress"}:
            raise Conflict(f"Item {self.accession_number} is {self.state}; only an open item can be rescheduled.")
        step = self.step | {
            tag("ScheduledProcedureStepStartDate"): element("ScheduledProcedureStepStartDate", date),
            tag("ScheduledProcedureStepStartTime"): element("ScheduledProcedureStepStartTime", time),
        }
        return replace(self, data_set=checked(_completed(self.data_set | {tag(_STEP): sequence(step)})))

    def moved(self, state: ItemState) -> Self:
        """The same item in another state. Raises Conflict when `MOVES` does not allow it."""
        if state != self.state and state not in MOVES[self.state]:
            raise Conflict(f"Item {self.accession_number} is {self.state} and cannot become {state}.")
        return replace(self, state=state)


def performed_state(statuses: Collection[str], *, otherwise: ItemState) -> ItemState:
    """The state of an item by the statuses of all its performed steps; `otherwise` when there are none."""
    # One step in progress wins over any that ended, and one completed over any discontinued, because an exam that was
    # broken off may be taken up again in a second step.
    if "IN PROGRESS" in statuses:
        return "in_progress"
    if "COMPLETED" in statuses:
        return "completed"
    return "discontinued" if statuses else otherwise


def new_study(action_id: str, accession_number: str) -> str:
    """A Study Instance UID for a scheduled item (PS3.5 B.2); the same action gives the same UID."""
    # Not random, because an action repeated into a database restored from a backup must lead to the study that the
    # images already carry.
    return f"2.25.{uuid5(NAMESPACE_OID, f'{action_id}/{accession_number}').int}"


def _scheduled(message: WorklistItem) -> DicomJson:
    return {
        tag("Modality"): element("Modality", message.procedure.modality),
        tag("ScheduledProcedureStepStartDate"): element("ScheduledProcedureStepStartDate", message.scheduled.date),
        tag("ScheduledProcedureStepStartTime"): element("ScheduledProcedureStepStartTime", message.scheduled.time),
    }


def _completed(data_set: Mapping[str, object]) -> dict[str, object]:
    _require(data_set, _REQUIRED)
    step = _single_step(data_set)
    _require(step, _REQUIRED_OF_STEP)
    accession_number = text(data_set, "AccessionNumber")
    complete = _filled(data_set, "RequestedProcedureID", accession_number)
    if not _is_known(complete, "RequestedProcedureCodeSequence"):  # 1C: a code or a description
        complete = _filled(complete, "RequestedProcedureDescription", text(step, "Modality"))
    for keyword, required in _REQUIRED_WITHIN.items():
        for item in items(data_set, keyword) + items(step, keyword):
            _require({key.upper(): value for key, value in item.items()}, required)
    # The item is stored in Unicode whatever its sender used; `answers` chooses the set for each peer.
    charset = {tag("SpecificCharacterSet"): element("SpecificCharacterSet", UTF_8)}
    complete_step = _completed_step(step, accession_number, text(complete, "RequestedProcedureDescription"))
    empty = {tag(keyword): element(keyword) for keyword in _TYPE_2}
    whole = {**empty, **complete, **charset, tag(_STEP): sequence(complete_step)}
    return {key: whole[key] for key in sorted(whole) if not key.endswith("0000")}  # group lengths would not hold


def _completed_step(step: Mapping[str, object], accession_number: str, description: str) -> dict[str, object]:
    complete = _filled(step, "ScheduledProcedureStepID", accession_number)
    if not _is_known(complete, "ScheduledProtocolCodeSequence"):  # 1C: a code or a description
        complete = _filled(complete, "ScheduledProcedureStepDescription", description)
    empty = {tag(keyword): element(keyword) for keyword in ("ScheduledStationAETitle", *_TYPE_2_OF_STEP)}
    return dict(sorted({**empty, **complete}.items()))


def _single_step(data_set: Mapping[str, object]) -> DicomJson:
    steps = items(data_set, _STEP)
    if len(steps) > 1:
        raise InvalidValue(f"{_STEP} has to have one item; schedule further steps as items of their own.")
    return {key.upper(): value for key, value in steps[0].items()} if steps else {}


def _require(data_set: Mapping[str, object], keywords: tuple[str, ...]) -> None:
    for keyword in keywords:
        if not text(data_set, keyword).strip("^= "):
            raise InvalidValue(f"{keyword} has to have a value.")


def _filled(data_set: Mapping[str, object], keyword: str, value: str) -> Mapping[str, object]:
    return data_set if texts(data_set, keyword) else {**data_set, tag(keyword): element(keyword, value)}


def _is_known(data_set: Mapping[str, object], keyword: str) -> bool:
    return bool(items(data_set, keyword))
