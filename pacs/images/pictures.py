"""Pictures and frames of stored objects, for pages, the viewer and the cloud.

Pure functions over a Part 10 file. `preview` and `rendered` are to be run in worker processes, which `start_worker`
prepares; arguments, results and errors can be pickled. Every fault of a damaged or hostile file is a PixelError without
patient data.

Not for diagnosis: a picture has 8 bits.
"""

import io
import logging
import resource
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.uid import (
    BreastProjectionXRayImageStorageForProcessing,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
)

from gateway.errors import InvalidValue, NotAcceptable, Refusal
from pacs.images.decoding import Cells, decode
from pacs.images.grayscale import Window, shades
from pacs.images.stored_frames import MEDIA_TYPES, NATIVE, Extent, Layout, PixelError, StoredFrames, opened

__all__ = ["Frame", "Picture", "PixelError", "Viewport", "Window", "frames", "preview", "rendered", "start_worker"]

LARGEST_VIEWPORT = 8192
"""Most pixels of a picture's side that may be requested."""

WORKER_MEMORY = 4 * 1024**3
"""Address space of a worker process in bytes; a frame of the largest kind takes a quarter of it."""

MOST_STRETCH = 10
"""Pixels more oblong than this are taken for square: the spacing is a mistake."""

RAW = "raw, not for reading"
_FOR_PROCESSING = frozenset(
    {
        DigitalMammographyXRayImageStorageForProcessing,
        BreastProjectionXRayImageStorageForProcessing,
        DigitalXRayImageStorageForProcessing,
    }
)
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}
_ATTRIBUTES = (
    "PresentationIntentType",
    "ModalityLUTSequence",
    "RescaleIntercept",
    "RescaleSlope",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "PixelIntensityRelationshipSign",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "ImagerPixelSpacing",
    "PixelSpacing",
    "PixelAspectRatio",
)
_FUNCTIONAL_GROUPS = ("PixelMeasuresSequence", "PixelValueTransformationSequence", "FrameVOILUTSequence")


@dataclass(frozen=True)
class Picture:
    """An encoded picture. `note` says in words what a reader must know, and is empty for an ordinary view."""

    data: bytes
    media_type: str
    width: int
    height: int
    note: str


@dataclass(frozen=True)
class Viewport:
    """Where a picture must fit, and which region of the image it shows (PS3.18 8.3.5.1.3).

    The region is scaled up or down until it fits, keeping its shape. None is the whole image from x or y on; a
    negative region width or height asks for a mirrored picture.
    """

    width: int
    height: int
    x: int = 0
    y: int = 0
    region_width: int | None = None
    region_height: int | None = None


@dataclass(frozen=True)
class Frame:
    """One frame as it is stored: the pieces of its file, in order, or the bytes themselves where it was deflated.

    Native frames are little endian and named Explicit VR, however they were stored.
    """

    media_type: str
    transfer_syntax_uid: str
    pieces: tuple[Extent | bytes, ...]


def preview(path: Path, *, size: int = 256) -> Picture:
    """Make a JPEG no larger than `size` on either side, of the frame that represents the object best."""
    return rendered(path, viewport=Viewport(size, size), quality=75)


def rendered(
    path: Path,
    *,
    frame: int | None = None,
    window: Window | None = None,
    viewport: Viewport | None = None,
    quality: int = 90,
    media_type: str = "image/jpeg",
) -> Picture:
    """Render one frame for a screen (PS3.18 8.3.5, PS3.3 C.11).

    `frame` counts from 1; None is the middle one, which for a tomosynthesis is the slice to show. `window` overrides
    what the object says. `media_type` is image/jpeg or image/png, `quality` 1 to 100 is for JPEG.
    Raises NotFound for a frame that is not there, InvalidValue and NotAcceptable for arguments that cannot be, and
    PixelError when the object has no picture.
    """
    _check(window, viewport, quality=quality, media_type=media_type)
    with only_refusals(), opened(path) as stored:
        number = stored.layout.frames // 2 + 1 if frame is None else frame
        cells = decode(stored.read(number), stored.layout, stored.transfer_syntax_uid)
        attributes = frame_attributes(stored.header, number)
        image, estimated = _shaded(cells, attributes, stored.layout, window)
        image = _scaled(image, _stretch(attributes), viewport)
        note = _note(stored, number=number, estimated=estimated)
        return Picture(_encoded(image, quality=quality, media_type=media_type), media_type, *image.size, note=note)


def frames(path: Path, numbers: Sequence[int]) -> Iterator[Frame]:
    """Find frames as they are stored, one after the other, with the media type of PS3.18 8.7.3.3.

    Everything is checked before this returns. Nothing is read but what was deflated, as the iterator goes. Raises
    NotFound for a number that is not there and PixelError when the object has no frames that can be found.
    """
    with only_refusals(), opened(path) as stored:
        for number in numbers:
            stored.check(number)
    return _frames(path, tuple(numbers))


def _frames(path: Path, numbers: Sequence[int]) -> Iterator[Frame]:
    with opened(path) as stored:
        syntax = stored.transfer_syntax_uid
        named = str(ExplicitVRLittleEndian) if syntax in NATIVE else syntax
        for number in numbers:
            pieces = (stored.read(number),) if syntax == DeflatedExplicitVRLittleEndian else stored.extents(number)
            yield Frame(MEDIA_TYPES[syntax], named, pieces)


