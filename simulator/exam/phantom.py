"""Synthetic mammograms and tomosyntheses as complete DICOM objects, for the demo, the self-test and the benchmarks.

Every object is obviously synthetic: the participant is called PHANTOM, the manufacturer is a simulator, nothing is
burned into the pixels. The same arguments give the same object, byte for byte.

Not for: drawing the pixels (`tissue`), the examination (`exam`), encoding (`encoding`), sending (`modality`).
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.tag import Tag
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)

from simulator.exam import tissue
from simulator.exam.exam import (
    MODIFIERS,
    SCREENING_VIEWS,
    VIEWS,
    Exam,
    Participant,
    View,
    code,
    derived_uid,
    describe_cells,
    exam_modules,
    positioning,
    view_code,
    with_file_meta,
)

__all__ = [
    "COLUMNS",
    "MODIFIERS",
    "ROWS",
    "SCREENING_VIEWS",
    "VIEWS",
    "Exam",
    "Participant",
    "mammogram",
    "raw_mammogram",
    "synthetic_view",
    "tomosynthesis",
    "write_large_tomosynthesis",
]

ROWS, COLUMNS = 3328, 2560
"""A 24 x 29 cm detector at 0.07 mm, with the chest wall on the long side."""

PIXEL_SPACING = 0.07

WINDOW = (1900, 3200)
"""Center and width at which a view For Presentation looks right."""


def mammogram(
    view: str = "RCC",
    exam: Exam | None = None,
    *,
    modifiers: Sequence[str] = (),
    implant: bool = False,
    partial: bool = False,
    monochrome1: bool = False,
    instance_number: int = 1,
    rows: int = ROWS,
    columns: int = COLUMNS,
) -> Dataset:
    """Make one view For Presentation (PS3.3 A.26), file meta included, Explicit VR Little Endian.

    `view` is a key of VIEWS, `modifiers` keys of MODIFIERS, `partial` says that not the whole breast is on it,
    `monochrome1` stores the same picture inverted. A repeat of a view needs its own `instance_number`.
    Rows and columns are multiples of 4. Raises KeyError for an unknown view or modifier, ValueError for a partial view
    that is spot or magnified (PS3.3 C.8.11.7: Partial View is not for those).
    """
    if partial and {"spot", "magnification"} & set(modifiers):
        raise ValueError("A spot or magnified view is not called partial (PS3.3 C.8.11.7).")
    exam = exam or Exam()
    pixels = tissue.radiograph(_breast(view, exam, implant=implant), rows=rows, columns=columns)
    ds = _projection(
        view,
        exam,
        modifiers=modifiers,
        implant=implant,
        partial=partial,
        inverted=monochrome1,
        number=instance_number,
        intent="FOR PRESENTATION",
        size=(rows, columns),
    )
    ds.ImageType = ["DERIVED", "PRIMARY", ""]  # DERIVED, because it is processed from an exposure like `raw_mammogram`
    _presentation(ds, inverted=monochrome1)
    _set_pixels(ds, np.uint16(tissue.LARGEST) - pixels if monochrome1 else pixels)
    return with_file_meta(ds, DigitalMammographyXRayImageStorageForPresentation)


def raw_mammogram(
    view: str = "RCC", exam: Exam | None = None, *, instance_number: int = 1, rows: int = ROWS, columns: int = COLUMNS
) -> Dataset:
    """Make one view For Processing (PS3.3 A.26): linear in dose, air brightest, no window; else like `mammogram`."""
    exam = exam or Exam()
    pixels = tissue.exposure(_breast(view, exam), rows=rows, columns=columns)
    ds = _projection(view, exam, number=instance_number, intent="FOR PROCESSING", size=(rows, columns))
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.PhotometricInterpretation = "MONOCHROME1"
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LIN", 1
    ds.PresentationLUTShape = "INVERSE"
    _set_pixels(ds, pixels)
    return with_file_meta(ds, DigitalMammographyXRayImageStorageForProcessing)


def synthetic_view(
    view: str = "RCC", exam: Exam | None = None, *, instance_number: int = 1, rows: int = ROWS, columns: int = COLUMNS
) -> Dataset:
    """Make a 2D picture computed from a tomosynthesis, as older units send it: a Secondary Capture (PS3.3 A.8.1).

    Only the series says which breast it is, and no attribute says which view.
    """
    exam, shown = exam or Exam(), VIEWS[view]
    ds = exam_modules(exam, modality="MG")
    ds.SeriesInstanceUID = derived_uid("series", exam.study_uid, view, "synthetic")
    size = f"{rows} x {columns}"
    ds.SOPInstanceUID = derived_uid("instance", exam.study_uid, view, "synthetic", str(instance_number), size)
    # Series from 1 are projections, from 101 tomosyntheses, from 201 these, from 301 structured reports.
    ds.SeriesNumber, ds.InstanceNumber = list(VIEWS).index(view) + 201, instance_number
    ds.SeriesDescription = f"{shown.laterality} {shown.position} synthetic 2D"
    ds.BodyPartExamined, ds.Laterality, ds.PatientOrientation = "BREAST", shown.laterality, shown.orientation
    # Not in the data set: Image Laterality and View Position, because the units that send this leave them out.
    ds.ConversionType, ds.ImageType = "WSD", ["DERIVED", "SECONDARY"]
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.WindowCenter, ds.WindowWidth = WINDOW
    _set_pixels(ds, tissue.radiograph(_breast(view, exam), rows=rows, columns=columns))
    return with_file_meta(ds, SecondaryCaptureImageStorage)


def tomosynthesis(
    view: str = "RMLO",
    exam: Exam | None = None,
    *,
    frames: int = 15,
    instance_number: int = 1,
    rows: int = ROWS // 4,
    columns: int = COLUMNS // 4,
) -> Dataset:
    """Make a small Breast Tomosynthesis object (PS3.3 A.55): `frames` planes, 1 mm apart."""
    exam = exam or Exam()
    planes = tissue.slices(_breast(view, exam), rows=rows, columns=columns, count=frames)
    ds = _tomosynthesis_header(view, exam, number=instance_number, frames=frames, rows=rows, columns=columns)
    ds.PixelData = planes.tobytes()
    return with_file_meta(ds, BreastTomosynthesisImageStorage)


def write_large_tomosynthesis(
    path: Path,
    exam: Exam | None = None,
    *,
    frames: int = 107,
    rows: int = 2456,
    columns: int = 1996,
    view: str = "RMLO",
) -> str:
    """Write a tomosynthesis of any size with the memory of a few frames; the default is 1.05 GB. Returns its SOP UID.

    Explicit VR Little Endian; raises ValueError when the pixel data would reach 4 GiB (PS3.5 7.1.2).
    """
    # First, so that nothing is written when the length is refused.
    pixel_data_header = _pixel_data_header(frames * rows * columns * 2)
    exam = exam or Exam()
    ds = _tomosynthesis_header(view, exam, number=1, frames=frames, rows=rows, columns=columns)
    with_file_meta(ds, BreastTomosynthesisImageStorage)
    # Eight planes in turn, each shifted a little: a benchmark needs planes that differ, not what they show.
    drawn = tissue.slices(_breast(view, exam), rows=rows, columns=columns, count=8)
    with path.open("wb") as file:
        dcmwrite(file, ds, enforce_file_format=True)
        file.write(pixel_data_header)
        for plane in _shifted(drawn, frames):
            file.write(plane.tobytes())
    return str(ds.SOPInstanceUID)


def _shifted(drawn: NDArray[np.uint16], frames: int) -> Iterator[NDArray[np.uint16]]:
    for number in range(frames):
        yield np.roll(drawn[number % len(drawn)], number // len(drawn), axis=0)


def _pixel_data_header(length: int) -> bytes:
    if length >= 0xFFFFFFFF:  # this value itself stands for an undefined length
        raise ValueError("The pixel data would reach 4 GiB, more than an uncompressed element can say (PS3.5 7.1.2).")
    # (7FE0,0010) OW: two reserved bytes, then four of length (PS3.5 7.1.2).
    return b"\xe0\x7f\x10\x00OW\x00\x00" + length.to_bytes(4, "little")


def _breast(view: str, exam: Exam, *, implant: bool = False) -> tissue.Breast:
    shown = VIEWS[view]
    # 20 apart, because a tomosynthesis takes random numbers of the seeds up to 17 above its own (`tissue`).
    seed = exam.seed * 100 + list(VIEWS).index(view) * 20
    return tissue.Breast(right=shown.laterality == "R", oblique=shown.oblique, implant=implant, seed=seed)


def _projection(
    view: str,
    exam: Exam,
    *,
    number: int,
    intent: str,
    size: tuple[int, int],
    modifiers: Sequence[str] = (),
    implant: bool = False,
    partial: bool = False,
    inverted: bool = False,
) -> Dataset:
    """The attributes of a mammogram beside its pixels and their meaning."""
    shown = VIEWS[view]
    ds = exam_modules(exam, modality="MG")
    ds.SeriesInstanceUID = derived_uid("series", exam.study_uid, view, intent)
    options = [*modifiers, *["implant"] * implant, *["partial"] * partial, *["inverted"] * inverted]
    ds.SOPInstanceUID = derived_uid("instance", exam.study_uid, view, intent, *options, str(number), str(size))
    ds.SeriesNumber, ds.InstanceNumber = list(VIEWS).index(view) + 1, number
    ds.SeriesDescription = f"{shown.laterality} {shown.position}" + (" raw" if intent == "FOR PROCESSING" else "")
    ds.PresentationIntentType, ds.ImageLaterality, ds.BodyPartExamined = intent, shown.laterality, "BREAST"
    ds.AnatomicRegionSequence = [code("76752008", "Breast")]
    ds.ViewPosition, ds.PatientOrientation = shown.position, shown.orientation
    ds.ViewCodeSequence = [view_code(shown, modifiers)]
    ds.PartialView = "YES" if partial else "NO"
    if partial:
        ds.PartialViewCodeSequence = [code("255561001", "Medial")]
    ds.BreastImplantPresent = "YES" if implant else "NO"
    positioning(ds, shown, magnified="magnification" in modifiers)
    ds.AcquisitionDate, ds.AcquisitionTime, ds.AcquisitionNumber = ds.ContentDate, ds.ContentTime, number
    _dose(ds)
    _detector(ds, exam)
    return ds


def _dose(ds: Dataset) -> None:
    # Organ Dose is in dGy: 0.0142 is 1.42 mGy (PS3.3 C.8.11.1).
    ds.OrganExposed, ds.OrganDose, ds.EntranceDoseInmGy = "BREAST", "0.0142", "5.1"
    # 100 mA for 820 ms are 82 mAs, which Exposure in uAs repeats.
    ds.KVP, ds.ExposureTime, ds.XRayTubeCurrent = "29", "820", "100"
    ds.Exposure, ds.ExposureInuAs, ds.HalfValueLayer = "82", "82000", "0.54"
    ds.AnodeTargetMaterial, ds.FilterMaterial = "TUNGSTEN", "RHODIUM"
    ds.FilterThicknessMinimum = ds.FilterThicknessMaximum = "0.05"
    ds.Grid, ds.FocalSpots, ds.ExposureControlMode = ["FOCUSED"], "0.3", "AUTOMATIC"


def _detector(ds: Dataset, exam: Exam) -> None:
    ds.DetectorType, ds.DetectorID, ds.DetectorTemperature = "DIRECT", "SYNTHETIC", "30"
    ds.DetectorConfiguration, ds.DetectorActiveShape = "AREA", "RECTANGLE"
    ds.DateOfLastDetectorCalibration = exam.acquired.strftime("%Y%m%d")
    ds.TimeOfLastDetectorCalibration = "060000"
    # Millimetres: ROWS and COLUMNS at PIXEL_SPACING.
    ds.FieldOfViewShape, ds.FieldOfViewDimensions = "RECTANGLE", ["233", "179"]
    ds.FieldOfViewRotation, ds.FieldOfViewHorizontalFlip = "0", "NO"
    ds.FieldOfViewOrigin = ["0", "0"]
    ds.ImagerPixelSpacing = [PIXEL_SPACING, PIXEL_SPACING]


def _presentation(ds: Dataset, *, inverted: bool) -> None:
    """VOI, padding and polarity of a view For Presentation (PS3.3 C.8.11.7, C.11.2, C.7.5.1.1.2)."""
    ds.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    ds.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    # Sign 1: a larger value means more X-rays, as air has in an inverted picture (PS3.3 C.8.11.3.1.2).
    ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign = "LOG", 1 if inverted else -1
    ds.PixelPaddingValue = tissue.LARGEST - tissue.AIR if inverted else tissue.AIR
    center, ds.WindowWidth = WINDOW
    ds.WindowCenter = tissue.LARGEST - center if inverted else center
    ds.WindowCenterWidthExplanation, ds.VOILUTFunction = "NORMAL", "LINEAR"


def _set_pixels(ds: Dataset, pixels: NDArray[np.uint16]) -> None:
    ds.Rows, ds.Columns = pixels.shape
    describe_cells(ds)
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.PixelData = pixels.tobytes()


def _tomosynthesis_header(view: str, exam: Exam, *, number: int, frames: int, rows: int, columns: int) -> Dataset:
    """Breast Tomosynthesis: view in its own module, everything about planes in functional groups (PS3.3 A.55)."""
    shown = VIEWS[view]
    ds = exam_modules(exam, modality="MG")
    ds.SeriesInstanceUID = derived_uid("series", exam.study_uid, view, "tomosynthesis")
    size = f"{frames} x {rows} x {columns}"
    ds.SOPInstanceUID = derived_uid("instance", exam.study_uid, view, "tomosynthesis", str(number), size)
    ds.SeriesNumber, ds.InstanceNumber = list(VIEWS).index(view) + 101, number
    ds.SeriesDescription = f"{shown.laterality} {shown.position} tomosynthesis"
    ds.BodyPartExamined, ds.BreastImplantPresent = "BREAST", "NO"
    ds.ViewCodeSequence, ds.PartialView = [view_code(shown, ())], "NO"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "TOMOSYNTHESIS", "NONE"]
    ds.FrameOfReferenceUID = derived_uid("frame of reference", exam.study_uid, view)
    ds.PositionReferenceIndicator = ""
    ds.ContentQualification, ds.PixelPresentation, ds.VolumetricProperties = "PRODUCT", "MONOCHROME", "VOLUME"
    ds.VolumeBasedCalculationTechnique = "TOMOSYNTHESIS"
    ds.Rows, ds.Columns, ds.NumberOfFrames = rows, columns, frames
    describe_cells(ds)
    ds.PhotometricInterpretation, ds.PresentationLUTShape = "MONOCHROME2", "IDENTITY"
    ds.SharedFunctionalGroupsSequence = [_shared_groups(shown, rows)]
    _dimensions(ds)
    ds.PerFrameFunctionalGroupsSequence = [_plane_groups(number, exam) for number in range(1, frames + 1)]
    return ds


def _shared_groups(view: View, rows: int) -> Dataset:
    """The functional groups that all planes share: size, orientation, anatomy and grey scale."""
    # Coarser rows are the same detector binned, so the pixels grow as their number falls.
    spacing = round(PIXEL_SPACING * ROWS / rows, 6)  # DS has room for 16 characters (PS3.5 6.2)
    groups = Dataset()
    groups.PixelMeasuresSequence = [_item(PixelSpacing=[spacing, spacing], SliceThickness=1, SpacingBetweenSlices=1)]
    groups.PlaneOrientationSequence = [_item(ImageOrientationPatient=_direction(view))]
    anatomy = _item(FrameLaterality=view.laterality, AnatomicRegionSequence=[code("76752008", "Breast")])
    groups.FrameAnatomySequence = [anatomy]
    groups.PixelValueTransformationSequence = [_item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")]
    groups.FrameVOILUTSequence = [_item(WindowCenter=1700, WindowWidth=2600, VOILUTFunction="LINEAR")]
    return groups


def _direction(view: View) -> list[float]:
    """Image Orientation (Patient): rows run to posterior on a right breast and to anterior on a left one."""
    # In patient coordinates +y is posterior and +z is towards the head (PS3.3 C.7.6.2.1.1).
    posterior = 1 if view.laterality == "R" else -1
    down = math.radians(abs(view.angle))
    return [0, posterior, 0, round(posterior * math.cos(down), 6), 0, round(-math.sin(down), 6)]


def _dimensions(ds: Dataset) -> None:
    """One dimension: the position of the plane in the stack (PS3.3 C.7.6.17)."""
    uid = derived_uid("dimension", str(ds.SOPInstanceUID))
    ds.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=uid)]
    pointer = _item(
        DimensionOrganizationUID=uid,
        DimensionIndexPointer=Tag("InStackPositionNumber"),
        FunctionalGroupPointer=Tag("FrameContentSequence"),
    )
    ds.DimensionIndexSequence = [pointer]


def _plane_groups(number: int, exam: Exam) -> Dataset:
    content = _item(
        FrameAcquisitionNumber=1,
        FrameAcquisitionDateTime=exam.acquired.strftime("%Y%m%d%H%M%S"),
        FrameReferenceDateTime=exam.acquired.strftime("%Y%m%d%H%M%S"),
        FrameAcquisitionDuration=3700.0,
        StackID="1",
        InStackPositionNumber=number,
        DimensionIndexValues=number,
    )
    groups = Dataset()
    groups.FrameContentSequence = [content]
    groups.XRay3DFrameTypeSequence = [
        _item(
            FrameType=["ORIGINAL", "PRIMARY", "TOMOSYNTHESIS", "NONE"],
            PixelPresentation="MONOCHROME",
            VolumetricProperties="VOLUME",
            VolumeBasedCalculationTechnique="TOMOSYNTHESIS",
        )
    ]
    groups.PlanePositionSequence = [_item(ImagePositionPatient=[0, 0, number - 1])]
    return groups


def _item(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds
