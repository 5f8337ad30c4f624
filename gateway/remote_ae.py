"""Remote AEs as settings name them: callers that may connect, and peers to call.

Values only. Not for: deciding about a call (`gateway.dicom.admission`), making one (`gateway.dicom.requestor`).
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Self

_WITHIN_TLS = "/tls"
"""Behind the port of a peer that is called within TLS; a part of the address, as a second list could contradict it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A remote AE that may call: an AE title, from anywhere or from one address or network."""

    ae_title: str
    network: IPv4Network | IPv6Network | None = None

    @classmethod
    def parse(cls, entry: str) -> Self:
        """Read `AET` or `AET@address` or `AET@network/bits`. Raises ValueError for what is no address or network."""
        ae_title, _, place = entry.partition("@")
        return cls(ae_title.strip(), ip_network(place.strip(), strict=False) if place else None)

    def calls_from(self, address: str) -> bool:
        """Is this one of the addresses it may call from?"""
        return self.network is None or ip_address(address) in self.network


@dataclass(frozen=True, slots=True)
class Peer:
    """A DICOM application to call."""

    ae_title: str
    host: str
    port: int
    tls: bool = False
    """Is it called within TLS?"""

    @classmethod
    def parse(cls, text: str, separator: str) -> Self:
        """Read `AET=host:port` or `AET=host:port/tls`, with any separator. Raises ValueError with a sentence."""
        ae_title, found, address = (part.strip() for part in text.partition(separator))
        host, colon, port = address.removesuffix(_WITHIN_TLS).rpartition(":")
        if not (found and colon and host and port.isdecimal() and 0 < int(port) < 65536):
            raise ValueError(f"a peer is written as AET{separator}host:port, or AET{separator}host:port{_WITHIN_TLS}")
        if not 0 < len(ae_title) <= 16 or not ae_title.isascii() or not ae_title.isprintable() or "\\" in ae_title:
            raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
        return cls(ae_title, host.strip("[]"), int(port), address.endswith(_WITHIN_TLS))

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}{_WITHIN_TLS * self.tls}"


def reachable(host: str) -> str:
    """The address at which this machine calls a listener that is bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - read, not bound
