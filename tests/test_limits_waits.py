"""The clock that decides is read after the wait for the row's lock, on PostgreSQL, or for the write lock, on SQLite."""

from __future__ import annotations

import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from grants import clock, ledger
from grants.clock import day_number, microseconds, moment
from grants.models import Actor, Allowance, Call, Grant, ProviderKey, Worker
from grants.policy import Denied

from .ledgers import SECOND, Account, settle

pytestmark = pytest.mark.django_db(transaction=True)
POSTGRESQL = connection.vendor == "postgresql"


@pytest.fixture
def account(sandbox_key: ProviderKey, by: Actor) -> Account:
    made = Account(sandbox_key, by)
    ledger.beat(made.worker)  # servers of other tests reap the calls of workers without a heartbeat
    return made


def now() -> int:
    return time.time_ns() // 1000


def wait_until(end: int) -> None:
    time.sleep(max(0, end - now()) / SECOND + 0.05)


class Waiting:
    """``act`` in a thread of its own, and what came of it."""

    def __init__(self, act: Callable[[], Any]) -> None:
        self.result: Any = None
        self._act = act
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._act()
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.result = error
        finally:
            connections.close_all()

    def done(self) -> Any:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.result


def until_blocked() -> None:
    """On PostgreSQL: until a statement waits for a lock. On SQLite waiting happens in Python, out of sight."""
    if not POSTGRESQL:
        time.sleep(0.3)
        return
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    deadline = time.monotonic() + 10
    while True:
        with connection.cursor() as cursor:
            if cursor.execute("SELECT pg_stat_clear_snapshot()") and cursor.execute(waits).fetchone() != (0,):
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)


HOLDS = ["changes the row", "only locks it", "is rolled back"]


@contextmanager
def held(account: Account, how: str) -> Iterator[None]:
    """The grant's row and its counted row, in somebody else's transaction; on SQLite, the write lock."""

    class RolledBack(Exception):
        pass

    try:
        with transaction.atomic():
            Grant.objects.select_for_update(no_key=True).get(pk=account.grant.pk)
            list(Allowance.objects.select_for_update(no_key=True).filter(grant=account.grant))
            if how != "only locks it":
                Allowance.objects.filter(grant=account.grant).update(tokens_refunded=1)
                Grant.objects.filter(pk=account.grant.pk).update(reason="held")
            yield
            if how == "is rolled back":
                raise RolledBack
    except RolledBack:
        pass


def held_until(end: int, account: Account, how: str, act: Callable[[], Any]) -> Any:
    """What ``act`` returns, which begins before ``end`` and gets the row after it."""
    with held(account, how):
        waiting = Waiting(act)
        until_blocked()
        assert now() < end, "it began too late for this test"
        wait_until(end)
    return waiting.done()


def ends_in(seconds: float, account: Account) -> int:
    end = timezone.now() + dt.timedelta(seconds=seconds)
    Grant.objects.filter(pk=account.grant.pk).update(expires_at=end)
    Allowance.objects.update(expires_at=microseconds(end))
    return microseconds(end)


# Admission


@pytest.mark.parametrize("how", HOLDS)
def test_an_admission_that_waited_beyond_the_expiry_is_refused(account: Account, how: str) -> None:
    policy, entry = account.policy(), account.entry()
    end = ends_in(1.5, account)
    refusal = held_until(end, account, how, lambda: ledger.admit(policy, entry))
    assert isinstance(refusal, Denied)
    assert refusal.code == "grant_expired"
    assert not Call.objects.exists()
    assert account.row()["requests"] == 0


