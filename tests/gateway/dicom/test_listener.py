"""The listener with real sockets: foreign clients, broken peers, refusals, limits, stopping."""

import os
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage, ModalityWorklistInformationFind, Verification
from structlog.testing import capture_logs

from gateway.dicom.application import Application, Incoming, ListenerLimits, Match, Request
from gateway.dicom.dimse import Command, pack_command
from gateway.dicom.listener import Listener
from gateway.dicom.pdu import pack_abort, pack_data
from gateway.errors import Conflict, InvalidQuery, OutOfResources
from gateway.remote_ae import Caller
from tests.gateway.dicom.test_dimse import STORE
from tests.gateway.dicom.test_negotiation import CT, EXPLICIT, GOOD, IMPLICIT, build_context, request_pdu
from tests.tools.dcmtk import with_dcmtk
from tests.tools.raw_peer import RawPeer
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

SYNTAXES = (EXPLICIT, IMPLICIT)
FAR_BELOW_ARTIM = ListenerLimits().artim_seconds / 2
"""Seconds. What ends sooner was not ended by the time that a listener has of itself."""


@dataclass
class Memory:
    """Takes objects into memory; can refuse at each step."""

    refuse_at: str = ""
    error: Exception = field(default_factory=lambda: OutOfResources("The disk is full."))
    kept: list[bytes] = field(default_factory=list)
    discarded: int = 0
    busy: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event | None = None

    def __call__(self, request: Request) -> Incoming:
        self._step("begin")
        return _Receipt(self)

    def _step(self, name: str) -> None:
        if self.refuse_at == name:
            raise self.error


class _Receipt:
    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.data = b""

    def write(self, data: memoryview) -> None:
        self.memory._step("write")
        self.data += data
        self.memory.busy.set()

    def finish(self) -> None:
        if self.memory.go_on is not None:
            self.memory.go_on.wait(PATIENCE_SECONDS)
        self.memory._step("finish")
        self.memory.kept.append(self.data)

    def discard(self) -> None:
        self.memory.discarded += 1


def find_many(count: int) -> Callable[[Request], Iterator[Match]]:
    def handle_find(request: Request) -> Iterator[Match]:
        asked = request.identifier()
        if asked.get("PatientID") == "nonsense":
            raise InvalidQuery("PatientID makes no sense.")
        for number in range(count):
            answer = Dataset()
            answer.PatientID = str(number)
            yield Match(answer)

    return handle_find


def asked(patient_id: str) -> Dataset:
    data_set = Dataset()
    data_set.PatientID = patient_id
    return data_set


@contextmanager
def listening(limits: ListenerLimits | None = None, **handlers: object) -> Iterator[Listener]:
    contexts = {CT: SYNTAXES, str(ModalityWorklistInformationFind): SYNTAXES}
    application = Application(ae_title="SCREENING_PACS", contexts=contexts, **handlers)  # type: ignore[arg-type]
    with Listener(application, host="127.0.0.1", port=0, limits=limits) as listener:
        yield listener


@contextmanager
def associated(
    listener: Listener, *classes: str, called: str = "SCREENING_PACS", max_pdu: int = 16382
) -> Iterator[object]:
    entity = AE(ae_title="TESTER")
    for name in classes or (CTImageStorage, ModalityWorklistInformationFind, Verification):
        entity.add_requested_context(name, list(SYNTAXES))
    association = entity.associate("127.0.0.1", listener.port, ae_title=called, max_pdu=max_pdu)
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def image(size: int = 1000) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    data_set.PixelData = bytes(size)
    data_set["PixelData"].VR = "OB"
    data_set.file_meta = Dataset()
    data_set.file_meta.TransferSyntaxUID = EXPLICIT
    return data_set


