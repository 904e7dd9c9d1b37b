"""Providers that are down, slow, or talk nonsense, on real sockets: who asked is told, the ledger is right, and
nobody else waits."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from grants.crypto import new_key
from grants.models import Allowance, Call, Grant, ProviderKey

from .callers import Caller, assert_books_balance
from .conftest import CANARY
from .live import eventually, free_port
from .live import server as live_server
from .metrics import TOKEN, scrape
from .test_attacks_more import provider
from .test_limits_live import DOLLAR, PER_TOKEN, price
from .test_relay import chat, finished_call
from .test_relay_streams import assert_nothing_open, openai_client

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


# Down


@contextmanager
def black_hole() -> Iterator[str]:
    """An address that answers no attempt to connect, as behind a firewall that drops: its queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for sock in waiting:
                sock.close()


def assert_never_sent(grant: Grant) -> None:
    """The call stands in the ledger, costs nothing, and is given back to the limit on requests."""
    call = finished_call()
    assert (call.outcome, call.cost, call.counted) == ("upstream_unreachable", 0, 0)
    assert Allowance.objects.get(grant=grant).requests == 0
    assert_nothing_open(grant)
    assert_books_balance(grant)


@pytest.mark.parametrize("where", ["nobody listens", "no such name"])
def test_a_provider_that_is_down_is_a_502_at_once_and_costs_nothing(server: Any, issue: Any, where: str) -> None:
    base_url = f"http://127.0.0.1:{free_port()}" if where == "nobody listens" else "http://provider.invalid:8080"
    grant, token = issue("openai", base_url=base_url, max_cost=DOLLAR, max_requests=5)
    price(PER_TOKEN)
    answer = Caller(server, token).ask("gpt-4o", max_tokens=50)
    assert (answer.status, answer.code) == (502, "upstream_unreachable")
    assert "provider.invalid" not in str(answer.json)
    assert_never_sent(grant)


def test_a_provider_that_does_not_take_the_connection_is_a_504_and_holds_up_nobody(server: Any, issue: Any) -> None:
    with black_hole() as base_url, ThreadPoolExecutor(4) as pool:
        grant, token = issue("openai", base_url=base_url, max_cost=DOLLAR, max_requests=5)
        _, other = issue("sandbox")
        price(PER_TOKEN)
        begun = time.monotonic()
        hanging = [pool.submit(Caller(server, token).ask, "gpt-4o", max_tokens=50) for _ in range(4)]
        eventually(lambda: Call.objects.open().count() == 4)
        while time.monotonic() - begun < 1.5:
            assert chat(server, other).elapsed.total_seconds() < 1
        said = [future.result() for future in hanging]
        assert 1.9 < time.monotonic() - begun < 4  # the tests' AIPASSPORT_CONNECT_TIMEOUT is 2
    assert {(one.status, one.code) for one in said} == {(504, "upstream_timeout")}
    calls = Call.objects.filter(grant=grant)
    assert set(calls.values_list("cost", "counted")) == {(0, 0)}
    assert_nothing_open(grant)
    assert_books_balance(grant)


