"""Clients that leave before their answer has ended, at providers that go on and bill all of it."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from grants import ledger
from grants.models import Allowance, Call, Worker
from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects.base import UpstreamCall
from proxy.endings import Fate
from proxy.streaming import RelayedBody

from .answers import Wire
from .callers import Caller, assert_books_balance
from .live import Server, eventually, server
from .metrics import TOKEN, scrape, workers_of
from .test_limits_live import DOLLAR, INPUT, OUTPUT, PER_TOKEN, price
from .test_relay_streams import assert_nothing_open

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

BILLED_INPUT = 5  # tokens, by the provider that goes on


@pytest.fixture
def goes_on(issue: Any, upstream: Any) -> Any:
    """Grant and token, under a limit on money, on a key to a server of which nobody knows that it stops."""
    upstream.billed.clear()
    upstream.disconnected.clear()

    def make(provider: str = "custom", **limits: Any) -> Any:
        issued = issue(provider, base_url=upstream.url, **{"max_cost": DOLLAR} | limits)
        price(PER_TOKEN)
        return issued

    return make


def bill(output: int) -> int:
    return BILLED_INPUT * INPUT + output * OUTPUT


@contextmanager
def asked(process: Server, token: str, model: str, **more: Any) -> Iterator[socket.socket]:
    """A socket on which a call was sent; it is closed at the end."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "x"}], **more}).encode()
    head = f"POST /proxy/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", process.port), timeout=20) as client:
        client.sendall(head.encode() + body)
        yield client


def leave(process: Server, token: str, tokens: int, *, model: str = "fake-goes-on") -> None:
    """Ask for a stream, read the beginning of it, and go."""
    with asked(process, token, model, stream=True, max_tokens=tokens) as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 200")


def settled(count: int = 1, within: float = 10) -> list[Call]:
    eventually(lambda: Call.objects.exclude(finished_at=None).count() == count, within=within)
    return list(Call.objects.all())


def test_an_answer_that_is_billed_anyway_is_read_to_its_end_and_charged_by_its_report(
    server: Any, goes_on: Any, upstream: Any
) -> None:
    grant, token = goes_on()
    leave(server, token, 40)
    time.sleep(1)
    assert Call.objects.open().count() == 1
    assert Allowance.objects.get(grant=grant).in_flight == 1
    (call,) = settled()
    assert (call.outcome, call.cost, call.estimated) == ("client_gone", bill(40), False)
    assert (call.input_tokens, call.output_tokens) == (BILLED_INPUT, 40)
    assert not upstream.disconnected.is_set()
    assert_nothing_open(grant)
    assert_books_balance(grant)


@pytest.mark.parametrize("provider", sorted(set(PROVIDERS) - {"sandbox", "anthropic", "google"}))
def test_only_providers_that_are_documented_to_stop_are_left(
    server: Any, goes_on: Any, upstream: Any, provider: str
) -> None:
    """OpenRouter's documentation names them, under "Stream Cancellation"."""
    stops = {"openai", "azure", "fireworks", "together", "cohere", "xai", "deepseek"}
    needed = ("chat", "web") if provider == "perplexity" else ("chat",)
    _, token = goes_on(provider, max_cost=None, capabilities=needed)
    leave(server, token, 30)
    assert upstream.disconnected.wait(1.3) is (provider in stops)
    settled()


def test_the_column_is_true_where_it_is_documented() -> None:
    documented = {"openai", "azure", "anthropic", "fireworks", "together", "cohere", "xai", "deepseek", "sandbox"}
    assert {name for name, row in PROVIDERS.items() if row.stops_when_left} == documented


def test_the_client_s_connection_is_closed_at_once_while_the_answer_is_read_on(server: Any, goes_on: Any) -> None:
    """Its own half is closed; if the relay kept the other one, it would still get the answer."""
    _, token = goes_on()
    with asked(server, token, "fake-goes-on", stream=True, max_tokens=60) as client:
        client.recv(1000)
        client.shutdown(socket.SHUT_WR)
        begun = time.monotonic()
        while client.recv(65536):
            pass
        assert time.monotonic() - begun < 1.5
        assert Call.objects.open().count() == 1
    (call,) = settled()
    assert (call.outcome, call.cost) == ("client_gone", bill(60))


@pytest.mark.parametrize("provider", ["custom", "openai"])
def test_an_answer_that_is_not_streamed_is_read_to_its_end_though_nobody_waits(
    server: Any, goes_on: Any, provider: str
) -> None:
    """No provider is documented to stop making one."""
    grant, token = goes_on(provider)
    with asked(server, token, "fake-slow", max_tokens=2):
        eventually(lambda: Call.objects.open().exists())
        time.sleep(0.3)
    (call,) = settled()
    assert (call.outcome, call.estimated) == ("client_gone", False)
    assert 0 < call.cost <= call.reserved
    assert call.cost == call.input_tokens * INPUT + call.output_tokens * OUTPUT
    assert_books_balance(grant)


