"""Calling others within TLS: what is checked, what is shown, and what an operator reads when it does not come about."""

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.dicom.application import Application
from gateway.dicom.listener import Listener
from gateway.dicom.requestor import calling, verification
from gateway.errors import PeerError, SettingsError
from gateway.remote_ae import Peer
from gateway.settings import GatewaySettings, load
from gateway.tls import CallFiles
from gateway.tls_reload import ServerTls
from operations.cli import app
from pacs import Archive
from pacs.commitment.reporter import Reporter
from pacs.commitment.rows import CommitmentRows
from pacs.commitment.rules import Reference, Transaction
from pacs.forward.sender import ForwardSender
from pacs.scp import application
from pacs.settings import PacsSettings
from simulator.site import free_port
from tests.gateway.test_tls import CA, GATEWAY, MODALITY, STRANGER, listening, site
from tests.pacs.archive.test_archive import NOW, archive, image, send
from tests.pacs.archive.test_attributes import encoded
from tests.pacs.query_retrieve.test_retrieve import moved
from tests.pacs.test_scp import data_set_bytes
from tests.tools.certificates import Issued, issued
from tests.tools.dcmtk import running, with_dcmtk
from tests.tools.waiting import wait_until

__all__ = ["archive"]

EXPLICIT = "1.2.840.10008.1.2.1"


def files(folder: Path, *, ca: Issued = CA, own: Issued | None = None) -> CallFiles:
    """What we call with: a CA, and our certificate or none."""
    folder = folder / "ours"
    folder.mkdir(exist_ok=True)
    (folder / "peers.pem").write_bytes(ca.pem)
    environment = {"GATEWAY_TLS_PEER_CA": folder / "peers.pem"}
    if own is not None:
        certificate, key = own.write(folder, "own")
        environment |= {"GATEWAY_TLS_CERTIFICATE": certificate, "GATEWAY_TLS_KEY": key}
    found = CallFiles.of(GatewaySettings.model_validate(environment))
    assert found is not None
    return found


def peer_on(port: int, host: str = "localhost") -> Peer:
    return Peer("SCREENING_PACS", host, port, tls=True)


def test_a_peer_says_with_its_address_that_it_wants_tls() -> None:
    assert Peer.parse("SITE_PACS=pacs.site:2762/tls", "=") == Peer("SITE_PACS", "pacs.site", 2762, tls=True)
    assert Peer.parse("SITE_PACS=[::1]:104", "=") == Peer("SITE_PACS", "::1", 104)
    assert str(Peer("SITE_PACS", "pacs.site", 2762, tls=True)) == "SITE_PACS at pacs.site:2762/tls"
    with pytest.raises(ValueError, match="a peer is written as AET=host:port, or AET=host:port/tls"):
        Peer.parse("SITE_PACS=pacs.site:2762/ssl", "=")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (
            {"PACS_PEERS": "A=h:1/tls"},
            "PACS_PEERS has a peer with /tls, but GATEWAY_TLS_PEER_CA does not say whom to trust.",
        ),
        (
            {"PACS_PEERS": "A=h:1", "PACS_FORWARD_TO": "B"},
            "PACS_FORWARD_TO names B, whose address is not in PACS_PEERS.",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], sentence: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        load(PacsSettings)
    assert str(refused.value) == sentence


def test_a_peer_is_verified_called_by_name_and_shown_our_certificate(tmp_path: Path) -> None:
    with listening(site(tmp_path, client_ca=CA)) as listener, capture_logs() as logs:
        tls = files(tmp_path, own=MODALITY)
        with calling(peer_on(listener.port), verification(), ae_title="US", tls=tls) as call:
            call.echo()
    [accepted] = [line for line in logs if line["event"] == "association accepted"]
    assert accepted["certificate"] == MODALITY.fingerprint
    assert str(accepted["tls"]).startswith("TLSv1.3")


def test_a_certificate_that_is_in_the_file_itself_needs_no_ca(tmp_path: Path) -> None:
    with (
        listening(site(tmp_path)) as listener,
        calling(peer_on(listener.port), verification(), ae_title="US", tls=files(tmp_path, ca=GATEWAY)) as call,
    ):
        call.echo()


@contextmanager
def within_tls(folder: Path, **how: Issued) -> Iterator[int]:
    with listening(site(folder, **how)) as listener:
        yield listener.port


