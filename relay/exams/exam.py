"""What an exam looks like: the worklist item, what its steps report, and the images that have arrived.

Pure functions over values. Findings travel to the cloud and into logs, so they name attributes and views and never hold
patient data. Whether a finding holds an image back is `relay.exams.holding`'s decision.

Not here: which view an image shows (`relay.exams.views`), reading the two databases (`relay.exams.evidence`), sending
the exam quality (`relay.exams.quality`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gateway.dataset.dicom_json import DicomJson, items, text
from gateway.messages import ExamQuality, Finding
from relay.exams.views import STANDARD_VIEWS, Image, count, image
from worklist import Performed

ExamState = Literal["scheduled", "in_progress", "complete", "incomplete", "discontinued", "cancelled"]

NOTHING_PERFORMED = Performed(steps=0, is_over=False, images=(), others=())


class ScheduledItem(Protocol):
    """What an exam needs of a worklist item."""

    @property
    def accession_number(self) -> str: ...
    @property
    def participant_id(self) -> str: ...
    @property
    def birth_date(self) -> str: ...
    @property
    def study_instance_uid(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def data_set(self) -> DicomJson: ...


@dataclass(frozen=True)
class Exam:
    """What has arrived of one exam, in exposures per view, and what is wrong with it."""

    accession_number: str
    study_instance_uid: str
    state: ExamState
    images: tuple[Image, ...]
    expected: tuple[str, ...]
    views: Mapping[str, int]
    implant_displaced: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def present(self) -> tuple[str, ...]:
        """The expected views that are here."""
        return tuple(view for view in self.expected if self.views[view])

    @property
    def missing(self) -> tuple[str, ...]:
        """The expected views that are not here (yet)."""
        return tuple(view for view in self.expected if not self.views[view])

    @property
    def extras(self) -> tuple[Image, ...]:
        """Images of a breast that stand for none of the four views, implant-displaced ones not counted."""
        return tuple(
            each for each in self.images if each.name and not each.is_standard and not each.is_implant_displaced
        )


def exam(
    item: ScheduledItem,
    data_sets: Iterable[DicomJson],
    *,
    performed: Performed = NOTHING_PERFORMED,
    not_received: int = 0,
    held_back: int = 0,
) -> Exam:
    """Compare an item, its instances and what its steps report.

    `not_received` is how many images of `performed` never came, `held_back` how many of the instances are held back
    from the cloud until a person releases them.
    """
    instances = list(data_sets)
    images = tuple(map(image, instances))
    expected = _expected(item.data_set)
    views = count(each for each in images if each.is_standard)
    missing = [view for view in expected if not views[view]]
    state = _state(item.state, performed, is_whole=not missing and not not_received, has_images=bool(images))
    findings = (
        *_end(state, performed),
        *(_missing(missing) if state == "incomplete" else ()),
        *(_not_received(not_received, len(performed.images)) if performed.is_over else ()),
        *_mismatches(item, instances),
        *_held_back(held_back),
        *(finding for each in images for finding in each.findings),
        *_repeats(views),
    )
    return Exam(
        accession_number=item.accession_number,
        study_instance_uid=item.study_instance_uid,
        state=state,
        images=images,
        expected=expected,
        views=views,
        implant_displaced=count(each for each in images if each.is_implant_displaced),
        findings=tuple({(finding.code, finding.text): finding for finding in findings}.values()),
    )


def judgement(seen: Exam) -> ExamQuality:
    """The `exam.quality` event of an exam, with revision 0; the archive sets it when it enqueues the event."""
    return ExamQuality(
        accession_number=seen.accession_number,
        study_instance_uid=seen.study_instance_uid,
        revision=0,
        state=seen.state,
        views=dict(seen.views),
        findings=seen.findings,
    )


def disagreements(item: ScheduledItem, data_set: DicomJson) -> tuple[str, ...]:
    """In what an image differs from an item, as codes of findings.

    A missing Patient ID counts as a difference; other missing attributes do not.
    """
    compared = (
        # "none" makes a missing Patient ID differ, because nothing else says whose the image is.
        ("patient_mismatch", text(data_set, "PatientID") or "none", item.participant_id),
        ("birth_date_mismatch", text(data_set, "PatientBirthDate"), item.birth_date),
        ("accession_mismatch", text(data_set, "AccessionNumber"), item.accession_number),
        ("study_mismatch", text(data_set, "StudyInstanceUID"), item.study_instance_uid),
        ("laterality_mismatch", _side(image(data_set).laterality), _ordered_side(item.data_set)),
    )
    return tuple(code for code, found, wanted in compared if found and wanted and _plain(found) != _plain(wanted))


def belongs(item: ScheduledItem, others: Iterable[ScheduledItem], data_set: DicomJson) -> bool:
    """Whether an image in a study of several items belongs to `item`: yes, unless it has another's accession number."""
    number = text(data_set, "AccessionNumber")
    return number not in {other.accession_number for other in others} - {item.accession_number}


