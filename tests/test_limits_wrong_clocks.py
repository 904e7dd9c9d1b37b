"""A clock that was wrong for a moment: afterwards limits hold, there is no second budget, and no wait for years."""

from __future__ import annotations

import datetime as dt
import io
import json
import uuid
from collections import Counter
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grants import ledger, usage
from grants.clock import day_number, moment
from grants.models import Actor, Allowance, Call, DailyTotal, ProviderKey
from grants.policy import Denied
from grants.reconciliation import account as read_account

from .callers import assert_books_balance
from .ledgers import MINUTE, SECOND, Account, Clock, settle

NOON = dt.datetime(2027, 5, 17, 12, tzinfo=dt.UTC)
TODAY = 20270517
DAY = dt.timedelta(days=1)
HOURS = dt.timedelta(hours=5)
YEARS = dt.timedelta(days=1500)  # less than the longest grant
CAP = 1000


@pytest.fixture
def clock(db: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    frozen = Clock(NOON)
    monkeypatch.setattr(ledger, "time", frozen)
    return frozen


@pytest.fixture
def account(clock: Clock, sandbox_key: ProviderKey, by: Actor) -> Account:
    return Account(sandbox_key, by)


def spend(account: Account, amount: int) -> None:
    settle(account.admit(want=amount), amount)


def retry_after(account: Account, **call: Any) -> int:
    """Of a refusal that may correct the row."""
    refusal = account.ask(**call)
    assert isinstance(refusal, ledger.Full)
    assert refusal.retry_after is not None
    return refusal.retry_after


def reconcile(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("reconcile", *arguments, "--json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


# Rates


@pytest.mark.parametrize("ahead", [HOURS, YEARS])
@pytest.mark.parametrize("rate", [1, 60, 6000])
def test_one_call_while_the_clock_is_ahead_holds_requests_up_for_two_minutes_at_most(
    account: Account, clock: Clock, ahead: dt.timedelta, rate: int
) -> None:
    account.limit(requests_per_minute=rate)
    tolerance, advance = account.policy().limits.request_tolerance, account.policy().limits.request_advance
    clock.set(NOON + ahead)
    account.admit()
    clock.set(NOON)
    wait = retry_after(account)
    assert account.row()["requests_clock"] <= clock.now + tolerance + 2 * MINUTE
    assert wait <= 120 + -(-advance // SECOND)
    clock.wait(wait)
    account.admit()


@pytest.mark.parametrize("ahead", [HOURS, YEARS])
def test_one_call_while_the_clock_is_ahead_holds_tokens_up_for_two_minutes_at_most(
    account: Account, clock: Clock, ahead: dt.timedelta
) -> None:
    account.limit(tokens_per_minute=1000)
    clock.set(NOON + ahead)
    account.admit(tokens=1000)
    clock.set(NOON)
    wait = retry_after(account, tokens=1000)
    assert wait <= 180
    clock.wait(wait)
    account.admit(tokens=1000)


@pytest.mark.parametrize("ahead", [dt.timedelta(), HOURS, YEARS])
def test_what_a_call_used_beyond_its_reservation_is_owed_whatever_the_clock_said(
    account: Account, clock: Clock, ahead: dt.timedelta
) -> None:
    """A hundred minutes' worth of excess is real, though a wrong clock would leave the row the same."""
    account.limit(tokens_per_minute=1000)
    call = account.admit(tokens=10)
    clock.set(NOON + ahead)
    settle(call, input_tokens=100_010)
    clock.set(NOON)
    wait = retry_after(account, tokens=1000)
    assert 100 * 60 <= wait <= 103 * 60
    clock.wait(wait)
    account.admit(tokens=1000)


def test_excess_that_was_paid_back_no_longer_explains_a_clock_that_is_ahead(account: Account, clock: Clock) -> None:
    account.limit(tokens_per_minute=1000)
    settle(account.admit(tokens=10), input_tokens=100_010)
    clock.wait(6060)
    account.admit(tokens=1000)
    clock.set(NOON + HOURS)
    account.admit(tokens=1000)
    clock.set(NOON + dt.timedelta(minutes=102))
    assert retry_after(account, tokens=1000) <= 180


def test_calls_of_the_time_ahead_give_back_no_more_than_is_left_of_their_advance(
    account: Account, clock: Clock
) -> None:
    account.limit(tokens_per_minute=1000)
    clock.set(NOON + HOURS)
    first = account.admit(tokens=1000)
    clock.wait(60)
    second = account.admit(tokens=1000)
    clock.set(NOON)
    retry_after(account, tokens=1000)
    assert settle(first, input_tokens=0)
    assert account.row()["tokens_clock"] == clock.now + MINUTE, "the first one's minute has passed"
    assert settle(second, input_tokens=0)
    assert account.row()["tokens_clock"] == clock.now
    account.admit(tokens=1000)


@pytest.mark.parametrize("seconds", [-100, 100])
def test_clocks_that_disagree_by_less_than_two_minutes_correct_nothing(
    account: Account, clock: Clock, seconds: int
) -> None:
    account.limit(requests_per_minute=60, tokens_per_minute=1000)
    clock.wait(seconds)
    assert len(account.admit_all(tokens=100)) == 10
    before = account.row()
    clock.set(NOON)
    if seconds > 0:
        account.refusal(tokens=100)
    assert account.row() == before


# Days and months


@pytest.mark.parametrize("ahead", [3 * DAY, 40 * DAY, YEARS])
def test_a_day_far_ahead_goes_back_and_its_spending_counts_today(
    account: Account, clock: Clock, ahead: dt.timedelta
) -> None:
    account.limit(max_cost_per_day=CAP, max_cost_per_month=CAP)
    spend(account, 300)
    clock.set(NOON + ahead)
    spend(account, 500)
    clock.set(NOON)
    full = account.ask(want=CAP)
    assert isinstance(full, ledger.Full)
    assert full.limit is not None
    assert full.limit.used == 800
    assert full.limit.resets_at is not None
    assert moment(full.limit.resets_at) <= NOON + 31 * DAY
    spend(account, 200)
    row = account.row()
    assert (row["day"], row["day_spent"], row["month_spent"], row["spent"]) == (TODAY, CAP, CAP, CAP)
    assert isinstance(account.ask(want=1), ledger.Full)
    clock.set(NOON + DAY)
    assert isinstance(account.ask(want=1), ledger.Full), "the month's is spent"
    account.limit(max_cost_per_month=None)
    spend(account, CAP)


@pytest.mark.parametrize("ahead", [DAY, 2 * DAY])
def test_a_day_that_is_two_days_ahead_at_most_is_kept(account: Account, clock: Clock, ahead: dt.timedelta) -> None:
    account.limit(max_cost_per_day=CAP)
    clock.set(NOON + ahead)
    spend(account, CAP)
    clock.set(NOON)
    assert isinstance(account.ask(want=1), ledger.Full)
    assert account.row()["day"] == day_number(NOON + ahead)
    assert_books_balance(account.grant)


@pytest.mark.parametrize("ahead", [3 * DAY, YEARS])
@pytest.mark.parametrize("settled", ["at once", "the next day", "on that day", "reaped", "not connected"])
def test_calls_that_were_open_while_the_clock_jumped_settle_and_no_counter_is_below_zero(
    account: Account, clock: Clock, ahead: dt.timedelta, settled: str
) -> None:
    account.limit(max_cost_per_day=CAP, max_cost_per_month=CAP)
    before = account.admit(want=100)
    clock.set(NOON + ahead)
    while_ahead = account.admit(want=200)
    clock.set(NOON)
    after = account.admit(want=400)
    row = account.row()
    assert row["day_spent"] + row["day_reserved"] == row["month_spent"] + row["month_reserved"] == 700
    if settled in ("the next day", "on that day"):
        clock.set(NOON + (DAY if settled == "the next day" else ahead))
        account.limit(max_cost_per_month=None)
        account.admit(want=50)
    if settled == "reaped":
        assert ledger.reap(lost_after=60) == 3
    for call in (while_ahead, after, before):
        assert settle(call, 10, connected=settled != "not connected")
    row = account.row()
    assert row["spent"] == 30
    assert row["reserved"] == (50 if settled in ("the next day", "on that day") else 0)
    reconcile("--repair")
    assert reconcile()["differences"] == []


def test_a_clock_that_was_years_behind_gives_no_second_budget(account: Account, clock: Clock) -> None:
    account.limit(max_cost_per_day=CAP)
    spend(account, 900)
    running = account.admit(want=50)
    clock.set(NOON - YEARS)
    assert isinstance(account.ask(want=100), ledger.Full)
    clock.set(NOON)
    assert isinstance(account.ask(want=51), ledger.Full)
    account.admit(want=50)
    assert settle(running, 50)
    row = account.row()
    assert (row["day"], row["day_spent"], row["day_reserved"]) == (TODAY, 950, 50)
    assert_books_balance(account.grant)


STEP = st.one_of(
    st.tuples(st.just("jump"), st.sampled_from([-4000, -3, -1, 0, 1, 2, 3, 29, 365, 1500])),
    st.tuples(st.just("admit"), st.integers(1, 400)),
    st.tuples(st.just("settle"), st.integers(0, 400)),
    st.tuples(st.just("lose connection"), st.just(0)),
    st.tuples(st.just("reap"), st.just(0)),
)


@settings(
    max_examples=60 if connection.vendor == "postgresql" else 100,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(steps=st.lists(STEP, min_size=4, max_size=20))
def test_whatever_a_clock_did_every_call_settles_no_day_is_spent_twice_and_a_repair_is_whole(
    sandbox_key: ProviderKey, by: Actor, clock: Clock, steps: list[tuple[str, int]]
) -> None:
    """The clock stands at noon of one day, except that a jump makes it wrong for the calls up to the next one."""
    savepoint = transaction.savepoint()
    clock.set(NOON)
    account = Account(sandbox_key, by, max_cost_per_day=CAP)
    opened: list[uuid.UUID] = []
    for act, number in steps:
        if act == "jump":
            clock.set(NOON + number * DAY)
        elif act == "admit":
            answer = account.ask(want=number)
            if not isinstance(answer, Denied):
                opened.append(answer[0])
                row = account.row()
                assert row["day_spent"] + row["day_reserved"] <= CAP
        elif act == "reap":
            ledger.reap(lost_after=60)
        elif opened:
            call = opened.pop(number % len(opened))
            reserved = Call.objects.get(pk=call).reserved
            assert settle(call, min(number, reserved), connected=act == "settle")
    clock.set(NOON)
    account.ask(want=1)
    row = account.row()
    calls = Call.objects.filter(grant=account.grant)
    assert row["spent"] == sum(call.cost or 0 for call in calls)
    assert row["reserved"] == sum(call.reserved for call in calls if call.finished_at is None)
    today = [call for call in calls if call.day == TODAY]
    used = sum(call.cost or 0 if call.finished_at else call.reserved for call in today)
    assert row["day"] != TODAY or row["day_spent"] + row["day_reserved"] >= used
    for call in opened:
        assert settle(call, 0)
    reconcile("--repair")
    assert reconcile()["differences"] == []
    assert not Call.objects.filter(grant=account.grant, day__gt=TODAY + 2).exists()
    transaction.savepoint_rollback(savepoint)


# The command


def wrong(account: Account, clock: Clock) -> None:
    """A clock that was years ahead for two finished calls and an open one, and nobody has called since."""
    spend(account, 100)
    clock.set(NOON + YEARS)
    spend(account, 200)
    settle(account.admit(want=50, model="m", tokens=10), 30, input_tokens=4)
    account.admit(want=7, tokens=10)
    clock.set(NOON)


def test_reconcile_names_what_a_wrong_clock_left_and_repairs_it_once(account: Account, clock: Clock) -> None:
    account.limit(requests_per_minute=60, tokens_per_minute=100, max_cost_per_day=CAP)
    wrong(account, clock)
    with pytest.raises(CommandError):
        reconcile()
    named = Counter(each.counter for each in read_account(account.grant.pk).differences())
    assert {"day": 1, "requests_clock": 1, "tokens_clock": 1, "total.day": 2}.items() <= named.items()
    assert reconcile("--repair")["left"] == 0
    repaired = account.row()
    assert (repaired["day"], repaired["spent"], repaired["reserved"]) == (TODAY, 330, 7)
    assert repaired["day_spent"] + repaired["day_reserved"] == 337
    assert set(DailyTotal.objects.values_list("day", "model", "cost", "calls")) == {
        (TODAY, "", 300, 2),
        (TODAY, "m", 30, 1),
    }
    assert set(Call.objects.exclude(finished_at=None).values_list("day", flat=True)) == {TODAY}
    assert reconcile() == {"grants": 1, "differences": [], "left": 0}
    assert reconcile("--repair")["differences"] == []
    assert account.row() == repaired, "a second repair has nothing to do"
    clock.wait(60)
    account.admit(want=CAP - 337, tokens=10)


def test_a_repair_moves_what_was_purged_too(account: Account, clock: Clock) -> None:
    wrong(account, clock)
    gone = Call.objects.get(model="m")
    total = {"purged_calls": F("purged_calls") + 1, "purged_requests": F("purged_requests") + 1}
    DailyTotal.objects.filter(model="m").update(**total, purged_cost=F("purged_cost") + 30)
    gone.delete()
    assert reconcile("--repair")["left"] == 0
    assert reconcile()["differences"] == []
    kept = DailyTotal.objects.get(model="m")
    assert (kept.day, kept.cost, kept.purged_cost, kept.purged_calls) == (TODAY, 30, 30, 1)


def test_a_repair_goes_through_many_calls_in_short_transactions(account: Account, clock: Clock) -> None:
    clock.set(NOON + YEARS)
    for _ in range(120):
        spend(account, 1)
    clock.set(NOON)
    assert reconcile("--repair")["left"] == 0
    assert DailyTotal.objects.values_list("day", "cost", "calls").get() == (TODAY, 120, 120)
    assert_books_balance(account.grant)


def test_a_wrong_row_is_shown_as_it_counts_before_any_call_corrects_it(
    account: Account, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage.timezone, "now", lambda: NOON)
    account.limit(max_cost_per_day=CAP)
    wrong(account, clock)
    standing = usage.standing(Allowance.objects.get())
    assert (standing.day, standing.day_spent) == (TODAY, 230)
    assert Allowance.objects.get().day > TODAY
