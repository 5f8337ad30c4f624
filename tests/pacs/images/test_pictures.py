"""Pictures and frames of whole files: what a page or a viewer gets, and that nothing but a refusal comes of damage."""

import io
import multiprocessing
import pickle
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.uid import (
    HTJ2K,
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from gateway.errors import InvalidValue, NotAcceptable, NotFound
from pacs.images.pictures import Frame, Picture, PixelError, Viewport, Window, frames, preview, rendered, start_worker
from pacs.images.stored_frames import Extent
from simulator.exam import phantom
from tests.tools import corpus

RAMP = np.array([[0, 1000, 2000], [3000, 4000, 4095]], np.uint16)
WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
RAMP_SHADES = [[0, 62, 125], [187, 249, 255]]


def shades(picture: Picture) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(picture.data)))


def file(folder: Path, *pictures: NDArray[np.generic], **attributes: Any) -> Path:
    return corpus.write(folder / "a.dcm", corpus.data_set(*pictures, **attributes))


def content(path: Path, frame: Frame) -> bytes:
    """The bytes of a frame, put together from its file."""
    with path.open("rb") as file:
        return b"".join(piece if isinstance(piece, bytes) else _read(file, piece) for piece in frame.pieces)


def _read(file: BinaryIO, extent: Extent) -> bytes:
    file.seek(extent.offset)
    return file.read(extent.length)


def png(path: Path, **how: Any) -> list[list[int]]:
    shown: list[list[int]] = shades(rendered(path, media_type="image/png", **how)).tolist()
    return shown


def test_a_view_is_rendered_pixel_by_pixel(tmp_path: Path) -> None:
    picture = rendered(file(tmp_path, RAMP, **WINDOW), media_type="image/png")
    assert shades(picture).tolist() == RAMP_SHADES
    assert (picture.media_type, picture.width, picture.height, picture.note) == ("image/png", 3, 2, "")


def test_monochrome1_is_shown_the_other_way_round(tmp_path: Path) -> None:
    path = file(tmp_path, RAMP, **WINDOW, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    assert png(path) == [[255, 193, 130], [68, 6, 0]]


@pytest.mark.parametrize("syntax", corpus.NATIVE, ids=lambda uid: uid.keyword)
def test_tables_and_padding_are_understood_in_every_native_syntax(tmp_path: Path, syntax: str) -> None:
    """In Implicit VR nobody says whether these are US or SS."""
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 8], (np.arange(4096, dtype="<u2") >> 4).tobytes()
    table["LUTData"].VR = "OW"
    path = file(tmp_path, RAMP, transfer_syntax_uid=syntax, PixelPaddingValue=4095, VOILUTSequence=[table])
    assert png(path) == [[0, 62, 125], [187, 250, 255]]


def test_a_request_for_a_window_goes_before_the_objects_own(tmp_path: Path) -> None:
    path = file(tmp_path, RAMP, **WINDOW)
    assert png(path, window=Window(1000, 1, "LINEAR")) == [[0, 255, 255], [255, 255, 255]]
    assert png(path, window=Window(2000, 4000, "LINEAR_EXACT")) == [[0, 64, 128], [191, 255, 255]]
    assert png(path, window=Window(2000, 2000, "SIGMOID")) == [[5, 30, 128], [225, 250, 251]]


def test_eight_bits_without_a_window_are_shown_whole(tmp_path: Path) -> None:
    assert png(file(tmp_path, np.array([[0, 100, 255]], np.uint8))) == [[0, 100, 255]]


def test_signed_pixels_are_windowed_as_signed(tmp_path: Path) -> None:
    signed = np.array([[-1000, 0, 1000]], np.int16)
    path = file(tmp_path, signed, PixelRepresentation=1, WindowCenter=0, WindowWidth=2001)
    assert png(path) == [[0, 128, 255]]


def test_colour_is_shown_as_colour(tmp_path: Path) -> None:
    colours = np.array([[[255, 0, 0], [0, 128, 255]]], np.uint8)
    assert shades(rendered(file(tmp_path, colours), media_type="image/png")).tolist() == colours.tolist()


