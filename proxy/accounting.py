"""One open call, from admission to settlement: what ties the grant's ledger to the answer on its way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from grants import ledger
from grants import policy as policies
from grants.clock import uuid7
from grants.limits import Standing
from grants.policy import Policy
from grants.providers import Provider
from grants.tokens import Claims

from . import price_lists, telemetry
from .dialects import remedies
from .dialects.base import UpstreamCall
from .endings import Ending
from .exceptions import Unavailable
from .pricing import metering
from .reservations import Reservation, output_limit, reservation
from .watch import Watched, watch

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 5
_TEXT = ("chat", "responses", "anthropic", "google")
# Errors with which a provider refuses a call or says that it could not run it. With any other status, such as 502, 504
# and 524 of a gateway, the model behind it may have made, and billed, everything.
_UNBILLED = {*range(300, 500), 500, 501, 503, 529} - {408, 499}
# Of these, the ones that refuse a call before any work. The body of another one may hold what the model made.
_REFUSED = {401, 402, 403, 404, 405, 406, 411, 413, 415, 429, 431}


@dataclass(slots=True)
class Clock:
    """When a request arrived (``time.monotonic_ns()``), and for how long its body was on its way."""

    arrived_ns: int = field(default_factory=time.monotonic_ns)
    body_ns: int = 0

    def waiting(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Read the body; what that takes is the client's time."""
        began = time.monotonic_ns()
        try:
            return read(*args, **kwargs)
        finally:
            self.body_ns += time.monotonic_ns() - began

    def total_us(self) -> int:
        return (time.monotonic_ns() - self.arrived_ns) // 1000


@dataclass(frozen=True, slots=True)
class OpenCall:
    """An admitted call. ``finish`` must be called exactly once.

    ``reserved``: nano-dollars. ``limit``: the output limit that it was admitted with, where the grant's limits ask for
    one. ``standing``: how the grant stood with it. ``span``: its OpenTelemetry span, where there are traces.
    """

    id: UUID
    policy: Policy
    call: UpstreamCall
    watched: Watched
    reserved: int
    limit: int | None
    standing: Standing
    clock: Clock
    span: Any

    def finish(self, ending: Ending) -> None:
        """Settle it: usage and cost as observed, or estimated from what flowed."""
        settlement: ledger.Settlement | None = None
        ended_ns = time.monotonic_ns()
        self.watched.client = None  # from here on it waits for us: nobody may take it for one that does not read
        try:
            settlement = self._settlement(ending)
            watch.settle(self.id, settlement, self.policy.grant)
        finally:
            watch.leave(self.id)
            watch.touch(self.policy.grant)
            self._tell(ending, settlement or ledger.Settlement(ending.outcome, ending.status), ended_ns)

    def _tell(self, ending: Ending, settlement: ledger.Settlement, ended_ns: int) -> None:
        if settlement.cost is None and self.reserved:
            settlement = settlement._replace(cost=self.reserved, estimated=True)  # as the ledger has it
        clock, now = self.clock, time.monotonic_ns()
        sent_ns = self.watched.exchange.began_ns or ended_ns
        added_ns = sent_ns - clock.arrived_ns - clock.body_ns + now - ended_ns
        result = ending.observer.result() if self.span is not None and ending.observer is not None else None
        model = (result or {}).get("model") or (result or {}).get("modelVersion")
        telemetry.ended(
            telemetry.Ended(
                id=self.id,
                policy=self.policy,
                call=self.call,
                settlement=settlement,
                added_us=added_ns // 1000,
                total_us=(now - clock.arrived_ns) // 1000,
                response_model=model if isinstance(model, str) else "",
                span=self.span,
            )
        )

    def _settlement(self, ending: Ending) -> ledger.Settlement:
        settlement = ledger.Settlement(
            ending.outcome,
            ending.status,
            ending.first_byte_us,
            cost=0,
            connected=ending.connected,
            output_limit=self.limit,
        )
        result = ending.observer.result() if ending.observer is not None else None
        if self.call.flavor == "none" or (result is None and self._did_nothing(ending)):
            return settlement
        price_lists.ensure(self.policy.price_list)
        usage = metering.meter(
            self.policy.provider,
            self.call,
            result,
            output_characters=ending.observer.output_characters if ending.observer is not None else 0,
            prices=self.policy.prices,
            margin=self.policy.margin,
            limit=self.limit,
            strict=self.policy.limits.money,
            price_list=self.policy.price_list,
            shows_all=self.policy.shows_everything,
        )
        unknown = self.policy.limits.money and self._is_unknown(ending, result)
        return settlement._replace(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cached_tokens=usage.cached_tokens,
            cost=None if unknown else usage.cost,  # ``None``: the bound is charged
            estimated=usage.estimated or unknown,
        )

    def _is_unknown(self, ending: Ending, result: Any) -> bool:
        """Whether nothing that flowed tells what the provider made, or it may have gone on making more."""
        if not ending.ended and (self.watched.goes_on or self.watched.is_behind):
            return True
        if ending.skipped and self.call.flavor == "images":  # each event reports its own picture only
            return True
        if result is not None:
            return False
        unread = ending.unread and self.call.flavor not in ("speech", "transcription", "images")
        whole = not self.call.stream or (ending.status is not None and ending.status >= 300)
        read = ending.outcome == "ok" or (ending.outcome == "client_gone" and ending.ended)
        return unread or (whole and not read and not self._shows(ending))

    def _shows(self, ending: Ending) -> bool:
        """Whether an error holds text that the model made: Groq hands out a tool call that does not fit its schema."""
        observer = ending.observer
        made = observer is not None and observer.output_characters > 0
        return made and ending.outcome == "upstream_error" and ending.status in _UNBILLED

    def _did_nothing(self, ending: Ending) -> bool:
        """Whether the provider surely made nothing of the call: it never had it, or it answered with an error."""
        if ending.page or not ending.connected or (ending.status is None and not self.watched.exchange.sent):
            return True
        if ending.billed:
            return False
        if ending.unread and ending.status not in _REFUSED and (ending.status or 0) in range(400, 500):
            return False
        observer = ending.observer
        failed = observer is not None and observer.failed and (ending.status or 0) < 300
        return (failed or ending.status in _UNBILLED) and (observer is None or not observer.output_characters)


