"""DICOM within TLS over real connections: DCMTK, pynetdicom and OpenSSL as the other side."""

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import pytest
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import CTImageStorage, ModalityWorklistInformationFind, Verification
from structlog.testing import capture_logs

from gateway.dicom.application import Application, ListenerLimits
from gateway.dicom.listener import Listener
from gateway.errors import SettingsError
from gateway.settings import GatewaySettings
from gateway.tls import client_context, profile
from gateway.tls_reload import ServerTls
from tests.gateway.dicom.test_listener import FAR_BELOW_ARTIM, SYNTAXES, Memory, asked, everything, find_many, image
from tests.gateway.dicom.test_negotiation import CT, request_pdu
from tests.tools.certificates import Issued, authority, issued
from tests.tools.dcmtk import with_dcmtk
from tests.tools.waiting import PATIENCE_SECONDS, wait_until

CA = authority()
GATEWAY = issued("gateway", CA)
MODALITY = issued("modality", CA)
EXPIRED = issued("modality", CA, begins=timedelta(days=-2), ends=timedelta(days=-1))
STRANGER = issued("stranger", authority("Another CA"))


def site(folder: Path, *, client_ca: Issued | None = None, certificate: Issued = GATEWAY) -> GatewaySettings:
    """Settings of a site whose TLS files lie in `folder`."""
    own, key = certificate.write(folder, "gateway")
    (folder / "ca.pem").write_bytes(CA.pem)
    environment = {"GATEWAY_TLS_CERTIFICATE": own, "GATEWAY_TLS_KEY": key}
    if client_ca is not None:
        (folder / "clients.pem").write_bytes(client_ca.pem)
        environment["GATEWAY_TLS_CLIENT_CA"] = folder / "clients.pem"
    return GatewaySettings.model_validate(environment)


@contextmanager
def listening(
    settings: GatewaySettings, limits: ListenerLimits | None = None, **handlers: object
) -> Iterator[Listener]:
    contexts = {CT: SYNTAXES, str(ModalityWorklistInformationFind): SYNTAXES}
    application = Application(ae_title="SCREENING_PACS", contexts=contexts, **handlers)  # type: ignore[arg-type]
    tls = ServerTls.of(settings)
    with Listener(application, host="127.0.0.1", port=0, limits=limits, tls=tls) as listener:
        yield listener