def stall(process: Server, token: str, seconds: float) -> socket.socket:
    """Ask a provider that stops when it is left, take the beginning of its answer, then nothing for a while."""
    body = {"model": "gpt-4o", "user": "fake-hurries", "stream": True, "max_tokens": 400}
    body["messages"] = [{"role": "user", "content": "x"}]
    data = json.dumps(body).encode()
    head = f"POST /proxy/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", process.port))
    client.sendall(head.encode() + data)
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    time.sleep(seconds)
    return client


def test_a_client_that_takes_nothing_and_leaves_is_charged_what_was_made_meanwhile(server: Any, goes_on: Any) -> None:
    """The provider makes its answer as fast as it can, whatever the client has taken of it."""
    grant, token = goes_on("openai")
    price({**PER_TOKEN, "models": "gpt-4o"})
    stall(server, token, 1.5).close()
    (call,) = settled()
    assert (call.outcome, call.cost, call.estimated) == ("client_gone", bill(400), False)
    assert_books_balance(grant)


def test_a_client_that_takes_a_little_after_a_pause_has_not_caught_up() -> None:
    """The relay waits for the network then, not for the provider, which has made much more."""
    fate, now = Fate(), time.monotonic()
    fate.level_at = now - 2
    body = RelayedBody(
        cast(Any, Wire([b"data: x\n\n"], "text/event-stream")),
        dialects.observer(UpstreamCall("openai.chat", "POST", "/", flavor="chat")),
        fate,
        finish=lambda ending: None,
        error_event=lambda error: b"",
    )
    next(body)
    fate.level_at = time.monotonic()
    assert fate.is_behind


def test_a_client_that_takes_nothing_and_is_revoked_is_charged_its_limit(server: Any, goes_on: Any, by: Any) -> None:
    grant, token = goes_on("openai")
    price({**PER_TOKEN, "models": "gpt-4o"})
    with stall(server, token, 1.5):
        grant.revoke(by)
        (call,) = settled()
    assert (call.outcome, call.cost, call.estimated) == ("revoked", call.reserved, True)
    assert call.cost >= bill(400)
    assert_books_balance(grant)


def test_a_call_that_is_read_on_counts_against_the_concurrency(server: Any, goes_on: Any) -> None:
    _, token = goes_on(max_concurrency=1)
    leave(server, token, 40)
    time.sleep(0.8)
    assert Caller(server, token).ask("fake-metered", max_tokens=50).status == 429
    settled()
    assert Caller(server, token).ask("fake-metered", max_tokens=50).status == 200


def test_a_revocation_ends_the_reading_and_charges_the_limit(server: Any, goes_on: Any, upstream: Any, by: Any) -> None:
    grant, token = goes_on()
    leave(server, token, 400)
    time.sleep(0.8)
    grant.revoke(by)
    assert upstream.disconnected.wait(2)
    (call,) = settled(within=3)
    assert (call.outcome, call.cost, call.estimated) == ("client_gone", call.reserved, True)
    assert call.cost >= bill(400)
    assert_books_balance(grant)


def test_a_revocation_with_the_client_still_there_charges_the_limit_too(server: Any, goes_on: Any, by: Any) -> None:
    """The provider goes on all the same."""
    grant, token = goes_on()
    with asked(server, token, "fake-goes-on", stream=True, max_tokens=400) as client:
        client.recv(1000)
        grant.revoke(by)
        (call,) = settled(within=3)
    assert (call.outcome, call.cost, call.estimated) == ("revoked", call.reserved, True)
    assert_books_balance(grant)


def test_a_provider_that_stops_is_left_at_once_and_may_have_made_all_that_the_limit_allows(
    server: Any, goes_on: Any, upstream: Any
) -> None:
    _, token = goes_on("openai")
    leave(server, token, 400)
    assert upstream.disconnected.wait(2)
    (call,) = settled(within=2)
    assert (call.outcome, call.estimated) == ("client_gone", True)
    assert call.cost == call.reserved, "no model of this name is proven to show everything"


