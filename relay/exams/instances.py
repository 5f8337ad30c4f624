"""Stored instances for pages and exams: where they are, and the few attributes that `READ` names.

A stored object never changes, so its attributes are read from the index once and kept; whether it is still there is
queried each time. Not here: what the attributes mean (`relay.exams.views`), other queries (`pacs.Archive`).
"""

import json
import re
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom import Dataset

from gateway.dataset.dicom_json import DicomJson, items, sequence, tag
from pacs import Archive, Stored

# Exactly what `relay.exams.views` and `relay.exams.exam` read; a test compares their results with whole data sets.
READ = frozenset(map(tag, (
    "ImageType", "SOPClassUID", "SOPInstanceUID", "AccessionNumber", "PatientName", "PatientID", "PatientBirthDate",
    "ViewPosition", "StudyInstanceUID", "SeriesInstanceUID", "Laterality", "ImageLaterality", "NumberOfFrames", "Rows",
    "PartialView", "ViewCodeSequence", "SharedFunctionalGroupsSequence",
)))  # fmt: skip
_UID = re.compile(r"[0-9.]{1,64}")
_GROUPS, _FRAME_ANATOMY = tag("SharedFunctionalGroupsSequence"), tag("FrameAnatomySequence")
MOST_KEPT = 4096
"""Two or three weeks of a site; some 9 kB each."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A stored instance and what READ names of its data set."""

    stored: Stored
    data_set: DicomJson


class Instances:
    """Queries the archive and caches attributes. Its methods block; they may be called from several threads."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._kept: OrderedDict[tuple[str, str], DicomJson] = OrderedDict()
        self._turn = threading.Lock()

    def version(self) -> int:
        """A number that changes when anything in the archive may have."""
        return self._archive.data_version()

    def of_studies(self, study_instance_uids: Iterable[str]) -> list[Instance]:
        """The instances of some studies, ordered by Instance Number; texts that are not UIDs are ignored."""
        uids = [uid for uid in study_instance_uids if _UID.fullmatch(uid)]
        return self._of(uids) if uids else []

    def of_exams(self, exams: Iterable[tuple[str, str]]) -> list[list[Instance]]:
        """The instances of each exam (Study Instance UID, Accession Number): those under the study or the number."""
        wanted = list(exams)
        under = self._archive.studies_under(number for _, number in wanted)
        studies = [dict.fromkeys((uid, *under.get(number, []))) for uid, number in wanted]
        # One query for all of them: a page lists the exams of a day.
        found: dict[str, list[Instance]] = defaultdict(list)
        for instance in self.of_studies({uid: None for each in studies for uid in each}):
            found[instance.stored.study_instance_uid].append(instance)
        return [[instance for uid in each for instance in found[uid]] for each in studies]

    def _of(self, study_instance_uids: list[str]) -> list[Instance]:
        identifier = Dataset()
        identifier.StudyInstanceUID = study_instance_uids
        found = self._archive.select(identifier)
        with self._turn:
            known = {key: self._kept[key] for key in map(_key, found) if key in self._kept}
        known |= self._read([stored for stored in found if _key(stored) not in known])
        return [Instance(stored, known[_key(stored)]) for stored in found if _key(stored) in known]

    def _read(self, unknown: Sequence[Stored]) -> dict[tuple[str, str], DicomJson]:
        """Read and keep data sets; instances removed meanwhile are left out."""
        read = {_key(stored): reduced(json.loads(document)) for stored, document in self._archive.documents(unknown)}
        with self._turn:
            self._kept |= read
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return read


def reduced(data_set: DicomJson) -> DicomJson:
    """Keep what READ names; of the functional groups, which may be long, the side alone."""
    kept = {key: element for key, element in data_set.items() if key in READ}
    if _GROUPS in kept:
        groups = items(kept, _GROUPS)
        kept[_GROUPS] = sequence(*({_FRAME_ANATOMY: each[_FRAME_ANATOMY]} for each in groups if _FRAME_ANATOMY in each))
    return kept


def _key(stored: Stored) -> tuple[str, str]:
    # With the digest, because other content may take the place of a UID.
    return stored.sop_instance_uid, stored.sha256
