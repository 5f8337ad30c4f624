"""`gateway tls check`: every way a set-up can be wrong has its sentence."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.dicom.application import Application
from gateway.dicom.listener import Listener
from gateway.hops import Hops
from gateway.settings import GatewaySettings
from operations.checks.tls_check import check_files
from operations.cli import app
from tests.gateway.test_tls import CA, GATEWAY, STRANGER, listening, site
from tests.tools.certificates import Issued, authority, issued, rsa_key

NOW = datetime.now(UTC)
NO_CA = "GATEWAY_TLS_CLIENT_CA is not set: machines are not asked for a certificate."
INTERMEDIATE = authority("Intermediate", CA)


def seen(settings: GatewaySettings) -> dict[str, tuple[str, str]]:
    hops = Hops()
    check_files(settings, hops, now=NOW)
    return {hop.name: (hop.state, hop.detail) for hop in hops.seen}


def settings_of(folder: Path, own: Issued, *chain: Issued) -> GatewaySettings:
    certificate, key = own.write(folder, "gateway", *chain)
    return GatewaySettings.model_validate({"GATEWAY_TLS_CERTIFICATE": certificate, "GATEWAY_TLS_KEY": key})


def test_a_good_set_up_says_what_it_is_and_what_machines_need(tmp_path: Path) -> None:
    own = issued("gateway", INTERMEDIATE, names=("gateway.site", "10.0.1.5"))
    until = f"{own.certificate.not_valid_after_utc:%Y-%m-%d}"
    assert seen(settings_of(tmp_path, own, INTERMEDIATE)) == {
        "certificate file": ("ok", "'CN=gateway', signed by 'CN=Intermediate', with 1 more behind it."),
        "key file": ("ok", "Readable, mode 600."),
        "key belongs to certificate": ("ok", "They are a pair."),
        "dates": ("ok", f"Valid until {until}."),
        "names": ("ok", "Machines have to call it gateway.site or 10.0.1.5."),
        "purposes": ("ok", "For servers and clients."),
        "strength": ("ok", "Elliptic curve with 256 bits, signed with sha256."),
        "chain": ("ok", "Machines need 'CN=Site CA' in their list of CAs; if it is no root, add it to the file."),
        "CA of the machines": (
            "skipped",
            "GATEWAY_TLS_CLIENT_CA is not set: machines are not asked for a certificate.",
        ),
        "CA of the peers": (
            "skipped",
            "GATEWAY_TLS_PEER_CA is not set: peers that are called are known by GATEWAY_TLS_CLIENT_CA.",
        ),
    }


def days(count: int) -> timedelta:
    return timedelta(days=count)


def day(count: int) -> str:
    return f"{NOW + days(count):%Y-%m-%d}"


CERTIFICATES: dict[str, tuple[Callable[[], list[Issued]], str, str]] = {
    "expired": (
        lambda: [issued("gateway", CA, begins=days(-9), ends=days(-2))],
        "dates", f"'CN=gateway' has expired on {day(-2)} (today is {day(0)}).",
    ),
    "not yet valid": (
        lambda: [issued("gateway", CA, begins=days(2))],
        "dates", f"'CN=gateway' is valid only from {day(2)} (today is {day(0)}).",
    ),
    "with a wrong chain": (
        lambda: [GATEWAY, STRANGER],
        "chain", "Behind 'CN=gateway' should stand 'CN=Site CA', which signed it, but there is 'CN=stranger'.",
    ),
    "without names": (
        lambda: [issued("gateway", CA, names=())],
        "names", "Its subject alternative names have neither a host name nor an address.",
    ),
    "for clients only": (
        lambda: [issued("gateway", CA, purposes=(ExtendedKeyUsageOID.CLIENT_AUTH,))],
        "purposes", "It may not be used by a server (extended key usage).",
    ),
    "of a short key": (
        lambda: [issued("gateway", CA, key=rsa_key(1024))],
        "strength", "The RSA key of 'CN=gateway' has 1024 bits; 2048 are the least.",
    ),
    "of a small curve": (
        lambda: [issued("gateway", CA, key=ec.generate_private_key(ec.SECP224R1()))],
        "strength", "The curve of 'CN=gateway' has 224 bits; 256 are the least.",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("made", "hop", "sentence"), CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate_that_will_not_do_says_why(
    tmp_path: Path, made: Callable[[], list[Issued]], hop: str, sentence: str
) -> None:
    found = seen(settings_of(tmp_path, *made()))
    assert {name: detail for name, (state, detail) in found.items() if state == "failed"} == {hop: sentence}


def readable_by_everybody(_certificate: Path, key: Path) -> None:
    key.chmod(0o644)


def somebody_elses_key(_certificate: Path, key: Path) -> None:
    key.write_bytes(STRANGER.key_pem)


def key_with_a_password(certificate: Path, key: Path) -> None:
    secret = serialization.BestAvailableEncryption(b"secret")
    pem = GATEWAY.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    key.write_bytes(pem)


def no_certificate(certificate: Path, key: Path) -> None:
    certificate.write_text("nothing")


def no_key_file(_certificate: Path, key: Path) -> None:
    key.unlink()


FILES: dict[Callable[[Path, Path], None], tuple[str, str]] = {
    readable_by_everybody: (
        "key file",
        "{key} can be read by everybody on this machine: chmod 640, owned by root and our group.",
    ),
    somebody_elses_key: ("key belongs to certificate", "{key} is not the key of {certificate}."),
    key_with_a_password: ("key file", "{key} has a password, which nobody can type when the service starts."),
    no_certificate: ("certificate file", "{certificate} holds no certificate in PEM form."),
    no_key_file: ("key file", "{key} cannot be read by this user: No such file or directory."),
}


@pytest.mark.parametrize(("spoil", "expected"), FILES.items(), ids=lambda each: getattr(each, "__name__", ""))
def test_a_file_that_will_not_do_says_why(
    tmp_path: Path, spoil: Callable[[Path, Path], None], expected: tuple[str, str]
) -> None:
    settings = settings_of(tmp_path, GATEWAY)
    certificate, key = tmp_path / "gateway.pem", tmp_path / "gateway.key"
    spoil(certificate, key)
    hop, sentence = expected
    assert seen(settings)[hop] == ("failed", sentence.format(certificate=certificate, key=key))


def checked(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Run the command on the files in `folder`; its exit code and what it saw."""
    monkeypatch.setenv("GATEWAY_TLS_CERTIFICATE", str(folder / "gateway.pem"))
    monkeypatch.setenv("GATEWAY_TLS_KEY", str(folder / "gateway.key"))
    with capture_logs():  # of the listener, which is in this process
        result = CliRunner().invoke(app, ["tls", "check", "--json", *arguments], catch_exceptions=False)
    return result.exit_code, {hop["name"]: (hop["state"], hop["detail"]) for hop in json.loads(result.stdout)}


