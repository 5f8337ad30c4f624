"""The DICOM ports are proven over real associations, also within TLS and past a strict list of callers."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.dicom.application import Application
from gateway.dicom.listener import Listener
from gateway.refusals import Refused
from gateway.remote_ae import Caller, Peer
from gateway.tls import CallFiles, TlsFiles
from gateway.tls_reload import ServerTls
from pacs import Archive
from relay.assembly.site import dicom_ports
from relay.health.dicom_ports import DicomPort
from relay.health.facts import last_image, last_step
from relay.health.report import HopFact
from relay.settings import RelaySettings
from simulator.site import free_port
from tests.gateway.test_tls import CA, GATEWAY
from tests.tools.waiting import PATIENCE_SECONDS
from worklist import Worklist

NOW = datetime(2026, 11, 22, 8, 0, tzinfo=UTC)


@contextmanager
def served(callers: tuple[Caller, ...] = (), tls: ServerTls | None = None) -> Iterator[tuple[Listener, list[Refused]]]:
    refused: list[Refused] = []
    served_there = Application(ae_title="SCREENING_MWL", contexts={})
    with Listener(served_there, host="127.0.0.1", port=0, callers=callers, tls=tls, note=refused.append) as listener:
        yield listener, refused


def port_at(
    number: int, *, ae_title: str = "SCREENING_MWL", tls: CallFiles | None = None, seconds: float = PATIENCE_SECONDS
) -> DicomPort:
    peer = Peer(ae_title, "127.0.0.1", number, tls=tls is not None)
    return DicomPort("worklist_port", peer, remedy="Start it.", tls=tls, answer_seconds=seconds, clock=lambda: NOW)


def test_an_echo_proves_a_port_past_a_strict_list_and_fills_no_log() -> None:
    with served((Caller.parse("MAMMO_1@10.0.1.7"),)) as (listener, refused), capture_logs() as logs:
        port = port_at(listener.port)
        port.prove()
    assert port.hop == HopFact("worklist_port", NOW)
    assert (refused, [line["event"] for line in logs if line["log_level"] != "debug"]) == ([], [])


def test_within_tls_a_port_is_called_with_the_certificate_of_the_site(tmp_path: Path) -> None:
    certificate, key = GATEWAY.write(tmp_path, "site")
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    own = TlsFiles(certificate, key, tmp_path / "ca.pem")
    call = CallFiles(certificate, "GATEWAY_TLS_CERTIFICATE", own, by_name=False)
    with served(tls=ServerTls.of_files(own)) as (listener, _):
        port = port_at(listener.port, tls=call)
        port.prove()
    assert port.hop == HopFact("worklist_port", NOW)


def test_a_port_where_nobody_listens_is_said_once_with_its_remedy_and_so_is_its_return() -> None:
    number = free_port()
    port = port_at(number)
    with capture_logs() as logs:
        port.prove()
        port.prove()
    said = f"SCREENING_MWL at 127.0.0.1:{number} cannot be reached: Connection refused. Start it."
    assert port.hop == HopFact("worklist_port", None, said)
    assert [line["event"] for line in logs] == ["port not proven"]
    with Listener(Application(ae_title="SCREENING_MWL", contexts={}), host="127.0.0.1", port=number):
        port.prove()
    assert port.hop == HopFact("worklist_port", NOW)


def test_a_port_under_another_title_is_not_proven() -> None:
    with served() as (listener, _):
        port = port_at(listener.port, ae_title="OTHER")
        port.prove()
    assert port.hop.proven_at is None
    assert port.hop.trouble.endswith("rejected the association: that is not its AE title. Start it.")


def test_a_port_that_is_silent_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = port_at(silent.getsockname()[1], seconds=0.5)
        port.prove()
    assert "it did not answer in time" in port.trouble


async def test_a_relay_that_stops_waits_for_no_silent_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = port_at(silent.getsockname()[1], seconds=2 * PATIENCE_SECONDS)
        running = asyncio.create_task(port.run())
        connection, _ = await asyncio.to_thread(silent.accept)  # it calls, and waits for the answer
        began = time.monotonic()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.get_running_loop().shutdown_default_executor()
        connection.close()
    assert time.monotonic() - began < PATIENCE_SECONDS


def test_the_ports_of_a_site_are_those_of_its_settings() -> None:
    settings = RelaySettings.model_validate({"WORKLIST_PORT": 0, "PACS_HOST": "0.0.0.0", "PACS_PORT": 4244})
    assert [port.name for port in dicom_ports(settings)] == ["archive_port"]


def test_on_a_new_site_no_machine_has_spoken(tmp_path: Path) -> None:
    worklist = Worklist.open(tmp_path / "worklist.db")
    archive = Archive.open(tmp_path / "pacs.db", tmp_path / "instances")
    assert (last_step(worklist), last_image(archive)) == ("No machine has begun a step yet.", "No image has come yet.")
    worklist.close()
    archive.close()
