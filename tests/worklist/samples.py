"""What the tests of the worklist work with: messages of the cloud, queries and performed steps of modalities."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from gateway.dataset.data_sets import decode, encode
from gateway.messages import WorklistItem
from gateway.query import identifiers
from worklist import Item, Worklist, answers
from worklist.visibility import Visibility

NOW = datetime(2026, 11, 22, 9, 0, 0, 123456, tzinfo=UTC)
STUDY = "1.2.826.0.1.1"
SERIES = "1.2.826.0.1.2"
IMAGE = "1.2.826.0.1.3"


def message(accession_number: str = "ACC1", **changes: object) -> WorklistItem:
    content: dict[str, object] = {
        "accession_number": accession_number,
        "participant": {"nhs_number": "9990001112", "name": "SMITH^Zoë", "birth_date": "19700102", "sex": "F"},
        "scheduled": {"date": "20261122", "time": "093000"},
        "procedure": {"modality": "MG", "study_description": "Screening"},
    }
    return WorklistItem.model_validate(content | changes)


def item(accession_number: str = "ACC1", **changes: object) -> Item:
    return Item.from_message(message(accession_number, **changes), appointment_id="appointment-1")


def participant(name: str, nhs_number: str = "9990001112") -> dict[str, str]:
    return {"nhs_number": nhs_number, "name": name, "birth_date": "19700102", "sex": "F"}


def scheduled(date: str, time: str) -> dict[str, str]:
    return {"date": date, "time": time}


def query(step: dict[str, object] | None = None, **keys: object) -> Dataset:
    """A query; `step` gives the keys in the Scheduled Procedure Step Sequence."""
    identifier = Dataset()
    identifier.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    if step is not None:
        sps = Dataset()
        for keyword, value in step.items():
            setattr(sps, keyword, value)
        identifier.ScheduledProcedureStepSequence = [sps]
    return identifier


def values(identifier: Dataset) -> Mapping[str, str]:
    """What a query asks for with a value, by path."""
    return identifiers.from_data_set(identifier).values


def answered(
    worklist: Worklist, identifier: Dataset, *, calling_ae_title: str = "MAMMO1", visibility: Visibility | None = None
) -> Iterator[Dataset]:
    """What a modality reads in the answers to its query."""
    asked = identifiers.read(encode(identifier, ExplicitVRLittleEndian), ExplicitVRLittleEndian)
    form = answers.form(asked, ExplicitVRLittleEndian, wanted=None)
    found = worklist.find(asked.values, calling_ae_title=calling_ae_title, visibility=visibility)
    return (decode(answers.packed(form, each.data_set, each.station).data, ExplicitVRLittleEndian) for each in found)


def begun(accession_number: str = "ACC1", study_instance_uid: str = STUDY) -> Dataset:
    """The attribute list of an N-CREATE."""
    scheduled_step = Dataset()
    scheduled_step.StudyInstanceUID = study_instance_uid
    scheduled_step.AccessionNumber = accession_number
    scheduled_step.ScheduledProcedureStepID = accession_number
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ScheduledStepAttributesSequence = [scheduled_step]
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "SMITH^Zoë", "9990001112", "19700102", "F"
    ds.PerformedProcedureStepID, ds.PerformedStationAETitle = "P1", "MAMMO1"
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = "20261122", "093500"
    ds.PerformedProcedureStepStatus = "IN PROGRESS"
    ds.PerformedProcedureStepEndDate, ds.PerformedProcedureStepEndTime = "", ""
    ds.Modality = "MG"
    ds.PerformedSeriesSequence = []
    return ds


def ended(status: str = "COMPLETED") -> Dataset:
    """The modification list of the last N-SET."""
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.2", IMAGE
    series = Dataset()
    series.SeriesInstanceUID, series.ProtocolName = SERIES, "Screening"
    series.ReferencedImageSequence = [reference]
    ds = Dataset()
    ds.PerformedProcedureStepStatus = status
    ds.PerformedProcedureStepEndDate, ds.PerformedProcedureStepEndTime = "20261122", "094500"
    ds.PerformedSeriesSequence = [series]
    return ds
