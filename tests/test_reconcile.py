"""``manage.py reconcile`` proves that the counters equal the ledger, and finds every place where they do not."""

from __future__ import annotations

import io
import json
import threading
import time
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F

from grants import ledger, policy, tokens
from grants.clock import uuid7
from grants.ledger import Entry, Settlement
from grants.models import Actor, Allowance, Call, DailyTotal, Grant
from grants.reconciliation import account, repair

WORKER = uuid.uuid4()


def calls(grant: Grant, by: Actor, count: int) -> None:
    """Calls through the real ledger, ended in every way: settled, unpriced, not connected, reaped, open."""
    claims = tokens.verify(tokens.mint(grant, by=by).token)
    for number in range(count):
        model = f"sandbox-{number % 2}"
        entry = Entry(uuid7(), claims.jti, claims.kid, WORKER, "openai.chat", model, want=500, least=500)
        ledger.admit(policy.read(claims), entry)
        match number % 5:
            case 0 | 1:
                ledger.settle(entry.id, Settlement("ok", 200, None, 3, 4, 1, cost=200 + number))
            case 2:
                ledger.settle(entry.id, Settlement("client_gone", 200, estimated=True))
            case 3:
                ledger.settle(entry.id, Settlement("upstream_unreachable", cost=0, connected=False))


@pytest.fixture
def used(db: Any, grant: Grant, by: Actor) -> Grant:
    calls(grant, by, 20)
    ledger.reap(lost_after=60)
    calls(grant, by, 20)
    return grant


def reconcile(*arguments: str) -> dict[str, Any]:
    out = io.StringIO()
    call_command("reconcile", *arguments, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_what_the_ledger_wrote_adds_up(used: Grant) -> None:
    assert Call.objects.open().exists()
    assert reconcile() == {"grants": 1, "differences": [], "left": 0}


COUNTERS = (
    *("requests", "in_flight", "spent", "reserved"),
    *("day_requests", "day_spent", "day_reserved", "month_spent", "month_reserved"),
)


@pytest.mark.parametrize("counter", COUNTERS)
def test_every_counter_that_is_off_is_named_with_how_much(used: Grant, counter: str) -> None:
    true = getattr(Allowance.objects.get(), counter)
    Allowance.objects.update(**{counter: F(counter) + 7})
    (found,) = account(used.pk).differences()
    assert (found.counter, found.counted, found.ledger, found.excess) == (counter, true + 7, true, 7)


@pytest.mark.parametrize("column", ["calls", "requests", "cost", "failed", "estimated", "input_tokens", "purged_calls"])
def test_every_total_that_is_off_is_named_with_its_day_and_model(used: Grant, column: str) -> None:
    DailyTotal.objects.filter(model="sandbox-1").update(**{column: F(column) + 7})
    found = account(used.pk).differences()[0]
    excess = -7 if column == "purged_calls" else 7
    assert (found.counter, found.excess) == (f"total.{column.removeprefix('purged_')}", excess)
    assert (found.day, found.model) == (Allowance.objects.get().day, "sandbox-1")


def test_a_call_that_vanished_is_found(used: Grant) -> None:
    Call.objects.filter(outcome="client_gone").order_by("id")[:1].get().delete()
    assert {each.counter for each in account(used.pk).differences()} >= {"total.calls", "total.requests", "requests"}


def test_the_command_says_where_not_and_exits_with_an_error(used: Grant, by: Actor) -> None:
    Allowance.objects.update(spent=F("spent") + 2_000_000_000)
    out = io.StringIO()
    with pytest.raises(CommandError, match="1 grants do not equal"):
        call_command("reconcile", stdout=out)
    assert f"{used.pk}: spent says 2.0" in out.getvalue()
    assert "(off by 2.00)" in out.getvalue()
    with pytest.raises(CommandError, match="No grant"):
        call_command("reconcile", "--grant", "nothing")


def test_a_repair_makes_the_counters_what_the_ledger_says(used: Grant) -> None:
    before = Allowance.objects.values().get()
    Allowance.objects.update(spent=F("spent") + 5, in_flight=99, day_requests=F("day_requests") + 1)
    DailyTotal.objects.filter(model="sandbox-0").delete()
    DailyTotal.objects.update(cost=F("cost") + 9)
    assert reconcile("--repair")["left"] == 0
    assert reconcile()["differences"] == []
    assert Allowance.objects.values().get() == before | {"revision": before["revision"] + 1}


def test_a_repair_that_was_measured_before_other_calls_still_fits(used: Grant, by: Actor) -> None:
    Allowance.objects.update(spent=F("spent") + 5, requests=F("requests") + 2)
    DailyTotal.objects.filter(model="sandbox-0").delete()
    found = account(used.pk)
    calls(used, by, 10)
    assert repair(found)
    assert account(used.pk).differences() == []


def test_of_two_repairs_at_once_one_is_made(used: Grant) -> None:
    Allowance.objects.update(spent=F("spent") + 5)
    first, second = account(used.pk), account(used.pk)
    assert repair(first)
    assert not repair(second)
    assert account(used.pk).differences() == []


@pytest.mark.django_db(transaction=True)
def test_calls_in_motion_are_no_differences(grant: Grant, by: Actor) -> None:
    stop = threading.Event()

    def traffic() -> None:
        try:
            while not stop.is_set():
                calls(grant, by, 5)
        finally:
            connection.close()

    threads = [threading.Thread(target=traffic) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        seen = []
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            read = account(grant.pk)
            assert read.differences() == []
            seen.append(read.counters["requests"])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert len(set(seen)) > 5


@pytest.mark.django_db(transaction=True)
def test_reading_an_account_makes_no_writer_wait(grant: Grant, by: Actor) -> None:
    from grants.reconciliation import snapshot

    with snapshot():
        before = Call.objects.count()
        writer = threading.Thread(target=lambda: (calls(grant, by, 5), connection.close()))
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        assert Call.objects.count() == before
    assert Call.objects.count() == before + 5