def test_a_picture_without_a_window_says_that_it_was_estimated(tmp_path: Path) -> None:
    assert preview(file(tmp_path, corpus.GREY)).note == "window estimated"


def test_a_raw_image_is_marked_and_its_air_does_not_set_the_contrast(tmp_path: Path) -> None:
    ds = phantom.raw_mammogram("RCC", rows=416, columns=320)
    picture = preview(corpus.write(tmp_path / "raw.dcm", ds))
    assert picture.note == "raw, not for reading"
    left, breast = shades(picture)[:, :40], shades(picture)[80:170, 120:190]
    assert left.max() <= 8, "air is black"
    assert breast.std() > 8, "the breast has contrast"
    assert np.percentile(breast, 99) > 200, "up to white"


def test_a_raw_class_is_marked_also_when_the_intent_is_not_said(tmp_path: Path) -> None:
    path = file(tmp_path, RAMP, sop_class_uid=DigitalMammographyXRayImageStorageForProcessing)
    assert preview(path).note == "raw, not for reading"


@pytest.mark.parametrize(
    ("spacing", "size"),
    [
        ({"ImagerPixelSpacing": [0.07, 0.07]}, (32, 40)),
        ({"ImagerPixelSpacing": [0.1, 0.2]}, (64, 40)),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (32, 80)),
        ({"PixelSpacing": [0.2, 0.1]}, (32, 80)),
        ({"PixelAspectRatio": [2, 1]}, (32, 80)),
        ({"ImagerPixelSpacing": [0.07, 0.07], "PixelAspectRatio": [2, 1]}, (32, 40)),
        ({"ImagerPixelSpacing": [0.0, 0.07]}, (32, 40)),
        ({"ImagerPixelSpacing": [0.01, 50.0]}, (32, 40)),  # a mistake, not a shape
    ],
)
def test_a_picture_keeps_the_shape_that_the_spacing_gives(
    tmp_path: Path, spacing: dict[str, Any], size: tuple[int, int]
) -> None:
    picture = rendered(file(tmp_path, **spacing))
    assert (picture.width, picture.height) == size


@pytest.mark.parametrize(
    ("viewport", "expected"),
    [
        (Viewport(3, 2), [[0, 62, 125], [187, 249, 255]]),
        (Viewport(30, 2), [[0, 62, 125], [187, 249, 255]]),
        (Viewport(2, 2, x=1), [[62, 125], [249, 255]]),
        (Viewport(1, 1, x=1, y=1, region_width=1, region_height=1), [[249]]),
        (Viewport(3, 2, region_width=-3), [[125, 62, 0], [255, 249, 187]]),
        (Viewport(3, 2, region_height=-2), [[187, 249, 255], [0, 62, 125]]),
        (Viewport(2, 1, x=0, y=1, region_width=2, region_height=1), [[187, 249]]),
    ],
)
def test_a_viewport_cuts_fits_and_mirrors(tmp_path: Path, viewport: Viewport, expected: list[list[int]]) -> None:
    assert png(file(tmp_path, RAMP, **WINDOW), viewport=viewport) == expected


def test_a_region_is_enlarged_to_its_viewport(tmp_path: Path) -> None:
    picture = rendered(file(tmp_path, **WINDOW), viewport=Viewport(300, 100, x=2, y=2, region_width=8, region_height=4))
    assert (picture.width, picture.height) == (200, 100)


@pytest.mark.parametrize(
    ("how", "refusal"),
    [
        ({"window": Window(1, 0.5)}, InvalidValue),
        ({"window": Window(1, 2, "CURVE")}, InvalidValue),
        ({"viewport": Viewport(0, 5)}, InvalidValue),
        ({"viewport": Viewport(10_000, 5)}, InvalidValue),
        ({"viewport": Viewport(5, 5, x=32)}, InvalidValue),
        ({"viewport": Viewport(5, 5, x=-1)}, InvalidValue),
        ({"viewport": Viewport(5, 5, region_width=33)}, InvalidValue),
        ({"viewport": Viewport(5, 5, region_width=0)}, InvalidValue),
        ({"quality": 0}, InvalidValue),
        ({"quality": 101}, InvalidValue),
        ({"media_type": "image/gif"}, NotAcceptable),
        ({"frame": 0}, NotFound),
        ({"frame": 2}, NotFound),
    ],
)
def test_a_request_that_cannot_be_is_refused(tmp_path: Path, how: dict[str, Any], refusal: type[Exception]) -> None:
    with pytest.raises(refusal):
        rendered(file(tmp_path, **WINDOW), **how)


