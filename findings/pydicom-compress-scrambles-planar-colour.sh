#!/bin/sh
# Guess: `Dataset.compress` reads the pixels as Planar Configuration says, so that they are the same picture
#        afterwards.
# Seen:  a colour image that is stored plane by plane (Planar Configuration 1) goes into RLE as if it were stored pixel
#        by pixel: another picture comes back. No error, no warning. In JPEG-LS it comes back right, and in RLE as well
#        when the decoded array is passed as an argument.
# With:  pydicom 3.0.2 and its own RLE encoder, pyjpegls 1.5.1.
# Means: ultrasound images and secondary captures are often stored by plane; a lossless syntax loses them without a
#        trace.
# Here:  no colour image is ever compressed, and grey frames are decoded again and compared (pacs/images/compress.py).
. "$(dirname "$0")/setup"
packages pydicom==3.0.2 numpy==2.4.6 pyjpegls==1.5.1

python <<'PYTHON'
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

PIXELS = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype="u1")


def image(planar: int) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "2.25.1"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 16, 16, 3, "RGB"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PlanarConfiguration = planar
    ds.PixelData = (PIXELS.transpose(2, 0, 1) if planar else PIXELS).tobytes()
    ds["PixelData"].VR = "OB"
    return ds


def comes_back(syntax: UID, planar: int, *, with_array: bool = False) -> bool:
    ds = image(planar)
    assert np.array_equal(pixel_array(ds), PIXELS)
    ds.compress(syntax, pixel_array(ds) if with_array else None, generate_instance_uid=False)
    return bool(np.array_equal(pixel_array(ds), PIXELS))


seen = {
    "RLE, by pixel": comes_back(RLELossless, 0),
    "RLE, by plane": comes_back(RLELossless, 1),
    "RLE, by plane, with the array": comes_back(RLELossless, 1, with_array=True),
    "JPEG-LS, by pixel": comes_back(JPEGLSLossless, 0),
    "JPEG-LS, by plane": comes_back(JPEGLSLossless, 1),
}
for how, right in seen.items():
    print(f"{how}: {'the same picture' if right else 'ANOTHER picture'} comes back")
raise SystemExit(list(seen.values()) != [True, False, True, True, True])
PYTHON
