"""What was refused is kept for people: counted, bounded, without patient data, and never in anybody's way."""

import json
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pynetdicom.sop_class import CTImageStorage, DigitalMammographyXRayImageStorageForPresentation, Verification
from typer.testing import CliRunner

from gateway.dicom.application import Application, ListenerLimits
from gateway.dicom.listener import Listener
from gateway.errors import DatabaseNotReady, MissingAttribute, NoLongerUpdatable
from gateway.refusals import RefusalRecorder, Refused
from gateway.refusals import log as refusals
from gateway.refusals.log import Lost, Refusals, Seen, recent
from gateway.refusals.remedies import OTHERWISE, REMEDIES, remedy
from gateway.remote_ae import Caller
from gateway.sqlite import utc_text
from gateway.tls_reload import ServerTls
from operations.cli import app
from tests.durability.test_disk import fill, mounted
from tests.gateway.dicom.test_listener import SYNTAXES, Memory, associated, image, raw_connection
from tests.gateway.dicom.test_negotiation import CT
from tests.gateway.test_tls import site
from tests.tools.dcmtk import with_dcmtk
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)

CALLED = Refused("association", "called_ae_title", "The peer called 'X', but this is 'Y'.", "MAMMO_1", "10.0.1.7")


def seen(now: datetime = NOW, *, count: int = 1, **changes: str) -> Seen:
    """One refusal as it is kept."""
    usual = Seen("pacs", "C-STORE", "conflict", "MAMMO_1", "10.0.1.7", "C111H", "It is stored.", "1.2.3", "", "", 1)
    return replace(usual, first_at=utc_text(now), last_at=utc_text(now), count=count, **changes)


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Refusals]:
    with closing(Refusals.open(tmp_path / "refusals.db")) as opened:
        yield opened


# ---- counting --------------------------------------------------------------------------------------------------------


def test_the_same_refusal_within_an_hour_counts_up_and_the_last_words_stay(kept: Refusals) -> None:
    kept.add([seen(sentence="SOP instance 1.2.3 is stored.", about="1.2.3")], now=NOW)
    later = NOW + timedelta(minutes=59)
    kept.add([seen(later, sentence="SOP instance 1.2.4 is stored.", about="1.2.4")], now=later)
    assert kept.latest() == [
        replace(seen(NOW, sentence="SOP instance 1.2.4 is stored.", about="1.2.4", count=2), last_at=utc_text(later))
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"process": "worklist"},
        {"service": "N-CREATE"},
        {"kind": "final"},
        {"ae_title": "MAMMO_2"},
        {"address": "10.0.1.8"},
        {"sentence": "The disk is full."},
    ],
)
def test_what_differs_in_who_what_or_why_is_another_refusal(kept: Refusals, changes: dict[str, str]) -> None:
    kept.add([seen(), seen(**changes)], now=NOW)
    assert [each.count for each in kept.latest()] == [1, 1]


def test_a_refusal_that_comes_back_after_more_than_an_hour_is_a_new_row(kept: Refusals) -> None:
    later = NOW + timedelta(hours=1, milliseconds=1)
    kept.add([seen()], now=NOW)
    kept.add([seen(later)], now=later)
    assert kept.latest() == [seen(later), seen()]


PEERS = [("MAMMO_1", "10.0.1.7"), ("MAMMO_2", "10.0.1.7"), ("MAMMO_1", "10.0.1.8")]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(PEERS),
            st.sampled_from(["conflict", "final"]),
            st.integers(1, 5),
            st.sampled_from([0, 1, 1800, 3599, 3600, 3601, 90_000]),
        ),
        max_size=30,
    )
)
def test_counts_and_times_are_those_of_a_list_that_is_read_from_the_start(
    steps: list[tuple[tuple[str, str], str, int, int]],
) -> None:
    expected: list[Seen] = []
    now = NOW
    with TemporaryDirectory() as folder, closing(Refusals.open(Path(folder) / "refusals.db")) as opened:
        for (ae_title, address), kind, count, seconds in steps:
            now += timedelta(seconds=seconds)
            new = seen(now, ae_title=ae_title, address=address, kind=kind, count=count)
            opened.add([new], now=now)
            known = [each for each in expected if each.same == new.same]
            is_again = known and now - datetime.fromisoformat(known[-1].last_at) <= timedelta(hours=1)
            if is_again:
                old = known[-1]
                expected.remove(old)
                new = replace(new, first_at=old.first_at, count=old.count + count)
            expected.append(new)
        found = opened.latest()
    assert sorted(map(repr, found)) == sorted(map(repr, expected))
    assert sum(each.count for each in found) == sum(count for _, _, count, _ in steps)


