"""Certificates for tests, made when asked for: a CA, and what it signs. Elliptic keys, because they take no time."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@dataclass(frozen=True)
class Issued:
    """A certificate and its key; `write` puts them into PEM files."""

    certificate: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def write(self, folder: Path, name: str, *chain: "Issued") -> tuple[Path, Path]:
        """Write certificate (with the chain behind it) and key; gives both paths."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(b"".join(each.pem for each in (self, *chain)))
        key.write_bytes(self.key_pem)
        key.chmod(0o600)
        return certificate, key


def elliptic_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


@lru_cache
def rsa_key(bits: int) -> Key:
    return rsa.generate_private_key(65537, bits)


def issued(
    name: str,
    issuer: Issued | None = None,
    *,
    key: Key | None = None,
    names: tuple[str, ...] = ("localhost",),
    purposes: tuple[x509.ObjectIdentifier, ...] = BOTH,
    is_ca: bool = False,
    begins: timedelta = timedelta(days=-1),
    ends: timedelta = timedelta(days=365),
    algorithm: hashes.HashAlgorithm | None = None,
) -> Issued:
    """A certificate signed by `issuer`, or by itself. `begins` and `ends` are seen from now."""
    key = key or elliptic_key()
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(issuer.certificate.subject if issuer else _named(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if not is_ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([_alternative(each) for each in names]), False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), False)
    signer = issuer.key if issuer else key
    return Issued(builder.sign(signer, algorithm or hashes.SHA256()), key)


def authority(name: str = "Site CA", issuer: Issued | None = None) -> Issued:
    """A CA."""
    return issued(name, issuer, is_ca=True, ends=timedelta(days=3650))


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