@contextmanager
def associated(listener: Listener, context: ssl.SSLContext) -> Iterator[Association]:
    entity = AE(ae_title="TESTER")
    for name in (CTImageStorage, ModalityWorklistInformationFind, Verification):
        entity.add_requested_context(name, list(SYNTAXES))
    association = entity.associate(
        "127.0.0.1", listener.port, ae_title="SCREENING_PACS", tls_args=(context, "localhost")
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def trusting(folder: Path, own: Issued | None = None) -> ssl.SSLContext:
    """A client that knows the CA, and has a certificate of its own or none."""
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if own is not None:
        context.load_cert_chain(*own.write(folder, "own"))
    return context


def reasons(logs: Sequence[Mapping[str, object]], event: str = "TLS handshake failed") -> list[object]:
    return [line["reason"] for line in logs if line["event"] == event]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_objects_of_any_size_arrive_within_tls_byte_for_byte(tmp_path: Path, version: ssl.TLSVersion) -> None:
    memory = Memory()
    with listening(site(tmp_path), handle_store=memory) as listener, capture_logs() as logs:
        context = trusting(tmp_path)
        context.minimum_version = context.maximum_version = version
        with associated(listener, context) as peer:
            for size in (0, 10, 300_000, 5_000_000):
                assert peer.send_c_store(image(size)).Status == 0x0000
    assert [len(data) - data.index(b"\xe0\x7f\x10\x00OB") - 12 for data in memory.kept] == [0, 10, 300_000, 5_000_000]
    [accepted] = [line for line in logs if line["event"] == "association accepted"]
    assert str(accepted["tls"]).startswith(version.name.replace("_", "."))


def dcmtk(tool: str, folder: Path, listener: Listener, *arguments: str | Path) -> str:
    certificate, key = MODALITY.write(folder, "modality")
    command = [tool, "-v", "-aec", "SCREENING_PACS", "+tls", key, certificate, "+cf", folder / "ca.pem"]
    command += ["localhost", str(listener.port), *arguments]
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@with_dcmtk
def test_dcmtk_echoes_and_stores_with_its_own_certificate(tmp_path: Path) -> None:
    memory, file = Memory(), tmp_path / "image.dcm"
    image(3_000_000).save_as(file, enforce_file_format=True)
    with listening(site(tmp_path, client_ca=CA), handle_store=memory) as listener, capture_logs() as logs:
        assert "Received Echo Response (Success)" in dcmtk("echoscu", tmp_path, listener)
        assert "Received Store Response (Success)" in dcmtk("storescu", tmp_path, listener, file)
    assert [len(data) > 3_000_000 for data in memory.kept] == [True]
    accepted = [line for line in logs if line["event"] == "association accepted"]
    assert {line["certificate"] for line in accepted} == {MODALITY.fingerprint}
    assert not reasons(logs)


@with_dcmtk
def test_a_query_within_tls_is_cancelled_while_it_is_answered(tmp_path: Path) -> None:
    with listening(site(tmp_path), handle_find=find_many(1_000_000)) as listener:
        output = dcmtk("findscu", tmp_path, listener, "-W", "--cancel", "20", "-k", "PatientID")
    assert "Received Final Find Response (Cancel: MatchingTerminatedDueToCancelRequest)" in output
    assert output.count("(Pending)") < 100_000


def test_every_answer_of_a_large_query_arrives(tmp_path: Path) -> None:
    with (
        listening(site(tmp_path), handle_find=find_many(3_000)) as listener,
        associated(listener, trusting(tmp_path)) as peer,
    ):
        answers = [answer for _, answer in peer.send_c_find(asked("*"), ModalityWorklistInformationFind) if answer]
    assert [answer.PatientID for answer in answers] == [str(number) for number in range(3_000)]


REFUSED = {
    "without a certificate": (
        None,
        "The peer has no certificate, which GATEWAY_TLS_CLIENT_CA demands: give it one that this CA has signed.",
    ),
    "from another CA": (
        STRANGER,
        "The certificate of the peer is not accepted (unable to get local issuer certificate): it has to be valid "
        "today and signed by the CA in GATEWAY_TLS_CLIENT_CA.",
    ),
    "that has expired": (
        EXPIRED,
        "The certificate of the peer is not accepted (certificate has expired): it has to be valid today and signed by "
        "the CA in GATEWAY_TLS_CLIENT_CA.",
    ),
}


@pytest.mark.parametrize(("own", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_machine_whose_certificate_is_not_good_is_turned_away(
    tmp_path: Path, own: Issued | None, sentence: str
) -> None:
    with listening(site(tmp_path, client_ca=CA)) as listener, capture_logs() as logs:
        with associated(listener, trusting(tmp_path, own)) as peer:
            assert not peer.is_established
        wait_until(lambda: bool(reasons(logs)))
    assert reasons(logs) == [sentence]


def test_our_own_certificate_may_call(tmp_path: Path) -> None:
    settings = site(tmp_path, client_ca=authority("CA of the machines"))
    context = client_context(settings)
    assert context is not None
    with listening(settings) as listener, associated(listener, context) as peer:
        assert peer.send_c_echo().Status == 0x0000


def old_client(folder: Path) -> ssl.SSLContext:
    context = trusting(folder)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


def client_of_weak_suites(folder: Path) -> ssl.SSLContext:
    context = trusting(folder)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA256:ECDHE-ECDSA-AES128-SHA256")
    return context


def client_that_does_not_know_the_ca(_folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=STRANGER.pem.decode())


CLIENTS = {
    old_client: "The peer speaks only TLS before 1.2, which is not taken: update or reconfigure it.",
    client_of_weak_suites: "The peer offers no cipher suite of the profile (TLS 1.2 with ECDHE and AES-GCM or "
    "ChaCha20, or TLS 1.3) that goes with the key of GATEWAY_TLS_CERTIFICATE.",
    client_that_does_not_know_the_ca: "The peer does not know the CA of GATEWAY_TLS_CERTIFICATE: give the peer the "
    "CA's certificate, and this file the chain up to it.",
}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("client", "sentence"), CLIENTS.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_what_is_below_the_profile_is_not_agreed_on(tmp_path: Path, client: object, sentence: str) -> None:
    with listening(site(tmp_path)) as listener, capture_logs() as logs:
        with socket.create_connection(("127.0.0.1", listener.port)) as connection, pytest.raises(ssl.SSLError):
            client(tmp_path).wrap_socket(connection, server_hostname="localhost")  # type: ignore[operator]
        wait_until(lambda: bool(reasons(logs)))
    assert reasons(logs) == [sentence]


def test_plain_dicom_on_a_port_with_tls_is_explained(tmp_path: Path) -> None:
    with listening(site(tmp_path)) as listener, capture_logs() as logs:
        with socket.create_connection(("127.0.0.1", listener.port), timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(request_pdu([]))
            assert everything(connection) == b""
        wait_until(lambda: bool(reasons(logs)))
    assert reasons(logs) == [
        "The peer speaks DICOM without TLS, which this port takes only with TLS: switch TLS on at the peer, "
        "or take GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY out of the settings."
    ]


def test_tls_on_a_plain_port_is_explained(tmp_path: Path) -> None:
    site(tmp_path)
    with Listener(Application(ae_title="X", contexts={}), host="127.0.0.1", port=0) as listener, capture_logs() as logs:
        with socket.create_connection(("127.0.0.1", listener.port)) as connection, pytest.raises(ssl.SSLError):
            trusting(tmp_path).wrap_socket(connection, server_hostname="localhost")
        wait_until(lambda: bool(reasons(logs, "association aborted")))
    assert reasons(logs, "association aborted") == [
        "PDU type 16H does not exist; it is how TLS begins: switch TLS off at the peer, or set GATEWAY_TLS_CERTIFICATE "
        "and GATEWAY_TLS_KEY."
    ]


def test_handshakes_that_get_stuck_end_with_their_time_and_hold_nobody_up(tmp_path: Path) -> None:
    limits = ListenerLimits(artim_seconds=3.0)  # in which the one that is well has to shake hands
    with listening(site(tmp_path), limits) as listener, capture_logs() as logs:
        stuck = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(3)]
        stuck[0].sendall(b"\x16\x03\x01\x02\x00\x01")  # the first bytes of a record that never ends
        with associated(listener, trusting(tmp_path)) as peer:
            assert peer.send_c_echo().Status == 0x0000
        began = time.monotonic()
        with suppress(OSError):  # one byte after another does not buy time
            while listener._open:
                stuck[0].sendall(b"\0")
                time.sleep(0.05)
        wait_until(lambda: not listener._open)
        assert time.monotonic() - began < FAR_BELOW_ARTIM
        for connection in stuck:
            connection.close()
    assert set(reasons(logs, "association lost")) <= {
        "the peer has been silent for too long",
        "the association request did not come in time",
    }


def test_a_silent_association_within_tls_ends(tmp_path: Path) -> None:
    with (
        listening(site(tmp_path), ListenerLimits(idle_seconds=0.3)) as listener,
        capture_logs() as logs,
        associated(listener, trusting(tmp_path)) as peer,
    ):
        wait_until(lambda: not listener._open)
        peer.abort()
    assert reasons(logs, "association lost") == ["the peer has been silent for too long"]


def test_a_stop_ends_idle_associations_and_handshakes_within_tls(tmp_path: Path) -> None:
    with (
        listening(site(tmp_path)) as listener,
        socket.create_connection(("127.0.0.1", listener.port)),
        associated(listener, trusting(tmp_path)) as peer,
    ):
        wait_until(lambda: len(listener._open) == 2)
        began = time.monotonic()
        listener.stop(grace_seconds=PATIENCE_SECONDS)
        assert time.monotonic() - began < PATIENCE_SECONDS
        wait_until(lambda: not peer.is_established)


def test_a_peer_that_closes_without_a_word_costs_only_its_own_association(tmp_path: Path) -> None:
    memory = Memory()
    with listening(site(tmp_path), handle_store=memory) as listener, capture_logs() as logs:
        with socket.create_connection(("127.0.0.1", listener.port)) as connection:
            trusting(tmp_path).wrap_socket(connection, server_hostname="localhost").close()
        wait_until(lambda: bool(reasons(logs, "association lost")))
        with associated(listener, trusting(tmp_path)) as peer:
            assert peer.send_c_store(image()).Status == 0x0000
    assert reasons(logs, "association lost") == ["the peer closed the connection without releasing the association"]


GARBAGE = {
    "nothing like TLS": b"GET / HTTP/1.1\r\n\r\n",
    "a record of garbage": b"\x16\x03\x01\x00\x08" + b"garbage!",
    "a record too long": b"\x16\x03\x01\xff\xff" + bytes(100),
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "SSL 2": b"\x80\x2e\x01\x00\x02" + bytes(44),
    "a closed connection": b"",
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_garbage_on_a_port_with_tls_ends_its_own_connection_and_others_are_served(
    tmp_path: Path, garbage: bytes
) -> None:
    with (
        listening(site(tmp_path)) as listener,
        capture_logs() as logs,
        associated(listener, trusting(tmp_path)) as peer,
        socket.create_connection(("127.0.0.1", listener.port), timeout=PATIENCE_SECONDS) as connection,
    ):
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        everything(connection)
        wait_until(lambda: bool(reasons(logs)))
        assert peer.send_c_echo().Status == 0x0000
    assert len(reasons(logs)) == 1


def test_a_record_that_was_tampered_with_costs_its_own_association(tmp_path: Path) -> None:
    with (
        listening(site(tmp_path)) as listener,
        capture_logs() as logs,
        socket.create_connection(("127.0.0.1", listener.port), timeout=PATIENCE_SECONDS) as connection,
    ):
        secured = trusting(tmp_path).wrap_socket(connection, server_hostname="localhost")
        with socket.socket(fileno=secured.detach()) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            wait_until(lambda: not listener._open)
    [reason] = reasons(logs, "association lost")
    assert str(reason).startswith("the connection broke")


def test_settings_that_do_not_make_tls_stop_the_start_with_a_sentence(tmp_path: Path) -> None:
    certificate, key = GATEWAY.write(tmp_path, "gateway")
    other = MODALITY.write(tmp_path, "other")[1]
    cases = {
        (
            certificate,
            None,
        ): "GATEWAY_TLS_KEY is not set, but other settings of TLS are; TLS needs certificate and key.",
        (certificate, other): "GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY cannot be used (KEY_VALUES_MISMATCH): "
        "see `gateway tls check`.",
        (tmp_path / "none.pem", key): f"GATEWAY_TLS_CERTIFICATE={tmp_path}/none.pem cannot be read by this service: "
        "No such file or directory.",
    }
    for (own, its_key), sentence in cases.items():
        with pytest.raises(SettingsError) as caught:
            ServerTls.of(GatewaySettings.model_validate({"GATEWAY_TLS_CERTIFICATE": own, "GATEWAY_TLS_KEY": its_key}))
        assert str(caught.value) == sentence


def test_the_profile_is_what_is_said_of_it() -> None:
    context = profile(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert sorted(cipher["name"] for cipher in context.get_ciphers()) == [
        "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256",
    ]  # fmt: skip
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.options & ssl.OP_NO_COMPRESSION
