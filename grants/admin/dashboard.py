"""The desk's first page: a calm overview, from a handful of cheap queries."""

from __future__ import annotations

import datetime as dt
from typing import Any

from django.db.models import Count, Q, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest

from ..clock import day_number
from ..models import Allowance, AuditEvent, Call, Grant, ProviderKey

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
        "grants": live.select_related("allowance", "provider_key").order_by("expires_at")[:SHOWN],
        "counters": _counters(user),
        "keys_count": keys.aggregate(on=Count("pk", filter=Q(disabled_at=None)), off=Count("disabled_at")),
        "troubled": keys.enabled().failing().order_by("-last_error_at")[:SHOWN],
        "waiting": _waiting(user),
        "calls": Call.objects.visible_to(user).select_related("grant")[:SHOWN],
        "events": AuditEvent.objects.visible_to(user).select_related("grant", "provider_key")[:SHOWN],
    }


def _counters(user: Any) -> dict[str, int]:
    """Today's calls and money, and what is open now."""
    mine = Allowance.objects.filter(grant__in=Grant.objects.owned_by(user))
    today = Q(day=day_number(dt.datetime.now(dt.UTC)))
    return mine.aggregate(
        calls=Coalesce(Sum("day_requests", filter=today), 0),
        spent=Coalesce(Sum("day_spent", filter=today), 0),
        open=Coalesce(Sum("in_flight"), 0),
    )


def _waiting(user: Any) -> Any:
    """Requests that nobody has decided: superusers see them, others get a link from their app."""
    return Grant.objects.pending().order_by("request_expires_at")[:SHOWN] if user.is_superuser else ()
