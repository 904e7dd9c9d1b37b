"""The desk's first page: a calm overview, from a handful of cheap queries."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db.models import Count, Q, Sum, prefetch_related_objects
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from ..clock import day_number
from ..models import Allowance, AuditEvent, Call, Grant, ProviderKey
from ..pace import Unhurried
from ..search import Search, page

SHOWN = 8


def overview(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """The theme's ``DASHBOARD_CALLBACK``. Counters come from the allowances: no list of calls is ever summed."""
    user = request.user
    keys = ProviderKey.objects.owned_by(user)
    live = Grant.objects.owned_by(user).live()
    return context | {
        "title": "Overview",
        "has_keys": keys.exists(),
        "live_count": live.count(),
        "grants": Unhurried(live.select_related("allowance", "provider_key").order_by("expires_at")[:SHOWN]),
        "counters": _counters(user),
        "keys_count": keys.aggregate(on=Count("pk", filter=Q(disabled_at=None)), off=Count("disabled_at")),
        "troubled": keys.enabled().failing().order_by("-last_error_at")[:SHOWN],
        "waiting": _waiting(user),
        "calls": _latest(user),
        "events": Unhurried(AuditEvent.objects.visible_to(user).select_related("grant", "provider_key")[:SHOWN]),
    }


def _latest(user: Any) -> Unhurried[Call]:
    calls = page(user, Search(), size=SHOWN).calls
    prefetch_related_objects(calls, "grant")
    return Unhurried(calls)


def _counters(user: Any) -> dict[str, int]:
    """Today's calls and money, the month's money, and what is open now. A day is the one of each grant's owner."""
    mine = Allowance.objects.filter(grant__in=Grant.objects.owned_by(user))
    now = dt.datetime.now(dt.UTC)
    days = {zone: day_number(now, zone) for zone in mine.values_list("time_zone", flat=True).distinct()}
    today, this_month = Q(pk=None), Q(pk=None)  # nothing, so far
    for zone, day in days.items():
        today |= Q(time_zone=zone, day=day)
        this_month |= Q(time_zone=zone, day__gte=day // 100 * 100, day__lt=(day // 100 + 1) * 100)
    return mine.aggregate(
        calls=Coalesce(Sum("day_requests", filter=today), 0),
        spent=Coalesce(Sum("day_spent", filter=today), 0),
        month_spent=Coalesce(Sum("month_spent", filter=this_month), 0),
        open=Coalesce(Sum("in_flight"), 0),
        reserved=Coalesce(Sum("reserved"), 0),
    )


def _waiting(user: Any) -> Any:
    """Requests that nobody has decided: superusers see them, others get a link from their app."""
    return Grant.objects.pending().order_by("request_expires_at")[:SHOWN] if user.is_superuser else ()
