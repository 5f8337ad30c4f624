"""A morning of screening at a simulated site, for journeys that look at pages: appointments in every state, and images
with all that a board has to show. The participants are made up.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pydicom import Dataset

from simulator.exam.exam import SCREENING_VIEWS, Exam
from simulator.exam.phantom import mammogram, tomosynthesis
from simulator.exam.steps import sent_of
from simulator.modality.modality import Modality, Step, data_set_bytes
from simulator.site import Site
from worklist import Item, Worklist

NAMES = (
    "ASHWORTH^BEATRICE", "BRENNAN^CLARA", "CHAUDHRY^DALIA", "DAWSON^EDITH", "ELLIS^FRANCES", "FENWICK^GRACE",
    "GREENE^HANNAH", "HUGHES^IMOGEN", "IQBAL^JASMIN", "JARVIS^KATE", "KOWALSKA^LENA", "LAWSON^MARY",
)  # fmt: skip
COMPLETE, IMPLANTS, LOST, REPEATED, GIVEN_UP, TOMOSYNTHESIS, UNDER_WAY = range(7)
"""What becomes of the first appointments; the others are still to come."""


@dataclass(frozen=True)
class Clinic:
    """A site, the size of its images, and its machine."""

    site: Site
    rows: int = 416
    columns: int = 320

    @property
    def machine(self) -> Modality:
        return self.site.modality("MAMMO_ROOM_2")

    def schedule(self) -> None:
        """Put the morning on the worklist."""
        worklist = Worklist.attach(self.site.data / "worklist.db")
        for number, name in enumerate(NAMES):
            item = appointment(number, name)
            worklist.schedule(item, action_id=f"clinic-{number}", content_hash="1", now=datetime.now(UTC))
        worklist.close()

    def perform(self) -> None:
        """Let the machine do the first appointments, each in its own way."""
        for number in range(UNDER_WAY + 1):
            self._perform(number)

    def begin(self, number: int) -> Step:
        """Let the machine ask for an appointment and report that it is begun."""
        [item] = self.machine.find(accession_number=accession(number))
        return self.machine.begin(item, now=datetime.now())

    def view(self, view: str, exam: Exam, **how: object) -> Dataset:
        return mammogram(view, exam, rows=self.rows, columns=self.columns, **how)  # type: ignore[arg-type]

    def _perform(self, number: int) -> None:
        step = self.begin(number)
        step = replace(step, exam=replace(step.exam, seed=number))
        if number == GIVEN_UP:
            self.machine.discontinue(step, now=datetime.now())
            return
        images = list(self._images(number, step.exam))
        lost = images[-1:] if number == LOST else []
        sent = list(self.machine.store(image for image in images if image not in lost))
        sent += [sent_of(image, data_set_bytes(image)) for image in lost]
        if number != UNDER_WAY:
            self.machine.complete(step, sent, now=datetime.now())

    def _images(self, number: int, exam: Exam) -> Iterator[Dataset]:
        for view in SCREENING_VIEWS[: 2 if number == UNDER_WAY else 4]:
            yield self.view(view, exam, implant=number == IMPLANTS, monochrome1=number == COMPLETE and view == "RMLO")
        if number == IMPLANTS:
            for view in ("RCC", "LCC"):
                yield self.view(view, exam, modifiers=["implant displaced"], instance_number=2)
        if number == REPEATED:
            yield self.view("LCC", exam, instance_number=2)
            yield self.view("RMLO", exam, modifiers=["spot"], instance_number=2)
        if number == TOMOSYNTHESIS:
            for view in ("RMLO", "LMLO"):
                yield tomosynthesis(view, exam, frames=8, rows=self.rows // 2, columns=self.columns // 2)


def accession(number: int) -> str:
    return f"BSU26-{4101 + number}"


def appointment(number: int, name: str) -> Item:
    """One of the morning, six minutes after the one before."""
    minutes = 9 * 60 + 6 * number
    ds, step = Dataset(), Dataset()
    ds.PatientName, ds.PatientID, ds.PatientSex = name, f"99900{10018 + 7 * number}", "F"
    ds.PatientBirthDate, ds.AccessionNumber = f"19{60 + number}0{1 + number % 9}14", accession(number)
    ds.StudyInstanceUID = Exam(accession_number=accession(number)).study_uid
    step.ScheduledProcedureStepStartDate = datetime.now().strftime("%Y%m%d")
    step.ScheduledProcedureStepStartTime, step.Modality = f"{minutes // 60:02}{minutes % 60:02}00", "MG"
    ds.ScheduledProcedureStepSequence = [step]
    return Item.from_dicom_json(ds.to_json_dict())
