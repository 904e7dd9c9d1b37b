"""Limits in the admission statement: what each lets through, how it refuses, and that they add up under attack."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import time
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import connection, transaction

from grants import ledger
from grants.models import Actor, Allowance, Call, DailyTotal, ProviderKey, Worker
from grants.policy import Denied

from .callers import assert_books_balance
from .ledgers import Account, Clock, settle
from .live import ROOT, environment

NOON = dt.datetime(2027, 5, 17, 12, tzinfo=dt.UTC)
MIDNIGHT = dt.datetime(2027, 5, 18, tzinfo=dt.UTC)
JUNE = dt.datetime(2027, 6, 1, tzinfo=dt.UTC)


@pytest.fixture
def clock(db: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    frozen = Clock(NOON)
    monkeypatch.setattr(ledger, "time", frozen)
    return frozen


@pytest.fixture
def account(clock: Clock, sandbox_key: ProviderKey, by: Actor) -> Account:
    return Account(sandbox_key, by)


def at(microseconds: int | None) -> dt.datetime | None:
    return None if microseconds is None else dt.datetime.fromtimestamp(microseconds / 1_000_000, dt.UTC)


# One limit at a time: what is admitted, and what stands in the refusal

CALL = {"want": 100, "tokens": 100}
ALONE = {  # every one lets three such calls in; the refusal, while they are open
    "max_requests": (3, "request_limit_reached", None, ("requests", "requests", 3, 3, 0, None)),
    "max_concurrency": (3, "concurrency_limit_reached", 1, ("concurrency", "calls", 3, 3, 0, None)),
    "max_cost": (399, "cost_limit_reached", 2, ("cost", "nano-dollars", 399, 0, 300, None)),
    "max_cost_per_day": (399, "daily_cost_limit_reached", 2, ("cost-per-day", "nano-dollars", 399, 0, 300, MIDNIGHT)),
    "max_cost_per_month": (
        *(399, "monthly_cost_limit_reached", 2),
        ("cost-per-month", "nano-dollars", 399, 0, 300, JUNE),
    ),
    "requests_per_minute": (
        *(20, "request_rate_reached", 2),  # three in ten seconds
        ("requests-per-minute", "requests", 20, 3, 0, NOON + dt.timedelta(seconds=9)),
    ),
    "tokens_per_minute": (
        *(300, "token_rate_reached", 20),
        ("tokens-per-minute", "tokens", 300, 300, 0, NOON + dt.timedelta(seconds=60)),
    ),
}
MONEY = {name: row for name, row in ALONE.items() if "cost" in name}


@pytest.mark.parametrize("name", ALONE)
def test_a_limit_admits_exactly_what_it_says_and_tells_how_it_stands(account: Account, name: str) -> None:
    allowed, code, retry_after, (*stands, resets_at) = ALONE[name]
    account.limit(**{name: allowed})
    assert len(account.admit_all(**CALL)) == 3
    full = account.refusal(**CALL)
    assert (full.code, full.retry_after, full.final) == (code, retry_after, retry_after is None)
    assert full.limit is not None
    found = full.limit
    assert [found.name, found.unit, found.allowed, found.used, found.reserved] == stands
    assert at(found.resets_at) == resets_at
    assert_books_balance(account.grant)


@pytest.mark.parametrize("name", ALONE)
def test_of_all_limits_together_the_tightest_decides(account: Account, name: str) -> None:
    loose = {other: 100 * ALONE[other][0] for other in ALONE}
    account.limit(**loose | {name: ALONE[name][0]})
    assert len(account.admit_all(**CALL)) == 3
    assert account.refusal(**CALL).code == ALONE[name][1]


ROOM = {
    "max_concurrency": (1, "concurrency_limit_reached"),
    "max_cost": (600, "cost_limit_reached"),
    "max_cost_per_day": (600, "daily_cost_limit_reached"),
}


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Any:
    """``meanwhile(before, after)``: what others do between a refusal and the look at why, and after that look."""
    look = ledger.standing

    def others(before: Any, after: Any) -> None:
        def standing(known: Any) -> Any:
            before()
            found = look(known)
            after()
            return found

        monkeypatch.setattr(ledger, "standing", standing)

    return others


@pytest.mark.parametrize("name", ROOM)
def test_a_call_for_which_room_was_made_while_it_was_refused_is_let_in(
    account: Account, meanwhile: Any, name: str
) -> None:
    account.limit(**{name: ROOM[name][0]})
    first = account.admit(want=600)
    meanwhile(lambda: settle(first), lambda: None)
    account.admit(want=600)
    assert_books_balance(account.grant)


@pytest.mark.parametrize("name", ROOM)
def test_a_call_that_others_forestall_again_and_again_is_told_to_wait_for_its_limit(
    account: Account, meanwhile: Any, name: str
) -> None:
    account.limit(**{name: ROOM[name][0]})
    policy, running = account.policy(), [account.entry(want=600)]
    ledger.admit(policy, running[0])

    def next_one() -> None:
        running.append(account.entry(want=600))
        ledger.admit(policy, running[-1])

    meanwhile(lambda: settle(running[-1].id), next_one)
    with pytest.raises(ledger.Full) as caught:
        ledger.admit(policy, account.entry(want=600))
    assert (caught.value.code, caught.value.final, caught.value.retry_after) == (ROOM[name][1], False, 1)
    assert f"max_{caught.value.limit.name.replace('-', '_')}" == name
    assert_books_balance(account.grant)


@pytest.mark.parametrize("name", ALONE)
def test_a_limit_raised_lowered_or_removed_holds_for_the_next_call(account: Account, clock: Clock, name: str) -> None:
    allowed, code = ALONE[name][:2]
    before = account.policy()
    account.limit(**{name: allowed})
    with pytest.raises(ledger.Stale):
        ledger.admit(before, account.entry(**CALL))
    account.admit_all(**CALL)
    account.limit(**{name: None})
    account.admit(**CALL)
    account.limit(**{name: allowed})
    assert account.refusal(**CALL).code == code
    account.limit(**{name: 3 * allowed})
    if name == "tokens_per_minute":  # what is ahead of the time stays there; more passes as it runs off
        assert account.refusal(**CALL).retry_after == 7
        clock.wait(7)
    account.admit(**CALL)
    account.limit(**{name: allowed // 3})  # far below what is used
    assert account.refusal(**CALL).code == code
    assert_books_balance(account.grant)


@pytest.mark.parametrize("name", MONEY)
def test_money_that_is_reserved_comes_back_and_money_that_is_spent_does_not(account: Account, name: str) -> None:
    account.limit(**{name: 399})
    first, second, third = account.admit_all(**CALL)
    settle(first, 30)
    full = account.refusal(want=200)
    assert not full.final
    assert "$0.00000003 is spent, $0.0000002 is reserved" in full.message
    assert "Wait until one of these calls ends." in full.message
    settle(second, 100)
    settle(third, 100)
    account.admit(want=100)
    settle(account.admit(want=69), 69)
    full = account.refusal(want=101)
    assert full.final
    assert full.limit is not None
    assert (full.limit.used, full.limit.reserved, full.limit.remaining) == (299, 100, 0)
    ends = {"max_cost_per_day": "It resets at 2027-05-18 00:00 UTC.", "max_cost_per_month": "It resets at 2027-06-01"}
    assert ends.get(name, "Its owner can raise the limit.") in full.message


@pytest.mark.parametrize("name", MONEY)
def test_a_cap_lowered_below_what_is_spent_refuses_for_good_even_what_costs_nothing(
    account: Account, name: str
) -> None:
    settle(account.admit(want=100), 100)
    account.limit(**{name: 100})
    account.admit(want=0)
    account.limit(**{name: 99})
    full = account.refusal(want=0)
    assert full.final
    assert full.limit is not None
    assert (full.limit.allowed, full.limit.used, full.limit.remaining) == (99, 100, 0)


def test_a_final_reason_comes_first_and_of_those_that_pass_the_one_that_lasts(account: Account) -> None:
    account.limit(max_concurrency=1, requests_per_minute=1)
    account.admit()
    full = account.refusal()
    assert (full.code, full.retry_after) == ("request_rate_reached", 59)  # the concurrency alone would say 1
    account.limit(max_requests=1)
    assert account.refusal().code == "request_limit_reached"


def test_a_call_that_is_not_counted_is_held_up_by_limits_and_uses_no_request(account: Account) -> None:
    account.limit(max_requests=1, max_concurrency=2)
    account.admit(counted=False)
    account.admit()
    assert account.refusal(counted=False).code == "request_limit_reached"
    assert account.row()["requests"] == account.row()["day_requests"] == 1


def test_concurrency_counts_what_is_open_not_what_was(account: Account) -> None:
    account.limit(max_concurrency=2)
    for _ in range(5):
        first, second = account.admit_all()
        settle(first)
        account.admit()
        settle(second)
        for call in Call.objects.filter(grant=account.grant).open():
            settle(call.pk)
    assert account.row()["in_flight"] == 0
    assert_books_balance(account.grant)


def test_more_tokens_than_a_minute_allows_are_refused_for_good(account: Account) -> None:
    account.limit(tokens_per_minute=100)
    account.admit(tokens=100)
    assert account.refusal(tokens=101).final
    assert not account.refusal(tokens=100).final


def test_a_rate_that_is_removed_holds_nobody_up_any_more(account: Account) -> None:
    account.limit(requests_per_minute=1, tokens_per_minute=100)
    settle(account.admit(tokens=100), input_tokens=900)
    assert account.refusal(tokens=100).retry_after == 540
    account.limit(requests_per_minute=None)
    account.admit(tokens=0)  # what uses no tokens
    account.limit(tokens_per_minute=None)
    account.admit(tokens=100)


# Lowering inside the statement


@pytest.mark.parametrize("name", MONEY)
def test_between_least_and_want_exactly_the_room_is_reserved(account: Account, name: str) -> None:
    account.limit(**{name: 1000})
    settle(account.admit(want=300), 250)
    _, admission = account.call(want=900, least=50)
    assert admission.reserved == 750
    assert (admission.standing.spent, admission.standing.reserved) == (250, 750)
    assert not account.refusal(want=900, least=1).final
    assert account.row()["reserved"] == 750
    assert_books_balance(account.grant)


def test_the_tightest_of_the_caps_is_the_room(account: Account) -> None:
    caps = {"max_cost": 900, "max_cost_per_day": 700, "max_cost_per_month": 800}
    for tight in caps:
        account.limit(**caps | {tight: 500})
        call, admission = account.call(want=10_000, least=1)
        assert admission.reserved == 500
        settle(call, 0)


def test_below_least_nothing_is_admitted_and_at_least_all_of_it(account: Account) -> None:
    account.limit(max_cost=100)
    settle(account.admit(want=41), 41)
    assert account.refusal(want=500, least=60).final
    assert account.call(want=500, least=59)[1].reserved == 59


def test_a_bound_beyond_all_numbers_is_lowered_like_any_other(account: Account) -> None:
    account.limit(max_cost_per_day=1000)
    assert account.refusal(want=2**80).final
    assert account.call(want=2**80, least=10)[1].reserved == 1000


@pytest.mark.parametrize("name", MONEY)
def test_nearly_all_of_a_cap_can_be_spent_and_never_more(account: Account, name: str) -> None:
    """A token costs 7; every call asks for far more than there is and uses what it got."""
    cap = 100_003
    account.limit(**{name: cap})
    calls = 0
    while not isinstance(answer := account.ask(want=70_000, least=7), Denied):
        call, admission = answer
        calls += 1
        settle(call, max(7, admission.reserved // 3 // 7 * 7))
    spent = account.row()["spent"]
    assert cap * 0.999 <= spent <= cap
    assert account.refusal(want=7).final
    assert calls > 10
    assert_books_balance(account.grant)


# What a settlement charges


def test_a_cost_that_nobody_knows_is_the_whole_bound_and_marked(account: Account) -> None:
    account.limit(max_cost=1000)
    call = Call.objects.get(pk=account.admit(want=400))
    settle(call.pk, None)
    call.refresh_from_db()
    assert (call.cost, call.estimated) == (400, True)
    assert (account.row()["spent"], account.row()["closed_at"]) == (400, None)
    assert DailyTotal.objects.get(grant=account.grant).estimated == 1
    assert_books_balance(account.grant)


def test_without_a_bound_an_unknown_cost_stays_unknown(account: Account) -> None:
    call = account.admit()
    settle(call, None)
    assert Call.objects.filter(pk=call).values_list("cost", "estimated").get() == (None, False)
    assert account.row()["spent"] == 0


def test_a_call_that_costs_more_than_its_bound_closes_the_grant_until_it_is_reopened(account: Account) -> None:
    account.limit(max_cost=1000)
    beside, overrun = account.admit(want=100), account.admit(want=100)
    settle(overrun, 100)
    account.admit(want=10)
    settle(beside, 101)
    assert Call.objects.overrun().get().pk == beside
    full = account.refusal(want=0)
    assert (full.code, full.final) == ("grant_closed", True)
    closed_at = account.row()["closed_at"]
    assert closed_at == Call.objects.get(pk=beside).finished_at
    account.limit(max_cost=2000)
    assert account.refusal(want=0).code == "grant_closed"
    assert account.grant.reopen(account.by)
    account.admit(want=100)
    assert_books_balance(account.grant)


def test_the_first_overrun_says_since_when_a_grant_is_closed(account: Account, clock: Clock) -> None:
    first, second = account.admit(want=5), account.admit(want=5)
    settle(first, 6)
    closed_at = account.row()["closed_at"]
    clock.wait(60)
    settle(second, 6)
    assert account.row()["closed_at"] == closed_at


def test_what_had_no_bound_cannot_overrun(account: Account) -> None:
    settle(account.admit(), 10**12)
    account.admit()


@pytest.mark.parametrize(("cost", "spent", "closed"), [(250, 250, False), (None, 400, False), (401, 401, True)])
def test_a_late_settlement_replaces_what_the_reaper_charged(
    account: Account, clock: Clock, cost: int | None, spent: int, closed: bool
) -> None:
    call = account.admit(want=400, model="m")
    assert ledger.reap(lost_after=60) == 1
    assert not ledger.settle(call, ledger.Settlement("lost", estimated=True), reaping=True)
    assert account.row()["spent"] == 400
    assert settle(call, cost, input_tokens=3, output_tokens=4, cached_tokens=2)
    assert not settle(call, cost)
    assert not ledger.settle(call, ledger.Settlement("lost"), reaping=True)
    assert account.row()["spent"] == account.row()["day_spent"] == account.row()["month_spent"] == spent
    assert (account.row()["closed_at"] is not None) is closed
    total = DailyTotal.objects.get(grant=account.grant, model="m")
    assert (total.calls, total.requests, total.failed, total.cost) == (1, 1, 0, spent)
    assert (total.input_tokens, total.output_tokens, total.cached_tokens) == (3, 4, 2)
    assert total.estimated == int(cost is None)
    assert_books_balance(account.grant)


def test_a_late_settlement_of_what_never_was_sent_gives_everything_back(account: Account) -> None:
    call = account.admit(want=400)
    assert ledger.reap(lost_after=60) == 1
    assert settle(call, 0, outcome="upstream_unreachable", connected=False)
    row = account.row()
    assert [row[name] for name in ("requests", "day_requests", "spent", "reserved", "in_flight")] == [0] * 5
    total = DailyTotal.objects.get(grant=account.grant)
    assert (total.calls, total.requests, total.failed, total.estimated, total.cost) == (1, 0, 1, 0, 0)
    assert_books_balance(account.grant)


def test_reaping_spares_the_calls_of_a_worker_that_was_heard(account: Account, clock: Clock) -> None:
    account.admit(want=10)
    ledger.beat(account.worker)
    clock.wait(59)
    assert ledger.reap(lost_after=60) == 0
    clock.wait(1)
    assert ledger.reap(lost_after=60) == 1
    assert Worker.objects.filter(pk=account.worker).exists()


# In force, to the microsecond


def test_a_grant_that_ends_between_reading_and_admission_admits_nothing(account: Account, clock: Clock) -> None:
    policy = account.policy()
    clock.set(account.grant.expires_at - dt.timedelta(microseconds=1))
    ledger.admit(policy, account.entry())
    clock.wait(0.000001)
    with pytest.raises(Denied) as caught:
        ledger.admit(policy, account.entry())
    assert caught.value.code == "grant_expired"
    assert account.row()["requests"] == 1


# Several at once

PROCESSES = 4


def storm(account: Account, **order: Any) -> tuple[list[dict[str, int]], list[tuple[int, int]]]:
    """What each process did, and what was spent and reserved at every moment that was looked at."""
    order |= {"token": account.token(), "worker": str(account.worker)}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.ledger_process", json.dumps(order | {"seed": seed})],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in range(PROCESSES)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.close()
    seen = []
    while any(process.poll() is None for process in running):
        seen.append(Allowance.objects.filter(grant=account.grant).values_list("spent", "reserved").get())
        time.sleep(0.002)
    done = [json.loads(process.stdout.read()) for process in running if process.stdout]
    assert {process.returncode for process in running} == {0}
    return done, seen


@pytest.fixture
def shared(transactional_db: Any, sandbox_key: ProviderKey, by: Actor) -> Account:
    return Account(sandbox_key, by)


def test_of_all_who_settle_a_call_at_once_and_the_reaper_one_is_charged(shared: Account) -> None:
    calls = [shared.admit(want=100, model="m") for _ in range(30)]
    start = Barrier(4)
    won: list[bool] = []

    def settle_all(reaping: bool) -> None:
        start.wait()
        for call in calls:
            if reaping:
                ledger.settle(call, ledger.Settlement("lost", estimated=True), reaping=True)
            else:
                won.append(settle(call, 40))
        connection.close()

    threads = [Thread(target=settle_all, args=(number == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == 30
    row = shared.row()
    assert [row[name] for name in ("spent", "reserved", "in_flight", "requests")] == [1200, 0, 0, 30]
    total = DailyTotal.objects.get(grant=shared.grant)
    assert (total.calls, total.failed, total.estimated, total.cost) == (30, 0, 0, 1200)
    assert_books_balance(shared.grant)


def test_a_settlement_that_waits_for_the_reapers_replaces_its_charge(shared: Account) -> None:
    """PostgreSQL checked it against the grant as it was before the reaper charged it: no room to pay that back."""
    call = shared.admit(want=100, model="m")
    won: list[bool] = []

    def settle_it() -> None:
        won.append(settle(call, 40))
        connection.close()

    late = Thread(target=settle_it)
    with transaction.atomic():
        assert ledger.settle(call, ledger.Settlement("lost", estimated=True), reaping=True)
        late.start()
        time.sleep(0.5)
        assert late.is_alive()
    late.join()
    assert won == [True]
    assert [shared.row()[name] for name in ("spent", "reserved", "in_flight", "requests")] == [40, 0, 0, 1]
    assert Call.objects.values_list("outcome", "cost").get() == ("ok", 40)
    assert_books_balance(shared.grant)


def test_of_processes_that_race_for_the_last_calls_exactly_those_pass(shared: Account) -> None:
    shared.limit(max_requests=100, max_concurrency=64)
    done, _ = storm(shared, threads=4)
    assert sum(caller["admitted"] for caller in done) == Call.objects.count() == 100
    assert all(caller["admitted"] for caller in done) or connection.vendor == "sqlite"
    assert_books_balance(shared.grant)


def test_of_processes_that_race_for_money_none_takes_it_above_the_cap(shared: Account) -> None:
    cap = 10_000
    shared.limit(max_cost=cap, max_cost_per_day=cap, max_cost_per_month=cap)
    done, seen = storm(shared, threads=4, want=400, least=1)
    row = shared.row()
    assert max(spent + reserved for spent, reserved in seen) <= cap
    assert len({reserved for _, reserved in seen}) > 3  # it was looked while they ran
    assert row["spent"] == sum(caller["spent"] for caller in done) == cap
    assert (row["reserved"], row["in_flight"]) == (0, 0)
    assert_books_balance(shared.grant)
