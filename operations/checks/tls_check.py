"""Explains a TLS set-up in sentences: the files, what stands in them, and what a peer agrees to.

Every question is a hop of its own, so that a wrong file is named and the others are still looked at. What is only
worth knowing stands in the detail of a hop that is well.

Not for: deciding which TLS is good enough (`tls`).
"""

import socket
import ssl
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.dicom.requestor import context_for
from gateway.hops import HopFailed, Hops, Note, Nothing, Observed
from gateway.remote_ae import Peer
from gateway.settings import GatewaySettings
from gateway.tls import CallFiles, TlsFiles, call_failure, client_context, failure, profile

SOON = timedelta(days=30)
"""A certificate that ends within this time is worth a sentence; hospitals take weeks to issue one."""

LEAST_RSA_BITS, LEAST_CURVE_BITS = 2048, 256
"""PS3.15 B.12 by way of RFC 9325 4.5."""

_SECONDS = 10.0
_ALERT_SECONDS = 1.0
"""With TLS 1.3 a peer turns a certificate down after the handshake; so long it may take to say so."""

Certificates = list[x509.Certificate]


def check_files(settings: GatewaySettings, hops: Hops, *, now: datetime) -> None:
    """Look at every file of TLS. Raises SettingsError when only a part of them is set."""
    files = TlsFiles.of(settings)
    if files is None:
        _look(hops, "TLS", _not_configured, "")
        _look(
            hops, "CA of the peers", lambda note: _peer_ca(note, settings.tls_peer_ca, now), "See GATEWAY_TLS_PEER_CA."
        )
        return
    looks: list[tuple[str, Callable[[Note], None], str]] = [
        ("certificate file", lambda note: _certificate_file(note, files), "See GATEWAY_TLS_CERTIFICATE."),
        ("key file", lambda note: _key_file(note, files.key), "See GATEWAY_TLS_KEY."),
        ("key belongs to certificate", lambda note: _pair(note, files), "Take the key the request was made with."),
        ("dates", lambda note: _dates(note, _read(files.certificate), now), "Ask for a new certificate."),
        ("names", lambda note: _names(note, _read(files.certificate)[0]), "Ask for one with the names machines call."),
        ("purposes", lambda note: _purposes(note, _read(files.certificate)[0]), "Ask for one for server and client."),
        ("strength", lambda note: _strength(note, _read(files.certificate)), "Ask for RSA 2048 or P-256 with SHA-256."),
        ("chain", lambda note: _chain(note, _read(files.certificate)), "Own certificate first, then who signed it."),
        ("CA of the machines", lambda note: _client_ca(note, files.client_ca, now), "See GATEWAY_TLS_CLIENT_CA."),
        ("CA of the peers", lambda note: _peer_ca(note, settings.tls_peer_ca, now), "See GATEWAY_TLS_PEER_CA."),
    ]
    for name, look, remedy in looks:
        _look(hops, name, look, remedy)


def check_peer(settings: GatewaySettings, hops: Hops, *, host: str, port: int) -> None:
    """Shake hands with a peer in each version of TLS, and say what it agreed to and who it is."""
    _check_versions(settings, hops, host=host, port=port)
    remedy = "It has to be in, or signed by what is in, GATEWAY_TLS_CLIENT_CA or GATEWAY_TLS_CERTIFICATE."
    _look(hops, "certificate of the peer", lambda note: _known(note, host, port, settings), remedy)


def check_call(settings: GatewaySettings, hops: Hops, peer: Peer) -> None:
    """The same with a peer that is called within TLS, and as it is called: by name, and trusting whom calls trust."""
    _check_versions(settings, hops, host=peer.host, port=peer.port)
    _look(hops, "called as PACS_PEERS says", lambda note: _called(note, peer, settings), "")


def in_use(note: Note, settings: GatewaySettings, *, host: str, port: int) -> None:
    """Can the files be used, and does our own listener show what is in them? For a hop of `gateway check`."""
    context = client_context(settings)
    if context is None:
        raise Nothing("TLS is not configured.")
    context.verify_mode = ssl.CERT_NONE
    _, shown = _shake_hands(context, host, port)
    own = _read(settings.tls_certificate or Path())[0]
    if shown != own.public_bytes(serialization.Encoding.DER):
        raise Observed("The service shows another certificate than that in GATEWAY_TLS_CERTIFICATE.")
    note.detail = f"{_name(own.subject)} is shown, valid until {_day(own.not_valid_after_utc)}."


