"""Why an admission was refused, in words that tell the app what to do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from .clock import moment
from .limits import TOKEN_BURST, Limit, Standing, report
from .money import exactly
from .policy import Denied, Policy

_RESERVED_RETRY = 2  # seconds: calls that are on their way end at any time


class Stale(Exception):
    """The grant changed between reading it and the admission: read it again."""


class Full(Denied):
    """A limit of the grant is reached. ``final``: trying again does not help; else ``retry_after`` is in seconds.

    ``limit``: the one, as it stands. ``by_bound``: the message names what the call could cost or use.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        limit: Limit | None = None,
        retry_after: int | None = None,
        by_bound: bool = False,
    ) -> None:
        super().__init__(code, message)
        self.by_bound = by_bound
        self.limit = limit
        self.final = retry_after is None
        self.retry_after = retry_after

    def because(self, why: str) -> Full:
        """The same refusal, with the reason why the call's bound is high where the message names that bound."""
        if why and self.by_bound:
            self.message = f"{self.message} {why}"
        return self


def reason(policy: Policy, standing: Standing, *, least: int, tokens: int) -> Full | None:
    """What stands in a call's way: a final reason before one that passes, of those the one that lasts longest.

    ``None`` where nothing does. ``least``: nano-dollars that the call needs; ``tokens``: what it can use.
    """
    limits = {limit.name: limit for limit in report(policy.limits, standing, policy.time_zone)}
    found = [*_counts(limits), *_money(limits, least), *_rates(policy, standing, limits, tokens)]
    found.sort(key=lambda full: (not full.final, -(full.retry_after or 0)))
    return found[0] if found else None


def final(policy: Policy, standing: Standing, *, costs: bool) -> Full | None:
    """The limit that refuses every call from now on, or until a period ends. ``costs``: calls need some money."""
    limits = {limit.name: limit for limit in report(policy.limits, standing, policy.time_zone)}
    found = [*_counts(limits), *(_money(limits, None) if costs else ())]
    return next((full for full in found if full.final), None)


def forestalled(policy: Policy, standing: Standing) -> Exception:
    """There was room at every look and never at the admission: others come and go too fast. It is not final.

    The limit is the one that frees its room soonest; :class:`Stale` where the grant has none.
    """
    limits = {limit.name: limit for limit in report(policy.limits, standing, policy.time_zone)}
    for name, code in _FREED.items():
        if limit := limits.get(name):
            return Full(
                code, "Other calls of this grant used the remaining quota. Try again.", limit=limit, retry_after=1
            )
    return Stale()


def call_too_dear(least: int, cap: int) -> Full:
    """Refused by the limit per call, which nothing can make room in."""
    limit = Limit("cost-per-call", "nano-dollars", cap, 0)
    return Full(
        "call_cost_limit_reached",
        f"This call could cost {exactly(least)}. This grant allows {exactly(cap)} a call. "
        "Send a shorter request, or lower the output limit.",
        limit=limit,
        by_bound=True,
    )


def call_too_large(tokens: int, allowed: int) -> Full:
    """Refused by the token rate, which could never let so many through at once."""
    limit = Limit("tokens-per-minute", "tokens", allowed, 0, window=60)
    return Full(
        "token_rate_reached",
        f"This call could use {tokens} tokens. This grant allows {allowed} a minute. "
        "Send a shorter request, or lower the output limit.",
        limit=limit,
        by_bound=True,
    )


def closed() -> Full:
    return Full(
        "grant_closed",
        "A call of this grant cost more than its bound, so the grant was closed. Its owner can reopen it.",
    )


def _counts(limits: dict[str, Limit]) -> Iterator[Full]:
    requests, calls = limits.get("requests"), limits.get("concurrency")
    if requests and not requests.remaining:
        message = f"This grant's {requests.allowed} requests are used up. Its owner can raise the limit."
        yield Full("request_limit_reached", message, limit=requests)
    if calls and not calls.remaining:
        message = f"This grant allows {calls.allowed} calls at a time; wait for one to end."
        yield Full("concurrency_limit_reached", message, limit=calls, retry_after=1)


# By what each limit is refused; first those whose room comes back with every call that ends.
_FREED = {
    "concurrency": "concurrency_limit_reached",
    "cost": "cost_limit_reached",
    "cost-per-day": "daily_cost_limit_reached",
    "cost-per-month": "monthly_cost_limit_reached",
    "tokens-per-minute": "token_rate_reached",
    "requests-per-minute": "request_rate_reached",
    "requests": "request_limit_reached",
}
_PERIODS = {
    "cost": ("", "cost"),
    "cost-per-day": (" a day", "daily_cost"),
    "cost-per-month": (" a month", "monthly_cost"),
}


def _money(limits: dict[str, Limit], need: int | None) -> Iterator[Full]:
    """``need``: nano-dollars that the call needs, ``None`` where they are not known yet but are more than nothing."""
    least = 1 if need is None else need
    asked = "." if need is None else f", and this call could cost {exactly(need)}."
    for name, (period, code) in _PERIODS.items():
        limit = limits.get(name)
        if limit is None or limit.allowed - limit.used - limit.reserved >= least:
            continue
        spent = limit.allowed - limit.used < least
        message = (
            f"This grant allows {exactly(limit.allowed)}{period}. {exactly(limit.used)} is spent, "
            f"{exactly(limit.reserved)} is reserved for open calls{asked} "
        )
        if not spent:
            message += "Wait until one of these calls ends."
        elif limit.resets_at:
            message += f"It resets at {_at(limit.resets_at)}."
        else:
            message += "Its owner can raise the limit."
        retry_after = None if spent else _RESERVED_RETRY
        yield Full(f"{code}_limit_reached", message, limit=limit, retry_after=retry_after, by_bound=need is not None)


def _rates(policy: Policy, standing: Standing, limits: dict[str, Limit], tokens: int) -> Iterator[Full]:
    terms, now = policy.limits, standing.now
    requests = (standing.requests_clock, terms.request_advance, terms.request_tolerance)
    for unit, (clock, advance, tolerance) in (
        ("request", requests),
        ("token", (standing.tokens_clock, terms.token_advance(tokens), TOKEN_BURST)),
    ):
        wait = max(clock, now) + advance - tolerance - now
        if not advance or wait <= 0:
            continue
        if advance > tolerance:
            yield call_too_large(tokens, limits["tokens-per-minute"].allowed)
            continue
        limit, seconds = limits[f"{unit}s-per-minute"], -(-wait // 1_000_000)
        message = f"This grant allows {limit.allowed} {unit}s a minute; try again in {seconds} s."
        yield Full(f"{unit}_rate_reached", message, limit=limit, retry_after=seconds)


def _at(microseconds: int) -> str:
    return moment(microseconds).astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
