"""Metrics: right over several workers, guarded, few in number whatever callers send."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import requests
from django.db import connection
from django.test import Client

from grants import statements
from grants.models import Call
from proxy.telemetry import gauges, metrics
from proxy.telemetry.names import LIMIT, OTHER

from .callers import Caller, crowd
from .conftest import CANARY
from .live import ROOT, eventually, server
from .metrics import TOKEN, bearer, folder_of, kill_worker, scrape, scraped, workers_of
from .test_limits_live import PER_TOKEN, price
from .test_relay import chat

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

NOWHERE = "postgres://nobody@127.0.0.1:9/nothing"


@pytest.fixture
def two_workers(tmp_path: Path, transactional_db: Any) -> Iterator[Any]:
    with server(tmp_path / "log", AIPASSPORT_METRICS_TOKEN=TOKEN, WEB_CONCURRENCY="2") as running:
        eventually(lambda: scrape(running)("aipassport_workers") == 2, within=20)
        yield running


def test_a_worker_that_has_only_just_come_breaks_no_scrape(two_workers: Any) -> None:
    """Its file is there a moment before anything is in it."""
    (folder_of(two_workers) / "counter_999999.db").touch()
    assert scrape(two_workers)("aipassport_workers") == 2


def test_calls_of_all_workers_are_counted_whichever_answers(two_workers: Any, issue: Any) -> None:
    _, token = issue("sandbox")
    crowd(16, lambda _: [Caller(two_workers, token).ask("sandbox-1") for _ in range(5)])
    used = set(Call.objects.values_list("worker", flat=True))
    assert len(used) == 2, "both workers had calls"

    def counted() -> bool:
        found = scrape(two_workers)
        return found("aipassport_calls_total", provider="sandbox", model="sandbox-1", outcome="ok") == 80

    eventually(counted)
    for _ in range(10):
        found = scrape(two_workers)
        assert counted()
        tokens = found("aipassport_tokens_total", provider="sandbox", model="sandbox-1", kind="input")
        assert tokens == sum(Call.objects.values_list("input_tokens", flat=True))
        assert found("aipassport_added_seconds_count") == 80
        assert found("aipassport_first_byte_seconds_count", provider="sandbox", stream="false") == 80


def test_what_a_call_cost_is_counted_in_dollars(two_workers: Any, issue: Any) -> None:
    _, token = issue("openai")
    price(PER_TOKEN)
    assert Caller(two_workers, token).ask("fake-metered", max_tokens=500).status == 200
    cost = Call.objects.get().cost
    assert cost
    found = eventually(lambda: (seen := scrape(two_workers)).total("aipassport_cost_dollars_total") and seen)
    assert found("aipassport_cost_dollars_total", provider="openai", model="fake-metered") == pytest.approx(cost / 1e9)


def test_the_broker_s_time_and_the_provider_s_are_told_apart(two_workers: Any, issue: Any) -> None:
    _, token = issue("openai")
    with pytest.raises(requests.ReadTimeout):
        requests.post(
            f"{two_workers.url}/proxy/v1/chat/completions",
            json={"model": "fake-mute", "stream": True, "messages": [{"role": "user", "content": "x"}]},
            headers={"authorization": f"Bearer {token}"},
            timeout=1.5,
        )
    assert chat(two_workers, token, "fake-paced", stream=True).content.endswith(b"[DONE]\n\n")
    found = eventually(lambda: (seen := scrape(two_workers)).total("aipassport_calls_total") == 2 and seen)
    assert found("aipassport_added_seconds_sum") < 1, "neither the provider's silence nor its pace"
    assert found("aipassport_calls_total", provider="openai", model="other", outcome="client_gone") == 1
    assert found("aipassport_first_byte_seconds_count", provider="openai", stream="true") == 1


def test_the_first_byte_is_counted_from_the_moment_the_call_was_sent(server: Any, issue: Any) -> None:
    """Also where the provider takes its time before the head of its answer, as it does for answers in one piece."""
    _, token = issue("openai")
    assert chat(server, token, "fake-metered").status_code == 200
    assert (Call.objects.get().first_byte_us or 0) >= 10_000


def test_refusals_are_counted_by_their_code(two_workers: Any, issue: Any) -> None:
    grant, token = issue("sandbox", models=("sandbox-1",), max_requests=1)
    assert chat(two_workers, token, "gpt-4o").status_code == 404
    assert chat(two_workers, token).status_code == 200
    assert [chat(two_workers, token).status_code for _ in range(2)] == [429, 429]
    assert chat(two_workers, "eyJ-no-token").status_code == 401

    def all_told() -> Any:  # each worker tells its part twice a second
        seen = scrape(two_workers)
        told = seen.total("aipassport_refusals_total") >= 4 and seen.total("aipassport_calls_total") >= 1
        return seen if told else None

    found = eventually(all_told)
    assert found.total("aipassport_refusals_total") == 4
    assert found("aipassport_refusals_total", code="model_not_granted") == 1
    assert found("aipassport_refusals_total", code="request_limit_reached") == 2
    assert found("aipassport_refusals_total", code="invalid_token") == 1
    assert found.total("aipassport_calls_total") == 1, "a refusal is no call"
    assert str(grant.pk) not in found.text
    assert "Notebook" not in found.text


def test_open_streams_and_what_is_reserved_for_them_are_shown(two_workers: Any, issue: Any) -> None:
    _, token = issue("openai", max_cost=10_000_000_000)
    price(PER_TOKEN)
    held = [Caller(two_workers, token).stream("fake-silent", max_tokens=1000) for _ in range(4)]
    reserved = sum(Call.objects.values_list("reserved", flat=True))
    assert reserved
    found = eventually(lambda: (seen := scrape(two_workers))("aipassport_open_streams") == 4 and seen)
    assert found("aipassport_open_calls") == found("aipassport_ledger_open_calls") == 4
    assert found("aipassport_reserved_dollars") == pytest.approx(reserved / 1e9)
    for stream in held:
        stream.leave()
    eventually(lambda: scrape(two_workers)("aipassport_open_streams") == 0)
    assert scrape(two_workers)("aipassport_reserved_dollars") == 0


def test_a_worker_that_dies_takes_its_gauges_with_it_and_leaves_its_counts(two_workers: Any, issue: Any) -> None:
    _, token = issue("openai")
    _, free = issue("sandbox")
    crowd(8, lambda _: Caller(two_workers, free).ask("sandbox-1"))
    streams = [Caller(two_workers, token).stream("fake-silent") for _ in range(6)]
    eventually(lambda: scrape(two_workers)("aipassport_open_streams") == 6)
    eventually(lambda: scrape(two_workers).total("aipassport_calls_total") == 8)
    before = workers_of(two_workers)
    for pid in before:
        kill_worker(two_workers, pid)
    eventually(lambda: len(workers_of(two_workers)) == 2 and not set(before) & set(workers_of(two_workers)), within=20)
    found = eventually(lambda: (seen := scraped(two_workers)) and seen("aipassport_workers") == 2 and seen, within=20)
    assert found("aipassport_open_streams") == found("aipassport_open_calls") == 0
    assert found.total("aipassport_calls_total") == 8
    assert found("aipassport_added_seconds_count") == 8
    crowd(8, lambda _: Caller(two_workers, free).ask("sandbox-1"))
    eventually(lambda: scrape(two_workers).total("aipassport_calls_total") == 16)
    files = sorted(file.name for file in folder_of(two_workers).glob("*.db"))
    assert not [name for name in files for pid in before if str(pid) in name], files
    assert len(streams) == 6


def test_the_last_half_second_before_a_restart_is_counted_too(two_workers: Any, issue: Any) -> None:
    _, token = issue("sandbox")
    before = workers_of(two_workers)
    crowd(8, lambda _: Caller(two_workers, token).ask("sandbox-1"))
    two_workers.process.send_signal(signal.SIGHUP)  # new workers, the old ones end in peace
    eventually(lambda: not set(before) & set(workers_of(two_workers)), within=30)
    found = eventually(lambda: scraped(two_workers), within=20)
    assert found.total("aipassport_calls_total") == 8


def test_a_server_that_ends_leaves_no_folder_behind(tmp_path: Path) -> None:
    with server(tmp_path / "log", AIPASSPORT_METRICS_TOKEN=TOKEN) as running:
        folder = folder_of(running)
        assert folder.stat().st_mode & 0o777 == 0o700
        running.stop()
        assert not folder.exists()


def test_a_server_sweeps_out_what_killed_ones_left_behind_and_nothing_of_the_living(tmp_path: Path) -> None:
    with server(tmp_path / "1", AIPASSPORT_METRICS_TOKEN=TOKEN) as killed:
        left = folder_of(killed)
        with server(tmp_path / "2", AIPASSPORT_METRICS_TOKEN=TOKEN) as living:
            assert left.exists()
            killed.kill()
            with server(tmp_path / "3", AIPASSPORT_METRICS_TOKEN=TOKEN):
                assert not left.exists()
                assert folder_of(living).exists()
                assert scrape(living)("aipassport_workers") == 1


def test_models_are_few_and_made_up_ones_are_not_among_them(two_workers: Any, issue: Any) -> None:
    _, token = issue("openai")
    crowd(8, lambda who: [Caller(two_workers, token).ask(f"any-{who}-{turn}") for turn in range(LIMIT // 4)])
    for name in ("fake-html-error", "gpt-made-up"):
        assert Caller(two_workers, token).ask(name).status != 200
    calls = Call.objects.count()
    assert calls == 8 * (LIMIT // 4) + 2 > LIMIT + 2
    found = eventually(lambda: (seen := scrape(two_workers)).total("aipassport_calls_total") == calls and seen)
    names = found.labels("aipassport_calls_total", "model")
    assert len(names) == LIMIT + 1, "of both workers together"
    assert {name.partition("-")[0] for name in names} == {"any", OTHER}


def test_a_credential_in_place_of_a_model_is_no_label(two_workers: Any, issue: Any) -> None:
    """Even where the provider answers with success, as one's own model server does to any name."""
    _, token = issue("openai")
    assert chat(two_workers, token, f"any-{CANARY}").status_code == 200
    found = eventually(lambda: (seen := scrape(two_workers)).total("aipassport_calls_total") == 1 and seen)
    assert CANARY not in found.text
    assert found("aipassport_calls_total", provider="openai", model="any-…", outcome="ok") == 1


def test_scrapes_answer_while_the_database_does_not(tmp_path: Path, transactional_db: Any) -> None:
    with server(tmp_path / "log", AIPASSPORT_METRICS_TOKEN=TOKEN) as running:
        assert scrape(running)("aipassport_database_up") == 1
        assert scrape(running)("aipassport_notices_due") == 0
    with server(tmp_path / "log", AIPASSPORT_METRICS_TOKEN=TOKEN, DATABASE_URL=NOWHERE) as running:
        begun = time.monotonic()
        found = scrape(running)
        assert time.monotonic() - begun < 5
    assert found("aipassport_database_up") == 0
    assert found("aipassport_workers") == 1


def test_the_tickers_age_and_the_database_s_connections_are_shown(two_workers: Any, issue: Any) -> None:
    _, token = issue("sandbox")
    assert chat(two_workers, token).status_code == 200
    found = eventually(lambda: (seen := scrape(two_workers)).total("aipassport_calls_total") == 1 and seen)
    assert 0 <= found("aipassport_ticker_age_seconds") < 3
    assert found("aipassport_unsettled_calls") == 0
    if connection.vendor == "postgresql":
        assert found("aipassport_pool_connections") >= 2
        assert found("aipassport_pool_requests_total") > 2
        assert found("aipassport_pool_waiting") == 0
        statements = found("aipassport_lanes_statements_total")
        assert statements >= 2  # admission and settlement; the policy may have gone with the look for its signing key
        assert found("aipassport_lanes_transactions_total") == statements
        assert found("aipassport_lanes_waiting") == 0
    else:
        assert found("aipassport_sqlite_jobs_total") >= 2  # admission, settlement, heartbeats
        assert found("aipassport_sqlite_commits_total") >= 2
        assert found("aipassport_sqlite_waiting") == 0


@pytest.mark.django_db
def test_what_a_scrape_asks_the_ledger_is_led_by_the_index_of_open_calls() -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # the table is empty
        explain = "EXPLAIN" if connection.vendor == "postgresql" else "EXPLAIN QUERY PLAN"
        assert "call_open" in str(cursor.execute(f"{explain} {statements.OUTSTANDING}").fetchall())


def test_every_metric_is_in_the_operators_table() -> None:
    table = (ROOT / "docs/operations.md").read_text()
    for family in metrics._registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert f"`{name}`" in table or name == gauges.TICKED_AT, name
    assert all(f"`{name}`" in table for name in gauges.OF_DATABASE)


# Who may read them


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN + "x", "ü" * 20])
def test_a_scrape_without_the_token_learns_nothing(two_workers: Any, token: str) -> None:
    headers = {"authorization": f"Bearer {token}".encode()} if token else {}
    answer = requests.get(f"{two_workers.url}/metrics", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert "aipassport_" not in answer.text
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_no_other_credential_opens_the_metrics_and_theirs_opens_nothing_else(two_workers: Any, issue: Any) -> None:
    _, token = issue("sandbox")
    assert requests.get(f"{two_workers.url}/metrics", headers=bearer(token), timeout=10).status_code == 401
    assert chat(two_workers, TOKEN).status_code == 401
    assert requests.get(f"{two_workers.url}/api/grants/", headers=bearer(TOKEN), timeout=10).status_code == 401


def test_without_a_guard_there_are_no_metrics(server: Any) -> None:
    assert requests.get(f"{server.url}/metrics", timeout=10).status_code == 404
    assert requests.get(f"{server.url}/metrics", headers=bearer(TOKEN), timeout=10).status_code == 404


class TestByAddress:
    """Guard alone: no process is needed for it."""

    @pytest.fixture(autouse=True)
    def _guard(self, settings: Any) -> None:
        settings.AIPASSPORT_METRICS = True
        settings.AIPASSPORT_METRICS_TOKEN = ""
        settings.AIPASSPORT_METRICS_ADDRESSES = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]

    def status(self, address: str, **more: str) -> int:
        return Client().get("/metrics", REMOTE_ADDR=address, **more).status_code

    def test_only_the_networks_of_the_list_find_them(self) -> None:
        assert [self.status(a) for a in ("10.1.2.3", "fd00::1", "::ffff:10.0.0.9")] == [200, 200, 200]
        assert [self.status(a) for a in ("11.0.0.1", "192.0.2.1", "::1", "", "nonsense")] == [404] * 5

    def test_behind_a_trusted_proxy_the_address_is_the_one_that_it_saw(self, settings: Any) -> None:
        settings.TRUST_PROXY = True
        assert self.status("127.0.0.1", HTTP_X_FORWARDED_FOR="192.0.2.1, 10.0.0.9") == 200
        assert self.status("10.0.0.2", HTTP_X_FORWARDED_FOR="10.0.0.9, 192.0.2.1") == 404

    def test_behind_a_proxy_that_is_not_trusted_nobody_is_near(self, settings: Any) -> None:
        settings.TRUST_PROXY = False
        assert self.status("10.0.0.2", HTTP_X_FORWARDED_FOR="192.0.2.1") == 404
        assert self.status("10.0.0.2", HTTP_X_FORWARDED_FOR="10.0.0.9") == 404
        assert self.status("10.0.0.2", HTTP_FORWARDED="for=10.0.0.9") == 404

    def test_with_both_guards_both_are_asked(self, settings: Any) -> None:
        settings.AIPASSPORT_METRICS_TOKEN = TOKEN
        assert self.status("10.1.2.3") == 401
        assert self.status("10.1.2.3", HTTP_AUTHORIZATION=f"Bearer {TOKEN}") == 200
        assert self.status("192.0.2.1", HTTP_AUTHORIZATION=f"Bearer {TOKEN}") == 404
