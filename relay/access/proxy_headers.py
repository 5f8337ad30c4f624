"""The client's address behind reverse proxies, by which requests are limited and recorded. Pure.

X-Forwarded-For and Forwarded (RFC 7239) count only when the connection comes from an address of RELAY_TRUSTED_PROXIES.
They are read from the right end, past trusted addresses; the first other one is the client. Two headers that differ, or
a list with something that is no address, count as none: then the proxy is the client.

Not here: limits (`relay.access.rate_limits`), users (`relay.access.middleware`).
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

LONGEST = 50
"""Hops that are looked at, from the right."""

_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*("[^"]*"|[^;"]*)\s*(?=;|$)', re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([0-9a-fA-F:.]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")


def client(peer: str, *, forwarded_for: Sequence[str], forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """Return the client's address. `peer` is the address of the connection; `forwarded_for` and `forwarded` are the
    values of the headers X-Forwarded-For and Forwarded, in the order they came."""
    nearest = address(peer) if trusted else None
    if nearest is None or not is_in(nearest, trusted):
        return peer
    lists = [hops for hops in (listed(forwarded_for), for_parameters(forwarded)) if hops]
    # A proxy writes one of the headers and passes the other on as the client sent it, so a difference may be forged.
    clients = {_farthest(hops, trusted) for hops in lists}
    if len(clients) != 1:
        return str(nearest)
    [only] = clients
    return str(only or nearest)


def listed(values: Iterable[str]) -> list[str]:
    """Return the entries of comma-separated header values as one list."""
    return [entry.strip() for value in values for entry in value.split(",") if entry.strip()]


def for_parameters(values: Iterable[str]) -> list[str]:
    """Return the `for` parameter of each element of Forwarded, "unknown" (RFC 7239 Section 6.2) where it is absent."""
    found = (_FOR.search(element) for element in listed(values))
    return [match[1].strip('"').strip() if match else "unknown" for match in found]


def address(text: str) -> Address | None:
    """Read an address, with or without a port or brackets; None for another text. IPv4 within IPv6 is IPv4."""
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def is_in(known: Address, networks: Iterable[Network]) -> bool:
    """Is the address in one of these networks?"""
    return any(known in network for network in networks)


def _farthest(hops: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    # From the right, because the nearest proxy appends there and everything left of it may be the client's invention.
    # The leftmost when all are trusted; None when one is no address.
    known: Address | None = None
    for hop in hops[: -LONGEST - 1 : -1]:
        known = address(hop)
        if known is None or not is_in(known, trusted):
            break
    return known