def zone_with_midnight_at(moment_us: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A zone whose midnight is at that moment (whole seconds), by name: PostgreSQL reads it as POSIX writes zones."""
    east = -(moment_us // SECOND) % 86_400
    offset = east if east <= 43_200 else east - 86_400
    monkeypatch.setattr(clock, "zone_info", lambda name: dt.timezone(dt.timedelta(seconds=offset)))
    hours, minutes, seconds = abs(offset) // 3600, abs(offset) // 60 % 60, abs(offset) % 60
    return f"<near>{'-' if offset > 0 else '+'}{hours}:{minutes:02}:{seconds:02}"


@pytest.mark.parametrize("how", HOLDS)
def test_a_call_that_waited_beyond_midnight_belongs_to_the_new_day(
    account: Account, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.limit(max_cost_per_day=1000)
    midnight = (now() // SECOND + 3) * SECOND
    zone = zone_with_midnight_at(midnight, monkeypatch)
    policy = replace(account.policy(), time_zone=zone)
    yesterday = account.entry(want=900)
    ledger.admit(policy, yesterday)
    entry = account.entry(want=100)
    admission = held_until(midnight, account, how, lambda: ledger.admit(policy, entry))
    assert (admission.reserved, admission.standing.day_reserved) == (100, 100)
    old, new = Call.objects.get(pk=yesterday.id), Call.objects.get(pk=entry.id)
    assert new.day == day_number(moment(midnight)) > old.day == day_number(moment(midnight - 1))


@pytest.mark.parametrize("how", HOLDS)
def test_a_rate_counts_from_the_moment_at_which_the_row_was_had(account: Account, how: str) -> None:
    account.limit(requests_per_minute=6, tokens_per_minute=60)
    policy, entry = account.policy(), account.entry(tokens=1)
    free = now() + 1_500_000
    admission = held_until(free, account, how, lambda: ledger.admit(policy, entry))
    row = account.row()
    assert row["requests_clock"] == admission.standing.now + 10 * SECOND
    assert row["tokens_clock"] == admission.standing.now + SECOND
    assert admission.standing.now >= free
    assert Call.objects.get().started_at == admission.standing.now


# Settlement


@pytest.mark.parametrize("how", HOLDS)
def test_tokens_that_the_time_let_through_during_the_wait_are_not_given_back(account: Account, how: str) -> None:
    account.limit(tokens_per_minute=60)
    call = account.admit(tokens=3)
    until = account.row()["tokens_clock"]
    before = 1 if how == "changes the row" else 0  # what the holder has written
    assert held_until(until, account, how, lambda: settle(call, input_tokens=0)) is True
    row, ended = account.row(), Call.objects.get().finished_at
    assert row["tokens_clock"] == until
    assert row["tokens_refunded"] == before
    assert ended is not None
    assert ended >= until


@pytest.mark.parametrize("how", HOLDS)
def test_tokens_beyond_the_reservation_are_owed_from_the_moment_of_the_settlement(account: Account, how: str) -> None:
    account.limit(tokens_per_minute=60)
    call = account.admit(tokens=1)
    until = account.row()["tokens_clock"] + SECOND
    assert held_until(until, account, how, lambda: settle(call, input_tokens=31)) is True
    assert account.row()["tokens_clock"] == Call.objects.get().finished_at + 30 * SECOND


# Owners


def test_a_change_of_terms_that_waited_beyond_the_expiry_revives_nothing(account: Account) -> None:
    end = ends_in(1.5, account)
    later, terms = timezone.now() + dt.timedelta(days=9), account.grant.terms
    won = held_until(
        end, account, "only locks it", lambda: account.grant.change(terms=terms, by=account.by, expires_at=later)
    )
    assert won is False
    assert Grant.objects.get().expires_at < timezone.now()
    assert account.row()["expires_at"] == end


def test_an_approval_that_waited_beyond_the_end_of_the_request_approves_nothing(
    account: Account, sandbox_key: ProviderKey
) -> None:
    asked, _ = Grant.request(provider="sandbox", terms=account.grant.terms, app_name="Other", by=Actor("api"))
    end = timezone.now() + dt.timedelta(seconds=1.5)
    Grant.objects.filter(pk=asked.pk).update(request_expires_at=end)
    account.grant = asked
    terms = asked.terms
    won = held_until(
        microseconds(end), account, "only locks it", lambda: asked.approve(key=sandbox_key, terms=terms, by=account.by)
    )
    assert won is False
    assert Grant.objects.get(pk=asked.pk).approved_at is None


def test_a_revocation_bears_the_time_at_which_it_took_effect(account: Account) -> None:
    free = now() + 1_000_000
    assert held_until(free, account, "only locks it", lambda: account.grant.revoke(account.by)) is True
    assert microseconds(Grant.objects.get().revoked_at) >= free


def test_a_closed_grant_that_expired_during_the_wait_is_not_reopened(account: Account) -> None:
    end = ends_in(1.5, account)
    Allowance.objects.update(closed_at=1)
    assert held_until(end, account, "only locks it", lambda: account.grant.reopen(account.by)) is False
    assert account.row()["closed_at"] == 1


# Workers


def test_a_heartbeat_bears_the_time_at_which_it_was_written() -> None:
    worker = uuid.uuid4()
    ledger.beat(worker)
    with transaction.atomic():
        list(Worker.objects.select_for_update().filter(pk=worker))
        waiting = Waiting(lambda: ledger.beat(worker))
        until_blocked()
        free = now() + 300_000
        wait_until(free)
    waiting.done()
    assert Worker.objects.get(pk=worker).seen_at >= free