def test_the_quality_changes_the_size_of_a_jpeg(tmp_path: Path) -> None:
    path = file(tmp_path, **WINDOW)
    assert len(rendered(path, quality=20).data) < len(rendered(path, quality=95).data)


def test_a_preview_is_a_small_jpeg_of_the_whole_view(tmp_path: Path) -> None:
    path = corpus.write(tmp_path / "rcc.dcm", phantom.mammogram("RCC", rows=416, columns=320))
    picture = preview(path)
    assert (picture.media_type, picture.width, picture.height) == ("image/jpeg", 197, 256)
    assert len(picture.data) < 40_000, "fits into one cloud message as base64"
    seen = shades(picture)
    assert seen[:, :30].max() < 15, "the air on the left of a right breast is black"
    assert seen[128, 170:190].mean() > 40, "the chest wall is on the right"


def test_a_preview_is_never_larger_than_asked_for(tmp_path: Path) -> None:
    picture = preview(file(tmp_path, np.zeros((2, 4000), np.uint16), **WINDOW), size=100)
    assert (picture.width, picture.height) == (100, 1)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, RLELossless])
def test_a_tomosynthesis_is_represented_by_its_middle_slice(tmp_path: Path, syntax: str) -> None:
    slices = [np.full((8, 8), value, np.uint16) for value in (0, 1000, 2048, 3000, 4095)]
    path = file(tmp_path, *slices, **WINDOW, transfer_syntax_uid=syntax, sop_class_uid=BreastTomosynthesisImageStorage)
    assert png(path, frame=None)[0][0] == 128
    assert png(path, frame=1)[0][0] == 0
    assert png(path, frame=5)[0][0] == 255
    assert preview(path).note == "frame 3 of 5, for navigation"


def item(**attributes: object) -> Dataset:
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def test_functional_groups_go_before_the_objects_attributes_and_frames_before_all(tmp_path: Path) -> None:
    wide, narrow = item(WindowCenter=2048, WindowWidth=4096), item(WindowCenter=1000.5, WindowWidth=1)
    shared = item(FrameVOILUTSequence=[wide], PixelMeasuresSequence=[item(PixelSpacing=[0.2, 0.1])])
    path = file(
        tmp_path,
        RAMP,
        RAMP,
        WindowCenter=9,
        WindowWidth=1,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[item(), item(FrameVOILUTSequence=[narrow])],
    )
    first = shades(rendered(path, frame=1, media_type="image/png"))
    second = shades(rendered(path, frame=2, media_type="image/png"))
    assert first.shape == second.shape == (4, 3), "twice as high as stored"
    assert (first[0, 0], first[3, 2], second[0, 0], second[0, 2]) == (0, 255, 0, 255)
    assert 100 < first[0, 2] < 150, "only the second frame has the narrow window"


MEDIA_TYPES: dict[str, str] = {
    JPEGLosslessSV1: "image/jpeg",
    JPEGLSLossless: "image/jls",
    JPEG2000Lossless: "image/jp2",
    HTJ2KLossless: "image/jphc",
    HTJ2KLosslessRPCL: "image/jphc",
    HTJ2K: "image/jphc",
    RLELossless: "image/dicom-rle",
}


@pytest.mark.parametrize("syntax", MEDIA_TYPES, ids=lambda uid: uid.keyword)
def test_compressed_frames_are_given_as_stored(tmp_path: Path, syntax: str) -> None:
    encoded = corpus.compressed(corpus.GREY, syntax)
    path = file(tmp_path, transfer_syntax_uid=syntax)
    [frame] = frames(path, [1])
    assert (frame.media_type, frame.transfer_syntax_uid) == (MEDIA_TYPES[syntax], syntax)
    assert content(path, frame) == encoded + b"\0" * (len(encoded) % 2)


