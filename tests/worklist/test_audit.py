"""What the worklist tells the audit trail, over real associations."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE

from gateway.audit.recorder import AuditRecorder
from gateway.dataset.data_sets import decode
from gateway.dicom.listener import Listener
from gateway.remote_ae import Caller
from tests.tools.audit_trail import detail, messages, query, told
from tests.worklist.samples import NOW, STUDY, begun, ended, item
from tests.worklist.samples import query as identifier
from tests.worklist.test_scp import MPPS, MWL, RETRIEVE, associated
from worklist import Worklist
from worklist.audit import ModalityAudit
from worklist.scp import Scp

HERE = "127.0.0.1"


@contextmanager
def served(worklist: Worklist, audit: Path, *callers: Caller) -> Iterator[int]:
    with AuditRecorder(audit, "worklist", site="van-1") as recorder:
        application = Scp(worklist, clock=lambda: NOW, audit=ModalityAudit(recorder, worklist)).application(
            "SCREENING_MWL"
        )
        with Listener(application, host=HERE, port=0, callers=callers) as listener:
            yield listener.port


def test_a_query_is_kept_as_it_was_asked_and_once_in_ten_minutes(worklist: Worklist, tmp_path: Path) -> None:
    asked = identifier({"ScheduledProcedureStepStartDate": "20261122"}, PatientName="SMITH*")
    with served(worklist, tmp_path / "audit") as port, associated(port) as association:
        for _ in range(5):
            list(association.send_c_find(asked, MWL))
        list(association.send_c_find(identifier(PatientID="9990001112"), MWL))
    first, second = messages(tmp_path / "audit" / "worklist")
    assert told(first) == ("Query", "E", "0", [f"MAMMO1@{HERE}", "screening-gateway@"], [MWL])
    assert detail(first, "TransferSyntax") == ExplicitVRLittleEndian
    assert decode(query(first), ExplicitVRLittleEndian) == asked
    assert decode(query(second), ExplicitVRLittleEndian).PatientID == "9990001112"


def test_a_step_is_a_procedure_record_with_its_patient_and_study(worklist: Worklist, tmp_path: Path) -> None:
    worklist.schedule(item("ACC1"), action_id="a", content_hash="h", now=NOW)
    with served(worklist, tmp_path / "audit") as port, associated(port) as association:
        association.send_n_create(begun(), MPPS, "1.1")
        association.send_n_get([], MPPS, "1.1", meta_uid=RETRIEVE)
        association.send_n_set(ended(), MPPS, "1.1")
        association.send_n_set(ended(), MPPS, "9.9")
    found = [told(each) for each in messages(tmp_path / "audit" / "worklist")]
    objects = [STUDY, str(begun().PatientID)] if begun().get("PatientID") else [STUDY]
    assert found == [("Procedure Record", action, "0", [f"MAMMO1@{HERE}"], objects) for action in "CRU"]
    assert [each.get("UID") for each in messages(tmp_path / "audit" / "worklist")[0].iter("MPPS")] == ["1.1"]


def test_who_may_not_call_is_a_security_alert(worklist: Worklist, tmp_path: Path) -> None:
    with served(worklist, tmp_path / "audit", Caller("MAMMO1")) as port:
        entity = AE(ae_title="STRANGER")
        entity.add_requested_context(MWL)
        assert entity.associate(HERE, port, ae_title="SCREENING_MWL").is_rejected
    [alert] = messages(tmp_path / "audit" / "worklist")
    assert told(alert) == ("Security Alert", "E", "4", [f"STRANGER@{HERE}", "screening-gateway@"], [HERE])
    assert detail(alert, "Alert Description").startswith("'STRANGER' is not in GATEWAY_CALLING_AETS")


def test_a_trail_that_cannot_be_written_keeps_no_worklist_from_being_answered(
    worklist: Worklist, tmp_path: Path
) -> None:
    (tmp_path / "audit").write_text("in the way")
    worklist.schedule(item("ACC1"), action_id="a", content_hash="h", now=NOW)
    with served(worklist, tmp_path / "audit") as port, associated(port) as association:
        statuses = [status.Status for status, _ in association.send_c_find(identifier(AccessionNumber="ACC1"), MWL)]
        status, _ = association.send_n_create(begun(), MPPS, "1.1")
    assert (statuses, status.Status) == ([0xFF00, 0x0000], 0x0000)