def open_call(claims: Claims, policy: Policy, call: UpstreamCall, client: Any, clock: Clock | None = None) -> OpenCall:
    """Check the call against its grant, count it and open its row.

    Raises:
        Denied, Full: the grant does not allow it.
        Unavailable: the broker is going down, or the grant changes too fast to be read.
    """
    if watch.draining:
        raise Unavailable("The broker is restarting; please try again.", retry_after=1)
    watch.ensure_running()
    call_id = uuid7()
    for _ in range(_ATTEMPTS):
        if (missing := policy.missing(call.capabilities)) is not None:
            raise remedies.not_granted(missing, call.asked.get(missing))
        policy.check_models(call.models)
        price_lists.ensure(policy.price_list)
        asked = reservation(policy, call)
        try:
            admission = ledger.admit(policy, _entry(call_id, claims, call, asked))
        except ledger.Stale:
            before, policy = policy, policies.read(claims)
            if output_limit(policy) != output_limit(before):
                break  # the call was read for another one
            continue
        except ledger.Full as full:
            watch.touch(policy.grant, full.code if full.final else "")
            if asked.bound is not None:
                full.because(asked.bound.why)
            raise
        except (DatabaseError, InterfaceError):
            watch.doubt(call_id)
            raise
        return OpenCall(
            call_id,
            policy,
            call,
            watch.enter(call_id, client, stream=call.stream, goes_on=_goes_on(policy.provider, call)),
            admission.reserved,
            asked.granted(admission.reserved),
            admission.standing,
            clock or Clock(),
            telemetry.begin_span(call_id, policy, call),
        )
    raise Unavailable("This grant is being changed; please try again.", retry_after=1)


def _goes_on(provider: Provider, call: UpstreamCall) -> bool:
    """Whether the provider may go on, and bill the whole answer, when the connection is closed.

    A provider is known to stop for streamed text only (see ``grants/providers.py``).
    """
    stops = provider.stops_when_left and call.stream and call.flavor in _TEXT
    return call.flavor != "none" and not stops


def _entry(call_id: UUID, claims: Claims, call: UpstreamCall, asked: Reservation) -> ledger.Entry:
    return ledger.Entry(
        id=call_id,
        jti=claims.jti,
        kid=claims.kid,
        worker=watch.worker,
        route=call.route,
        model=call.model,
        stream=call.stream,
        counted=call.counted,
        want=asked.want,
        least=asked.least,
        tokens=asked.tokens,
    )
