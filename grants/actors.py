"""Who stands behind a request: for the audit trail, and for the throttles."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest

from .models import Actor
from .networks import host_of


def address_of(request: HttpRequest) -> str | None:
    """The caller's address; ``None`` where there is none (a Unix socket) or where it is not an address.

    ``X-Forwarded-For`` counts only behind a proxy of the operator's (``AIPASSPORT_TRUST_PROXY``), and of it only the
    last element, which that proxy wrote: whatever stands before it came from the caller.
    """
    address = request.META.get("REMOTE_ADDR", "")
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    if settings.TRUST_PROXY and forwarded:
        address = forwarded.rpartition(",")[2]
    try:
        parsed = ipaddress.ip_address(address.strip().partition("%")[0])
    except ValueError:
        return None
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


def network_of(request: HttpRequest) -> str:
    """What the throttles of the public endpoints count on: the IPv4 address, or the IPv6 /64."""
    return host_of(address_of(request))


def actor_of(request: HttpRequest, via: str) -> Actor:
    """The signed-in user (``None`` for an app) and the address, acting ``via`` one of :class:`Actor`'s ways."""
    user = getattr(request, "user", None)
    return Actor(via, user if user is not None and user.is_authenticated else None, address_of(request))
