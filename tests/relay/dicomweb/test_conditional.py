"""Conditions and ranges (RFC 9110) without a socket: tables of what clients send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dicomweb import conditional
from relay.dicomweb.conditional import RangeNotSatisfiable, Version

HERE = Version("abc", "2026-11-22T09:30:15.123Z")
DATE = "Sun, 22 Nov 2026 09:30:15 GMT"
EARLIER, LATER = "Sun, 22 Nov 2026 09:30:14 GMT", "Sun, 22 Nov 2026 09:30:16 GMT"


def test_a_version_tells_the_client_what_to_ask_with() -> None:
    assert HERE.headers == {"ETag": '"abc"', "Cache-Control": "private, no-cache", "Last-Modified": DATE}
    assert Version("abc").headers == {"ETag": '"abc"', "Cache-Control": "private, no-cache"}


def test_a_version_depends_on_every_part_of_it() -> None:
    tags = [conditional.version(*parts).tag for parts in [("a", "b"), ("a", "c"), ("b", "a"), ("a",)]]
    assert len(set(tags)) == 4


@pytest.mark.parametrize(
    ("headers", "is_known"),
    [
        ({}, False),
        ({"If-None-Match": '"abc"'}, True),
        ({"If-None-Match": 'W/"abc"'}, True),
        ({"If-None-Match": '"x", "abc"'}, True),
        ({"If-None-Match": "*"}, True),
        ({"If-None-Match": '"x"'}, False),
        ({"If-None-Match": "abc"}, False),
        ({"If-None-Match": '"x"', "If-Modified-Since": LATER}, False),  # the tag decides
        ({"If-Modified-Since": DATE}, True),
        ({"If-Modified-Since": LATER}, True),
        ({"If-Modified-Since": EARLIER}, False),
        ({"If-Modified-Since": "yesterday"}, False),
    ],
)
def test_what_a_client_has_is_recognised(headers: dict[str, str], is_known: bool) -> None:
    assert conditional.is_known(HERE, headers) is is_known


def test_a_date_says_nothing_of_what_may_also_shrink() -> None:
    assert not conditional.is_known(Version("abc"), {"If-Modified-Since": LATER})


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Range": "bytes=0-9"}, (0, 10)),
        ({"Range": "bytes=90-"}, (90, 100)),
        ({"Range": "bytes=90-1000"}, (90, 100)),
        ({"Range": "bytes=-10"}, (90, 100)),
        ({"Range": "bytes=-1000"}, (0, 100)),
        ({"Range": "bytes=9-5"}, None),
        ({"Range": "bytes=0-1,5-6"}, None),
        ({"Range": "bytes=-"}, None),
        ({"Range": "lines=0-9"}, None),
        ({"Range": "bytes=٣-"}, None),
        ({"Range": "bytes=0-9", "If-Range": '"abc"'}, (0, 10)),
        ({"Range": "bytes=0-9", "If-Range": DATE}, (0, 10)),
        ({"Range": "bytes=0-9", "If-Range": '"x"'}, None),
        ({"Range": "bytes=0-9", "If-Range": LATER}, None),
    ],
)
def test_a_range_is_read(headers: dict[str, str], expected: tuple[int, int] | None) -> None:
    assert conditional.byte_range(HERE, headers, 100) == expected


@pytest.mark.parametrize("asked", ["bytes=100-", "bytes=100-110", "bytes=-0"])
def test_a_range_behind_the_end_is_refused(asked: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        conditional.byte_range(HERE, {"Range": asked}, 100)


@given(st.text(max_size=40), st.text(max_size=40), st.integers(0, 1000))
def test_any_header_gives_a_range_within_or_a_refusal(asked: str, condition: str, size: int) -> None:
    headers = {"Range": asked, "If-Range": condition, "If-None-Match": condition, "If-Modified-Since": asked}
    conditional.is_known(HERE, headers)
    try:
        found = conditional.byte_range(HERE, headers, size)
    except RangeNotSatisfiable:
        return
    assert found is None or 0 <= found[0] < found[1] <= size