def start_worker() -> None:
    """Prepare a process that makes pictures: bounded memory, and no library that quotes what it reads to the log."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    memory = WORKER_MEMORY if hard == resource.RLIM_INFINITY else min(hard, WORKER_MEMORY)
    resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")


def frame_attributes(header: Dataset, number: int) -> Dataset:
    """Return what the pipeline needs of one frame: its functional groups go before the shared ones, and these before
    the object's own attributes (PS3.3 C.7.6.16).
    """
    attributes = Dataset()
    for keyword in _ATTRIBUTES:
        if keyword in header:
            attributes[keyword] = header[keyword]
    for sequence, index in (("SharedFunctionalGroupsSequence", 0), ("PerFrameFunctionalGroupsSequence", number - 1)):
        groups = header.get(sequence) or []
        for group in _FUNCTIONAL_GROUPS if index < len(groups) else ():
            for item in (groups[index].get(group) or [])[:1]:
                attributes.update(item)
    return attributes


@contextmanager
def only_refusals() -> Iterator[None]:
    """Turn the exceptions of parsers and decoders on damaged files into PixelError; a failing disk raises OSError."""
    # They raise nearly everything (ValueError, KeyError, RecursionError, MemoryError ...), with the file's content in
    # the text: so the type is named, the text dropped and the cause not chained.
    try:
        yield
    except Refusal:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise PixelError("The pixels cannot be decoded: they are damaged.") from None
    except Exception as error:  # noqa: BLE001  # see above
        raise PixelError(f"The object cannot be read as a picture ({type(error).__name__}).") from None


def _check(window: Window | None, viewport: Viewport | None, *, quality: int, media_type: str) -> None:
    if media_type not in _FORMATS:
        raise NotAcceptable("Pictures are given as image/jpeg or image/png.")
    if not 1 <= quality <= 100:
        raise InvalidValue("The quality must be 1 to 100.")
    if window and not window.usable:
        raise InvalidValue("The window must be LINEAR and at least 1 wide, or LINEAR_EXACT or SIGMOID and above 0.")
    if viewport and not (0 < viewport.width <= LARGEST_VIEWPORT and 0 < viewport.height <= LARGEST_VIEWPORT):
        raise InvalidValue(f"The viewport must be 1 to {LARGEST_VIEWPORT} pixels wide and high.")


def _shaded(cells: Cells, attributes: Dataset, layout: Layout, window: Window | None) -> tuple[Image.Image, bool]:
    """Apply the window, then reduce to eight bits; colour is shown as it is."""
    if layout.samples == 3:
        return Image.fromarray(cells), False
    counts = np.bincount(cells[::4, ::4].ravel(), minlength=1 << layout.bits_allocated)
    grey = shades(attributes, layout, counts=counts, window=window)
    return Image.fromarray(_looked_up(grey.shades, cells)), grey.estimated


def _looked_up(table: NDArray[np.uint8], cells: Cells) -> NDArray[np.uint8]:
    # 16 rows at a time, because numpy widens indices, and small pieces stay in the processor's cache.
    shown = np.empty(cells.shape, np.uint8)
    for row in range(0, len(cells), 16):
        np.take(table, cells[row : row + 16], out=shown[row : row + 16], mode="clip")
    return shown


def _stretch(attributes: Dataset) -> tuple[float, float]:
    """The factors by which a picture must be wider and higher than stored, so that a circle is round."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing", "PixelAspectRatio"):
        spacing = attributes.get(keyword)
        if spacing and len(spacing) == 2 and all(float(value) > 0 for value in spacing):
            vertical, horizontal = float(spacing[0]), float(spacing[1])
            finest = min(vertical, horizontal)
            if max(vertical, horizontal) <= MOST_STRETCH * finest:
                return horizontal / finest, vertical / finest
    return 1, 1


def _scaled(image: Image.Image, stretch: tuple[float, float], viewport: Viewport | None) -> Image.Image:
    """Cut the region out, scale it to fit, mirror it on request: the last steps (PS3.18 8.3.5.1.3)."""
    # Mirrored on request only, never by a guess from laterality or orientation.
    view = viewport or Viewport(LARGEST_VIEWPORT, LARGEST_VIEWPORT)
    if view.x or view.y or view.region_width is not None or view.region_height is not None:
        image = image.crop(_region(view, *image.size))
    width, height = image.width * stretch[0], image.height * stretch[1]
    factor = min(view.width / width, view.height / height)
    if viewport is None:
        factor = min(factor, 1)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if size != image.size:
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    if (view.region_width or 0) < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if (view.region_height or 0) < 0:
        image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def _region(view: Viewport, columns: int, rows: int) -> tuple[int, int, int, int]:
    right = columns if view.region_width is None else view.x + abs(view.region_width)
    bottom = rows if view.region_height is None else view.y + abs(view.region_height)
    if not (0 <= view.x < right <= columns and 0 <= view.y < bottom <= rows):
        raise InvalidValue("The region of the viewport is not inside the image.")
    return view.x, view.y, right, bottom


def _note(stored: StoredFrames, *, number: int, estimated: bool) -> str:
    for_processing = stored.header.get("PresentationIntentType") == "FOR PROCESSING"
    if for_processing or stored.header.get("SOPClassUID") in _FOR_PROCESSING:
        return RAW
    if stored.layout.frames > 1:
        return f"frame {number} of {stored.layout.frames}, for navigation"
    return "window estimated" if estimated and stored.layout.bits_stored > 8 else ""


def _encoded(image: Image.Image, *, quality: int, media_type: str) -> bytes:
    target = io.BytesIO()
    if media_type == "image/jpeg":
        image.save(target, "JPEG", quality=quality)
    else:
        image.save(target, "PNG", compress_level=1)
    return target.getvalue()
