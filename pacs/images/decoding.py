"""Decodes one stored frame of any transfer syntax to an array of stored cells, or of 8-bit RGB.

Not for: sign and meaning of grey values (`grayscale`), finding a frame in its file (`stored_frames`).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from openjpeg.utils import decode as decode_jpeg_2000
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from pacs.images import codestreams
from pacs.images.codestreams import Said
from pacs.images.stored_frames import NATIVE, Layout, PixelError

Cells: TypeAlias = NDArray[np.unsignedinteger]
"""Values as they are stored, sign and unused bits included."""

# One decoder for each transfer syntax, so that the same bytes always give the same picture.
_PLUGINS: Mapping[str, str] = MappingProxyType(
    {
        JPEGBaseline8Bit: "pillow",
        JPEGExtended12Bit: "pillow",
        JPEGLossless: "gdcm",
        JPEGLosslessSV1: "gdcm",
        JPEGLSLossless: "pyjpegls",
        JPEGLSNearLossless: "pyjpegls",
        RLELossless: "pydicom",
    }
)
_SIZES: Mapping[str, Callable[[bytes], Said]] = MappingProxyType(
    {
        JPEGBaseline8Bit: codestreams.jpeg,
        JPEGExtended12Bit: codestreams.jpeg,
        JPEGLossless: codestreams.jpeg_lossless,
        JPEGLosslessSV1: codestreams.jpeg_lossless,
        JPEGLSLossless: codestreams.jpeg,
        JPEGLSNearLossless: codestreams.jpeg,
    }
)
# A second one goes behind every JPEG frame, because without the first, which damage may take, GDCM waits forever and
# CharLS counts to 2**32 (found by fuzzing).
_END_OF_IMAGE = b"\xff\xd9"

_JPEG_2000 = frozenset({JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K})

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


def decode(frame: bytes, layout: Layout, transfer_syntax_uid: str) -> Cells:
    """Return a frame as (rows, columns) of unsigned cells or as (rows, columns, 3) of 8-bit RGB.

    Cells are as wide as Bits Allocated (8 or 16), with the bits above Bits Stored as they are. Raises PixelError for an
    unsupported frame and one that contradicts its header; decoders may raise any other exception on damage.
    """
    _check_kind(layout)
    if transfer_syntax_uid in NATIVE and layout.samples == 1:
        return np.frombuffer(frame, _cell(layout)).reshape(layout.rows, layout.columns)
    if transfer_syntax_uid in _JPEG_2000:
        array = _decode_jpeg_2000(frame, layout)
    else:
        array = _decode_by_pydicom(frame, layout, transfer_syntax_uid)
    expected = (layout.rows, layout.columns) + ((3,) if layout.samples == 3 else ())
    if array.shape != expected:
        raise PixelError("The decoded frame is not of the size that the header says.")
    return array.astype(_cell(layout), copy=False)


def _check_kind(layout: Layout) -> None:
    if layout.samples == 1 and layout.photometric not in _GREY:
        raise PixelError("Only MONOCHROME1 and MONOCHROME2 are understood for one sample per pixel.")
    if layout.samples == 3 and layout.photometric not in _COLOUR:
        raise PixelError("The photometric interpretation is not one that is understood for three samples per pixel.")
    if layout.bits_allocated > (16 if layout.samples == 1 else 8):
        raise PixelError("Pictures are made of 8 or 16 bit grey values or 8 bit colours only.")


def _cell(layout: Layout) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2" if layout.bits_allocated == 16 else "u1")


def _decode_by_pydicom(frame: bytes, layout: Layout, transfer_syntax_uid: str) -> Cells:
    native = transfer_syntax_uid in NATIVE
    if transfer_syntax_uid in _SIZES:
        _check_said(_SIZES[transfer_syntax_uid](frame), layout)
        frame += _END_OF_IMAGE
    decoder = get_decoder(UID(ExplicitVRLittleEndian if native else transfer_syntax_uid))
    options: dict[str, object] = {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.photometric,
        "bits_allocated": layout.bits_allocated,
        "bits_stored": layout.bits_stored,
        "pixel_representation": int(layout.signed),
        "planar_configuration": layout.planar,
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW",
    }
    array, _ = decoder.as_array(
        frame if native else encapsulate([frame], has_bot=False),
        index=0,
        decoding_plugin=_PLUGINS.get(transfer_syntax_uid, ""),
        **options,  # type: ignore[arg-type]  # pydicom's annotation asks each option to be all of them
    )
    return array


def _decode_jpeg_2000(frame: bytes, layout: Layout) -> Cells:
    """JPEG 2000 and its high-throughput kind; the colour transform of the codestream (RCT, ICT) is already undone."""
    _check_said(codestreams.jpeg_2000(frame), layout)
    array: Cells = decode_jpeg_2000(frame)
    if layout.photometric == "YBR_FULL":
        return convert_color_space(array, "YBR_FULL", "RGB")
    return array


# Checked before a decoder sees the frame, because decoders allocate what the frame states.
def _check_said(said: Said, layout: Layout) -> None:
    if (said.rows, said.columns, said.samples) != (layout.rows, layout.columns, layout.samples):
        raise PixelError("The compressed frame says another size than the header.")
    if said.bits > layout.bits_allocated:
        raise PixelError("The compressed frame has more bits than the header says.")