def test_rows_are_bounded_by_number_by_address_and_by_age_and_the_oldest_go(kept: Refusals) -> None:
    kept.add([seen(NOW - timedelta(days=31), ae_title="OLD")], now=NOW - timedelta(days=31))
    kept.add([seen(NOW, ae_title=f"SCAN_{number}", address="10.9.9.9") for number in range(300)], now=NOW)
    assert len(kept.latest()) == refusals.MOST_ROWS_OF_ADDRESS
    many = [seen(NOW, address=f"10.1.{number // 250}.{number % 250}") for number in range(1200)]
    kept.add(many, now=NOW)
    found = kept.latest()
    assert len(found) == refusals.MOST_ROWS
    assert {each.address for each in found} == {each.address for each in many[200:]}


# ---- noting ----------------------------------------------------------------------------------------------------------


def test_what_is_noted_is_on_disk_soon_and_all_processes_share_the_file(tmp_path: Path) -> None:
    path = tmp_path / "refusals.db"
    with RefusalRecorder(path, process="pacs") as pacs, RefusalRecorder(path, process="worklist") as worklist:
        pacs.note(CALLED)
        worklist.note(CALLED)
        wait_until(lambda: listed(path) == [1, 1])
    found, lost = recent(path)
    assert {(each.process, each.ae_title, each.sentence, each.count) for each in found} == {
        ("pacs", "MAMMO_1", CALLED.sentence, 1),
        ("worklist", "MAMMO_1", CALLED.sentence, 1),
    }
    assert lost == Lost(0, None)


def test_what_was_noted_just_before_the_end_is_kept(tmp_path: Path) -> None:
    with RefusalRecorder(tmp_path / "refusals.db", process="pacs") as noting:
        for _ in range(3):
            noting.note(CALLED)
    assert [each.count for each in recent(tmp_path / "refusals.db")[0]] == [3]


def test_a_flood_is_one_row_and_noting_takes_microseconds(tmp_path: Path) -> None:
    with RefusalRecorder(tmp_path / "refusals.db", process="pacs") as noting:
        began = time.perf_counter()
        for _ in range(20_000):
            noting.note(CALLED)
        seconds = time.perf_counter() - began
    assert [each.count for each in recent(tmp_path / "refusals.db")[0]] == [20_000]
    assert seconds / 20_000 < 0.001


def test_more_different_refusals_than_memory_has_room_for_are_counted_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "refusals.db"
    noting = RefusalRecorder(path, process="pacs", clock=lambda: NOW)
    for number in range(refusals.MOST_WAITING + 7):  # before the thread takes anything
        noting.note(replace(CALLED, ae_title=f"AE_{number}"))
    with noting:
        pass
    assert recent(path)[1] == Lost(7, "2026-11-22T08:00:00.000Z")


def test_half_a_surrogate_pair_is_noted_as_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "refusals.db"
    with RefusalRecorder(path, process="relay") as noting:
        noting.note(Refused("cloud command", "cloud.invalid_value", "'\ud83d' is no action.", about="\ud800"))
        noting.note(CALLED)
        wait_until(lambda: listed(path) == [1, 1])
    assert {(each.sentence, each.about) for each in recent(path)[0]} == {
        ("'?' is no action.", "?"),
        (CALLED.sentence, ""),
    }


