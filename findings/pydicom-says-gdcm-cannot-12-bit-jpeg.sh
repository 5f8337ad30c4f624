#!/bin/sh
# Guess: "GDCM does not support 'JPEG Extended' for samples with 12-bit precision", as pydicom says, is so.
# Seen:  GDCM itself decodes such an image and agrees with DCMTK in every pixel. The refusal is in pydicom's plugin for
#        GDCM.
# With:  pydicom 3.0.2, python-gdcm 3.2.6, DCMTK 3.6.7-9~deb12u4 of Debian 12 as encoder and judge.
# Means: 12-bit JPEG (1.2.840.10008.1.2.4.51) has no picture behind pydicom without a library under the GPL
#        (pylibjpeg-libjpeg), though a decoder for it may be installed already.
# Here:  such images are kept, found and sent as they came; they have no picture so far. The decoder of each transfer
#        syntax is named in pacs/images/decoding.py.
. "$(dirname "$0")/setup"
packages pydicom==3.0.2 numpy==2.4.6 python-gdcm==3.2.6
needs dcmdjpeg dcmtk

python <<'PYTHON'
import subprocess

import gdcm
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.uid import ExplicitVRLittleEndian, JPEGExtended12Bit, SecondaryCaptureImageStorage

rows, columns = np.mgrid[:64, :64]
PIXELS = (2000 + 1500 * np.sin(rows / 9) * np.cos(columns / 7)).astype("<u2")

ds = Dataset()
ds.file_meta = FileMetaDataset()
ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
ds.SOPClassUID, ds.SOPInstanceUID = SecondaryCaptureImageStorage, "2.25.1"
ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 64, 64, 1, "MONOCHROME2"
ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
ds.PixelData = PIXELS.tobytes()
ds["PixelData"].VR = "OW"
ds.save_as("native.dcm", enforce_file_format=True)

# The range of the pixels is moved on the way (dcmcjpeg scales); what counts is that both decode the same.
subprocess.run(["dcmcjpeg", "+ee", "native.dcm", "12-bit.dcm"], check=True)
assert dcmread("12-bit.dcm").file_meta.TransferSyntaxUID == JPEGExtended12Bit


def by_gdcm(path: str) -> np.ndarray:
    reader = gdcm.ImageReader()
    reader.SetFileName(path)
    assert reader.Read()
    pixels = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")  # bytes, given as text
    return np.frombuffer(pixels, "<u2").reshape(64, 64)


def by_pydicom(plugin: str) -> str:
    try:
        pixel_array("12-bit.dcm", decoding_plugin=plugin)
    except RuntimeError as error:
        return str(error).splitlines()[-1].strip()
    return "decoded"


subprocess.run(["dcmdjpeg", "12-bit.dcm", "by DCMTK.dcm"], check=True)
same = bool(np.array_equal(by_gdcm("12-bit.dcm"), pixel_array("by DCMTK.dcm")))
said = by_pydicom("gdcm")
print(f"GDCM called directly: {'the same' if same else 'OTHER'} pixels as DCMTK")
print(f"pydicom with its plugin for GDCM: {said}")
raise SystemExit(not same or "GDCM does not support" not in said)
PYTHON
