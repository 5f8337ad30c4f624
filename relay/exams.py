"""What an exam looks like: the worklist item and the images that have arrived, put side by side.

A screening exam has RCC, LCC, RMLO and LMLO, unless the order names one side (after a mastectomy). Findings name
attributes and views and never hold patient data: they travel to the cloud and into logs.

Pure functions over values. Not here: which view an image shows (`relay.views`), asking the two databases
(`relay.board`), telling the cloud.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.messages import Finding
from relay.dicom_json import DicomJson, items, text
from relay.views import STANDARD_VIEWS, Image, count, image


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
    def data_set(self) -> DicomJson: ...


@dataclass(frozen=True)
class Exam:
    """What has arrived of one exam, in exposures per view, and what is wrong with it."""

    accession_number: str
    study_instance_uid: str
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


def exam(item: ScheduledItem, data_sets: Iterable[DicomJson]) -> Exam:
    """Put an item and the instances of its study or of its accession number side by side."""
    instances = list(data_sets)
    images = tuple(map(image, instances))
    expected = _expected(item.data_set)
    views = count(each for each in images if each.is_standard)
    findings = (
        *_mismatches(item, instances),
        *_unexpected_sides(images, expected),
        *(finding for each in images for finding in each.findings),
        *_repeats(views),
    )
    return Exam(
        accession_number=item.accession_number,
        study_instance_uid=item.study_instance_uid,
        images=images,
        expected=expected,
        views=views,
        implant_displaced=count(each for each in images if each.is_implant_displaced),
        findings=tuple({(finding.code, finding.text): finding for finding in findings}.values()),
    )


def _expected(data_set: DicomJson) -> tuple[str, ...]:
    """The views an order asks for: all four, or one side where it names one in Laterality."""
    step = next(iter(items(data_set, "00400100")), {})
    side = text(step, "00200060") or text(data_set, "00200060")
    return tuple(view for view in STANDARD_VIEWS if side not in {"R", "L"} or view.startswith(side))


def _mismatches(item: ScheduledItem, instances: Sequence[DicomJson]) -> Iterator[Finding]:
    """Compare who and what; an image that does not say is a mismatch for the patient only."""
    patients = [text(instance, "00100020") or "none" for instance in instances]
    births = [text(instance, "00100030") for instance in instances]
    accessions = [text(instance, "00080050") for instance in instances]
    studies = [text(instance, "0020000D") for instance in instances]
    yield from _mismatch("patient_mismatch", "Patient ID", patients, item.participant_id)
    yield from _mismatch("birth_date_mismatch", "Patient's Birth Date", births, item.birth_date)
    yield from _mismatch("accession_mismatch", "Accession Number", accessions, item.accession_number)
    yield from _mismatch("study_mismatch", "Study Instance UID", studies, item.study_instance_uid)


def _mismatch(code: str, name: str, found: Iterable[str], wanted: str) -> Iterator[Finding]:
    different = sum(1 for value in found if value and wanted and _plain(value) != _plain(wanted))
    if different:
        images = "1 image" if different == 1 else f"{different} images"
        yield Finding(code=code, text=f"{name} of {images} differs from the worklist.")


def _plain(value: str) -> str:
    """An NHS number is written with and without blanks."""
    return value.replace(" ", "")


def _unexpected_sides(images: Sequence[Image], expected: Sequence[str]) -> Iterator[Finding]:
    asked = {view[0] for view in expected}
    for side, word in (("R", "right"), ("L", "left")):
        if side not in asked and any(each.laterality == side for each in images):
            yield Finding(
                code="laterality_mismatch", text=f"The {word} breast was imaged; the order asks for the other."
            )


def _repeats(views: Mapping[str, int]) -> Iterator[Finding]:
    for view, times in views.items():
        if times > 1:
            yield Finding(code="repeated_view", text=f"{view} was taken {times} times without a view modifier.")
