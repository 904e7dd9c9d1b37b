"""A grant's limits: what each allows, what is used and reserved of it, when it comes back. Pure.

Rates let an even pace pass (GCRA): requests up to ten seconds' worth at once, but at least one; tokens up to a whole
minute's worth, since a single call takes thousands. So in any sliding minute at most the limit and one such burst pass.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from .clock import microseconds, two_days_after, zone_info
from .terms import LIMITS

MINUTE = 60_000_000  # microseconds
_REQUEST_BURST = 10_000_000
_REQUEST_SLACK = 1_000_000  # callers are told to wait for whole seconds: at a slow pace too, nothing is lost by that
TOKEN_BURST = MINUTE
_DAY = 86_400  # seconds
_MONTH = 31 * _DAY  # at most


class Limits(NamedTuple):
    """A grant's limits, ``None`` is none, in the order of :data:`grants.terms.LIMITS`. Money in nano-dollars."""

    max_requests: int | None = None
    max_concurrency: int | None = None
    max_cost: int | None = None
    max_cost_per_day: int | None = None
    max_cost_per_month: int | None = None
    max_cost_per_call: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    @property
    def money(self) -> bool:
        """Whether a call needs a bound in money."""
        return any(limit is not None for limit in self[2:6])

    @property
    def request_advance(self) -> int:
        """By how many microseconds a request moves its clock; 0 without a rate."""
        return _advance(1, self.requests_per_minute)

    @property
    def request_tolerance(self) -> int:
        return max(_REQUEST_BURST, self.request_advance + _REQUEST_SLACK)

    def token_advance(self, tokens: int) -> int:
        """By how many microseconds so many tokens move their clock; 0 without a rate."""
        return _advance(tokens, self.tokens_per_minute)


assert Limits._fields == LIMITS  # noqa: S101  the order is relied on


def _advance(units: int, rate: int | None) -> int:
    return 0 if rate is None else -(-units * MINUTE // rate)


class Standing(NamedTuple):
    """How the counted row stood at ``now`` (microseconds since the epoch). ``day``: yyyymmdd."""

    now: int
    day: int
    requests: int
    in_flight: int
    spent: int
    reserved: int
    day_spent: int
    day_reserved: int
    month_spent: int
    month_reserved: int
    requests_clock: int
    tokens_clock: int
    tokens_excess: int = 0

    def on(self, today: int) -> Standing:
        """The same, seen on a later day: nothing of that is used yet. Of a day too far ahead, all of it is used."""
        if today <= self.day:
            return self if self.day <= two_days_after(today) else self._replace(day=today)
        month = {} if today // 100 == self.day // 100 else {"month_spent": 0, "month_reserved": 0}
        return self._replace(day=today, day_spent=0, day_reserved=0, **month)


class Limit(NamedTuple):
    """One limit as it stands. ``window``: seconds that it is for, ``None`` for the grant's whole life.

    ``unit``: requests, calls, tokens or nano-dollars. ``resets_at``: microseconds since the epoch; of a rate, when all
    of it is free again.
    """

    name: str
    unit: str
    allowed: int
    used: int
    reserved: int = 0
    window: int | None = None
    resets_at: int | None = None
    left: int | None = None  # of a rate, where it is less than allowed − used − reserved

    @property
    def remaining(self) -> int:
        return max(0, self.allowed - self.used - self.reserved if self.left is None else self.left)


@lru_cache(maxsize=1024)
def midnight_after(day: int, zone: str) -> int:
    """When the day ``yyyymmdd`` ends in ``zone``, in microseconds since the epoch."""
    date = dt.date(day // 10_000, day // 100 % 100, day % 100) + dt.timedelta(days=1)
    return microseconds(dt.datetime.combine(date, dt.time(), zone_info(zone)))


@lru_cache(maxsize=1024)
def month_after(day: int, zone: str) -> int:
    """When the month of the day ``yyyymmdd`` ends in ``zone``."""
    year, month = day // 10_000, day // 100 % 100
    first = dt.date(year + month // 12, month % 12 + 1, 1)
    return microseconds(dt.datetime.combine(first, dt.time(), zone_info(zone)))


def report(limits: Limits, standing: Standing, zone: str) -> Iterator[Limit]:
    """Every limit that is set, except the one per call, as it stands."""
    now = standing
    if limits.max_requests is not None:
        yield Limit("requests", "requests", limits.max_requests, now.requests)
    if limits.max_concurrency is not None:
        yield Limit("concurrency", "calls", limits.max_concurrency, now.in_flight)
    if limits.max_cost is not None:
        yield Limit("cost", "nano-dollars", limits.max_cost, now.spent, now.reserved)
    day, month = limits.max_cost_per_day, limits.max_cost_per_month
    if day is not None:
        end = midnight_after(now.day, zone)
        yield Limit("cost-per-day", "nano-dollars", day, now.day_spent, now.day_reserved, _DAY, end)
    if month is not None:
        end = month_after(now.day, zone)
        yield Limit("cost-per-month", "nano-dollars", month, now.month_spent, now.month_reserved, _MONTH, end)
    if limits.requests_per_minute is not None:
        allowed, advance = limits.requests_per_minute, limits.request_advance
        ahead = max(0, now.requests_clock - now.now)
        used, left = -(-ahead // advance), max(0, limits.request_tolerance - ahead) // advance
        yield _rate("requests", allowed, used, left, now.now + ahead)
    if limits.tokens_per_minute is not None:
        allowed, ahead = limits.tokens_per_minute, max(0, now.tokens_clock - now.now)
        used, left = -(-ahead * allowed // MINUTE), max(0, TOKEN_BURST - ahead) * allowed // MINUTE
        yield _rate("tokens", allowed, used, left, now.now + ahead)


def _rate(unit: str, allowed: int, used: int, left: int, resets_at: int) -> Limit:
    """``left``: what may come at once. More than ``allowed`` is in use where one call used more than it reserved."""
    return Limit(f"{unit}-per-minute", unit, allowed, min(allowed, used), 0, 60, resets_at, left)
