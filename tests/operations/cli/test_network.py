"""Calling other DICOM applications: associations of our own, and the operator's echo, send and find."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pynetdicom.pdu import A_ASSOCIATE_RQ
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.dicom import negotiation
from gateway.dicom.listener import Listener
from gateway.dicom.negotiation import AcceptedContext, ProposedContext, Supported
from gateway.dicom.pdu import AssociationState, Fragment, Reader, pack_abort, pack_stream
from gateway.dicom.requestor import calling, verification
from gateway.errors import PeerError, ProtocolError
from gateway.remote_ae import Peer
from operations.cli import app
from operations.dicom_peers import NotAQuery, NotSendable, files, query
from pacs import Archive
from pacs.commitment.reporter import Reporter
from pacs.scp import application
from tests.pacs.archive.test_archive import archive, image, send
from tests.tools import corpus
from tests.tools.dcmtk import free_port, running, with_dcmtk

__all__ = ["archive"]

MG, EXPLICIT, J2K = str(image().SOPClassUID), "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"
PROPOSED = (ProposedContext(1, MG, (J2K,)), ProposedContext(3, "1.2.3", (EXPLICIT, J2K)))


# ---- what is written and read ---------------------------------------------------------------------------------------


def request() -> bytes:
    return negotiation.encode_request(
        PROPOSED, called_ae_title="SITE_PACS", calling_ae_title="SCREENING_PACS", max_length=131072
    )


def test_pynetdicom_reads_our_request_as_we_meant_it() -> None:
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(request())
    primitive = pdu.to_primitive()
    assert (primitive.called_ae_title, primitive.calling_ae_title) == ("SITE_PACS", "SCREENING_PACS")
    assert primitive.maximum_length_received == 131072
    contexts = primitive.presentation_context_definition_list
    assert [(c.context_id, c.abstract_syntax, tuple(c.transfer_syntax)) for c in contexts] == [
        (context.context_id, context.abstract_syntax, context.transfer_syntaxes) for context in PROPOSED
    ]


def test_our_own_answer_to_our_request_is_read() -> None:
    body = request()[6:]
    asked = negotiation.parse_request(body)
    _, items = negotiation.negotiate(asked, Supported({"1.2.3": (J2K,)}))
    answer = negotiation.encode_accept(asked, body, items, max_length=16384)
    accepted = (AcceptedContext(3, "1.2.3", J2K, peer_is_scp=True),)
    assert negotiation.parse_accept(answer[6:], PROPOSED) == (accepted, 16384)


def test_a_peer_that_accepts_what_was_not_proposed_breaks_the_protocol() -> None:
    body = request()[6:]
    asked = negotiation.parse_request(body)
    _, items = negotiation.negotiate(asked, Supported({"1.2.3": (J2K,)}))
    with pytest.raises(ProtocolError):
        negotiation.parse_accept(negotiation.encode_accept(asked, body, items, max_length=0)[6:], PROPOSED[:1])


@given(size=st.integers(0, 5000), max_length=st.sampled_from([0, 12, 13, 100, 1000, 16384]))
def test_a_data_set_of_any_length_arrives_in_pdus_of_the_peers_length(size: int, max_length: int) -> None:
    data = bytes(number % 251 for number in range(size))
    stream = b"".join(pack_stream(5, BytesIO(data), size, max_length=max_length))
    reader = Reader()
    reader.state = AssociationState.ESTABLISHED
    reader.space()[: len(stream)] = stream
    reader.received(len(stream))
    fragments = [(event.is_last, bytes(event.data)) for event in reader.events() if isinstance(event, Fragment)]
    assert b"".join(piece for _, piece in fragments) == data
    assert [is_last for is_last, _ in fragments] == [False] * (len(fragments) - 1) + [True]
    assert all(len(piece) + 6 <= max_length for _, piece in fragments) or not max_length


def test_a_data_set_larger_than_a_batch_is_whole_and_never_in_memory_at_once() -> None:
    size = 5_000_001
    batches = [len(pdus) for pdus in pack_stream(1, BytesIO(bytes(size)), size, max_length=16384)]
    assert sum(batches) == size + 12 * -(-size // 16378)
    assert max(batches) < 1_200_000


def test_a_file_that_ends_too_early_is_noticed() -> None:
    with pytest.raises(ProtocolError):
        list(pack_stream(1, BytesIO(bytes(10)), 11, max_length=0))


@pytest.mark.parametrize(
    ("text", "peer"),
    [("A=h:104", Peer("A", "h", 104)), (" SITE PACS = [::1]:11112", Peer("SITE PACS", "::1", 11112))],
)
def test_a_peer_is_read(text: str, peer: Peer) -> None:
    assert Peer.parse(text, "=") == peer


@pytest.mark.parametrize(
    "text", ["", "A", "A=h", "A=h:0", "A=h:x", "A=:104", "=h:104", "A" * 17 + "=h:104", "A=h:99999"]
)
def test_what_is_no_peer_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"AET=host:port|AE title"):
        Peer.parse(text, "=")


# ---- peers that are not well ----------------------------------------------------------------------------------------


@contextmanager
def saying(answer: bytes) -> Iterator[Peer]:
    """A peer that takes one connection, reads the request, says something and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Peer("ODD", "127.0.0.1", server.getsockname()[1])
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 400 Bad Request", "does not keep to the protocol"),
        (pack_abort(source=2, reason=0), "aborted the association"),
        (bytes.fromhex("03000000000400010107"), "rejected the association: that is not its AE title"),
        (bytes.fromhex("03000000000400010103"), "rejected the association: it does not know our AE title"),
        (b"\2\0\0\0\0\x44" + bytes(68), "none of what was proposed"),
    ],
)
def test_a_peer_that_is_not_well_is_described(answer: bytes, sentence: str) -> None:
    with (
        saying(answer) as peer,
        pytest.raises(PeerError, match=sentence),
        calling(peer, verification(), ae_title="US") as call,
    ):
        call.echo()


def test_a_peer_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = Peer("DEAF", "127.0.0.1", server.getsockname()[1])
        with (
            pytest.raises(PeerError, match="did not answer in time"),
            calling(peer, verification(), ae_title="US", answer_seconds=0.2),
        ):
            pass


# ---- the commands ---------------------------------------------------------------------------------------------------


@pytest.fixture
def pacs(archive: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Our own archive as the other side, known to the commands as HERE."""
    served = application(archive, Reporter(archive, ()), ae_title="HERE")
    with Listener(served, host="127.0.0.1", port=0) as listener, capture_logs():
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PACS_PEERS", f"HERE=127.0.0.1:{listener.port}")
        yield "HERE"


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    said = "" if result.exception is None or isinstance(result.exception, SystemExit) else str(result.exception)
    return result.exit_code, result.output + said


def facts(*arguments: str | Path) -> object:
    code, output = run(*arguments, "--json")
    assert code == 0, output
    return json.loads(output)


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


def test_a_file_that_is_no_dicom_is_not_sent_and_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotSendable, match=r"notes\.txt is not a DICOM file"):
        list(files([tmp_path]))


@pytest.mark.parametrize(("level", "keys"), [("PATIENT", []), ("STUDY", ["Colour=red"]), ("STUDY", ["=1"])])
def test_a_query_that_is_none_is_refused(level: str, keys: list[str]) -> None:
    with pytest.raises(NotAQuery):
        query(level, keys)


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
