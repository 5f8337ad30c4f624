"""The archive on real files and a real database: what is kept, what is refused, what a crash leaves."""

import os
import resource
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.errors import ClassMismatch, Conflict, InvalidDataSet, InvalidQuery, NotFound, OutOfResources, Refusal
from pacs import Archive
from pacs.archive.attributes import LARGEST_INFLATED, read_attributes
from pacs.archive.files import digest
from pacs.archive.index import Receipt
from pacs.archive.receiving import INLINE_HASH_BYTES, ObjectOrigin
from tests.pacs.archive.test_attributes import encoded
from tests.tools import corpus
from tests.tools.archive_files import files_of

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)
EXPLICIT = str(ExplicitVRLittleEndian)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive.open(tmp_path / "pacs.db", tmp_path / "instances")
    yield archive
    archive.close()


def image(number: int = 1, **attributes: object) -> Dataset:
    defaults = {
        "SOPInstanceUID": f"2.25.{number}",
        "AccessionNumber": "A1",
        "StudyDate": "20261122",
        "StudyTime": "101500",
        "InstanceNumber": number,
    }
    return corpus.data_set(**{**defaults, **attributes})  # type: ignore[arg-type]


def send(archive: Archive, data_set: Dataset, *, data: bytes | None = None, **announced: str) -> None:
    """As the listener does it."""
    origin = ObjectOrigin(
        **{
            "sop_class_uid": str(data_set.get("SOPClassUID", "1.2")),
            "sop_instance_uid": str(data_set.get("SOPInstanceUID", "2.25.1")),
            "transfer_syntax_uid": EXPLICIT,
            "calling_ae_title": "MAMMO_1",
            "association_id": "a1",
            **announced,
        }
    )
    receiving = archive.receive(origin, now=NOW)
    try:
        body = memoryview(encoded(data_set, EXPLICIT) if data is None else data)
        for start in range(0, len(body), 1 << 17):
            receiving.write(body[start : start + (1 << 17)])
        receiving.finish()
    except Refusal:
        receiving.discard()
        raise


def events(archive: Archive) -> list[tuple[str, str]]:
    return [(entry.message_type, entry.message_id) for entry in reversed(archive.outbox.entries("open"))]


def folder(archive: Archive) -> list[str]:
    """Every file of the archive, by its folder."""
    found = (path for path in files_of(archive).root.rglob("*") if path.is_file())
    return sorted(path.parent.name if path.parent.name in ("incoming", "quarantine") else "kept" for path in found)


def test_an_image_is_kept_as_received_indexed_and_owed_to_the_cloud(archive: Archive) -> None:
    data_set = image()
    send(archive, data_set)
    stored = archive.instance("2.25.1")
    content = stored.path.read_bytes()
    assert content[stored.data_set_offset :] == encoded(data_set, EXPLICIT)
    assert (stored.sha256, stored.size_bytes) == (digest(stored.path), len(content))
    assert (stored.study_instance_uid, stored.series_instance_uid) == ("2.25.1002", "2.25.1003")
    assert (stored.frames, stored.calling_ae_title, stored.received_at) == (1, "MAMMO_1", "2026-11-22T08:00:00.000Z")
    assert dcmread(stored.path).pixel_array.tolist() == corpus.GREY.tolist()
    assert events(archive) == [("study.image_received", "2.25.1")]
    assert folder(archive) == ["kept"]
    assert archive.statistics() == {"studies": 1, "series": 1, "instances": 1, "bytes": len(content)}


def test_a_large_object_is_hashed_by_the_follower_to_the_same_digest(archive: Archive) -> None:
    data_set = image(PixelData=bytes(INLINE_HASH_BYTES * 2 + 12_346))
    send(archive, data_set)
    stored = archive.instance("2.25.1")
    assert stored.sha256 == digest(stored.path)
    assert stored.path.read_bytes()[stored.data_set_offset :] == encoded(data_set, EXPLICIT)


def test_the_same_object_again_is_a_success_without_a_second_event(archive: Archive) -> None:
    send(archive, image())
    send(archive, image())
    assert events(archive) == [("study.image_received", "2.25.1")]
    assert archive.statistics()["instances"] == 1
    assert folder(archive) == ["kept"]