def test_reading_on_has_a_deadline_and_a_number_and_the_limit_is_charged_beyond(
    goes_on: Any, upstream: Any, tmp_path: Path
) -> None:
    grant, token = goes_on()
    env = {"AIPASSPORT_ABANDONED_SECONDS": "1.5", "AIPASSPORT_MAX_ABANDONED_CALLS": "2"}
    with server(tmp_path / "log", AIPASSPORT_METRICS_TOKEN=TOKEN, **env) as process:
        for _ in range(2):
            leave(process, token, 200)
        eventually(lambda: scrape(process)("aipassport_abandoned_calls") == 2)
        leave(process, token, 200)
        eventually(lambda: Call.objects.exclude(finished_at=None).exists(), within=1)
        assert Call.objects.exclude(finished_at=None).get() == Call.objects.first(), "the third one, at once"
        for call in settled(3):
            assert (call.outcome, call.cost, call.estimated) == ("client_gone", call.reserved, True)
        leave(process, token, 20)  # the first ones have ended
        assert settled(4)[0].cost == bill(20)
        eventually(lambda: scrape(process)("aipassport_abandoned_calls") == 0)
    assert_books_balance(grant)


def test_a_number_that_would_block_the_worker_for_others_is_refused(tmp_path: Path) -> None:
    refused = Server(tmp_path / "log", AIPASSPORT_MAX_ABANDONED_CALLS="2001")
    assert refused.process.wait(30) != 0
    assert "AIPASSPORT_MAX_ABANDONED_CALLS must be between 0 and 2000" in refused.log.read_text()


def test_without_a_limit_on_money_what_was_given_up_is_estimated(goes_on: Any, tmp_path: Path) -> None:
    _, token = goes_on(max_cost=None)
    with server(tmp_path / "log", AIPASSPORT_MAX_ABANDONED_CALLS="0") as process:
        leave(process, token, 200)
        (call,) = settled()
    assert (call.outcome, call.estimated, call.reserved) == ("client_gone", True, 0)
    assert call.cost >= bill(200)


def test_a_restart_waits_for_short_answers_and_charges_the_limit_of_others(goes_on: Any, tmp_path: Path) -> None:
    grant, token = goes_on()
    with server(tmp_path / "log", AIPASSPORT_GRACEFUL_TIMEOUT="6") as process:
        leave(process, token, 40)
        leave(process, token, 400)
        time.sleep(0.6)
        begun = time.monotonic()
        process.stop(signal.SIGTERM)
        assert time.monotonic() - begun < 6
        assert process.process.returncode == 0
    long, short = Call.objects.all()
    assert (short.outcome, short.cost) == ("client_gone", bill(40))
    assert (long.outcome, long.cost) == ("client_gone", long.reserved)
    assert_books_balance(grant)


def test_a_worker_that_is_killed_while_it_reads_on_is_charged_the_limit(goes_on: Any, tmp_path: Path) -> None:
    grant, token = goes_on()
    with server(tmp_path / "log") as process:
        leave(process, token, 200)
        time.sleep(0.8)
        process.kill()
    Worker.objects.update(seen_at=0)
    assert ledger.reap(lost_after=60) == 1
    call = Call.objects.get()
    assert (call.outcome, call.cost) == ("lost", call.reserved)
    assert_books_balance(grant)


def test_a_thousand_streams_that_are_opened_and_left_cost_what_the_provider_bills_or_more(
    goes_on: Any, upstream: Any, tmp_path: Path
) -> None:
    """More than the worker reads on at a time. It answers others meanwhile, and holds little."""
    grant, token = goes_on(max_cost=100 * DOLLAR)
    with server(tmp_path / "log", AIPASSPORT_MAX_ABANDONED_CALLS="100", LOG_LEVEL="INFO") as process:
        (pid,) = workers_of(process)
        before = memory(pid)
        waits: list[float] = []
        over = threading.Event()

        def others() -> None:
            while not over.is_set():
                said = Caller(process, token).ask("fake-metered", max_tokens=5)
                assert said.status == 200
                waits.append(said.received - said.sent)
                time.sleep(0.2)

        with ThreadPoolExecutor(33) as pool:
            watching = pool.submit(others)
            list(pool.map(lambda _: leave(process, token, 60), range(1000)))
            over.set()
            watching.result()
        eventually(lambda: not Call.objects.open().exists(), within=30)
        assert memory(pid) - before < 60_000  # kilobytes
        eventually(lambda: len(list(Path(f"/proc/{pid}/fd").iterdir())) < 300)
    calls = Call.objects.filter(model="fake-goes-on")
    assert (calls.count(), len(upstream.billed)) == (1000, 1000)
    assert set(calls.values_list("outcome", flat=True)) == {"client_gone"}
    billed = sum(bill(output) for _, output in upstream.billed)
    assert sum(calls.values_list("cost", flat=True)) >= billed
    assert min(calls.values_list("cost", flat=True)) >= bill(60)
    assert calls.filter(estimated=False).count() >= 100
    assert max(waits) < 5
    assert_books_balance(grant)


def memory(pid: int) -> int:
    """Kilobytes that a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
