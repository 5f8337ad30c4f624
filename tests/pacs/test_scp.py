"""The pacs over real associations: DCMTK and pynetdicom as the modality."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts
from structlog.testing import capture_logs

from gateway.dicom.listener import Listener
from pacs import Archive
from pacs.commitment.reporter import Reporter
from pacs.scp import STORAGE_CLASSES, TRANSFER_SYNTAXES, application
from tests.pacs.archive.test_archive import events, folder, image
from tests.pacs.archive.test_attributes import EXPLICIT, encoded
from tests.tools import corpus
from tests.tools.dcmtk import with_dcmtk
from tests.tools.raw_peer import RawPeer


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive.open(tmp_path / "pacs.db", tmp_path / "instances")
    yield archive
    archive.close()


@pytest.fixture
def listener(archive: Archive) -> Iterator[Listener]:
    served = application(archive, Reporter(archive, ()), ae_title="SCREENING_PACS")
    with Listener(served, host="127.0.0.1", port=0) as listener:
        yield listener


def storescu(listener: Listener, *arguments: str | Path) -> str:
    command = ["storescu", "-v", "-aec", "SCREENING_PACS", "127.0.0.1", str(listener.port), *map(str, arguments)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def data_set_bytes(path: Path) -> bytes:
    start = 144 + dcmread(path, stop_before_pixels=True).file_meta.FileMetaInformationGroupLength
    return path.read_bytes()[start:]


OPTIONS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.5": "-xr",
}


@with_dcmtk
@pytest.mark.parametrize("syntax", OPTIONS)
def test_what_dcmtk_sends_lies_there_byte_for_byte(
    archive: Archive, listener: Listener, tmp_path: Path, syntax: str
) -> None:
    path = corpus.write(tmp_path / "sent.dcm", image(transfer_syntax_uid=syntax))
    assert "Received Store Response (Success)" in storescu(listener, OPTIONS[syntax], path)
    stored = archive.instance("2.25.1")
    assert stored.transfer_syntax_uid == syntax
    # DCMTK writes what it sends anew, so equal content is compared, and for native pixels their bytes.
    assert dcmread(stored.path) == dcmread(path)


@pytest.mark.parametrize("syntax", [*corpus.REVERSIBLE, *corpus.EIGHT_BIT], ids=lambda syntax: syntax.name)
def test_every_transfer_syntax_is_taken_and_kept(
    archive: Archive, listener: Listener, tmp_path: Path, syntax: UID
) -> None:
    path = corpus.write(tmp_path / "sent.dcm", image(transfer_syntax_uid=syntax))
    data_set = dcmread(path)
    entity = AE()
    entity.add_requested_context(data_set.SOPClassUID, syntax)
    association = entity.associate("127.0.0.1", listener.port, ae_title="SCREENING_PACS")
    assert association.send_c_store(path).Status == 0x0000
    association.release()
    stored = archive.instance("2.25.1")
    assert stored.path.read_bytes()[stored.data_set_offset :] == data_set_bytes(path)


def test_every_storage_class_is_offered_with_every_transfer_syntax(listener: Listener) -> None:
    classes = [context.abstract_syntax for context in AllStoragePresentationContexts]
    for start in range(0, len(classes), 128):
        entity = AE()
        for name in classes[start : start + 128]:
            entity.add_requested_context(name, list(TRANSFER_SYNTAXES))
        association = entity.associate("127.0.0.1", listener.port, ae_title="SCREENING_PACS")
        assert [context.abstract_syntax for context in association.accepted_contexts] == classes[start : start + 128]
        association.release()
    assert len(STORAGE_CLASSES) == len(set(classes))


REFUSED = {
    "no SOP Instance UID": ({"SOPInstanceUID": None}, 0xC000, "SOP Instance UID"),
    "no Study Instance UID": ({"StudyInstanceUID": None}, 0xC000, "Study Instance UID"),
    "another class than announced": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, 0xA900, "SOP Class UID"),
    "another instance than announced": ({"SOPInstanceUID": "2.25.77"}, 0xA900, "SOP Instance UID"),
}


@pytest.mark.parametrize(("attributes", "status", "words"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_object_gets_its_status_a_comment_and_one_line_without_patient_data(
    archive: Archive, listener: Listener, attributes: dict[str, object], status: int, words: str
) -> None:
    data_set = image(PatientName="SECRET^NAME", PatientID="SECRET-ID")
    announced = str(data_set.SOPClassUID), str(data_set.SOPInstanceUID)
    for keyword, value in attributes.items():
        if value is None:
            del data_set[keyword]
        else:
            setattr(data_set, keyword, value)
    with capture_logs() as logs, RawPeer(listener.port, announced[0], EXPLICIT) as peer:
        answer = peer.store(*announced, encoded(data_set, EXPLICIT))
    assert answer.status == status
    assert words in (answer.error_comment or "")
    assert [line["event"] for line in logs if line["log_level"] != "info"] == ["request refused"]
    assert "SECRET" not in str(logs)
    assert folder(archive) == []
    assert events(archive) == []


@with_dcmtk
def test_a_second_different_object_is_refused_and_the_first_is_served(
    archive: Archive, listener: Listener, tmp_path: Path
) -> None:
    first = corpus.write(tmp_path / "1.dcm", image(PatientID="FIRST"))
    second = corpus.write(tmp_path / "2.dcm", image(PatientID="SECOND"))
    assert "Success" in storescu(listener, first)
    assert "0xc111" in storescu(listener, "-d", second)
    assert dcmread(archive.instance("2.25.1").path).PatientID == "FIRST"
    assert [kind for kind, _ in events(archive)] == ["study.image_received", "image.quarantined"]
