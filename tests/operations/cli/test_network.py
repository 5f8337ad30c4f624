"""echo, send and find as commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from structlog.testing import capture_logs

from gateway.dicom.listener import Listener
from pacs import Archive
from pacs.commitment.reporter import Reporter
from pacs.scp import application
from simulator.site import free_port
from tests.pacs.archive.test_archive import archive, image, send
from tests.tools import corpus
from tests.tools.command_line import facts, run
from tests.tools.dcmtk import running, with_dcmtk

__all__ = ["archive"]

J2K = "1.2.840.10008.1.2.4.90"


@pytest.fixture
def pacs(archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Our own archive as the other side, known to the commands as HERE."""
    served = application(archive, Reporter(archive, ()), ae_title="HERE")
    with Listener(served, host="127.0.0.1", port=0) as listener, capture_logs():
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PACS_PEERS", f"HERE=127.0.0.1:{listener.port}")
        yield "HERE"


def test_echo_says_who_answers(pacs: str) -> None:
    code, output = run("echo", pacs)
    assert (code, output.split(",")[0].split(" at ")[0]) == (0, "HERE")


def test_echo_says_what_is_wrong(pacs: str) -> None:
    port = free_port()
    assert run("echo", f"THERE@127.0.0.1:{port}") == (
        1, f"THERE at 127.0.0.1:{port} cannot be reached: Connection refused."
    )  # fmt: skip
    assert run("echo", "NOBODY")[0] == 2


def test_files_and_folders_are_sent_and_found(pacs: str, archive: Archive, tmp_path: Path) -> None:
    folder = tmp_path / "exam" / "inner"
    folder.mkdir(parents=True)
    corpus.write(folder / "1.dcm", image(1))
    corpus.write(tmp_path / "exam" / "2.dcm", image(2, transfer_syntax_uid=J2K))
    assert facts("send", pacs, tmp_path / "exam") == [
        {"sop_instance_uid": "2.25.2", "outcome": "completed", "reason": ""},
        {"sop_instance_uid": "2.25.1", "outcome": "completed", "reason": ""},
    ]
    assert archive.instance("2.25.2").transfer_syntax_uid == J2K
    assert facts("find", pacs, "AccessionNumber=A1", "StudyTime") == [
        {
            "StudyDate": "20261122",
            "StudyTime": "101500",
            "AccessionNumber": "A1",
            "ModalitiesInStudy": "MG",
            "StudyInstanceUID": "2.25.1002",
            "NumberOfStudyRelatedInstances": "2",
        }
    ]
    assert facts("find", pacs, "AccessionNumber=A2") == []


def test_an_object_that_is_not_taken_is_said_and_the_exit_code_is_1(
    pacs: str, archive: Archive, tmp_path: Path
) -> None:
    send(archive, image(1))
    other = corpus.write(tmp_path / "other.dcm", image(1, PatientID="ANOTHER"))
    assert run("send", pacs, other)[1].startswith("2.25.1 failed The peer answered with status C111H.")
    assert run("send", pacs, other)[0] == 1


@with_dcmtk
def test_a_study_of_the_archive_is_sent_to_dcmtk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path / "data"))
    archive = Archive.open(tmp_path / "data" / "pacs.db", tmp_path / "data" / "instances")
    send(archive, image(1))
    archive.close()
    port, folder = free_port(), tmp_path / "taken"
    folder.mkdir()
    with running(port, "storescp", "-aet", "SITE_PACS", "-od", folder, str(port)):
        code, output = run("send", f"SITE_PACS@127.0.0.1:{port}", "--study", "2.25.1002")
    assert (code, output) == (0, "2.25.1 completed\n")
    [taken] = folder.iterdir()
    assert comparable(dcmread(taken)) == comparable(image(1))


def comparable(data_set: Dataset) -> dict[str, str]:
    return {element.keyword: str(element.value) for element in data_set}
