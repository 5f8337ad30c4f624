"""The egress of this machine to the cloud: directly or through the hospital's proxy, and the authorities it trusts.

A proxy gets CONNECT, with a name and a password if its address has them (RFC 9110 Section 9.3.6). Not here: whether the
route works (`operations.checks.link_check`).
"""

import ssl
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address, ip_network
from pathlib import Path
from urllib.parse import urlsplit


# One value for every connection to the cloud: libraries read HTTPS_PROXY by rules of their own, and would take
# different routes for one site.
@dataclass(frozen=True)
class Egress:
    """`proxy` is `http://[name:password@]host:port`, empty for none; `no_proxy` are hosts that are reached without it.

    An entry of `no_proxy` is a host, a domain including all below it (with or without a dot in front), an address, a
    network such as 10.0.0.0/8, or `*`.
    """

    proxy: str = field(default="", repr=False)
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None

    def proxy_for(self, url: str) -> str | None:
        """The proxy for `url`; None when it is reached without one."""
        # Never for this machine: no proxy can reach its loopback.
        host = urlsplit(url).hostname or ""
        if not self.proxy or _is_here(host) or any(_covers(entry, host) for entry in self.no_proxy):
            return None
        return self.proxy

    def tls_for(self, url: str) -> ssl.SSLContext | None:
        """The authorities trusted for `url`; None when it is not encrypted (this machine only)."""
        return self._trusted if urlsplit(url).scheme in ("wss", "https") else None

    @cached_property
    def _trusted(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.ca_file is not None:
            # In addition to the machine's own, for a proxy that looks into TLS. Verification cannot be switched off.
            context.load_verify_locations(self.ca_file)
        return context


DIRECT = Egress()
"""No proxy, and the machine's own list of certificate authorities."""


def proxy_url(text: str) -> str:
    """Read the address of a proxy. Raises ValueError in words for the operator."""
    # The words never quote the address, because it may have a password.
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError("a proxy is written http://host:port or http://name:password@host:port")
    if parts.port is None:
        raise ValueError("a proxy needs its port, such as http://proxy.example:8080")
    return parts.geturl().rstrip("/")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _covers(entry: str, host: str) -> bool:
    entry, host = entry.strip().lower(), host.lower()
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:  # one of them is a name
        domain = entry.lstrip("*").lstrip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))
