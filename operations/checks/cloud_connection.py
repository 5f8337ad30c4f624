"""A connection to a cloud service by the site's egress, direct or through the proxy, as far as TLS.

`look` tries every service besides the hybrid connection, which `link_check` tests.

Not for: requests over a connection.
"""

import io
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import unquote, urlsplit

from gateway.hops import Note, Nothing, Observed
from relay.assembly import cloud_link
from relay.egress import Egress
from relay.settings import RelaySettings

T = TypeVar("T")

SECONDS = 10.0
_RECEIVED_BYTES = 65_536
_PORTS = {"https": 443, "wss": 443, "amqps": cloud_link.AMQPS_PORT}


@dataclass(frozen=True)
class Target:
    """An address, and the egress to it."""

    url: str
    egress: Egress

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or _PORTS.get(parts.scheme, 80)

    @property
    def proxy(self) -> str | None:
        """The proxy for the address, or None."""
        # Plain AMQP is not HTTP, and goes past an HTTP proxy.
        return None if urlsplit(self.url).scheme == "amqps" else self.egress.proxy_for(self.url)

    @property
    def tls(self) -> ssl.SSLContext | None:
        """The trusted CAs; None for a service that is not encrypted, because it is on this machine."""
        return self.trusted if urlsplit(self.url).scheme in _PORTS else None

    @property
    def trusted(self) -> ssl.SSLContext:
        """The trusted CAs of every encrypted connection, also of that to the proxy."""
        return self.egress.tls_for("https://") or ssl.create_default_context()


def services(settings: RelaySettings) -> Iterator[tuple[str, str]]:
    """The cloud services besides the hybrid connection, each with its address."""
    if {"https", "manage"} & set(settings.destinations):
        yield "API", settings.api_url
    if host := cloud_link.servicebus_host(settings):
        yield "Service Bus", f"{'amqps' if settings.servicebus_transport == 'amqp' else 'https'}://{host}"
    if settings.oidc_issuer:
        yield "identity provider", settings.oidc_issuer


def look(note: Note, settings: RelaySettings) -> None:
    """Reach every service. Raises Observed for the first that is not reached, Nothing when there is none."""
    egress, seen = cloud_link.egress(settings), []
    for name, url in services(settings):
        try:
            seen.append(f"{name}: {reached(Target(url, egress))}")
        except Observed as error:
            raise Observed(f"{name}: {error} {cloud_link.not_by_proxy(settings)}".strip()) from error
    if not seen:
        raise Nothing("No HTTPS API, Service Bus or identity provider is configured.")
    note.detail = f"{' '.join(seen)} {cloud_link.not_by_proxy(settings)}".strip()


def reached(target: Target) -> str:
    """Connect and agree on TLS, and say how it went. Raises Observed."""
    by = f" through the proxy {place(target.proxy)}" if target.proxy else ""
    with connected(target) as connection:
        if target.tls is None:
            return f"{target.host}:{target.port}{by}, not encrypted."
        with secured(connection, target) as tls:
            return f"{target.host}:{target.port}{by}, {tls.version()}, signed by {issuer(tls)}."


class Tls:
    """TLS over a connection that may be within TLS itself. Raises OSError, of which ssl.SSLError is one."""

    # In memory, because an `SSLSocket` cannot run over another one, as to an `https://` proxy.
    def __init__(self, connection: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._connection = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.version, self.getpeercert = self._inner.version, self._inner.getpeercert
        self._carried(self._inner.do_handshake)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection below."""
        self._connection.close()

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        self._carried(lambda: self._inner.write(data))

    def recv(self, size: int) -> bytes:
        """Up to so many bytes; none at the end."""
        try:
            return self._carried(lambda: self._inner.read(size))
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""

    def makefile(self, _mode: str) -> io.BufferedReader:
        """The received bytes as a file, which is how `http.client` reads."""
        return io.BufferedReader(_Received(self))

    def _carried(self, work: Callable[[], T]) -> T:
        """Run an operation of TLS, and carry its bytes over the connection in both directions."""
        while True:
            try:
                return work()
            except ssl.SSLWantReadError:
                pass
            finally:
                if pending := self._outgoing.read():
                    self._connection.sendall(pending)
            if received := self._connection.recv(_RECEIVED_BYTES):
                self._incoming.write(received)
            else:
                self._incoming.write_eof()


class _Received(io.RawIOBase):
    def __init__(self, tls: Tls) -> None:
        self._tls = tls

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # what a BufferedReader gives
        data = self._tls.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def connected(target: Target) -> socket.socket:
    """A connection, through the proxy if the egress has one. Raises Observed."""
    by = urlsplit(target.proxy) if target.proxy else None
    host, port = (by.hostname or "", by.port or 0) if by else (target.host, target.port)
    try:
        connection = socket.create_connection((host, port), SECONDS)
    except OSError as error:
        called = f"The proxy {host}:{port}" if by else f"{host}:{port}"
        raise Observed(f"{called} takes no connection: {error.strerror or 'no answer'}.") from error
    try:
        if target.proxy and by:
            if by.scheme == "https":
                with _agreeing(f"the proxy {host}"):
                    connection = target.trusted.wrap_socket(connection, server_hostname=host)
            _ask_proxy(connection, target, target.proxy)
    except BaseException:
        connection.close()
        raise
    return connection


def secured(connection: socket.socket, target: Target) -> Tls:
    """The same connection within TLS. Raises Observed."""
    with _agreeing(target.host):
        return Tls(connection, target.trusted, target.host)


@contextmanager
def _agreeing(peer: str) -> Iterator[None]:
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Observed(f"The certificate of {peer} is not trusted: {error.verify_message}.") from error
    except OSError as error:
        raise Observed(f"There is no TLS with {peer}: {error.strerror or error}.") from error


def place(proxy: str) -> str:
    """A proxy without its password."""
    parts = urlsplit(proxy)
    return f"{parts.hostname}:{parts.port}"


def issuer(tls: Tls) -> str:
    """The issuer of the peer's certificate."""
    certificate = tls.getpeercert() or {}
    names = dict(pair for part in certificate.get("issuer", ()) for pair in part)  # type: ignore[misc]
    return str(names.get("organizationName") or names.get("commonName") or "somebody without a name")


def _ask_proxy(connection: socket.socket, target: Target, proxy: str) -> None:
    parts, wanted = urlsplit(proxy), f"{target.host}:{target.port}"
    credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    authorization = f"Proxy-Authorization: Basic {b64encode(credentials).decode()}\r\n" if parts.username else ""
    connection.sendall(f"CONNECT {wanted} HTTP/1.1\r\nHost: {wanted}\r\n{authorization}\r\n".encode())
    received = bytearray()
    while not received.endswith(b"\r\n\r\n") and len(received) < 16_384 and (more := connection.recv(1)):
        received += more  # one by one: what follows the empty line is TLS already
    status = bytes(received).partition(b" ")[2][:3].decode("ascii", "replace")
    if status == "407":
        raise Observed(f"The proxy {place(proxy)} wants a name and a password, or others than these.")
    if not status.startswith("2"):
        raise Observed(f"The proxy {place(proxy)} answered {status or 'nothing'} and did not connect to {wanted}.")