def test_another_object_under_a_known_uid_is_quarantined_and_the_first_stays(archive: Archive) -> None:
    send(archive, image(PatientID="FIRST"))
    with pytest.raises(Conflict):
        send(archive, image(PatientID="SECOND"))
    assert dcmread(archive.instance("2.25.1").path).PatientID == "FIRST"
    (row,) = archive.quarantine.objects()
    assert dcmread(files_of(archive).quarantine / row.file_name).PatientID == "SECOND"
    assert [kind for kind, _ in events(archive)] == ["study.image_received", "image.quarantined"]
    assert folder(archive) == ["kept", "quarantine"]
    with pytest.raises(Conflict):
        send(archive, image(PatientID="SECOND"))
    assert len(archive.quarantine.objects()) == 1


WITHOUT = {
    "SOPInstanceUID": (InvalidDataSet, "SOP Instance UID"),
    "StudyInstanceUID": (InvalidDataSet, "Study Instance UID"),
    "SeriesInstanceUID": (InvalidDataSet, "Series Instance UID"),
    "SOPClassUID": (InvalidDataSet, "SOP Class UID"),
}


@pytest.mark.parametrize("keyword", WITHOUT)
def test_an_object_without_what_identifies_it_is_refused_and_nothing_stays(archive: Archive, keyword: str) -> None:
    kind, words = WITHOUT[keyword]
    data_set = image()
    del data_set[keyword]
    with pytest.raises(kind, match=words):
        send(archive, data_set)
    assert folder(archive) == []
    assert events(archive) == []


def test_an_object_that_is_not_what_was_announced_is_refused(archive: Archive) -> None:
    with pytest.raises(ClassMismatch, match="SOP Class UID"):
        send(archive, image(), sop_class_uid="1.2.840.10008.5.1.4.1.1.2")
    with pytest.raises(ClassMismatch, match="SOP Instance UID"):
        send(archive, image(), sop_instance_uid="2.25.999")
    for uid in ("", "../../etc/passwd", "1.2.x", "1" * 65):
        with pytest.raises(InvalidDataSet):
            send(archive, image(), sop_instance_uid=uid)
    assert folder(archive) == []


def test_a_data_set_cut_off_in_its_pixels_is_refused(archive: Archive) -> None:
    whole = encoded(image(), EXPLICIT)
    for end in (len(whole) - 1, len(whole) - 500, 300, 0):
        with pytest.raises(InvalidDataSet):
            send(archive, image(), data=whole[:end])
    assert folder(archive) == []
    send(archive, image())
    assert folder(archive) == ["kept"]


ODD_NUMBERS = {
    "frames that no column can hold": (0x00280008, b"IS", b"99999999999999999999", 1),
    "frames that no int can hold": (0x00280008, b"IS", b"9" * 5000, 1),
    "fewer frames than none": (0x00280008, b"IS", b"-5", 1),
    "frames in words": (0x00280008, b"IS", b"many", 1),
    "rows in too many digits": (0x00280010, b"LO", b"9" * 5000, 1),
    "an instance number without end": (0x00200013, b"IS", b"9" * 4000, 1),
    "a voltage beyond all numbers": (0x00180060, b"DS", b"1e999 ", 1),
}


@pytest.mark.parametrize(("tag", "vr", "value", "frames"), ODD_NUMBERS.values(), ids=ODD_NUMBERS)
def test_an_odd_number_never_costs_an_image(archive: Archive, tag: int, vr: bytes, value: bytes, frames: int) -> None:
    data_set = image()
    if tag in data_set:
        del data_set[tag]
    odd = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    send(archive, data_set, data=encoded(data_set, EXPLICIT) + odd)
    assert archive.instance("2.25.1").frames == frames
    assert events(archive) == [("study.image_received", "2.25.1")]


def test_a_deflated_bomb_is_refused_and_nobody_else_unpacks_it(archive: Archive) -> None:
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(encoded(image(), EXPLICIT))
    zeros = bytes(1 << 24)
    for _ in range((LARGEST_INFLATED >> 24) + 1):
        bomb += packer.compress(zeros)
    with pytest.raises(InvalidDataSet, match="unpacks to more than 256 MB"):
        send(archive, image(), data=bomb + packer.flush(), transfer_syntax_uid=str(DeflatedExplicitVRLittleEndian))
    assert folder(archive) == []


