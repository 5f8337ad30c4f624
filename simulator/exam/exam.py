"""The examination that synthetic objects belong to: participant, views, and the modules that every object shares.

Not for: what one kind of object adds (`phantom`, `structured_reports`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from uuid import NAMESPACE_OID, uuid5

from pydicom import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian


@dataclass(frozen=True)
class View:
    """A projection: its laterality, its code (CID 4014, SCT) and the older View Position (0018,5101)."""

    laterality: str
    code: str
    meaning: str
    position: str
    angle: float

    @property
    def oblique(self) -> bool:
        return self.angle != 0

    @property
    def orientation(self) -> list[str]:
        """Patient Orientation (0020,0020): the chest wall is at the right edge of a right breast, and mirrored."""
        row, inward = ("P", "L") if self.laterality == "R" else ("A", "R")
        if not self.oblique:
            return [row, inward]
        return [row, "F" if abs(self.angle) == 90 else f"F{inward}"]


# SNOMED CT codes as PS3.16 prints them today (CID 4014, 4015).
_PROJECTIONS = {
    "CC": ("399162004", "cranio-caudal", 0.0),
    "MLO": ("399368009", "medio-lateral oblique", 45.0),
    "ML": ("399260004", "medio-lateral", 90.0),
    "LM": ("399352003", "latero-medial", -90.0),
    "XCCL": ("399192008", "cranio-caudal exaggerated laterally", 0.0),
}

VIEWS = MappingProxyType(
    {
        # 0.0 - angle, because -angle makes -0.0 of 0.0, and the DS on the wire would be "-0.0".
        laterality + position: View(laterality, code, meaning, position, angle if laterality == "R" else 0.0 - angle)
        for laterality in "RL"
        for position, (code, meaning, angle) in _PROJECTIONS.items()
    }
)
"""Every projection that can be made, by the short name that radiographers use: RCC, LMLO, ..."""

SCREENING_VIEWS = ("RCC", "LCC", "RMLO", "LMLO")
"""The standard set of a screening examination."""

MODIFIERS = MappingProxyType(
    {
        "implant displaced": ("399209000", "Implant Displaced"),
        "spot": ("399055006", "Spot Compression"),
        "magnification": ("399163009", "Magnification"),
    }
)
"""View modifiers (CID 4015, SCT) that can be made."""


@dataclass(frozen=True)
class Participant:
    """The participant. The identifier is from the range that the NHS keeps for tests (999...)."""

    patient_id: str = "9990000018"
    patient_name: str = "PHANTOM^SYNTHETIC"
    birth_date: str = "19700101"
    sex: str = "F"


@dataclass(frozen=True)
class Exam:
    """The attributes that all objects of an exam share. Empty identifiers are derived from the accession number."""

    participant: Participant = field(default_factory=Participant)
    accession_number: str = "SYN0001"
    study_instance_uid: str = ""
    study_description: str = "Synthetic screening mammography"
    requested_procedure_id: str = ""
    sps_id: str = ""
    mpps_instance_uid: str = ""
    station_ae_title: str = "PHANTOM"
    # A fixed time, because the same arguments give the same object, byte for byte.
    acquired: datetime = datetime(2026, 1, 2, 9, 30, tzinfo=UTC)
    seed: int = 0

    @property
    def study_uid(self) -> str:
        return self.study_instance_uid or derived_uid("study", self.accession_number, str(self.seed))


def derived_uid(*sources: str) -> str:
    """Return the UID that always belongs to these words: a name-based UUID under 2.25 (PS3.5 B.2)."""
    return f"2.25.{uuid5(NAMESPACE_OID, '/'.join(sources)).int}"


def view_code(view: View, modifiers: Sequence[str]) -> Dataset:
    """View Modifier Code Sequence is Type 2 *inside* the view item (PS3.3 C.8.11.7)."""
    item = code(view.code, view.meaning)
    item.ViewModifierCodeSequence = [code(*MODIFIERS[name]) for name in modifiers]
    return item


def exam_modules(exam: Exam, *, modality: str) -> Dataset:
    """Patient, study, series, equipment and acquisition context, with the link back to the worklist."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName, ds.PatientID = exam.participant.patient_name, exam.participant.patient_id
    ds.PatientBirthDate, ds.PatientSex = exam.participant.birth_date, exam.participant.sex
    ds.StudyInstanceUID, ds.StudyID, ds.AccessionNumber = exam.study_uid, "1", exam.accession_number
    ds.StudyDescription, ds.ReferringPhysicianName, ds.Modality = exam.study_description, "", modality
    _times(ds, exam.acquired)
    ds.Manufacturer, ds.ManufacturerModelName = "Screening Gateway", "Synthetic mammography phantom"
    ds.DeviceSerialNumber, ds.SoftwareVersions, ds.StationName = "SYNTHETIC", "1", exam.station_ae_title
    ds.InstitutionName = "Synthetic screening site"
    ds.ImageComments = "Synthetic picture of no person. Not for diagnosis."
    ds.AcquisitionContextSequence = []  # Type 2 (PS3.3 C.7.6.14)
    ds.BurnedInAnnotation, ds.LossyImageCompression = "NO", "00"
    if exam.sps_id or exam.requested_procedure_id:
        ds.RequestAttributesSequence = [_request(exam)]
    if exam.mpps_instance_uid:
        ds.ReferencedPerformedProcedureStepSequence = [reference("1.2.840.10008.3.1.2.3.3", exam.mpps_instance_uid)]
    return ds


def _times(ds: Dataset, acquired: datetime) -> None:
    date, time = acquired.strftime("%Y%m%d"), acquired.strftime("%H%M%S")
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = date
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = time
    ds.PerformedProcedureStepStartDate, ds.PerformedProcedureStepStartTime = date, time


def _request(exam: Exam) -> Dataset:
    item = Dataset()
    item.RequestedProcedureID, item.ScheduledProcedureStepID = exam.requested_procedure_id, exam.sps_id
    return item


def reference(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return item


def code(value: str, meaning: str, scheme: str = "SCT") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def positioning(ds: Dataset, view: View, *, magnified: bool) -> None:
    ds.PositionerType, ds.PositionerPrimaryAngle, ds.PositionerSecondaryAngle = "MAMMOGRAPHIC", view.angle, 0
    # Millimetres; the magnification is the first distance over the second.
    ds.DistanceSourceToDetector, ds.DistanceSourceToPatient = 650, 325 if magnified else 625
    ds.EstimatedRadiographicMagnificationFactor = 2 if magnified else 1.04
    ds.CompressionForce, ds.BodyPartThickness = 110, 58  # newtons, millimetres


def describe_cells(ds: Dataset) -> None:
    """Twelve bits in sixteen, as nearly every mammography detector delivers."""
    ds.SamplesPerPixel, ds.PixelRepresentation = 1, 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11


def with_file_meta(ds: Dataset, sop_class_uid: str) -> Dataset:
    """Name the class and the encoding, so that the data set can be saved or sent as it is."""
    ds.SOPClassUID = sop_class_uid
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = UID(sop_class_uid)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds
