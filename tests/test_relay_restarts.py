"""Restarts, crashes and locks: nothing stays open, nothing is lost, streams go on."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
from django.db import connection, transaction

from grants import ledger
from grants.models import Allowance, Call, Worker

from .callers import Caller
from .live import eventually, server
from .test_relay import chat
from .test_relay_streams import openai_client

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


def test_a_restart_lets_streams_finish_and_ends_the_rest_with_an_error(issue: Any, tmp_path: Path) -> None:
    _, token = issue("openai")
    with server(tmp_path / "log", AIPASSPORT_GRACEFUL_TIMEOUT="6") as process:
        client = openai_client(process, token)
        short, long = (
            client.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], stream=True)
            for model in ("fake-paced", "fake-silent")
        )
        next(short), next(long)
        begun = time.monotonic()
        stopping = threading.Thread(target=process.stop)
        stopping.start()
        assert len(list(short)) == 19
        with pytest.raises(openai.APIError, match="restarting"):
            next(long)
        assert 2 < time.monotonic() - begun < 6
        stopping.join(15)
        assert process.process.returncode == 0
    outcomes = set(Call.objects.values_list("model", "outcome"))
    assert outcomes == {("fake-paced", "ok"), ("fake-silent", "drained")}
    assert Allowance.objects.get().in_flight == 0


def test_a_killed_workers_calls_are_reaped_and_the_counters_equal_the_ledger(issue: Any, tmp_path: Path) -> None:
    grant, token = issue("openai")
    with server(tmp_path / "log") as process:
        answer = chat(process, token, "fake-silent", stream=True)
        next(answer.iter_content(10))
        process.kill()
    assert Allowance.objects.get(grant=grant).in_flight == 1
    assert ledger.reap(lost_after=60) == 0
    Worker.objects.update(seen_at=0)
    assert ledger.reap(lost_after=60) == 1
    allowance = Allowance.objects.get(grant=grant)
    assert (allowance.in_flight, allowance.reserved, allowance.requests) == (0, 0, 1)
    assert Call.objects.get().outcome == "lost"


def test_another_worker_reaps_without_being_asked(servers: Any, issue: Any, tmp_path: Path) -> None:
    _, token = issue("openai")
    with server(tmp_path / "log") as process:
        next(chat(process, token, "fake-silent", stream=True).iter_content(10))
        process.kill()
    Worker.objects.update(seen_at=0)  # the live ones beat again within seconds
    assert chat(servers[0], token, "gpt-4o").status_code
    eventually(lambda: Call.objects.filter(outcome="lost").exists(), within=45)


def test_five_hundred_open_streams_hold_no_database_connection(issue: Any, tmp_path: Path) -> None:
    """They were admitted through a pool of four, of which they keep none; calls still go through as ever."""
    _, token = issue("openai")
    env = {"AIPASSPORT_DATABASE_POOL_SIZE": "4", "PGAPPNAME": "five_hundred", "LOG_LEVEL": "INFO"}
    with server(tmp_path / "log", **env) as process, ThreadPoolExecutor(50) as pool:
        streams = list(pool.map(lambda _: Caller(process, token).stream("fake-silent"), range(500)))
        assert Call.objects.open().count() == 500
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity "
                    "WHERE application_name = 'five_hundred'"
                )
                lent, busy = cursor.fetchone()
                assert 1 <= lent <= 4
                assert busy <= 1  # the ticker's
        begun = time.monotonic()
        assert chat(process, token, "sandbox-1").status_code == 200
        assert time.monotonic() - begun < 2
        for stream in streams:
            stream.leave()
        eventually(lambda: not Call.objects.open().exists(), within=20)
    assert set(Call.objects.values_list("outcome", flat=True)) == {"client_gone", "ok"}


def test_a_foreign_lock_freezes_no_stream(server: Any, issue: Any) -> None:
    """Somebody holds SQLite's write lock: a running stream goes on, a new call waits and then passes."""
    if connection.vendor != "sqlite":
        return  # PostgreSQL has no lock on the whole database
    _, token = issue("openai")
    stream = chat(server, token, "fake-paced", stream=True)
    chunks = stream.iter_content(None)
    next(chunks)
    answers: list[Any] = []
    waiting = threading.Thread(target=lambda: answers.append(chat(server, token, "sandbox-1")))
    with transaction.atomic():
        Worker.objects.create(id="00000000-0000-0000-0000-000000000001", seen_at=0)
        waiting.start()
        gaps, last = [], time.monotonic()
        for _ in range(12):
            next(chunks)
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        assert not answers
    assert max(gaps) < 0.3
    waiting.join(10)
    assert answers[0].status_code == 200
