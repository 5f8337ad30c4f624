"""Words for people, made of what DICOM and the databases have."""

from datetime import UTC, datetime

import pytest

from relay.pages.html import age, ago, clock, date, initials, person, seen

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (None, ""),
        ("2026-11-22T09:29:59.500Z", "just now"),
        ("2026-11-22T09:29:20.000Z", "40 seconds ago"),
        ("2026-11-22T09:28:30.000Z", "1 minute ago"),
        ("2026-11-22T06:30:00.000Z", "3 hours ago"),
        ("2026-11-19T09:30:00.000Z", "3 days ago"),
        ("2026-11-22T09:31:00.000Z", "just now"),
    ],
)
def test_ages_are_words(then: str | None, expected: str) -> None:
    assert age(then, NOW) == expected


def test_an_age_keeps_its_moment() -> None:
    assert ago("2026-11-22T09:29:20.000Z", NOW).startswith(
        '<time datetime="2026-11-22T09:29:20.000Z" title="22 Nov 2026,'
    )
    assert ago("", NOW) == ""


@pytest.mark.parametrize(
    ("name", "shown", "short"),
    [
        ("BJÖRK^ANNA", "BJÖRK, ANNA", "AB"),
        ("BJÖRK", "BJÖRK", "B"),
        ("BJÖRK^ANNA^MARIA^DR", "BJÖRK, ANNA MARIA DR", "AB"),
        ("^ANNA", "ANNA", "A"),
        ("YAMADA^TAROU=山田^太郎", "YAMADA, TAROU", "TY"),
        ("", "", ""),
    ],
)
def test_names_are_written_for_people(name: str, shown: str, short: str) -> None:
    assert (person(name), initials(name)) == (shown, short)


@pytest.mark.parametrize(("text", "shown"), [("20261122", "22 Nov 2026"), ("2026", "2026"), ("", "")])
def test_dates_are_written_for_people(text: str, shown: str) -> None:
    assert date(text) == shown


@pytest.mark.parametrize(("text", "shown"), [("091500.000", "09:15"), ("09", "09"), ("", ""), ("<i>a", "<i>a")])
def test_times_are_written_for_people(text: str, shown: str) -> None:
    assert clock(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\0b", "a\ufffdb"),
        ("a\u202eb", "a\ufffdb"),
        ("\ud800", "\ufffd"),
        ("a\nb", "a\nb"),
        (7, 7),
    ],
)
def test_what_cannot_be_seen_is_shown_to_be_there(text: object, shown: object) -> None:
    assert seen(text) == shown
