"""Which network an address belongs to. Strangers are counted by network, because addresses cost them nothing.

One customer of a provider may hold a whole IPv6 /48, and a company a whole IPv4 /24: a count for each address of theirs
would let them act 65,536 or 256 times as often. Whole providers are counted by IPv6 /32 and IPv4 /16.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache


def block_of(address: str | None) -> str:
    """The IPv4 /24 or IPv6 /48 of an address; empty where there is no address."""
    return _network(address, 24, 48) if address else ""


@lru_cache(4096)
def region_of(block: str) -> str:
    """The IPv4 /16 or IPv6 /32 that a block lies in; empty for the empty block."""
    return _network(block.partition("/")[0], 16, 32) if block else ""


def host_of(address: str | None) -> str:
    """The IPv4 address, or the /64 that one IPv6 customer always has; empty where there is no address."""
    return _network(address, 32, 64).removesuffix("/32") if address else ""


def _network(address: str, bits: int, bits6: int) -> str:
    return str(ipaddress.ip_network(f"{address}/{bits6 if ':' in address else bits}", strict=False))
