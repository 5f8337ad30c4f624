"""worklist.scp: modalities over real associations, pynetdicom and DCMTK being the modality."""

import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import tzset

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association as ClientAssociation
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepRetrieve,
    ModalityWorklistInformationFind,
)

from gateway.dataset.data_sets import encode
from gateway.dicom.application import Association, Request
from gateway.dicom.dimse import Command, CommandField
from gateway.dicom.listener import Listener
from gateway.dicom.negotiation import AcceptedContext
from gateway.errors import InvalidValue, MissingAttribute, Refusal
from tests.tools.raw_find import RawFinder, element
from tests.worklist.samples import NOW, begun, ended, item, query, scheduled
from worklist import Worklist
from worklist.scp import Scp
from worklist.visibility import VisibilityRule, VisibilityRules

MPPS, RETRIEVE, MWL = (
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepRetrieve,
    ModalityWorklistInformationFind,
)


@pytest.fixture
def port(worklist: Worklist) -> Iterator[int]:
    application = Scp(worklist, clock=lambda: NOW).application("SCREENING_MWL")
    with Listener(application, host="127.0.0.1", port=0) as listener:
        yield listener.port


@contextmanager
def associated(
    port: int, transfer_syntax: str = ExplicitVRLittleEndian, *, ae_title: str = "MAMMO1"
) -> Iterator[ClientAssociation]:
    ae = AE(ae_title=ae_title)
    for abstract_syntax in (MPPS, RETRIEVE, MWL):
        ae.add_requested_context(abstract_syntax, transfer_syntax)
    association = ae.associate("127.0.0.1", port, ae_title="SCREENING_MWL")
    assert association.is_established
    yield association
    if association.is_established:
        association.release()


def put(worklist: Worklist, *accession_numbers: str) -> None:
    for accession_number in accession_numbers:
        worklist.schedule(item(accession_number), action_id=accession_number, content_hash="h", now=NOW)


def asked(association: ClientAssociation, identifier: Dataset) -> tuple[list[int], list[Dataset]]:
    """Every status of a C-FIND, and the answers."""
    responses = list(association.send_c_find(identifier, MWL))
    return [status.Status for status, _ in responses], [answer for _, answer in responses if answer is not None]


