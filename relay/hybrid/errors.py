"""What can go wrong between here and the service, in words: each code of the protocol, and each error of a socket.

Each failure has a code for machines and a sentence for the operator, so that a refused token is never taken for a
broken line. `explain` takes whatever a connection attempt or a connection failed with.

Not for: reacting to it (`relay.hybrid.listener`), finding the first hop that fails (`operations.checks.link_check`).
"""

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from websockets import exceptions as ws

from gateway.errors import CloudError


@dataclass(frozen=True)
class Trouble:
    """Why a connection could not be made or did not last: `code` for machines, `text` for the operator.

    `lasting`: it stays so until a setting is changed, here or in the cloud. `fresh_token`: only the token was at fault,
    and a new one is to be tried at once.
    """

    code: str
    text: str
    lasting: bool = False
    fresh_token: bool = False


class LinkError(CloudError):
    """An exchange over a hybrid connection failed, passing, for the reason that `trouble` names."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.text, permanent=False)
        self.trouble = trouble


# --- what the codes mean ----------------------------------------------------------------------------------------------

_TOKEN_REFUSED = Trouble(
    "token_refused",
    "The service refused the token. Check the key's name, the key, its rights, and this machine's clock.",
    lasting=True,
)
_TOKEN_EXPIRED = Trouble("token_expired", "The service says that the token has expired.", fresh_token=True)
_NOBODY_ANSWERED = Trouble("no_answer", "The service found a listener, but the listener did not answer in time.")
_SERVICE = Trouble("service_trouble", "The service has trouble of its own.")
_THROTTLED = Trouble("throttled", "The service asks for fewer calls.")

REFUSED: Mapping[int, Trouble] = {
    400: Trouble("address_refused", "The service did not take the address: it was used, came too late, or is wrong."),
    401: _TOKEN_REFUSED,
    403: Trouble(
        "not_allowed", "The key lacks the right, or 25 listeners are connected to this hybrid connection.", lasting=True
    ),
    404: Trouble("no_such_entity", "There is no such hybrid connection in this namespace.", lasting=True),
    407: Trouble("proxy_refused", "The proxy wants a name and a password, or others than these.", lasting=True),
    408: _NOBODY_ANSWERED,
    410: Trouble("gone", "The address is not valid any more."),
    429: _THROTTLED,
    500: _SERVICE,
    502: _NOBODY_ANSWERED,
    503: Trouble("busy", "The service, or the listener it asked, is too busy."),
    504: _NOBODY_ANSWERED,
}
"""A handshake that was answered with this status instead of 101."""

MAY_NOT_SEND = frozenset({"token_refused", "not_allowed"})
"""Codes that a sender gets when its key may listen and not send."""

NO_LISTENER = Trouble("no_listener", "Nobody listens on this hybrid connection, or it does not exist.")

CLOSED: Mapping[int, Trouble] = {
    1000: Trouble("closed", "The service closed the connection."),
    1001: Trouble("gone", "The service is going away, or the hybrid connection was deleted."),
    1006: Trouble("cut", "The connection was cut without a farewell."),
    1008: Trouble("token_refused", "The service did not take the renewed token.", fresh_token=True),
    1009: Trouble("too_large", "A message was larger than what is taken."),
    1011: _SERVICE,
}
"""A connection that was closed with this code (RFC 6455 Section 7.4)."""


def refused_listen(status: int) -> Trouble:
    """Say why a listener's (or a rendezvous) handshake was answered with `status` instead of 101."""
    known = REFUSED.get(status)
    return known or Trouble("refused", f"The service answered {status} instead of connecting.")


def refused_connect(status: int) -> Trouble:
    """Say why a sender's handshake was refused."""
    # To a sender, 404 also means that no listener is connected now.
    return NO_LISTENER if status == 404 else refused_listen(status)


def closed(code: int | None, reason: str = "") -> Trouble:
    """Say why a connection ended."""
    # An expired token is documented as 1008, but comes as 1011 with this reason.
    if "ExpiredToken" in reason:
        return _TOKEN_EXPIRED
    known = CLOSED.get(1006 if code is None else code)
    return known or Trouble("closed", f"The service closed the connection with code {code}.")


def pause(delays: tuple[float, ...], attempt: int, trouble: Trouble, *, jitter: float) -> float:
    """Seconds to wait before the next attempt, `attempt` counting from 0; `jitter` is a random number in 0..1.

    The last of `delays` repeats for ever; a lasting trouble gets one to two times that one from the first attempt.
    """
    # Spread over twice the pause, so that a fleet does not hammer the service, nor misses the repair by long.
    if trouble.lasting:
        return delays[-1] * (1 + jitter)
    return delays[min(attempt, len(delays) - 1)] * (0.75 + jitter / 2)


# --- what an error means ----------------------------------------------------------------------------------------------

SOCKET_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, CloudError, ws.WebSocketException)
"""What a connection attempt or a connection may fail with, and `explain` understands."""

_DNS = Trouble("dns", "The service's name cannot be resolved. Check the name server and the name.")
_NOT_TRUSTED = Trouble(
    "tls",
    "The service's certificate is not trusted by this machine. Something on the way may look into TLS: ask for its CA "
    "(RELAY_CA_FILE).",
)
_TLS = Trouble("tls", "No encrypted connection to the service could be made.")
_PROXY = Trouble("proxy", "The proxy refused to connect to the service.")
_NO_PROXY = Trouble("proxy", "The proxy cannot be reached.")
_UNREACHABLE = Trouble("unreachable", "The service cannot be reached. Check the network and the firewall.")

_KINDS: tuple[tuple[type[BaseException], Trouble], ...] = (  # the first that fits; special ones stand before general
    (aiohttp.ClientConnectorDNSError, _DNS),
    (socket.gaierror, _DNS),
    (aiohttp.ClientConnectorCertificateError, _NOT_TRUSTED),
    (ssl.SSLCertVerificationError, _NOT_TRUSTED),
    (aiohttp.ClientSSLError, _TLS),
    (ssl.SSLError, _TLS),
    (aiohttp.ClientHttpProxyError, _PROXY),
    (aiohttp.ClientProxyConnectionError, _NO_PROXY),
    (ws.ProxyError, _PROXY),
    (aiohttp.ClientConnectorError, _UNREACHABLE),
    (ConnectionRefusedError, _UNREACHABLE),
    (aiohttp.ServerTimeoutError, Trouble("silent", "The service does not answer pings any more.")),
    (TimeoutError, Trouble("timeout", "The service did not answer in time.")),
)


def explain(error: BaseException) -> Trouble:
    """Say what an error of a socket, a handshake or a token source means; for a listener, or a rendezvous."""
    if (status := _status(error)) is not None:
        return refused_listen(status)
    if isinstance(error, ws.ConnectionClosed):
        return closed(error.rcvd.code, error.rcvd.reason) if error.rcvd else CLOSED[1006]
    if isinstance(error, CloudError):
        return Trouble("no_token", str(error), lasting=True)
    known = next((trouble for kind, trouble in _KINDS if isinstance(error, kind)), None)
    return known or Trouble("cut", f"The connection broke ({type(error).__name__}).")


def _status(error: BaseException) -> int | None:
    """The HTTP status of a refused handshake; None for other errors."""
    # Of a proxy's answers only 407 has a sentence of its own; the others mean that it does not connect to the service.
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return error.status
    if isinstance(error, ws.InvalidStatus):
        return error.response.status_code
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == 407:
        return 407
    if isinstance(error, ws.InvalidProxyStatus) and error.response.status_code == 407:
        return 407
    return None
