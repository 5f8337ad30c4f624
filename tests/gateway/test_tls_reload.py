"""Certificates that are renewed under a listener that lives: real files, real handshakes."""

import os
import socket
import ssl
import time
from hashlib import sha256
from pathlib import Path

from pynetdicom.sop_class import Verification
from structlog.testing import capture_logs

from gateway import tls_reload
from tests.gateway.test_tls import CA, GATEWAY, STRANGER, associated, listening, site, trusting
from tests.tools.certificates import Issued, issued
from tests.tools.waiting import wait_until

RENEWED = issued("gateway", CA)


def shown(port: int, context: ssl.SSLContext) -> str:
    """The fingerprint of the certificate that a new connection is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        return sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()


def exchange(folder: Path, new: Issued) -> None:
    """Put new files in the place of the old, each at once, as `mv` and certificate agents do."""
    fresh = folder / "fresh"
    fresh.mkdir(exist_ok=True)
    for path in new.write(fresh, "gateway"):
        os.replace(path, folder / path.name)


def test_who_connects_next_is_shown_the_renewed_certificate_and_associations_go_on(tmp_path: Path) -> None:
    settings = site(tmp_path)
    with listening(settings) as listener, associated(listener, trusting(tmp_path)) as before, capture_logs() as logs:
        assert shown(listener.port, trusting(tmp_path)) == GATEWAY.fingerprint
        exchange(tmp_path, RENEWED)
        wait_until(lambda: shown(listener.port, trusting(tmp_path)) == RENEWED.fingerprint)
        assert before.send_c_echo().Status == 0x0000
        with associated(listener, trusting(tmp_path)) as after:
            assert [context.abstract_syntax for context in after.accepted_contexts].count(Verification) == 1
    assert [line["event"] for line in logs if "certificate" in str(line["event"])] == ["certificate renewed"]


def test_files_that_do_not_serve_change_nothing_are_said_once_and_are_read_again_when_they_are_mended(
    tmp_path: Path,
) -> None:
    with listening(site(tmp_path)) as listener, capture_logs() as logs:

        def said(event: str) -> list[object]:
            listener.still_working()  # as the process does every few seconds, whether anybody connects or not
            return [line.get("reason") for line in logs if line["event"] == event]

        (tmp_path / "gateway.key").write_bytes(STRANGER.key_pem)
        wait_until(lambda: said("certificate not renewed"))
        assert shown(listener.port, trusting(tmp_path)) == GATEWAY.fingerprint
        time.sleep(tls_reload.LOOK_SECONDS)
        assert said("certificate not renewed") == [
            "GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY cannot be used (KEY_VALUES_MISMATCH): see `gateway tls check`."
        ]
        (tmp_path / "gateway.pem").unlink()
        wait_until(lambda: len(said("certificate not renewed")) == 2)
        exchange(tmp_path, RENEWED)
        wait_until(lambda: said("certificate renewed"))
        assert shown(listener.port, trusting(tmp_path)) == RENEWED.fingerprint


def test_a_ca_that_is_exchanged_decides_who_may_call(tmp_path: Path) -> None:
    with listening(site(tmp_path, client_ca=CA)) as listener, capture_logs():
        with associated(listener, trusting(tmp_path, STRANGER)) as peer:
            assert not peer.is_established
        (tmp_path / "clients.pem").write_bytes(CA.pem + STRANGER.pem)

        def is_let_in() -> bool:
            with associated(listener, trusting(tmp_path, STRANGER)) as peer:
                return bool(peer.is_established)

        wait_until(is_let_in)
