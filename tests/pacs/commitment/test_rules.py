"""Storage commitment: the rules by themselves, and the archive with real requesters over real associations."""

import json
import select
import shutil
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel
from structlog.testing import capture_logs

from gateway.dataset.data_sets import encode
from gateway.dicom.dimse import Command, CommandReceived, Messages
from gateway.dicom.listener import Listener
from gateway.dicom.pdu import AssociationState, Fragment, Reader
from gateway.errors import DuplicateTransaction, Refusal
from gateway.remote_ae import Peer
from gateway.tls_reload import ServerTls
from pacs import Archive
from pacs.commitment.reporter import Reporter
from pacs.commitment.rows import CommitmentRows
from pacs.commitment.rules import CommitmentOutcome, Reference, Transaction, pause, report, requested
from pacs.scp import application
from simulator.modality import modality
from simulator.modality.modality import Modality, ModalityError, Sent
from simulator.site import Site, free_port
from tests.gateway.test_tls import site, trusting
from tests.pacs.archive.test_archive import NOW, archive, image, send
from tests.tools.dcmtk import running
from tests.tools.raw_peer import RawPeer
from tests.tools.waiting import wait_until

__all__ = ["archive"]

SOP_CLASS, SOP_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
MG = str(image().SOPClassUID)
CT = "1.2.840.10008.5.1.4.1.1.2"
TRANSACTION = "2.25.900"


def question(*numbers: int, transaction_uid: str = TRANSACTION, sop_class_uid: str = MG) -> Dataset:
    """The action information of an N-ACTION that asks about the instances 2.25.1, 2.25.2 and so on."""
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = [item(f"2.25.{number}", sop_class_uid) for number in numbers]
    return ds


def item(sop_instance_uid: str, sop_class_uid: str = MG) -> Dataset:
    ds = Dataset()
    ds.ReferencedSOPClassUID, ds.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
    return ds


# ---- the rules -------------------------------------------------------------------------------------------------------


def test_a_request_is_read() -> None:
    ds = question(1, 2)
    ds.ReferencedSOPSequence.append(item("2.25.1"))  # named twice, promised once
    assert requested(ds, requester="MAMMO", addressed="SCREENING_PACS") == Transaction(
        TRANSACTION, "MAMMO", "SCREENING_PACS", (Reference(MG, "2.25.1"), Reference(MG, "2.25.2"))
    )


def broken(change: Callable[[Dataset], None]) -> Dataset:
    ds = question(1)
    change(ds)
    return ds


