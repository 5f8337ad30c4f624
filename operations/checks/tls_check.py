"""Explains the files of TLS in sentences: readable, a pair, valid, strong, complete. Each question is a hop.

Not for: handshakes with a peer (`tls_handshake`), and not for deciding which TLS is good enough (`gateway.tls`).
"""

import stat
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.hops import Hops, Note, Nothing, Observed
from gateway.settings import GatewaySettings
from gateway.tls import TlsFiles

SOON = timedelta(days=30)
"""A certificate that ends within this time is worth a sentence; hospitals take weeks to issue one."""

LEAST_RSA_BITS, LEAST_CURVE_BITS = 2048, 256
"""PS3.15 B.12, which refers to RFC 9325 4.5."""

Certificates = list[x509.Certificate]


def check_files(settings: GatewaySettings, hops: Hops, *, now: datetime) -> None:
    """Look at every file of TLS. Raises SettingsError when only a part of them is set."""
    files = TlsFiles.of(settings)
    if files is None:
        hops.look("TLS", _not_configured)
        hops.look(
            "CA of the peers", lambda note: _peer_ca(note, settings.tls_peer_ca, now), remedy="See GATEWAY_TLS_PEER_CA."
        )
        return
    looks: list[tuple[str, Callable[[Note], None], str]] = [
        ("certificate file", lambda note: _certificate_file(note, files), "See GATEWAY_TLS_CERTIFICATE."),
        ("key file", lambda note: _key_file(note, files.key), "See GATEWAY_TLS_KEY."),
        ("key belongs to certificate", lambda note: _pair(note, files), "Take the key the request was made with."),
        ("dates", lambda note: _dates(note, read(files.certificate), now), "Ask for a new certificate."),
        ("names", lambda note: _names(note, read(files.certificate)[0]), "Ask for one with the names machines call."),
        ("purposes", lambda note: _purposes(note, read(files.certificate)[0]), "Ask for one for server and client."),
        ("strength", lambda note: _strength(note, read(files.certificate)), "Ask for RSA 2048 or P-256 with SHA-256."),
        ("chain", lambda note: _chain(note, read(files.certificate)), "Own certificate first, then who signed it."),
        ("CA of the machines", lambda note: _client_ca(note, files.client_ca, now), "See GATEWAY_TLS_CLIENT_CA."),
        ("CA of the peers", lambda note: _peer_ca(note, settings.tls_peer_ca, now), "See GATEWAY_TLS_PEER_CA."),
    ]
    # All of them, so that one wrong file does not hide another.
    for name, look, remedy in looks:
        hops.look(name, look, remedy=remedy)


def _not_configured(_note: Note) -> None:
    raise Nothing("TLS is not configured: set GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY.")


def read(path: Path) -> Certificates:
    """The certificates of a file, in order. Raises Observed when it cannot be read or holds none."""
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
    own, *chain = read(files.certificate)
    note.detail = f"{name_of(own.subject)}, signed by {name_of(own.issuer)}, with {len(chain)} more behind it."


def _key_file(note: Note, path: Path) -> None:
    _read_key(path)
    mode = path.stat().st_mode
    if mode & stat.S_IROTH:  # readable by the group is right: root owns it, the services read it
        raise Observed(f"{path} can be read by everybody on this machine: chmod 640, owned by root and our group.")
    note.detail = f"Readable, mode {stat.S_IMODE(mode):o}."


def _pair(note: Note, files: TlsFiles) -> None:
    if _read_key(files.key).public_key() != read(files.certificate)[0].public_key():
        raise Observed(f"{files.key} is not the key of {files.certificate}.")
    note.detail = "They are a pair."


def _dates(note: Note, certificates: Certificates, now: datetime) -> None:
    for certificate in certificates:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        if now < begin:
            raise Observed(f"{name_of(certificate.subject)} is valid only from {day(begin)} (today is {day(now)}).")
        if now > end:
            raise Observed(f"{name_of(certificate.subject)} has expired on {day(end)} (today is {day(now)}).")
    end = min(certificate.not_valid_after_utc for certificate in certificates)
    note.detail = f"Valid until {day(end)}." + (" That is soon: ask for a new one now." if end - now < SOON else "")


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
        key, name = certificate.public_key(), name_of(certificate.subject)
        if isinstance(key, rsa.RSAPublicKey) and key.key_size < LEAST_RSA_BITS:
            raise Observed(f"The RSA key of {name} has {key.key_size} bits; {LEAST_RSA_BITS} are the least.")
        if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < LEAST_CURVE_BITS:
            raise Observed(f"The curve of {name} has {key.key_size} bits; {LEAST_CURVE_BITS} are the least.")
        signed_with = certificate.signature_hash_algorithm
        # A root is trusted by its presence in the list, not by its signature.
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
                f"Behind {name_of(lower.subject)} should stand {name_of(lower.issuer)}, which signed it, "
                f"but there is {name_of(upper.subject)}."
            ) from error
    last = certificates[-1]
    if _is_root(last):
        note.detail = f"Complete; machines need {name_of(last.subject)} in their list of CAs."
    else:
        note.detail = (
            f"Machines need {name_of(last.issuer)} in their list of CAs; if it is no root, add it to the file."
        )


def _client_ca(note: Note, path: Path | None, now: datetime) -> None:
    if path is None:
        raise Nothing("GATEWAY_TLS_CLIENT_CA is not set: machines are not asked for a certificate.")
    certificates = read(path)
    _dates(note, certificates, now)
    names = ", ".join(name_of(certificate.subject) for certificate in certificates)
    note.detail = f"Machines need a certificate signed by {names}."


def _peer_ca(note: Note, path: Path | None, now: datetime) -> None:
    if path is None:
        raise Nothing("GATEWAY_TLS_PEER_CA is not set: peers that are called are known by GATEWAY_TLS_CLIENT_CA.")
    certificates = read(path)
    _dates(note, certificates, now)
    names = ", ".join(name_of(certificate.subject) for certificate in certificates)
    note.detail = f"Peers that are called within TLS need a certificate signed by {names}."


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def name_of(name: x509.Name) -> str:
    """A distinguished name for a sentence, in quotes (RFC 4514)."""
    return f"'{name.rfc4514_string()}'"


def day(moment: datetime) -> str:
    """A day for a sentence."""
    return f"{moment:%Y-%m-%d}"
