"""The study search, and the quick look at one study.

Matching is the archive's, as for QIDO-RS and C-FIND. A name matches anywhere in the name, unless it has wildcards;
everything else has to be equal. A search that cannot be understood is refused. Values for templates only.

Not here: HTML (`relay.pages.html`), the rules of an exam (`relay.exams.exam`).
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydicom import Dataset

from gateway.dataset.dicom_json import DicomJson, person_name, text, values
from gateway.errors import InvalidQuery, NotFound
from pacs import Archive, Stored
from relay.dicomweb import qido
from relay.exams.evidence import Evidence
from relay.exams.exam import Exam
from relay.exams.instances import Instance, Instances
from relay.exams.views import Image, hanging, image
from relay.pages import viewer

PAGE_SIZE = 25
MOST_PAGES = 4000


@dataclass(frozen=True)
class Wanted:
    """The search as typed; dates such as 2026-11-22."""

    name: str = ""
    participant: str = ""
    accession: str = ""
    since: str = ""
    until: str = ""
    modality: str = ""
    page: int = 1

    @property
    def is_everything(self) -> bool:
        return not any((self.name, self.participant, self.accession, self.since, self.until, self.modality))


@dataclass(frozen=True)
class StudyLine:
    """One study; `received_at` is the time of its last image, UTC ISO text."""

    study_instance_uid: str
    accession_number: str
    patient_name: str
    patient_id: str
    date: str
    time: str
    description: str
    modalities: str
    instances: str
    received_at: str
    shown: Mapping[str, Image | None]


@dataclass(frozen=True)
class StudyPage:
    """One page of results."""

    wanted: Wanted
    lines: tuple[StudyLine, ...]
    has_more: bool


@dataclass(frozen=True)
class Object:
    """One instance of a study, and the view that it shows."""

    stored: Stored
    image: Image


@dataclass(frozen=True)
class Study:
    """The quick look.

    `exams` are of the items with its study UID or accession number, none for an unscheduled study; `viewer` is the
    address in the viewer, empty where none is installed.
    """

    line: StudyLine
    objects: tuple[Object, ...]
    others: tuple[Image, ...]
    exams: tuple[Exam, ...]
    viewer: str


class Studies:
    """Reads both databases. Its methods block: call them in a thread."""

    def __init__(self, archive: Archive, instances: Instances, evidence: Evidence, *, viewer: Path) -> None:
        self._archive = archive
        self._instances = instances
        self._evidence = evidence
        self._viewer = viewer

    def search(self, wanted: Wanted) -> StudyPage:
        """Find one page of studies, the newest first. Raises InvalidQuery."""
        offset = (wanted.page - 1) * PAGE_SIZE
        # One match more than the page shows whether there is a next one.
        matches = self._archive.find("STUDY", identifier(wanted), limit=PAGE_SIZE + 1, offset=offset)
        page = matches[:PAGE_SIZE]
        by_study: dict[str, list[Instance]] = defaultdict(list)
        for instance in self._instances.of_studies(text(match, "StudyInstanceUID") for match in page):
            by_study[instance.stored.study_instance_uid].append(instance)
        lines = tuple(_line(match, by_study[text(match, "StudyInstanceUID")]) for match in page)
        return StudyPage(wanted, lines, has_more=len(matches) > PAGE_SIZE)

    def study(self, study_instance_uid: str) -> Study:
        """Put the page of one study together. Raises NotFound."""
        sought = qido.read("STUDY", {}, [("StudyInstanceUID", study_instance_uid)]).identifier
        found = self._archive.find("STUDY", sought, limit=1)
        if not found:
            raise NotFound("This study is not in the archive of this gateway.")
        instances = self._instances.of_studies([study_instance_uid])
        line = _line(found[0], instances)
        objects = tuple(Object(each.stored, image(each.data_set)) for each in instances)
        return Study(
            line=line,
            objects=objects,
            others=tuple(each.image for each in objects if each.image not in line.shown.values()),
            exams=tuple(
                self._evidence.exams_of(study_instance_uid=study_instance_uid, accession_number=line.accession_number)
            ),
            viewer=viewer.link(study_instance_uid) if viewer.is_installed(self._viewer) else "",
        )


def wanted(query: Mapping[str, str]) -> Wanted:
    """Read what a form sent. Raises InvalidQuery."""
    # A misspelt parameter that is ignored would find all studies.
    unknown = sorted(set(query) - set(Wanted.__dataclass_fields__))
    if unknown:
        raise InvalidQuery(f"A search has {', '.join(Wanted.__dataclass_fields__)}, and nothing else.")
    # Lone surrogates have no UTF-8, so no database could compare them.
    if any("\ud800" <= letter <= "\udfff" for value in query.values() for letter in value):
        raise InvalidQuery("A search has a character that is none.")
    given = {name: value.strip() for name, value in query.items() if name != "page"}
    return Wanted(**given, page=_page(query.get("page", "1")))


def identifier(wanted: Wanted) -> Dataset:
    """Make the identifier of QIDO-RS and C-FIND. Raises InvalidQuery."""
    keys = {
        "PatientName": name_pattern(wanted.name),
        "PatientID": _plain(wanted.participant),
        "AccessionNumber": wanted.accession,
        "ModalitiesInStudy": wanted.modality.upper(),
        "StudyDate": _range(wanted.since, wanted.until),
    }
    return qido.read("STUDY", {}, [(keyword, value) for keyword, value in keys.items() if value]).identifier


def name_pattern(name: str) -> str:
    """Translate a typed name to a DICOM pattern: "smith, ann" is `*smith*ann*`; one with wildcards stays."""
    if set("*?^=") & set(name):
        return name
    words = name.replace(",", " ").split()
    return f"*{'*'.join(words)}*" if words else ""


def _plain(participant: str) -> str:
    # An NHS number is written with blanks and stored without.
    return participant.replace(" ", "") if re.fullmatch(r"[0-9]{3} [0-9]{3} [0-9]{4}", participant) else participant


def _range(since: str, until: str) -> str:
    first, last = _day("The first study date", since), _day("The last study date", until)
    if first and last and first > last:
        raise InvalidQuery("The first study date is after the last one.")
    return f"{first}-{last}" if first or last else ""


def _day(what: str, text: str) -> str:
    try:
        return date.fromisoformat(text).strftime("%Y%m%d") if text else ""
    except ValueError:
        raise InvalidQuery(f"{what} has to be a day like 2026-11-22.") from None


def _page(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,4}", text) and 1 <= int(text) <= MOST_PAGES:
        return int(text)
    raise InvalidQuery(f"The page of a search is a number from 1 to {MOST_PAGES}.")


def _line(match: DicomJson, instances: list[Instance]) -> StudyLine:
    return StudyLine(
        study_instance_uid=text(match, "StudyInstanceUID"),
        accession_number=text(match, "AccessionNumber"),
        patient_name=person_name(match, "PatientName").shown,
        patient_id=text(match, "PatientID"),
        date=text(match, "StudyDate"),
        time=text(match, "StudyTime"),
        description=text(match, "StudyDescription"),
        modalities=", ".join(str(value) for value in values(match, "ModalitiesInStudy")),
        instances=text(match, "NumberOfStudyRelatedInstances"),
        received_at=max((each.stored.received_at for each in instances), default=""),
        shown=hanging([image(each.data_set) for each in instances]),
    )
