"""Pixels in a compressed transfer syntax, by the encoders that the product's own libraries have.

Not for: the rest of a data set (`encoding`), and not for HTJ2K: there is no encoder.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import gdcm
from openjpeg.utils import encode_array
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import UID, JPEG2000Lossless, JPEGLossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless


def compress(ds: Dataset, transfer_syntax: str) -> Dataset:
    """Give an uncompressed object its pixels in another transfer syntax; the object itself is changed.

    Every encoding here is reversible, so what is shown is the same.
    """
    compressed = _FRAMES.get(transfer_syntax)
    if compressed is not None:
        # Encapsulated pixels are OB of undefined length (PS3.5 A.4).
        ds.PixelData = encapsulate(compressed(ds))
        ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
        ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    elif transfer_syntax in (JPEGLSLossless, RLELossless):
        ds.compress(transfer_syntax, generate_instance_uid=False)  # reversible, so it is the same instance
    else:
        ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    return ds


def _jpeg_2000(ds: Dataset) -> list[bytes]:
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    # 2 is greyscale in openjpeg's numbering.
    return [encode_array(frame, bits_stored=ds.BitsStored, photometric_interpretation=2) for frame in frames]


def _jpeg_lossless(ds: Dataset, transfer_syntax: str) -> list[bytes]:
    # By way of files, because GDCM's objects in memory do not survive being taken apart from Python.
    with tempfile.TemporaryDirectory() as folder:
        native, target = Path(folder, "native.dcm"), Path(folder, "compressed.dcm")
        ds.save_as(native, enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(native))
        _expect(reader.Read())
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(transfer_syntax)))
        change.SetInput(reader.GetImage())
        _expect(change.Change())
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        _expect(writer.Write())
        count = int(ds.get("NumberOfFrames", 1))
        pixels = dcmread(target).PixelData
        return [get_frame(pixels, number, number_of_frames=count) for number in range(count)]


def _expect(done: bool) -> None:
    if not done:
        raise RuntimeError("GDCM does not make JPEG Lossless of this object.")


_FRAMES: Mapping[str, Callable[[Dataset], list[bytes]]] = MappingProxyType(
    {
        str(JPEG2000Lossless): _jpeg_2000,
        str(JPEGLosslessSV1): lambda ds: _jpeg_lossless(ds, str(JPEGLosslessSV1)),
        str(JPEGLossless): lambda ds: _jpeg_lossless(ds, str(JPEGLossless)),
    }
)
