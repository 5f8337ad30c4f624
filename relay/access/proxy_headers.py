"""Who a request comes from when a reverse proxy passes it on: the address that limits and the audit trail go by. Pure.

Rules. What a client says of itself is not believed. Only when the connection comes from an address of
RELAY_TRUSTED_PROXIES, the lists that proxies add to are read from their right end, where the nearest one wrote: trusted
addresses are passed over, and the first that is not is the client. Of X-Forwarded-For and Forwarded (RFC 7239) a proxy
writes one, and lets the other pass as the client sent it; so when both are there and say different, neither counts, and
neither does a list with something in the way that is no address. Then it is the proxy that asks.

Not here: what is counted by address (`relay.access.rate_limits`), who somebody is (`relay.access.middleware`).
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
    """The address of who asks. `peer` is who is connected; the values of both headers, in the order they came."""
    nearest = address(peer) if trusted else None
    if nearest is None or not is_in(nearest, trusted):
        return peer
    lists = [hops for hops in (listed(forwarded_for), for_parameters(forwarded)) if hops]
    found = {_farthest(hops, trusted) for hops in lists}
    if len(found) != 1:
        return str(nearest)
    [only] = found
    return str(only or nearest)


def listed(values: Iterable[str]) -> list[str]:
    """The entries of lists with commas, as one list."""
    return [entry.strip() for value in values for entry in value.split(",") if entry.strip()]


def for_parameters(values: Iterable[str]) -> list[str]:
    """The `for` of each element of Forwarded; an element without one is nobody's address."""
    found = (_FOR.search(element) for element in listed(values))
    return [match[1].strip('"').strip() if match else "unknown" for match in found]


def address(text: str) -> Address | None:
    """An address, with or without a port or brackets; None for what is none. IPv4 within IPv6 is IPv4."""
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def is_in(known: Address, networks: Iterable[Network]) -> bool:
    """Is it of one of these networks?"""
    return any(known in network for network in networks)


def _farthest(hops: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """The first from the right that is not trusted, or when all are, the leftmost; None when one is no address."""
    known: Address | None = None
    for hop in hops[: -LONGEST - 1 : -1]:
        known = address(hop)
        if known is None or not is_in(known, trusted):
            break
    return known