def raw_connection(listener: Listener, *, address: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", listener.port), source_address=(address, 0))
    connection.settimeout(PATIENCE_SECONDS)
    return connection


def everything(connection: socket.socket) -> bytes:
    received = b""
    while data := connection.recv(65536):
        received += data
    return received


@with_dcmtk
def test_dcmtk_gets_its_echo_answered() -> None:
    with listening() as listener:
        command = ["echoscu", "-v", "-aec", "SCREENING_PACS", "127.0.0.1", str(listener.port)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert "Received Echo Response (Success)" in done.stderr


def test_an_object_arrives_byte_for_byte_whatever_the_size_of_the_pdus() -> None:
    memory = Memory()
    with listening(handle_store=memory) as listener, associated(listener) as peer:
        for size in (0, 10, 300_000, 3_000_000):
            assert peer.send_c_store(image(size)).Status == 0x0000
    assert [len(data) - data.index(b"\xe0\x7f\x10\x00OB") - 12 for data in memory.kept] == [0, 10, 300_000, 3_000_000]


@pytest.mark.parametrize("step", ["begin", "write", "finish"])
def test_a_refused_object_gets_status_and_comment_and_the_association_goes_on(step: str) -> None:
    memory = Memory(refuse_at=step)
    with listening(handle_store=memory) as listener, associated(listener) as peer, capture_logs() as logs:
        status = peer.send_c_store(image(500_000))
        assert peer.send_c_echo().Status == 0x0000
    assert (status.Status, status.ErrorComment) == (0xA700, "The disk is full.")
    assert memory.discarded == (0 if step == "begin" else 1)
    refused = [line for line in logs if line["event"] == "request refused"]
    assert [(line["command"], line["status"], line["reason"]) for line in refused] == [
        ("C-STORE", "A700H", "The disk is full.")
    ]


def test_a_fault_of_ours_is_answered_and_its_text_is_not_logged() -> None:
    memory = Memory(refuse_at="finish", error=ValueError("Doe^Jane"))
    with listening(handle_store=memory) as listener, associated(listener) as peer, capture_logs() as logs:
        status = peer.send_c_store(image())
    assert status.Status == 0xC000
    failed = [line for line in logs if line["event"] == "request failed"]
    assert [line["error"] for line in failed] == ["ValueError"]
    assert failed[0]["place"].startswith("test_listener.py:")
    assert "Doe" not in str(logs)


def test_what_a_peer_gives_as_a_uid_is_logged_only_if_it_is_one() -> None:
    with listening() as listener, RawPeer(listener.port, CT, EXPLICIT) as peer, capture_logs() as logs:
        for uid in ("1.2.3", "Doe^Jane", "1" * 65):
            peer.send(Command(command_field=0x0110, message_id=1, requested_sop_instance_uid=uid))
            assert peer.response().status == 0x0211
    assert [line["sop_instance_uid"] for line in logs if "sop_instance_uid" in line] == [
        "1.2.3",
        "not a UID",
        "not a UID",
    ]


def test_an_n_service_that_is_not_served_is_an_unrecognized_operation() -> None:
    with listening() as listener, associated(listener) as peer:
        status, _ = peer.send_n_get([0x00100010], CTImageStorage, "1.2.3")
        stored = peer.send_c_store(image())
    assert (status.Status, stored.Status) == (0x0211, 0x0211)


def test_n_services_answer_with_the_data_set_of_their_handler() -> None:
    def handle_create(request: Request) -> Dataset:
        answer = Dataset()
        answer.PatientID = request.identifier().PatientID
        return answer

    def handle_set(request: Request) -> None:
        raise Conflict("It is final.")

    attributes = Dataset()
    attributes.PatientID = "SYN1"
    with listening(handle_create=handle_create, handle_set=handle_set) as listener, associated(listener) as peer:
        created, answer = peer.send_n_create(attributes, CTImageStorage, "1.2.3")
        changed, _ = peer.send_n_set(attributes, CTImageStorage, "1.2.3")
    assert (created.Status, answer.PatientID) == (0x0000, "SYN1")
    assert (changed.Status, changed.ErrorComment) == (0x0111, "It is final.")


def test_every_match_is_answered_and_a_query_with_nonsense_is_refused() -> None:
    query, nonsense = Dataset(), Dataset()
    query.PatientID, nonsense.PatientID = "", "nonsense"
    with listening(handle_find=find_many(300)) as listener, associated(listener, max_pdu=64) as peer:
        answers = list(peer.send_c_find(query, ModalityWorklistInformationFind))
        refused = list(peer.send_c_find(nonsense, ModalityWorklistInformationFind))
    assert [answer.PatientID for _, answer in answers[:-1]] == [str(number) for number in range(300)]
    assert {status.Status for status, _ in answers[:-1]} == {0xFF00}
    assert answers[-1][0].Status == 0x0000
    assert [(status.Status, status.get("ErrorComment")) for status, _ in refused] == [
        (0xA900, "PatientID makes no sense.")
    ]


@with_dcmtk
def test_a_query_that_dcmtk_cancels_ends_with_fe00_long_before_its_last_answer() -> None:
    with listening(handle_find=find_many(1_000_000)) as listener:
        command = ["findscu", "-v", "-W", "--cancel", "20", "-k", "PatientID", "-aec", "SCREENING_PACS"]
        command += ["127.0.0.1", str(listener.port)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "Received Final Find Response (Cancel: MatchingTerminatedDueToCancelRequest)" in done.stderr
    assert done.stderr.count("(Pending)") < 100_000


def test_who_calls_somebody_else_or_is_not_on_the_list_is_rejected_in_words() -> None:
    application = Application(ae_title="SCREENING_PACS", contexts={CT: SYNTAXES})
    callers = [Caller("OTHER")]
    with Listener(application, host="127.0.0.1", port=0, callers=callers) as listener, capture_logs() as logs:
        with associated(listener, called="ELSE") as peer:
            wrong = peer.acceptor.primitive
        with associated(listener) as peer:
            unknown = peer.acceptor.primitive
    assert [(a.result, a.result_source, a.diagnostic) for a in (wrong, unknown)] == [(1, 1, 7), (1, 1, 3)]
    reasons = [line["reason"] for line in logs if line["event"] == "association rejected"]
    assert reasons == [
        "The peer called 'ELSE', but this is 'SCREENING_PACS': set it on the modality.",
        "'TESTER' is not in GATEWAY_CALLING_AETS; add it if this modality may connect.",
    ]


def test_one_association_too_many_is_told_to_come_again() -> None:
    with listening(ListenerLimits(associations=2)) as listener, associated(listener), associated(listener):
        with associated(listener) as third:
            answer = third.acceptor.primitive
        assert (answer.result, answer.result_source, answer.diagnostic) == (2, 3, 2)


def test_connections_that_ask_for_no_association_take_nobody_elses() -> None:
    limits = ListenerLimits(associations=2, waiting_per_peer=4)
    with listening(limits) as listener, capture_logs() as logs:
        idle = [raw_connection(listener, address="127.0.0.2") for _ in range(6)]
        assert [everything(connection) for connection in idle[4:]] == [b"", b""]
        with associated(listener) as peer:
            assert peer.send_c_echo().Status == 0x0000
        for connection in idle:
            connection.close()
    assert [line["address"] for line in logs if line["event"] == "connection not accepted"] == ["127.0.0.2"] * 2


def test_an_association_that_ended_leaves_its_place_to_the_next() -> None:
    with listening(ListenerLimits(associations=1)) as listener:
        for _ in range(3):
            with associated(listener) as peer:
                assert peer.send_c_echo().Status == 0x0000
            wait_until(lambda: not listener._open)


def test_without_free_descriptors_or_threads_the_listener_waits_and_goes_on() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with listening() as listener, capture_logs() as logs:
        refused = socket.socket()
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (refused.fileno() + 16, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                while True:
                    taken.append(os.dup(refused.fileno()))
            refused.connect(("127.0.0.1", listener.port))
            wait_until(lambda: bool(logs))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in taken:
                os.close(descriptor)
        threading.stack_size(1 << 46)  # more than there are addresses: the next thread cannot be started
        try:
            second = raw_connection(listener)
            assert everything(second) == b""
        finally:
            threading.stack_size(0)
        with associated(listener) as peer:
            assert peer.send_c_echo().Status == 0x0000
        refused.close()
        second.close()
    reasons = [line["reason"] for line in logs if line["event"] == "connection not accepted"]
    assert "Too many open files" in reasons[0]
    assert reasons[-1] == "can't start new thread"
    assert len(reasons) < 10


def test_the_largest_pdu_we_take_is_stated() -> None:
    with listening() as listener, raw_connection(listener) as connection:
        connection.sendall(request_pdu([build_context(str(ModalityWorklistInformationFind), [IMPLICIT])]))
        head = connection.recv(6)
        assert head[0] == 2
        assert b"\x51\x00\x00\x04\x00\x02\x00\x00" in connection.recv(65536)  # maximum length 128 kB


GARBAGE = {
    "a web browser": b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "a TLS handshake": bytes.fromhex("16030100c8010000c40303") + bytes(189),
    "a huge request": b"\x01\x00\xff\xff\xff\xff" + bytes(100),
    "data without an association": b"\x04\x00\x00\x00\x00\x08" + bytes(8),
    "a broken request": b"\x01\x00" + struct.pack(">I", len(GOOD)) + GOOD[:68] + b"\xff" * (len(GOOD) - 68),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_aborted_and_others_are_served(garbage: bytes) -> None:
    with listening() as listener, associated(listener) as peer, raw_connection(listener) as connection:
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
        assert answer[:6] == b"\x07\x00\x00\x00\x00\x04"
        assert answer[8] == 2
        assert peer.send_c_echo().Status == 0x0000


def test_a_query_longer_than_the_limit_is_aborted_before_it_is_decoded_and_others_are_served() -> None:
    decoded: list[Request] = []

    def handle_find(request: Request) -> Iterator[Match]:
        decoded.append(request)
        return iter(())

    with (
        listening(ListenerLimits(data_set_bytes=1000), handle_find=handle_find) as listener,
        associated(listener) as other,
    ):
        with associated(listener) as peer, capture_logs() as logs:
            list(peer.send_c_find(asked("1" * 1000), ModalityWorklistInformationFind))
            wait_until(lambda: peer.is_aborted)
        assert list(other.send_c_find(asked("1" * 900), ModalityWorklistInformationFind))[-1][0].Status == 0x0000
    assert len(decoded) == 1
    assert [line["reason"] for line in logs] == ["A data set is longer than 1000 bytes."]


def test_a_message_in_a_context_that_was_not_accepted_is_aborted() -> None:
    echo = bytes.fromhex("00000000040000000400000000000001020000003000")
    with listening() as listener, raw_connection(listener) as connection:
        connection.sendall(request_pdu([build_context(CT, [EXPLICIT])]))
        connection.sendall(pack_data(99, echo, is_command=True, max_length=0))
        assert everything(connection).endswith(bytes.fromhex("07000000000400000206"))


STORE_PDU = pack_data(1, pack_command(STORE), is_command=True, max_length=0)

CUT_OFF = {
    "an abort": lambda connection: connection.sendall(pack_abort(source=0, reason=0)),
    "a release": lambda connection: connection.sendall(b"\x05\0\0\0\0\4\0\0\0\0"),
    "the end of the connection": lambda connection: connection.shutdown(socket.SHUT_WR),
    "another command": lambda connection: connection.sendall(STORE_PDU),
}


@pytest.mark.parametrize("cut", CUT_OFF.values(), ids=CUT_OFF)
def test_an_object_that_is_cut_off_is_discarded(cut: Callable[[socket.socket], None]) -> None:
    memory = Memory()
    with listening(handle_store=memory) as listener, raw_connection(listener) as connection:
        connection.sendall(request_pdu([build_context(CT, [EXPLICIT])]) + STORE_PDU)
        whole_pdus = pack_data(1, bytes(100_000), is_command=False, max_length=16384)[: 3 * (6 + 16384)]
        connection.sendall(whole_pdus)
        assert memory.busy.wait(PATIENCE_SECONDS)
        cut(connection)
        everything(connection)
        wait_until(lambda: memory.discarded == 1)
    assert memory.kept == []


def test_a_silent_connection_is_closed_after_the_artim_time() -> None:
    with listening(ListenerLimits(artim_seconds=0.2)) as listener:
        started = time.monotonic()
        with raw_connection(listener) as connection:
            assert everything(connection) == b""
        assert 0.15 < time.monotonic() - started < FAR_BELOW_ARTIM


def test_a_request_that_trickles_in_is_not_waited_for_longer_than_the_artim_time() -> None:
    with listening(ListenerLimits(artim_seconds=0.3)) as listener, raw_connection(listener) as connection:
        started = time.monotonic()
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            for byte in request_pdu([build_context(CT, [EXPLICIT])]):
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - started < FAR_BELOW_ARTIM


def test_a_late_cancel_of_another_query_does_not_hide_the_right_one() -> None:
    def handle_find(request: Request) -> Iterator[Match]:
        wait_until(request.is_cancelled)
        yield Match(asked("1"))

    with listening(handle_find=handle_find) as listener, associated(listener) as peer:
        answers = peer.send_c_find(asked(""), ModalityWorklistInformationFind, msg_id=7)
        for message_id in (6, 7):
            peer.send_c_cancel(message_id, query_model=ModalityWorklistInformationFind)
        assert [status.Status for status, _ in answers] == [0xFF00, 0xFE00]


def test_stopping_lets_a_query_being_answered_end() -> None:
    answering, go_on = threading.Event(), threading.Event()

    def handle_find(request: Request) -> Iterator[Match]:
        for number in range(3):
            yield Match(asked(str(number)))
            answering.set()
            go_on.wait(PATIENCE_SECONDS)

    with listening(handle_find=handle_find) as listener, associated(listener) as peer:
        statuses: list[int] = []
        asking = threading.Thread(
            target=lambda: statuses.extend(
                status.Status for status, _ in peer.send_c_find(asked(""), ModalityWorklistInformationFind)
            )
        )
        asking.start()
        assert answering.wait(PATIENCE_SECONDS)
        stopping = threading.Thread(target=listener.stop)
        stopping.start()
        wait_until(listener._stopping.is_set)
        time.sleep(0.1)
        go_on.set()
        asking.join()
        stopping.join()
    assert statuses == [0xFF00, 0xFF00, 0xFF00, 0x0000]


def test_the_busy_one_has_the_whole_grace_however_many_are_idle() -> None:
    memory = Memory(go_on=threading.Event())
    with listening(handle_store=memory) as listener, ExitStack() as idle, associated(listener) as sender:
        for _ in range(9):
            idle.enter_context(associated(listener))
        statuses: list[int] = []
        sending = threading.Thread(target=lambda: statuses.append(sender.send_c_store(image(100_000)).Status))
        sending.start()
        assert memory.busy.wait(PATIENCE_SECONDS)
        stopping = threading.Thread(target=lambda: listener.stop(grace_seconds=20))
        stopping.start()
        time.sleep(2.5)  # a tenth of twenty seconds is over
        assert memory.go_on is not None
        memory.go_on.set()
        sending.join()
        stopping.join()
    assert statuses == [0x0000]


def test_stopping_lets_the_object_under_way_end_and_aborts_the_idle() -> None:
    memory = Memory(go_on=threading.Event())
    with listening(handle_store=memory) as listener, associated(listener) as sender, associated(listener) as idle:
        statuses = []
        sending = threading.Thread(target=lambda: statuses.append(sender.send_c_store(image(100_000)).Status))
        sending.start()
        assert memory.busy.wait(PATIENCE_SECONDS)
        stopping = threading.Thread(target=listener.stop)
        stopping.start()
        wait_until(lambda: idle.is_aborted)
        assert not statuses
        assert memory.go_on is not None
        memory.go_on.set()
        sending.join()
        stopping.join()
    assert statuses == [0x0000]
    assert len(memory.kept) == 1


def test_a_listener_that_no_longer_accepts_says_so() -> None:
    with listening() as listener:
        listener.still_working()
    with pytest.raises(RuntimeError, match="has died"):
        listener.still_working()