BROKEN = {
    "no transaction": (lambda ds: ds.pop("TransactionUID"), 0x0120, 0x00081195),
    "an empty transaction": (lambda ds: setattr(ds, "TransactionUID", ""), 0x0121, 0x00081195),
    "a transaction that is no UID": (lambda ds: setattr(ds, "TransactionUID", "NOT A UID"), 0x0106, 0x00081195),
    "no references": (lambda ds: ds.pop("ReferencedSOPSequence"), 0x0120, 0x00081199),
    "empty references": (lambda ds: setattr(ds, "ReferencedSOPSequence", []), 0x0121, 0x00081199),
    "a reference without class": (
        lambda ds: ds.ReferencedSOPSequence[0].pop("ReferencedSOPClassUID"), 0x0120, 0x00081150,
    ),
    "an empty instance": (
        lambda ds: setattr(ds.ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", ""), 0x0121, 0x00081155,
    ),
    "two instances in one": (
        lambda ds: setattr(ds.ReferencedSOPSequence[0], "ReferencedSOPInstanceUID", ["1.2", "1.3"]), 0x0106, 0x00081155,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "status", "offending"), BROKEN.values(), ids=BROKEN)
def test_a_request_that_says_too_little_is_refused(
    change: Callable[[Dataset], None], status: int, offending: int
) -> None:
    with pytest.raises(Refusal) as refused:
        requested(broken(change), requester="MAMMO", addressed="SCREENING_PACS")
    assert (refused.value.dimse_status, refused.value.offending) == (status, (offending,))


uids = st.from_regex(r"2\.25\.[1-9][0-9]{0,20}", fullmatch=True)
outcomes_of = st.dictionaries(uids, st.sampled_from(list(CommitmentOutcome)), min_size=1, max_size=20)


@given(outcomes_of)
def test_a_report_names_every_instance_once_and_says_what_became_of_it(outcomes: dict[str, CommitmentOutcome]) -> None:
    transaction = Transaction(TRANSACTION, "MAMMO", "SCREENING_PACS", tuple(Reference(MG, uid) for uid in outcomes))
    told = report(transaction, list(outcomes.values()))
    assert (told.sop_class_uid, told.sop_instance_uid) == (SOP_CLASS, SOP_INSTANCE)
    assert told.event_type_id == (1 if set(outcomes.values()) == {CommitmentOutcome.COMMITTED} else 2)
    assert named(told.data_set) == {uid: int(outcome) for uid, outcome in outcomes.items()}
    assert (told.data_set.TransactionUID, told.data_set.RetrieveAETitle) == (TRANSACTION, "SCREENING_PACS")


def named(information: Dataset) -> dict[str, int]:
    """What a report says about each instance: 0, or its Failure Reason. Empty sequences are not to be sent."""
    sequences = [
        information[name].value for name in ("ReferencedSOPSequence", "FailedSOPSequence") if name in information
    ]
    assert all(sequences)
    return {str(each.ReferencedSOPInstanceUID): int(each.get("FailureReason", 0)) for ds in sequences for each in ds}


def test_pauses_double_up_to_an_hour() -> None:
    assert [pause(attempts).total_seconds() for attempts in (1, 2, 3, 9, 10, 5000)] == [10, 20, 40, 2560, 3600, 3600]


# ---- what is kept about a transaction --------------------------------------------------------------------------------


def asked(*numbers: int, requester: str = "MAMMO", transaction_uid: str = TRANSACTION) -> Transaction:
    return requested(question(*numbers, transaction_uid=transaction_uid), requester=requester, addressed="PACS")


def test_a_transaction_is_due_until_it_is_acknowledged(archive: Archive) -> None:
    rows = CommitmentRows(archive)
    rows.take(asked(1, 2), now=NOW)
    [row] = rows.due(now=NOW, limit=10)
    assert (row.transaction, row.outcomes, row.attempts) == (asked(1, 2), (), 0)
    rows.verified(row.id, [0x0000, 0x0112], now=NOW)
    assert [each.outcomes for each in rows.due(now=NOW, limit=10)] == [(0x0000, 0x0112)]
    rows.retry(row.id, reason="It does not answer.", due_at=NOW + timedelta(seconds=10))
    assert rows.due(now=NOW, limit=10) == []
    assert rows.facts() == {
        "commitments to report": 1,
        "oldest commitment to report": "2026-11-22T08:00:00.000Z",
        "it waits because": "It does not answer.",
    }
    [again] = rows.due(now=NOW + timedelta(seconds=10), limit=10)
    assert again.attempts == 1
    rows.acknowledged(row.id, now=NOW)
    assert rows.due(now=NOW + timedelta(days=1), limit=10) == []
    assert rows.facts()["commitments to report"] == 0


def test_a_clock_that_was_set_back_holds_no_report_up(archive: Archive) -> None:
    rows = CommitmentRows(archive)
    rows.take(asked(1), now=NOW)
    assert len(rows.due(now=NOW - timedelta(days=30), limit=10)) == 1


@pytest.mark.parametrize("other", [asked(1), asked(1, 3), asked(1, 2, requester="OTHER")])
def test_a_transaction_uid_is_good_for_one_request(archive: Archive, other: Transaction) -> None:
    rows = CommitmentRows(archive)
    assert [rows.take(asked(1, 2), now=NOW) for _ in range(2)] == [True, True]
    with pytest.raises(DuplicateTransaction):
        rows.take(other, now=NOW)
    assert len(rows.due(now=NOW, limit=10)) == 1


# ---- requesters ------------------------------------------------------------------------------------------------------


class Requester:
    """A machine that asks with pynetdicom, and takes reports on the association that asked and on new ones."""

    def __init__(self) -> None:
        self.answers = [0x0000]
        """The status of each report in turn; the last for all that follow."""
        self.heard: list[tuple[str, int, Dataset]] = []
        """Calling AE title, event type and information of each report that came."""
        self.port = 0
        self._handlers = [(evt.EVT_N_EVENT_REPORT, self._handle)]

    def _handle(self, event: evt.Event) -> tuple[int, None]:
        assoc = event.assoc
        caller = assoc.requestor.ae_title if assoc.is_acceptor else assoc.acceptor.ae_title
        self.heard.append((caller, event.event_type, event.event_information))
        return self.answers[min(len(self.heard), len(self.answers)) - 1], None

    @property
    def address(self) -> list[Peer]:
        """Known as soon as it listens."""
        return [Peer("MAMMO", "127.0.0.1", self.port)] if self.port else []

    def wait(self, count: int = 1) -> Dataset:
        """The information of the report that was waited for, after which no other comes."""
        wait_until(lambda: len(self.heard) >= count, f"report {count}")
        return self.heard[count - 1][2]

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[None]:
        ae = AE("MAMMO")
        ae.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)
        server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=self._handlers)
        self.port = server.socket.getsockname()[1]
        try:
            yield
        finally:
            server.shutdown()

    @contextmanager
    def association(self, port: int, tls: ssl.SSLContext | None = None) -> Iterator[Association]:
        ae = AE("MAMMO")
        ae.add_requested_context(StorageCommitmentPushModel)
        ae.add_requested_context(MG, ExplicitVRLittleEndian)
        assoc = ae.associate(
            "127.0.0.1",
            port,
            ae_title="SCREENING_PACS",
            evt_handlers=self._handlers,
            tls_args=None if tls is None else (tls, "localhost"),
        )
        assert assoc.is_established
        try:
            yield assoc
        finally:
            assoc.release()

    def ask(self, port: int, ds: Dataset) -> int:
        """Ask and release at once, so that the report needs an association of its own."""
        with self.association(port) as assoc:
            return action(assoc, ds)


