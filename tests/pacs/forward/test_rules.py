"""Forwarding to site archives: the rules by themselves, what is owed in the database, and real archives."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom import AE, AllStoragePresentationContexts, evt
from structlog.testing import capture_logs

from gateway.dicom.dimse import Command
from gateway.dicom.requestor import ANSWER_SECONDS, MOST_CONTEXTS, calling, proposals
from gateway.errors import Conflict, NotFound
from gateway.remote_ae import Peer
from pacs import Archive
from pacs.archive.maintenance_rows import MaintenanceRows
from pacs.forward.queue_rows import ForwardEntry, ForwardQueue, TargetQueue
from pacs.forward.rules import FIRST_PAUSE, LONGEST_PAUSE, MOST_KINDS, Fate, QueueRow, Settled, batch, judged, pause
from pacs.forward.sender import ForwardSender
from pacs.maintenance.retention import RetentionPolicy, candidates
from pacs.query_retrieve.retrieve import outgoing
from simulator.site import free_port
from tests.pacs.archive.test_archive import NOW, archive, image, send
from tests.pacs.archive.test_attributes import encoded
from tests.pacs.test_scp import data_set_bytes
from tests.tools import corpus
from tests.tools.archive_files import files_of
from tests.tools.dcmtk import is_open, running, with_dcmtk
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

__all__ = ["archive"]

MG, EXPLICIT, J2K = str(image().SOPClassUID), "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"
ROW = QueueRow(1, 1, "2.25.1", 0, is_damaged=False)


# ---- the rules ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        (0x0000, Fate.DELIVERED),
        (0xB000, Fate.DELIVERED),
        (0xB007, Fate.DELIVERED),
        (0xA900, Fate.PARKED),
        (0xA9FF, Fate.PARKED),
        (0xC000, Fate.PARKED),
        (0xCFFF, Fate.PARKED),
        (0x0111, Fate.PARKED),
        (0x0122, Fate.PARKED),
        (0xA700, Fate.NOT_NOW),
        (0xA7FF, Fate.NOT_NOW),
        (0x0110, Fate.NOT_NOW),
        (0x0124, Fate.NOT_NOW),
        (0xFE00, Fate.NOT_NOW),
        (None, Fate.NOT_NOW),
    ],
)
def test_only_what_can_never_succeed_is_parked(status: int | None, fate: Fate) -> None:
    said = "no status" if status is None else f"status {status:04X}H"
    how = "Taken" if fate is Fate.DELIVERED else "The object was answered"
    reason = f"{how} with {said}." if status != 0x0000 else ""
    assert judged(ROW, Command(command_field=0x8001, status=status)) == Settled(ROW, fate, reason)


@given(attempts=st.integers(1, 10**6), spread=st.floats(0, 1))
def test_pauses_grow_are_spread_and_never_end_the_trying(attempts: int, spread: float) -> None:
    assert FIRST_PAUSE / 2 <= pause(attempts, spread) <= LONGEST_PAUSE
    assert pause(attempts, 0) <= pause(attempts, spread) <= pause(attempts, 1) == 2 * pause(attempts, 0)
    assert pause(attempts, spread) <= pause(attempts + 1, spread)


@given(kinds=st.lists(st.integers(0, 60), max_size=150))
def test_a_batch_has_a_context_for_everything_it_holds(kinds: list[int]) -> None:
    class Kind:
        def __init__(self, number: int) -> None:
            self.sop_class_uid, self.transfer_syntax_uid = f"1.2.{number}", J2K

    ready = [(replace(ROW, id=position), Kind(number)) for position, number in enumerate(kinds)]
    taken = list(batch(ready))  # type: ignore[arg-type]
    assert taken == ready[: len(taken)]
    assert len(taken) == len(ready) or len(set(kinds[: len(taken) + 1])) == MOST_KINDS + 1
    contexts = proposals([(kind.sop_class_uid, kind.transfer_syntax_uid) for _, kind in taken])
    assert len(contexts) == 3 * len(set(kinds[: len(taken)])) <= MOST_CONTEXTS


# ---- what is owed ---------------------------------------------------------------------------------------------------


def owing(archive: Archive, *targets: str) -> ForwardQueue:
    queue = ForwardQueue(archive)
    queue.set_targets(targets, known=["SITE_PACS", "REGION"], now=NOW)
    return queue


def due(queue: ForwardQueue, target: str = "SITE_PACS", *, after: timedelta = timedelta(0)) -> list[str]:
    return [row.sop_instance_uid for row in queue.due(target, now=NOW + after, limit=100)]


def settle(queue: ForwardQueue, uid: str, fate: Fate, target: str = "SITE_PACS", *, reason: str = "") -> None:
    [row] = [each for each in queue.due(target, now=NOW, limit=100) if each.sop_instance_uid == uid]
    queue.settle(target, [Settled(row, fate, reason)], lambda attempts: timedelta(seconds=attempts), now=NOW)


def of(study: int, number: int, **attributes: object) -> Dataset:
    uids = {"StudyInstanceUID": f"2.25.{study}", "SeriesInstanceUID": f"2.25.{study}1"}
    return image(number, **{**uids, **attributes})


def test_what_is_stored_is_owed_to_each_target_once_and_nothing_else(archive: Archive) -> None:
    send(archive, image(1))
    queue = owing(archive, "SITE_PACS", "REGION")
    send(archive, image(2))
    send(archive, image(2))
    with pytest.raises(Conflict):
        send(archive, image(2, PatientID="ANOTHER"))
    assert (due(queue), due(queue, "REGION"), due(queue, "NOBODY")) == (["2.25.2"], ["2.25.2"], [])


def test_who_is_no_target_any_more_is_owed_what_came_before_and_nothing_new(archive: Archive) -> None:
    owing(archive, "SITE_PACS")
    send(archive, image(1))
    queue = owing(archive)
    send(archive, image(2))
    assert due(queue) == ["2.25.1"]
    assert queue.targets() == [TargetQueue("SITE_PACS", False, 1, 0, "2026-11-22T08:00:00.000Z", "")]
    queue.set_targets((), known=["REGION"], now=NOW)
    assert [each.reason for each in queue.targets()] == ["Its address is not in PACS_PEERS."]


def test_of_one_study_nothing_overtakes_and_studies_without_trouble_come_first(archive: Archive) -> None:
    queue = owing(archive, "SITE_PACS")
    for each in (of(100, 1), of(200, 2), of(100, 3), of(200, 4)):
        send(archive, each)
    settle(queue, "2.25.1", Fate.NOT_NOW)
    assert due(queue) == ["2.25.2", "2.25.4"]
    assert due(queue, after=timedelta(seconds=1)) == ["2.25.2", "2.25.4", "2.25.1", "2.25.3"]
    assert due(queue, after=timedelta(days=-1)) == ["2.25.2", "2.25.4", "2.25.1", "2.25.3"]  # the clock was set back


def test_what_is_parked_holds_nothing_up_and_is_sent_again_when_it_is_released(archive: Archive) -> None:
    queue = owing(archive, "SITE_PACS")
    for each in (of(100, 1), of(100, 2)):
        send(archive, each)
    settle(queue, "2.25.1", Fate.PARKED, reason="It is not understood.")
    assert due(queue) == ["2.25.2"]
    [parked] = queue.owed("parked")
    assert parked == ForwardEntry(
        1, "SITE_PACS", "2.25.1", "2.25.100", parked.owed_at, 1, parked.due_at, "It is not understood."
    )
    assert queue.release(id=1, now=NOW) == 1
    assert queue.release(id=1, now=NOW) == 0
    assert due(queue) == ["2.25.1", "2.25.2"]


def test_a_target_that_cannot_be_reached_is_left_alone_for_a_while_and_says_why(archive: Archive) -> None:
    queue = owing(archive, "SITE_PACS", "REGION")
    send(archive, image(1))
    for _ in range(2):
        queue.failed("SITE_PACS", "It is away.", lambda attempts: timedelta(minutes=attempts), now=NOW)
    assert (due(queue), due(queue, "REGION")) == ([], ["2.25.1"])
    assert due(queue, after=timedelta(seconds=119)) == []
    assert due(queue, after=timedelta(minutes=2)) == ["2.25.1"]
    assert [(each.target, each.reason) for each in queue.targets()] == [("REGION", ""), ("SITE_PACS", "It is away.")]


def test_a_study_is_owed_again_when_somebody_asks_and_its_order_stays(archive: Archive) -> None:
    queue = owing(archive, "SITE_PACS")
    for each in (of(100, 1), of(100, 2), of(200, 3)):
        send(archive, each)
    for uid in ("2.25.1", "2.25.2", "2.25.3"):
        settle(queue, uid, Fate.DELIVERED)
    assert due(queue) == []
    assert queue.ask("SITE_PACS", study_instance_uid="2.25.100", now=NOW) == 2
    assert queue.ask("WORKSTATION", sop_instance_uid="2.25.3", now=NOW) == 1
    assert (due(queue), due(queue, "WORKSTATION")) == (["2.25.1", "2.25.2"], ["2.25.3"])
    with pytest.raises(NotFound, match=r"Nothing is stored under study_instance_uid 2\.25\.7\."):
        queue.ask("SITE_PACS", study_instance_uid="2.25.7", now=NOW)


def test_a_study_stays_until_each_target_has_it_or_nobody_owes_it_any_more(archive: Archive) -> None:
    queue = owing(archive, "SITE_PACS", "REGION")
    send(archive, of(100, 1))
    for entry in archive.outbox.entries("open"):
        archive.outbox.delivered(entry, now=NOW)

    def kept_because() -> tuple[str, ...]:
        [outcome] = candidates(archive, RetentionPolicy(days=1), now=NOW + timedelta(days=2))
        return outcome.kept_because

    assert kept_because() == ("a site archive has not confirmed all of it",)
    settle(queue, "2.25.1", Fate.DELIVERED)
    settle(queue, "2.25.1", Fate.PARKED, "REGION")
    assert kept_because() == ("a site archive has not confirmed all of it",)
    assert queue.cancel(target="REGION") == 1
    assert kept_because() == ()


def test_settling_a_duty_that_is_gone_changes_no_other(archive: Archive) -> None:
    queue = owing(archive, "SITE_PACS")
    send(archive, image(1))
    [old] = queue.due("SITE_PACS", now=NOW, limit=1)
    with archive.write() as conn:
        MaintenanceRows(archive).take_out(conn, "2.25.1")
    files_of(archive).path("2.25.1").unlink()
    send(archive, image(1, PatientID="ANOTHER"))
    queue.settle("SITE_PACS", [Settled(old, Fate.DELIVERED)], lambda _: timedelta(0), now=NOW)
    assert due(queue) == ["2.25.1"]


# ---- real archives --------------------------------------------------------------------------------------------------


@dataclass
class SiteArchive:
    """A storage SCP of pynetdicom that keeps what it is sent, and can be told how to answer."""

    answer: Callable[[evt.Event], int] = lambda _event: 0x0000
    syntaxes: Sequence[str] = (EXPLICIT, J2K)
    received: list[tuple[str, bytes]] = field(default_factory=list)
    associations: int = 0
    port: int = field(default_factory=free_port)

    @property
    def peer(self) -> Peer:
        return Peer("SITE_PACS", "127.0.0.1", self.port)

    @property
    def uids(self) -> list[str]:
        return [uid for uid, _ in self.received]

    @contextmanager
    def serving(self) -> Iterator["SiteArchive"]:
        entity = AE("SITE_PACS")
        for context in AllStoragePresentationContexts[:100]:
            entity.add_supported_context(context.abstract_syntax or "", list(self.syntaxes))
        entity.add_supported_context(MG, list(self.syntaxes))
        handlers = [(evt.EVT_C_STORE, self._take), (evt.EVT_ACCEPTED, self._count)]
        server = entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
        try:
            yield self
        finally:
            server.shutdown()

    def _take(self, event: evt.Event) -> int:
        status = self.answer(event)
        if status == 0x0000:
            self.received.append((str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()))
        return status

    def _count(self, _event: evt.Event) -> None:
        self.associations += 1


@contextmanager
def forwarding(archive: Archive, *peers: Peer, targets: Sequence[str] = ("SITE_PACS",)) -> Iterator[ForwardQueue]:
    with ForwardSender(archive, peers, targets, ae_title="SCREENING_PACS") as threads:
        yield ForwardQueue(archive)
        threads.still_working()


def all_delivered(queue: ForwardQueue, count: int) -> Callable[[], bool]:
    return lambda: len(queue.owed("delivered", limit=10_000)) == count


def of_uid(uid: str, status: int) -> Callable[[evt.Event], int]:
    return lambda event: status if event.request.AffectedSOPInstanceUID == uid else 0x0000


def test_what_is_due_goes_over_one_association_byte_for_byte_and_in_order(archive: Archive, tmp_path: Path) -> None:
    owing(archive, "SITE_PACS")
    for number in range(1, 8):
        send(archive, image(number))
    data = data_set_bytes(corpus.write(tmp_path / "one.dcm", image(8, transfer_syntax_uid=J2K)))
    send(archive, image(8), data=data, transfer_syntax_uid=J2K)
    site = SiteArchive()
    with site.serving(), forwarding(archive, site.peer) as queue:
        wait_until(all_delivered(queue, 8), "all")
    sent = [(f"2.25.{number}", encoded(image(number), EXPLICIT)) for number in range(1, 8)]
    assert site.received == [*sent, ("2.25.8", data)]
    assert site.associations == 1


def test_what_comes_in_while_it_runs_follows(archive: Archive) -> None:
    site = SiteArchive()
    with site.serving(), forwarding(archive, site.peer) as queue:
        send(archive, image(1))
        wait_until(all_delivered(queue, 1), "the image")
    assert site.uids == ["2.25.1"]


def test_a_target_that_is_away_gets_everything_when_it_is_back(archive: Archive) -> None:
    site = SiteArchive()
    with capture_logs() as logs, forwarding(archive, site.peer) as queue:
        send(archive, image(1))
        wait_until(lambda: any(each.reason for each in queue.targets()), "the reason")
        [target] = queue.targets()
        assert target.reason == f"{site.peer} cannot be reached: Connection refused."
        send(archive, image(2))
        with site.serving():
            wait_until(all_delivered(queue, 2), "both")
    assert site.uids == ["2.25.1", "2.25.2"]
    assert queue.targets()[0].reason == ""
    assert {line["event"] for line in logs if line["log_level"] == "warning"} == {"target not reached"}


def test_one_object_that_is_refused_is_parked_and_the_rest_goes_on(archive: Archive) -> None:
    site = SiteArchive(of_uid("2.25.2", 0xC000))
    owing(archive, "SITE_PACS")
    for number in (1, 2, 3):
        send(archive, image(number))
    with site.serving(), forwarding(archive, site.peer) as queue:
        wait_until(all_delivered(queue, 2), "two")
        [parked] = queue.owed("parked")
        assert (parked.sop_instance_uid, parked.reason) == ("2.25.2", "The object was answered with status C000H.")
        site.answer = lambda _event: 0x0000
        queue.release(target="SITE_PACS", now=NOW)
        wait_until(all_delivered(queue, 3), "the third")
    assert site.uids == ["2.25.1", "2.25.3", "2.25.2"]


def test_a_class_that_the_target_does_not_take_is_parked_with_the_reason(archive: Archive) -> None:
    owing(archive, "SITE_PACS")
    send(archive, image(1, SOPClassUID="1.2.840.10008.5.1.4.1.1.66"), sop_class_uid="1.2.840.10008.5.1.4.1.1.66")
    send(archive, image(2))
    site = SiteArchive()
    entity = AE("SITE_PACS")
    entity.add_supported_context(MG, [EXPLICIT])
    server = entity.start_server(("127.0.0.1", site.port), block=False, evt_handlers=[(evt.EVT_C_STORE, lambda _: 0)])
    with forwarding(archive, site.peer) as queue:
        wait_until(all_delivered(queue, 1), "the mammogram")
    server.shutdown()
    assert [(each.sop_instance_uid, each.reason) for each in queue.owed("parked")] == [
        ("2.25.1", "The peer takes objects of this class neither as stored nor uncompressed.")
    ]


def breaking_off(event: evt.Event) -> int:
    if event.request.AffectedSOPInstanceUID == "2.25.1":
        event.assoc.abort()
    return 0x0000


BAD_OBJECTS = {"has no room for it": of_uid("2.25.1", 0xA700), "breaks off at it": breaking_off}


@pytest.mark.parametrize("answer", BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_an_object_at_which_the_target_fails_keeps_others_back_only_for_a_moment(
    archive: Archive, answer: Callable[[evt.Event], int]
) -> None:
    site = SiteArchive(answer)
    owing(archive, "SITE_PACS")
    for each in (of(100, 1), of(100, 2), of(200, 3), of(200, 4)):
        send(archive, each)
    with site.serving(), forwarding(archive, site.peer) as queue:
        wait_until(lambda: site.uids.count("2.25.4"), "the other study")
        wait_until(all_delivered(queue, 2), "the other study's delivery")
        site.answer = lambda _event: 0x0000
        wait_until(all_delivered(queue, 4), "everything")
    last = {uid: position for position, uid in enumerate(site.uids)}
    assert last["2.25.1"] < last["2.25.2"]


def test_a_target_that_is_deaf_delays_no_other_and_no_stop(archive: Archive) -> None:
    deaf = Peer("DEAF", "127.0.0.1", free_port())
    site = SiteArchive()
    with (
        socket.create_server(("127.0.0.1", deaf.port)) as listening,
        site.serving(),
        forwarding(archive, deaf, site.peer, targets=("DEAF", "SITE_PACS")) as queue,
    ):
        send(archive, image(1))
        called, _ = listening.accept()
        wait_until(all_delivered(queue, 1), "the other")
        began = time.monotonic()
    assert time.monotonic() - began < PATIENCE_SECONDS < ANSWER_SECONDS
    called.close()


def test_a_file_that_is_missing_or_damaged_waits_until_it_is_well(archive: Archive) -> None:
    owing(archive, "SITE_PACS")
    for each in (of(100, 1), of(200, 2), of(300, 3)):
        send(archive, each)
    files_of(archive).path("2.25.1").unlink()
    kept = MaintenanceRows(archive).kept("2.25.2")
    assert kept is not None
    MaintenanceRows(archive).report_damage(kept, "wrong_hash", now=NOW)
    site = SiteArchive()
    with site.serving(), forwarding(archive, site.peer) as queue:
        wait_until(all_delivered(queue, 1), "the well one")
        waiting = {each.sop_instance_uid: each.reason for each in queue.owed("open")}
        assert waiting == {
            "2.25.1": "The file of instance 2.25.1 is missing or not whole.",
            "2.25.2": "Its file is damaged, see 'gateway fsck --hashes'.",
        }
        send(archive, of(100, 1))
        send(archive, of(200, 2))
        wait_until(all_delivered(queue, 3), "those that came again")
    assert sorted(site.uids) == ["2.25.1", "2.25.2", "2.25.3"]


def test_what_the_target_cannot_take_is_decompressed_for_it(archive: Archive, tmp_path: Path) -> None:
    owing(archive, "SITE_PACS")
    data = data_set_bytes(corpus.write(tmp_path / "one.dcm", image(1, transfer_syntax_uid=J2K)))
    send(archive, image(1), data=data, transfer_syntax_uid=J2K)
    site = SiteArchive(syntaxes=(EXPLICIT,))
    with site.serving(), forwarding(archive, site.peer) as queue:
        wait_until(all_delivered(queue, 1), "it")
    [(_, received)] = site.received
    assert corpus.GREY.tobytes() in received


@with_dcmtk
def test_dcmtk_gets_what_was_stored_bit_by_bit(archive: Archive, tmp_path: Path) -> None:
    owing(archive, "SITE_PACS")
    for number in (1, 2):
        send(archive, image(number))
    port, folder = free_port(), tmp_path / "taken"
    folder.mkdir()
    with (
        running(port, "storescp", "+B", "-aet", "SITE_PACS", "-od", folder, str(port)),
        forwarding(archive, Peer("SITE_PACS", "127.0.0.1", port)) as queue,
    ):
        wait_until(all_delivered(queue, 2), "both")
    assert sorted(data_set_bytes(path) for path in folder.iterdir()) == sorted(
        encoded(image(number), EXPLICIT) for number in (1, 2)
    )


# ---- the real process -----------------------------------------------------------------------------------------------


@dataclass
class Pacs:
    """The archive as a process, with its settings."""

    folder: Path
    peers: str
    port: int = field(default_factory=free_port)

    def start(self) -> "subprocess.Popen[bytes]":
        environment = {
            "PATH": "", "GATEWAY_DATA_DIR": str(self.folder), "PACS_HOST": "127.0.0.1", "PACS_PORT": str(self.port),
            "PACS_PEERS": self.peers, "PACS_FORWARD_TO": self.peers.partition("=")[0], "LOG_LEVEL": "WARNING",
        }  # fmt: skip
        process = subprocess.Popen([sys.executable, "-m", "pacs"], env=environment, cwd=self.folder)
        wait_until(lambda: is_open(self.port), "the archive")
        return process

    def queue(self) -> ForwardQueue:
        return ForwardQueue(Archive.attach(self.folder / "pacs.db", self.folder / "instances"))

    def send(self, source: Archive) -> None:
        """Store everything of another archive here."""
        stored = source.select(Dataset())
        peer = Peer("SCREENING_PACS", "127.0.0.1", self.port)
        with calling(peer, proposals([(MG, EXPLICIT)]), ae_title="MAMMO_1") as call:
            for each in stored:
                with outgoing(each, EXPLICIT) as one:
                    assert call.store(one).status == 0x0000


COUNT = 60


def wanted() -> dict[str, bytes]:
    """What is sent in these tests: seven studies, mixed."""
    return {str(each.SOPInstanceUID): encoded(each, EXPLICIT) for each in many()}


def many() -> list[Dataset]:
    return [of(number % 7 + 100, number) for number in range(1, COUNT + 1)]


def forward_while_being_killed(pacs: Pacs, source: Archive, arrived: Callable[[], int]) -> None:
    """Store everything, kill the process twice while it forwards, and wait until nothing is owed."""
    process = pacs.start()
    pacs.send(source)
    for goal in (COUNT // 4, COUNT // 2):
        wait_until(lambda goal=goal: arrived() >= goal, f"the first {goal}")
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = pacs.start()
    wait_until(all_delivered(pacs.queue(), COUNT), "all")
    process.terminate()
    assert process.wait() == 0


def test_killed_in_the_middle_again_and_again_everything_arrives_and_little_twice(
    archive: Archive, tmp_path: Path
) -> None:
    for each in many():
        send(archive, each)
    site = SiteArchive(lambda _event: time.sleep(0.02) or 0)
    (tmp_path / "data").mkdir()
    with site.serving():
        pacs = Pacs(tmp_path / "data", f"SITE_PACS=127.0.0.1:{site.port}")
        forward_while_being_killed(pacs, archive, lambda: len(set(site.uids)))
    assert dict(site.received) == wanted()
    assert all(wanted()[uid] == data for uid, data in site.received)
    assert max(Counter(site.uids).values()) <= 3


@with_dcmtk
def test_killed_in_the_middle_dcmtk_has_everything_bit_by_bit(archive: Archive, tmp_path: Path) -> None:
    for each in many():
        send(archive, each)
    port, taken = free_port(), tmp_path / "taken"
    taken.mkdir()
    (tmp_path / "data").mkdir()
    with running(port, "storescp", "+B", "-aet", "SITE_PACS", "-od", taken, str(port)):
        pacs = Pacs(tmp_path / "data", f"SITE_PACS=127.0.0.1:{port}")
        forward_while_being_killed(pacs, archive, lambda: len(list(taken.iterdir())))
    assert sorted(map(data_set_bytes, taken.iterdir())) == sorted(wanted().values())


@pytest.mark.skipif(shutil.which("Orthanc") is None, reason="Orthanc is not installed")
def test_orthanc_that_comes_late_has_what_was_stored_bit_by_bit(archive: Archive, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        send(archive, image(number))
    dicom, http = free_port(), free_port()
    settings = {
        "DicomPort": dicom, "HttpPort": http, "DicomAet": "ORTHANC", "AuthenticationEnabled": False,
        "StorageDirectory": str(tmp_path / "orthanc"), "Plugins": [], "DicomAlwaysAllowStore": True,
        "OverwriteInstances": False,
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(settings))
    (tmp_path / "data").mkdir()
    pacs = Pacs(tmp_path / "data", f"ORTHANC=127.0.0.1:{dicom}")
    process = pacs.start()
    pacs.send(archive)
    queue = pacs.queue()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process = pacs.start()
    try:
        with running(dicom, "Orthanc", tmp_path / "orthanc.json"):
            wait_until(all_delivered(queue, 3), "all")
            queue.ask("ORTHANC", study_instance_uid="2.25.1002", now=NOW)
            wait_until(all_delivered(queue, 3), "all, again")
            wait_until(lambda: is_open(http), "the web server of Orthanc")
            found = json.loads(get(f"http://127.0.0.1:{http}/instances"))
            files = [get(f"http://127.0.0.1:{http}/instances/{each}/file") for each in found]
    finally:
        process.terminate()
        process.wait()
    kept = [encoded(image(number), EXPLICIT) for number in (1, 2, 3)]
    assert len(files) == 3
    assert {sha256(data).hexdigest() for data in kept} == {
        sha256(file[-len(data) :]).hexdigest() for file in files for data in kept if file.endswith(data)
    }


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body
