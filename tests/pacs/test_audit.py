"""What the archive tells the audit trail, over real associations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, StoragePresentationContexts, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from gateway.audit.recorder import MOST_BYTES, AuditRecorder
from gateway.dataset.data_sets import decode
from gateway.dicom.listener import Listener
from gateway.remote_ae import Peer
from gateway.tls_reload import ServerTls
from pacs import Archive
from pacs.audit import ArchiveAudit
from pacs.commitment.reporter import Reporter
from pacs.scp import application
from tests.gateway.test_tls import site
from tests.pacs.archive.test_archive import image, send
from tests.pacs.commitment.test_rules import SOP_INSTANCE, question
from tests.tools.audit_trail import counts, detail, kind, messages, query, told
from tests.tools.waiting import wait_until

HERE = "127.0.0.1"
FIND, GET, MOVE = (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)
GATEWAY, MODALITY = "screening-gateway@", f"MAMMO_1@{HERE}"
MG = str(image(1).SOPClassUID)
STUDY, PATIENT = str(image(1).StudyInstanceUID), str(image(1).PatientID)
OTHER = {"StudyInstanceUID": "2.25.9001", "SeriesInstanceUID": "2.25.9002", "PatientID": "9990000026"}


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    archive = Archive.open(tmp_path / "pacs.db", tmp_path / "instances")
    yield archive
    archive.close()


@contextmanager
def served(
    archive: Archive,
    audit: Path,
    *peers: Peer,
    tls: ServerTls | None = None,
    report_seconds: float = 15.0,
    most_bytes: int = MOST_BYTES,
) -> Iterator[int]:
    with (
        AuditRecorder(audit, "pacs", site="van-1", most_bytes=most_bytes) as recorder,
        Reporter(archive, ()) as reporting,
    ):
        audit = ArchiveAudit(recorder, archive, report_seconds=report_seconds)
        application_ = application(archive, reporting, ae_title="SCREENING_PACS", peers=peers, audit=audit)
        with Listener(application_, host=HERE, port=0, tls=tls) as listener:
            yield listener.port


def modality(*classes: str) -> AE:
    entity = AE(ae_title="MAMMO_1")
    for each in classes:
        entity.add_requested_context(each, ExplicitVRLittleEndian)
    return entity


def found(audit: Path) -> list[tuple[str, str, str, list[str], list[str]]]:
    return [told(each) for each in messages(audit / "pacs")]


def store(port: int, *images: Dataset) -> list[int]:
    association = modality(MG).associate(HERE, port, ae_title="SCREENING_PACS")
    statuses = [int(association.send_c_store(each).Status) for each in images]
    association.release()
    return statuses


def test_what_was_stored_is_told_by_association_and_study(archive: Archive, tmp_path: Path) -> None:
    with served(archive, tmp_path / "audit") as port:
        assert store(port, image(1), image(2), image(3, **OTHER)) == [0, 0, 0]
        assert store(port, image(1), image(1, PatientID="ANOTHER")) == [0, 0xC000 | 0x111]
    event = "DICOM Instances Transferred"
    assert found(tmp_path / "audit") == [
        (event, "C", "0", [MODALITY, GATEWAY], [STUDY, PATIENT]),
        (event, "C", "0", [MODALITY, GATEWAY], [OTHER["StudyInstanceUID"], OTHER["PatientID"]]),
        (event, "C", "0", [MODALITY, GATEWAY], [STUDY, PATIENT]),
    ]
    assert [counts(each) for each in messages(tmp_path / "audit" / "pacs")] == [{MG: 2}, {MG: 1}, {MG: 1}]
    [participant, _] = messages(tmp_path / "audit" / "pacs")[0].iter("ActiveParticipant")
    assert participant.get("AlternativeUserID") == "AETITLES=MAMMO_1"


def test_what_was_stored_before_the_peer_was_lost_is_told_too(archive: Archive, tmp_path: Path) -> None:
    with served(archive, tmp_path / "audit") as port:
        association = modality(MG).associate(HERE, port, ae_title="SCREENING_PACS")
        association.send_c_store(image(1))
        association.abort()
    assert [counts(each) for each in messages(tmp_path / "audit" / "pacs")] == [{MG: 1}]


def test_what_was_stored_is_told_while_the_association_is_still_open(archive: Archive, tmp_path: Path) -> None:
    """As of a machine that keeps its association between two exams: a process that is killed has told of the first."""
    with served(archive, tmp_path / "audit", report_seconds=0.1) as port:
        association = modality(MG).associate(HERE, port, ae_title="SCREENING_PACS")
        association.send_c_store(image(1))
        wait_until(lambda: len(found(tmp_path / "audit")) == 1)
        association.send_c_store(image(2))
        association.send_c_store(image(3, **OTHER))
        wait_until(lambda: len(found(tmp_path / "audit")) == 3)
        assert association.is_established
        association.release()
    assert [counts(each) for each in messages(tmp_path / "audit" / "pacs")] == [{MG: 1}, {MG: 1}, {MG: 1}]


def wanted(**keys: str) -> Dataset:
    ds = Dataset()
    ds.QueryRetrieveLevel = "STUDY"
    for keyword, value in keys.items():
        setattr(ds, keyword, value)
    return ds


def test_a_query_is_kept_as_it_was_asked(archive: Archive, tmp_path: Path) -> None:
    with served(archive, tmp_path / "audit") as port:
        association = modality(FIND).associate(HERE, port, ae_title="SCREENING_PACS")
        list(association.send_c_find(wanted(PatientID=PATIENT), FIND))
        association.release()
    [message] = messages(tmp_path / "audit" / "pacs")
    assert told(message) == ("Query", "E", "0", [MODALITY, GATEWAY], [FIND])
    assert decode(query(message), ExplicitVRLittleEndian).PatientID == PATIENT


def test_what_is_moved_is_told_when_it_begins_and_when_it_is_over(archive: Archive, tmp_path: Path) -> None:
    for each in (image(1), image(2)):
        send(archive, each)
    archive.instance("2.25.2").path.unlink()
    destination = AE(ae_title="READER")
    destination.supported_contexts = StoragePresentationContexts
    server = destination.start_server((HERE, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0)])
    with served(archive, tmp_path / "audit", Peer("READER", HERE, server.server_address[1])) as port:
        association = modality(MOVE).associate(HERE, port, ae_title="SCREENING_PACS")
        statuses = [s.Status for s, _ in association.send_c_move(wanted(StudyInstanceUID=STUDY), "READER", MOVE)]
        association.release()
    server.shutdown()
    assert statuses[-1] == 0xB000
    who = [GATEWAY, "READER@", MODALITY]
    assert found(tmp_path / "audit") == [
        ("Begin Transferring DICOM Instances", "E", "0", who, [STUDY, PATIENT]),
        ("DICOM Instances Transferred", "R", "4", who, [STUDY, PATIENT]),
    ]
    assert counts(messages(tmp_path / "audit" / "pacs")[-1]) == {MG: 1}


def test_what_is_got_goes_to_who_asked(archive: Archive, tmp_path: Path) -> None:
    send(archive, image(1))
    entity = modality(GET, MG)
    with served(archive, tmp_path / "audit") as port:
        association = entity.associate(
            HERE,
            port,
            ae_title="SCREENING_PACS",
            ext_neg=[build_role(MG, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, lambda _event: 0)],
        )
        list(association.send_c_get(wanted(StudyInstanceUID=STUDY), GET))
        association.release()
    assert [each[0:4] for each in found(tmp_path / "audit")] == [
        ("Begin Transferring DICOM Instances", "E", "0", [GATEWAY, MODALITY]),
        ("DICOM Instances Transferred", "R", "0", [GATEWAY, MODALITY]),
    ]


def test_what_is_asked_to_be_kept_is_looked_at(archive: Archive, tmp_path: Path) -> None:
    send(archive, image(1))
    send(archive, image(2))
    with served(archive, tmp_path / "audit") as port:
        association = modality(StorageCommitmentPushModel).associate(HERE, port, ae_title="SCREENING_PACS")
        status, _ = association.send_n_action(question(1, 2, 7), 1, StorageCommitmentPushModel, SOP_INSTANCE)
        association.release()
    assert status.Status == 0x0000
    assert found(tmp_path / "audit") == [("DICOM Instances Accessed", "R", "0", [MODALITY, GATEWAY], [STUDY, PATIENT])]


def test_what_waits_is_bounded_by_what_it_takes_and_not_by_its_number(archive: Archive, tmp_path: Path) -> None:
    """A commitment of 1,000 objects is 1,000 UIDs that wait, 130 kB: more than there is room for."""
    (tmp_path / "audit").write_text("in the way")
    with served(archive, tmp_path / "audit", most_bytes=100_000) as port:
        association = modality(StorageCommitmentPushModel).associate(HERE, port, ae_title="SCREENING_PACS")
        for _ in range(5):
            asked = question(*range(1, 1001))
            association.send_n_action(asked, 1, StorageCommitmentPushModel, SOP_INSTANCE)
        association.release()
        (tmp_path / "audit").unlink()
    gaps = [detail(each, "Alert Description").split() for each in messages(tmp_path / "audit" / "pacs")]
    assert sum(int(count) for count, *_ in gaps) == 5


def test_a_handshake_that_fails_is_a_security_alert(archive: Archive, tmp_path: Path) -> None:
    with served(archive, tmp_path / "audit", tls=ServerTls.of(site(tmp_path))) as port:
        assert modality(MG).associate(HERE, port, ae_title="SCREENING_PACS").is_established is False
    [alert] = messages(tmp_path / "audit" / "pacs")
    assert told(alert) == ("Security Alert", "E", "4", [f"{HERE}@{HERE}", GATEWAY], [HERE])
    assert "TLS" in detail(alert, "Alert Description")


def test_a_trail_that_cannot_be_written_keeps_no_image_from_being_stored(archive: Archive, tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("in the way")
    with served(archive, tmp_path / "audit") as port:
        assert store(port, image(1)) == [0]
        association = modality(FIND).associate(HERE, port, ae_title="SCREENING_PACS")
        assert [s.Status for s, _ in association.send_c_find(wanted(PatientID=PATIENT), FIND)] == [0xFF00, 0]
        association.release()
    assert archive.instance("2.25.1").size_bytes > 0


def test_a_full_house_is_no_security_matter(archive: Archive, tmp_path: Path) -> None:
    with served(archive, tmp_path / "audit") as port:
        crowd = [modality(MG).associate(HERE, port, ae_title="SCREENING_PACS") for _ in range(17)]
        assert [each.is_established for each in crowd] == [True] * 16 + [False]
        for each in crowd:
            each.abort()
    assert [kind(each) for each in messages(tmp_path / "audit" / "pacs")] == []
