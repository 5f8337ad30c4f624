"""Index against files against hashes: what is not as it should be is found, and no repair loses anything."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from gateway.disk_space import Watermarks
from gateway.errors import DatabaseNotReady, GatewayError
from pacs import Archive
from pacs.archive.files import Found, digest
from pacs.archive.maintenance_rows import Kept
from pacs.maintenance.fsck import KINDS, Fsck, FsckFinding, joined
from pacs.maintenance.quarantine import record
from tests.pacs.archive.test_archive import EXPLICIT, NOW, begun, events, folder, image, send
from tests.tools.archive_files import files_of


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Two studies, three instances, nothing wrong with them."""
    with closing(Archive.open(tmp_path / "pacs.db", tmp_path / "instances")) as archive:
        send(archive, image(1))
        send(archive, image(2))
        send(archive, image(3, StudyInstanceUID="2.25.2002", SeriesInstanceUID="2.25.2003"))
        yield archive


def found(archive: Archive, *, hashes: bool = False) -> list[FsckFinding]:
    return list(Fsck(archive, files_of(archive), at_rest=True).findings(hashes=hashes, now=NOW))


def codes(archive: Archive, *, hashes: bool = False) -> list[tuple[str, str]]:
    return [(finding.code, finding.uid) for finding in found(archive, hashes=hashes)]


def repaired(archive: Archive) -> list[tuple[str, str]]:
    """What a repair did, by code."""
    check = Fsck(archive, files_of(archive), at_rest=True)
    return [
        (done.code, done.repaired)
        for finding in check.findings(hashes=False, now=NOW)
        for done in [check.repaired(finding, now=NOW)]
    ]


def file_of(archive: Archive, uid: str) -> Path:
    return files_of(archive).path(uid)


def sql(archive: Archive, statement: str) -> None:
    """What only a bug or a foreign hand does to the index."""
    with archive.write() as conn:
        conn.execute(statement)


# ---- finding ---------------------------------------------------------------------------------------------------------


def test_a_sound_archive_has_no_findings(archive: Archive) -> None:
    assert found(archive, hashes=True) == []


def test_a_missing_file_is_found_told_and_remembered(archive: Archive) -> None:
    file_of(archive, "2.25.2").unlink()
    [finding] = found(archive)
    assert finding.facts() == {
        "code": "missing_file",
        "uid": "2.25.2",
        "file": str(file_of(archive, "2.25.2").relative_to(files_of(archive).root)),
        "sentence": "The file of the instance is missing.",
        "remedy": "Send it again from the modality or the site's archive, or restore the file from a backup.",
        "repaired": "",
    }
    assert archive.condition().damaged == 1


def test_a_file_that_was_cut_is_of_the_wrong_size(archive: Archive) -> None:
    path = file_of(archive, "2.25.1")
    path.write_bytes(path.read_bytes()[:-1])
    assert codes(archive) == [("wrong_size", "2.25.1")]


