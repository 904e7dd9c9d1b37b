"""Old calls can go; what they cost stays."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import time
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F, Sum
from django.utils import timezone

from grants import ledger, policy, tokens
from grants.clock import uuid7
from grants.ledger import Entry, Settlement
from grants.models import Actor, Call, DailyTotal, Grant
from grants.pace import STEP
from grants.purging import purge_calls
from grants.reconciliation import account

from .ledger_rows import call_id
from .live import ROOT, environment

WORKER = uuid.uuid4()


def make(grant: Grant, by: Actor, count: int, **changes: Any) -> list[uuid.UUID]:
    """Calls through the real ledger; every fifth is left open."""
    claims = tokens.verify(tokens.mint(grant, by=by).token)
    made = []
    ledger.beat(WORKER)  # servers of other tests reap the calls of workers without a heartbeat
    for number in range(count):
        entry = Entry(uuid7(), claims.jti, claims.kid, WORKER, "openai.chat", **{"model": "sandbox-1"} | changes)
        ledger.admit(policy.read(claims), entry)
        if number % 5:
            ledger.settle(
                entry.id, Settlement("ok", 200, None, 3, 4, 0, cost=None if number % 7 == 0 else 1000 + number)
            )
        made.append(entry.id)
    return made


def age(calls: list[uuid.UUID], days: int) -> None:
    """Make them as old as that: a call's age is in its id."""
    for call in calls:
        Call.objects.filter(pk=call).update(id=call_id(timezone.now() - dt.timedelta(days=days)))


@pytest.fixture
def old_and_new(db: Any, grant: Grant, by: Actor) -> Grant:
    age(make(grant, by, 60), 100)
    age(make(grant, by, 30, model="sandbox-2", counted=False), 100)
    make(grant, by, 20)
    return grant


def purge(*arguments: str) -> None:
    call_command("purge", *arguments, verbosity=0)


def test_purge_keeps_all_calls_unless_told(old_and_new: Grant) -> None:
    purge()
    assert Call.objects.count() == 110


def test_old_calls_go_and_their_sums_stay(old_and_new: Grant) -> None:
    before = list(DailyTotal.objects.order_by("model").values("model", "calls", "requests", "cost"))
    purge("--calls-older-than", "90d")
    assert list(DailyTotal.objects.order_by("model").values("model", "calls", "requests", "cost")) == before
    assert DailyTotal.objects.aggregate(sum=Sum("purged_calls"))["sum"] == 48 + 24
    assert DailyTotal.objects.get(model="sandbox-2").purged_requests == 0
    assert Call.objects.filter(finished_at__isnull=False).count() == 16
    assert account(old_and_new.pk).differences() == []


def test_open_calls_are_never_purged(old_and_new: Grant) -> None:
    waiting = Call.objects.open().count()
    purge("--calls-older-than", "1s")
    assert Call.objects.open().count() == waiting == 22
    assert account(old_and_new.pk).differences() == []


def test_after_every_batch_the_ledger_adds_up(old_and_new: Grant) -> None:
    batches = 0
    for gone in purge_calls(timezone.now() - dt.timedelta(days=90)):
        assert gone > 0
        batches += 1
        assert account(old_and_new.pk).differences() == []
    assert batches > 1


def test_a_call_that_is_in_no_total_is_not_lost(old_and_new: Grant) -> None:
    DailyTotal.objects.all().delete()
    with pytest.raises(CommandError, match="reconcile"):
        purge("--calls-older-than", "90d")
    assert Call.objects.count() == 110


@pytest.mark.django_db(transaction=True)
def test_killed_in_the_middle_it_leaves_a_ledger_that_adds_up(grant: Grant, by: Actor) -> None:
    make(grant, by, 10)
    old = timezone.now() - dt.timedelta(days=100)
    first = Call.objects.filter(finished_at__isnull=False).first()
    assert first is not None
    values = {field.attname: getattr(first, field.attname) for field in Call._meta.concrete_fields}
    Call.objects.bulk_create(Call(**values | {"id": call_id(old)}) for _ in range(6000))
    DailyTotal.objects.update(
        calls=F("calls") + 6000,
        requests=F("requests") + 6000 * first.counted,
        cost=F("cost") + 6000 * (first.cost or 0),
        input_tokens=F("input_tokens") + 6000 * 3,
        output_tokens=F("output_tokens") + 6000 * 4,
    )
    grant.allowance.__class__.objects.update(
        requests=F("requests") + 6000,
        day_requests=F("day_requests") + 6000,
        **{name: F(name) + 6000 * (first.cost or 0) for name in ("spent", "day_spent", "month_spent")},
    )
    assert account(grant.pk).differences() == []
    command = [sys.executable, "manage.py", "purge", "--calls-older-than", "90d"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while Call.objects.count() > 5000:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(STEP / 4)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert 10 < Call.objects.count() < 5500
    assert account(grant.pk).differences() == []
    purge("--calls-older-than", "90d")
    assert Call.objects.count() == 10
    assert account(grant.pk).differences() == []