def test_an_error_that_nobody_thought_of_delays_the_writing_and_does_not_end_it(tmp_path: Path) -> None:
    path, fails, failed = tmp_path / "refusals.db", threading.Event(), threading.Event()

    def clock() -> datetime:
        if fails.is_set() and threading.current_thread().name == "refusals":
            failed.set()
            raise ArithmeticError
        return NOW

    fails.set()
    with RefusalRecorder(path, process="pacs", clock=clock, failure_seconds=0.05) as noting:
        noting.note(CALLED)
        assert failed.wait(PATIENCE_SECONDS)
        fails.clear()
        noting.note(CALLED)
        wait_until(lambda: listed(path) == [2])


def test_a_process_that_waits_for_a_locked_file_still_ends(tmp_path: Path) -> None:
    path = tmp_path / "refusals.db"
    Refusals.open(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with RefusalRecorder(path, process="pacs") as noting:
            noting.note(CALLED)
        assert time.monotonic() - began < 4


def listed(path: Path) -> list[int]:
    """The counts in the file; none while it has no tables: nobody has made them, or there is no room."""
    try:
        return [each.count for each in recent(path)[0]]
    except DatabaseNotReady:
        return []


def test_a_full_disk_refuses_nobody_and_what_was_refused_meanwhile_is_written_when_there_is_room(
    tmp_path: Path,
) -> None:
    with mounted(tmp_path / "data", "-t", "tmpfs", "-o", "size=4m", "none") as volume:
        path = volume / "refusals.db"
        with RefusalRecorder(path, process="pacs", failure_seconds=0.2) as noting, rejecting(noting) as listener:
            ballast = fill(volume)
            for _ in range(2):
                with associated(listener, called="ELSE") as peer:
                    assert peer.is_rejected
            with associated(listener) as peer:
                assert peer.send_c_echo().Status == 0x0000
            ballast.unlink()
            wait_until(lambda: listed(path) == [2])


def test_a_read_only_folder_is_no_reason_to_fail(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "data", "-t", "tmpfs", "-o", "ro,size=1m", "none") as volume,
        RefusalRecorder(volume / "refusals.db", process="pacs") as noting,
        rejecting(noting) as listener,
    ):
        with associated(listener, called="ELSE") as peer:
            assert peer.is_rejected
        with associated(listener) as peer:
            assert peer.send_c_echo().Status == 0x0000


# ---- what machines are refused ---------------------------------------------------------------------------------------


@contextmanager
def rejecting(
    noting: RefusalRecorder,
    *,
    callers: tuple[Caller, ...] = (),
    limits: ListenerLimits | None = None,
    **handlers: object,
):  # type: ignore[no-untyped-def]
    application = Application(ae_title="SCREENING_PACS", contexts={CT: SYNTAXES}, **handlers)  # type: ignore[arg-type]
    with Listener(application, host="127.0.0.1", port=0, callers=callers, limits=limits, note=noting.note) as listener:
        yield listener


@pytest.fixture
def noted(tmp_path: Path) -> Iterator[tuple[RefusalRecorder, Callable[[], list[tuple[str, ...]]]]]:
    """Where to note, and what is in the file in the end: service, kind, AE title, status, sentence, about."""
    path = tmp_path / "refusals.db"
    noting = RefusalRecorder(path, process="pacs")

    def found() -> list[tuple[str, ...]]:
        noting.__exit__(None, None, None)
        return [
            (each.service, each.kind, each.ae_title, each.address, each.status, each.sentence, each.about)
            for each in reversed(recent(path)[0])
        ]

    noting.__enter__()
    yield noting, found


def test_a_wrong_called_ae_title_is_noted(noted: tuple[RefusalRecorder, Callable[[], object]]) -> None:
    noting, found = noted
    with rejecting(noting) as listener, associated(listener, called="ELSE") as peer:
        assert peer.is_rejected
    sentence = "The peer called 'ELSE', but this is 'SCREENING_PACS': set it on the modality."
    assert found() == [("association", "called_ae_title", "TESTER", "127.0.0.1", "", sentence, "")]


def test_a_caller_that_is_not_listed_is_noted(noted: tuple[RefusalRecorder, Callable[[], object]]) -> None:
    noting, found = noted
    with rejecting(noting, callers=(Caller("OTHER"),)) as listener, associated(listener) as peer:
        assert peer.is_rejected
    sentence = "'TESTER' is not in GATEWAY_CALLING_AETS; add it if this modality may connect."
    assert found() == [("association", "calling_ae_title", "TESTER", "127.0.0.1", "", sentence, "")]


