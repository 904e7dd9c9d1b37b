"""Crashes in mid-call under limits: counters equal the ledger, nothing stays reserved, nothing is charged twice."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from grants import ledger
from grants.models import Allowance, Call, Grant, Worker

from .callers import Caller, Said, Stream, assert_books_balance, crowd
from .live import eventually, server
from .test_limits_live import DOLLAR, PER_TOKEN, price

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

ALL_LIMITS = {
    "max_requests": 10_000,
    "max_concurrency": 100,
    "max_cost": 100 * DOLLAR,
    "max_cost_per_day": 50 * DOLLAR,
    "max_cost_per_month": 90 * DOLLAR,
    "max_cost_per_call": DOLLAR,
    "requests_per_minute": 60_000,
    "tokens_per_minute": 10_000_000,
}


def workers(process: Any) -> list[int]:
    """The pids of a server's workers."""
    master = process.process.pid
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def streams(process: Any, token: str, model: str, count: int) -> list[Stream]:
    """So many open streams."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: Caller(process, token).stream(model, max_tokens=100), range(count)))


def assert_settled(grant: Grant) -> None:
    assert_books_balance(grant)
    allowance = Allowance.objects.get(grant=grant)
    assert (allowance.in_flight, allowance.reserved, allowance.day_reserved, allowance.month_reserved) == (0, 0, 0, 0)


def silence(*spared: Any) -> None:
    """As if these workers alone had a heartbeat."""
    Worker.objects.exclude(pk__in=spared).update(seen_at=0)


@pytest.fixture(scope="module")
def _two_workers(django_db_setup: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Connected by a name of their own."""
    with server(tmp_path_factory.mktemp("two") / "log", WEB_CONCURRENCY="2", PGAPPNAME="two_workers") as process:
        yield process


@pytest.fixture
def two_workers(_two_workers: Any, servers: Any) -> Any:
    """One server; a worker that is killed is replaced by its master."""
    eventually(lambda: len(workers(_two_workers)) == 2)
    return _two_workers


def test_a_killed_workers_calls_are_charged_their_bounds_and_its_neighbours_go_on(two_workers: Any, issue: Any) -> None:
    grant, token = issue("openai", **ALL_LIMITS)
    price(PER_TOKEN)
    opened: list[Stream] = []
    while len(by_worker := Counter(Call.objects.values_list("worker", flat=True))) < 2:
        assert len(opened) < 80
        opened += streams(two_workers, token, "fake-paced", 8)
    reserved = Allowance.objects.get(grant=grant).reserved
    assert reserved == sum(Call.objects.values_list("reserved", flat=True)) > 0
    os.kill(workers(two_workers)[0], signal.SIGKILL)
    with ThreadPoolExecutor(len(opened)) as pool:
        finished = sum(pool.map(Stream.ends, opened))
    left = eventually(lambda: Call.objects.open().count() == len(opened) - finished and Call.objects.open())
    assert 0 < finished < len(opened)
    dead = left.values_list("worker", flat=True)[0]
    assert by_worker[dead] == len(left)
    assert ledger.reap(lost_after=60) == 0
    silence(*(worker for worker in by_worker if worker != dead))
    assert ledger.reap(lost_after=60) == by_worker[dead]
    for call in Call.objects.filter(worker=dead):
        assert (call.outcome, call.cost, call.estimated) == ("lost", call.reserved, True)
    assert set(Call.objects.exclude(worker=dead).values_list("outcome", flat=True)) == {"ok"}
    assert ledger.reap(lost_after=60) == 0
    assert_settled(grant)
    assert Caller(two_workers, token).ask(max_tokens=10).status == 200


def test_when_all_workers_are_killed_nothing_stays_reserved(transactional_db: Any, issue: Any, tmp_path: Path) -> None:
    grant, token = issue("openai", **ALL_LIMITS)
    price(PER_TOKEN)
    with server(tmp_path / "log", WEB_CONCURRENCY="2") as process:
        opened = streams(process, token, "fake-silent", 8)
        bounds = sum(Call.objects.values_list("reserved", flat=True))
        process.kill()
    assert not any(map(Stream.ends, opened))
    allowance = Allowance.objects.get(grant=grant)
    assert (allowance.in_flight, allowance.reserved, allowance.spent) == (8, bounds, 0)
    silence()
    assert ledger.reap(lost_after=60) == 8
    assert ledger.reap(lost_after=60) == 0
    assert Allowance.objects.get(grant=grant).spent == bounds
    assert_settled(grant)


