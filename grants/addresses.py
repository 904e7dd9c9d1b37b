"""Which addresses are on the public internet: of base URLs and webhooks, as written and as connected."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

# All that is assigned; ``is_global`` takes some of the rest for public.
_GLOBAL_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")
_LOCAL_DOMAINS = ("localhost", "local", "internal", "localdomain", "home.arpa")
# Of a host whose last label is a number, resolvers make an IPv4 address: 127.1, 0x7f.1, 2130706433.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)+")


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is on the public internet, also inside an IPv6 one (mapped, 6to4, NAT64)."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    return address.is_global and not address.is_multicast


def may_be_public_host(host: str) -> bool:
    """Whether ``host``, as written in a URL, may lead to the public internet: an address or a name with a dot.

    Unusual spellings of addresses are refused. What a name resolves to is checked when a connection is made.
    """
    host = host.lower().removesuffix(".")
    try:
        return "%" not in host and is_public(ip_address(host))
    except ValueError:
        pass
    if not _NAME.fullmatch(host) or _NUMBER.fullmatch(host.rpartition(".")[2]):
        return False
    return not any(host.endswith(f".{domain}") for domain in _LOCAL_DOMAINS) and host not in _LOCAL_DOMAINS
