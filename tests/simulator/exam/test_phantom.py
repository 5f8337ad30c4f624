"""The phantom: complete objects, believable pixels, the same for the same arguments."""

import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from simulator.exam import phantom
from simulator.exam.compression import compress
from simulator.exam.encoding import SYNTAXES
from simulator.exam.phantom import SCREENING_VIEWS, VIEWS, Exam, Participant
from simulator.exam.steps import Sent
from simulator.exam.structured_reports import report

DCIODVFY = shutil.which("dciodvfy")
SMALL: dict[str, Any] = {"rows": 416, "columns": 320}
EXAM = Exam(
    participant=Participant(patient_id="9990000026", patient_name="TESTER^TESSA", birth_date="19601231"),
    accession_number="ACC42",
    study_instance_uid="2.25.42",
    requested_procedure_id="RP42",
    sps_id="SPS42",
    mpps_instance_uid="2.25.43",
)


def described(ds: Dataset) -> tuple[object, ...]:
    [view] = ds.ViewCodeSequence
    modifiers = [modifier.CodeValue for modifier in view.ViewModifierCodeSequence]
    return ds.ImageLaterality, ds.ViewPosition, view.CodeValue, modifiers, list(ds.PatientOrientation), ds.PartialView


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ("RCC", ("R", "CC", "399162004", [], ["P", "L"], "NO")),
        ("LCC", ("L", "CC", "399162004", [], ["A", "R"], "NO")),
        ("RMLO", ("R", "MLO", "399368009", [], ["P", "FL"], "NO")),
        ("LMLO", ("L", "MLO", "399368009", [], ["A", "FR"], "NO")),
        ("RML", ("R", "ML", "399260004", [], ["P", "F"], "NO")),
        ("LXCCL", ("L", "XCCL", "399192008", [], ["A", "R"], "NO")),
    ],
)
def test_a_view_is_described_by_its_codes(view: str, expected: tuple[object, ...]) -> None:
    assert described(phantom.mammogram(view, **SMALL)) == expected


@pytest.mark.parametrize(
    ("modifiers", "partial", "expected"),
    [
        (("implant displaced",), False, (["399209000"], "NO")),
        (("spot",), False, (["399055006"], "NO")),
        (("spot", "magnification"), False, (["399055006", "399163009"], "NO")),
        ((), True, ([], "YES")),
    ],
)
def test_a_special_view_carries_its_modifiers_inside_the_view(
    modifiers: tuple[str, ...], partial: bool, expected: tuple[list[str], str]
) -> None:
    ds = phantom.mammogram("LCC", modifiers=modifiers, partial=partial, **SMALL)
    assert (described(ds)[3], described(ds)[5]) == expected
    assert "ViewModifierCodeSequence" not in ds


def test_a_spot_view_is_not_called_partial() -> None:
    with pytest.raises(ValueError, match="not called partial"):
        phantom.mammogram("LCC", modifiers=("spot",), partial=True, **SMALL)


def test_a_mammogram_belongs_to_its_exam() -> None:
    ds = phantom.mammogram("RCC", EXAM, **SMALL)
    assert (ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex) == (
        "9990000026",
        "TESTER^TESSA",
        "19601231",
        "F",
    )
    assert (ds.AccessionNumber, ds.StudyInstanceUID, ds.Modality) == ("ACC42", "2.25.42", "MG")
    [request] = ds.RequestAttributesSequence
    assert (request.RequestedProcedureID, request.ScheduledProcedureStepID) == ("RP42", "SPS42")
    assert ds.ReferencedPerformedProcedureStepSequence[0].ReferencedSOPInstanceUID == "2.25.43"


def test_a_view_for_presentation_says_how_it_is_shown() -> None:
    ds = phantom.mammogram("RCC", **SMALL)
    assert ds.SOPClassUID == DigitalMammographyXRayImageStorageForPresentation
    assert (ds.PresentationIntentType, ds.PhotometricInterpretation, ds.PresentationLUTShape) == (
        "FOR PRESENTATION",
        "MONOCHROME2",
        "IDENTITY",
    )
    assert (ds.WindowCenter, ds.WindowWidth, ds.VOILUTFunction, ds.PixelPaddingValue) == (1900, 3200, "LINEAR", 0)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.BurnedInAnnotation) == (16, 12, 11, "NO")


def test_a_view_for_processing_has_no_window() -> None:
    ds = phantom.raw_mammogram("RCC", **SMALL)
    assert ds.SOPClassUID == DigitalMammographyXRayImageStorageForProcessing
    assert (ds.PresentationIntentType, ds.PixelIntensityRelationship, ds.PixelIntensityRelationshipSign) == (
        "FOR PROCESSING",
        "LIN",
        1,
    )
    assert "WindowCenter" not in ds
    pixels = ds.pixel_array
    assert pixels[:, :20].mean() > 3 * pixels[200:220, 280:].mean(), "air is brighter than the breast"


@pytest.mark.parametrize(
    ("view", "chest_wall", "air"), [("RCC", -1, 0), ("LCC", 0, -1), ("RMLO", -1, 0), ("LMLO", 0, -1)]
)
def test_the_chest_wall_is_on_the_side_of_the_breast(view: str, chest_wall: int, air: int) -> None:
    pixels = phantom.mammogram(view, **SMALL).pixel_array
    assert np.count_nonzero(pixels[:, chest_wall]) > 250
    assert np.count_nonzero(pixels[:, air]) == 0


def test_monochrome1_is_the_same_picture_inverted() -> None:
    two, one = phantom.mammogram("LCC", **SMALL), phantom.mammogram("LCC", monochrome1=True, **SMALL)
    np.testing.assert_array_equal(one.pixel_array, 4095 - two.pixel_array)
    assert (one.PhotometricInterpretation, one.PresentationLUTShape) == ("MONOCHROME1", "INVERSE")
    assert (one.PixelPaddingValue, one.WindowCenter) == (4095, 2195)


def test_the_same_arguments_give_the_same_object() -> None:
    assert phantom.mammogram("RMLO", EXAM, **SMALL) == phantom.mammogram("RMLO", EXAM, **SMALL)


def test_every_view_repeat_and_kind_is_an_instance_of_its_own() -> None:
    objects = [phantom.mammogram(view, EXAM, **SMALL) for view in VIEWS]
    objects += [
        phantom.mammogram("RCC", EXAM, instance_number=2, **SMALL),
        phantom.mammogram("RCC", EXAM, modifiers=("spot",), **SMALL),
        phantom.mammogram("RCC", EXAM, implant=True, **SMALL),
        phantom.mammogram("RCC", EXAM, partial=True, **SMALL),
        phantom.mammogram("RCC", EXAM, monochrome1=True, **SMALL),
        phantom.mammogram("RCC", EXAM, rows=64, columns=48),
        phantom.raw_mammogram("RCC", EXAM, **SMALL),
        phantom.tomosynthesis("RCC", EXAM, frames=2, **SMALL),
    ]
    assert len({ds.SOPInstanceUID for ds in objects}) == len(objects)
    assert {ds.StudyInstanceUID for ds in objects} == {"2.25.42"}


def test_the_pictures_of_an_exam_differ() -> None:
    pictures = {phantom.mammogram(view, EXAM, **SMALL).PixelData for view in SCREENING_VIEWS}
    pictures |= {phantom.mammogram("RCC", Exam(seed=1), **SMALL).PixelData}
    assert len(pictures) == 5


def test_a_full_size_view_is_seventeen_megabytes_of_twelve_bit_texture() -> None:
    ds = phantom.mammogram("LCC")
    pixels = ds.pixel_array
    assert (pixels.shape, len(ds.PixelData), int(pixels.max()) <= 4095) == ((3328, 2560), 17_039_360, True)
    breast = pixels[pixels > 0]
    assert 0.2 < breast.size / pixels.size < 0.6
    assert len(np.unique(breast)) > 2000


def test_a_tomosynthesis_keeps_its_facts_in_functional_groups() -> None:
    ds = phantom.tomosynthesis("LMLO", EXAM, frames=5, **SMALL)
    [shared], planes = ds.SharedFunctionalGroupsSequence, ds.PerFrameFunctionalGroupsSequence
    assert ds.SOPClassUID == BreastTomosynthesisImageStorage
    assert shared.FrameAnatomySequence[0].FrameLaterality == "L"
    assert shared.FrameVOILUTSequence[0].WindowWidth == 2600
    assert ds.ViewCodeSequence[0].CodeValue == "399368009"
    assert [plane.PlanePositionSequence[0].ImagePositionPatient[2] for plane in planes] == [0, 1, 2, 3, 4]
    frames = ds.pixel_array
    assert frames.shape == (5, 416, 320)
    assert (frames[0] != frames[2]).mean() > 0.2, "planes differ"


def test_a_large_tomosynthesis_is_written_with_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    phantom.write_large_tomosynthesis(path, frames=2, rows=416, columns=320)  # fills the caches
    tracemalloc.start()
    uid = phantom.write_large_tomosynthesis(path, EXAM, frames=300, rows=416, columns=320)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    ds = dcmread(path)
    assert (ds.SOPInstanceUID, ds.file_meta.TransferSyntaxUID) == (uid, ExplicitVRLittleEndian)
    assert ds.pixel_array.shape == (300, 416, 320)
    assert path.stat().st_size > 79_000_000
    assert peak < 40_000_000


