"""Limits under any interleaving: hypothesis plays the callers, the owner, the reaper, and the clock."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from grants import ledger
from grants.clock import day_number, moment
from grants.limits import TOKEN_BURST, Limits, Standing, report
from grants.models import Actor, Call, DailyTotal, ProviderKey
from grants.policy import Denied
from grants.refusals import Full
from grants.terms import MAX_RATE

from .ledgers import MINUTE, SECOND, Account, Clock, settle

START = dt.datetime(2027, 5, 17, 20, tzinfo=dt.UTC)
POSTGRESQL = connection.vendor == "postgresql"
SETTINGS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.fixture
def clock(db: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    frozen = Clock(START)
    monkeypatch.setattr(ledger, "time", frozen)
    return frozen


# Counters and the ledger


@dataclass
class Known:
    """A call as it should stand. ``cost`` ``None`` with an end: nobody knows, and nothing was reserved."""

    id: uuid.UUID
    day: int
    model: str
    counted: int
    reserved: int
    cost: int | None = None
    ended: bool = False
    reaped: bool = False
    failed: bool = False
    estimated: bool = False
    tokens: tuple[int, int] = (0, 0)

    @property
    def held(self) -> int:
        return 0 if self.ended else self.reserved

    @property
    def spent(self) -> int:
        return self.cost or 0


AMOUNT = st.integers(0, 300)
LIMITS = ("max_requests", "max_concurrency", "max_cost", "max_cost_per_day", "max_cost_per_month")


class Books(RuleBasedStateMachine):
    """Every call, limit and refusal predicted from a plain list of calls, without a single counter."""

    def __init__(self, key: ProviderKey, by: Actor, clock: Clock) -> None:
        super().__init__()
        self.savepoint = transaction.savepoint()
        clock.set(START)
        self.clock = clock
        self.account = Account(key, by)
        self.calls: list[Known] = []
        self.limits: dict[str, int] = {}
        self.day = 0
        self.closed = self.revoked = False

    def teardown(self) -> None:
        transaction.savepoint_rollback(self.savepoint)

    @rule(seconds=st.one_of(st.integers(-7200, 7200), st.integers(0, 20).map(lambda day: day * 86_400)))
    def time_passes_or_another_clock_is_asked(self, seconds: int) -> None:
        self.clock.wait(seconds)

    @rule(want=AMOUNT, least=AMOUNT, counted=st.booleans(), model=st.sampled_from(["", "a", "b"]))
    def admit(self, want: int, least: int, counted: bool, model: str) -> None:
        least = min(want, least)
        today = max(self.day, day_number(moment(self.clock.now)))
        obstacles = self._obstacles(today, least)
        answer = self.account.ask(want=want, least=least, counted=counted, model=model)
        if isinstance(answer, Denied):
            assert answer.code in obstacles
            assert not isinstance(answer, Full) or answer.final is any(obstacles.values())
            return
        assert obstacles == {}
        call, admission = answer
        assert admission.reserved == min(want, *self._rooms(today).values())
        self.day = today
        self.calls.append(Known(call, today, model, int(counted), admission.reserved))
        for used, cap in self._money(today).values():
            assert used <= cap

    def _money(self, today: int) -> dict[str, tuple[int, int]]:
        """Spent and reserved under each cap that is set, beside the cap."""
        periods = {
            "max_cost": self.calls,
            "max_cost_per_day": [call for call in self.calls if call.day == today],
            "max_cost_per_month": [call for call in self.calls if call.day // 100 == today // 100],
        }
        return {
            name: (sum(call.spent + call.held for call in calls), self.limits[name])
            for name, calls in periods.items()
            if name in self.limits
        }

    def _rooms(self, today: int) -> dict[str, int]:
        return {name: cap - used for name, (used, cap) in self._money(today).items()} | {"": 10**9}

    def _obstacles(self, today: int, least: int) -> dict[str, bool]:
        """The codes that this call may be refused with, and whether for good."""
        if self.revoked:
            return {"grant_revoked": True}
        if self.closed:
            return {"grant_closed": True}
        found = {}
        if sum(call.counted for call in self.calls) >= self.limits.get("max_requests", 10**9):
            found["request_limit_reached"] = True
        if sum(not call.ended for call in self.calls) >= self.limits.get("max_concurrency", 10**9):
            found["concurrency_limit_reached"] = False
        for name, room in self._rooms(today).items():
            if room < least:
                code = name.replace("max_cost_per_day", "daily_cost").replace("max_cost_per_month", "monthly_cost")
                reserved = self._reserved(name, today)
                found[code.replace("max_", "") + "_limit_reached"] = room + reserved < least
        return found

    def _reserved(self, name: str, today: int) -> int:
        division = {"max_cost": 10**9, "max_cost_per_day": 1, "max_cost_per_month": 100}[name]
        return sum(call.held for call in self.calls if call.day // division == today // division)

    @precondition(lambda self: self.calls)
    @rule(
        back=st.integers(0, 5),
        cost=st.one_of(st.none(), AMOUNT, st.just("reserved"), st.just("one more")),
        connected=st.sampled_from([True, True, True, False]),
        ok=st.booleans(),
        tokens=st.tuples(AMOUNT, AMOUNT),
        estimated=st.booleans(),
    )
    def settle(self, back: int, cost: Any, connected: bool, ok: bool, tokens: Any, estimated: bool) -> None:
        call = self.calls[-1 - back % len(self.calls)]
        cost = {"reserved": call.reserved, "one more": call.reserved + 1}.get(cost, cost)
        settled = settle(
            *(call.id, cost),
            connected=connected,
            outcome="ok" if ok else "upstream_broken",
            input_tokens=tokens[0],
            output_tokens=tokens[1],
            estimated=estimated,
        )
        assert settled is (not call.ended or call.reaped)
        if not settled:
            return
        call.ended, call.reaped, call.failed, call.tokens = True, False, not ok, tokens
        call.estimated = estimated or (cost is None and call.reserved > 0)
        call.cost = (call.reserved or None) if cost is None else cost
        call.counted = call.counted if connected else 0
        self.closed |= 0 < call.reserved < call.spent

    @rule()
    def reap(self) -> None:
        lost = [call for call in self.calls if not call.ended]
        assert ledger.reap(lost_after=60) == len(lost)
        for call in lost:
            call.ended = call.reaped = call.failed = call.estimated = True
            call.cost = call.reserved or None

    @precondition(lambda self: not self.revoked)
    @rule(name=st.sampled_from(LIMITS), value=st.one_of(st.none(), st.integers(1, 10), st.integers(1, 900)))
    def change_a_limit(self, name: str, value: int | None) -> None:
        self.account.limit(**{name: value})
        self.limits.pop(name, None)
        self.limits |= {} if value is None else {name: value}

    @precondition(lambda self: self.closed)
    @rule()
    def reopen(self) -> None:
        assert self.account.grant.reopen(self.account.by) is not self.revoked
        self.closed = self.revoked

    @precondition(lambda self: len(self.calls) > 5)
    @rule()
    def revoke(self) -> None:
        assert self.account.grant.revoke(self.account.by) is not self.revoked
        self.revoked = True

    @invariant()
    def counters_equal_the_ledger(self) -> None:
        row = self.account.row()
        calls, today = self.calls, [call for call in self.calls if call.day == self.day]
        month = [call for call in calls if call.day // 100 == self.day // 100]
        expected = {
            "day": self.day,
            "in_flight": sum(not call.ended for call in calls),
            "requests": sum(call.counted for call in calls),
            "day_requests": sum(call.counted for call in today),
        }
        for prefix, some in (("", calls), ("day_", today), ("month_", month)):
            expected[f"{prefix}spent"] = sum(call.spent for call in some)
            expected[f"{prefix}reserved"] = sum(call.held for call in some)
        assert {name: row[name] for name in expected} == expected
        assert (row["closed_at"] is not None) is self.closed

    @invariant()
    def the_ledger_is_what_happened(self) -> None:
        fields = ("id", "day", "model", "counted", "reserved", "cost", "estimated")
        rows = Call.objects.filter(grant=self.account.grant).values_list(*fields)
        assert set(rows) == {tuple(getattr(call, field) for field in fields) for call in self.calls}

    @invariant()
    def totals_are_the_sums_of_finished_calls(self) -> None:
        def where(call: Known) -> tuple[int, str]:
            return call.day, call.model

        finished = sorted((call for call in self.calls if call.ended), key=where)
        expected = {place: self._total(list(calls)) for place, calls in groupby(finished, where)}
        sums = ("calls", "requests", "failed", "estimated", "input_tokens", "output_tokens", "cost")
        rows = DailyTotal.objects.filter(grant=self.account.grant).values_list("day", "model", *sums)
        assert {(day, model): tuple(found) for day, model, *found in rows} == expected

    @staticmethod
    def _total(calls: list[Known]) -> tuple[int, ...]:
        return (
            len(calls),
            sum(call.counted for call in calls),
            sum(call.failed for call in calls),
            sum(call.estimated for call in calls),
            sum(call.tokens[0] for call in calls),
            sum(call.tokens[1] for call in calls),
            sum(call.spent for call in calls),
        )


def test_whatever_happens_counters_equal_the_ledger_and_no_cap_is_passed(
    sandbox_key: ProviderKey, by: Actor, clock: Clock
) -> None:
    run_state_machine_as_test(
        lambda: Books(sandbox_key, by, clock),
        settings=settings(max_examples=20 if POSTGRESQL else 30, stateful_step_count=40, **SETTINGS),
    )


# Rates


@dataclass
class Event:
    """Tokens or requests that were admitted, or that a call used on top of what it had reserved."""

    now: int
    units: int
    admitted: bool = True
    open: bool = True


def assert_within(rate: int, events: list[Event], burst: int) -> None:
    """No window whatever, from a microsecond to all, lets in more than the rate's share of it and one burst.

    ``burst`` in microseconds at the rate's pace. Exact: not a token, not a microsecond is rounded away.
    """
    for first, begin in enumerate(events):
        units = 0
        for event in events[first:]:
            units += event.units
            assert not event.admitted or units * MINUTE <= rate * (event.now - begin.now + burst)


class Tokens(RuleBasedStateMachine):
    """Callers that reserve as many tokens as they like, use fewer or more, and settle in any order."""

    def __init__(self, key: ProviderKey, by: Actor, clock: Clock) -> None:
        super().__init__()
        self.savepoint = transaction.savepoint()
        clock.set(START)
        self.clock = clock
        self.account = Account(key, by)
        self.calls: dict[uuid.UUID, Event] = {}
        self.events: list[Event] = []

    def teardown(self) -> None:
        transaction.savepoint_rollback(self.savepoint)

    @initialize(rate=st.one_of(st.integers(1, 100), st.sampled_from([997, 40_000, 40_000_000, 59_999_999, MAX_RATE])))
    def choose(self, rate: int) -> None:
        self.rate = rate
        self.account.limit(tokens_per_minute=rate)

    @rule(microseconds=st.one_of(st.integers(0, 90 * SECOND), st.sampled_from([1, 15 * SECOND, 30 * SECOND, MINUTE])))
    def wait(self, microseconds: int) -> None:
        self.clock.wait(microseconds / SECOND)

    @rule(share=st.one_of(st.integers(1, 1000), st.sampled_from([500, 1000])), obeys=st.booleans())
    def admit(self, share: int, obeys: bool) -> None:
        tokens = max(1, self.rate * share // 1000)
        answer = self.account.ask(tokens=tokens)
        if not isinstance(answer, Denied):
            self._admitted(answer[0], tokens)
            return
        assert isinstance(answer, Full)
        assert answer.code == "token_rate_reached"
        assert answer.retry_after is not None
        if obeys:  # what was told is enough, and no second too much
            self.clock.wait(answer.retry_after - 1)
            self.account.refusal(tokens=tokens)
            self.clock.wait(1)
            self._admitted(self.account.admit(tokens=tokens), tokens)

    def _admitted(self, call: uuid.UUID, tokens: int) -> None:
        self.calls[call] = Event(self.clock.now, tokens)
        self.events.append(self.calls[call])

    @precondition(lambda self: self.calls)
    @rule(back=st.integers(0, 5), share=st.sampled_from([0, 0, 0, 1, 10, 50, 90, 100, 101, 150, 400]))
    def settle(self, back: int, share: int) -> None:
        call, event = list(self.calls.items())[-1 - back % len(self.calls)]
        used = -(-event.units * share // 100)
        settle(call, input_tokens=used)
        if event.open and used > event.units:
            self.events.append(Event(self.clock.now, used - event.units, admitted=False))
        event.units, event.open = min(event.units, used) if event.open else event.units, False

    @rule()
    def reap(self) -> None:
        """What lost calls used nobody knows: all that they reserved stays used, whatever is said later."""
        ledger.reap(lost_after=60)
        for event in self.calls.values():
            event.open = False

    @invariant()
    def what_was_admitted_is_within_the_rate(self) -> None:
        assert_within(self.rate, self.events, MINUTE)


def test_tokens_never_pass_the_rate_whatever_is_refunded_when(
    sandbox_key: ProviderKey, by: Actor, clock: Clock
) -> None:
    run_state_machine_as_test(
        lambda: Tokens(sandbox_key, by, clock),
        settings=settings(max_examples=30 if POSTGRESQL else 60, stateful_step_count=30, **SETTINGS),
    )


def test_unused_tokens_can_be_used_by_others_at_once(sandbox_key: ProviderKey, by: Actor, clock: Clock) -> None:
    account = Account(sandbox_key, by, tokens_per_minute=1000)
    for left in (1000, 700, 400):
        call = account.admit(tokens=left)
        assert account.refusal(tokens=1).retry_after == 1
        settle(call, input_tokens=100, output_tokens=200)
    account.admit(tokens=100)
    assert account.refusal(tokens=1).retry_after == 1


def test_what_is_taken_off_the_clock_is_what_is_noted(sandbox_key: ProviderKey, by: Actor) -> None:
    """While the time goes on: what a refund may be depends on the moment, and there is only one."""
    account = Account(sandbox_key, by, tokens_per_minute=1000)
    for _ in range(30):
        call = account.admit(tokens=10)
        before = account.row()
        settle(call, input_tokens=0)
        after = account.row()
        taken_off = before["tokens_clock"] - after["tokens_clock"]
        assert after["tokens_refunded"] - before["tokens_refunded"] == taken_off > 0


def test_tokens_that_the_time_has_let_through_already_are_not_given_back(
    sandbox_key: ProviderKey, by: Actor, clock: Clock
) -> None:
    account = Account(sandbox_key, by, tokens_per_minute=1000)
    call = account.admit(tokens=1000)
    clock.wait(45)
    settle(call, input_tokens=0)
    assert account.row()["tokens_clock"] == clock.now
    assert account.row()["tokens_refunded"] == 15 * SECOND


def test_what_others_gave_back_moved_a_calls_own_advance_nearer(
    sandbox_key: ProviderKey, by: Actor, clock: Clock
) -> None:
    account = Account(sandbox_key, by, tokens_per_minute=1000)
    first, second = account.admit_all(tokens=500)
    settle(first, input_tokens=0)
    clock.wait(30)  # by now the second one's have passed
    account.admit(tokens=1000)
    settle(second, input_tokens=0)
    assert account.refusal(tokens=1).retry_after == 1


def test_tokens_beyond_the_reservation_are_paid_back_by_whoever_comes_next(
    sandbox_key: ProviderKey, by: Actor, clock: Clock
) -> None:
    account = Account(sandbox_key, by, tokens_per_minute=1000)
    call = account.admit(tokens=10)
    clock.wait(30)
    settle(call, input_tokens=2010)
    assert account.refusal(tokens=1).retry_after == 61
    clock.wait(120)
    assert len(account.admit_all(tokens=500)) == 2


def test_no_fraction_of_a_microsecond_is_forgiven(sandbox_key: ProviderKey, by: Actor, clock: Clock) -> None:
    account = Account(sandbox_key, by, tokens_per_minute=40_000_000)
    for _ in range(20):
        settle(account.admit(tokens=2), input_tokens=3)
    assert account.row()["tokens_clock"] - clock.now >= 60 * 1.5


@pytest.mark.parametrize("settlement", [{"input_tokens": None}, {"cost": None}])
def test_tokens_that_nobody_counted_are_not_given_back_unless_nothing_was_used(
    sandbox_key: ProviderKey, by: Actor, clock: Clock, settlement: dict[str, Any]
) -> None:
    account = Account(sandbox_key, by, tokens_per_minute=1000)
    settle(account.admit(tokens=1000), **{"cost": 0} | settlement)
    assert len(account.admit_all(tokens=1000)) == (1 if settlement.get("cost", 0) == 0 else 0)


def test_a_reaped_calls_tokens_are_not_given_back_late(sandbox_key: ProviderKey, by: Actor, clock: Clock) -> None:
    account = Account(sandbox_key, by, tokens_per_minute=1000)
    call = account.admit(tokens=1000)
    ledger.reap(lost_after=60)
    assert settle(call, input_tokens=0)
    account.refusal(tokens=1)


GAP = st.one_of(st.just(0), st.integers(1, 2_000_000), st.integers(1, 20 * SECOND), st.sampled_from([60 * SECOND, 61]))


@settings(max_examples=30 if POSTGRESQL else 50, **SETTINGS)
@given(rate=st.one_of(st.integers(1, 20), st.integers(21, 90)), gaps=st.lists(GAP, min_size=1, max_size=12))
def test_requests_never_pass_the_rate_and_what_is_left_passes_at_once(
    sandbox_key: ProviderKey, by: Actor, clock: Clock, rate: int, gaps: list[int]
) -> None:
    """Callers that take all they get, whenever they come."""
    account = Account(sandbox_key, by, requests_per_minute=rate)
    events: list[Event] = []
    for gap in gaps:
        clock.wait(gap / SECOND)
        standing = ledger.standing(account.policy())
        (limit,) = report(account.policy().limits, standing, "")
        admitted = account.admit_all()
        assert len(admitted) == limit.remaining
        events += [Event(clock.now, 1) for _ in admitted]
    assert_within(rate, events, account.policy().limits.request_tolerance)
    for event in events:
        minute = [other for other in events if event.now <= other.now <= event.now + MINUTE]
        assert len(minute) <= rate + max(1, rate // 6)


@pytest.mark.parametrize("rate", [1, 2, 3, 4, 5, 6, 7, 10, 50, 60, 100, 600])
@pytest.mark.parametrize("pause", [0, 0.3, 0.99])
def test_a_caller_who_comes_back_as_told_gets_nearly_all_of_the_rate(
    sandbox_key: ProviderKey, by: Actor, clock: Clock, rate: int, pause: float
) -> None:
    """``pause``: how long after its last call, in seconds or in the rate's steps, it asks for more."""
    account = Account(sandbox_key, by, requests_per_minute=rate)
    begin, admitted = clock.now, 0
    while admitted < 40:
        answer = account.ask()
        if not isinstance(answer, Denied):
            settle(answer[0])
            admitted += 1
            clock.wait(pause * min(1, 60 / rate))
        elif isinstance(answer, Full) and answer.retry_after:
            clock.wait(answer.retry_after)
    assert admitted * MINUTE >= 0.95 * rate * (clock.now - begin)


@given(rate=st.integers(1, MAX_RATE), ahead=st.integers(0, 70 * SECOND), unit=st.sampled_from(["requests", "tokens"]))
def test_what_is_said_to_be_left_is_what_passes(rate: int, ahead: int, unit: str) -> None:
    limits = Limits(**{f"{unit}_per_minute": rate})
    standing = Standing(*[0] * 12)._replace(now=5, **{f"{unit}_clock": 5 + ahead})
    (limit,) = report(limits, standing, "")

    def passes(units: int) -> bool:
        if unit == "tokens":
            return ahead + limits.token_advance(units) <= TOKEN_BURST
        return ahead + limits.request_advance * units <= limits.request_tolerance

    assert limit.remaining == 0 or passes(limit.remaining)
    assert not passes(limit.remaining + 1)
    assert limit.used <= rate
