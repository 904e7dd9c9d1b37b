"""A grant's limits as an app reads them: headers on every answer, details in a refusal.

``RateLimit`` and ``RateLimit-Policy`` follow draft-ietf-httpapi-ratelimit-headers-10. Money is told in micro-dollars
there, rounded to the disadvantage of nobody's budget, since quotas are integers of at most fifteen digits.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from grants.clock import moment
from grants.limits import Limit
from grants.money import dollars

_UNITS = {"requests": None, "calls": "concurrent-requests", "tokens": "tokens", "nano-dollars": "micro-dollars"}


def headers(limits: Iterable[Limit], now: int) -> dict[str, str]:
    """Both headers for the limits as they stand at ``now`` (microseconds since the epoch); none without limits."""
    policies, standings = [], []
    for limit in limits:
        policies.append(_policy(limit.name, limit.unit, limit.allowed, limit.window))
        standing = f'"{limit.name}";r={_quota(limit.unit, limit.remaining)}'
        if limit.resets_at is not None:
            standing += f";t={max(0, -(-(limit.resets_at - now) // 1_000_000))}"
        standings.append(standing)
    if not policies:
        return {}
    return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(standings)}


@lru_cache(maxsize=4096)
def _policy(name: str, unit: str, allowed: int, window: int | None) -> str:
    described = f'"{name}";q={_quota(unit, allowed)}' + (f";w={window}" if window else "")
    return described + (f';qu="{_UNITS[unit]}"' if _UNITS[unit] else "")


def _quota(unit: str, amount: int) -> int:
    return amount // 1000 if unit == "nano-dollars" else amount


def details(limit: Limit) -> dict[str, Any]:
    """The limit for the body of a refusal: which one, allowed, used, reserved, and when it resets."""
    money = limit.unit == "nano-dollars"
    return {
        "name": limit.name,
        "unit": "dollars" if money else limit.unit,
        **{
            name: dollars(value) if money else value
            for name, value in (("allowed", limit.allowed), ("used", limit.used), ("reserved", limit.reserved))
        },
        "resets_at": None if limit.resets_at is None else moment(limit.resets_at).isoformat(timespec="seconds"),
    }
