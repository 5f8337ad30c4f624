"""Structured reports of an exam: radiation dose, and CAD without findings (PS3.3 A.35).

Small and valid; the values are invented. Not for: images (`phantom`).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from pydicom import Dataset
from pydicom.uid import MammographyCADSRStorage, XRayRadiationDoseSRStorage

from simulator.exam.exam import Exam, code, derived_uid, exam_modules, reference, with_file_meta
from simulator.exam.steps import Sent

CLASSES: Mapping[str, str] = MappingProxyType(
    {"dose": str(XRayRadiationDoseSRStorage), "cad": str(MammographyCADSRStorage)}
)
"""The SOP class of each kind of report."""

_TITLES = MappingProxyType(
    {
        "dose": ("113701", "X-Ray Radiation Dose Report", "10001"),
        "cad": ("111036", "Mammography CAD Report", "4000"),
    }
)
"""Concept name and template (PS3.16)."""

_GLANDULAR_DOSE = "1.42"  # mGy of one exposure; images have it as Organ Dose, 0.0142 dGy (`phantom`)

_OF_IMAGES = (
    "ImageComments", "AcquisitionContextSequence", "BurnedInAnnotation", "LossyImageCompression",
    "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
)  # fmt: skip
"""Attributes of an exam's images that its reports do not have."""


def report(kind: str, exam: Exam, images: Sequence[Sent], *, instance_number: int = 1) -> Dataset:
    """Make the dose or CAD report of these images, file meta included. `kind` is a key of CLASSES."""
    ds = exam_modules(exam, modality="SR")
    for keyword in _OF_IMAGES:
        del ds[keyword]
    ds.SeriesInstanceUID = derived_uid("series", exam.study_uid, kind)
    ds.SOPInstanceUID = derived_uid("instance", exam.study_uid, kind, str(instance_number))
    ds.SeriesNumber, ds.InstanceNumber = 301 + list(CLASSES).index(kind), instance_number
    ds.SeriesDescription = f"{kind} report" if kind == "dose" else "CAD report"
    # Type 2 of the SR Document Series: there, but empty, without a step (PS3.3 C.17.1).
    ds.setdefault("ReferencedPerformedProcedureStepSequence", [])
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    ds.PerformedProcedureCodeSequence = []
    if images:  # Type 1C: required of a report that refers to instances (PS3.3 C.17.2)
        ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(images)]
    value, meaning, template = _TITLES[kind]
    ds.ValueType, ds.ContinuityOfContent = "CONTAINER", "SEPARATE"
    ds.ConceptNameCodeSequence = [code(value, meaning, "DCM")]
    ds.ContentTemplateSequence = [_template(template)]
    ds.ContentSequence = _dose(images) if kind == "dose" else _detection(images)
    return with_file_meta(ds, CLASSES[kind])


def _evidence(images: Sequence[Sent]) -> Dataset:
    """The images that are referred to, by series (PS3.3 C.17.2)."""
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = images[0].study_instance_uid, []
    for uid in dict.fromkeys(image.series_instance_uid for image in images):
        series = Dataset()
        series.SeriesInstanceUID = uid
        series.ReferencedSOPSequence = [
            reference(image.sop_class_uid, image.sop_instance_uid)
            for image in images
            if image.series_instance_uid == uid
        ]
        study.ReferencedSeriesSequence.append(series)
    return study


def _dose(images: Sequence[Sent]) -> list[Dataset]:
    """TID 10001: the procedure, the dose of all exposures, and each of them."""
    total = f"{float(_GLANDULAR_DOSE) * len(images):.2f}"
    procedure = _coded("HAS CONCEPT MOD", code("121058", "Procedure reported", "DCM"), code("71651007", "Mammography"))
    accumulated = _container(
        code("113702", "Accumulated X-Ray Dose Data", "DCM"),
        [_measured(code("111637", "Accumulated Average Glandular Dose", "DCM"), total)],
    )
    events = [
        _container(
            code("113706", "Irradiation Event X-Ray Data", "DCM"),
            [
                _uid(code("113769", "Irradiation Event UID", "DCM"), derived_uid("event", image.sop_instance_uid)),
                _measured(code("111631", "Average Glandular Dose", "DCM"), _GLANDULAR_DOSE),
            ],
        )
        for image in images
    ]
    return [procedure, accumulated, *events]


def _detection(images: Sequence[Sent]) -> list[Dataset]:
    """TID 4000: the images that were processed, without findings."""
    library = _container(code("111028", "Image Library", "DCM"), [_image(image) for image in images])
    summary = _coded(
        "CONTAINS",
        code("111017", "CAD Processing and Findings Summary", "DCM"),
        code("111241", "All algorithms succeeded; without findings", "DCM"),
    )
    # Detection succeeded and found nothing; analysis would describe findings, so it was not attempted.
    detections = _coded("CONTAINS", code("111064", "Summary of Detections", "DCM"), code("111222", "Succeeded", "DCM"))
    analyses = _coded("CONTAINS", code("111065", "Summary of Analyses", "DCM"), code("111225", "Not Attempted", "DCM"))
    return [library, summary, detections, analyses]


def _item(relationship: str, value_type: str, name: Dataset | None) -> Dataset:
    ds = Dataset()
    ds.RelationshipType, ds.ValueType = relationship, value_type
    if name is not None:
        ds.ConceptNameCodeSequence = [name]
    return ds


def _container(name: Dataset, content: Sequence[Dataset]) -> Dataset:
    ds = _item("CONTAINS", "CONTAINER", name)
    ds.ContinuityOfContent = "SEPARATE"
    if content:
        ds.ContentSequence = list(content)
    return ds


def _coded(relationship: str, name: Dataset, value: Dataset) -> Dataset:
    ds = _item(relationship, "CODE", name)
    ds.ConceptCodeSequence = [value]
    return ds


def _measured(name: Dataset, milligray: str) -> Dataset:
    ds, value = _item("CONTAINS", "NUM", name), Dataset()
    value.NumericValue, value.MeasurementUnitsCodeSequence = milligray, [code("mGy", "mGy", "UCUM")]
    ds.MeasuredValueSequence = [value]
    return ds


def _uid(name: Dataset, uid: str) -> Dataset:
    ds = _item("CONTAINS", "UIDREF", name)
    ds.UID = uid
    return ds


def _image(image: Sent) -> Dataset:
    ds = _item("CONTAINS", "IMAGE", None)
    ds.ReferencedSOPSequence = [reference(image.sop_class_uid, image.sop_instance_uid)]
    return ds


def _template(identifier: str) -> Dataset:
    ds = Dataset()
    ds.MappingResource, ds.TemplateIdentifier = "DCMR", identifier
    return ds
