"""Transcodes a stored object, or one frame of it, without loss, for a client that requests it.

Into Explicit VR Little Endian, JPEG-LS, JPEG 2000 and JPEG Lossless. Only unsigned grey values are compressed; colour
becomes uncompressed RGB. Attributes behind the pixels are left out. The stored object is never changed.

To be run in worker processes like `pacs.images.pictures`. Not for: negotiation (`relay.dicomweb.negotiation`), C-MOVE
and forwarding (`pacs.images.decompress`).
"""

import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import gdcm
import numpy as np
from openjpeg.utils import encode_array as encode_jpeg_2000
from pydicom import Dataset, FileMetaDataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from gateway.dataset.data_sets import encode
from gateway.errors import NotAcceptable
from pacs.archive.files import part10_header
from pacs.images.decoding import Cells, decode
from pacs.images.pictures import only_refusals
from pacs.images.stored_frames import NATIVE, Layout, PixelError, StoredFrames, opened

EXPLICIT = str(ExplicitVRLittleEndian)

LARGEST_WITHOUT_PIXELS = 64 << 20
"""Most bytes of an object without pixels that is converted, because it is read whole."""

_LONGEST_VALUE = 0xFFFFFFFE
_UNDEFINED = 0xFFFFFFFF
_ITEM = struct.Struct("<HHI")


def recoded_frame(path: Path, number: int, wanted: str) -> bytes:
    """Give one frame in a transfer syntax. Raises NotFound, NotAcceptable when it cannot be, PixelError for damage."""
    with only_refusals(), opened(path) as stored:
        _check(stored, wanted)
        return _frame(stored, number, wanted)


def recode(path: Path, wanted: str, target: Path) -> None:
    """Write a Part 10 file in a transfer syntax. Raises NotAcceptable when that cannot be, PixelError for damage."""
    with only_refusals(), target.open("wb") as file:
        if _has_pixels(path):
            with opened(path) as stored:
                _check(stored, wanted)
                _write(path, stored, wanted, file)
        else:
            _write_without_pixels(path, wanted, file)


def check_recoding(path: Path, wanted: str) -> None:
    """Raise what `recode` would, as far as the header tells; damaged pixels are found by doing it."""
    with only_refusals():
        if _has_pixels(path):
            with opened(path) as stored:
                _check(stored, wanted)
        elif wanted != EXPLICIT:
            raise NotAcceptable("The object has no pixels that could be compressed.")


def _has_pixels(path: Path) -> bool:
    return "Rows" in dcmread(path, specific_tags=["Rows"], stop_before_pixels=True)


def _check(stored: StoredFrames, wanted: str) -> None:
    layout = stored.layout
    if wanted == EXPLICIT:
        if layout.frames * layout.frame_length > _LONGEST_VALUE:
            raise NotAcceptable("Uncompressed, the pixels are longer than a value can be (PS3.5 7.1.2).")
        return
    if wanted not in _ENCODERS:
        raise NotAcceptable("Objects are given as stored, uncompressed, or in JPEG-LS, JPEG 2000 or JPEG Lossless.")
    if layout.samples != 1 or layout.signed or layout.high_bit != layout.bits_stored - 1:
        raise NotAcceptable("Only grey values without sign are compressed; ask for the object as stored.")


def _frame(stored: StoredFrames, number: int, wanted: str) -> bytes:
    frame, layout = stored.read(number), stored.layout
    if wanted == EXPLICIT:
        native = stored.transfer_syntax_uid in NATIVE
        return frame if native else decode(frame, layout, stored.transfer_syntax_uid).tobytes()
    cells = decode(frame, layout, stored.transfer_syntax_uid)
    if int(cells.max(initial=0)) >> layout.bits_stored:
        raise NotAcceptable("The bits beside the pixels are in use, and compression would lose them.")
    return _compressed(cells, layout, wanted)


def _compressed(cells: Cells, layout: Layout, wanted: str) -> bytes:
    try:
        return _ENCODERS[wanted](cells, layout)
    except Exception as error:  # each encoder raises its own, for noise that does not get smaller, for tiny pictures
        raise NotAcceptable("The frame cannot be compressed this way; ask for the object as stored.") from error


def _write(path: Path, stored: StoredFrames, wanted: str, file: BinaryIO) -> None:
    layout = stored.layout
    ds = dcmread(path, stop_before_pixels=True)
    if stored.transfer_syntax_uid not in NATIVE and layout.samples == 3:
        ds.PhotometricInterpretation, ds.PlanarConfiguration = "RGB", 0
    for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if keyword in ds:
            del ds[keyword]
    file.write(_head(ds, wanted))
    # A generator, so that a tomosynthesis takes the memory of one frame. What follows the pixels is left out: padding,
    # and digital signatures, which would no longer hold.
    frames = (_frame(stored, number, wanted) for number in range(1, layout.frames + 1))
    if wanted == EXPLICIT:
        _write_native(file, frames, layout)
    else:
        _write_encapsulated(file, frames)


