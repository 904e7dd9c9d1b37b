"""Refuses calls of grants that are used up before their bodies are read."""

from __future__ import annotations

from django.http import HttpRequest

from grants import ledger, prices, refusals
from grants.pace import release_connection
from grants.policy import Policy

from . import dialects, inbound
from .pricing.tariffs import is_free
from .watch import watch

_SMALL = 16 * 1024  # bytes; a smaller body has come with its head, and its call is refused at the admission


def refuse_final(request: HttpRequest, path: str, policy: Policy) -> None:
    """Refuse a call with a large body if no admission could let it through, whatever its body asks for.

    Raises:
        Denied, Full: the grant is closed, has expired, or its requests or its money are used up.
    """
    length = inbound.declared_length(request)
    if (length or 0) <= _SMALL and "HTTP_TRANSFER_ENCODING" not in request.META:
        return
    route = dialects.route(request.method or "", path, inbound.headers_of(request))
    if route is None:  # refused for that
        return
    costs = not is_free(policy.provider, route.flavor, None) and not prices.any_free(policy.prices)
    try:
        full = refusals.final(policy, ledger.standing(policy), costs=costs)
        if full is not None:
            watch.touch(policy.grant, full.code)
            raise full
    except ledger.Stale:  # the admission reads the grant again
        pass
    finally:
        release_connection()