def action(assoc: Association, ds: Dataset | None, *, action_type: int = 1, instance: str = SOP_INSTANCE) -> int:
    status, _ = assoc.send_n_action(ds, action_type, StorageCommitmentPushModel, instance)
    return int(status.Status)


@pytest.fixture
def requester() -> Requester:
    return Requester()


@contextmanager
def served(archive: Archive, *peers: Peer, tls: ServerTls | None = None) -> Iterator[int]:
    """The archive's port."""
    with (
        Reporter(archive, peers) as reporting,
        Listener(
            application(archive, reporting, ae_title="SCREENING_PACS"), host="127.0.0.1", port=0, tls=tls
        ) as listener,
    ):
        yield listener.port


def committed(archive: Archive) -> list[str]:
    with archive.read() as conn:
        rows = conn.execute(
            "SELECT sop_instance_uid FROM instance WHERE committed_at IS NOT NULL ORDER BY 1"
        ).fetchall()
    return [str(row[0]) for row in rows]


def test_the_association_that_asked_gets_the_report_when_it_is_still_open(
    archive: Archive, requester: Requester
) -> None:
    send(archive, image(1))
    send(archive, image(2))
    with served(archive, *requester.address) as port, requester.association(port) as assoc:
        assert action(assoc, question(1, 2)) == 0x0000
        assert named(requester.wait()) == {"2.25.1": 0, "2.25.2": 0}
        wait_until(lambda: committed(archive) == ["2.25.1", "2.25.2"], "the promise")
    assert [(caller, kind, ds.TransactionUID) for caller, kind, ds in requester.heard] == [
        ("SCREENING_PACS", 1, TRANSACTION)
    ]


def test_the_report_comes_within_the_tls_of_the_association_that_asked(
    archive: Archive, requester: Requester, tmp_path: Path
) -> None:
    tls = ServerTls.of(site(tmp_path))
    send(archive, image(1))
    with served(archive, tls=tls) as port, requester.association(port, trusting(tmp_path)) as assoc:
        assert action(assoc, question(1)) == 0x0000
        assert named(requester.wait()) == {"2.25.1": 0}
        assert assoc.send_c_store(image(2)).Status == 0x0000


def test_a_requester_that_has_released_is_called(archive: Archive, requester: Requester) -> None:
    send(archive, image(1))
    with requester.listening(), served(archive, *requester.address) as port:
        assert requester.ask(port, question(1)) == 0x0000
        assert named(requester.wait()) == {"2.25.1": 0}
        wait_until(lambda: committed(archive) == ["2.25.1"], "the promise")
    assert [(caller, kind) for caller, kind, _ in requester.heard] == [("SCREENING_PACS", 1)]