@contextmanager
def plain(_folder: Path) -> Iterator[int]:
    with Listener(Application(ae_title="SCREENING_PACS", contexts={}), host="127.0.0.1", port=0) as listener:
        yield listener.port


@contextmanager
def old(folder: Path) -> Iterator[int]:
    """A server that speaks TLS 1.1 at best."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*GATEWAY.write(folder, "gateway"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    entity = AE("SCREENING_PACS")
    entity.add_supported_context("1.2.840.10008.1.1")
    server = entity.start_server(("127.0.0.1", 0), block=False, ssl_context=context)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()


EXPIRED = issued("gateway", CA, begins=timedelta(days=-9), ends=timedelta(days=-2))
NOT_ACCEPTED = (
    "cannot be called within TLS: its certificate is not accepted ({}): it has to be valid today, and to be in, or "
    "signed by what is in, GATEWAY_TLS_PEER_CA (without it, GATEWAY_TLS_CLIENT_CA)."
)
REFUSALS: dict[str, tuple[Callable[[Path], object], str, Issued | None, str]] = {
    "of another CA": (
        lambda folder: within_tls(folder, certificate=STRANGER), "localhost", None,
        NOT_ACCEPTED.format("unable to get local issuer certificate"),
    ),
    "that has expired": (
        lambda folder: within_tls(folder, certificate=EXPIRED), "localhost", None,
        NOT_ACCEPTED.format("certificate has expired"),
    ),
    "with another name": (
        within_tls, "127.0.0.1", None,
        "cannot be called within TLS: its certificate does not name 127.0.0.1: call it in PACS_PEERS as the "
        "certificate does, or have it renewed.",
    ),
    "without TLS": (
        plain, "localhost", None,
        "cannot be called within TLS: it does not speak TLS on this port: take /tls away, or switch TLS on there.",
    ),
    "that is too old": (
        old, "localhost", None,
        "cannot be called within TLS: it speaks only TLS before 1.2, which is not used: update or reconfigure it.",
    ),
    "that demands a certificate": (
        lambda folder: within_tls(folder, client_ca=CA), "localhost", None,
        "ended TLS: it demands a certificate of ours, and GATEWAY_TLS_CERTIFICATE is not set.",
    ),
    "that does not know our CA": (
        lambda folder: within_tls(folder, client_ca=CA), "localhost", STRANGER,
        "ended TLS: it does not know the CA of GATEWAY_TLS_CERTIFICATE: give it the CA's certificate.",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("served", "host", "own", "sentence"), REFUSALS.values(), ids=REFUSALS)
def test_a_peer_that_cannot_be_trusted_or_does_not_trust_us_is_explained(
    tmp_path: Path, served: Callable[[Path], object], host: str, own: Issued | None, sentence: str
) -> None:
    with ExitStack() as stack:
        port: int = stack.enter_context(served(tmp_path))  # type: ignore[arg-type]
        stack.enter_context(capture_logs())
        peer = peer_on(port, host)
        with (
            pytest.raises(PeerError) as refused,
            calling(peer, verification(), ae_title="US", tls=files(tmp_path, own=own)) as call,
        ):
            call.echo()
    assert str(refused.value) == f"{peer} {sentence}"


def test_files_that_have_gone_since_the_start_are_named(tmp_path: Path) -> None:
    tls, peer = files(tmp_path), peer_on(1)
    tls.ca.unlink()
    with pytest.raises(PeerError) as refused, calling(peer, verification(), ae_title="US", tls=tls):
        pass
    assert str(refused.value) == (
        f"{peer} cannot be called within TLS: GATEWAY_TLS_PEER_CA={tls.ca} cannot be read by this service: "
        "No such file or directory."
    )


@with_dcmtk
def test_dcmtk_is_forwarded_to_within_tls_bit_by_bit(archive: Archive, tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "taken"
    folder.mkdir()
    certificate, key = GATEWAY.write(tmp_path, "storescp")
    tls = files(tmp_path, own=MODALITY)
    command = ["storescp", "+B", "-aet", "SCREENING_PACS", "+tls", key, certificate, "+cf", tls.ca, "-od", folder]
    with (
        running(port, *command, str(port)),
        ForwardSender(archive, [peer_on(port)], ["SCREENING_PACS"], ae_title="US", tls=tls),
    ):
        send(archive, image(1))
        wait_until(lambda: [path for path in folder.iterdir() if dcmread(path)])
        [taken] = folder.iterdir()
        assert data_set_bytes(taken) == encoded(image(1), EXPLICIT)


def test_a_study_is_moved_within_tls(archive: Archive, tmp_path: Path) -> None:
    send(archive, image(1))
    with closing(Archive.open(tmp_path / "other.db", tmp_path / "other")) as other, ExitStack() as stack:
        theirs = application(other, Reporter(other, ()), ae_title="OTHER")
        tls = ServerTls.of(site(tmp_path, client_ca=CA))
        destination = stack.enter_context(Listener(theirs, host="127.0.0.1", port=0, tls=tls))
        peer = Peer("OTHER", "localhost", destination.port, tls=True)
        ours = application(
            archive,
            Reporter(archive, ()),
            ae_title="SCREENING_PACS",
            peers=[peer],
            tls=files(tmp_path, own=MODALITY),
        )
        listener = stack.enter_context(Listener(ours, host="127.0.0.1", port=0))
        *_, (status, _) = moved(listener, "OTHER")
        assert status.Status == 0x0000
        assert other.instance("2.25.1").sha256 == archive.instance("2.25.1").sha256


def test_a_commitment_is_reported_within_tls_and_the_reason_is_kept_when_that_fails(
    archive: Archive, tmp_path: Path
) -> None:
    told: list[Dataset] = []
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*GATEWAY.write(tmp_path, "requester"))
    entity = AE("MAMMO_1")
    entity.add_supported_context(StorageCommitmentPushModel, scu_role=True, scp_role=True)

    def take(event: evt.Event) -> tuple[int, None]:
        told.append(event.event_information)
        return 0x0000, None

    server = entity.start_server(
        ("127.0.0.1", 0), block=False, ssl_context=context, evt_handlers=[(evt.EVT_N_EVENT_REPORT, take)]
    )
    rows, port = CommitmentRows(archive), server.server_address[1]
    asked = Transaction("2.25.9", "MAMMO_1", "SCREENING_PACS", (Reference("1.2", "2.25.1"),))
    rows.take(asked, now=NOW)
    with Reporter(archive, [Peer("MAMMO_1", "127.0.0.1", port, tls=True)], tls=files(tmp_path)):
        wait_until(lambda: rows.facts()["it waits because"])
    assert rows.facts()["it waits because"] == (
        f"MAMMO_1 at 127.0.0.1:{port}/tls cannot be called within TLS: its certificate does not name 127.0.0.1: "
        "call it in PACS_PEERS as the certificate does, or have it renewed."
    )
    with Reporter(archive, [Peer("MAMMO_1", "localhost", port, tls=True)], tls=files(tmp_path)):
        wait_until(lambda: not rows.facts()["commitments to report"])
    server.shutdown()
    assert [each.TransactionUID for each in told] == ["2.25.9"]


def run(*arguments: str) -> tuple[int, str]:
    with capture_logs():  # of the listener, which is in this process
        result = CliRunner().invoke(app, arguments)
    return result.exit_code, result.output + str(result.exception or "")


def test_the_commands_call_within_tls_and_explain_a_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_TLS_PEER_CA", str(files(tmp_path).ca))
    with listening(site(tmp_path)) as listener:
        monkeypatch.setenv("PACS_PEERS", f"RIGHT=localhost:{listener.port}/tls,WRONG=127.0.0.1:{listener.port}/tls")
        code, said = run("echo", f"SCREENING_PACS@localhost:{listener.port}/tls")
        assert (code, said.partition(",")[0]) == (0, f"SCREENING_PACS at localhost:{listener.port}/tls answers")
        code, said = run("tls", "check", "--connect", "RIGHT", "--json")
        *_, last = json.loads(said[: said.rindex("]") + 1])
        assert (code, last["name"], last["state"], last["detail"]) == (
            0, "called as PACS_PEERS says", "ok", "Its certificate is trusted here and names localhost.",
        )  # fmt: skip
        code, said = run("tls", "check", "--connect", "WRONG")
        assert code == 1
        assert "its certificate does not name 127.0.0.1" in said