def _head(ds: Dataset, wanted: str) -> bytes:
    # The same UID, because a lossless form is the same instance (PS3.5 8.2).
    header = part10_header(str(ds.SOPClassUID), str(ds.SOPInstanceUID), wanted)
    return header + encode(ds, EXPLICIT)


def _write_native(file: BinaryIO, frames: Iterator[bytes], layout: Layout) -> None:
    vr, length = b"OB" if layout.bits_allocated == 8 else b"OW", layout.frames * layout.frame_length
    file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, vr, 0, length + length % 2))
    for frame in frames:
        if len(frame) != layout.frame_length:
            raise PixelError("The decoded frame is not of the size that the header says.")
        file.write(frame)
    file.write(b"\0" * (length % 2))


def _write_encapsulated(file: BinaryIO, frames: Iterator[bytes]) -> None:
    """An empty Basic Offset Table, then one fragment for each frame (PS3.5 A.4)."""
    file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, _UNDEFINED) + _ITEM.pack(0xFFFE, 0xE000, 0))
    for frame in frames:
        file.write(_ITEM.pack(0xFFFE, 0xE000, len(frame) + len(frame) % 2) + frame + b"\0" * (len(frame) % 2))
    file.write(_ITEM.pack(0xFFFE, 0xE0DD, 0))


def _write_without_pixels(path: Path, wanted: str, file: BinaryIO) -> None:
    if wanted != EXPLICIT or path.stat().st_size > LARGEST_WITHOUT_PIXELS:
        raise NotAcceptable("The object has no pixels that could be compressed, or is too large to be converted.")
    file.write(_head(dcmread(path), wanted))


# --- encoders


def _jpeg_ls(cells: Cells, layout: Layout) -> bytes:
    encoded: bytes = get_encoder(UID(JPEGLSLossless)).encode(
        cells.tobytes(),
        index=0,
        number_of_frames=1,
        rows=layout.rows,
        columns=layout.columns,
        samples_per_pixel=1,
        bits_allocated=layout.bits_allocated,
        bits_stored=layout.bits_stored,
        pixel_representation=0,
        photometric_interpretation=layout.photometric,
    )
    return encoded


def _jpeg_2000(cells: Cells, layout: Layout) -> bytes:
    encoded: bytes = encode_jpeg_2000(cells, bits_stored=layout.bits_stored, photometric_interpretation=2)
    return encoded


def _jpeg_lossless(cells: Cells, layout: Layout) -> bytes:
    # By way of a file, because GDCM's objects in memory do not survive being taken apart from Python.
    with tempfile.TemporaryDirectory() as folder:
        native, target = Path(folder, "native.dcm"), Path(folder, "compressed.dcm")
        _alone(cells, layout).save_as(native, enforce_file_format=True)
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(native))
        is_read = reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGLosslessSV1))))
        change.SetInput(reader.GetImage())
        writer.SetFileName(str(target))
        writer.SetFile(reader.GetFile())
        is_changed = is_read and change.Change()
        writer.SetImage(change.GetOutput())
        if not (is_changed and writer.Write()):
            raise ValueError("GDCM did not compress it")
        return get_frame(dcmread(target).PixelData, 0, number_of_frames=1)


def _alone(cells: Cells, layout: Layout) -> Dataset:
    """One frame as an image object with the fewest attributes."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.1.2", "2.25.1", "MG"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PixelRepresentation = layout.rows, layout.columns, 1, 0
    ds.PhotometricInterpretation = layout.photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = layout.bits_allocated, layout.bits_stored, layout.high_bit
    value = np.ascontiguousarray(cells).tobytes()
    ds.PixelData = value + b"\0" * (len(value) % 2)
    ds["PixelData"].VR = "OB" if layout.bits_allocated == 8 else "OW"
    return ds


_ENCODERS: Mapping[str, Callable[[Cells, Layout], bytes]] = MappingProxyType(
    {str(JPEGLSLossless): _jpeg_ls, str(JPEG2000Lossless): _jpeg_2000, str(JPEGLosslessSV1): _jpeg_lossless}
)

RECODED_AS: Mapping[str, str] = MappingProxyType(
    {
        EXPLICIT: "application/octet-stream",
        str(JPEGLSLossless): "image/jls",
        str(JPEG2000Lossless): "image/jp2",
        str(JPEGLosslessSV1): "image/jpeg",
    }
)
"""The transfer syntaxes an object can be given in besides its own, with the media type of frames."""
