"""One small picture in every transfer syntax that is accepted, made when asked for: no binary file is committed.

Encoders: pydicom (native, deflated, RLE), Pillow (JPEG), GDCM (JPEG Lossless), CharLS (JPEG-LS), OpenJPEG (JPEG 2000).
Nothing in Python encodes high-throughput JPEG 2000 under a free licence that we depend on, so that codestream was made
once with OpenJPH (through imagecodecs) and is held as text. Every encoding is reversible, also where the syntax is a
lossy one, so that all files show exactly the same values.
"""

import base64
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import gdcm
import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import encode_array as encode_jpeg_2000
from PIL import Image
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.encaps import encapsulate, encapsulate_extended, get_frame
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

ROWS, COLUMNS = 40, 32

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
"""Syntaxes without compressed frames."""

REVERSIBLE = (
    *NATIVE,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    JPEG2000Lossless,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    HTJ2K,
    RLELossless,
)
"""Every accepted syntax that can carry GREY without loss."""

EIGHT_BIT = (JPEGBaseline8Bit, JPEGExtended12Bit)
"""Syntaxes that carry GREY's upper eight bits, nearly."""

_row, _column = np.mgrid[0:ROWS, 0:COLUMNS]
_checks = (_row // 8 + _column // 8) % 2
GREY: NDArray[np.uint16] = ((_row * 90 + _column * 23 + _checks * 300) % 4096).astype(np.uint16)
"""Twelve bits, not symmetric in any way, so that a mirrored or shifted picture is seen."""

GREY_AS_HTJ2K = base64.b64decode(
    "/0//UQApQAAAAAAgAAAAKAAAAAAAAAAAAAAAIAAAACgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAIEBEAB/1wACiCIkJCQiIiI/2QA"
    "FwABT3BlbkpQSCBWZXIgMC4yNi4zLv9VAAoAYAAAAAADbv+QAAoAAAAAA24AAf+TwAAvrAD/f4P9m/83+sv86HzIfvx+yA/PF/PH9Ov5ePsevqq+"
    "ic+mz72PnTfgb+vN9x97gb1XPk0vhrfUr+Wp9Gv5Cb1JPnN+QF4db3SPwivZ/fBTdy/85V3vbl1PtxfUW+3M9Dz2OHQz+07dyP5XF6v7zpPpwnJ7"
    "+vKclr48n6OnzLPQ48uV5oTxWLlE3Fv+HH+Wg8JR4vp1dzd4A9ev1l/Xr9Zf16/WX9ev1l0IAMZCADG5AcAAF65AABexwAAXqgBPryQuULAlL0+v"
    "pGuaproRMae3EjCmuhExZmantxIwproRMae3EjBmZqa6ETGntxIwproRMWZmp1kSRqbhERTwEntqvn3JpQSAyiPEuUeJco8S5R4YFlghAWJ1AU9b"
    "UXVPc1G1SKBgYCNOX3IlUGF0I05LskqeXlolUGF0I05fciVQTbRIoGBgI05fciVQYXQjTkuySihfKCVoYRIjSOwW4kQr8f2FfP4AJyWDH5S5R+Uu"
    "UflLlHCEDHEIQMdXAXsoeil7SEVvIOVkjwBFRW8g5WSPAEVFbyDlZI8ARUVvIOVkjwBFRW8g5RDADyr4xwD4wZH4AFl8+j//ewIIPcoIJR3S5R7p"
    "co90uUcGB3EIQDfYAcAAL6PgABfWkAALvCsrKiorK4yt1KnYrdQxBq7yvQKuwpiK3Uqdih1j3yvgKt8rjK3Uqdit1DEGrvK9Aq7CmIrdSp2KHWPf"
    "K+Aq3yv+/1nAwsrKf5WmlQZp+J9//GeBhYfmd34BHI2U4BgG48cxzHpynKcp6cxzHMenKcpynpzHMcx6cpynKenMcxzHpynKcpwAuBguBguBgnsD"
    "K1dW6sBVVOy+V1bqwFVUVFSqqNh9r6zUgauo2H2vrKysXFmpA1dRsfteWakDV1FRUamiYve9slIHrqJi972ysuIf/KP/ej9lZTKZTLY0ls5SWbL+"
    "sv8rFvxDFmRBFv76AlBIt2oEBn9iEB7LAACm0AAYwPecYwPecYwPecYwPZYAADGB7zjGB7zjGB7zjGB7LAAAYwPecYwPecYwPecYwPZYAADGB7zj"
    "GB7zjGB7zjGB7LUFKyorKisqKyorKisq/v9//3+//378BgaODMKCZRGMCzFAXPgDBQwUMFADBQwUMFADBQwUMFADBQwUMFgC/9k="
)
"""GREY as one reversible HTJ2K codestream in RPCL order with a TLM marker, right for all three syntaxes."""


def compressed(picture: NDArray[np.uint16], transfer_syntax_uid: str) -> bytes:
    """Compress one frame of 12-bit grey values (8-bit ones for EIGHT_BIT); HTJ2K knows GREY only."""
    if transfer_syntax_uid in (HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K):
        assert np.array_equal(picture, GREY), "only GREY exists as HTJ2K"
        return GREY_AS_HTJ2K
    if transfer_syntax_uid in (JPEG2000Lossless, JPEG2000):
        return encode_jpeg_2000(picture, bits_stored=12, photometric_interpretation=2)
    if transfer_syntax_uid in EIGHT_BIT:
        return _jpeg(picture)
    if transfer_syntax_uid in (JPEGLossless, JPEGLosslessSV1):
        return _jpeg_lossless(picture, transfer_syntax_uid)
    encoder = get_encoder(UID(JPEGLSLossless if transfer_syntax_uid == JPEGLSNearLossless else transfer_syntax_uid))
    described = described_pixels(picture)
    options = {name: described[keyword].value for name, keyword in _ENCODER_OPTIONS.items()}
    return encoder.encode(picture.tobytes(), index=0, number_of_frames=1, **options)


_ENCODER_OPTIONS = {
    "rows": "Rows",
    "columns": "Columns",
    "samples_per_pixel": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "photometric_interpretation": "PhotometricInterpretation",
}


def _jpeg(picture: NDArray[np.uint16]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(target, "JPEG", quality=100)
    return target.getvalue()


def _jpeg_lossless(picture: NDArray[np.uint16], transfer_syntax_uid: str) -> bytes:
    """Let GDCM convert a file: its objects in memory do not survive being taken apart from Python."""
    with tempfile.TemporaryDirectory() as folder:
        native, target = Path(folder, "native.dcm"), Path(folder, "compressed.dcm")
        write(native, data_set(picture))
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(native))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(transfer_syntax_uid))))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
        return get_frame(dcmread(target).PixelData, 0, number_of_frames=1)