def test_pydicom_is_not_asked_about_more_than_it_can_read_with_little_memory(archive: Archive) -> None:
    unknown = struct.pack("<HH2sH", 0x0009, 0x0010, b"ZZ", 0)
    send(archive, image(1), data=encoded(image(1), EXPLICIT) + unknown)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 300_000
    bomb = struct.pack("<HH2sHI", 0x0054, 0x0220, b"SQ", 0, len(items)) + items
    with pytest.raises(InvalidDataSet, match="no value representation"):
        send(archive, image(2), data=unknown + bomb + encoded(image(2), EXPLICIT))
    assert folder(archive) == ["kept"]


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=lambda s: s.name)
def test_other_encodings_are_kept_as_they_are(archive: Archive, tmp_path: Path, syntax: str) -> None:
    path = corpus.write(tmp_path / "sent.dcm", image(transfer_syntax_uid=syntax))
    content = path.read_bytes()
    start = 144 + dcmread(path, stop_before_pixels=True).file_meta.FileMetaInformationGroupLength
    send(archive, image(), data=content[start:], transfer_syntax_uid=str(syntax))
    stored = archive.instance("2.25.1")
    assert stored.path.read_bytes()[stored.data_set_offset :] == content[start:]
    assert stored.transfer_syntax_uid == syntax
    assert dcmread(stored.path).pixel_array.tolist() == corpus.GREY.tolist()


def test_the_same_object_from_many_at_once_is_stored_once(archive: Archive) -> None:
    refused: list[Refusal] = []

    def deliver(patient_id: str) -> None:
        try:
            send(archive, image(PatientID=patient_id))
        except Refusal as refusal:
            refused.append(refusal)

    threads = [threading.Thread(target=deliver, args=(name,)) for name in ["SAME"] * 8]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert events(archive) == [("study.image_received", "2.25.1")]
    assert folder(archive) == ["kept"]


def test_many_objects_at_once_are_all_counted(archive: Archive) -> None:
    threads = [threading.Thread(target=send, args=(archive, image(number))) for number in range(1, 25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (study,) = archive.find("STUDY", Dataset())
    assert study["00201208"]["Value"] == [24]
    assert len(events(archive)) == 24


# ---- what a crash leaves -------------------------------------------------------------------------------------------


def reopened(archive: Archive) -> Archive:
    archive.close()
    return Archive.open(archive.database_path, files_of(archive).root)


def begun(archive: Archive, data_set: Dataset) -> Path:
    """A receipt as it is on disk after its file was written, before anything else happened."""
    receiving = archive.receive(
        ObjectOrigin(str(data_set.SOPClassUID), str(data_set.SOPInstanceUID), EXPLICIT, "MAMMO_1", "a1"), now=NOW
    )
    receiving.write(memoryview(encoded(data_set, EXPLICIT)))
    return receiving.part


def test_killed_while_receiving_leaves_nothing(archive: Archive) -> None:
    begun(archive, image())
    again = reopened(archive)
    assert folder(again) == []
    again.close()


def test_killed_between_link_and_commit_sets_the_file_aside_and_a_resend_works(archive: Archive) -> None:
    part = begun(archive, image())
    files_of(archive).keep(part, "2.25.1")
    again = reopened(archive)
    assert folder(again) == ["quarantine"]
    assert [row.sop_instance_uid for row in again.quarantine.objects()] == ["2.25.1"]
    with pytest.raises(NotFound):
        again.instance("2.25.1")
    send(again, image())
    assert again.instance("2.25.1").sha256 == digest(again.instance("2.25.1").path)
    again.close()


def test_killed_between_commit_and_unlink_keeps_the_image(archive: Archive) -> None:
    send(archive, image())
    stored = archive.instance("2.25.1")
    left = files_of(archive).incoming / f"{stored.path.stem}.abc.part"
    left.hardlink_to(stored.path)
    again = reopened(archive)
    assert folder(again) == ["kept"]
    assert again.instance("2.25.1") == stored
    again.close()


def test_killed_while_replacing_an_orphan_the_next_start_sweeps_both_names(archive: Archive) -> None:
    part = begun(archive, image())
    orphan = files_of(archive).path("2.25.1")
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"nobody was told Success for this")
    part.with_suffix(".link").hardlink_to(part)
    again = reopened(archive)
    assert folder(again) == ["kept"]
    send(again, image())
    assert again.instance("2.25.1").sha256 == digest(orphan)
    again.close()


def cut_to_nothing(part: Path) -> None:
    part.write_bytes(b"")


def cut_in_the_header(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:200])


def zeroed(part: Path) -> None:
    part.write_bytes(bytes(part.stat().st_size))


@pytest.mark.parametrize("damage", [cut_to_nothing, cut_in_the_header, zeroed])
def test_a_linked_file_that_is_damaged_stays_in_its_place_and_does_not_stop_a_start(
    archive: Archive, damage: Callable[[Path], None]
) -> None:
    part = begun(archive, image())
    files_of(archive).keep(part, "2.25.1")
    damage(part)
    again = reopened(archive)
    assert folder(again) == ["kept"]
    send(again, image())
    assert again.instance("2.25.1").sha256 == digest(again.instance("2.25.1").path)
    again.close()


