"""Admission and settlement: counters equal the ledger, whatever happens."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from django.db.models import F, Sum

from grants import ledger, policy, tokens
from grants.clock import two_days_after
from grants.ledger import Entry, Settlement
from grants.models import Actor, Allowance, Call, Grant, Worker

pytestmark = pytest.mark.django_db

WORKER = uuid.uuid4()


@pytest.fixture
def claims(grant: Grant, by: Actor) -> tokens.Claims:
    return tokens.verify(tokens.mint(grant, by=by).token)


def entry(claims: tokens.Claims, **changes: Any) -> Entry:
    fields = {"id": uuid.uuid4(), "jti": claims.jti, "kid": claims.kid, "worker": WORKER, "route": "openai.chat"}
    return Entry(**(fields | changes))


def admit(claims: tokens.Claims, **changes: Any) -> uuid.UUID:
    call = entry(claims, **changes)
    ledger.admit(policy.read(claims), call)
    return call.id


def limit(grant: Grant, **limits: Any) -> None:
    assert grant.change(terms=grant.terms.with_(**limits), by=Actor("api"))


def assert_counters_equal_the_ledger(grant: Grant) -> None:
    allowance = Allowance.objects.get(grant=grant)
    calls = Call.objects.filter(grant=grant)
    total = calls.aggregate(requests=Sum("counted"), spent=Sum("cost"))
    assert allowance.requests == (total["requests"] or 0)
    assert allowance.spent == (total["spent"] or 0)
    assert allowance.in_flight == calls.open().count()
    assert allowance.reserved == (calls.open().aggregate(sum=Sum("reserved"))["sum"] or 0)
    today = calls.filter(day=F("grant__allowance__day")).aggregate(requests=Sum("counted"), spent=Sum("cost"))
    assert allowance.day_requests == (today["requests"] or 0)
    assert allowance.day_spent == (today["spent"] or 0)


def test_an_admitted_call_is_counted_and_open(grant: Grant, claims: tokens.Claims) -> None:
    call = Call.objects.get(pk=admit(claims, want=500))
    assert call.finished_at is None
    assert call.day == Allowance.objects.get().day > 20260000
    assert abs(call.started_at / 1e6 - time.time()) < 60
    assert_counters_equal_the_ledger(grant)


def test_a_settlement_charges_once_and_gives_the_reservation_back(grant: Grant, claims: tokens.Claims) -> None:
    call = admit(claims, want=500)
    assert ledger.settle(call, Settlement("ok", 200, 1000, 10, 20, 0, cost=300))
    assert not ledger.settle(call, Settlement("ok", 200, cost=300))
    allowance = Allowance.objects.get()
    assert (allowance.spent, allowance.reserved, allowance.in_flight, allowance.requests) == (300, 0, 0, 1)
    assert_counters_equal_the_ledger(grant)


def test_a_connection_that_could_not_be_made_is_not_counted(grant: Grant, claims: tokens.Claims) -> None:
    call = admit(claims)
    ledger.settle(call, Settlement("upstream_unreachable", connected=False))
    assert Allowance.objects.get().requests == 0
    assert_counters_equal_the_ledger(grant)


def test_the_request_cap_is_final_and_holds_for_free_calls_too(grant: Grant, claims: tokens.Claims) -> None:
    limit(grant, max_requests=2)
    admit(claims)
    admit(claims)
    for counted in (True, False):
        with pytest.raises(ledger.Full) as caught:
            admit(claims, counted=counted)
        assert caught.value.final
        assert caught.value.code == "request_limit_reached"
    assert Call.objects.count() == 2


def test_the_concurrency_limit_frees_with_a_settlement(grant: Grant, claims: tokens.Claims) -> None:
    limit(grant, max_concurrency=1)
    first = admit(claims)
    with pytest.raises(ledger.Full) as caught:
        admit(claims)
    assert not caught.value.final
    ledger.settle(first, Settlement("ok"))
    admit(claims)
    assert_counters_equal_the_ledger(grant)


def test_a_policy_read_before_a_revocation_admits_nothing(grant: Grant, claims: tokens.Claims) -> None:
    old = policy.read(claims)
    grant.revoke(Actor("api"))
    with pytest.raises(ledger.Stale):
        ledger.admit(old, entry(claims))
    with pytest.raises(policy.Denied) as caught:
        policy.read(claims)
    assert caught.value.code == "grant_revoked"
    assert Call.objects.count() == 0


def test_every_change_that_takes_rights_away_makes_an_older_policy_stale(grant: Grant, claims: tokens.Claims) -> None:
    by = Actor("api")
    owner = grant.owner

    def deactivate() -> None:
        owner.is_active = False
        owner.save()

    changes = [
        lambda: grant.change(terms=grant.terms.with_(capabilities=("chat",)), by=by),
        lambda: grant.revoke_token("0" * 32, expires_at=grant.expires_at, by=by),
        lambda: grant.provider_key.disable(by),
        lambda: grant.provider_key.enable(by),
        deactivate,
    ]
    for change in changes:
        old = Allowance.objects.get().revision
        change()
        assert Allowance.objects.get().revision > old


@pytest.mark.parametrize("silent", [True, False])
def test_reap_settles_the_calls_of_silent_workers_only(grant: Grant, claims: tokens.Claims, silent: bool) -> None:
    call = admit(claims, want=700)
    ledger.beat(WORKER)
    if silent:
        Worker.objects.update(seen_at=F("seen_at") - 120_000_000)
    assert ledger.reap(lost_after=60) == int(silent)
    assert (Call.objects.get(pk=call).outcome == "lost") is silent
    assert Allowance.objects.get().spent == (700 if silent else 0)
    assert_counters_equal_the_ledger(grant)


def test_a_late_settlement_replaces_the_reapers_charge_by_the_difference(grant: Grant, claims: tokens.Claims) -> None:
    call = admit(claims, want=700)
    assert ledger.reap(lost_after=60) == 1
    assert ledger.reap(lost_after=60) == 0
    assert ledger.settle(call, Settlement("ok", 200, cost=450))
    assert Allowance.objects.get().spent == 450
    assert_counters_equal_the_ledger(grant)
    assert not ledger.settle(call, Settlement("ok", 200, cost=450))


def test_taken_away_names_the_open_calls_of_a_revoked_grant_and_of_a_revoked_token(
    grant: Grant, claims: tokens.Claims, by: Actor
) -> None:
    other = tokens.verify(tokens.mint(grant, by=by).token)
    mine, spared = admit(claims), admit(other)
    assert list(ledger.taken_away(WORKER)) == []
    grant.revoke_token(claims.jti, expires_at=grant.expires_at, by=by)
    assert list(ledger.taken_away(WORKER)) == [mine]
    grant.revoke(by)
    assert set(ledger.taken_away(WORKER)) == {mine, spared}
    assert list(ledger.taken_away(uuid.uuid4())) == []


def test_a_new_day_begins_at_zero_and_goes_back_only_from_an_impossible_one(
    grant: Grant, claims: tokens.Claims
) -> None:
    yesterday = admit(claims)
    Allowance.objects.update(day=20200101)
    Call.objects.update(day=20200101)
    admit(claims)
    ledger.settle(yesterday, Settlement("ok", cost=5))
    assert_counters_equal_the_ledger(grant)
    today = Allowance.objects.get().day
    ahead = two_days_after(today)
    for day, kept in ((ahead, ahead), (29990101, today)):
        Allowance.objects.update(day=day, day_requests=7, day_spent=0)
        assert Call.objects.get(pk=admit(claims)).day == kept
        assert Allowance.objects.get().day_requests == 8


def test_a_call_that_its_own_worker_does_not_know_is_settled_at_its_bound(grant: Grant, claims: tokens.Claims) -> None:
    """A database that failed over may have forgotten the settlement; nobody else looks after a live worker's calls."""
    limit(grant, max_cost=1000)
    known, forgotten, young = (admit(claims, want=100) for _ in range(3))
    Call.objects.exclude(pk=young).update(started_at=F("started_at") - 120_000_000)
    assert ledger.reap_own(uuid.uuid4(), lambda call: False, lost_after=60) == 0
    assert ledger.reap_own(WORKER, lambda call: call == known, lost_after=60) == 1
    call = Call.objects.get(pk=forgotten)
    assert (call.outcome, call.cost, call.estimated) == ("lost", 100, True)
    assert Call.objects.open().count() == 2
    assert_counters_equal_the_ledger(grant)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("own", [True, False])
