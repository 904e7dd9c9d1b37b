"""What a call asks the ledger for: the bound of its cost and tokens, and how far its output limit can be lowered."""

from __future__ import annotations

from typing import NamedTuple

from grants import refusals
from grants.policy import Policy

from .dialects.base import UpstreamCall
from .pricing import bounds
from .pricing.bounds import FLOOR, Bound
from .pricing.unpriced import PriceUnknown


class Reservation(NamedTuple):
    """``want``: nano-dollars at the whole output limit; ``least``: at the smallest one that is worth a call.

    ``tokens``: the most that the call can use. ``bound`` and ``limit`` are ``None`` where the grant limits neither
    money nor tokens, or where the call has no output.
    """

    want: int = 0
    least: int = 0
    tokens: int = 0
    bound: Bound | None = None
    limit: int | None = None

    def granted(self, reserved: int) -> int | None:
        """The output limit that ``reserved`` nano-dollars pay for."""
        if self.bound is None or self.limit is None or reserved >= self.want:
            return self.limit
        return self.bound.affordable(reserved)


def output_limit(policy: Policy) -> int | None:
    """What a call that names no output limit gets; ``None`` where nothing depends on it."""
    limited = policy.limits.money or policy.limits.tokens_per_minute is not None
    return policy.default_output_tokens if limited else None


def reservation(policy: Policy, call: UpstreamCall) -> Reservation:
    """What the call needs at most and at least, within what the grant allows a single call.

    Raises:
        RelayError: under a limit in money, what has no price or no bound.
        Full: one call may not cost or use so much.
    """
    limits = policy.limits
    if call.flavor == "none" or output_limit(policy) is None:
        return Reservation()
    bound = _bound(policy, call)
    limit = bound.limit
    floor = None if limit is None else min(limit, max(FLOOR, call.demand.least))
    if (rate := limits.tokens_per_minute) is not None:
        if bound.tokens(floor) > rate:
            raise refusals.call_too_large(bound.tokens(floor), rate).because(bound.why)
        if limit is not None:
            limit = min(limit, (rate - bound.input_tokens) // bound.candidates)
    if (cap := limits.max_cost_per_call) is not None:
        if bound.cost(floor) > cap:
            raise refusals.call_too_dear(bound.cost(floor), cap).because(bound.why)
        if limit is not None:
            limit = min(limit, bound.affordable(cap))
    return Reservation(bound.cost(limit), bound.cost(floor), bound.tokens(limit), bound, limit)


def _bound(policy: Policy, call: UpstreamCall) -> Bound:
    limits = policy.limits
    if not limits.money:
        return bounds.tokens_bound(policy.provider, call)
    try:
        return bounds.bound(
            policy.provider,
            call,
            policy.prices,
            policy.margin,
            max_cost_per_call=limits.max_cost_per_call,
            price_list=policy.price_list,
        )
    except PriceUnknown as error:
        raise error.of_grant(policy.grant) from None
