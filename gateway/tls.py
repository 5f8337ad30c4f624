"""The TLS profile of the DICOM ports, and sentences for handshakes that fail.

The profile is PS3.15 B.12 (BCP 195: RFC 8996 and 9325), and meets the older non-downgrading one (B.10) too: TLS 1.3,
and TLS 1.2 with authenticated encryption and ephemeral keys; no renegotiation, no compression, no plain DICOM on the
same port. Callers need a certificate when a CA for them is configured. Peers that we call always need one, which is
signed by, or is, a certificate in the file of CAs, and names the host in `PACS_PEERS`.

Not for: bytes and sockets (`gateway.dicom.transport`), renewed certificates (`tls_reload`), detailed checks of the
files (`operations.checks.tls_check`).
"""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gateway.errors import HandshakeFailed, SettingsError
from gateway.settings import GatewaySettings

SUITES_OF_1_2 = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""RFC 9325 4.2: authenticated encryption with ephemeral keys. The suites of TLS 1.3 are all good enough."""

_HANDSHAKE = 0x16
"""The first byte of TLS: the type of the record that holds a ClientHello (RFC 8446 5.1)."""
_ASSOCIATE_RQ = b"\x01\x00"
"""The first bytes of DICOM without TLS (PS3.8 9.3.2)."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The PEM files of this site: its certificate with the chain behind it, the key, and the CA of the callers."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    prefix: str = "GATEWAY"
    """Prefix of the variables that name the files, for sentences."""

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self | None:
        """The files that the settings name; None without TLS. Raises SettingsError when only a part is set."""
        certificate, key, client_ca = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
        if certificate is None and key is None and client_ca is None:
            return None
        if certificate is None or key is None:
            missing = "GATEWAY_TLS_CERTIFICATE" if certificate is None else "GATEWAY_TLS_KEY"
            raise SettingsError(f"{missing} is not set, but other settings of TLS are; TLS needs certificate and key.")
        return cls(certificate, key, client_ca)


@dataclass(frozen=True, slots=True)
class CallFiles:
    """The PEM files for calling others within TLS: the CA of their certificates, and our own certificate."""

    ca: Path
    setting: str
    """The variable that names the CA."""
    own: TlsFiles | None = None
    by_name: bool = True
    """Does the certificate have to name the host? Not for our own listeners, whose certificate itself is trusted."""

    @classmethod
    def of_own_listeners(cls, settings: GatewaySettings) -> Self | None:
        """How this site calls itself; None without TLS. Raises SettingsError as `TlsFiles.of`."""
        own = TlsFiles.of(settings)
        return None if own is None else cls(own.certificate, "GATEWAY_TLS_CERTIFICATE", own, by_name=False)

    @classmethod
    def of(cls, settings: GatewaySettings) -> Self | None:
        """The files that the settings name; None without a CA of peers. Raises SettingsError as `TlsFiles.of`."""
        own = TlsFiles.of(settings)
        if settings.tls_peer_ca is not None:
            return cls(settings.tls_peer_ca, "GATEWAY_TLS_PEER_CA", own)
        return None if settings.tls_client_ca is None else cls(settings.tls_client_ca, "GATEWAY_TLS_CLIENT_CA", own)


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of the listeners. Raises SettingsError for files that cannot be used."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0  # no resumption, so a machine that reconnects is verified again
    if files.client_ca is not None:
        _trust(context, files.client_ca, "GATEWAY_TLS_CLIENT_CA")
        # Our own certificate may call as well, so that `gateway check` works on a site that demands certificates.
        _trust(context, files.certificate, "GATEWAY_TLS_CERTIFICATE")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: GatewaySettings) -> ssl.SSLContext | None:
    """The context in which this site calls its own listeners; None without TLS. Raises as `server_context`."""
    files = TlsFiles.of(settings)
    return None if files is None else own_context(files)


def own_context(files: TlsFiles) -> ssl.SSLContext:
    """The context to call a listener with these files from this machine. Raises SettingsError as `server_context`."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    context.check_hostname = False  # the certificate itself is trusted, and need not name this address
    _trust(context, files.certificate, f"{files.prefix}_TLS_CERTIFICATE")
    return context


def calling_context(files: CallFiles) -> ssl.SSLContext:
    """The context to call peers: verified, and by name. Raises SettingsError for files that cannot be used."""
    context = profile(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # which verifies chain and host name
    context.check_hostname = files.by_name
    if files.own is not None:
        _show(context, files.own)  # for a peer that demands a certificate of its callers
    _trust(context, files.ca, files.setting)
    return context


def profile(context: ssl.SSLContext) -> ssl.SSLContext:
    """Restrict a context to the profile."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES_OF_1_2)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_NO_TICKET
    return context


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    context = profile(ssl.SSLContext(protocol))
    _show(context, files)
    return context


