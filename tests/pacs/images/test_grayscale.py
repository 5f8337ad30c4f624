"""The greyscale pipeline, on tiny objects with every value spelled out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.pixels.processing import apply_windowing

from pacs.images.grayscale import (
    FUNCTIONS,
    Window,
    inverted,
    modality,
    padding,
    percentile_window,
    shades,
    stored_values,
    stored_window,
    without_air,
)
from pacs.images.stored_frames import Layout, PixelError


def layout(
    *,
    bits: int = 4,
    allocated: int = 8,
    signed: bool = False,
    high: int | None = None,
    photometric: str = "MONOCHROME2",
) -> Layout:
    return Layout(
        rows=1,
        columns=1,
        samples=1,
        photometric=photometric,
        bits_allocated=allocated,
        bits_stored=bits,
        high_bit=bits - 1 if high is None else high,
        signed=signed,
        planar=0,
        frames=1,
    )


def attributes(**values: object) -> Dataset:
    ds = Dataset()
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def lut(descriptor: list[int], data: object, *, vr: str = "OW") -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if descriptor[1] < 0 else "US", descriptor)
    item.add_new("LUTData", vr, data)
    return item


def shown(ds: Dataset, it: Layout, count: int = 16, window: Window | None = None) -> list[int]:
    counts = np.ones(1 << it.bits_allocated, np.int64)
    return [int(shade) for shade in shades(ds, it, counts=counts, window=window).shades[:count]]


@pytest.mark.parametrize(
    ("it", "cells", "values"),
    [
        (layout(bits=4), [0, 7, 8, 15], [0, 7, 8, 15]),
        (layout(bits=4, signed=True), [0, 7, 8, 15], [0, 7, -8, -1]),
        (layout(bits=4), [0x10, 0x1F, 0xF3], [0, 15, 3]),  # an overlay plane above the stored bits
        (layout(bits=4, high=7), [0x00, 0x10, 0xF0, 0xF7], [0, 1, 15, 15]),
        (layout(bits=12, allocated=16, signed=True), [0x07FF, 0x0800, 0xFFFF], [2047, -2048, -1]),
        (layout(bits=16, allocated=16), [0, 65535], [0, 65535]),
    ],
)
def test_a_cell_stands_for_its_stored_bits_only(it: Layout, cells: list[int], values: list[int]) -> None:
    assert stored_values(it)[cells].tolist() == values


@pytest.mark.parametrize(
    ("ds", "values"),
    [
        (attributes(), [0.0, 1.0, 2.0, 3.0]),
        (attributes(RescaleSlope="2", RescaleIntercept="-1"), [-1.0, 1.0, 3.0, 5.0]),
        (attributes(RescaleSlope="", RescaleIntercept=None), [0.0, 1.0, 2.0, 3.0]),
        (attributes(ModalityLUTSequence=[lut([2, 1, 16], b"\x0a\x00\x14\x00")]), [10.0, 10.0, 20.0, 20.0]),
        (
            attributes(ModalityLUTSequence=[lut([2, 1, 16], [10, 20], vr="US")], RescaleSlope="5"),
            [10.0, 10.0, 20.0, 20.0],
        ),
    ],
)
def test_the_modality_step_is_a_lut_or_a_slope(ds: Dataset, values: list[float]) -> None:
    assert modality(np.arange(4), ds, layout()).tolist() == values


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        # PS3.3 C.11.2.1.2.1, Note 1: center 2^(n-1), width 2^n shows the whole range.
        (Window(8, 16), [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255]),
        (Window(8, 1), [0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
        (Window(8, 3), [0, 0, 0, 0, 0, 0, 0, 64, 191, 255, 255, 255, 255, 255, 255, 255]),
        (Window(8, 4, "LINEAR_EXACT"), [0, 0, 0, 0, 0, 0, 0, 64, 128, 191, 255, 255, 255, 255, 255, 255]),
        (Window(8, 0.5, "LINEAR_EXACT"), [0, 0, 0, 0, 0, 0, 0, 0, 128, 255, 255, 255, 255, 255, 255, 255]),
        (Window(8, 8, "SIGMOID"), [5, 7, 12, 19, 30, 47, 69, 96, 128, 159, 186, 208, 225, 236, 243, 248]),
    ],
)
def test_a_window_makes_these_shades(window: Window, expected: list[int]) -> None:
    assert shown(attributes(), layout(), window=window) == expected


RISING = [0, 17, 34, 51, 68, 85, 102, 119, 136, 153, 170, 187, 204, 221, 238, 255]
FALLING = RISING[::-1]
WIDE = {"WindowCenter": 8, "WindowWidth": 16}


@pytest.mark.parametrize(
    ("ds", "photometric", "expected"),
    [
        (attributes(**WIDE), "MONOCHROME2", RISING),
        (attributes(**WIDE, PresentationLUTShape="IDENTITY"), "MONOCHROME2", RISING),
        (attributes(**WIDE), "MONOCHROME1", FALLING),
        (attributes(**WIDE, PresentationLUTShape="INVERSE"), "MONOCHROME1", FALLING),
        (attributes(**WIDE, PresentationLUTShape="INVERSE"), "MONOCHROME2", FALLING),
        (attributes(**WIDE, PresentationLUTShape="IDENTITY"), "MONOCHROME1", FALLING),
    ],
)
def test_polarity_is_applied_once(ds: Dataset, photometric: str, expected: list[int]) -> None:
    assert shown(ds, layout(photometric=photometric)) == expected
    assert inverted(ds, layout(photometric=photometric)) == (expected is FALLING)


FOUR_STEPS = lut([4, 2, 8], b"\x00\x00\x55\x00\xaa\x00\xff\x00")
STEPPED = [0, 0, 0, 85, 170, 255, 255, 255]


@pytest.mark.parametrize(
    ("ds", "expected"),
    [
        (attributes(VOILUTSequence=[FOUR_STEPS]), STEPPED),
        (attributes(VOILUTSequence=[lut([4, 2, 8], [0, 85, 170, 255], vr="US")]), STEPPED),
        (attributes(VOILUTSequence=[lut([4, 2, 8], b"\x00\x55\xaa\xff")]), STEPPED),  # two entries in a word
        (attributes(VOILUTSequence=[lut([4, 2, 12], b"\x00\x00\x55\x05\xaa\x0a\xff\x0f")]), STEPPED),
        (attributes(VOILUTSequence=[FOUR_STEPS, lut([2, 0, 8], b"\xff\x00\xff\x00")]), STEPPED),  # the first counts
        (attributes(VOILUTSequence=[FOUR_STEPS], **WIDE), STEPPED),  # a LUT goes before a window
        (attributes(VOILUTSequence=[], **WIDE), RISING[:8]),
        (attributes(WindowCenter=["8", "3"], WindowWidth=["16", "2"]), RISING[:8]),  # the first window counts
        (attributes(WindowCenter="2", WindowWidth="4", VOILUTFunction="LINEAR_EXACT"), [0, 64, 128, 191, *[255] * 4]),
        (attributes(WindowCenter="3", WindowWidth="2", VOILUTFunction="SIGMOID"), [1, 5, 30, 128, 225, 250, 254, 255]),
        (attributes(WindowCenter="8", WindowWidth="0"), RISING[:8]),  # not usable: the whole range
        (attributes(WindowCenter="", WindowWidth=""), RISING[:8]),
        (attributes(**WIDE, VOILUTFunction="SQUIGGLE"), RISING[:8]),
        (attributes(WindowCenter="14.5", WindowWidth="31", RescaleSlope="2", RescaleIntercept="-1"), RISING[:8]),
    ],
)
def test_the_object_chooses_its_voi(ds: Dataset, expected: list[int]) -> None:
    assert shown(ds, layout(), count=8) == expected


def test_what_was_asked_for_goes_before_what_the_object_says() -> None:
    ds = attributes(VOILUTSequence=[FOUR_STEPS], WindowCenter=1, WindowWidth=2)
    assert shown(ds, layout(), window=Window(8, 16)) == RISING


def test_a_voi_lut_of_negative_values_is_looked_up_from_its_first_value() -> None:
    ds = attributes(VOILUTSequence=[lut([4, -2, 8], b"\x00\x00\x55\x00\xaa\x00\xff\x00")])
    it = layout(bits=4, signed=True)
    values = dict(zip(stored_values(it)[:16].tolist(), shown(ds, it), strict=True))
    assert [values[v] for v in (-8, -2, -1, 0, 1, 7)] == [0, 0, 85, 170, 255, 255]


@pytest.mark.parametrize(
    ("item", "sentence"),
    [
        (lut([4, 0, 8], b"\x00\x00"), "LUT Data (0028,3006) is not as its descriptor says."),
        (lut([4, 0, 17], b"\x00" * 8), "LUT Data (0028,3006) is not as its descriptor says."),
        (lut([4, 0], b"\x00" * 8), "LUT Descriptor (0028,3002) does not have three values."),
    ],
)
def test_a_lut_that_is_not_as_it_says_is_refused(item: Dataset, sentence: str) -> None:
    with pytest.raises(PixelError) as refused:
        shown(attributes(VOILUTSequence=[item]), layout())
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    ("ds", "signed", "expected"),
    [
        (attributes(), False, []),
        (attributes(PixelPaddingValue=0), False, [0]),
        (attributes(PixelPaddingValue=2, PixelPaddingRangeLimit=4), False, [2, 3, 4]),
        (attributes(PixelPaddingValue=4, PixelPaddingRangeLimit=2), False, [2, 3, 4]),
        (attributes(PixelPaddingValue=-2), True, [-2]),
        (attributes(PixelPaddingValue=65534), True, [-2]),  # written as US although the pixels are signed
    ],
)
def test_padding_is_a_value_or_a_range(ds: Dataset, signed: bool, expected: list[int]) -> None:
    values = np.arange(-8, 8) if signed else np.arange(16)
    assert values[padding(values, ds, layout(signed=signed))].tolist() == expected


def test_an_estimated_window_does_not_see_the_padding() -> None:
    counts = np.zeros(1 << 16, np.int64)
    counts[0], counts[1000:1101] = 1_000_000, 10
    it = layout(bits=12, allocated=16)
    grey = shades(attributes(PixelPaddingValue=0), it, counts=counts)
    assert grey.estimated
    assert grey.shades[[0, 1000, 1050, 1100]].tolist() == [0, 0, 128, 255]


def test_an_estimated_window_leaves_out_the_air_of_a_raw_image() -> None:
    counts = np.zeros(4096, np.int64)
    counts[500:601], counts[3700] = 10, 2000
    values = np.arange(4096, dtype=np.float64)
    raw = attributes(PresentationIntentType="FOR PROCESSING", PixelIntensityRelationshipSign=1)
    assert percentile_window(values, without_air(values, counts, raw)) == (500.0, 600.0)
    assert percentile_window(values, without_air(values, counts, attributes())) == (501.0, 3700.0)


@pytest.mark.parametrize("counts", [[0, 0, 0, 0], [9, 0, 0, 0], [0, 0, 0, 9]])
def test_an_estimated_window_survives_a_picture_of_one_value(counts: list[int]) -> None:
    it = layout(bits=12, allocated=16)
    many = np.zeros(1 << 16, np.int64)
    many[:4] = counts
    raw = attributes(PresentationIntentType="FOR PROCESSING", PixelIntensityRelationshipSign=-1)
    assert shades(raw, it, counts=many).shades.shape == (65_536,)


@pytest.mark.parametrize(
    ("window", "usable"),
    [
        (Window(1, 1), True),
        (Window(1, 0.9), False),
        (Window(1, 0.9, "SIGMOID"), True),
        (Window(1, 0, "LINEAR_EXACT"), False),
        (Window(float("nan"), 2), False),
        (Window(1, float("inf")), False),
        (Window(1, 2, "linear"), False),
    ],
)
def test_a_window_is_usable_as_the_standard_says(window: Window, usable: bool) -> None:
    assert window.usable is usable


def test_a_window_without_function_is_linear() -> None:
    assert stored_window(attributes(WindowCenter="10", WindowWidth="20")) == Window(10, 20, "LINEAR")


@given(
    center=st.floats(-5000, 5000),
    width=st.floats(1, 9000),
    function=st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
)
def test_every_window_is_pydicoms(center: float, width: float, function: str) -> None:
    stored = np.arange(4096, dtype=np.uint16)
    ds = attributes(WindowCenter=center, WindowWidth=width, VOILUTFunction=function, BitsStored=12)
    ds.BitsAllocated, ds.PixelRepresentation, ds.PhotometricInterpretation = 16, 0, "MONOCHROME2"
    center, width = float(ds.WindowCenter), float(ds.WindowWidth)
    ours = FUNCTIONS[function](stored.astype(np.float64), center=center, width=width)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(ours, apply_windowing(stored, ds) / 4095, atol=1e-6)
