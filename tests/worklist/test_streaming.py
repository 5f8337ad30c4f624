"""Thousands of answers: memory stays, nobody waits for a slow reader, and a cancelled query ends at once."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from gateway.dicom.dimse import parse_command
from gateway.dicom.listener import Listener
from gateway.query import conditions, matching
from simulator.site import free_port
from tests.tools.dcmtk import is_open, with_dcmtk
from tests.tools.raw_find import RawFinder, element, item
from tests.tools.waiting import PATIENCE_SECONDS, wait_until
from tests.worklist.crowd import A_DAY, FIRST_DAY, day, fill
from worklist import Worklist
from worklist.item_rows import FIND, KEYS, PAGE
from worklist.scp import Scp
from worklist.visibility import Visibility, VisibilityRule, first_day

MANY = 10_000
WHOLE_STEP = element(0x00400100, "SQ", b"")
EVERYTHING = b"".join(
    [
        element(0x00080005, "CS", b"ISO_IR 192"),
        element(0x00080050, "SH", b""),
        element(0x00100010, "PN", b""),
        element(0x00100020, "LO", b""),
        element(0x0020000D, "UI", b""),
        WHOLE_STEP,
    ]
)


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crowd")
    fill(folder / "worklist.db", MANY)
    return folder


@pytest.fixture
def port(crowd: Path) -> Iterator[int]:
    with closing(Worklist.open(crowd / "worklist.db")) as worklist:
        application = Scp(worklist).application("SCREENING_MWL")
        with Listener(application, host="127.0.0.1", port=0) as listener:
            yield listener.port


@contextmanager
def process(folder: Path) -> Iterator[tuple[int, int]]:
    """The real worklist process; its port and process id."""
    port = free_port()
    settings = {"GATEWAY_DATA_DIR": str(folder), "WORKLIST_PORT": str(port), "WORKLIST_HOST": "127.0.0.1"}
    settings["WORKLIST_KEEP_DAYS"] = "0"  # the crowd is of years ago
    running = subprocess.Popen(
        [sys.executable, "-m", "worklist"], env={**os.environ, **settings}, stdout=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: is_open(port) or running.poll() is not None, "the worklist")
        assert running.poll() is None, "the worklist has ended"
        yield port, running.pid
    finally:
        running.terminate()
        running.wait(PATIENCE_SECONDS)


def peak_mb(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_ten_thousand_answers_take_no_more_memory_than_three_thousand(crowd: Path) -> None:
    start = f"{FIRST_DAY:%Y%m%d}-{day(3000 // A_DAY - 1)}".encode()
    some = EVERYTHING.replace(WHOLE_STEP, element(0x00400100, "SQ", item(element(0x00400002, "DA", start))))
    with process(crowd) as (port, pid), RawFinder(port, ExplicitVRLittleEndian) as finder:
        assert finder.count(some) == 3000
        before = peak_mb(pid)
        assert [finder.count(EVERYTHING) for _ in range(3)] == [MANY] * 3
        assert peak_mb(pid) - before < 4


def test_a_reader_that_is_slow_holds_up_neither_writers_nor_the_emptying_of_their_log(port: int, crowd: Path) -> None:
    with RawFinder(port, ExplicitVRLittleEndian, receive_bytes=1 << 14) as finder:
        finder.ask(EVERYTHING)
        next(finder.messages())  # the others are stuck on their way
        with closing(sqlite3.connect(crowd / "worklist.db", isolation_level=None, timeout=PATIENCE_SECONDS)) as other:
            other.execute("UPDATE items SET updated_at = updated_at WHERE accession_number = 'A0000001'")
            [emptied] = other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert emptied == (0, 0, 0)


def test_every_item_is_answered_once_and_in_clinic_order(port: int) -> None:
    with RawFinder(port, ExplicitVRLittleEndian) as finder:
        _, answers = finder.find(element(0x00080050, "SH", b""))
    assert [data[-8:] for data in answers] == [f"A{number:07d}".encode() for number in range(MANY)]


def test_a_cancelled_query_ends_at_once(port: int) -> None:
    with RawFinder(port, ExplicitVRLittleEndian, receive_bytes=1 << 14) as finder:
        finder.ask(EVERYTHING, message_id=7)
        responses = finder.messages()
        with capture_logs() as lines:
            next(responses)
            finder.cancel(message_id=7)
            *answers, (end, _) = responses
        assert parse_command(end).status == 0xFE00
        assert len(answers) < MANY - 1
        assert lines[-1]["event"] == "worklist query broken off"
        assert finder.count(element(0x00080050, "SH", b"A0000001")) == 1


def test_pynetdicom_cancels(port: int) -> None:
    ae = AE(ae_title="MAMMO1")
    ae.add_requested_context(ModalityWorklistInformationFind, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="SCREENING_MWL")
    identifier = Dataset()
    identifier.AccessionNumber, identifier.ScheduledProcedureStepSequence = "", []
    responses = association.send_c_find(identifier, ModalityWorklistInformationFind, msg_id=7)
    statuses = [next(responses)[0].Status]
    association.send_c_cancel(7, association.accepted_contexts[0].context_id)
    statuses += [status.Status for status, _ in responses]
    association.release()
    assert statuses[-1] == 0xFE00
    assert set(statuses[:-1]) == {0xFF00}
    assert len(statuses) < MANY


@with_dcmtk
def test_findscu_cancels(port: int, tmp_path: Path) -> None:
    if shutil.which("findscu") is None:
        pytest.skip("DCMTK's findscu is not installed")
    done = subprocess.run(
        ["findscu", "-v", "-W", "--cancel", "3", "-aet", "MAMMO1", "-aec", "SCREENING_MWL", "127.0.0.1", str(port),
         "-k", "AccessionNumber", "-k", "PatientName", "-k", "ScheduledProcedureStepSequence"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-2000:]
    assert "Sending Cancel Request (MsgID 1, PresID 1)" in said, said[-2000:]
    assert "Received Final Find Response (Cancel" in said, said[-2000:]
    assert said.count("(Pending)") < MANY


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ({}, "items_by_state (state=?"),
        ({"AccessionNumber": "A0000001"}, "sqlite_autoindex_items_1 (accession_number=?)"),
        ({"PatientID": "0000000001"}, "items_by_participant (participant_id=?)"),
        ({"PatientName": "SMITH1^Zoe1"}, "items_by_name (patient_name>? AND patient_name<?)"),
        ({"PatientName": "smith1*"}, "items_by_name (patient_name>? AND patient_name<?)"),
        ({"StudyInstanceUID": "1.2"}, "items_by_study (study_instance_uid=?)"),
        ({"ScheduledProcedureStepSequence.ScheduledProcedureStepStartDate": "20200106",
          "ScheduledProcedureStepSequence.Modality": "MG",
          "ScheduledProcedureStepSequence.ScheduledStationAETitle": "MAMMO1"},
         "items_by_state (state=? AND date>? AND date<?)"),
        ({"ScheduledProcedureStepSequence.ScheduledProcedureStepStartDate": "20200106-",
          "ScheduledProcedureStepSequence.ScheduledProcedureStepStartTime": "0900-"}, "items_by_state (state=?"),
    ],
)  # fmt: skip
def test_what_modalities_ask_is_found_by_an_index(crowd: Path, values: dict[str, str], index: str) -> None:
    visibility = Visibility("MAMMO1", VisibilityRule(states=("scheduled",)))
    expression, parameters = conditions.where(visibility.conditions(matching.conditions_on(values, KEYS)))
    parameters |= {"station": "MAMMO1", "date": "", "time": "", "accession_number": ""}
    with closing(sqlite3.connect(crowd / "worklist.db")) as conn:
        rows = conn.execute(f"EXPLAIN QUERY PLAN {FIND.format(expression)}", {**parameters, "most": PAGE})
        plan = [str(row[3]) for row in rows]
    searches = [line for line in plan if "items" in line]
    assert len(searches) == 1 and searches[0].startswith(f"SEARCH items USING INDEX {index}"), plan


DATE, TIME = (f"ScheduledProcedureStepSequence.ScheduledProcedureStepStart{what}" for what in ("Date", "Time"))
MIDDLE, LAST = day(MANY // A_DAY // 2), day(MANY // A_DAY - 1)


@pytest.mark.parametrize(
    ("values", "period"),
    [
        ({DATE: MIDDLE}, (None, None)),
        ({DATE: LAST}, (None, None)),
        ({DATE: f"{LAST}-"}, (None, None)),
        ({DATE: f"{LAST}-", TIME: "0700-"}, (None, None)),
        ({}, ((LAST, "000000.000000"), None)),
    ],
)
def test_a_day_is_found_without_reading_the_days_before(
    crowd: Path, values: dict[str, str], period: tuple[tuple[str, str] | None, tuple[str, str] | None]
) -> None:
    wanted = Visibility("MAMMO1", period=period).conditions(matching.conditions_on(values, KEYS))
    expression, parameters = conditions.where(wanted)
    parameters |= {"station": "MAMMO1", "date": first_day(wanted), "time": "", "accession_number": ""}
    hundreds: list[int] = []
    with closing(sqlite3.connect(crowd / "worklist.db")) as conn:
        conn.set_progress_handler(lambda: hundreds.append(1), 100)  # at so many of SQLite's instructions
        found = conn.execute(FIND.format(expression), {**parameters, "most": PAGE}).fetchall()
    assert (len(found), len(hundreds) < 100) == (A_DAY, True), hundreds