def _show(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Present our own certificate."""
    certificate, key = f"{files.prefix}_TLS_CERTIFICATE", f"{files.prefix}_TLS_KEY"
    _readable(files.certificate, certificate)
    _readable(files.key, key)
    try:
        # An empty password, because OpenSSL would otherwise prompt for that of an encrypted key at the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except ssl.SSLError as error:
        raise SettingsError(
            f"{certificate} and {key} cannot be used ({_word(error)}): see `gateway tls check`."
        ) from error


def _trust(context: ssl.SSLContext, path: Path, variable: str) -> None:
    _readable(path, variable)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # a certificate in the file is trusted, root or not
    try:
        context.load_verify_locations(path)
    except ssl.SSLError as error:
        raise SettingsError(f"{variable}={path} holds no certificate in PEM form ({_word(error)}).") from error


def _readable(path: Path, variable: str) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{variable}={path} cannot be read by this service: {error.strerror}.") from error


def is_tls(first: int) -> bool:
    """Does a connection that begins with this byte speak TLS?"""
    return first == _HANDSHAKE


def not_tls(begin: bytes) -> HandshakeFailed:
    """The error for a connection that begins with something else than TLS."""
    if _ASSOCIATE_RQ.startswith(begin[:2]):
        return HandshakeFailed(
            "The peer speaks DICOM without TLS, which this port takes only with TLS: switch TLS on at the peer, "
            "or take GATEWAY_TLS_CERTIFICATE and GATEWAY_TLS_KEY out of the settings."
        )
    return HandshakeFailed("The peer speaks neither TLS nor DICOM.")


_SENTENCES = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "The peer has no certificate, which GATEWAY_TLS_CLIENT_CA demands: "
    "give it one that this CA has signed.",
    "NO_SHARED_CIPHER": "The peer offers no cipher suite of the profile (TLS 1.2 with ECDHE and AES-GCM or ChaCha20, "
    "or TLS 1.3) that goes with the key of GATEWAY_TLS_CERTIFICATE.",
    "UNSUPPORTED_PROTOCOL": "The peer speaks only TLS before 1.2, which is not taken: update or reconfigure it.",
    "VERSION_TOO_LOW": "The peer speaks only TLS before 1.2, which is not taken: update or reconfigure it.",
    "TLSV1_ALERT_UNKNOWN_CA": "The peer does not know the CA of GATEWAY_TLS_CERTIFICATE: give the peer the CA's "
    "certificate, and this file the chain up to it.",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "The peer does not accept GATEWAY_TLS_CERTIFICATE: see `gateway tls check`.",
    "SSLV3_ALERT_BAD_CERTIFICATE": "The peer does not accept GATEWAY_TLS_CERTIFICATE: see `gateway tls check`.",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "The peer says that GATEWAY_TLS_CERTIFICATE has expired: see "
    "`gateway tls check`, and compare the clocks.",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "The peer found nothing in common: compare TLS versions and cipher suites.",
    "TLSV1_ALERT_PROTOCOL_VERSION": "The peer does not take this version of TLS.",
    "UNEXPECTED_EOF_WHILE_READING": "The peer closed the connection; perhaps it does not speak TLS on this port.",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "The other side demands a certificate of ours, and got none.",
    "WRONG_VERSION_NUMBER": "The other side does not speak TLS on this port.",
    "HTTP_REQUEST": "The peer speaks HTTP, not DICOM.",
}
"""The sentence for OpenSSL's word of a failed handshake."""


def failure(error: ssl.SSLError) -> HandshakeFailed:
    """Why a handshake failed, in one sentence that says what to change."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return HandshakeFailed(
            f"The certificate of the peer is not accepted ({error.verify_message}): it has to be valid today and "
            "signed by the CA in GATEWAY_TLS_CLIENT_CA."
        )
    word = _word(error)
    return HandshakeFailed(_SENTENCES.get(word, f"TLS could not be agreed ({word})."))


_CALL_CLAUSES = {
    "CERTIFICATE_REQUIRED": "it demands a certificate of ours, and GATEWAY_TLS_CERTIFICATE is not set",
    "UNKNOWN_CA": "it does not know the CA of GATEWAY_TLS_CERTIFICATE: give it the CA's certificate",
    "CERTIFICATE_UNKNOWN": "it does not accept GATEWAY_TLS_CERTIFICATE: see `gateway tls check`",
    "BAD_CERTIFICATE": "it does not accept GATEWAY_TLS_CERTIFICATE: see `gateway tls check`",
    "CERTIFICATE_EXPIRED": "it says that GATEWAY_TLS_CERTIFICATE has expired: see `gateway tls check`",
    "HANDSHAKE_FAILURE": "it found nothing in common: it has to speak TLS 1.2 or 1.3 with a suite of the profile, and "
    "may want a certificate (GATEWAY_TLS_CERTIFICATE)",
    "PROTOCOL_VERSION": "it speaks only TLS before 1.2, which is not used: update or reconfigure it",
    "UNSUPPORTED_PROTOCOL": "it speaks only TLS before 1.2, which is not used: update or reconfigure it",
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port: take /tls away, or switch TLS on there",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection; perhaps it does not speak TLS on this port",
}
"""The clause for OpenSSL's word, without the version of the alert in front, when we are the caller."""

_ALERT = re.compile(r"^(TLSV1|SSLV3|TLSV13)_ALERT_")

_WRONG_NAME = (62, 64)
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


def call_failure(error: ssl.SSLError, host: str) -> str:
    """Why a call within TLS failed, and what to do: the end of a sentence about the peer."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        word = _word(error)
        return _CALL_CLAUSES.get(_ALERT.sub("", word), f"TLS could not be agreed ({word})")
    if error.verify_code in _WRONG_NAME:
        return (
            f"its certificate does not name {host}: call it in PACS_PEERS as the certificate does, or have it renewed"
        )
    return (
        f"its certificate is not accepted ({error.verify_message}): it has to be valid today, and to be in, or signed "
        "by what is in, GATEWAY_TLS_PEER_CA (without it, GATEWAY_TLS_CLIENT_CA)"
    )


def _word(error: ssl.SSLError) -> str:
    return error.reason or type(error).__name__