def test_what_others_have_put_into_the_folder_or_linked_elsewhere_does_not_stop_a_start(archive: Archive) -> None:
    part = begun(archive, image())
    (files_of(archive).root / "backup.part").hardlink_to(part)
    (files_of(archive).incoming / "lost+found").mkdir()
    (files_of(archive).incoming / "folder.part").mkdir()
    (files_of(archive).incoming / "from_the_van.dcm").write_bytes(b"somebody's image")
    again = reopened(archive)
    left = sorted(path.name for path in files_of(again).incoming.iterdir())
    assert left == ["folder.part", "from_the_van.dcm", "lost+found"]
    again.close()


def test_a_sweep_that_cannot_write_its_row_leaves_everything_to_the_next_start(archive: Archive) -> None:
    part = begun(archive, image())
    files_of(archive).keep(part, "2.25.1")
    with archive.write() as writer:
        pass
    writer.execute("PRAGMA query_only = ON")
    archive.sweep(now=NOW)
    assert folder(archive) == ["incoming", "kept"]
    again = reopened(archive)
    assert folder(again) == ["quarantine"]
    (row,) = again.quarantine.objects()
    assert dcmread(files_of(again).quarantine / row.file_name).SOPInstanceUID == "2.25.1"
    again.close()


def test_an_orphan_is_replaced_by_the_next_receipt(archive: Archive) -> None:
    orphan = files_of(archive).path("2.25.1")
    orphan.parent.mkdir(parents=True)
    orphan.write_bytes(b"nobody was told Success for this")
    send(archive, image())
    assert archive.instance("2.25.1").sha256 == digest(orphan)


def test_a_file_that_was_lost_comes_back_with_a_resend(archive: Archive) -> None:
    send(archive, image())
    archive.instance("2.25.1").path.unlink()
    send(archive, image())
    assert archive.instance("2.25.1").sha256 == digest(archive.instance("2.25.1").path)


def test_a_folder_that_somebody_removed_is_made_again(archive: Archive) -> None:
    send(archive, image())
    path = archive.instance("2.25.1").path
    path.unlink()
    path.parent.rmdir()
    path.parent.parent.rmdir()
    send(archive, image())
    assert archive.instance("2.25.1").sha256 == digest(path)


def test_a_database_that_cannot_be_written_refuses_and_leaves_no_file(archive: Archive) -> None:
    send(archive, image(1))
    with archive.write() as writer:
        pass
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    refused = 0
    for number in range(2, 30):
        try:
            send(archive, image(number, ImageComments="x" * 9000))
        except OutOfResources:
            refused += 1
    assert refused > 0
    writer.execute("PRAGMA max_page_count = 1000000")
    assert len(folder(archive)) == archive.statistics()["instances"]
    send(archive, image(29, ImageComments="x" * 9000))


