"""The studies that are kept: searched as people search, and the quick look at one of them.

Rules. Matching is the archive's, the same as for QIDO-RS and C-FIND. A name is looked for anywhere in the name, unless
wildcards say where; all else has to be equal. What is not understood is refused in words, so that a search that failed
never looks like one that found nothing.

Values for templates only. Not here: HTML (`relay.pages.html`), the rules of an exam (`relay.exams.exam`).
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pydicom import Dataset

from gateway.errors import InvalidQuery, NotFound
from pacs import Archive, Stored
from relay.dicom_json import DicomJson, text, values
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
    """What is searched, as it was typed; dates as 2026-11-22."""

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
    """One study; `received_at` is when its last image came, UTC text."""

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
    """One page of what was found."""

    wanted: Wanted
    lines: tuple[StudyLine, ...]
    has_more: bool


@dataclass(frozen=True)
class Object:
    """One instance of a study: where it came from, and what it shows."""

    stored: Stored
    image: Image


@dataclass(frozen=True)
class Study:
    """The quick look.

    `exams` are of the items that belong to it by study or number, none for an unscheduled one; `viewer` is empty where
    none is installed.
    """

    line: StudyLine
    objects: tuple[Object, ...]
    others: tuple[Image, ...]
    exams: tuple[Exam, ...]
    viewer: str


class Studies:
    """Asks both databases. Its methods block: call them in a thread."""

    def __init__(self, archive: Archive, instances: Instances, evidence: Evidence, *, viewer: Path) -> None:
        self._archive = archive
        self._instances = instances
        self._evidence = evidence
        self._viewer = viewer

    def search(self, wanted: Wanted) -> StudyPage:
        """Find one page of studies, the newest first. Raises InvalidQuery."""
        offset = (wanted.page - 1) * PAGE_SIZE
        matches = self._archive.find("STUDY", identifier(wanted), limit=PAGE_SIZE + 1, offset=offset)
        page = matches[:PAGE_SIZE]
        by_study: dict[str, list[Instance]] = defaultdict(list)
        for instance in self._instances.of_studies(text(match, "0020000D") for match in page):
            by_study[instance.stored.study_instance_uid].append(instance)
        lines = tuple(_line(match, by_study[text(match, "0020000D")]) for match in page)
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
    unknown = sorted(set(query) - set(Wanted.__dataclass_fields__))
    if unknown:
        raise InvalidQuery(f"A search has {', '.join(Wanted.__dataclass_fields__)}, and nothing else.")
    if any("\ud800" <= letter <= "\udfff" for value in query.values() for letter in value):
        raise InvalidQuery("A search has a character that is none.")
    given = {name: value.strip() for name, value in query.items() if name != "page"}
    return Wanted(**given, page=_page(query.get("page", "1")))


def identifier(wanted: Wanted) -> Dataset:
    """Say it as QIDO-RS and C-FIND do. Raises InvalidQuery."""
    keys = {
        "PatientName": name_pattern(wanted.name),
        "PatientID": _plain(wanted.participant),
        "AccessionNumber": wanted.accession,
        "ModalitiesInStudy": wanted.modality.upper(),
        "StudyDate": _range(wanted.since, wanted.until),
    }
    return qido.read("STUDY", {}, [(keyword, value) for keyword, value in keys.items() if value]).identifier


def name_pattern(name: str) -> str:
    """A name as people type it as one that DICOM matches: "smith, ann" is `*smith*ann*`, wildcards stay as they are."""
    if set("*?^=") & set(name):
        return name
    words = name.replace(",", " ").split()
    return f"*{'*'.join(words)}*" if words else ""


def _plain(participant: str) -> str:
    """An NHS number is written with blanks and kept without."""
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
        study_instance_uid=text(match, "0020000D"),
        accession_number=text(match, "00080050"),
        patient_name=text(match, "00100010"),
        patient_id=text(match, "00100020"),
        date=text(match, "00080020"),
        time=text(match, "00080030"),
        description=text(match, "00081030"),
        modalities=", ".join(str(value) for value in values(match, "00080061")),
        instances=text(match, "00201208"),
        received_at=max((each.stored.received_at for each in instances), default=""),
        shown=hanging([image(each.data_set) for each in instances]),
    )