def test_what_a_peer_agrees_to_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening(site(tmp_path)) as listener:
        code, found = checked(monkeypatch, tmp_path, "--connect", f"127.0.0.1:{listener.port}")
    until = f"{GATEWAY.certificate.not_valid_after_utc:%Y-%m-%d}"
    assert code == 0
    assert {name: found[name] for name in list(found)[-3:]} == {
        "TLSv1.3 with the peer": ("ok", f"TLS_AES_256_GCM_SHA384; it is 'CN=gateway', valid until {until}."),
        "TLSv1.2 with the peer": ("ok", f"ECDHE-ECDSA-AES256-GCM-SHA384; it is 'CN=gateway', valid until {until}."),
        "certificate of the peer": ("ok", "It is trusted here."),
    }


def test_a_peer_that_turns_us_down_or_is_a_stranger_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    GATEWAY.write(tmp_path, "gateway")
    with listening(site(theirs, client_ca=STRANGER, certificate=STRANGER)) as listener:
        code, found = checked(monkeypatch, tmp_path, "--connect", f"127.0.0.1:{listener.port}")
    assert code == 1
    unknown = "The peer does not know the CA of GATEWAY_TLS_CERTIFICATE: give the peer the CA's certificate, and this "
    assert {name: found[name] for name in list(found)[-3:]} == {
        "TLSv1.3 with the peer": ("failed", unknown + "file the chain up to it."),
        "TLSv1.2 with the peer": ("failed", unknown + "file the chain up to it."),
        "certificate of the peer": ("failed", "It is not trusted here: unable to get local issuer certificate."),
    }


def test_a_peer_without_tls_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site(tmp_path)
    with Listener(Application(ae_title="X", contexts={}), host="127.0.0.1", port=0) as listener:
        code, found = checked(monkeypatch, tmp_path, "--connect", f"127.0.0.1:{listener.port}")
    assert code == 1
    assert found["TLSv1.3 with the peer"] == ("failed", "The other side does not speak TLS on this port.")


def test_without_tls_there_is_nothing_to_check() -> None:
    result = CliRunner().invoke(app, ["tls", "check"], catch_exceptions=False)
    assert result.exit_code == 0
    assert "TLS is not configured: set GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY." in result.stdout