def described_pixels(picture: NDArray[np.generic], *, frames: int = 1) -> Dataset:
    """Return the Image Pixel module of pictures like this one: 12 of 16 bits, 8 bits, or 8-bit RGB."""
    ds = Dataset()
    ds.Rows, ds.Columns = picture.shape[:2]
    ds.SamplesPerPixel = 3 if picture.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if picture.ndim == 3 else "MONOCHROME2"
    if picture.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PixelRepresentation = 0
    ds.BitsAllocated, ds.BitsStored = (8, 8) if picture.dtype.itemsize == 1 else (16, 12)
    ds.HighBit = ds.BitsStored - 1
    if frames > 1:
        ds.NumberOfFrames = frames
    return ds


def data_set(
    *pictures: NDArray[np.generic],
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    sop_class_uid: str = DigitalMammographyXRayImageStorageForPresentation,
    **attributes: object,
) -> Dataset:
    """Return a minimal image object of these frames, GREY if none are given; `attributes` overrule, None removes."""
    pictures = pictures or (GREY,)
    ds = described_pixels(pictures[0], frames=len(pictures))
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class_uid, "2.25.1001"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "2.25.1002", "2.25.1003", "MG"
    ds.PatientName, ds.PatientID = "PHANTOM^CORPUS", "9990000018"
    set_frames(ds, pictures, transfer_syntax_uid)
    for keyword, value in attributes.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def set_frames(ds: Dataset, pictures: Sequence[NDArray[np.generic]], transfer_syntax_uid: str) -> None:
    """Give a data set its pixels in a transfer syntax, one fragment a frame with a Basic Offset Table."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    if transfer_syntax_uid in NATIVE:
        ds.PixelData = b"".join(picture.tobytes() for picture in pictures)
        ds["PixelData"].VR = "OW"
    else:
        set_compressed(ds, [compressed(picture.astype(np.uint16), transfer_syntax_uid) for picture in pictures])


def set_compressed(
    ds: Dataset, encoded: Sequence[bytes], *, table: str = "basic", fragments_per_frame: int = 1
) -> None:
    """Encapsulate encoded frames; `table` is basic, none or extended (PS3.5 A.4)."""
    if table == "extended":
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(list(encoded))
    else:
        ds.PixelData = encapsulate(list(encoded), fragments_per_frame=fragments_per_frame, has_bot=table == "basic")
    ds["PixelData"].VR = "OB"


def write(path: Path, ds: Dataset) -> Path:
    """Save as a Part 10 file and return the path."""
    ds.save_as(path, enforce_file_format=True)
    return path
