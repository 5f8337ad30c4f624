"""Makes the link to Azure Relay from a site's settings: egress, credential, sender and listener.

Not here: what any of them does (`relay.hybrid.listener` and its neighbours).
"""

import ssl
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from gateway.errors import SettingsError
from relay.egress import Egress
from relay.hybrid.exchange import LinkLimits
from relay.hybrid.http import HttpAnswer, HttpRequest
from relay.hybrid.listener import HybridListener
from relay.hybrid.protocol import endpoint
from relay.hybrid.sender import ECHO_TIMEOUT, HybridSender, SelfEcho
from relay.hybrid.tokens import EntraTokens, SasTokens, TokenSource
from relay.settings import RelaySettings, revealed

AMQPS_PORT = 5671


def egress(settings: RelaySettings) -> Egress:
    """The egress of this site. Raises SettingsError when RELAY_CA_FILE cannot be read."""
    out = Egress(revealed(settings.proxy), settings.no_proxy, settings.ca_file)
    try:
        out.tls_for("https://")
    except OSError as error:  # of the file, or of its content: an SSLError is an OSError
        why = error.strerror if error.errno and not isinstance(error, ssl.SSLError) else "it is not PEM"
        raise SettingsError(f"RELAY_CA_FILE={settings.ca_file} cannot be used: {why}.") from error
    return out


def not_by_proxy(settings: RelaySettings) -> str:
    """Why events bypass the proxy that is set; empty when none do."""
    # The library would turn to the websocket if plain AMQP were given a proxy, so it gets none, and a warning says so.
    host = servicebus_host(settings)
    if settings.servicebus_transport != "amqp" or egress(settings).proxy_for(f"https://{host}") is None or not host:
        return ""
    return (
        f"Plain AMQP (AZURE_SERVICEBUS_TRANSPORT=amqp) cannot go through RELAY_PROXY: events go straight to {host}, "
        f"port {AMQPS_PORT}. If that port is closed, set AZURE_SERVICEBUS_TRANSPORT=websocket; if it is meant so, name "
        "the host in RELAY_NO_PROXY."
    )


def servicebus_host(settings: RelaySettings) -> str:
    """The host of the Service Bus namespace; empty when no events go there."""
    if "servicebus" not in settings.destinations:
        return ""
    parts = dict(part.partition("=")[::2] for part in revealed(settings.servicebus_connection_string).split(";"))
    return urlsplit(parts.get("Endpoint", "").strip()).hostname or settings.servicebus_namespace


def tokens(settings: RelaySettings) -> TokenSource:
    """The tokens of this site. Raises SettingsError when its certificate cannot be read."""
    if settings.credential == "key":
        return SasTokens(settings.key_name, revealed(settings.shared_access_key))
    from relay.hybrid.entra import credential  # noqa: PLC0415 - the identity library is large

    try:
        identity = credential(
            settings.credential,
            tenant_id=settings.tenant_id,
            client_id=settings.client_id,
            certificate=revealed(settings.client_certificate),
            egress=egress(settings),
        )
    except ValueError:  # its text may quote the key
        raise SettingsError(
            "AZURE_CLIENT_CERTIFICATE or AZURE_TENANT_ID cannot be used: the first is a certificate with its key, both "
            "in PEM form and without a password, the second the id or the name of a tenant."
        ) from None
    return EntraTokens(identity)


def sender(settings: RelaySettings, hybrid_connection: str) -> HybridSender:
    """The sender to one of the namespace's hybrid connections."""
    return HybridSender(endpoint(settings.namespace, hybrid_connection), tokens(settings), egress=egress(settings))


def echo(settings: RelaySettings) -> SelfEcho:
    """The echo that proves the route from the cloud: a sender to this site's own hybrid connection."""
    at = endpoint(settings.namespace, settings.hybrid_connection)
    return SelfEcho(HybridSender(at, tokens(settings), egress=egress(settings), timeout=ECHO_TIMEOUT))


def listener(
    settings: RelaySettings,
    *,
    on_message: Callable[[str], Awaitable[str]],
    on_request: Callable[[HttpRequest], Awaitable[HttpAnswer]] | None = None,
    prove: SelfEcho,
) -> HybridListener:
    """The listener for the cloud; `prove` sends echoes over the route of the cloud's messages."""
    return HybridListener(
        endpoint(settings.namespace, settings.hybrid_connection),
        tokens(settings),
        on_message=on_message,
        on_request=on_request,
        prove=prove,
        limits=LinkLimits(listeners=settings.listeners, heartbeat=settings.ping_seconds or None),
        egress=egress(settings),
    )