@pytest.fixture
def no_names(tmp_path: Path) -> Iterator[list[str]]:
    """A command that runs another where the server of names never answers."""
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.9\n")
    command = ["unshare", "-m", "sh", "-ec", 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"', "sh", str(conf)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        try:
            silent.bind(("127.0.0.9", 53))
            subprocess.run([*command, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("it takes Linux and root to have a server of names")
        yield command


def test_names_that_nobody_resolves_are_a_504_in_time_and_hold_up_no_other_provider(
    issue: Any, upstream: Any, no_names: list[str], tmp_path: Path
) -> None:
    """More of them than gevent has threads to look up names in, and several calls for one."""

    def provider_at(base_url: str) -> tuple[Grant, str]:
        grant, token = issue("openai", base_url=base_url, max_cost=DOLLAR, max_requests=50)
        ProviderKey.objects.filter(label="openai").update(label=base_url)  # the next has a key of its own
        return grant, token

    _, other = provider_at(upstream.url.replace("127.0.0.1", "localhost"))
    grants, tokens = zip(*(provider_at(f"http://p{number}.example") for number in range(12)), strict=True)
    price(PER_TOKEN)
    with live_server(tmp_path / "log", no_names) as process, ThreadPoolExecutor(40) as pool:
        begun = time.monotonic()
        hanging = [pool.submit(Caller(process, token).ask, "gpt-4o", max_tokens=50) for token in tokens * 3]
        eventually(lambda: Call.objects.open().count() >= 12)
        while time.monotonic() - begun < 1.5:
            answer = chat(process, other, "fake-metered")
            assert (answer.status_code, answer.elapsed.total_seconds() < 1) == (200, True)
        said = [future.result() for future in hanging]
        assert 1.9 < time.monotonic() - begun < 5  # the tests' AIPASSPORT_CONNECT_TIMEOUT is 2
        process.stop(timeout=5)  # the system goes on with its lookups for ten seconds in all
    assert {(one.status, one.code) for one in said} == {(504, "upstream_timeout")}
    calls = Call.objects.filter(grant__in=grants)
    assert set(calls.values_list("cost", "counted")) == {(0, 0)}
    for grant in grants:
        assert_nothing_open(grant)
        assert_books_balance(grant)


# Slow


def test_a_provider_that_takes_its_time_to_begin_is_waited_for(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    with ThreadPoolExecutor(2) as pool:
        begun = time.monotonic()
        late = [
            pool.submit(Caller(server, token).ask, "fake-slow", max_tokens=3, stream=stream) for stream in (True, False)
        ]
        while time.monotonic() - begun < 2.5:
            assert chat(server, token).elapsed.total_seconds() < 1
        assert [future.result().status for future in late] == [200, 200]
    slow = Call.objects.filter(model="fake-slow")
    assert set(slow.values_list("outcome", flat=True)) == {"ok"}
    assert all(first >= 3_000_000 for first in slow.values_list("first_byte_us", flat=True))
    assert_nothing_open(grant)


# Nonsense


def read(server: Any, token: str, model: str, **more: Any) -> tuple[bytes, bool]:
    """All that comes of a stream, and whether it ended without being broken off."""
    answer, got = chat(server, token, model, stream=True, **more), b""
    assert answer.status_code == 200
    try:
        for piece in answer.iter_content(None):
            got += piece
    except requests.RequestException:
        return got, False
    return got, True


@pytest.mark.parametrize("model", ["fake-noise", "fake-other-charset", "fake-bad-chunks"])
def test_a_stream_of_nonsense_ends_with_an_error_that_the_sdk_raises(server: Any, issue: Any, model: str) -> None:
    """No last event came: that is no whole answer, whatever its bytes are. They are charged as a guess."""
    grant, token = issue("openai", max_cost=DOLLAR)
    price(PER_TOKEN)
    got, ended = read(server, token, model, max_tokens=100)
    assert ended
    assert b"event: error\ndata: " in got[-400:]
    if model == "fake-noise":
        assert len(got) > 20 * 2200, "what came is not ours to keep"
    call = finished_call()
    assert (call.outcome, call.estimated) == ("upstream_broken", True)
    assert 0 < call.cost <= call.reserved
    with pytest.raises((openai.APIError, ValueError)):
        for _ in openai_client(server, token).chat.completions.create(
            model=model, messages=[{"role": "user", "content": "x"}], stream=True, max_tokens=100
        ):
            pass
    eventually(lambda: not Call.objects.open().exists())
    assert_nothing_open(grant)
    assert_books_balance(grant)
    assert chat(server, token, "fake-metered", max_tokens=50).status_code == 200


def test_one_event_of_five_megabytes_goes_through_and_holds_up_nobody(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        reading = pool.submit(read, server, token, "fake-long-line")
        while not reading.done():
            assert chat(server, token, "sandbox-1").elapsed.total_seconds() < 0.7
        got, ended = reading.result()
        assert time.monotonic() - begun < 4
    assert ended
    assert got.count(b"x") >= 5_000_000
    assert got.endswith(b"data: [DONE]\n\n")
    assert set(Call.objects.values_list("outcome", flat=True)) == {"ok"}


def test_an_answer_that_cannot_be_unpacked_is_no_answer_and_charged_its_bound(server: Any, issue: Any) -> None:
    """The provider may have made it, and bills for it."""
    grant, token = issue("openai", max_cost=DOLLAR)
    price(PER_TOKEN)
    assert Caller(server, token).ask("fake-bad-gzip", max_tokens=50).status in (0, 502)
    call = finished_call()
    assert (call.outcome, call.cost) == ("upstream_broken", call.reserved)
    assert_nothing_open(grant)
    assert_books_balance(grant)


@pytest.mark.parametrize(
    ("framing", "end"),
    [
        ("content-length: 100", "closes"),
        ("content-length: 100", "resets"),
        ("content-length: 100", "says nothing"),
        ("transfer-encoding: chunked", "closes"),
    ],
)
def test_an_answer_that_breaks_before_its_first_byte_is_an_error_in_the_callers_dialect(
    issue: Any, server: Any, framing: str, end: str
) -> None:
    """The app has nothing of it yet. (A stream of events has its error event.)"""

    def answer(sock: socket.socket, _: bytes) -> None:
        sock.sendall(f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{framing}\r\n\r\n".encode())
        time.sleep(12 if end == "says nothing" else 0.1)  # the tests' AIPASSPORT_READ_TIMEOUT is 10
        if end == "resets":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    with provider(answer) as base_url:
        grant, token = issue("openai", base_url=base_url, max_cost=DOLLAR)
        price(PER_TOKEN)
        said = Caller(server, token).ask("gpt-4o", max_tokens=50)
    call = finished_call()
    assert (call.status, call.cost) == (200, call.reserved), "it may have been made, and is billed"
    assert_nothing_open(grant)
    assert_books_balance(grant)
    wanted = (504, "upstream_timeout") if end == "says nothing" else (502, "upstream_broken")
    assert (call.outcome, said.status, said.json and said.code) == (wanted[1], *wanted)


# A key that cannot be read


def test_a_key_that_cannot_be_decrypted_is_the_operators_matter_and_says_so(
    issue: Any, upstream: Any, tmp_path: Path, settings: Any
) -> None:
    """Its encryption key was taken out of the settings too early: never sent, never charged, loud, and mended by
    putting it back."""
    grant, token = issue("openai", max_cost=DOLLAR, max_requests=5)
    price(PER_TOKEN)
    before, fresh = len(upstream.seen), new_key()
    wrong = {"AIPASSPORT_ENCRYPTION_KEYS": fresh, "AIPASSPORT_METRICS_TOKEN": TOKEN}
    with live_server(tmp_path / "wrong", **wrong) as process:
        refused = Caller(process, token).ask("fake-metered", max_tokens=50)
        assert (refused.status, refused.code, refused.final) == (503, "key_unreadable", True)
        assert_never_sent(grant)
        key = ProviderKey.objects.get()
        eventually(lambda: "cannot decrypt" in ProviderKey.objects.get().last_error)
        found = eventually(lambda: (seen := scrape(process)).total("aipassport_calls_total") and seen)
        assert found("aipassport_calls_total", provider="openai", model="other", outcome="upstream_unreachable") == 1
        ready = requests.get(f"{process.url}/ready", timeout=10)
        assert (ready.status_code, ready.json()["checks"]["keys"]) == (503, "failed")
        log = process.log.read_text()
    assert f"ERROR aipassport.relay the secret of provider key {key.pk} cannot be read: no encryption key" in log
    assert not any(secret in log for secret in (CANARY, key.secret, fresh, *settings.AIPASSPORT_ENCRYPTION_KEYS))
    assert len(upstream.seen) == before
    both = ",".join((fresh, *settings.AIPASSPORT_ENCRYPTION_KEYS))
    with live_server(tmp_path / "mended", AIPASSPORT_ENCRYPTION_KEYS=both) as process:
        assert Caller(process, token).ask("fake-metered", max_tokens=50).status == 200
