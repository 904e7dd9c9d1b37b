"""How many requests may wait for an owner at a time, and which of them makes room for another.

Anybody can file requests, so the list is bounded. What is full is shared evenly: a new request takes the place of one
from the busiest network, and only where that network keeps at least as many as the new one's network then has. So a
network that floods the list displaces nobody but itself.

Networks are compared by region first (IPv4 /16, IPv6 /32), then by block within the busiest region (IPv4 /24, IPv6
/48). Otherwise the holder of one IPv6 /32 would count as 65,536 networks with one request each. Each displacement makes
the shares more even, so that only a few thousand are possible in the lifetime of a request, whatever strangers do.

Requests that come at the same moment may pass a bound together, by as many as there are database connections.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db.models import Count, Min, Q
from django.utils import timezone

from ..networks import region_of
from .audit import Actor, AuditEvent

if TYPE_CHECKING:
    from .grants import GrantQuerySet

MAX_PENDING_REQUESTS = 1000
MAX_PENDING_PER_NETWORK = 100  # an IPv4 /24 or an IPv6 /48


def make_room(pending: GrantQuerySet, network: str) -> None:
    """See that one more request of ``network`` may wait. Call in the transaction that adds it.

    Raises:
        ValidationError: too many of this network are pending, or too many of all and none gives way.
    """
    groups = (
        pending.order_by()
        .values("request_network")
        .annotate(waiting=Count("pk"), unopened=Count("pk", filter=Q(opened_at=None)), oldest=Min("created_at"))
    )
    rows = list(groups.order_by("oldest").values_list("request_network", "waiting", "unopened"))
    if any(own == network and count >= MAX_PENDING_PER_NETWORK for own, count, _ in rows):
        raise _too_many("Too many requests from your network are waiting for an owner; try again later.")
    if sum(count for _, count, _ in rows) < MAX_PENDING_REQUESTS:
        return
    busiest = yields_to(network, {own: unopened for own, _, unopened in rows})
    if busiest is None or not _displace_one(pending, busiest):
        raise _too_many("Too many requests are waiting for an owner; try again later.")


def yields_to(network: str, counts: Mapping[str, int]) -> str | None:
    """The network that gives up a request for one more of ``network``; ``None``: none does.

    ``counts``: how many requests each network has that no owner has opened. Of equally busy ones, the first is chosen.
    """
    regions: Counter[str] = Counter()
    for block, count in counts.items():
        regions[region_of(block)] += count
    own = region_of(network)
    region = max(regions, key=regions.__getitem__)
    if regions[region] > regions[own] + 1:
        return _busiest_block(counts, region)
    if own not in regions:
        return None
    busiest = _busiest_block(counts, own)
    return busiest if counts[busiest] > counts.get(network, 0) + 1 else None


def _busiest_block(counts: Mapping[str, int], region: str) -> str:
    return max((block for block in counts if region_of(block) == region), key=counts.__getitem__)


def _displace_one(pending: GrantQuerySet, network: str) -> bool:
    """End the oldest request of ``network`` that no owner has opened. Says whether there was one.

    Those that another transaction is about to end or to decide are skipped, so that nobody waits.
    """
    unopened = pending.filter(request_network=network, opened_at=None).order_by("created_at", "pk")
    oldest: Any = unopened.select_for_update(skip_locked=True, no_key=True).first()
    if oldest is None or pending.filter(pk=oldest.pk).update(request_expires_at=timezone.now()) != 1:
        return False
    AuditEvent.record(AuditEvent.Action.GRANT_DISPLACED, Actor("system"), grant=oldest, app=oldest.app_name)
    return True


def _too_many(message: str) -> ValidationError:
    return ValidationError(message, code="too_many")
