"""Pixels that look like a compressed breast: outline, pectoral muscle, skin, glandular tissue, noise.

Numpy only, the same picture for the same arguments, well under a second at full size. It has to be believable to a
viewer, to a codec and to a person looking for the wrong laterality.

Not for: physics; no constant here is measured.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Field: TypeAlias = NDArray[np.floating]

AIR = 0
"""Value outside the breast in a For Presentation picture; also its Pixel Padding Value."""

LARGEST = 4095
"""Largest value of 12 stored bits."""

_COARSE = 4  # the shape is drawn at a quarter of the size in each direction, so on a sixteenth of the points
_GRAIN = 512  # pixels along a side of the tile of noise


@dataclass(frozen=True)
class Breast:
    """One breast to draw. `oblique` adds the pectoral muscle, `implant` a dense disc at the chest wall."""

    right: bool
    oblique: bool
    implant: bool = False
    seed: int = 0


def radiograph(breast: Breast, *, rows: int, columns: int) -> NDArray[np.uint16]:
    """Draw as a modality presents it: air black, dense tissue bright, 12 bits. Rows and columns are multiples of 4."""
    shape = _shape(breast, rows // _COARSE, columns // _COARSE)
    coarse = np.where(shape.depth > 0, _presented(shape), AIR).astype(np.float32)
    # Inside at least one above air, because the Pixel Padding Value stands for no tissue (PS3.3 C.7.5.1.1.2).
    fine = _enlarge(coarse) + _grain(rows, columns) * (_enlarge(shape.inside) > 0.5)
    return _placed(np.where(_enlarge(shape.inside) > 0.5, fine.clip(AIR + 1, LARGEST), AIR), breast)


def exposure(breast: Breast, *, rows: int, columns: int) -> NDArray[np.uint16]:
    """Draw as a detector sees it: linear in dose, air brightest, 12 bits (For Processing)."""
    shape = _shape(breast, rows // _COARSE, columns // _COARSE)
    attenuation = shape.thickness * (
        1.2 + 0.05 * shape.strands + 0.6 * shape.density + 0.6 * shape.muscle + shape.implant
    )
    # 3700 of 4095, so that the noise of the brightest, which is air, is not cut off.
    dose = _enlarge((3700 * np.exp(-attenuation)).astype(np.float32))
    # Quantum noise grows with the square root of the dose.
    noise = _grain(rows, columns) * np.sqrt(dose) / 40
    return _placed((dose + noise).clip(0, LARGEST), breast)


def slices(breast: Breast, *, rows: int, columns: int, count: int) -> NDArray[np.uint16]:
    """Draw `count` reconstructed planes of a tomosynthesis: structures come into focus one after the other."""
    whole = _shape(breast, rows // _COARSE, columns // _COARSE)
    inside = _enlarge(whole.inside) > 0.5
    planes = [_plane(breast, whole, number / max(1, count - 1)) for number in range(count)]
    return np.stack(
        [_placed(np.where(inside, _enlarge(plane).clip(AIR + 1, LARGEST), AIR), breast) for plane in planes]
    )


@dataclass(frozen=True)
class _Shape:
    """A left breast on the coarse grid; every field has the same size. Lengths are fractions of the height."""

    depth: Field  # distance below the skin, negative outside
    inside: Field  # 1 in the breast, 0 outside
    thickness: Field  # compressed thickness, 1 where the paddle touches
    density: Field  # share of glandular tissue, 0 to 1
    muscle: Field  # pectoral muscle, 0 to 1
    strands: Field  # fibrous structure, about -1 to 1
    implant: Field


# A pair draws the same breast twice, once For Processing and once For Presentation.
@lru_cache(maxsize=4)
def _shape(breast: Breast, rows: int, columns: int) -> _Shape:
    # Always a left breast, with the chest wall on the left edge; `_placed` mirrors it for a right one.
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32) / rows
    centre, reach = (0.56, 0.50) if breast.oblique else (0.50, 0.47)
    depth = _depth(x, y - centre, reach=reach, oblique=breast.oblique)
    inside = (depth > 0).astype(np.float32)
    nipple_distance = np.hypot(x - reach, y - centre)
    muscle = _pectoral(x, y) * inside if breast.oblique else np.zeros_like(x)
    return _Shape(
        depth=depth,
        inside=inside,
        thickness=np.sqrt(np.clip(depth / 0.09, 0, 1)) * inside,
        density=_density(breast.seed, x, y - centre, depth=depth, nipple_distance=nipple_distance) * (1 - muscle),
        muscle=muscle,
        strands=_strands(breast.seed, x, y - centre, nipple_distance=nipple_distance),
        implant=_smooth_step((0.24 - np.hypot(x + 0.02, (y - centre) * 0.85)) / 0.012) * breast.implant,
    )


def _depth(x: Field, y: Field, *, reach: float, oblique: bool) -> Field:
    """Distance below the skin: a half ellipse with a nipple, drawn out towards the armpit in an oblique view."""
    upper = 0.66 if oblique else 0.405
    half = np.where(y < 0, upper, 0.36 if oblique else 0.405).astype(np.float32)
    level = 1 - (np.abs(x) / reach) ** 2.1 - (np.abs(y) / half) ** 2.3
    slope = np.hypot(2.1 * (np.abs(x) / reach) ** 1.1 / reach, 2.3 * (np.abs(y) / half) ** 1.3 / half) + 0.35
    nipple = 0.011 * np.exp(-((y / 0.014) ** 2)) * (x > 0.5 * reach)
    # The value of an implicit curve over its gradient is nearly the distance; + 0.35 above keeps it finite where the
    # gradient vanishes, in the middle of the breast.
    depth: Field = level / slope + nipple
    return depth


def _pectoral(x: Field, y: Field) -> Field:
    edge = 0.27 - 0.40 * y - 0.05 * np.sin(5 * y)
    return _smooth_step((edge - x) / 0.012)


def _density(seed: int, x: Field, y: Field, *, depth: Field, nipple_distance: Field) -> Field:
    """Glandular tissue: a fan from the nipple, cut by fat, never touching the skin."""
    cloud = _power_law(seed, _size(x), slope=1.55)
    fan = 1.1 - nipple_distance / 0.27 - (y / 0.26) ** 2
    return _smooth_step(0.36 + 0.24 * cloud + 0.30 * fan) * _smooth_step((depth - 0.02) / 0.06)


def _strands(seed: int, x: Field, y: Field, *, nipple_distance: Field) -> Field:
    """Ducts and ligaments: a cloud stretched along the lines that run to the nipple, and the fine cloud they lie in."""
    rows, columns = size = _size(x)
    cloud = _power_law(seed + 1, size, slope=1.25)
    angle = np.arctan2(y, np.abs(x.max() - x) + 0.15)
    along = (nipple_distance * rows * 0.22).astype(np.intp) % columns
    across = ((angle + 2) * rows * 0.30).astype(np.intp) % rows
    return 0.55 * _soft(cloud[across, along]) + 0.65 * _power_law(seed + 2, size, slope=1.15)


def _presented(shape: _Shape) -> Field:
    fat, gland = 1200 + 140 * shape.strands, (1500 + 290 * shape.strands) * shape.density
    tissue = fat + gland + shape.muscle * (1350 + 45 * shape.strands) + 2000 * shape.implant
    skin = 390 * np.exp(-(((shape.depth - 0.0045) / 0.003) ** 2))
    presented: Field = (0.14 + 0.86 * shape.thickness**0.6) * tissue + skin
    return presented


def _plane(breast: Breast, whole: _Shape, height: float) -> Field:
    """One plane: the density of this height in focus above a blurred sum of the rest."""
    rows, columns = whole.depth.shape
    # Six layers over the height; between two of them one fades into the next.
    here = _power_law(breast.seed + 10 + int(height * 6), (rows, columns), slope=1.5)
    there = _power_law(breast.seed + 11 + int(height * 6), (rows, columns), slope=1.5)
    part = height * 6 % 1
    focus = (1 - part) * here + part * there
    body = 1300 + 750 * whole.density + 390 * focus * (0.3 + whole.density) + 1050 * whole.muscle
    plane: Field = (0.3 + 0.7 * whole.thickness) * body
    return plane


@lru_cache(maxsize=16)
def _power_law(seed: int, shape: tuple[int, int], *, slope: float) -> Field:
    """Noise whose amplitude falls with frequency to the power `slope`, as mammograms' does; mean 0, deviation 1."""
    rows, columns = shape
    vertical, horizontal = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :]
    # Bounded below, because the mean of the picture has the frequency 0.
    amplitude = np.maximum(np.hypot(vertical, horizontal), 2 / rows) ** -slope
    white = np.fft.rfft2(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
    field = np.fft.irfft2(white * amplitude, s=shape)
    normal: Field = ((field - field.mean()) / field.std()).astype(np.float32)
    return normal


@lru_cache(maxsize=1)
def _grain(rows: int, columns: int) -> Field:
    # One tile repeated: twenty times faster, and the repetition is not visible.
    tile = np.random.default_rng(99).normal(0, 17, (_GRAIN, _GRAIN)).astype(np.float32)
    return np.tile(tile, (rows // _GRAIN + 1, columns // _GRAIN + 1))[:rows, :columns]


def _enlarge(coarse: Field) -> Field:
    """Four times larger in both directions, linearly interpolated."""
    return _enlarge_rows(_enlarge_rows(coarse).T).T


def _enlarge_rows(coarse: Field) -> Field:
    following = np.concatenate([coarse[1:], coarse[-1:]])
    steps = [coarse + (following - coarse) * (step / _COARSE) for step in range(_COARSE)]
    return np.stack(steps, axis=1).reshape(-1, coarse.shape[1])


def _soft(field: Field) -> Field:
    # The mean of each point and its neighbours takes out the steps of a field that was looked up by index.
    across = (field + np.roll(field, 1, 1) + np.roll(field, -1, 1)) / 3
    both: Field = (across + np.roll(across, 1, 0) + np.roll(across, -1, 0)) / 3
    return both


def _size(field: Field) -> tuple[int, int]:
    return field.shape[0], field.shape[1]


def _smooth_step(value: Field) -> Field:
    bounded = np.clip(value, 0, 1)
    return bounded * bounded * (3 - 2 * bounded)


def _placed(picture: Field, breast: Breast) -> NDArray[np.uint16]:
    whole = picture.astype(np.uint16)
    return np.ascontiguousarray(whole[:, ::-1]) if breast.right else whole
