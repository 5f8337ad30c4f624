"""Hops: what was observed, how long it took, and what a failure may say."""

import pytest

from gateway.errors import NotFound
from gateway.hops import Hop, HopFailed, Hops, Note, Nothing, reason


def states(hops: Hops) -> list[tuple[str, str, str]]:
    return [(hop.name, hop.state, hop.detail) for hop in hops.seen]


def test_what_works_is_ok_with_its_note() -> None:
    hops = Hops()
    with hops.watch("query") as note:
        note.detail = "3 items."
    assert states(hops) == [("query", "ok", "3 items.")]
    assert hops.failed == []


def test_what_fails_is_recorded_and_raised_with_its_name() -> None:
    hops = Hops()
    with pytest.raises(HopFailed, match=r"^query: No item\.$"), hops.watch("query"):
        raise NotFound("No item.")
    assert states(hops) == [("query", "failed", "No item.")]
    assert hops.failed == hops.seen


def test_a_look_that_fails_does_not_keep_the_next_from_being_taken() -> None:
    def fail(_note: Note) -> None:
        raise NotFound("No item.")

    def succeed(note: Note) -> None:
        note.detail = "3 items."

    hops = Hops()
    hops.look("query", fail, remedy="Is it running?")
    hops.look("query again", succeed)
    assert states(hops) == [("query", "failed", "No item."), ("query again", "ok", "3 items.")]
    assert hops.seen[0].remedy == "Is it running?"


def test_what_is_not_there_is_skipped() -> None:
    hops = Hops()
    with hops.watch("cloud"):
        raise Nothing("Not configured.")
    assert states(hops) == [("cloud", "skipped", "Not configured.")]
    assert hops.failed == []


def test_the_display_is_told_as_it_happens() -> None:
    told: list[str] = []
    hops = Hops(began=lambda name: told.append(f"began {name}"), ended=lambda hop: told.append(f"ended {hop.name}"))
    with hops.watch("query"):
        told.append("inside")
    assert told == ["began query", "inside", "ended query"]


def test_an_interrupt_is_not_a_hop() -> None:
    hops = Hops()
    with pytest.raises(KeyboardInterrupt), hops.watch("query"):
        raise KeyboardInterrupt
    assert hops.seen == []


def test_the_text_of_a_foreign_error_is_not_shown() -> None:
    assert reason(ValueError("DOE^JANE")) == "ValueError (the log has the lines of code)"


def test_a_failed_hop_is_one_line_with_its_remedy() -> None:
    hop = Hop("archive answers", "failed", "Nobody answers there.", "2026-11-22T09:30:00.000Z", 0.012, "Is it running?")
    assert " ".join(hop.line.split()) == "failed archive answers 12 ms Nobody answers there. Is it running?"


def test_facts_are_plain_values() -> None:
    hop = Hop("archive answers", "ok", "C-ECHO.", "2026-11-22T09:30:00.000Z", 0.012)
    assert Hops(seen=[hop]).facts() == [
        {
            "name": "archive answers",
            "state": "ok",
            "detail": "C-ECHO.",
            "at": "2026-11-22T09:30:00.000Z",
            "seconds": 0.012,
            "remedy": "",
        }
    ]
