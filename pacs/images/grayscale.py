"""The greyscale pipeline of PS3.3 C.11 and C.7.6.3.1.2: from a stored grey value to a shade of 8 bits.

The order is the standard's: bits to a value, Rescale or Modality LUT, VOI (LUT or window), polarity, 8 bits last. Pure:
attributes and counts in, a table of shades out. Not for: files, pictures, scaling (`pictures`).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.multival import MultiValue

from pacs.images.stored_frames import Layout, PixelError

Values: TypeAlias = NDArray[np.float64]
Shades: TypeAlias = NDArray[np.uint8]

DARKEST, BRIGHTEST = 0.5, 99.5
"""Percentiles from and to which an estimated window reaches, so that specks and dead pixels do not count."""


@dataclass(frozen=True)
class Window:
    """A VOI window; `function` is a VOI LUT Function (0028,1056): LINEAR, LINEAR_EXACT or SIGMOID."""

    center: float
    width: float
    function: str = "LINEAR"

    @property
    def usable(self) -> bool:
        """A linear window is at least 1 wide, the others wider than 0 (PS3.3 C.11.2.1.2.1, C.11.2.1.3)."""
        finite = math.isfinite(self.center) and math.isfinite(self.width) and self.function in FUNCTIONS
        return finite and (self.width >= 1 if self.function == "LINEAR" else self.width > 0)


class _Curve(Protocol):
    def __call__(self, values: Values, *, center: float, width: float) -> Values: ...


def linear(values: Values, *, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.2.1, output 0 to 1. At width 1 it is a step."""
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def linear_exact(values: Values, *, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.3.2, output 0 to 1."""
    return np.clip((values - center) / width + 0.5, 0, 1)


def sigmoid(values: Values, *, center: float, width: float) -> Values:
    """PS3.3 C.11.2.1.3.1, output 0 to 1."""
    return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))


FUNCTIONS: Mapping[str, _Curve] = MappingProxyType({"LINEAR": linear, "LINEAR_EXACT": linear_exact, "SIGMOID": sigmoid})


@dataclass(frozen=True)
class Grey:
    """Shades for all cells of an object, and whether its window had to be estimated."""

    shades: Shades
    estimated: bool


def shades(attributes: Dataset, layout: Layout, *, counts: NDArray[np.int64], window: Window | None = None) -> Grey:
    """Return the shade (0 black to 255) of every cell.

    `attributes` are those of the frame, `counts` says how often each cell occurs in it (used when a window must be
    estimated), `window` overrides what the object says. Raises PixelError for tables that cannot be read.
    """
    # Every step is a function of one value, so the pipeline is computed once for each possible cell, at most 65,536,
    # and the pixels are looked up.
    stored = stored_values(layout)
    values = modality(stored, attributes, layout)
    shown = _shown(values, attributes, layout, window)
    estimated = shown is None
    if shown is None:
        relevant = np.where(padding(stored, attributes, layout), 0, counts)
        shown = _estimated(values, relevant, attributes, layout)
    if inverted(attributes, layout):
        shown = 1 - shown
    return Grey((shown * 255 + 0.5).astype(np.uint8), estimated)


def stored_values(layout: Layout) -> NDArray[np.int64]:
    """Return the value that each cell stands for: only Bits Stored count, and the highest of them may be a sign."""
    cells = np.arange(1 << layout.bits_allocated, dtype=np.int64) >> (layout.high_bit + 1 - layout.bits_stored)
    values = cells & ((1 << layout.bits_stored) - 1)
    if layout.signed:
        half = 1 << (layout.bits_stored - 1)
        values = (values ^ half) - half
    return values


def modality(stored: NDArray[np.int64], attributes: Dataset, layout: Layout) -> Values:
    """Apply the Modality LUT Sequence, else Rescale Slope and Intercept (PS3.3 C.11.1)."""
    if item := _first_item(attributes, "ModalityLUTSequence"):
        table, first, _bits = _lut(item, signed=layout.signed)
        return table[np.clip(stored - first, 0, len(table) - 1)].astype(np.float64)
    values = stored.astype(np.float64)
    return values * _number(attributes, "RescaleSlope", 1) + _number(attributes, "RescaleIntercept", 0)


def padding(stored: NDArray[np.int64], attributes: Dataset, layout: Layout) -> NDArray[np.bool_]:
    """Say which values are Pixel Padding Value, or between it and the Range Limit (PS3.3 C.7.5.1.1.2)."""
    values = _integers(attributes, "PixelPaddingValue", signed=layout.signed)
    limits = _integers(attributes, "PixelPaddingRangeLimit", signed=layout.signed) or values
    if not values:
        return np.zeros(stored.shape, np.bool_)
    low, high = sorted((values[0], limits[0]))
    return (stored >= low) & (stored <= high)


def inverted(attributes: Dataset, layout: Layout) -> bool:
    """Say whether low values are bright."""
    # MONOCHROME1 and INVERSE mean the same, so both together invert once.
    return layout.photometric == "MONOCHROME1" or attributes.get("PresentationLUTShape") == "INVERSE"


def stored_window(attributes: Dataset) -> Window | None:
    """Return the first window of the object, None if it has none that can be used."""
    centers, widths = _numbers(attributes, "WindowCenter"), _numbers(attributes, "WindowWidth")
    if not centers or not widths:
        return None
    window = Window(centers[0], widths[0], str(attributes.get("VOILUTFunction") or "LINEAR"))
    return window if window.usable else None


def percentile_window(values: Values, counts: NDArray[np.int64]) -> tuple[float, float]:
    """Return the values below which DARKEST and BRIGHTEST percent of the counted pixels lie."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    if not reached[-1]:
        return float(values.min()), float(values.max())
    low, high = np.searchsorted(reached, reached[-1] * np.array([DARKEST, BRIGHTEST]) / 100)
    return float(values[order[low]]), float(values[order[high]])


def _shown(values: Values, attributes: Dataset, layout: Layout, window: Window | None) -> Values | None:
    """The VOI step: the requested window, else the first VOI LUT, else the first window; None when there is none."""
    if window is None and (item := _first_item(attributes, "VOILUTSequence")):
        table, first, bits = _lut(item, signed=bool(values.min() < 0) or layout.signed)
        return table[np.clip(np.round(values) - first, 0, len(table) - 1).astype(np.intp)] / ((1 << bits) - 1)
    window = window or stored_window(attributes)
    return FUNCTIONS[window.function](values, center=window.center, width=window.width) if window else None


def _estimated(values: Values, counts: NDArray[np.int64], attributes: Dataset, layout: Layout) -> Values:
    """No VOI: eight bits are shown whole, more bits from percentile to percentile of what is not background."""
    if layout.bits_stored <= 8:
        low, high = float(values.min()), float(values.max())
    else:
        low, high = percentile_window(values, without_air(values, counts, attributes))
    return np.clip((values - low) / max(high - low, 1e-6), 0, 1)


def without_air(values: Values, counts: NDArray[np.int64], attributes: Dataset) -> NDArray[np.int64]:
    """Leave the directly exposed detector out of the counts of a For Processing image, where it is the largest."""
    # Air is the brightest side of the exposure (Pixel Intensity Relationship Sign), and Otsu's threshold parts it from
    # tissue.
    sign = attributes.get("PixelIntensityRelationshipSign")
    if attributes.get("PresentationIntentType") != "FOR PROCESSING" or sign not in (1, -1) or not counts.any():
        return counts
    tissue = values < _threshold(values, counts) if sign == 1 else values >= _threshold(values, counts)
    return np.where(tissue, counts, 0)


def _threshold(values: Values, counts: NDArray[np.int64]) -> float:
    """Otsu's threshold: the value that parts the pixels into the two classes with the largest variance between them."""
    order = np.argsort(values, kind="stable")
    weight, sums = np.cumsum(counts[order]), np.cumsum(counts[order] * values[order])
    below, above = weight[:-1], weight[-1] - weight[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums[-1] * below / weight[-1] - sums[:-1]) ** 2 / (below * above)
    return float(values[order[1 + int(np.argmax(np.nan_to_num(between, posinf=0)))]])


def _lut(item: Dataset, *, signed: bool) -> tuple[NDArray[np.uint16], int, int]:
    """Return table, first value mapped and bits of a LUT item; data may be US or OW (PS3.3 C.11.1.1, C.11.2.1.1)."""
    descriptor = _integers(item, "LUTDescriptor", signed=signed)
    if len(descriptor) != 3:
        raise PixelError("LUT Descriptor (0028,3002) does not have three values.")
    entries, first, bits = descriptor[0] & 0xFFFF or 65_536, descriptor[1], descriptor[2]
    data = _unsigned(item.get("LUTData"))
    if len(data) == entries // 2 and bits == 8:  # two 8-bit entries in each word
        data = data.view(np.uint8).astype(np.uint16)
    if len(data) < entries or not 1 <= bits <= 16:
        raise PixelError("LUT Data (0028,3006) is not as its descriptor says.")
    return np.minimum(data[:entries], (1 << bits) - 1), first, bits


def _unsigned(value: object) -> NDArray[np.uint16]:
    if isinstance(value, bytes):
        return np.frombuffer(value[: len(value) // 2 * 2], "<u2")
    return np.array(_several(value), np.int64).astype(np.uint16)


def _integers(attributes: Dataset, keyword: str, *, signed: bool) -> list[int]:
    """Values of an attribute that may be US or SS."""
    # Some modalities write US where the values are signed.
    value = attributes.get(keyword)
    if isinstance(value, bytes):
        value = list(np.frombuffer(value[: len(value) // 2 * 2], "<u2"))
    return [int(number) - 65_536 if signed and number > 32_767 else int(number) for number in _several(value)]


def _several(value: object) -> list[float]:
    """One value, several or none, as a list."""
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, list | MultiValue) else [value]  # type: ignore[list-item]


def _first_item(attributes: Dataset, keyword: str) -> Dataset | None:
    sequence = attributes.get(keyword)
    return sequence[0] if sequence else None


def _number(attributes: Dataset, keyword: str, default: float) -> float:
    numbers = _numbers(attributes, keyword)
    return numbers[0] if numbers else default


def _numbers(attributes: Dataset, keyword: str) -> list[float]:
    """Decimal strings as finite numbers."""
    numbers = [float(number) for number in _several(attributes.get(keyword))]
    if not all(math.isfinite(number) for number in numbers):
        raise PixelError(f"{keyword} is not a finite number.")
    return numbers
