"""`gateway outbox`: what is shown of an entry, and what a person does about it."""

from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from gateway.outbox import NewEntry
from pacs import Archive
from tests.tools.command_line import call, command, facts
from worklist import Worklist

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def test_what_is_parked_is_listed_with_its_reason_and_released(empty_site: Path) -> None:
    with closing(Worklist.attach(empty_site / "data" / "worklist.db")) as worklist:
        new = NewEntry("2.25.7/completed", "mpps.completed", "2.25.1", 1, {"patient_name": "PHANTOM^JANE"})
        worklist.outbox.enqueue(new, now=NOW)
        [entry] = worklist.outbox.due(NOW, limit=1)
        worklist.outbox.park(entry, reason="The cloud does not know this step.", now=NOW)
    assert facts("outbox", "list") == [
        {
            "of": "worklist",
            "id": entry.id,
            "destination": "cloud",
            "message_id": "2.25.7/completed",
            "message_type": "mpps.completed",
            "created_at": "2026-11-22T09:30:00.000Z",
            "attempts": 1,
            "due_at": "2026-11-22T09:30:00.000Z",
            "reason": "The cloud does not know this step.",
        }
    ]
    assert call("outbox", "release", "worklist", str(entry.id)).exit_code == 0
    assert facts("outbox", "list") == []
    assert len(facts("outbox", "list", "--state", "open")) == 1
    parked = call("outbox", "park", "worklist", str(entry.id), "--reason", "Wait for the cloud.")
    assert parked.exit_code == 0
    assert [fact["reason"] for fact in facts("outbox", "list")] == ["Wait for the cloud."]


def test_releasing_what_is_not_parked_is_an_error(empty_site: Path) -> None:
    done = command(empty_site, "outbox", "release", "pacs", "17")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)


def test_what_is_held_back_is_discarded_by_somebody_for_a_reason(site: Path) -> None:
    with closing(Archive.attach(site / "data" / "pacs.db", site / "data" / "instances")) as archive:
        entry = next(each for each in archive.outbox.entries("open") if each.message_type == "study.image_received")
        decide = ("outbox", "discard", "pacs", str(entry.id), "--by", "J. Smith", "--because", "Another's.")
        assert command(site, *decide).returncode == 1  # it is not held back
        archive.outbox.held.hold(entry.id, reason="Held back.", now=NOW)
        assert call(*decide[:-2]).exit_code == 2
        assert call(*decide).exit_code == 0
        assert archive.outbox.held.discarded([entry.message_id]) == {
            entry.message_id: "Discarded by J. Smith: Another's."
        }
        assert [each.message_type for each in archive.outbox.entries("open", limit=1)] == ["image.rejected"]