def _check_versions(settings: GatewaySettings, hops: Hops, *, host: str, port: int) -> None:
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        name = f"{version.name.replace('_', '.')} with the peer"
        _look(hops, name, partial(_agree, host=host, port=port, version=version, settings=settings), "")


def _look(hops: Hops, name: str, look: Callable[[Note], None], remedy: str) -> None:
    with suppress(HopFailed), hops.watch(name, remedy=remedy) as note:
        look(note)


def _not_configured(_note: Note) -> None:
    raise Nothing("TLS is not configured: set GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY.")


# ---- files -----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Certificates:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise Observed(f"{path} cannot be read by this user: {error.strerror}.") from error
    except ValueError as error:
        raise Observed(f"{path} holds no certificate in PEM form.") from error


def _read_key(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(path.read_bytes(), None)
    except OSError as error:
        raise Observed(f"{path} cannot be read by this user: {error.strerror}.") from error
    except TypeError as error:
        raise Observed(f"{path} has a password, which nobody can type when the service starts.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Observed(f"{path} holds no key in PEM form.") from error


def _certificate_file(note: Note, files: TlsFiles) -> None:
    own, *chain = _read(files.certificate)
    note.detail = f"{_name(own.subject)}, signed by {_name(own.issuer)}, with {len(chain)} more behind it."


def _key_file(note: Note, path: Path) -> None:
    _read_key(path)
    mode = path.stat().st_mode
    if mode & stat.S_IROTH:
        raise Observed(f"{path} can be read by everybody on this machine: chmod 640, owned by root and our group.")
    note.detail = f"Readable, mode {stat.S_IMODE(mode):o}."


def _pair(note: Note, files: TlsFiles) -> None:
    if _read_key(files.key).public_key() != _read(files.certificate)[0].public_key():
        raise Observed(f"{files.key} is not the key of {files.certificate}.")
    note.detail = "They are a pair."


# ---- what stands in them ---------------------------------------------------------------------------------------------


def _dates(note: Note, certificates: Certificates, now: datetime) -> None:
    for certificate in certificates:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now < begin:
            raise Observed(f"{_name(certificate.subject)} is valid only from {_day(begin)} (today is {_day(now)}).")
        if now > end:
            raise Observed(f"{_name(certificate.subject)} has expired on {_day(end)} (today is {_day(now)}).")
    end = min(certificate.not_valid_after_utc for certificate in certificates)
    note.detail = f"Valid until {_day(end)}." + (" That is soon: ask for a new one now." if end - now < SOON else "")


def _names(note: Note, certificate: x509.Certificate) -> None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise Observed("It has no subject alternative name; machines that compare names turn it down.") from None
    called = names.get_values_for_type(x509.DNSName) + list(map(str, names.get_values_for_type(x509.IPAddress)))
    if not called:
        raise Observed("Its subject alternative names have neither a host name nor an address.")
    note.detail = f"Machines have to call it {' or '.join(called)}."


def _purposes(note: Note, certificate: x509.Certificate) -> None:
    try:
        purposes = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        note.detail = "Any."
        return
    if ExtendedKeyUsageOID.SERVER_AUTH not in purposes:
        raise Observed("It may not be used by a server (extended key usage).")
    note.detail = "For servers and clients."
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        note.detail = "For servers only: where certificates of clients are demanded, the gateway cannot call with it."


def _strength(note: Note, certificates: Certificates) -> None:
    for certificate in certificates:
        key, name = certificate.public_key(), _name(certificate.subject)
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
            raise Observed(f"The RSA key of {name} has {key.key_size} bits; {LEAST_RSA_BITS} are the least.")
        if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < LEAST_CURVE_BITS:
            raise Observed(f"The curve of {name} has {key.key_size} bits; {LEAST_CURVE_BITS} are the least.")
        signed_with = certificate.signature_hash_algorithm
        if isinstance(signed_with, hashes.SHA1 | hashes.MD5) and not _is_root(certificate):
            raise Observed(f"{name} is signed with {signed_with.name}, which is broken.")
    own, signed_with = certificates[0].public_key(), certificates[0].signature_hash_algorithm
    kind = "RSA" if isinstance(own, rsa.RSAPublicKey) else "Elliptic curve"
    note.detail = f"{kind} with {getattr(own, 'key_size', 'its own number of')} bits, "
    note.detail += f"signed with {signed_with.name if signed_with else 'a hash of its own'}."


def _chain(note: Note, certificates: Certificates) -> None:
    for lower, upper in pairwise(certificates):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise Observed(
                f"Behind {_name(lower.subject)} should stand {_name(lower.issuer)}, which signed it, "
                f"but there is {_name(upper.subject)}."
            ) from error
    last = certificates[-1]
    if _is_root(last):
        note.detail = f"Complete; machines need {_name(last.subject)} in their list of CAs."
    else:
        note.detail = f"Machines need {_name(last.issuer)} in their list of CAs; if it is no root, add it to the file."


def _client_ca(note: Note, path: Path | None, now: datetime) -> None:
    if path is None:
        raise Nothing("GATEWAY_TLS_CLIENT_CA is not set: machines are not asked for a certificate.")
    certificates = _read(path)
    _dates(note, certificates, now)
    names = ", ".join(_name(certificate.subject) for certificate in certificates)
    note.detail = f"Machines need a certificate signed by {names}."


def _peer_ca(note: Note, path: Path | None, now: datetime) -> None:
    if path is None:
        raise Nothing("GATEWAY_TLS_PEER_CA is not set: peers that are called are known by GATEWAY_TLS_CLIENT_CA.")
    certificates = _read(path)
    _dates(note, certificates, now)
    names = ", ".join(_name(certificate.subject) for certificate in certificates)
    note.detail = f"Peers that are called within TLS need a certificate signed by {names}."


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _name(name: x509.Name) -> str:
    return f"'{name.rfc4514_string()}'"


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"


# ---- peers -----------------------------------------------------------------------------------------------------------


def _agree(note: Note, *, host: str, port: int, version: ssl.TLSVersion, settings: GatewaySettings) -> None:
    context = _calling(settings)
    context.minimum_version = context.maximum_version = version
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    suite, certificate = _shake_hands(context, host, port)
    peer = x509.load_der_x509_certificate(certificate)
    note.detail = f"{suite}; it is {_name(peer.subject)}, valid until {_day(peer.not_valid_after_utc)}."


def _known(note: Note, host: str, port: int, settings: GatewaySettings) -> None:
    context = _calling(settings)
    context.check_hostname, context.verify_mode = False, ssl.CERT_REQUIRED
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca)
    _shake_hands(context, host, port)
    note.detail = "It is trusted here."


def _called(note: Note, peer: Peer, settings: GatewaySettings) -> None:
    context = context_for(replace(peer, tls=True), CallFiles.of(settings))
    try:
        _shaken(context, peer.host, peer.port)
    except ssl.SSLError as error:
        raise Observed(f"{peer}: {call_failure(error, peer.host)}.") from error
    note.detail = f"Its certificate is trusted here and names {peer.host}." + (
        "" if peer.tls else " But PACS_PEERS has no /tls behind its port, so it is called without."
    )


def _calling(settings: GatewaySettings) -> ssl.SSLContext:
    return client_context(settings) or profile(ssl.create_default_context())


def _shake_hands(context: ssl.SSLContext, host: str, port: int) -> tuple[str, bytes]:
    """The suite that was agreed on and the peer's certificate."""
    try:
        return _shaken(context, host, port)
    except ssl.SSLCertVerificationError as error:
        raise Observed(f"It is not trusted here: {error.verify_message}.") from error
    except ssl.SSLError as error:
        raise Observed(str(failure(error))) from error


def _shaken(context: ssl.SSLContext, host: str, port: int) -> tuple[str, bytes]:
    with (
        socket.create_connection((host, port), _SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as connection,
    ):
        cipher, certificate = connection.cipher(), connection.getpeercert(binary_form=True)
        connection.settimeout(_ALERT_SECONDS)
        with suppress(TimeoutError):
            connection.recv(1)
    return str(cipher and cipher[0]), certificate or b""