def test_what_cannot_be_promised_is_named_with_its_reason(archive: Archive, requester: Requester) -> None:
    for number in range(1, 7):
        send(archive, image(number))
    path = {number: archive.instance(f"2.25.{number}").path for number in range(1, 7)}
    path[3].unlink()
    flipped = bytearray(path[4].read_bytes())
    flipped[-1] ^= 1
    path[4].write_bytes(flipped)
    path[5].write_bytes(path[5].read_bytes()[:-2])
    path[6].unlink()
    path[6].mkdir()  # what is there cannot be read
    ds = question(1, 3, 4, 5, 6, 7)
    ds.ReferencedSOPSequence.append(item("2.25.2", CT))
    with requester.listening(), served(archive, *requester.address) as port:
        assert requester.ask(port, ds) == 0x0000
        assert named(requester.wait()) == {
            "2.25.1": 0x0000,
            "2.25.2": 0x0119,
            "2.25.3": 0x0112,
            "2.25.4": 0x0110,
            "2.25.5": 0x0110,
            "2.25.6": 0x0213,
            "2.25.7": 0x0112,
        }
        wait_until(lambda: committed(archive) == ["2.25.1"], "the promise")
    assert requester.heard[0][1] == 2


def test_a_machine_that_sends_a_damaged_image_again_is_promised_it(archive: Archive, requester: Requester) -> None:
    send(archive, image(1))
    stored = archive.instance("2.25.1").path
    stored.write_bytes(stored.read_bytes()[:-1] + b"!")
    with served(archive) as port, requester.association(port) as assoc:
        assert action(assoc, question(1)) == 0x0000
        assert named(requester.wait()) == {"2.25.1": 0x0110}
        send(archive, image(1))
        assert action(assoc, question(1, transaction_uid="2.25.901")) == 0x0000
        assert named(requester.wait(2)) == {"2.25.1": 0x0000}


REFUSED = {
    "another action": ({"action_type": 2}, 0x0123),
    "another instance": ({"instance": "1.2.840.10008.1.20.1.2"}, 0x0112),
}


