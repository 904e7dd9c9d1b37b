"""One call through real processes: token in, provider's bytes out, the ledger true."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests

from grants.models import Allowance, Call

from .conftest import CANARY
from .live import eventually

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


def chat(server: Any, token: str, model: str = "sandbox-1", **more: Any) -> requests.Response:
    stream = more.get("stream", False)
    body = {"model": model, "messages": [{"role": "user", "content": "Hello there"}], **more}
    return requests.post(
        f"{server.url}/proxy/v1/chat/completions",
        json=body,
        stream=stream,
        timeout=30,
        headers={"authorization": f"Bearer {token}"},
    )


def finished_call() -> Call:
    return eventually(lambda: Call.objects.exclude(finished_at=None).first())


def test_a_call_comes_back_and_stands_in_the_ledger(server: Any, issue: Any) -> None:
    grant, token = issue("sandbox")
    answer = chat(server, token)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    call = Call.objects.get()  # settled before its last byte: no waiting
    assert answer.headers["x-aipassport-call"] == str(call.pk)
    assert (call.outcome, call.status, call.route, call.model) == ("ok", 200, "openai.chat", "sandbox-1")
    assert call.input_tokens == answer.json()["usage"]["prompt_tokens"]
    assert call.output_tokens == answer.json()["usage"]["completion_tokens"]
    assert call.cost == 0
    assert not call.estimated
    allowance = Allowance.objects.get(grant=grant)
    assert (allowance.requests, allowance.in_flight) == (1, 0)


def test_the_key_goes_upstream_and_the_token_does_not(server: Any, issue: Any, upstream: Any) -> None:
    _, token = issue("openai")
    assert chat(server, token).status_code == 200
    assert upstream.last.headers["authorization"] == f"Bearer {CANARY}"
    assert token not in str(upstream.last.headers)
    assert upstream.last.headers["accept-encoding"] == "identity"


def test_the_next_call_after_a_revocation_is_refused_by_every_process(servers: Any, issue: Any, by: Any) -> None:
    grant, token = issue("sandbox")
    assert [chat(server, token).status_code for server in servers] == [200, 200]
    grant.revoke(by)
    for server in servers:
        answer = chat(server, token)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "grant_revoked"
    assert Call.objects.count() == 2


def test_a_stream_arrives_piece_by_piece(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    begun = time.monotonic()
    answer = chat(server, token, "fake-paced", stream=True)
    times = [time.monotonic() - begun for chunk in answer.iter_content(None) if chunk]
    assert len(times) >= 20
    assert times[0] < 0.5
    assert times[-1] - times[0] > 0.8


def test_events_without_chunked_encoding_are_not_held_back(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    answer = chat(server, token, "fake-unchunked", stream=True)
    arrivals = []
    while chunk := answer.raw.read1(65536):
        arrivals.append((time.monotonic(), chunk))
    assert arrivals[-1][0] - arrivals[0][0] > 0.25
    assert b"one" in arrivals[0][1]
    assert b"three" not in arrivals[0][1]
