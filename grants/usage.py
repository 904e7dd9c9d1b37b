"""How a grant stands, for people and programs that ask: its limits, and what is used and left of each."""

from __future__ import annotations

from django.utils import timezone

from .clock import day_number, microseconds
from .limits import Limit, Limits, Standing, report
from .models import Allowance
from .terms import LIMITS

# What the relay's headers call a limit → what the terms call it.
TERMS_NAMES = {
    "requests": "max_requests",
    "concurrency": "max_concurrency",
    "cost": "max_cost",
    "cost-per-day": "max_cost_per_day",
    "cost-per-month": "max_cost_per_month",
    "requests-per-minute": "requests_per_minute",
    "tokens-per-minute": "tokens_per_minute",
}


def standing(allowance: Allowance) -> Standing:
    """The counters as they count today: yesterday's are not today's."""
    now = timezone.now()
    counters = {name: getattr(allowance, name) for name in Standing._fields if name != "now"}
    return Standing(now=microseconds(now), **counters).on(day_number(now, allowance.time_zone))


def limits_in_force(allowance: Allowance) -> dict[str, Limit]:
    """Every limit that is set, by the terms' name for it, as it stands. The one per call uses nothing up: not here."""
    limits = Limits(*(getattr(allowance, name) for name in LIMITS))
    return {TERMS_NAMES[limit.name]: limit for limit in report(limits, standing(allowance), allowance.time_zone)}
