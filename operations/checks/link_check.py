"""`gateway link check`: tests each step of the connection to the cloud in order, and names the first that fails.

    name      the namespace's name has an address, public or private (a private endpoint)
    proxy     the proxy, if one is set, connects to the service
    port      without a proxy: the port of the service is open from here
    TLS       the certificate is trusted; its issuer shows TLS inspection
    clock     this machine's time is the service's
    token     the key signs one, or Entra ID issues one
    listener  the service accepts this site's listener
    echo      a message of this gateway came back through the service
    doors     HTTPS API, Service Bus and identity provider are reached

Not for: token, listener and echo by themselves (`link_echo`), the DICOM side and the outboxes (`site_check`), TLS of
the DICOM ports (`tls_check`).
"""

import http.client
import socket
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from time import time

from gateway.hops import Hops, Note, Nothing, Observed
from operations.checks import cloud_connection, link_echo
from operations.checks.cloud_connection import Target, connected, issuer, place, secured
from relay.assembly import cloud_link
from relay.hybrid.protocol import endpoint
from relay.settings import RelaySettings

CLOCK_SECONDS = 60.0  # the service refuses a token with less than a minute left

_DNS = "Ask for the name to be resolved here; a private endpoint needs its zone privatelink.servicebus.windows.net."
_FIREWALL = "Ask for TCP 443 to *.servicebus.windows.net (rendezvous hosts have other names), or set RELAY_PROXY."
_PROXY = "See RELAY_PROXY and RELAY_NO_PROXY; the proxy has to allow CONNECT to *.servicebus.windows.net:443."
_TLS = "If somebody looks into TLS on the way: ask for an exception, or for the CA (RELAY_CA_FILE)."
_CLOCK = "Ask for a time server (NTP); see: timedatectl."
_TOKEN = "See AZURE_RELAY_CREDENTIAL and what it needs."  # noqa: S105 - a sentence
_DOORS = "See RELAY_PROXY, RELAY_NO_PROXY and RELAY_CA_FILE, or ask for a way to that host and port."
_LISTEN = "See OPERATIONS, what the states of the link mean."


def check(settings: RelaySettings, hops: Hops) -> None:
    """Test every step and record what was seen. The steps after one that failed are skipped."""
    if not settings.listens:
        hops.look("link", _not_configured)
    else:
        _walk(settings, hops)
    hops.look("doors are reached", lambda note: cloud_connection.look(note, settings), remedy=_DOORS)


def _walk(settings: RelaySettings, hops: Hops) -> None:
    at = endpoint(settings.namespace, settings.hybrid_connection)
    target = Target(at.base, cloud_link.egress(settings))
    steps: list[tuple[str, Callable[[Note], None], str]] = [
        ("name is resolved", lambda note: _resolve(note, target), _DNS),
        ("proxy connects", lambda note: _through_proxy(note, target), _PROXY),
        ("port is open", lambda note: _straight(note, target), _FIREWALL),
        ("certificate is trusted", lambda note: _certificate(note, target), _TLS),
        ("clock is right", lambda note: _clock(note, target), _CLOCK),
        ("token is to be had", lambda note: link_echo.token(note, settings, at), _TOKEN),
        ("listener is let in, echo returns", lambda note: link_echo.echo(note, settings), _LISTEN),
    ]
    # Skipped after a failure, because no step can succeed without those before it.
    for name, step, remedy in steps:
        hops.look(name, _after_failure if hops.failed else step, remedy=remedy)


def _not_configured(_note: Note) -> None:
    raise Nothing("No hybrid connection is configured (AZURE_RELAY_NAMESPACE, AZURE_RELAY_HYBRID_CONNECTION).")


def _after_failure(_note: Note) -> None:
    raise Nothing("Not looked at, as the step before failed.")


def _resolve(note: Note, target: Target) -> None:
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if target.proxy:  # behind a proxy a site needs no DNS for names outside
            raise Nothing(f"{target.host} has no address here; the proxy looks it up.") from error
        raise Observed(f"{target.host} has no address: {error.strerror}.") from error
    addresses = sorted({str(each[4][0]) for each in found})
    note.detail = f"{target.host} is {', '.join(map(_described, addresses))}."


def _described(address: str) -> str:
    known = ip_address(address.partition("%")[0])
    if known.is_loopback:
        return f"{address} (this machine)"
    return f"{address} ({'private: a private endpoint' if known.is_private else 'public'})"


def _through_proxy(note: Note, target: Target) -> None:
    if target.proxy is None:
        raise Nothing("None is set, or not for this host.")
    with connected(target):
        note.detail = f"The proxy {place(target.proxy)} connected to {target.host}:{target.port}."


def _straight(note: Note, target: Target) -> None:
    if target.proxy:
        raise Nothing("The proxy's matter.")
    with connected(target):
        note.detail = f"{target.host}:{target.port} takes a connection."


def _certificate(note: Note, target: Target) -> None:
    if target.tls is None:
        raise Nothing("Not encrypted: the service is on this machine.")
    with connected(target) as connection, secured(connection, target) as tls:
        note.detail = f"{tls.version()}, signed by {issuer(tls)}."


def _clock(note: Note, target: Target) -> None:
    with connected(target) as connection:
        stream = secured(connection, target) if target.tls else connection
        stream.sendall(f"GET / HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(stream)  # type: ignore[arg-type]  # it asks for `makefile` and no more
        answer.begin()
        date = answer.headers.get("Date")
        stream.close()
    if date is None:
        raise Nothing("The service does not say its time.")
    # Tokens have a beginning and an end by the service's clock.
    ahead = time() - parsedate_to_datetime(date).timestamp()
    note.detail = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the service."
    if abs(ahead) > CLOCK_SECONDS:
        raise Observed(f"This machine's clock is {note.detail} Tokens made with it are refused.")