COMPARED: Mapping[str, str] = {
    "patient_mismatch": "Patient ID",
    "birth_date_mismatch": "Patient's Birth Date",
    "accession_mismatch": "Accession Number",
    "study_mismatch": "Study Instance UID",
    "laterality_mismatch": "Laterality",
}
"""The attribute that disagrees, by its name in PS3.6."""


def _ordered_side(data_set: DicomJson) -> str:
    """The one side of an order, R or L; '' for both, and for an order without a side."""
    step = next(iter(items(data_set, "ScheduledProcedureStepSequence")), {})
    return _side(text(step, "Laterality") or text(data_set, "Laterality"))


def _side(laterality: str) -> str:
    return laterality if laterality in {"R", "L"} else ""


def _expected(data_set: DicomJson) -> tuple[str, ...]:
    # An order names one side after a mastectomy; "" is the prefix of all four views.
    return tuple(view for view in STANDARD_VIEWS if view.startswith(_ordered_side(data_set)))


def _state(item_state: str, performed: Performed, *, is_whole: bool, has_images: bool) -> ExamState:
    """The state of an exam. A machine that reports no steps has completed it when all views are here."""
    match item_state:
        case "completed":
            return "complete" if is_whole else "incomplete"
        case "discontinued":
            return "discontinued"
        case "cancelled" if not has_images:
            return "cancelled"
        case _ if has_images and is_whole and not performed.steps:
            return "complete"
        case _ if has_images or performed.steps or item_state == "in_progress":
            return "in_progress"
    return "scheduled"


def _end(state: ExamState, performed: Performed) -> Iterator[Finding]:
    if state == "discontinued":
        # The one text in a finding that is not ours; the cloud gets it with the step as well.
        reasons = "; ".join(dict.fromkeys(reason for reason in performed.discontinued_because if reason))
        yield Finding(code="discontinued", text=f"The exam was discontinued: {reasons or 'no reason was given'}.")


def _missing(views: Sequence[str]) -> Iterator[Finding]:
    for view in views:
        yield Finding(code="view_missing", text=f"{view} is missing.")


def _not_received(number: int, announced: int) -> Iterator[Finding]:
    if number:
        yield Finding(
            code="not_received",
            text=f"{number} of {_images(announced)} that the machine says it made {_have(number)} not arrived.",
        )


def _held_back(number: int) -> Iterator[Finding]:
    if number:
        yield Finding(
            code="held_back",
            text=f"{_images(number)} {_have(number)} to be looked at by a person on site before the cloud is told.",
        )


def _mismatches(item: ScheduledItem, instances: Sequence[DicomJson]) -> Iterator[Finding]:
    numbers = Counter(code for instance in instances for code in disagreements(item, instance))
    for code, name in COMPARED.items():
        if numbers[code] and code == "laterality_mismatch":
            side = "left" if _ordered_side(item.data_set) == "R" else "right"
            yield Finding(code=code, text=f"The {side} breast was imaged; the order asks for the other.")
        elif numbers[code]:
            yield Finding(code=code, text=f"{name} of {_images(numbers[code])} differs from the worklist.")


def _repeats(views: Mapping[str, int]) -> Iterator[Finding]:
    for view, times in views.items():
        if times > 1:
            yield Finding(code="repeated_view", text=f"{view} was taken {times} times without a view modifier.")


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _plain(value: str) -> str:
    """The value without blanks, because NHS numbers are written with and without them."""
    return value.replace(" ", "")
