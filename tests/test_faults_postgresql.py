"""PostgreSQL goes away under load, comes back, is slow: calls are refused clearly, none goes unaccounted, all recovers.

On a server of the tests' own, so that it can be killed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from .callers import Caller, Said, Stream
from .clusters import Cluster
from .instances import Instance
from .live import eventually, server
from .metrics import TOKEN, scrape

pytestmark = pytest.mark.live

LIMITS = ("--max-cost=100", "--max-requests=100000", "--max-concurrency=500")


def streams(process: Any, token: str, count: int, chunks: int) -> list[Stream]:
    with ThreadPoolExecutor(count) as pool:
        ask = lambda _: Caller(process, token).stream("fake-goes-on", max_tokens=chunks)  # noqa: E731
        return list(pool.map(ask, range(count)))


class Load:
    """Callers that ask again and again until they are told to stop."""

    def __init__(self, process: Any, token: str, count: int) -> None:
        self.said: list[Said] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(process, token)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, process: Any, token: str) -> None:
        caller = Caller(process, token)
        while not self._stop.is_set():
            self.said.append(caller.ask(max_tokens=50))
            if self.said[-1].status != 200:
                time.sleep(0.1)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def passed(self, *, after: float) -> list[Said]:
        return [said for said in list(self.said) if said.status == 200 and said.sent > after]


def open_calls(postgresql: Cluster, grant: str) -> int:
    return int(
        postgresql.query(f"SELECT count(*) FROM grants_call WHERE grant_id='{grant}' AND finished_at IS NULL")[0][0]
    )


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_database_restarted_under_load_costs_refusals_and_nothing_else(
    postgresql: Cluster, instance: Instance, upstream: Any, tmp_path: Path, mode: str
) -> None:
    """``immediate`` is a crash: it comes back from its log of writes."""
    grant, token = instance.grant(*LIMITS)
    with server(tmp_path / "log", **instance.env, WEB_CONCURRENCY="2", AIPASSPORT_DATABASE_POOL_TIMEOUT="1") as process:
        before = len(upstream.seen)
        opened = streams(process, token, 8, chunks=140)  # seven seconds
        load = Load(process, token, 12)
        time.sleep(1)
        postgresql.stop(mode)
        gone = time.monotonic()
        time.sleep(2)
        assert not load.passed(after=gone)
        postgresql.start()
        back = time.monotonic()
        first = eventually(lambda: load.passed(after=gone), within=6)[0]
        with ThreadPoolExecutor(len(opened)) as pool:
            assert all(pool.map(Stream.ends, opened))
        load.stop()
        assert first.received - back < 5
        eventually(lambda: not open_calls(postgresql, grant), within=15)
        assert process.process.poll() is None
    answers = Counter(said.status for said in load.said)
    assert set(answers) == {200, 503}
    refused = [said for said in load.said if said.status == 503]
    assert {(said.code, said.retry_after > 0) for said in refused} == {("unavailable", True)}
    assert max(said.received - said.sent for said in refused) < 4
    rows = postgresql.query(f"SELECT outcome, count(*), sum(cost) FROM grants_call WHERE grant_id='{grant}' GROUP BY 1")
    outcomes = {outcome: (count, cost) for outcome, count, cost in rows}
    assert outcomes.pop("ok")[0] == answers[200] + len(opened) == len(upstream.seen) - before
    assert set(outcomes) <= {"lost"}  # admitted behind a connection that broke: nothing was sent, nothing charged
    assert not outcomes or outcomes["lost"][1] == 0
    instance.assert_books_balance()


def assert_refused_until_later(process: Any, token: str) -> None:
    """Whatever is asked for, and in whichever dialect: a 503 that tells when to come again."""
    said = {"messages": [{"role": "user", "content": "x"}]}
    bearer = {"authorization": f"Bearer {token}"}
    asked: list[tuple[str, str, dict[str, str], Any]] = [
        ("POST", "/proxy/v1/chat/completions", bearer, {"model": "fake-metered", "stream": True, **said}),
        ("POST", "/proxy/v1/embeddings", bearer, {"model": "fake-metered", "input": "x"}),
        ("POST", "/proxy/v1/messages", {"x-api-key": token}, {"model": "m", "max_tokens": 5, **said}),
        ("POST", "/proxy/v1beta/models/m:generateContent", {"x-goog-api-key": token}, {"contents": []}),
        ("GET", "/proxy/v1/models", bearer, None),
        ("POST", "/api/tokens/", {}, {"grant_type": "refresh_token", "refresh_token": "x" * 43}),
        ("POST", "/api/tokens/introspect/", {}, {"token": token}),
    ]
    for method, path, headers, body in asked:
        answer = requests.request(method, f"{process.url}{path}", json=body, headers=headers, timeout=10)
        assert answer.status_code == 503, path
        assert int(answer.headers["retry-after"]) > 0, path
        assert answer.json()["error"], path
    ready = requests.get(f"{process.url}/ready", timeout=10)
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "failed")
    assert requests.get(f"{process.url}/health", timeout=10).status_code == 200


def test_settlements_that_the_database_refused_are_made_good_when_it_is_back(
    postgresql: Cluster, instance: Instance, upstream: Any, tmp_path: Path
) -> None:
    """Streams that end while it is away come through to their end; what they cost is charged later, not their bound."""
    grant, token = instance.grant(*LIMITS)
    env = instance.env | {"AIPASSPORT_DATABASE_POOL_TIMEOUT": "0.5", "AIPASSPORT_METRICS_TOKEN": TOKEN}
    with server(tmp_path / "log", **env) as process:
        opened = streams(process, token, 6, chunks=30)
        before = len(upstream.seen)
        postgresql.stop("immediate")
        try:
            with ThreadPoolExecutor(len(opened)) as pool:
                assert all(pool.map(Stream.ends, opened))
            found = eventually(lambda: (seen := scrape(process))("aipassport_unsettled_calls") == 6 and seen)
            assert found("aipassport_database_up") == 0
            assert_refused_until_later(process, token)
            assert len(upstream.seen) == before
        finally:
            postgresql.start()
        eventually(lambda: not open_calls(postgresql, grant), within=8)
        eventually(lambda: scrape(process)("aipassport_unsettled_calls") == 0)
        assert Caller(process, token).ask(max_tokens=50).status == 200
    rows = postgresql.query(f"SELECT outcome, cost, reserved FROM grants_call WHERE grant_id='{grant}'")
    assert [outcome for outcome, _, _ in rows] == ["ok"] * 7
    assert all(0 < cost < reserved for _, cost, reserved in rows)
    instance.assert_books_balance()


def test_a_short_restart_between_calls_costs_none(postgresql: Cluster, instance: Instance, tmp_path: Path) -> None:
    """Every pooled connection is dead then; the next call meets a new one."""
    _, token = instance.grant()
    with server(tmp_path / "log", **instance.env) as process:
        with ThreadPoolExecutor(8) as pool:
            said = list(pool.map(lambda _: Caller(process, token).ask(), range(16)))
        postgresql.stop()
        postgresql.start()
        said += [Caller(process, token).ask() for _ in range(8)]
    assert {one.status for one in said} == {200}
    assert max(one.received - one.sent for one in said[16:]) < 2.5


@contextmanager
def held(postgresql: Cluster, grant: str) -> Iterator[None]:
    """Somebody else has the grant's counted row."""
    with psycopg.connect(postgresql.url) as foreign:
        foreign.execute("SELECT 1 FROM grants_allowance WHERE grant_id = %s FOR UPDATE", [grant])
        yield


