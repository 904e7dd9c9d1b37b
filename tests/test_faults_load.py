"""What production does to a server at work: resets, silences, clients that hardly read, a restart in the middle."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from django.db import transaction

from grants.models import Allowance, Call

from .callers import Caller, Said, Stream, assert_books_balance
from .live import eventually, server
from .test_relay import chat, finished_call
from .test_relay_streams import assert_nothing_open, openai_client

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


# The provider


@pytest.mark.parametrize("model", ["fake-resets", "fake-half-a-head"])
def test_a_provider_that_resets_before_it_answers_is_a_502(server: Any, issue: Any, model: str) -> None:
    grant, token = issue("openai")
    answer = chat(server, token, model)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
    assert finished_call().outcome == "upstream_broken"
    assert_nothing_open(grant)
    assert chat(server, token, "sandbox-1").status_code == 200


def test_a_provider_that_resets_in_mid_stream_raises_in_the_sdk(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    stream = openai_client(server, token).chat.completions.create(
        model="fake-resets", messages=[{"role": "user", "content": "x"}], stream=True
    )
    with pytest.raises(openai.APIError):
        for _ in stream:
            pass
    call = finished_call()
    assert (call.outcome, call.estimated) == ("upstream_broken", True)
    assert_nothing_open(grant)


def test_a_long_silence_within_the_read_timeout_is_waited_out(server: Any, issue: Any) -> None:
    """Models think. Nobody is cut for it, and others go on meanwhile."""
    _, token = issue("openai")
    stream = Caller(server, token).stream("fake-pauses")
    silent = time.monotonic()
    while time.monotonic() - silent < 2:
        assert Caller(server, token).ask(max_tokens=10).status == 200
    assert Call.objects.open().count() == 1
    assert stream.ends()
    assert time.monotonic() - silent > 2.5
    assert set(Call.objects.values_list("outcome", flat=True)) == {"ok"}


# The client


def test_a_client_that_reads_a_byte_a_second_slows_nobody_else_down(
    server: Any, issue: Any, upstream: Any, by: Any
) -> None:
    slow_grant, slow_token = issue("openai")
    _, token = issue("openai")
    body = b'{"model":"fake-floods","stream":true,"messages":[{"role":"user","content":"x"}]}'
    head = f"POST /proxy/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {slow_token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + body)
        assert client.recv(1)
        reading = threading.Event()

        def sip() -> None:
            while not reading.wait(1):
                client.recv(1)

        sipping = threading.Thread(target=sip)
        sipping.start()
        time.sleep(1)
        held, begun = upstream.flooded, time.monotonic()
        steady = Caller(server, token).stream("fake-steady", max_tokens=40)
        gaps, last = [], time.monotonic()
        for _ in steady.chunks:
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        assert time.monotonic() - begun > 1.8
        assert max(gaps) < 0.5
        assert upstream.flooded == held < 32_000_000
        slow_grant.revoke(by)
        eventually(lambda: not Call.objects.open().exists(), within=4)
        reading.set()
        sipping.join(5)
    assert set(Call.objects.values_list("outcome", flat=True)) == {"revoked", "ok"}


# The server


def test_a_revoked_stream_is_told_so_however_long_its_settlement_takes(server: Any, issue: Any, by: Any) -> None:
    """Who waits for the database is not taken for a client that does not read, whose connection is broken off."""
    grant, token = issue("openai")
    stream = Caller(server, token).stream("fake-silent")
    grant.revoke(by)
    with transaction.atomic():
        Call.objects.select_for_update().get()  # on SQLite the transaction alone holds everybody's lock
        time.sleep(2.5)
    rest = _rest(stream)
    assert finished_call().outcome == "revoked"
    assert b"error" in rest


def test_a_restart_under_load_loses_no_call_and_leaves_none_open(issue: Any, upstream: Any, tmp_path: Path) -> None:
    """Calls end with an answer, or are refused, or find nobody listening; long streams are told why they end."""
    grant, token = issue("openai", max_requests=100_000)
    before = len(upstream.seen)
    with server(tmp_path / "log", WEB_CONCURRENCY="2", AIPASSPORT_GRACEFUL_TIMEOUT="6") as process:
        with ThreadPoolExecutor(20) as pool:
            opened = [
                pool.submit(Caller(process, token).stream, model, max_tokens=20)
                for model in ("fake-steady", "fake-silent") * 10
            ]
            streams = [future.result() for future in opened]
        said: list[Said] = []
        over = threading.Event()

        def ask() -> None:
            caller = Caller(process, token)
            while not over.is_set():
                said.append(caller.ask(max_tokens=50))
                if said[-1].status != 200:
                    time.sleep(0.05)

        callers = [threading.Thread(target=ask) for _ in range(16)]
        for thread in callers:
            thread.start()
        time.sleep(1)
        with ThreadPoolExecutor(len(streams)) as pool:
            ends = [pool.submit(_rest, stream) for stream in streams]
            process.stop()
            over.set()
            rests = [end.result() for end in ends]
        assert process.process.returncode == 0
        for thread in callers:
            thread.join(10)
    assert all(b"[DONE]" in rest for rest in rests[::2])
    assert all(b"restarting" in rest for rest in rests[1::2])
    answers = Counter(one.status for one in said)
    assert set(answers) <= {200, 503, 0}
    assert answers[200] > 20
    assert all(one.code == "unavailable" and one.retry_after for one in said if one.status == 503)
    assert not Call.objects.open().exists()
    outcomes = Counter(Call.objects.values_list("outcome", flat=True))
    assert outcomes == {"ok": answers[200] + 10, "drained": 10}
    assert Call.objects.count() == len(upstream.seen) - before == Allowance.objects.get(grant=grant).requests
    assert_books_balance(grant)


def _rest(stream: Stream) -> bytes:
    rest = b""
    try:
        for chunk in stream.chunks:
            rest += chunk
    except requests.RequestException:
        pass
    return rest
