"""The chain of a service: notes are written beside the work, whatever becomes of the disk."""

import os
import stat
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.audit.recorder import NOTE_BYTES, AuditRecorder, silence
from gateway.audit.trail import Trail, lines, verified
from tests.tools.audit_trail import detail, messages
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


def recording(folder: Path, **options: int) -> AuditRecorder:
    return AuditRecorder(folder, "pacs", site="van-1", clock=lambda: NOW, **options)


def texts(folder: Path) -> list[str]:
    return [line.message for line in lines(Trail(folder / "pacs"))]


def test_notes_are_written_in_their_order_between_start_and_stop(tmp_path: Path) -> None:
    with recording(tmp_path / "audit") as told:
        for number in range(1000):
            told.note(lambda number=number: [f"<a{number}/>", f"<b{number}/>"])  # type: ignore[misc]
    first, *between, last = texts(tmp_path / "audit")
    assert ("Application Start" in first, "Application Stop" in last) == (True, True)
    assert between == [f"<{letter}{number}/>" for number in range(1000) for letter in "ab"]
    assert list(verified(Trail(tmp_path / "audit" / "pacs"))) == []


def test_only_the_owner_reads_a_chain_and_the_folder_above_it(tmp_path: Path) -> None:
    with recording(tmp_path / "audit"):
        pass
    folders = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "audit", tmp_path / "audit" / "pacs")}
    files = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "audit" / "pacs").iterdir()}
    assert (folders, files) == ({0o700}, {0o600})


def test_what_cannot_be_written_waits_and_what_is_too_much_is_counted(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("in the way")
    with recording(tmp_path / "audit", most_bytes=5 * NOTE_BYTES) as told:
        wait_until(lambda: told.trouble != "")
        began = time.monotonic()
        for number in range(50):
            told.note(lambda number=number: [f"<a{number}/>"])  # type: ignore[misc]
        assert time.monotonic() - began < PATIENCE_SECONDS  # who waits for the disk waits until the next line
        assert "cannot be written" in told.trouble
        (tmp_path / "audit").unlink()
        wait_until(lambda: told.trouble == "" and len(texts(tmp_path / "audit")) > 5)
    written = texts(tmp_path / "audit")
    kept = [each for each in written if each.startswith("<a")]
    [gap] = messages(tmp_path / "audit" / "pacs")
    assert kept == [f"<a{number}/>" for number in range(len(kept))]
    assert detail(gap, "Alert Description") == (
        f"{50 - len(kept)} events were not recorded, because the audit trail could not be written for too long."
    )


def test_a_message_that_cannot_be_made_keeps_no_other_from_being_written(tmp_path: Path) -> None:
    def fail() -> list[str]:
        raise ValueError("a database that is held")

    with recording(tmp_path / "audit") as told:
        told.note(fail)
        told.note(lambda: ["<after/>"])
    written = texts(tmp_path / "audit")
    assert ("<after/>" in written, sum("Audit Recording Stopped" in each for each in written)) == (True, 1)


def test_the_same_again_is_noted_once_in_a_while(tmp_path: Path) -> None:
    with recording(tmp_path / "audit") as told:
        for key in ("a", "b", "a", "a"):
            told.note_once(key, lambda key=key: [f"<{key}/>"])  # type: ignore[misc]
    assert texts(tmp_path / "audit")[1:-1] == ["<a/>", "<b/>"]


def test_a_port_scan_is_one_alert_for_each_address(tmp_path: Path) -> None:
    with recording(tmp_path / "audit") as told:
        for number in range(100):
            told.turned_away("10.0.0.9", f"GUESS_{number}", "not on the list")
        told.turned_away("10.0.0.8", "", "no certificate")
    alerts = messages(tmp_path / "audit" / "pacs")
    assert [detail(each, "Alert Description") for each in alerts] == ["not on the list", "no certificate"]


@pytest.mark.parametrize(
    ("written", "since", "silent"),
    [
        ({"pacs": 10, "worklist": 170}, 999, ""),
        ({"pacs": 200, "worklist": 10}, 999, "by pacs for"),
        ({"pacs": 240, "worklist": 200}, 999, "by worklist and pacs for"),
        ({"pacs": 10}, 999, "by worklist for"),
        ({"pacs": 10}, 170, ""),
        ({"pacs": 9999, "worklist": 9999}, 170, ""),
    ],
)
def test_a_service_that_does_not_write_is_named(
    tmp_path: Path, written: dict[str, int], since: int, silent: str
) -> None:
    for chain, seconds in written.items():
        (tmp_path / chain).mkdir()
        head = tmp_path / chain / "head"
        head.write_text("")
        at = (NOW - timedelta(seconds=seconds)).timestamp()
        os.utime(head, (at, at))
    said = silence(tmp_path, since=NOW - timedelta(seconds=since), now=NOW)
    assert (silent in said, bool(said)) == (True, bool(silent))


def test_a_chain_that_has_nothing_to_say_proves_that_it_could(tmp_path: Path) -> None:
    trail = Trail.chain(tmp_path / "audit", "pacs")
    trail.append(["<one/>"])
    os.utime(trail.folder / "head", (0, 0))
    Trail.chain(tmp_path / "audit", "worklist").append(["<one/>"])
    before = datetime.now(UTC) - timedelta(hours=1)
    assert "by pacs for" in silence(tmp_path / "audit", since=before, now=datetime.now(UTC))
    trail.prove()
    assert silence(tmp_path / "audit", since=before, now=datetime.now(UTC)) == ""
    assert ([line.message for line in lines(trail)], list(verified(trail))) == (["<one/>"], [])
