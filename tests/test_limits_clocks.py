"""Days, months and clocks: where an owner's day begins, what belongs to it, and that it begins once."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st

from grants import ledger
from grants.clock import day_number, microseconds, moment
from grants.limits import midnight_after, month_after
from grants.models import Actor, Allowance, Call, DailyTotal, Preferences, ProviderKey
from grants.models.preferences import time_zones

from .callers import assert_books_balance
from .ledgers import Account, Clock, settle

EVENING = dt.datetime(2027, 5, 17, 20, tzinfo=dt.UTC)
TICK = dt.timedelta(microseconds=1)
DAY = dt.timedelta(days=1)
CAP = 1000


@pytest.fixture
def clock(db: Any, monkeypatch: pytest.MonkeyPatch) -> Clock:
    frozen = Clock(EVENING)
    monkeypatch.setattr(ledger, "time", frozen)
    return frozen


@pytest.fixture
def account(clock: Clock, sandbox_key: ProviderKey, by: Actor) -> Account:
    return Account(sandbox_key, by, max_cost_per_day=CAP)


def live_in(account: Account, zone: str) -> None:
    Preferences.of(account.by.user).change(time_zone=zone, by=account.by)


def spend(account: Account, amount: int) -> None:
    settle(account.admit(want=amount), amount)


def assert_used_up(account: Account, until: dt.datetime) -> None:
    full = account.refusal(want=1)
    assert full.final
    assert full.limit is not None
    assert full.limit.resets_at == microseconds(until)
    assert f"It resets at {until:%Y-%m-%d %H:%M} UTC." in full.message


# Where a day begins

MIDNIGHTS = [  # zone, the day that ends, when the one after it begins
    ("UTC", 20270517, "2027-05-18T00:00Z"),
    ("Pacific/Auckland", 20270518, "2027-05-18T12:00Z"),
    ("America/New_York", 20270313, "2027-03-14T05:00Z"),
    ("America/New_York", 20270314, "2027-03-15T04:00Z"),  # of 23 hours
    ("America/New_York", 20271107, "2027-11-08T05:00Z"),  # of 25 hours
    ("Africa/Cairo", 20270429, "2027-04-29T22:00Z"),  # the day after it begins at one o'clock
    ("Asia/Beirut", 20271030, "2027-10-30T22:00Z"),  # its last hour comes twice
    ("Asia/Kathmandu", 20270517, "2027-05-17T18:15Z"),
    ("Etc/GMT+5", 20270517, "2027-05-18T05:00Z"),
    ("CET", 20270717, "2027-07-17T22:00Z"),  # for PostgreSQL also an abbreviation, of the winter's time
    ("EET", 20270717, "2027-07-17T21:00Z"),
    ("MET", 20270717, "2027-07-17T22:00Z"),
    ("WET", 20270717, "2027-07-17T23:00Z"),
]


@pytest.mark.parametrize(("zone", "day", "end"), MIDNIGHTS)
def test_a_day_ends_at_the_owners_midnight_to_the_microsecond(
    account: Account, clock: Clock, zone: str, day: int, end: str
) -> None:
    midnight = dt.datetime.fromisoformat(end)
    live_in(account, zone)
    clock.set(midnight - dt.timedelta(hours=3))
    spend(account, CAP)
    clock.set(midnight - TICK)
    assert_used_up(account, midnight)
    clock.set(midnight)
    today = Call.objects.get(pk=account.admit(want=CAP))
    assert Call.objects.exclude(pk=today.pk).get().day == day
    assert today.day == day_number(midnight, zone) > day
    assert_books_balance(account.grant)


def test_without_a_zone_of_the_owners_the_operators_counts(account: Account, clock: Clock, settings: Any) -> None:
    settings.TIME_ZONE = "America/St_Johns"
    midnight = dt.datetime(2027, 5, 18, 2, 30, tzinfo=dt.UTC)
    clock.set(midnight - TICK)
    spend(account, CAP)
    assert account.row()["day"] == 20270517
    clock.set(midnight)
    assert account.call(want=CAP)[1].standing.day == 20270518


def test_a_month_ends_with_its_last_day_and_a_year_with_december(account: Account, clock: Clock) -> None:
    live_in(account, "Pacific/Auckland")
    account.limit(max_cost_per_day=None, max_cost_per_month=CAP)
    clock.set(dt.datetime(2027, 12, 1, tzinfo=dt.UTC))
    spend(account, CAP)
    midnight = dt.datetime(2027, 12, 31, 11, tzinfo=dt.UTC)
    for _ in range(29):
        clock.wait(86_400)
        account.admit(want=0)
        assert_used_up(account, midnight)
    clock.set(midnight - TICK)
    assert_used_up(account, midnight)
    clock.set(midnight)
    spend(account, CAP)
    assert Call.objects.order_by("started_at").values_list("day", flat=True).last() == 20280101
    assert_used_up(account, dt.datetime(2028, 1, 31, 11, tzinfo=dt.UTC))
    assert_books_balance(account.grant)


@given(st.sampled_from(time_zones()), st.integers(1_780_000_000_000_000, 2_400_000_000_000_000))
def test_what_ends_a_day_is_the_first_moment_of_another(zone: str, now: int) -> None:
    day = day_number(moment(now), zone)
    end = midnight_after(day, zone)
    assert end > now
    assert day_number(moment(end - 1), zone) == day < day_number(moment(end), zone)
    end = month_after(day, zone)
    assert end > now
    assert day_number(moment(end - 1), zone) // 100 == day // 100
    assert day_number(moment(end), zone) % 100 == 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="asks PostgreSQL")
def test_every_zone_that_an_owner_may_choose_has_the_same_days_in_the_database(account: Account, clock: Clock) -> None:
    policy = account.policy()
    for zone in time_zones():
        summer = moment(midnight_after(20270717, zone))
        winter = moment(midnight_after(20271217, zone))
        for instant in (summer, winter - TICK):
            clock.set(instant)
            Allowance.objects.update(day=0)
            standing = ledger.admit(replace(policy, time_zone=zone), account.entry()).standing
            assert standing.day == day_number(instant, zone), zone


# What belongs to a day


@pytest.mark.parametrize("later", [DAY, 31 * DAY])
def test_a_call_belongs_to_the_day_of_its_admission(account: Account, clock: Clock, later: dt.timedelta) -> None:
    account.limit(max_cost_per_month=CAP)
    over_midnight = account.admit(want=600, model="m")
    clock.set(EVENING + later)
    same_month = later == DAY
    today = account.admit(want=400)
    if same_month:
        assert account.refusal(want=1).code == "monthly_cost_limit_reached"
    settle(over_midnight, 500, connected=True)
    row = account.row()
    assert (row["spent"], row["day_spent"], row["month_spent"]) == (500, 0, 500 if same_month else 0)
    assert (row["reserved"], row["day_reserved"], row["month_reserved"]) == (400, 400, 400)
    assert DailyTotal.objects.get(grant=account.grant, model="m").day == 20270517
    settle(today, 400)
    assert_books_balance(account.grant)


@pytest.mark.parametrize("later", [DAY, 31 * DAY])
def test_what_was_not_sent_is_taken_off_the_day_that_it_was_counted_on(
    account: Account, clock: Clock, later: dt.timedelta
) -> None:
    yesterday = account.admit()
    clock.set(EVENING + later)
    account.admit()
    settle(yesterday, 0, connected=False)
    assert (account.row()["requests"], account.row()["day_requests"]) == (1, 1)
    assert_books_balance(account.grant)


@pytest.mark.parametrize("later", [DAY, 31 * DAY])
def test_a_late_settlement_after_midnight_corrects_the_day_that_the_reaper_charged(
    account: Account, clock: Clock, later: dt.timedelta
) -> None:
    lost = account.admit(want=700)
    assert ledger.reap(lost_after=60) == 1
    clock.set(EVENING + later)
    spend(account, 30)
    assert settle(lost, 200)
    row = account.row()
    assert (row["spent"], row["day_spent"], row["month_spent"]) == (230, 30, 230 if later == DAY else 30)
    assert DailyTotal.objects.get(grant=account.grant, day=20270517).cost == 200
    assert_books_balance(account.grant)


def test_a_refusal_on_a_new_day_does_not_count_what_yesterday_used(account: Account, clock: Clock) -> None:
    account.limit(max_cost_per_month=CAP)
    spend(account, 600)
    account.admit(want=300)
    clock.set(EVENING + DAY)
    full = account.refusal(want=CAP + 1)
    assert full.limit is not None
    assert (full.code, full.limit.used, full.limit.reserved) == ("daily_cost_limit_reached", 0, 0)
    account.limit(max_cost_per_day=None)
    full = account.refusal(want=101)
    assert full.limit is not None
    assert (full.code, full.limit.used, full.limit.reserved) == ("monthly_cost_limit_reached", 600, 300)
    clock.set(EVENING + 31 * DAY)
    full = account.refusal(want=CAP + 1)
    assert full.limit is not None
    assert (full.limit.used, full.limit.reserved) == (0, 0)


# A day begins once


@pytest.mark.parametrize("midnight", [dt.datetime(2027, 5, 18, tzinfo=dt.UTC), dt.datetime(2027, 6, 1, tzinfo=dt.UTC)])
def test_clocks_that_disagree_around_midnight_spend_no_days_money_twice(
    account: Account, clock: Clock, midnight: dt.datetime
) -> None:
    account.limit(max_cost_per_month=5 * CAP)
    slow, fast = midnight - dt.timedelta(seconds=20), midnight + dt.timedelta(seconds=20)
    clock.set(slow)
    spend(account, CAP)
    clock.set(fast)
    spend(account, 600)
    for now in (slow, fast, slow, fast):
        clock.set(now)
        full = account.refusal(want=401)
        assert full.limit is not None
        assert (full.limit.used, full.limit.resets_at) == (600, microseconds(midnight + DAY))
    clock.set(slow)
    spend(account, 400)
    for now in (slow, fast):
        clock.set(now)
        assert_used_up(account, midnight + DAY)
    costs = DailyTotal.objects.filter(grant=account.grant).values_list("day", "cost")
    assert dict(costs) == {day_number(slow): CAP, day_number(fast): CAP}
    assert_books_balance(account.grant)


def test_an_owner_who_travels_begins_no_day_twice(account: Account, clock: Clock) -> None:
    live_in(account, "Pacific/Auckland")
    spend(account, CAP)  # on the 18th
    live_in(account, "America/New_York")  # still the 17th
    account.refusal(want=1)
    live_in(account, "Pacific/Auckland")
    assert_used_up(account, dt.datetime(2027, 5, 18, 12, tzinfo=dt.UTC))
    live_in(account, "America/New_York")
    clock.set(dt.datetime(2027, 5, 18, 5, tzinfo=dt.UTC))  # the 18th, here too
    account.refusal(want=1)
    clock.set(dt.datetime(2027, 5, 19, 4, tzinfo=dt.UTC))
    spend(account, CAP)
    assert_books_balance(account.grant)