def test_one_association_too_many_is_noted(noted: tuple[RefusalRecorder, Callable[[], object]]) -> None:
    noting, found = noted
    with (
        rejecting(noting, limits=ListenerLimits(associations=1)) as listener,
        associated(listener),
        associated(listener) as second,
    ):
        assert second.is_rejected
    sentence = "1 associations are open already, which is the limit (GATEWAY_MAX_ASSOCIATIONS); the peer may try again."
    assert found() == [("association", "no_room", "TESTER", "127.0.0.1", "", sentence, "")]


def test_an_association_that_can_do_nothing_but_echo_is_noted(
    noted: tuple[RefusalRecorder, Callable[[], object]],
) -> None:
    noting, found = noted
    with rejecting(noting) as listener:
        with associated(listener, Verification, DigitalMammographyXRayImageStorageForPresentation):
            pass
        with associated(listener, Verification):  # which is what it came for
            pass
        with associated(listener, CTImageStorage, DigitalMammographyXRayImageStorageForPresentation):
            pass
    sentence = (
        "Nothing the peer proposed is served here in a form it proposed:"
        " Digital Mammography X-Ray Image Storage - For Presentation."
    )
    assert found() == [("association", "no_context", "TESTER", "127.0.0.1", "", sentence, "")]


def test_broken_bytes_are_noted(noted: tuple[RefusalRecorder, Callable[[], object]]) -> None:
    noting, found = noted
    with rejecting(noting) as listener, raw_connection(listener) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while connection.recv(1024):
            pass
    [(service, kind, ae_title, address, status, sentence, about)] = found()  # type: ignore[misc]
    assert (service, kind, ae_title, address, status, about) == (
        "association",
        "broken_protocol",
        "",
        "127.0.0.1",
        "",
        "",
    )
    assert sentence


def test_dicom_without_tls_on_a_port_with_tls_is_noted(
    tmp_path: Path, noted: tuple[RefusalRecorder, Callable[[], object]]
) -> None:
    noting, found = noted
    application, tls = Application(ae_title="SCREENING_PACS", contexts={}), ServerTls.of(site(tmp_path))
    with (
        Listener(application, host="127.0.0.1", port=0, tls=tls, note=noting.note) as listener,
        socket.create_connection(("127.0.0.1", listener.port)) as connection,
    ):
        connection.sendall(b"\x01\x00" + bytes(100))
        while connection.recv(1024):
            pass
    [(service, kind, _, address, _, sentence, _)] = found()  # type: ignore[misc]
    assert (service, kind, address) == ("TLS", "tls", "127.0.0.1")
    assert sentence.startswith("The peer speaks DICOM without TLS")


def test_connections_that_say_nothing_are_noted_when_there_are_too_many(
    noted: tuple[RefusalRecorder, Callable[[], object]],
) -> None:
    noting, found = noted
    with (
        rejecting(noting, limits=ListenerLimits(waiting=1)) as listener,
        raw_connection(listener),
        raw_connection(listener) as second,
    ):
        assert second.recv(1) == b""
    assert [(service, kind, address) for service, kind, _, address, _, _, _ in found()] == [  # type: ignore[attr-defined]
        ("connection", "crowded", "127.0.0.1")
    ]


def test_a_refused_object_is_noted_with_status_and_uid(noted: tuple[RefusalRecorder, Callable[[], object]]) -> None:
    noting, found = noted
    with rejecting(noting, handle_store=Memory(refuse_at="finish")) as listener, associated(listener) as peer:
        assert peer.send_c_store(image()).Status == 0xA700
    assert found() == [("C-STORE", "out_of_resources", "TESTER", "127.0.0.1", "A700H", "The disk is full.", "1.2.3.4")]


