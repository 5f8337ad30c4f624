"""What an operator decides about objects that are kept aside."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom import dcmread

from gateway.errors import Conflict, NotFound
from pacs import Archive
from pacs.archive.files import digest
from pacs.archive.maintenance_rows import MaintenanceRows
from pacs.archive.quarantine_rows import SetAside
from pacs.maintenance.fsck import Fsck
from pacs.maintenance.quarantine import carry_out, receive_again
from tests.pacs.archive.test_archive import NOW, begun, events, folder, image, reopened, send
from tests.tools.archive_files import files_of


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """An image, and a different one under the same UID, which is in the quarantine."""
    with closing(Archive.open(tmp_path / "pacs.db", tmp_path / "instances")) as archive:
        send(archive, image(PatientID="FIRST"))
        with pytest.raises(Conflict):
            send(archive, image(PatientID="SECOND"))
        yield archive


def only(archive: Archive) -> SetAside:
    [found] = archive.quarantine.objects()
    return found


def decided(archive: Archive, decision: str) -> None:
    archive.quarantine.decide(only(archive).id, decision, by="J. Smith")
    carry_out(archive, files_of(archive), now=NOW)


def patient(path: Path) -> str:
    return str(dcmread(path).PatientID)


def sound(archive: Archive) -> bool:
    return list(Fsck(archive, files_of(archive), at_rest=True).findings(hashes=True, now=NOW)) == []


def test_an_object_whose_uid_is_taken_is_not_stored_and_the_reason_is_kept(archive: Archive) -> None:
    decided(archive, "store")
    assert only(archive).refusal == (
        "Another object is stored under 2.25.1. To put this one in its place, say --replace."
    )
    assert patient(archive.instance("2.25.1").path) == "FIRST"
    assert archive.quarantine.decided() == []
    assert sound(archive)


def test_replacing_puts_the_old_copy_into_the_quarantine_with_the_name_of_who_decided(archive: Archive) -> None:
    old = archive.instance("2.25.1")
    old_bytes = old.path.read_bytes()
    decided(archive, "replace")
    new = archive.instance("2.25.1")
    assert (patient(new.path), new.sha256, new.calling_ae_title) == ("SECOND", digest(new.path), "MAMMO_1")
    kept = only(archive)
    assert (files_of(archive).quarantine / kept.file_name).read_bytes() == old_bytes
    assert (kept.sha256, kept.sop_instance_uid) == (old.sha256, "2.25.1")
    assert kept.reason == "Replaced on 2026-11-22T08:00:00.000Z by decision of J. Smith."
    assert archive.statistics()["instances"] == 1
    assert folder(archive) == ["kept", "quarantine"]
    assert sound(archive)


def test_the_cloud_is_told_of_the_new_content_under_an_id_of_its_own(archive: Archive) -> None:
    decided(archive, "replace")
    stored = archive.instance("2.25.1")
    assert [kind for kind, _ in events(archive)] == [
        "study.image_received",
        "image.quarantined",
        "study.image_received",
    ]
    assert events(archive)[-1] == ("study.image_received", f"2.25.1/{stored.sha256[:16]}")


def test_a_replacement_can_be_taken_back(archive: Archive) -> None:
    decided(archive, "replace")
    decided(archive, "replace")
    assert patient(archive.instance("2.25.1").path) == "FIRST"
    assert folder(archive) == ["kept", "quarantine"]
    assert sound(archive)


def test_an_object_whose_uid_is_free_is_stored_and_told(tmp_path: Path) -> None:
    with closing(Archive.open(tmp_path / "pacs.db", tmp_path / "instances")) as archive:
        part = begun(archive, image())
        files_of(archive).keep(part, "2.25.1")
        again = reopened(archive)
        assert folder(again) == ["quarantine"]
        decided(again, "store")
        assert folder(again) == ["kept"]
        assert again.instance("2.25.1").sha256 == digest(again.instance("2.25.1").path)
        assert events(again) == [("study.image_received", "2.25.1")]
        assert again.quarantine.objects() == []
        assert sound(again)
        again.close()


def test_what_is_stored_already_leaves_the_quarantine(archive: Archive) -> None:
    with archive.write() as conn:
        MaintenanceRows(archive).take_out(conn, "2.25.1")
    send(archive, image(PatientID="SECOND"))
    decided(archive, "store")
    assert archive.quarantine.objects() == []
    assert folder(archive) == ["kept"]
    assert sound(archive)


def test_keeping_the_stored_one_changes_no_file_and_another_decision_can_follow(archive: Archive) -> None:
    assert archive.quarantine.undecided() == 1
    before = folder(archive)
    archive.quarantine.settle(only(archive).id, by="J. Smith", now=NOW)
    archive.quarantine.settle(only(archive).id, by="Somebody else", now=NOW)
    carry_out(archive, files_of(archive), now=NOW)
    assert (only(archive).settled_by, only(archive).settled_at) == ("J. Smith", "2026-11-22T08:00:00.000Z")
    assert (folder(archive), patient(archive.instance("2.25.1").path), archive.quarantine.undecided()) == (
        before,
        "FIRST",
        0,
    )
    decided(archive, "store")
    assert (only(archive).settled_at, archive.quarantine.undecided()) == (None, 1)
    archive.quarantine.settle(only(archive).id, by="J. Smith", now=NOW)
    assert (only(archive).refusal, only(archive).decision) == ("", None)
    with pytest.raises(NotFound, match="Nothing in the quarantine has the id 99"):
        archive.quarantine.settle(99, by="J. Smith", now=NOW)


def test_where_nothing_is_stored_there_is_nothing_to_keep_and_the_decision_stands(archive: Archive) -> None:
    """Killed between making way and receiving: the stored one is out of the index, the other not yet in it."""
    archive.quarantine.decide(only(archive).id, "replace", by="J. Smith")
    with archive.write() as conn:
        MaintenanceRows(archive).take_out(conn, "2.25.1")
    with pytest.raises(Conflict, match=r"Nothing is stored under 2\.25\.1, so there is nothing to keep"):
        archive.quarantine.settle(only(archive).id, by="A. Jones", now=NOW)
    carry_out(archive, files_of(archive), now=NOW)
    assert patient(archive.instance("2.25.1").path) == "SECOND"
    assert archive.quarantine.objects() == []


def test_what_could_not_be_stored_may_be_kept_aside(archive: Archive) -> None:
    path = files_of(archive).quarantine / only(archive).file_name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with archive.write() as conn:
        MaintenanceRows(archive).take_out(conn, "2.25.1")
    decided(archive, "store")
    assert archive.quarantine.undecided() == 1
    archive.quarantine.settle(only(archive).id, by="A. Jones", now=NOW)
    assert archive.quarantine.undecided() == 0


def test_a_damaged_object_never_takes_the_place_of_a_stored_one(archive: Archive) -> None:
    path = files_of(archive).quarantine / only(archive).file_name
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"?")
    decided(archive, "replace")
    assert only(archive).refusal.startswith("The file in the quarantine is not what was set aside")
    assert patient(archive.instance("2.25.1").path) == "FIRST"


def test_an_object_that_is_missing_is_refused(archive: Archive) -> None:
    (files_of(archive).quarantine / only(archive).file_name).unlink()
    decided(archive, "replace")
    assert "No such file" in only(archive).refusal
    assert patient(archive.instance("2.25.1").path) == "FIRST"


def test_a_decision_that_is_taken_back_while_others_are_carried_out_is_not_carried_out(archive: Archive) -> None:
    """The file of the first is a pipe, so that carrying out stops in the middle of it until this test goes on."""
    send(archive, image(2, PatientID="THIRD"))
    with pytest.raises(Conflict):
        send(archive, image(2, PatientID="FOURTH"))
    first, second = archive.quarantine.objects()
    archive.quarantine.decide(first.id, "replace", by="J. Smith")
    archive.quarantine.decide(second.id, "replace", by="J. Smith")
    path = files_of(archive).quarantine / first.file_name
    content = path.read_bytes()
    moved = path.rename(path.with_suffix(".moved"))
    os.mkfifo(path)
    carrying_out = threading.Thread(target=carry_out, args=(archive, files_of(archive)), kwargs={"now": NOW})
    carrying_out.start()
    with path.open("wb") as pipe:  # opens when it is being read
        for each in (first, second):
            archive.quarantine.settle(each.id, by="A. Jones", now=NOW)
        moved.replace(path)
        pipe.write(content)
    carrying_out.join()
    assert [(each.id, each.decision, each.settled_by) for each in archive.quarantine.objects()] == [
        (first.id, None, "A. Jones"),
        (second.id, None, "A. Jones"),
    ]
    assert patient(archive.instance("2.25.1").path) == "FIRST"
    assert patient(archive.instance("2.25.2").path) == "THIRD"
    assert sorted(each.name for each in files_of(archive).quarantine.iterdir()) == sorted(
        (first.file_name, second.file_name)
    )


def test_killed_after_the_old_row_went_the_next_look_finishes(archive: Archive) -> None:
    """As if the process died between making way and receiving: the decision is still there."""
    archive.quarantine.decide(only(archive).id, "replace", by="J. Smith")
    old = archive.instance("2.25.1")
    files_of(archive).copy_aside(old.path, f"{old.path.stem}.{old.sha256[:16]}.dcm")
    with archive.write() as conn:
        conn.execute(
            "INSERT INTO quarantine (sop_instance_uid, sha256, file_name, reason, calling_ae_title, received_at)"
            " VALUES ('2.25.1', ?, ?, 'Replaced.', '', '2026-11-22T08:00:00.000Z')",
            (old.sha256, f"{old.path.stem}.{old.sha256[:16]}.dcm"),
        )
        MaintenanceRows(archive).take_out(conn, "2.25.1")
    again = reopened(archive)
    carry_out(again, files_of(again), now=NOW)
    assert patient(again.instance("2.25.1").path) == "SECOND"
    assert only(again).sha256 == old.sha256
    assert folder(again) == ["kept", "quarantine"]
    assert sound(again)
    again.close()


def test_killed_after_it_was_stored_the_next_look_tidies_up(archive: Archive) -> None:
    found = only(archive)
    with archive.write() as conn:
        MaintenanceRows(archive).take_out(conn, "2.25.1")
    receive_again(archive, files_of(archive).quarantine / found.file_name, calling_ae_title="", why="x", now=NOW)
    decided(archive, "store")
    assert archive.quarantine.objects() == []
    assert folder(archive) == ["kept"]
    assert sound(archive)


def test_deciding_on_what_is_not_there_is_an_error(archive: Archive) -> None:
    with pytest.raises(NotFound, match="quarantine list"):
        archive.quarantine.decide(77, "store", by="")


def test_an_instance_taken_out_leaves_counts_that_agree(archive: Archive) -> None:
    send(archive, image(2))
    with archive.write() as conn:
        MaintenanceRows(archive).take_out(conn, "2.25.2")
        MaintenanceRows(archive).take_out(conn, "2.25.999")
    files_of(archive).path("2.25.2").unlink()
    assert MaintenanceRows(archive).wrong_counts() == []
    with archive.write() as conn:
        MaintenanceRows(archive).take_out(conn, "2.25.1")
    assert archive.statistics() == {"studies": 0, "series": 0, "instances": 0, "bytes": 0}