def test_a_folder_that_cannot_be_written_is_out_of_resources(archive: Archive) -> None:
    files_of(archive).incoming.rename(files_of(archive).root / "gone")
    with pytest.raises(OutOfResources, match="cannot be stored"):
        send(archive, image())
    (files_of(archive).root / "gone").rename(files_of(archive).incoming)
    send(archive, image())


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Nothing can be opened: how a step fails even for root."""
    taken, limits = [os.open(os.devnull, os.O_RDONLY)], resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 16, limits[1]))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(taken[0]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in taken:
            os.close(descriptor)


def test_a_file_whose_folder_cannot_be_synced_does_not_stay(archive: Archive) -> None:
    part, data_set = begun(archive, image()), read_attributes(encoded(image(), EXPLICIT), EXPLICIT)
    files_of(archive).keep(part, "2.25.1")  # makes the folders
    files_of(archive).path("2.25.1").unlink()
    assert archive.latest(1) == []  # opens the database for reading
    receipt = Receipt(EXPLICIT, part.stat().st_size, 0, digest(part), "MAMMO_1", "a1", "2026-11-22T08:00:00.000Z")
    with no_descriptor_left(), pytest.raises(OSError, match="Too many open files"):
        archive.keep(part, data_set, receipt, now=NOW)
    assert folder(archive) == ["incoming"]
    send(archive, image())


def test_an_object_that_cannot_be_read_back_is_out_of_resources_and_keeps_no_descriptor(archive: Archive) -> None:
    receiving = archive.receive(ObjectOrigin("1.2", "2.25.1", EXPLICIT, "MAMMO_1", "a1"), now=NOW)
    file = receiving._file
    with open(os.devnull, "wb") as unreadable:
        os.dup2(unreadable.fileno(), file)
    receiving.write(memoryview(bytes(INLINE_HASH_BYTES + 1)))
    with pytest.raises(OutOfResources, match="cannot be kept"):
        receiving.finish()
    receiving.discard()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)
    assert folder(archive) == []


# ---- queries -------------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(archive: Archive) -> Archive:
    send(archive, image(1, PatientName="MÜLLER^ANNA", SpecificCharacterSet="ISO_IR 100"))
    send(archive, image(2, SeriesInstanceUID="2.25.31", SeriesNumber=2, Modality="SR"))
    other = {"StudyInstanceUID": "2.25.20", "SeriesInstanceUID": "2.25.21", "PatientID": "9990000026"}
    send(archive, image(3, StudyDate="20251231", StudyTime="235959", AccessionNumber="A2", **other))
    return archive


def query(**keys: object) -> Dataset:
    identifier = Dataset()
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    return identifier


QUERIES: dict[str, tuple[dict[str, object], list[str]]] = {
    "everything": ({}, ["2.25.1002", "2.25.20"]),
    "a patient": ({"PatientID": "9990000026"}, ["2.25.20"]),
    "a name without its accent": ({"PatientName": "muller*"}, ["2.25.1002"]),
    "a range of dates": ({"StudyDate": "20251201-20260101"}, ["2.25.20"]),
    "a period": ({"StudyDate": "20251231-20261122", "StudyTime": "235900-101459"}, ["2.25.20"]),
    "a modality": ({"ModalitiesInStudy": "SR"}, ["2.25.1002"]),
    "a list of UIDs": ({"StudyInstanceUID": ["2.25.20", "2.25.999"]}, ["2.25.20"]),
    "an accession number": ({"AccessionNumber": "A?"}, ["2.25.1002", "2.25.20"]),
    "nothing": ({"PatientID": "nobody"}, []),
}


@pytest.mark.parametrize(("keys", "expected"), QUERIES.values(), ids=QUERIES)
def test_studies_are_found(filled: Archive, keys: dict[str, object], expected: list[str]) -> None:
    found = filled.find("STUDY", query(**keys))
    assert [answer["0020000D"]["Value"] for answer in found] == [[uid] for uid in expected]


def test_a_study_answers_its_counts_and_modalities(filled: Archive) -> None:
    found = filled.find("STUDY", query(AccessionNumber="A1"))[0]
    assert {tag: found[tag]["Value"] for tag in ("00080061", "00201206", "00201208", "00080050")} == {
        "00080061": ["MG", "SR"],
        "00201206": [2],
        "00201208": [2],
        "00080050": ["A1"],
    }


def test_series_and_instances_are_found_within_and_across_studies(filled: Archive) -> None:
    series = filled.find("SERIES", query(StudyInstanceUID="2.25.1002"))
    assert [answer["0020000E"]["Value"][0] for answer in series] == ["2.25.1003", "2.25.31"]
    instances = filled.find("IMAGE", query(Modality="MG"))
    assert [answer["00080018"]["Value"][0] for answer in instances] == ["2.25.1", "2.25.3"]
    assert [len(filled.find("IMAGE", Dataset(), limit=2, offset=offset)) for offset in (0, 2, 3)] == [2, 1, 0]


def test_a_query_with_nonsense_is_refused(filled: Archive) -> None:
    with pytest.raises(InvalidQuery):
        filled.find("STUDY", query(StudyDate="yesterday"))


def test_metadata_is_the_whole_data_set_with_its_pixels_named(filled: Archive) -> None:
    (found,) = filled.metadata("2.25.1002", "2.25.1003", "2.25.1")
    assert found["7FE00010"] == {"vr": "OW", "BulkDataURI": "7FE00010"}
    assert found["00100010"]["Value"] == [{"Alphabetic": "MÜLLER^ANNA"}]
    with pytest.raises(NotFound, match=r"2\.25\.404"):
        list(filled.metadata("2.25.404"))
    with pytest.raises(NotFound):
        filled.locate("2.25.1002", "2.25.21")


def test_somebody_else_reads_beside_the_owner(filled: Archive) -> None:
    guest = Archive.attach(filled.database_path, files_of(filled).root)
    assert [stored.sop_instance_uid for stored in guest.latest(2)] == ["2.25.3", "2.25.2"]
    assert [stored.sop_instance_uid for stored in guest.locate("2.25.1002")] == ["2.25.1", "2.25.2"]
    guest.close()