def test_a_fault_of_ours_is_noted_without_its_text(noted: tuple[RefusalRecorder, Callable[[], object]]) -> None:
    noting, found = noted
    memory = Memory(refuse_at="finish", error=ValueError("Doe^Jane"))
    with rejecting(noting, handle_store=memory) as listener, associated(listener) as peer:
        assert peer.send_c_store(image()).Status == 0xC000
    [(_, kind, _, _, status, sentence, _)] = found()  # type: ignore[misc]
    assert (kind, status) == ("failed", "C000H")
    assert sentence.startswith("The gateway failed to serve it (ValueError, test_listener.py:")
    assert "Doe" not in sentence


def test_refused_steps_and_queries_are_noted(noted: tuple[RefusalRecorder, Callable[[], object]]) -> None:
    def refuse_create(_request: object) -> None:
        raise MissingAttribute("Modality (0008,0060) is missing.")

    def refuse_set(_request: object) -> None:
        raise NoLongerUpdatable("Step 1.2.3 is completed.")

    noting, found = noted
    handlers = {"handle_create": refuse_create, "handle_set": refuse_set}
    with rejecting(noting, **handlers) as listener, associated(listener) as peer:
        peer.send_n_create(_modality(), CTImageStorage, "1.2.3")
        peer.send_n_set(_modality(), CTImageStorage, "1.2.3")
    assert [(service, kind, status) for service, kind, _, _, status, _, _ in found()] == [  # type: ignore[attr-defined]
        ("N-CREATE", "missing_attribute", "0120H"),
        ("N-SET", "final", "0110H"),
    ]


def _modality() -> Dataset:
    data_set = Dataset()
    data_set.Modality = "MG"
    return data_set


@with_dcmtk
def test_storescu_that_calls_somebody_else_is_noted(noted: tuple[RefusalRecorder, Callable[[], object]]) -> None:
    noting, found = noted
    with rejecting(noting) as listener:
        command = ["echoscu", "-aet", "MAMMO_9", "-aec", "WRONG", "127.0.0.1", str(listener.port)]
        assert subprocess.run(command, check=False, capture_output=True, timeout=30).returncode != 0
    [(service, kind, ae_title, *_)] = found()  # type: ignore[misc]
    assert (service, kind, ae_title) == ("association", "called_ae_title", "MAMMO_9")


# ---- for people ------------------------------------------------------------------------------------------------------


def test_every_remedy_is_a_sentence_that_fits_a_row() -> None:
    assert [kind for kind, text in REMEDIES.items() if not text.endswith(".") or len(text) > 240] == []
    assert remedy("never heard of") == OTHERWISE


def _refusal_codes() -> Iterator[str]:
    from gateway import errors

    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, errors.Refusal) and value is not errors.Refusal:
            yield value.code


def test_every_kind_of_refusal_over_dicom_has_a_remedy() -> None:
    over_http_only = {"refused", "audit_not_written"}
    assert sorted(set(_refusal_codes()) - set(REMEDIES) - over_http_only) == []


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    return tmp_path


def called(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["refusals", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_site_that_refused_nothing_says_so(folder: Path) -> None:
    assert called() == "Nothing was refused in the last 30 days.\n"
    assert json.loads(called("--json")) == {"refusals": [], "lost": {"count": 0, "last_at": None}}


def test_the_command_says_who_what_why_how_often_and_what_to_do(folder: Path) -> None:
    with closing(Refusals.open(folder / "refusals.db")) as opened:
        opened.add([seen(count=4), replace(seen(), process="relay", service="cloud command", kind="cloud_invalid",
                                           ae_title="", address="", status="", about="action-7")],
                   lost=2, now=NOW)  # fmt: skip
    assert called() == (
        "2026-11-22T08:00:00.000Z relay refused the cloud: cloud command\n"
        "    It is stored. (action-7)\n"
        f"    {remedy('cloud_invalid')}\n"
        "2026-11-22T08:00:00.000Z pacs refused MAMMO_1 at 10.0.1.7 4 times since 2026-11-22T08:00:00.000Z:"
        " C-STORE C111H\n"
        "    It is stored. (1.2.3)\n"
        f"    {remedy('conflict')}\n"
        "2 more could not be written down, the last of them 2026-11-22T08:00:00.000Z.\n"
    )
    [first, second] = json.loads(called("--json"))["refusals"]
    assert (first["about"], second["count"], second["remedy"]) == ("action-7", 4, remedy("conflict"))