@pytest.mark.parametrize("transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_modality_gets_its_worklist(worklist: Worklist, port: int, transfer_syntax: str) -> None:
    put(worklist, "ACC1", "ACC2")
    with associated(port, transfer_syntax) as association:
        statuses, answers = asked(association, query({"Modality": "MG"}, AccessionNumber="", PatientName="zzz*"))
        assert (statuses, answers) == ([0x0000], [])
        identifier = query(
            {"Modality": "MG", "ScheduledStationAETitle": ""}, AccessionNumber="", PatientName="smith^zoe"
        )
        statuses, answers = asked(association, identifier)
    assert statuses == [0xFF00, 0xFF00, 0x0000]
    assert [answer.AccessionNumber for answer in answers] == ["ACC1", "ACC2"]
    assert [str(answer.PatientName) for answer in answers] == ["SMITH^Zoë", "SMITH^Zoë"]
    assert [answer.ScheduledProcedureStepSequence[0].ScheduledStationAETitle for answer in answers] == ["MAMMO1"] * 2


def test_an_optional_key_that_is_not_matched_is_a_warning(worklist: Worklist, port: int) -> None:
    put(worklist, "ACC1")
    with associated(port) as association:
        statuses, _ = asked(association, query(AccessionNumber="", CurrentPatientLocation="WARD 7"))
    assert statuses == [0xFF01, 0x0000]


def test_a_query_that_makes_no_sense_is_refused_and_the_association_lives(worklist: Worklist, port: int) -> None:
    put(worklist, "ACC1")
    with associated(port) as association:
        [(status, _)] = association.send_c_find(query(StudyInstanceUID="1.2.?"), MWL)
        assert (status.Status, status.ErrorComment) == (
            0xA900,
            "StudyInstanceUID has to be a UID, or several separated by bac...",
        )
        statuses, _ = asked(association, query(AccessionNumber=""))
    assert statuses == [0xFF00, 0x0000]


@pytest.mark.parametrize("keys", [element(0x00100010, "PN", b"JONES^MARY")[:-5], b"\x01\x02\x03"])
def test_a_query_that_is_cut_off_is_not_taken_for_a_shorter_one(worklist: Worklist, port: int, keys: bytes) -> None:
    put(worklist, "ACC1")
    with RawFinder(port, ExplicitVRLittleEndian) as finder:
        end, answers = finder.find(keys)
        assert finder.count(element(0x00080050, "SH", b"")) == 1
    assert (end.status, end.error_comment, answers) == (0xC000, "The data set ends in the middle of an element.", [])


@pytest.fixture
def _in_london(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as environment:
        environment.setenv("TZ", "Europe/London")
        tzset()
        yield
    tzset()


@pytest.mark.usefixtures("_in_london")
@pytest.mark.parametrize(
    ("date", "time"),
    [("20260701", "093000"), ("20260329", "013000"), ("20261025", "013000")],
    ids=["in summer", "in the hour that is left out", "in the hour that comes twice"],
)
def test_an_appointment_is_answered_at_the_time_on_the_sites_clock(
    worklist: Worklist, port: int, *, date: str, time: str
) -> None:
    """An earlier gateway kept times in UTC, and its appointments were an hour off in summer."""
    made = item("ACC1", scheduled=scheduled(date, time))
    worklist.schedule(made, action_id="1", content_hash="h", now=NOW)
    start = {"ScheduledProcedureStepStartDate": date, "ScheduledProcedureStepStartTime": time}
    with associated(port) as association:
        _, [answer] = asked(association, query({**start, "Modality": ""}))
    assert {name: answer.ScheduledProcedureStepSequence[0][name].value for name in start} == start


def test_peers_are_answered_as_is_set_for_them(worklist: Worklist) -> None:
    put(worklist, "ACC1", "ACC2", "ACC3")
    book = VisibilityRules(
        VisibilityRule(), {"MAMMO1": VisibilityRule(limit=2), "MAMMO2": VisibilityRule(station="strict")}
    )
    application = Scp(worklist, visibility=book, clock=lambda: NOW).application("SCREENING_MWL")
    with Listener(application, host="127.0.0.1", port=0) as listener:
        got = {}
        for title in ("MAMMO1", "MAMMO2", "MAMMO3"):
            with associated(listener.port, ae_title=title) as association:
                got[title] = [
                    (status.Status, status.get("ErrorComment"))
                    for status, _ in association.send_c_find(query(AccessionNumber=""), MWL)
                ]
    assert got == {
        "MAMMO1": [(0xFF00, None)] * 2 + [(0xA700, "More than 2 items match; ask for a day, a name or an id.")],
        "MAMMO2": [(0x0000, None)],
        "MAMMO3": [(0xFF00, None)] * 3 + [(0x0000, None)],
    }


def test_a_step_is_begun_changed_completed_and_read_back(worklist: Worklist, port: int) -> None:
    put(worklist, "ACC1")
    progress = Dataset()
    progress.PerformedProcedureStepDescription = "two of four views"
    with associated(port) as association:
        statuses = [
            association.send_n_create(begun(), MPPS, "1.2.3")[0].Status,
            association.send_n_set(progress, MPPS, "1.2.3")[0].Status,
            association.send_n_set(ended(), MPPS, "1.2.3")[0].Status,
        ]
        got, step = association.send_n_get([Tag(0x00400252), Tag(0x00400254)], RETRIEVE, "1.2.3")
        whole, everything = association.send_n_get([], RETRIEVE, "1.2.3")
    assert statuses == [0x0000, 0x0000, 0x0000]
    assert step is not None and everything is not None
    assert worklist.item("ACC1").state == "completed"
    assert (got.Status, step.to_json_dict()) == (
        0x0000,
        {
            "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
            "00400252": {"vr": "CS", "Value": ["COMPLETED"]},
            "00400254": {"vr": "LO", "Value": ["two of four views"]},
        },
    )
    assert (whole.Status, str(everything.PatientName)) == (0x0000, "SMITH^Zoë")


def test_reading_what_a_step_has_not_is_a_warning_that_names_it(worklist: Worklist, port: int) -> None:
    worklist.begin("1.2.3", begun(), now=NOW)
    with associated(port) as association:
        status, step = association.send_n_get([Tag(0x00081030), Tag(0x00400252)], RETRIEVE, "1.2.3")
    assert (status.Status, status.AttributeIdentifierList) == (0x0001, Tag(0x00081030))
    assert step is not None
    assert [element.keyword for element in step] == ["SpecificCharacterSet", "PerformedProcedureStepStatus"]


def test_an_attribute_that_may_not_be_set_is_named_by_its_tag(worklist: Worklist, port: int) -> None:
    worklist.begin("1.2.3", begun(), now=NOW)
    named = ended()
    named.PatientName = "JONES"
    with associated(port) as association:
        status, _ = association.send_n_set(named, MPPS, "1.2.3")
    assert (status.Status, status.get("AttributeIdentifierList")) == (0x0105, Tag(0x00100010))


def test_refusals_carry_the_status_of_the_standard(port: int) -> None:
    another, without_id, named = begun("OTHER"), begun(), ended()
    del without_id.PerformedProcedureStepID
    named.PatientName = "JONES"
    finished = begun()
    finished.PerformedProcedureStepStatus = "COMPLETED"
    endless = ended()
    endless.PerformedProcedureStepEndTime = ""
    with associated(port) as association:
        assert association.send_n_create(begun(), MPPS, "1.2.3")[0].Status == 0x0000
        answers = {
            "the same again": association.send_n_create(begun(), MPPS, "1.2.3")[0],
            "another under its UID": association.send_n_create(another, MPPS, "1.2.3")[0],
            "completed from the start": association.send_n_create(finished, MPPS, "1.2.4")[0],
            "without Type 1": association.send_n_create(without_id, MPPS, "1.2.4")[0],
            "unknown": association.send_n_set(ended(), MPPS, "1.2.9")[0],
            "unknown to read": association.send_n_get([], RETRIEVE, "1.2.9")[0],
            "not allowed": association.send_n_set(named, MPPS, "1.2.3")[0],
            "without an end": association.send_n_set(endless, MPPS, "1.2.3")[0],
            "to the end": association.send_n_set(ended(), MPPS, "1.2.3")[0],
            "after the end": association.send_n_set(ended(), MPPS, "1.2.3")[0],
        }
    assert {what: status.Status for what, status in answers.items()} == {
        "the same again": 0x0000,
        "another under its UID": 0x0111,
        "completed from the start": 0x0106,
        "without Type 1": 0x0120,
        "unknown": 0x0112,
        "unknown to read": 0x0112,
        "not allowed": 0x0105,
        "without an end": 0x0121,
        "to the end": 0x0000,
        "after the end": 0x0110,
    }
    after = answers["after the end"]
    assert after.ErrorComment == "Performed Procedure Step Object may no longer be updated"


def test_an_operation_belongs_to_its_class(worklist: Worklist, port: int) -> None:
    worklist.begin("1.2.3", begun(), now=NOW)
    other_class = ended()
    other_class.SOPClassUID = MWL
    with associated(port) as association:
        statuses = {
            "read in the class that cannot": association.send_n_get([], MPPS, "1.2.3")[0].Status,
            "created in the class that only reads": association.send_n_create(begun(), RETRIEVE, "1.2.4")[0].Status,
            "set in the class that only reads": association.send_n_set(ended(), RETRIEVE, "1.2.3")[0].Status,
            "set by another class's name": association.send_n_set(ended(), MWL, "1.2.3", meta_uid=MPPS)[0].Status,
            "with another class inside": association.send_n_set(other_class, MPPS, "1.2.3")[0].Status,
            "read by the name it was created under": association.send_n_get([], MPPS, "1.2.3", meta_uid=RETRIEVE)[
                0
            ].Status,
        }
    assert statuses == {
        "read in the class that cannot": 0x0211,
        "created in the class that only reads": 0x0211,
        "set in the class that only reads": 0x0211,
        "set by another class's name": 0x0119,
        "with another class inside": 0x0119,
        "read by the name it was created under": 0x0000,
    }


def test_a_disk_that_cannot_be_written_is_no_resource_and_the_step_is_taken_when_it_can(
    worklist: Worklist, port: int
) -> None:
    with associated(port) as association:
        with sqlite3.connect(worklist.database_path) as other:
            pages = other.execute("PRAGMA page_count").fetchone()[0]
        with worklist.write() as conn:  # SQLite's own way to have no room
            conn.execute(f"PRAGMA max_page_count = {pages}")
        large = begun()
        large.CommentsOnThePerformedProcedureStep = "x" * 60_000
        full = association.send_n_create(large, MPPS, "1.2.3")[0]
        with worklist.write() as conn:
            conn.execute("PRAGMA max_page_count = 1000000")
        again = association.send_n_create(large, MPPS, "1.2.3")[0]
    assert (full.Status, again.Status) == (0x0213, 0x0000)


@pytest.mark.parametrize(
    ("uid", "refusal"), [(None, MissingAttribute), ("step", InvalidValue), ("1" * 65, InvalidValue)]
)
def test_a_step_has_a_uid(worklist: Worklist, uid: str | None, refusal: type[Refusal]) -> None:
    command = Command(command_field=CommandField.N_SET, message_id=1, requested_sop_instance_uid=uid)
    request = Request(
        association=Association("a", "MAMMO1", "SCREENING_MWL", "127.0.0.1"),
        context=AcceptedContext(1, MPPS, ExplicitVRLittleEndian),
        command=command,
        data_set=encode(ended(), ExplicitVRLittleEndian),
        is_cancelled=lambda: False,
    )
    with pytest.raises(refusal):
        Scp(worklist).handle_set(request)


def test_the_error_id_of_a_final_step_is_on_the_wire(worklist: Worklist, port: int) -> None:
    worklist.begin("1.2.3", begun(), now=NOW)
    worklist.change("1.2.3", ended(), now=NOW)
    with associated(port) as association:
        status, _ = association.send_n_set(ended(), MPPS, "1.2.3")
    assert (status.Status, status.ErrorID) == (0x0110, 0xA710)


def test_echoscu_is_answered(port: int) -> None:
    done = _dcmtk("echoscu", "-aet", "MAMMO1", "-aec", "SCREENING_MWL", "127.0.0.1", str(port))
    assert done.returncode == 0, done.stderr


def test_findscu_gets_its_worklist(worklist: Worklist, port: int, tmp_path: Path) -> None:
    put(worklist, "ACC1")
    done = _dcmtk(
        "findscu", "-W", "-X", "-od", str(tmp_path), "-aet", "MAMMO1", "-aec", "SCREENING_MWL", "127.0.0.1", str(port),
        "-k", "AccessionNumber", "-k", "PatientName=SMITH*", "-k", "StudyInstanceUID",
        "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate=20261122-20261123",
        "-k", "ScheduledProcedureStepSequence[0].ScheduledStationAETitle=MAMMO1",
        "-k", "ScheduledProcedureStepSequence[0].Modality=MG",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [file] = tmp_path.glob("rsp*.dcm")
    answer = dcmread(file, force=True)
    assert (answer.AccessionNumber, str(answer.PatientName)) == ("ACC1", "SMITH^Zoë")
    assert answer.StudyInstanceUID == worklist.item("ACC1").study_instance_uid
    assert answer.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "MAMMO1"


def test_findscu_with_an_empty_step_sequence_is_answered(worklist: Worklist, port: int, tmp_path: Path) -> None:
    put(worklist, "ACC1")
    done = _dcmtk(
        "findscu", "-W", "-X", "-od", str(tmp_path), "-aet", "MAMMO1", "-aec", "SCREENING_MWL", "127.0.0.1", str(port),
        "-k", "AccessionNumber", "-k", "ScheduledProcedureStepSequence",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("rsp*.dcm"))) == 1


def _dcmtk(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(command) is None:
        pytest.skip(f"DCMTK's {command} is not installed")
    return subprocess.run([command, *arguments], capture_output=True, text=True, timeout=30, check=False)
