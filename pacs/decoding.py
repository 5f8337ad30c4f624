"""One stored frame to an array, whatever it was compressed with.

Each transfer syntax has exactly one decoder here, so that the same bytes always give the same picture. What a
compressed frame says about its own size is compared with the header *before* a decoder sees it: decoders allocate what
the frame says. Values are left as stored cells; their sign and meaning is `grayscale`'s business, colour comes as RGB.
"""

import struct
from collections.abc import Mapping
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

from pacs.stored_frames import NATIVE, Layout, PixelError

MOST_TILES = 16_384
"""Most tiles of a JPEG 2000 image: decoders keep several kilobytes for each."""

Cells: TypeAlias = NDArray[np.unsignedinteger]
"""Values as they are stored, sign and unused bits included."""

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
_JPEG_2000 = frozenset({JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K})

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_CODESTREAM = b"\xff\x4f\xff\x51"


def decode(frame: bytes, layout: Layout, transfer_syntax_uid: str) -> Cells:
    """Return a frame as (rows, columns) of unsigned cells or as (rows, columns, 3) of 8-bit RGB.

    Cells are as wide as Bits Allocated (8 or 16) and still hold whatever is above Bits Stored. Raises PixelError for
    what is not supported and for a frame that contradicts its header; decoders may raise anything else on damage.
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
    if not native and transfer_syntax_uid != RLELossless:
        _check_said(_jpeg_size(frame), layout)
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
    _check_said(_jpeg_2000_size(frame), layout)
    array: Cells = decode_jpeg_2000(frame)
    if layout.photometric == "YBR_FULL":
        return convert_color_space(array, "YBR_FULL", "RGB")
    return array


def _check_said(said: tuple[int, int, int, int], layout: Layout) -> None:
    rows, columns, samples, bits = said
    if (rows, columns, samples) != (layout.rows, layout.columns, layout.samples):
        raise PixelError("The compressed frame says another size than the header.")
    if bits > layout.bits_allocated:
        raise PixelError("The compressed frame has more bits than the header says.")


def _jpeg_size(frame: bytes) -> tuple[int, int, int, int]:
    """Return rows, columns, components and bits of a JPEG or JPEG-LS image: its first frame header (ITU T.81 B.2.2)."""
    position = 2
    while frame[position : position + 1] == b"\xff" and position + 10 <= len(frame):
        marker, length = frame[position + 1], int.from_bytes(frame[position + 2 : position + 4], "big")
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            bits, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return rows, columns, components, bits
        position += 2 + length
    raise PixelError("The compressed frame is not a JPEG image.")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int, int]:
    """Return rows, columns, components and bits of a JPEG 2000 codestream: its SIZ marker (ITU T.800 A.5.1)."""
    start = frame.find(_CODESTREAM, 0, 65_536)
    if start < 0 or start + 43 > len(frame):
        raise PixelError("The compressed frame is not a JPEG 2000 image.")
    right, bottom, left, top, wide, high, tile_left, tile_top, components, depth = struct.unpack_from(
        ">8IHB", frame, start + 8
    )
    if not wide or not high or -(-(right - tile_left) // wide) * -(-(bottom - tile_top) // high) > MOST_TILES:
        raise PixelError(f"The compressed frame has more than {MOST_TILES} tiles.")
    return bottom - top, right - left, components, (depth & 0x7F) + 1
