"""One open call, from admission to settlement: what ties the grant's ledger to the answer on its way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from grants import ledger
from grants import policy as policies
from grants.clock import uuid7
from grants.policy import Policy
from grants.tokens import Claims

from . import metering
from .dialects.base import UpstreamCall
from .exceptions import Unavailable
from .streaming import Ending
from .watch import Watched, release_connection, watch

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class OpenCall:
    """An admitted call. ``finish`` must be called exactly once."""

    id: UUID
    policy: Policy
    call: UpstreamCall
    watched: Watched

    def finish(self, ending: Ending) -> None:
        """Settle it: usage and cost as observed, or estimated from what flowed."""
        try:
            watch.settle(self.id, self._settlement(ending))
        finally:
            watch.leave(self.id)
            release_connection()

    def _settlement(self, ending: Ending) -> ledger.Settlement:
        settlement = ledger.Settlement(
            ending.outcome, ending.status, ending.first_byte_us, cost=0, connected=ending.connected
        )
        observer = ending.observer
        if observer is None or self.call.flavor == "none":
            return settlement
        result = observer.result()
        if result is None and ending.status is not None and ending.status >= 400:
            return settlement  # refused by the provider: nothing was used
        usage = metering.meter(self.policy.provider, self.call, result, output_characters=observer.output_characters)
        return replace(
            settlement,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cost=usage.cost,
            estimated=usage.estimated,
        )


def open_call(claims: Claims, policy: Policy, call: UpstreamCall, client: Any) -> OpenCall:
    """Check the call against its grant, count it and open its row; the database connection is given back then.

    Raises:
        Denied, Full: the grant does not allow it.
        Unavailable: the broker is going down, or the grant changes too fast to be read.
    """
    if watch.draining:
        raise Unavailable("The broker is restarting; please try again.", retry_after=1)
    watch.ensure_running()
    entry = ledger.Entry(
        id=uuid7(),
        jti=claims.jti,
        kid=claims.kid,
        worker=watch.worker,
        route=call.route,
        model=call.model,
        stream=call.stream,
        counted=call.counted,
    )
    for _ in range(_ATTEMPTS):
        policy.check(call.models, call.capabilities)
        try:
            ledger.admit(policy, entry)
            release_connection()
        except ledger.Stale:
            policy = policies.read(claims)
            continue
        except (DatabaseError, InterfaceError):
            watch.doubt(entry.id)
            raise
        return OpenCall(entry.id, policy, call, watch.enter(entry.id, client))
    raise Unavailable("This grant is being changed; please try again.", retry_after=1)