def test_who_waits_for_a_connection_too_long_is_refused_and_told_to_come_again(
    postgresql: Cluster, instance: Instance, upstream: Any, tmp_path: Path
) -> None:
    hot, hot_token = instance.grant()
    _, other = instance.grant()
    pool = {"AIPASSPORT_DATABASE_POOL_SIZE": "1", "AIPASSPORT_DATABASE_POOL_TIMEOUT": "0.5"}
    with server(tmp_path / "log", **instance.env, **pool) as process:
        assert Caller(process, other).ask().status == 200
        before = len(upstream.seen)
        with held(postgresql, hot):
            waiting = threading.Thread(target=Caller(process, hot_token).ask)
            waiting.start()
            time.sleep(0.3)
            refused = Caller(process, other).ask()
            assert (refused.status, refused.code, refused.retry_after > 0) == (503, "unavailable", True)
            assert refused.received - refused.sent < 1.5
            assert len(upstream.seen) == before
        waiting.join(10)
        assert Caller(process, other).ask().status == 200
        assert len(upstream.seen) == before + 2


def test_a_row_that_somebody_holds_keeps_no_call_waiting_for_ever(
    postgresql: Cluster, instance: Instance, upstream: Any, tmp_path: Path
) -> None:
    """The statement ends at the server's timeout; a command, in the same environment, waits."""
    grant, token = instance.grant()
    env = instance.env | {"AIPASSPORT_STATEMENT_TIMEOUT": "1"}
    with server(tmp_path / "log", **env) as process:
        assert Caller(process, token).ask().status == 200
        before = len(upstream.seen)
        with held(postgresql, grant):
            refused = Caller(process, token).ask()
            assert (refused.status, refused.code, refused.retry_after > 0) == (503, "unavailable", True)
            assert 0.9 < refused.received - refused.sent < 3
            assert len(upstream.seen) == before
            revoking = threading.Thread(target=instance.manage, args=("revoke", grant))
            revoking.start()
            revoking.join(3)
            assert revoking.is_alive()
        revoking.join(10)
        assert Caller(process, token).ask().status == 401
    instance.assert_books_balance()
