"""What both databases know of one exam, read for `relay.exams.exam`.

Methods block: call them in a thread. Not for: rules (`relay.exams.exam`, `relay.exams.holding`).
"""

from collections.abc import Iterable
from datetime import datetime

from pydicom import Dataset

from gateway.dataset.dicom_json import DicomJson, text
from pacs import Archive
from relay.exams.exam import Exam, belongs, exam
from relay.exams.holding import HoldRules, HoldState
from worklist import Item, Worklist

MOST_IMAGES = 500
"""Most instances read of one study; a screening exam has 4 to 20."""


class Evidence:
    """Reads the archive and the worklist."""

    def __init__(self, archive: Archive, worklist: Worklist, *, holding: HoldRules) -> None:
        self._archive = archive
        self._worklist = worklist
        self._holding = holding

    def exam(self, item: Item, data_sets: Iterable[DicomJson]) -> Exam:
        """The exam of an item as it is now, of the instances under its study or its number."""
        return self._exam(item, self._own(item, data_sets))

    def hold_states(self, sop_instance_uids: Iterable[str]) -> dict[str, HoldState]:
        """The hold state of the event of each of these images, by SOP Instance UID."""
        return self._holding.hold_states(sop_instance_uids)

    def absent(self, sop_instance_uids: Iterable[str]) -> frozenset[str]:
        """Which of these images never came."""
        return frozenset(self._archive.quality.absent(list(sop_instance_uids)))

    def beside(self, item: Item, data_sets: Iterable[DicomJson]) -> tuple[Item, ...]:
        """The items that an item's images are compared with, itself among them."""
        keys = {(item.study_instance_uid, "")}
        keys |= {(text(each, "StudyInstanceUID"), text(each, "AccessionNumber")) for each in data_sets}
        found = (
            each
            for uid, number in sorted(keys)
            for each in self._worklist.items_of(study_instance_uid=uid, accession_number=number)
        )
        return tuple({each.accession_number: each for each in found}.values())

    def hold(self, *, study_instance_uid: str, accession_number: str, now: datetime) -> list[str]:
        """Hold back the images of a study or an accession number that disagree with their items.

        Returns the message ids of the events that were not held before.
        """
        items = self.items_of(study_instance_uid=study_instance_uid, accession_number=accession_number)
        return self._holding.hold([each for item in items for each in self._instances_of(item)], now=now)

    def items_of(self, *, study_instance_uid: str, accession_number: str) -> list[Item]:
        """The items of the exams of a study or an accession number; '' means none.

        A study has the accession numbers of its images, including those that the worklist does not link to it.
        """
        numbers = {accession_number}
        if study_instance_uid:
            numbers |= {text(each, "AccessionNumber") for each in self._instances_in(study_instance_uid)}
        found = [
            item
            for number in sorted(numbers)
            for item in self._worklist.items_of(study_instance_uid=study_instance_uid, accession_number=number)
        ]
        return list({item.accession_number: item for item in found}.values())

    def exams_of(self, *, study_instance_uid: str, accession_number: str) -> list[Exam]:
        """The exams of a study or an accession number, as they are now."""
        items = self.items_of(study_instance_uid=study_instance_uid, accession_number=accession_number)
        return [self._exam(item, self._instances_of(item)) for item in items]

    def reportable_exams(self, *, study_instance_uid: str, accession_number: str) -> list[Exam]:
        """The same without exams that lack images because these were removed from the archive."""
        # What is left after retention does not say what was made, so no "view missing" may be reported from it.
        exams = self.exams_of(study_instance_uid=study_instance_uid, accession_number=accession_number)
        return [each for each in exams if not (_seems_to_lack(each) and self._has_shrunk(each))]

    def _exam(self, item: Item, instances: Iterable[DicomJson]) -> Exam:
        instances, performed = list(instances), self._worklist.performed(item.accession_number)
        return exam(
            item,
            instances,
            performed=performed,
            not_received=len(self._archive.quality.absent(performed.images)),
            held_back=self._holding.held(instances),
        )

    def _instances_of(self, item: Item) -> list[DicomJson]:
        under = self._archive.studies_under([item.accession_number]).get(item.accession_number, [])
        # By number too: an image under the right number with a wrong study is a finding, not a missing view.
        studies = dict.fromkeys((item.study_instance_uid, *under))
        return self._own(item, [instance for uid in studies for instance in self._instances_in(uid)])

    def _instances_in(self, study_instance_uid: str) -> list[DicomJson]:
        """Data sets of the study, ordered by Instance Number."""
        identifier = Dataset()
        identifier.StudyInstanceUID = study_instance_uid
        return list(self._archive.find("IMAGE", identifier, limit=MOST_IMAGES))

    def _own(self, item: Item, found: Iterable[DicomJson]) -> list[DicomJson]:
        others = self._worklist.items_of(study_instance_uid=item.study_instance_uid)
        own = (instance for instance in found if belongs(item, others, instance))
        return list({text(instance, "SOPInstanceUID"): instance for instance in own}.values())

    def _has_shrunk(self, seen: Exam) -> bool:
        studies = {seen.study_instance_uid, *(image.study_instance_uid for image in seen.images)}
        return self._archive.quality.has_shrunk(studies)


def _seems_to_lack(seen: Exam) -> bool:
    return not seen.images or any(finding.code == "view_missing" for finding in seen.findings)
