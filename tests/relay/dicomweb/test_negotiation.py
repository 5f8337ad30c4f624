"""WADO-RS without a socket: negotiation, multipart bodies, frame lists and what a picture shall look like."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidQuery, NotAcceptable, NotFound, Refusal
from pacs import Viewport, Window
from relay.dicomweb import negotiation
from relay.dicomweb.negotiation import MediaRange, Offer, Part, Rendering, Slice

EXPLICIT, JPEG_LS = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.80"
STORED = Offer("multipart/related", "application/dicom", JPEG_LS)
SINGLE = Offer("application/dicom", transfer_syntax=JPEG_LS)
FRAME = Offer("multipart/related", "image/jls", JPEG_LS)
OCTETS = Offer("multipart/related", "application/octet-stream", JPEG_LS)
JPEG, PNG = Offer("image/jpeg"), Offer("image/png")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", [MediaRange("*/*")]),
        ("*/*", [MediaRange("*/*")]),
        ("Image/JPEG", [MediaRange("image/jpeg")]),
        (
            'multipart/related; type="application/dicom"; transfer-syntax=*',
            [MediaRange("multipart/related", "application/dicom", "*")],
        ),
        (
            'multipart/related;type=application/octet-stream;transfer-syntax="*"',
            [MediaRange("multipart/related", "application/octet-stream", "*")],
        ),
        ("image/png;q=0.5, image/jpeg", [MediaRange("image/png", quality=0.5), MediaRange("image/jpeg")]),
        ('a/b; x="one, two; three", c/d', [MediaRange("a/b"), MediaRange("c/d")]),
        (
            f"multipart/related; type=image/jls; transfer-syntax={JPEG_LS}",
            [MediaRange("multipart/related", "image/jls", JPEG_LS)],
        ),
    ],
)
def test_accept_is_read(header: str, expected: list[MediaRange]) -> None:
    assert list(negotiation.accepted(header)) == expected


def test_the_query_parameter_wins_over_the_header() -> None:
    header = 'multipart/related; type="application/octet-stream"'
    assert negotiation.accepted(header, "image/jpeg") == (MediaRange("image/jpeg"),)
    assert negotiation.accepted("", "application/dicom json") == (MediaRange("application/dicom+json"),)


@pytest.mark.parametrize("header", ["nonsense", ";;;", "image/", "/", "a b/c"])
def test_an_accept_header_without_a_media_type_is_refused(header: str) -> None:
    with pytest.raises(NotAcceptable):
        negotiation.accepted(header)


@pytest.mark.parametrize(
    ("offers", "header", "expected"),
    [
        ([STORED, SINGLE], "", STORED),
        ([STORED, SINGLE], "*/*", STORED),
        ([STORED, SINGLE], "application/dicom", SINGLE),
        ([STORED, SINGLE], "application/dicom; transfer-syntax=*", SINGLE),
        ([STORED, SINGLE], 'multipart/related; type="application/dicom"', STORED),
        ([STORED, SINGLE], f'multipart/related; type="application/dicom"; transfer-syntax={JPEG_LS}', STORED),
        ([STORED, SINGLE], 'application/dicom; q=0.2, multipart/related; type="application/dicom"; q=0.1', SINGLE),
        ([FRAME, OCTETS], "multipart/related; type=application/octet-stream; transfer-syntax=*", OCTETS),
        ([FRAME, OCTETS], 'multipart/related; type="*/*"', FRAME),
        ([FRAME, OCTETS], "multipart/related; type=image/*", FRAME),
        ([JPEG, PNG], "image/avif,image/webp,image/*,*/*;q=0.8", JPEG),
        ([JPEG, PNG], "image/png, image/*;q=0.5", PNG),
        ([JPEG, PNG], "image/jpeg;q=0, */*", PNG),
    ],
)
def test_the_client_gets_what_it_likes_best(offers: list[Offer], header: str, expected: Offer) -> None:
    assert negotiation.choose(offers, negotiation.accepted(header)) == expected


@pytest.mark.parametrize(
    ("offers", "header"),
    [
        ([STORED, SINGLE], f'multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT}'),
        ([STORED, SINGLE], 'multipart/related; type="application/dicom+xml"'),
        ([STORED], "application/zip"),
        ([JPEG, PNG], "image/gif"),
        ([JPEG], "image/jpeg;q=0"),
        ([JPEG], 'multipart/related; type="image/jpeg"'),
    ],
)
def test_what_cannot_be_given_is_refused_with_what_can(offers: list[Offer], header: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        negotiation.choose(offers, negotiation.accepted(header))
    assert offers[0].media_type in str(refused.value)


def test_a_multipart_body_has_line_ends_and_a_closing_boundary() -> None:
    stored = Slice(Path("one.dcm"), 0, 100)
    body = list(
        negotiation.multipart([Part("image/jls", (b"ab", b"c")), Part("application/dicom", (stored,))], "limit")
    )
    assert body == [
        b"--limit\r\nContent-Type: image/jls\r\n\r\n",
        b"ab",
        b"c",
        b"\r\n",
        b"--limit\r\nContent-Type: application/dicom\r\n\r\n",
        stored,
        b"\r\n",
        b"--limit--\r\n",
    ]
    assert negotiation.size(body) == 100 + sum(len(piece) for piece in body if isinstance(piece, bytes))


def test_the_type_of_the_parts_is_quoted() -> None:
    assert negotiation.multipart_type("application/dicom", "limit") == (
        'multipart/related; type="application/dicom"; boundary=limit'
    )


def test_frame_lists_are_read() -> None:
    assert negotiation.frame_numbers("1,3,2", 3) == (1, 3, 2)


@pytest.mark.parametrize("text", ["", "0", "1,", "a", "-1", "1.5", "1;2", "1,0"])
def test_a_frame_list_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidQuery):
        negotiation.frame_numbers(text, 5)


def test_a_frame_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFound, match="There is no frame 6; the instance has 5"):
        negotiation.frame_numbers("1,6", 5)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, Rendering(None, None, 90)),
        ({"quality": "1"}, Rendering(None, None, 1)),
        ({"window": "2048,4096"}, Rendering(Window(2048, 4096, "LINEAR"), None, 90)),
        ({"window": "-1.5,20,linear-exact"}, Rendering(Window(-1.5, 20, "LINEAR_EXACT"), None, 90)),
        ({"viewport": "900,1200"}, Rendering(None, Viewport(900, 1200), 90)),
        ({"viewport": "512,512,,,100,-200"}, Rendering(None, Viewport(512, 512, 0, 0, 100, -200), 90)),
    ],
)
def test_rendering_parameters_are_read(parameters: dict[str, str], expected: Rendering) -> None:
    assert negotiation.rendering(parameters) == expected


@pytest.mark.parametrize(
    "parameters",
    [
        {"quality": "0"},
        {"quality": "101"},
        {"quality": "high"},
        {"window": "1"},
        {"window": "a,b"},
        {"window": "1,2,linear,4"},
        {"viewport": "900"},
        {"viewport": "1,2,3,4,5,6,7"},
        {"viewport": "nan,inf"},
    ],
)
def test_rendering_parameters_that_are_none_are_refused(parameters: dict[str, str]) -> None:
    with pytest.raises(InvalidQuery):
        negotiation.rendering(parameters)


def test_processed_images_stand_for_a_study_before_raw_ones() -> None:
    presentation, processing = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1"
    assert sorted([processing, "1.2.3", presentation], key=negotiation.thumbnail_rank) == [
        presentation,
        "1.2.3",
        processing,
    ]


HEADERS = st.text(alphabet='abc/*;=", q0.1\\', max_size=60) | st.text(max_size=60)


@given(HEADERS, HEADERS)
def test_any_accept_gives_an_offer_or_a_refusal(header: str, parameter: str) -> None:
    try:
        assert negotiation.choose([STORED, SINGLE, JPEG], negotiation.accepted(header, parameter)) in (
            STORED,
            SINGLE,
            JPEG,
        )
    except Refusal as refusal:
        assert refusal.http_status == 406


@given(st.dictionaries(st.sampled_from(["window", "viewport", "quality"]), st.text(alphabet="0123456789.,-+einf")))
def test_any_rendering_parameters_give_a_look_or_a_refusal(parameters: dict[str, str]) -> None:
    try:
        assert 1 <= negotiation.rendering(parameters).quality <= 100
    except Refusal as refusal:
        assert refusal.http_status == 400