def test_a_lost_call_that_cannot_be_settled_keeps_no_other_open(
    own: bool, grant: Grant, claims: tokens.Claims, by: Actor, caplog: Any
) -> None:
    if own:
        ledger.beat(WORKER)  # servers of other tests reap the calls of workers without a heartbeat
    broken = Grant.issue(key=grant.provider_key, terms=grant.terms, app_name="Broken", by=by)
    calls = [admit(claims, want=700), admit(tokens.verify(tokens.mint(broken, by=by).token), want=700)]
    calls.append(admit(claims, want=700))
    Call.objects.update(started_at=F("started_at") - 120_000_000)
    Allowance.objects.filter(grant=broken).update(reserved=0)  # to give back what was never taken is refused

    def reap() -> int:
        return ledger.reap_own(WORKER, lambda call: False, lost_after=60) if own else ledger.reap(lost_after=60)

    assert reap() == 2
    assert list(Call.objects.open().values_list("pk", flat=True)) == [calls[1]]
    assert str(calls[1]) in caplog.text
    assert claims.jti not in "".join(record.getMessage() for record in caplog.records if record.name.endswith("ledger"))
    assert_counters_equal_the_ledger(grant)
    Allowance.objects.filter(grant=broken).update(reserved=700)
    assert reap() == 1
