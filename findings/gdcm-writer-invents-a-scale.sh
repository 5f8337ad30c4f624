#!/bin/sh
# Guess: changing the transfer syntax with GDCM changes the pixel data and what describes its encoding, nothing else.
# Seen:  through the classes (ImageReader, ImageChangeTransferSyntax, ImageWriter) an image without a scale gets one of
#        1 mm: Imager Pixel Spacing, Nominal Scanned Pixel Spacing or an ultrasound region, by SOP class; and a Rescale
#        Type "US" (unspecified) with slope and intercept. `gdcmconv` of the same package adds nothing.
# With:  python-gdcm 3.2.6.
# Means: a viewer lets people measure in an image that has no scale, and nothing tells the invented value from a real
#        one.
# Here:  GDCM gets an object of our own with one frame in it, and only the compressed frame is taken out of what it
#        writes (pacs/images/transcode.py, `_jpeg_lossless`).
. "$(dirname "$0")/setup"
packages pydicom==3.0.2 python-gdcm==3.2.6

python <<'PYTHON'
import subprocess
import sys
from pathlib import Path

import gdcm
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

UNKNOWN = (
    "StudyDate StudyTime AccessionNumber ReferringPhysicianName PatientName PatientID PatientBirthDate PatientSex"
    " StudyID SeriesNumber InstanceNumber PatientOrientation BodyPartExamined ViewPosition"
).split()  # of type 2


def image(sop_class: str, modality: str) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality, ds.ConversionType = sop_class, "2.25.1", modality, "WSD"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "2.25.2", "2.25.3"
    for keyword in UNKNOWN:
        setattr(ds, keyword, None)
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 16, 16, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = bytes(range(256))
    ds["PixelData"].VR = "OB"
    return ds


def by_classes() -> None:
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName("stored.dcm")
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGLosslessSV1))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName("converted.dcm")
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def by_command() -> None:
    gdcmconv = Path(sys.executable).with_name("gdcmconv")
    subprocess.run([str(gdcmconv), "--jpeg", "stored.dcm", "converted.dcm"], check=True)


RESCALE = {"RescaleIntercept", "RescaleSlope", "RescaleType"}
INVENTED = {
    (ComputedRadiographyImageStorage, "CR"): {"ImagerPixelSpacing", *RESCALE},
    (SecondaryCaptureImageStorage, "OT"): {"NominalScannedPixelSpacing", *RESCALE},
    (UltrasoundImageStorage, "US"): {"SequenceOfUltrasoundRegions"},
}
right = True
for (sop_class, modality), expected in INVENTED.items():
    ds = image(sop_class, modality)
    ds.save_as("stored.dcm", enforce_file_format=True)
    for convert in (by_classes, by_command):
        convert()
        converted = dcmread("converted.dcm")
        assert converted.file_meta.TransferSyntaxUID == JPEGLosslessSV1
        added = [element for element in converted if element.tag not in ds]
        print(f"{sop_class.name}, {convert.__name__}:")
        for element in added:
            print(f"    {element}".replace("\n", " "))
        right &= {element.keyword for element in added} == (expected if convert is by_classes else set())
raise SystemExit(not right)
PYTHON
