"""Makes access control and HTTPS from the settings, and refuses settings with which the relay may not start.

Not here: authentication (`relay.access.middleware`), its rules (`relay.access.permissions`).
"""

import ssl
from collections.abc import Callable
from datetime import datetime

from gateway.audit.trail import Trail
from gateway.errors import SettingsError
from gateway.tls import TlsFiles, own_context
from gateway.tls_reload import ServerTls
from pacs import Archive
from relay.access import permissions
from relay.access.audit import Recorder, patient_ids
from relay.access.middleware import AccessControl, AccessPolicy
from relay.access.oidc_login import CodeFlow
from relay.access.oidc_tokens import Issuer, Tokens
from relay.access.rate_limits import Buckets
from relay.access.users import OwnToken, Passwords, UserFile
from relay.assembly import cloud_link
from relay.settings import RelaySettings, revealed

BURST_SECONDS = 4.0
"""So many seconds' worth of requests may come at once: a viewer opens a study with hundreds."""


def https_files(settings: RelaySettings) -> TlsFiles | None:
    """The files that HTTPS is spoken with: its own, or off loopback those of the DICOM ports; None for plain HTTP.

    Raises SettingsError when only one of two is set.
    """
    certificate, key = settings.http_tls_certificate, settings.http_tls_key
    if certificate is not None and key is not None:
        return TlsFiles(certificate, key, prefix="RELAY")
    if certificate is not None or key is not None:
        missing = "RELAY_TLS_KEY" if key is None else "RELAY_TLS_CERTIFICATE"
        raise SettingsError(f"{missing} is not set, but the other one of the two is; HTTPS needs certificate and key.")
    if permissions.is_loopback(settings.http_host) or settings.http_behind_tls:
        return None
    files = TlsFiles.of(settings)
    return None if files is None else TlsFiles(files.certificate, files.key)


def require_safe(settings: RelaySettings) -> ServerTls | None:
    """The certificate for HTTPS; None for plain HTTP. Raises SettingsError when the relay may not listen like this."""
    files = https_files(settings)
    has_users = bool(settings.oidc_issuer) or bool(UserFile(settings.users_path).read())
    has_tls = files is not None or settings.http_behind_tls
    if refusal := permissions.start_refusal(settings.http_host, has_tls=has_tls, has_users=has_users):
        raise SettingsError(refusal)
    return None if files is None else ServerTls.of_files(files)


def own_tls(settings: RelaySettings) -> ssl.SSLContext | None:
    """The context that verifies the certificate of this machine's own relay; None for plain HTTP."""
    files = https_files(settings)
    return None if files is None else own_context(files)


def access(settings: RelaySettings, archive: Archive, *, clock: Callable[[], datetime]) -> AccessControl:
    """Access control as the settings describe it."""
    # Off loopback users always log in; on loopback as soon as there are any.
    demanded = settings.http_users_required or not permissions.is_loopback(settings.http_host)
    tokens = Tokens(issuer(settings), egress=cloud_link.egress(settings)) if settings.oidc_issuer else None
    return AccessControl(
        policy=AccessPolicy(
            is_open=not demanded, origins=frozenset(settings.cors_origins), proxies=settings.trusted_proxies
        ),
        passwords=Passwords(UserFile(settings.users_path)),
        recorder=Recorder(Trail(settings.audit_path), site=settings.site, clock=clock),
        own=OwnToken(settings.own_token_path),
        patient_id=patient_ids(archive),
        tokens=tokens,
        code=code(settings, tokens) if tokens is not None else None,
        idle_seconds=60 * settings.idle_minutes,
        buckets=Buckets(settings.http_rate, max(1.0, settings.http_rate * BURST_SECONDS)),
    )


def code(settings: RelaySettings, tokens: Tokens) -> CodeFlow | None:
    """How people sign in with the identity provider at a browser; None when the relay is no client of it."""
    if not settings.oidc_client_id:
        return None
    return CodeFlow(tokens, settings.oidc_client_id, secret=revealed(settings.oidc_client_secret))


def issuer(settings: RelaySettings) -> Issuer:
    """The identity provider whose tokens are accepted."""
    roles = {value: permissions.Role.named(role) for value, role in settings.oidc_roles} or dict(permissions.ROLES)
    return Issuer(settings.oidc_issuer, settings.oidc_audience, settings.oidc_claim, roles)