@pytest.mark.parametrize(("arguments", "status"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_request_for_commitment_is_refused(
    archive: Archive, requester: Requester, arguments: dict[str, object], status: int
) -> None:
    with served(archive, *requester.address) as port, requester.association(port) as assoc:
        assert action(assoc, question(1), **arguments) == status  # type: ignore[arg-type]
        assert action(assoc, None) == 0x0120
    assert CommitmentRows(archive).facts()["commitments to report"] == 0


def test_an_action_of_another_class_is_refused(archive: Archive) -> None:
    with served(archive) as port, RawPeer(port, SOP_CLASS, str(ExplicitVRLittleEndian)) as peer:
        peer.send(n_action(1, sop_class_uid=MG), encode(question(1), str(ExplicitVRLittleEndian)))
        assert peer.response().status == 0x0119
    with served(archive) as port, RawPeer(port, MG, str(ExplicitVRLittleEndian)) as peer:
        peer.send(n_action(1), encode(question(1), str(ExplicitVRLittleEndian)))
        assert peer.response().status == 0x0119


def n_action(message_id: int, sop_class_uid: str = SOP_CLASS) -> Command:
    return Command(
        command_field=0x0130,
        message_id=message_id,
        command_data_set_type=1,
        requested_sop_class_uid=sop_class_uid,
        requested_sop_instance_uid=SOP_INSTANCE,
        action_type_id=1,
    )


def test_a_repeat_is_accepted_and_not_reported_twice_and_other_content_is_refused(
    archive: Archive, requester: Requester
) -> None:
    send(archive, image(1))
    with served(archive, *requester.address) as port, requester.association(port) as assoc:
        assert action(assoc, question(1)) == 0x0000
        requester.wait()
        wait_until(lambda: committed(archive) == ["2.25.1"], "the promise")
        assert action(assoc, question(1)) == 0x0000
        assert action(assoc, question(1, 2)) == 0x0131
        assert action(assoc, question(1, transaction_uid="2.25.901")) == 0x0000
        requester.wait(2)
    assert [ds.TransactionUID for _, _, ds in requester.heard] == [TRANSACTION, "2.25.901"]


def test_images_may_follow_on_the_association_that_waits_for_its_report(archive: Archive, requester: Requester) -> None:
    send(archive, image(1))
    with served(archive, *requester.address) as port, requester.association(port) as assoc:
        assert action(assoc, question(1)) == 0x0000
        assert [assoc.send_c_store(image(number)).Status for number in range(2, 12)] == [0] * 10
        assert named(requester.wait()) == {"2.25.1": 0}
        assert assoc.send_c_store(image(12)).Status == 0x0000
    assert archive.statistics()["instances"] == 12


def test_a_request_that_crosses_a_report_is_served_and_the_next_report_waits_for_the_answer(
    archive: Archive, requester: Requester
) -> None:
    syntax = str(ExplicitVRLittleEndian)
    second = question(1, transaction_uid="2.25.901")
    with served(archive, *requester.address) as port, RawPeer(port, SOP_CLASS, syntax) as peer:
        said = commands(peer)
        peer.send(n_action(1), encode(question(1), syntax))
        assert next(said).status == 0x0000
        first_report = next(said)
        peer.send(n_action(2), encode(second, syntax))
        assert next(said).status == 0x0000
        assert select.select([peer.connection], [], [], 0.5)[0] == []
        peer.send(acknowledgement(first_report))
        second_report = next(said)
        peer.send(acknowledgement(second_report))
        wait_until(lambda: not CommitmentRows(archive).facts()["commitments to report"], "both answers")
    assert [(each.command_field, each.event_type_id) for each in (first_report, second_report)] == [(0x0100, 2)] * 2
    assert first_report.message_id != second_report.message_id


def commands(peer: RawPeer) -> Iterator[Command]:
    """The command of each message that comes, when the message is complete."""
    reader, messages = Reader(), Messages()
    reader.state = AssociationState.ESTABLISHED
    command = None
    while True:
        for event in reader.events():
            assert isinstance(event, Fragment)
            received = messages.feed(event)
            command = received.command if isinstance(received, CommandReceived) else command
            if received is not None and messages.is_between_messages:
                assert command is not None
                yield command
        reader.received(peer.connection.recv_into(reader.space()))


def acknowledgement(command: Command) -> Command:
    return Command(
        command_field=0x8100,
        message_id_being_responded_to=command.message_id,
        affected_sop_class_uid=SOP_CLASS,
        affected_sop_instance_uid=SOP_INSTANCE,
        event_type_id=command.event_type_id,
        status=0,
    )


def test_a_report_that_was_not_confirmed_is_told_again_after_a_restart_until_it_is(
    archive: Archive, requester: Requester
) -> None:
    send(archive, image(1))
    requester.answers = [0x0110, 0x0110, 0x0000]
    rows = CommitmentRows(archive)
    with requester.listening():
        with served(archive, *requester.address) as port:
            requester.ask(port, question(1))
            requester.wait()
            wait_until(lambda: "0110H" in str(rows.facts()["it waits because"]), "the reason")
        assert committed(archive) == []
        for count in (2, 3):
            with served(archive, *requester.address):
                requester.wait(count)
        wait_until(lambda: committed(archive) == ["2.25.1"], "the promise")
        with served(archive, *requester.address):
            time.sleep(0.5)
    assert len(requester.heard) == 3
    assert len({str(ds) for _, _, ds in requester.heard}) == 1


def test_a_requester_without_address_is_kept_and_the_setting_named(archive: Archive, requester: Requester) -> None:
    send(archive, image(1))
    rows = CommitmentRows(archive)
    with capture_logs() as logs, served(archive, *requester.address) as port:
        assert requester.ask(port, question(1)) == 0x0000
        wait_until(lambda: bool(rows.facts()["it waits because"]), "the reason")
    sentence = "The address of MAMMO is not known: add MAMMO=host:port to PACS_PEERS."
    assert rows.facts()["it waits because"] == sentence
    assert [line["reason"] for line in logs if line["event"] == "commitment not reported"] == [sentence]
    with requester.listening(), served(archive, *requester.address):
        assert named(requester.wait()) == {"2.25.1": 0}


def test_a_requester_that_takes_nothing_holds_up_no_other(archive: Archive, requester: Requester) -> None:
    """One that only echoes, one that hangs up: both stay owed, and MAMMO, last in the alphabet, is told."""
    send(archive, image(1))
    rows = CommitmentRows(archive)
    for name in ("ECHOES", "HANGS_UP"):
        rows.take(asked(1, requester=name, transaction_uid=f"2.25.{len(name)}"), now=datetime.now(UTC))
    echoes = AE("ECHOES")
    echoes.add_supported_context("1.2.840.10008.1.1")
    server = echoes.start_server(("127.0.0.1", 0), block=False)
    with requester.listening(), socket.create_server(("127.0.0.1", 0)) as rude:
        threading.Thread(target=hang_up, args=(rude,), daemon=True).start()
        ports = {"ECHOES": server.socket, "HANGS_UP": rude}
        peers = [Peer(name, "127.0.0.1", each.getsockname()[1]) for name, each in ports.items()]
        peers.append(Peer("MAMMO", "127.0.0.1", requester.port))
        rows.take(asked(1), now=datetime.now(UTC))
        with capture_logs() as logs, Reporter(archive, peers):
            assert named(requester.wait()) == {"2.25.1": 0}
    server.shutdown()
    reasons = [line["reason"] for line in logs if line["event"] == "commitment not reported"]
    assert [name in reason for name, reason in zip(ports, reasons, strict=True)] == [True, True]
    assert rows.facts()["commitments to report"] == 2


def hang_up(server: socket.socket) -> None:
    server.accept()[0].close()


def test_the_simulated_machine_says_what_was_not_committed(archive: Archive) -> None:
    send(archive, image(1))
    images = [Sent("2.25.1002", "2.25.1001", MG, f"2.25.{number}", "R CC", 1, "") for number in (1, 2)]
    with served(archive) as port:
        peer = modality.Peer("SCREENING_PACS", "127.0.0.1", port)
        machine = Modality("MAMMO", worklist=peer, pacs=peer)
        machine.commit(images[:1])
        with pytest.raises(ModalityError, match=r"1 of 2 images were committed; not 2\.25\.2: 0112H\."):
            machine.commit(images)


# ---- whole processes -------------------------------------------------------------------------------------------------


def test_a_transaction_survives_a_kill_and_is_reported_by_the_next_process(
    tmp_path: Path, requester: Requester
) -> None:
    port = free_port()
    with Site(tmp_path, settings={"PACS_PEERS": f"MAMMO=127.0.0.1:{port}"}) as house:
        house.start("pacs")
        with requester.association(house.ports["pacs"]) as assoc:
            assert assoc.send_c_store(image(1)).Status == 0x0000
        assert requester.ask(house.ports["pacs"], question(1, 2)) == 0x0000
        house.kill("pacs")
        with requester.listening(port):
            house.start("pacs")
            assert named(requester.wait()) == {"2.25.1": 0, "2.25.2": 0x0112}


@pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed")
def test_orthanc_asks_and_is_told(archive: Archive, tmp_path: Path) -> None:
    dicom, http = free_port(), free_port()
    send(archive, image(1))
    with served(archive, Peer("ORTHANC", "127.0.0.1", dicom)) as port:
        settings = {
            "DicomPort": dicom, "HttpPort": http, "DicomAet": "ORTHANC", "AuthenticationEnabled": False,
            "StorageDirectory": str(tmp_path / "orthanc"), "Plugins": [],
            "DicomModalities": {"archive": ["SCREENING_PACS", "127.0.0.1", port]},
        }  # fmt: skip
        (tmp_path / "orthanc.json").write_text(json.dumps(settings))
        with running(dicom, "Orthanc", tmp_path / "orthanc.json"):
            asked_for = {"DicomInstances": [[MG, "2.25.1"], [MG, "2.25.2"]]}
            path = rest(http, "/modalities/archive/storage-commitment", asked_for)["Path"]
            wait_until(lambda: rest(http, str(path))["Status"] != "Pending", "Orthanc's report")
            told = rest(http, str(path))
        wait_until(lambda: committed(archive) == ["2.25.1"], "the promise")
    assert (told["Status"], told["RemoteAET"]) == ("Failure", "SCREENING_PACS")
    assert told["Success"] == [{"SOPClassUID": MG, "SOPInstanceUID": "2.25.1"}]
    [failed] = told["Failures"]  # type: ignore[misc]
    assert (failed["SOPInstanceUID"], failed["FailureReason"]) == ("2.25.2", 0x0112)


def rest(port: int, path: str, body: object = None) -> dict[str, object]:
    """Call Orthanc's own interface."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data=data, timeout=10) as answer:
        found: dict[str, object] = json.load(answer)
    return found
