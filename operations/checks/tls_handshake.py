"""Explains a TLS handshake in sentences: versions and suite, the peer's certificate, and whether it is trusted here.

Not for: our own files (`tls_check`), and not for deciding which TLS is good enough (`gateway.tls`).
"""

import socket
import ssl
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from gateway.dicom.requestor import context_for
from gateway.hops import Hops, Note, Nothing, Observed
from gateway.remote_ae import Peer
from gateway.settings import GatewaySettings
from gateway.tls import CallFiles, call_failure, client_context, failure, profile
from operations.checks.tls_check import day, name_of, read

_SECONDS = 10.0
_ALERT_SECONDS = 1.0


def check_peer(settings: GatewaySettings, hops: Hops, *, host: str, port: int) -> None:
    """Shake hands with a peer in each version of TLS, and report suite and certificate."""
    _check_versions(settings, hops, host=host, port=port)
    remedy = "It has to be in, or signed by what is in, GATEWAY_TLS_CLIENT_CA or GATEWAY_TLS_CERTIFICATE."
    hops.look("certificate of the peer", lambda note: _known(note, host, port, settings), remedy=remedy)


def check_call(settings: GatewaySettings, hops: Hops, peer: Peer) -> None:
    """The same with a peer of PACS_PEERS, with the trust and the comparison of names of a real call."""
    _check_versions(settings, hops, host=peer.host, port=peer.port)
    hops.look("called as PACS_PEERS says", lambda note: _called(note, peer, settings))


def in_use(note: Note, settings: GatewaySettings, *, host: str, port: int) -> None:
    """Compare the certificate of our own listener with that in the files, for a hop of `gateway check`."""
    context = client_context(settings)
    if context is None:
        raise Nothing("TLS is not configured.")
    context.verify_mode = ssl.CERT_NONE  # only whether it is the same one; `gateway tls check` judges it
    _, shown = _shake_hands(context, host, port)
    own = read(settings.tls_certificate or Path())[0]
    if shown != own.public_bytes(serialization.Encoding.DER):
        raise Observed("The service shows another certificate than that in GATEWAY_TLS_CERTIFICATE.")
    note.detail = f"{name_of(own.subject)} is shown, valid until {day(own.not_valid_after_utc)}."


def _check_versions(settings: GatewaySettings, hops: Hops, *, host: str, port: int) -> None:
    for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
        name = f"{version.name.replace('_', '.')} with the peer"
        hops.look(name, partial(_agree, host=host, port=port, version=version, settings=settings))


def _agree(note: Note, *, host: str, port: int, version: ssl.TLSVersion, settings: GatewaySettings) -> None:
    context = _calling(settings)
    context.minimum_version = context.maximum_version = version
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    suite, certificate = _shake_hands(context, host, port)
    peer = x509.load_der_x509_certificate(certificate)
    note.detail = f"{suite}; it is {name_of(peer.subject)}, valid until {day(peer.not_valid_after_utc)}."


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
        # With TLS 1.3 a peer refuses our certificate after the handshake, by an alert that comes a little later.
        connection.settimeout(_ALERT_SECONDS)
        with suppress(TimeoutError):
            connection.recv(1)
    return str(cipher and cipher[0]), certificate or b""