def test_pixel_data_of_four_gigabytes_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="4 GiB"):
        phantom.write_large_tomosynthesis(tmp_path / "a.dcm", frames=2**20, rows=64, columns=64)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dicom3tools are not installed")
def test_dciodvfy_finds_no_error(tmp_path: Path) -> None:
    objects = [phantom.mammogram(view, EXAM, **SMALL) for view in VIEWS]
    objects += [
        phantom.mammogram("LMLO", EXAM, monochrome1=True, implant=True, modifiers=("implant displaced",), **SMALL),
        phantom.mammogram("RCC", EXAM, partial=True, **SMALL),
        phantom.mammogram("RML", EXAM, modifiers=("spot", "magnification"), **SMALL),
        phantom.mammogram("RCC", **SMALL),
        phantom.raw_mammogram("RCC", EXAM, **SMALL),
        phantom.tomosynthesis("RMLO", EXAM, frames=3, **SMALL),
    ]
    for ds in objects:
        path = tmp_path / f"{ds.SOPInstanceUID}.dcm"
        ds.save_as(path, enforce_file_format=True)
        checked = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
        assert "Error" not in checked.stderr, ds.SeriesDescription


IMAGES = [Sent("2.25.42", f"2.25.{n // 2}", DigitalMammographyXRayImageStorageForPresentation, f"2.25.1{n}", "", 1, "")
          for n in range(3)]  # fmt: skip
OBJECTS: dict[str, Callable[[], Dataset]] = {
    "for presentation": lambda: phantom.mammogram("LMLO", EXAM, **SMALL),
    "inverted": lambda: phantom.mammogram("RCC", EXAM, monochrome1=True, **SMALL),
    "spot and magnified": lambda: phantom.mammogram("RCC", EXAM, modifiers=("spot", "magnification"), **SMALL),
    "implant displaced": lambda: phantom.mammogram(
        "RCC", EXAM, modifiers=("implant displaced",), implant=True, **SMALL
    ),
    "partial": lambda: phantom.mammogram("RMLO", EXAM, partial=True, **SMALL),
    "for processing": lambda: phantom.raw_mammogram("RCC", EXAM, **SMALL),
    "tomosynthesis": lambda: phantom.tomosynthesis("LMLO", EXAM, frames=3, **SMALL),
    "tomosynthesis of another size": lambda: phantom.tomosynthesis("RCC", EXAM, frames=2, rows=1228, columns=996),
    "synthetic 2D": lambda: phantom.synthetic_view("LCC", EXAM, **SMALL),
    "JPEG Lossless": lambda: compress(phantom.mammogram("LCC", EXAM, **SMALL), SYNTAXES["jpeg-lossless"]),
    "JPEG-LS": lambda: compress(phantom.mammogram("LCC", EXAM, **SMALL), SYNTAXES["jpeg-ls"]),
    "JPEG 2000": lambda: compress(phantom.tomosynthesis("LCC", EXAM, frames=3, **SMALL), SYNTAXES["jpeg-2000"]),
    "dose report": lambda: report("dose", EXAM, IMAGES),
    "CAD report": lambda: report("cad", EXAM, IMAGES),
    "RLE": lambda: compress(phantom.raw_mammogram("LCC", EXAM, **SMALL), SYNTAXES["rle"]),
}


@pytest.mark.skipif(DCIODVFY is None, reason="dicom3tools is not installed")
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_is_valid_for_dciodvfy(name: str, tmp_path: Path) -> None:
    path = tmp_path / "object.dcm"
    OBJECTS[name]().save_as(path, enforce_file_format=True)
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, check=False)
    wrong = [line for line in done.stderr.splitlines() if line.startswith("Error")]
    assert (wrong, done.returncode) == ([], 0)


def test_a_tomosynthesis_says_its_side_and_view_where_they_belong() -> None:
    ds = phantom.tomosynthesis("LMLO", EXAM, frames=3, **SMALL)
    [shared] = ds.SharedFunctionalGroupsSequence
    assert shared.FrameAnatomySequence[0].FrameLaterality == "L"
    assert [view.CodeValue for view in ds.ViewCodeSequence] == ["399368009"]
    assert (len(ds.PerFrameFunctionalGroupsSequence), "ImageLaterality" in ds) == (3, False)


def test_a_synthetic_view_is_a_secondary_capture_that_says_its_side_only() -> None:
    ds = phantom.synthetic_view("LMLO", EXAM, **SMALL)
    assert (ds.SOPClassUID, ds.Laterality, "ViewCodeSequence" in ds) == (SecondaryCaptureImageStorage, "L", False)
