"""How long an association takes to set up and to release: `tests/benchmarks/associate [--repetitions N]`.

128 presentation contexts with 15 transfer syntaxes each, the most a modality can propose. The same raw bytes are sent
to this gateway's listener and to pynetdicom's, both serving all storage classes in a process of their own, in turn
within a repetition; the ratio is the median of the paired values. The second line has a handshake of TLS 1.3 besides.
"""

import argparse
import multiprocessing
import socket
import ssl
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from pynetdicom import AE, build_context
from rich.console import Console
from rich.table import Table

from gateway.dicom.application import Application
from gateway.dicom.listener import Listener
from gateway.log import configure
from gateway.settings import GatewaySettings
from gateway.tls_reload import ServerTls
from pacs.scp import STORAGE_CLASSES, TRANSFER_SYNTAXES
from tests.gateway.dicom.test_negotiation import request_pdu
from tests.tools.certificates import issued

RELEASE = b"\x05\x00\x00\x00\x00\x04\x00\x00\x00\x00"
EACH = 20
"""Associations in one measurement."""


def serve_ours(told: Connection, settings: GatewaySettings) -> None:
    """Listen until the other end of the pipe is closed."""
    configure("WARNING", process="benchmark")
    application = Application(ae_title="SCREENING_PACS", contexts=dict.fromkeys(STORAGE_CLASSES, TRANSFER_SYNTAXES))
    with Listener(application, host="127.0.0.1", port=0, tls=ServerTls.of(settings)) as listener:
        told.send(listener.port)
        told.poll(None)


def serve_pynetdicom(told: Connection, _settings: GatewaySettings) -> None:
    """Listen until the other end of the pipe is closed."""
    entity = AE(ae_title="SCREENING_PACS")
    for name in STORAGE_CLASSES:
        entity.add_supported_context(name, list(TRANSFER_SYNTAXES))
    server = entity.start_server(("127.0.0.1", 0), block=False)
    told.send(server.server_address[1])
    told.poll(None)
    server.shutdown()


@contextmanager
def serving(serve: object, settings: GatewaySettings) -> Iterator[int]:
    """Run a listener in a process of its own; gives its port."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs, settings))  # type: ignore[arg-type]
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send("stop")
        process.join(20)


def milliseconds(port: int, request: bytes, tls: ssl.SSLContext | None) -> float:
    """The time one association takes on average, from connecting to the answer to its release."""
    started = time.perf_counter()
    for _ in range(EACH):
        with ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                connection = stack.enter_context(tls.wrap_socket(connection))
            connection.sendall(request)
            assert _pdu(connection)[0] == 2, "the association was not accepted"
            connection.sendall(RELEASE)
            assert _pdu(connection)[0] == 6, "the release was not answered"
    return (time.perf_counter() - started) / EACH * 1000


def _pdu(connection: socket.socket) -> bytes:
    received = b""
    while len(received) < 6 or len(received) < 6 + int.from_bytes(received[2:6], "big"):
        data = connection.recv(65536)
        assert data, "the other side closed the connection"
        received += data
    return received


def compare(repetitions: int) -> Table:
    """Measure all in turn."""
    names = STORAGE_CLASSES[:128]
    request = request_pdu([build_context(name, list(TRANSFER_SYNTAXES)) for name in names])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        certificate, key = issued("gateway").write(Path(folder), "gateway")
        secured = GatewaySettings.model_validate({"GATEWAY_TLS_CERTIFICATE": certificate, "GATEWAY_TLS_KEY": key})
        trusting = ssl.create_default_context(cafile=str(certificate))
        trusting.check_hostname = False
        plain = stack.enter_context(serving(serve_ours, GatewaySettings()))
        tls = stack.enter_context(serving(serve_ours, secured))
        theirs = stack.enter_context(serving(serve_pynetdicom, GatewaySettings()))
        runs = [
            (
                milliseconds(plain, request, None),
                milliseconds(tls, request, trusting),
                milliseconds(theirs, request, None),
            )
            for _ in range(repetitions)
        ]
    title = f"{len(names)} contexts with {len(TRANSFER_SYNTAXES)} syntaxes each"
    table = Table("listener", "ms an association", "of pynetdicom's", title=title)
    for column, name in enumerate(("gateway", "gateway, TLS", "pynetdicom")):
        ratio = statistics.median(run[column] / run[2] for run in runs)
        table.add_row(name, f"{statistics.median(run[column] for run in runs):.2f}", f"{ratio:.2f}")
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5, help="measurements of each listener (5)")
    Console().print(compare(parser.parse_args().repetitions))


if __name__ == "__main__":
    main()