@pytest.mark.parametrize("syntax", corpus.NATIVE, ids=lambda uid: uid.keyword)
def test_native_frames_are_given_as_octets_in_the_order_asked_for(tmp_path: Path, syntax: str) -> None:
    path = file(tmp_path, corpus.GREY, corpus.GREY[::-1].copy(), transfer_syntax_uid=syntax)
    second, first = frames(path, [2, 1])
    assert [content(path, second), content(path, first)] == [corpus.GREY[::-1].tobytes(), corpus.GREY.tobytes()]
    assert second.media_type == first.media_type == "application/octet-stream"
    assert second.transfer_syntax_uid == first.transfer_syntax_uid == ExplicitVRLittleEndian


def test_frames_are_checked_before_the_first_is_given(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        frames(file(tmp_path), [1, 2])


def test_an_object_without_pixels_has_no_picture(tmp_path: Path) -> None:
    with pytest.raises(PixelError) as refused:
        preview(file(tmp_path, PixelData=None))
    assert str(refused.value) == "The object has no Pixel Data (7FE0,0010)."


def test_a_file_that_is_not_there_is_not_blamed_on_its_content(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        preview(tmp_path / "gone.dcm")


def test_a_refusal_quotes_nothing_of_the_file(tmp_path: Path) -> None:
    """Here a name stands where a number belongs."""
    path = file(tmp_path, **WINDOW, RescaleSlope="1")
    slope = b"\x28\x00\x53\x10DS\x02\x00"
    path.write_bytes(path.read_bytes().replace(slope + b"1 ", slope + b"JO"))
    with pytest.raises(PixelError) as refused:
        preview(path)
    assert str(refused.value) == "The object cannot be read as a picture (ValueError)."
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


def test_refusals_and_pictures_cross_a_process_border(tmp_path: Path) -> None:
    good = file(tmp_path, **WINDOW)
    bad = corpus.write(tmp_path / "bad.dcm", corpus.data_set(PixelData=None))
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker) as pool:
        assert pool.submit(preview, good).result() == preview(good)
        with pytest.raises(PixelError) as refused:
            pool.submit(preview, bad).result()
    assert str(refused.value) == "The object has no Pixel Data (7FE0,0010)."
    assert pickle.loads(pickle.dumps(refused.value)).http_status == 406


def test_one_frame_of_a_large_object_costs_the_memory_of_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    phantom.write_large_tomosynthesis(path, frames=100, rows=600, columns=400)
    tracemalloc.start()
    picture = preview(path)
    [frame] = frames(path, [100])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (picture.note, len(content(path, frame))) == ("frame 51 of 100, for navigation", 480_000)
    assert path.stat().st_size > 48_000_000
    assert peak < 12_000_000


# GDCM is C++ that ends its process on some malformed input, so damaged files are shown to another process.


@pytest.fixture(scope="module")
def corpus_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("corpus")
    return {str(uid): file(folder, **WINDOW, transfer_syntax_uid=uid).read_bytes() for uid in corpus.REVERSIBLE}


@pytest.fixture(scope="module")
def other_process() -> Any:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker) as pool:
        yield pool


def outcome(path: Path) -> str:
    try:
        return type(preview(path)).__name__
    except PixelError as refusal:
        return type(refusal).__name__


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_gives_a_picture_or_a_refusal(
    tmp_path: Path, corpus_files: dict[str, bytes], other_process: ProcessPoolExecutor, data: st.DataObject
) -> None:
    damaged = bytearray(corpus_files[data.draw(st.sampled_from(sorted(corpus_files)))])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(128, len(damaged) - 1))
        damaged[place : place + data.draw(st.integers(0, 12))] = data.draw(st.binary(max_size=8))
    path = tmp_path / "damaged.dcm"
    path.write_bytes(damaged)
    try:
        assert other_process.submit(outcome, path).result(timeout=60) in ("Picture", "PixelError")
    except BrokenProcessPool:
        pytest.fail("a decoder ended its process")