def test_workers_killed_again_and_again_under_a_crowd_take_no_budget_beyond_its_cap(
    two_workers: Any, issue: Any
) -> None:
    """Whatever moment the kill finds a call at, it is admitted, sent and settled at most once."""
    cap = DOLLAR // 2
    grant, token = issue("openai", max_cost=cap, max_requests=5000)
    price(PER_TOKEN)
    until = time.monotonic() + 4
    killed_at, beyond = [0], []  # how many calls there were

    def look() -> None:
        allowance = Allowance.objects.get(grant=grant)
        beyond.append(allowance.spent + allowance.reserved - cap)
        calls = Call.objects.count()
        if time.monotonic() < until and calls > killed_at[-1] + 40:
            killed_at.append(calls)
            with suppress(ProcessLookupError, IndexError):
                os.kill(workers(two_workers)[0], signal.SIGKILL)

    def work(number: int) -> list[Said]:
        caller, said = Caller(two_workers, token), []
        while time.monotonic() < until:
            said.append(caller.ask(max_tokens=200))
            if said[-1].status != 200:
                time.sleep(0.1)
        return said

    said = [answer for answers in crowd(16, work, look) for answer in answers]
    assert max(beyond) <= 0
    assert len(killed_at) > 2
    assert any(answer.status == 0 for answer in said)
    eventually(lambda: not Call.objects.open().exclude(worker__in=Worker.objects.values("pk")).exists())
    silence()
    ledger.reap(lost_after=60)
    passed = sum(answer.status == 200 for answer in said)
    assert Call.objects.filter(outcome="ok").count() >= passed > 0
    assert Call.objects.filter(outcome="ok").count() <= passed + sum(answer.status == 0 for answer in said)
    assert_settled(grant)


def test_a_worker_that_was_only_frozen_replaces_the_reapers_charge(server: Any, issue: Any) -> None:
    grant, token = issue("openai", **ALL_LIMITS)
    price(PER_TOKEN)
    (opened,) = streams(server, token, "fake-goes-on", 1)
    (pid,) = workers(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        # A heartbeat may be on its way to the database as its worker stops.
        eventually(lambda: silence() or ledger.reap(lost_after=60) or Call.objects.filter(outcome="lost").exists())
        lost = Call.objects.get()
        assert (lost.outcome, lost.cost) == ("lost", lost.reserved)
        assert_settled(grant)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert opened.ends()
    call = eventually(lambda: Call.objects.filter(outcome="ok").first())
    assert 0 < call.cost < lost.cost
    assert Allowance.objects.get(grant=grant).spent == call.cost
    assert_settled(grant)


def test_a_database_that_breaks_off_its_connections_loses_no_settlement(two_workers: Any, issue: Any) -> None:
    """In the middle of streams, and of admissions and settlements."""
    if connection.vendor != "postgresql":
        return  # SQLite has no connection that could break
    grant, token = issue("openai", **ALL_LIMITS)
    price(PER_TOKEN)
    opened = streams(two_workers, token, "fake-paced", 8)
    until, broken = time.monotonic() + 2, [0]

    def look() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'two_workers'"
            )
            broken[0] += cursor.fetchone()[0]
        time.sleep(0.05)

    def work(number: int) -> list[Said]:
        if number < len(opened):
            assert opened[number].ends()
            return []
        caller, said = Caller(two_workers, token), []
        while time.monotonic() < until:
            said.append(caller.ask(max_tokens=200))
        return said

    said = [answer for answers in crowd(16, work, look) for answer in answers]
    assert broken[0] > 10
    eventually(lambda: not Call.objects.open().exists(), within=10)
    outcomes = Counter(Call.objects.values_list("outcome", flat=True))
    passed = sum(answer.status == 200 for answer in said)
    assert passed > 0
    assert outcomes.pop("ok") == passed + len(opened)
    assert set(outcomes) <= {"lost"}  # admitted behind a connection that broke: nothing was sent, nothing charged
    assert sum(Call.objects.filter(outcome="lost").values_list("cost", flat=True)) == 0
    assert {answer.status for answer in said} <= {200, 503}
    assert_settled(grant)