def flip(path: Path) -> None:
    """One bit, as a disk does it."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_found_only_by_reading(archive: Archive) -> None:
    flip(file_of(archive, "2.25.3"))
    assert codes(archive) == []
    assert codes(archive, hashes=True) == [("wrong_hash", "2.25.3")]


def test_what_is_damaged_is_made_well_by_a_resend(archive: Archive) -> None:
    flip(file_of(archive, "2.25.1"))
    file_of(archive, "2.25.2").unlink()
    assert len(codes(archive, hashes=True)) == 2
    send(archive, image(1))
    send(archive, image(2))
    assert codes(archive, hashes=True) == []
    assert archive.condition().damaged == 0


def test_damage_that_went_away_is_forgotten(archive: Archive) -> None:
    path = file_of(archive, "2.25.1")
    content = path.read_bytes()
    flip(path)
    found(archive, hashes=True)
    path.write_bytes(content)
    assert codes(archive, hashes=True) == []
    assert archive.condition().damaged == 0


def test_a_file_of_somebody_else_is_told_and_left_alone(archive: Archive) -> None:
    strange = file_of(archive, "2.25.1").with_name("notes.txt")
    strange.write_text("where did I put it")
    (files_of(archive).root / "lost+found").mkdir()
    assert repaired(archive) == [("foreign_file", "")]
    assert strange.read_text() == "where did I put it"


def test_a_damaged_page_of_the_database_is_found(archive: Archive, tmp_path: Path) -> None:
    with archive.read() as conn:
        size = conn.execute("PRAGMA page_size").fetchone()[0]
        [page] = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'instance_received_at'").fetchone()
    copy = tmp_path / "copy.db"
    archive.copy_database(copy)
    content = bytearray(copy.read_bytes())
    at = content.index(b"2026-11-22T08:00", (page - 1) * size)
    content[at] ^= 1
    copy.write_bytes(content)
    with closing(Archive.attach(copy, files_of(archive).root)) as damaged:
        assert {code for code, _ in codes(damaged, hashes=True)} == {"damaged_database"}


def test_a_database_that_is_none_any_more_is_told_in_a_sentence(archive: Archive, tmp_path: Path) -> None:
    archive.copy_database(tmp_path / "copy.db")
    content = (tmp_path / "copy.db").read_bytes()
    (tmp_path / "copy.db").write_bytes(content[:4096] + bytes(len(content) - 4096))
    with pytest.raises(DatabaseNotReady, match="is damaged"):
        Archive.attach(tmp_path / "copy.db", files_of(archive).root)


def test_a_volume_that_is_not_mounted_is_one_sentence_and_not_a_million_findings(archive: Archive) -> None:
    files_of(archive).root.rename(files_of(archive).root.with_name("elsewhere"))
    files_of(archive).root.mkdir()
    with pytest.raises(GatewayError, match="is its volume mounted"):
        found(archive)


# ---- while the archive serves ----------------------------------------------------------------------------------------


def test_what_is_coming_in_is_no_finding_while_the_archive_serves(archive: Archive) -> None:
    part = begun(archive, image(7))
    files_of(archive).keep(part, "2.25.7")  # as it is between the link and the commit
    with closing(Archive.attach(archive.database_path, files_of(archive).root)) as beside:
        assert list(Fsck(beside, files_of(beside), at_rest=False).findings(hashes=True, now=NOW)) == []
    assert [code for code, _ in codes(archive)] == ["orphan_file", "leftover"]


def test_what_is_set_aside_during_the_check_is_no_finding(archive: Archive) -> None:
    stray = files_of(archive).quarantine / "on its way.dcm"
    stray.write_bytes(b"the row comes a moment later")
    row_comes = threading.Timer(0.3, lambda: record(archive, stray, reason="x", now=NOW))
    row_comes.start()
    assert list(Fsck(archive, files_of(archive), at_rest=False).findings(hashes=False, now=NOW)) == []
    row_comes.join()


def test_what_comes_and_goes_during_the_check_is_no_finding(archive: Archive) -> None:
    looked = 0

    def meanwhile() -> None:
        nonlocal looked
        looked += 1
        send(archive, image(100 + looked))

    check = Fsck(archive, files_of(archive), at_rest=False, seen=meanwhile)
    assert list(check.findings(hashes=True, now=NOW)) == []
    assert looked >= 3


# ---- repairing -------------------------------------------------------------------------------------------------------


def test_an_orphan_that_can_be_read_is_indexed_and_told(archive: Archive) -> None:
    content = file_of(archive, "2.25.1").read_bytes()
    sql(archive, "DELETE FROM instance WHERE sop_instance_uid = '2.25.1'")
    sql(archive, "DELETE FROM outbox WHERE message_id = '2.25.1'")
    assert ("orphan_file", "Indexed; the cloud is told.") in repaired(archive)
    assert archive.instance("2.25.1").path.read_bytes() == content
    assert ("study.image_received", "2.25.1") in events(archive)
    assert codes(archive, hashes=True) == []


def damaged_header(path: Path) -> None:
    path.write_bytes(bytes(200))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def misplaced(path: Path) -> None:
    path.rename(path.with_name(path.name[:4] + "f" * 60 + ".dcm"))


@pytest.mark.parametrize("damage", [damaged_header, cut, misplaced])
def test_an_orphan_that_cannot_be_indexed_is_set_aside_whole(archive: Archive, damage: Callable[[Path], None]) -> None:
    path = file_of(archive, "2.25.1")
    sql(archive, "DELETE FROM instance WHERE sop_instance_uid = '2.25.1'")
    damage(path)
    [orphan] = [finding for finding in found(archive) if finding.code == "orphan_file"]
    content = (files_of(archive).root / orphan.file).read_bytes()
    assert ("orphan_file", "Set aside in the quarantine.") in repaired(archive)
    [row] = archive.quarantine.objects()
    assert (files_of(archive).quarantine / row.file_name).read_bytes() == content
    assert codes(archive) == []


def test_an_index_that_was_lost_is_made_again_from_the_files(archive: Archive, tmp_path: Path) -> None:
    totals = archive.statistics()
    archive.close()
    with closing(Archive.open(tmp_path / "new.db", files_of(archive).root)) as again:
        assert {done for _, done in repaired(again)} == {"Indexed; the cloud is told."}
        assert again.statistics() == totals
        assert codes(again, hashes=True) == []


def test_leftovers_are_swept(archive: Archive) -> None:
    begun(archive, image(7))
    assert repaired(archive) == [("leftover", "Swept.")]
    assert folder(archive) == ["kept"] * 3


def test_counts_are_made_right(archive: Archive) -> None:
    totals = archive.statistics()
    sql(archive, "UPDATE study SET instance_count = 9, byte_count = 0 WHERE study_instance_uid = '2.25.2002'")
    sql(archive, "UPDATE series SET instance_count = 7 WHERE series_instance_uid = '2.25.1003'")
    sql(archive, "UPDATE total SET study_count = 12, byte_count = 1")
    assert sorted(codes(archive)) == [
        ("wrong_counts", "2.25.1002"),
        ("wrong_counts", "2.25.2002"),
        ("wrong_totals", ""),
    ]
    assert {done for _, done in repaired(archive)} == {"Counted anew."}
    assert codes(archive) == []
    assert archive.statistics() == totals


def test_a_study_without_instances_goes(archive: Archive) -> None:
    sql(archive, "DELETE FROM instance WHERE sop_instance_uid = '2.25.3'")
    file_of(archive, "2.25.3").unlink()
    assert sorted(codes(archive)) == [("wrong_counts", "2.25.2002"), ("wrong_totals", "")]
    repaired(archive)
    assert codes(archive) == []
    assert archive.statistics()["studies"] == 1


def test_an_instance_that_no_event_tells_of_is_told(archive: Archive) -> None:
    sql(archive, "DELETE FROM outbox WHERE message_id = '2.25.2'")
    assert repaired(archive) == [("untold", "The cloud is told.")]
    told = {entry.message_id: entry.parameters for entry in archive.outbox.entries("open")}
    image_told = told["2.25.2"]["image"]
    assert isinstance(image_told, dict)
    assert image_told["sha256"] == archive.instance("2.25.2").sha256
    assert codes(archive) == []


def test_the_quarantine_is_compared_as_well(archive: Archive) -> None:
    stray = files_of(archive).quarantine / "stray.dcm"
    stray.write_bytes(file_of(archive, "2.25.1").read_bytes())
    sql(
        archive,
        "INSERT INTO quarantine (sop_instance_uid, sha256, file_name, reason, calling_ae_title, received_at)"
        " VALUES ('2.25.9', 'ab', 'gone.dcm', 'x', '', '2026-11-22T08:00:00.000Z')",
    )
    assert codes(archive) == [("quarantine_row_without_file", "2.25.9"), ("quarantine_file_without_row", "")]
    assert [code for code, _ in repaired(archive)] == ["quarantine_row_without_file", "quarantine_file_without_row"]
    [row] = archive.quarantine.objects()
    assert (row.file_name, row.sop_instance_uid, row.sha256) == ("stray.dcm", "2.25.1", digest(stray))
    assert codes(archive) == []


def test_a_repair_on_a_full_volume_waits_and_loses_nothing(tmp_path: Path) -> None:
    with closing(Archive.open(tmp_path / "pacs.db", tmp_path / "instances")) as archive:
        send(archive, image(1))
    with closing(Archive.open(tmp_path / "new.db", tmp_path / "instances", Watermarks(0, 0))) as full:
        assert repaired(full) == [("orphan_file", "")]
        assert folder(full) == ["kept"]


# ---- the comparison itself -------------------------------------------------------------------------------------------

PLACES = st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=12).map(sorted)


@given(PLACES, PLACES)
def test_two_sorted_streams_are_joined_like_sets(rows: list[str], files: list[str]) -> None:
    left = [Kept(0, place, place, 1, "") for place in rows]
    right = [Found(place, Path(place), 1) for place in files]
    pairs = [(row.place if row else None, file.place if file else None) for row, file in joined(left, right)]
    both, everything = set(rows) & set(files), sorted(set(rows) | set(files))
    assert pairs == [(name if name in rows else None, name if name in files else None) for name in everything]
    assert {row for row, file in pairs if row == file} == both


def test_every_kind_of_finding_has_a_sentence_and_a_remedy() -> None:
    assert [code for code, (sentence, remedy) in KINDS.items() if not (sentence.endswith(".") and remedy)] == []


def test_the_files_that_were_indexed_again_are_what_was_received(archive: Archive) -> None:
    sql(archive, "DELETE FROM instance")
    repaired(archive)
    stored = archive.instance("2.25.2")
    assert (stored.transfer_syntax_uid, stored.sha256) == (EXPLICIT, digest(stored.path))
    assert dcmread(stored.path).SOPInstanceUID == "2.25.2"
