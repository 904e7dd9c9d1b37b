"""Providers and clients that are slow, greedy or odd: others are not hurt, and nothing is held without bounds."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from grants.models import Call

from .live import eventually, server
from .test_relay import chat, finished_call
from .test_relay_streams import openai_client

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


def test_the_read_timeout_is_between_two_pieces_and_not_in_total(issue: Any, tmp_path: Path) -> None:
    _, token = issue("openai")
    with server(tmp_path / "log", AIPASSPORT_READ_TIMEOUT="0.5") as process:
        begun = time.monotonic()
        assert chat(process, token, "fake-paced", stream=True).content.endswith(b"data: [DONE]\n\n")
        assert time.monotonic() - begun > 0.9
        late = chat(process, token, "fake-mute")
        assert (late.status_code, late.json()["error"]["code"]) == (504, "upstream_timeout")
        stream = openai_client(process, token).chat.completions.create(
            model="fake-silent", messages=[{"role": "user", "content": "x"}], stream=True
        )
        next(stream)
        with pytest.raises(openai.APIError):
            next(stream)
    outcomes = Call.objects.values_list("model", "outcome")
    assert set(outcomes) == {
        ("fake-paced", "ok"),
        ("fake-mute", "upstream_timeout"),
        ("fake-silent", "upstream_timeout"),
    }


def test_a_compressed_answer_reaches_the_client_as_it_can_read_it(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    answer = chat(server, token, "fake-compressed")
    assert answer.json()["object"] == "chat.completion"
    assert "content-encoding" not in answer.headers


def test_a_client_that_does_not_read_holds_the_provider_back_and_nobody_else(
    server: Any, issue: Any, upstream: Any, by: Any
) -> None:
    grant, token = issue("openai")
    body = b'{"model":"fake-floods","stream":true,"messages":[{"role":"user","content":"x"}]}'
    head = f"POST /proxy/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + body)
        assert client.recv(100)
        time.sleep(1)
        held = upstream.flooded
        begun = time.monotonic()
        assert chat(server, token, "sandbox-1").status_code == 200
        assert time.monotonic() - begun < 1
        assert upstream.flooded == held < 32_000_000
        grant.revoke(by)
        eventually(lambda: not Call.objects.open().exists(), within=4)
    assert "revoked" in set(Call.objects.values_list("outcome", flat=True))


def test_a_stream_that_never_ends_its_event_is_forwarded_in_bounded_memory(server: Any, issue: Any) -> None:
    """The observer gives up on an event beyond its limit; the bytes go on."""
    from proxy.sse import Decoder

    decoder, given = Decoder(limit=1000), 0
    for _ in range(100):
        given += sum(len(event.raw) for event in decoder.feed(b"x" * 500))
        assert len(decoder.rest()) <= 1000
    assert given + len(decoder.rest()) == 50_000
    _, token = issue("sandbox")
    assert chat(server, token).status_code == 200
    assert finished_call().outcome == "ok"
