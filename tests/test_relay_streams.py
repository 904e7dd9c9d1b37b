"""Open streams: cut, left, dying, silent. Each ends within about a second, and each is settled."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import anthropic
import openai
import pytest
import requests

from grants.models import Allowance, Call, Grant

from .live import eventually
from .test_relay import chat, finished_call

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


def openai_client(server: Any, token: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/proxy/v1", api_key=token, max_retries=0)


def assert_nothing_open(grant: Grant) -> None:
    allowance = Allowance.objects.get(grant=grant)
    assert (allowance.in_flight, allowance.reserved) == (0, 0)


def test_a_revoked_stream_is_cut_within_about_a_second_though_the_provider_is_silent(
    server: Any, issue: Any, upstream: Any, by: Any
) -> None:
    grant, token = issue("openai")
    stream = openai_client(server, token).chat.completions.create(
        model="fake-silent", messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert next(stream).choices[0].delta.content == "wait"
    grant.revoke(by)
    begun = time.monotonic()
    with pytest.raises(openai.APIError, match="revoked"):
        next(stream)
    assert time.monotonic() - begun < 1.6
    assert finished_call().outcome == "revoked"
    assert upstream.disconnected.wait(2)
    assert_nothing_open(grant)


def test_revoking_one_token_cuts_its_streams_and_no_others(server: Any, issue: Any, by: Any) -> None:
    from grants import tokens

    grant, token = issue("openai")
    other = tokens.mint(grant, by=by)
    mine, theirs = (
        openai_client(server, value).chat.completions.create(
            model="fake-silent", messages=[{"role": "user", "content": "x"}], stream=True
        )
        for value in (token, other.token)
    )
    next(mine), next(theirs)
    grant.revoke_token(other.jti, expires_at=other.expires_at, by=by)
    with pytest.raises(openai.APIError):
        next(theirs)
    time.sleep(1)
    assert Call.objects.open().count() == 1
    grant.revoke(by)
    with pytest.raises(openai.APIError):
        next(mine)


def test_a_grant_that_expires_cuts_its_streams(server: Any, issue: Any) -> None:
    _, token = issue("openai", valid_for=3)
    stream = openai_client(server, token).chat.completions.create(
        model="fake-silent", messages=[{"role": "user", "content": "x"}], stream=True
    )
    next(stream)
    with pytest.raises(openai.APIError):
        next(stream)


def test_a_cut_anthropic_stream_raises_in_its_sdk(server: Any, issue: Any, by: Any) -> None:
    grant, token = issue("sandbox")
    client = anthropic.Anthropic(base_url=f"{server.url}/proxy", api_key=token, max_retries=0)
    with (
        pytest.raises(anthropic.APIError),
        client.messages.stream(
            model="sandbox-slow", max_tokens=500, messages=[{"role": "user", "content": "count to 50"}]
        ) as stream,
    ):
        for index, _ in enumerate(stream.text_stream):
            if index == 1:
                grant.revoke(by)
    assert finished_call().outcome == "revoked"


def test_a_cut_gemini_stream_raises_in_its_sdk(server: Any, issue: Any, by: Any) -> None:
    from google import genai

    grant, token = issue("sandbox")
    client = genai.Client(api_key=token, http_options={"base_url": f"{server.url}/proxy"})
    with pytest.raises(Exception, match=r"(?i)revoked"):
        for index, _ in enumerate(client.models.generate_content_stream(model="sandbox-slow", contents="count to 50")):
            if index == 1:
                grant.revoke(by)
    assert finished_call().outcome == "revoked"


def test_a_revocation_ends_a_call_that_waits_for_its_first_byte(
    server: Any, issue: Any, upstream: Any, by: Any
) -> None:
    grant, token = issue("openai")
    answers: list[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(chat(server, token, "fake-mute")))
    thread.start()
    eventually(lambda: Call.objects.open().exists())
    time.sleep(0.2)
    grant.revoke(by)
    thread.join(3)
    assert answers[0].status_code == 403
    assert answers[0].json()["error"]["code"] == "revoked"
    assert upstream.disconnected.wait(2)
    assert finished_call().outcome == "revoked"
    assert_nothing_open(grant)


@pytest.mark.parametrize("model", ["fake-silent", "fake-mute"])
def test_a_client_that_leaves_while_the_provider_is_silent_is_noticed(
    server: Any, issue: Any, upstream: Any, model: str
) -> None:
    grant, token = issue("openai")
    body = b'{"model":"%s","stream":true,"messages":[{"role":"user","content":"x"}]}' % model.encode()
    head = f"POST /proxy/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(head.encode() + body)
        eventually(lambda: Call.objects.open().exists())
        time.sleep(0.3)
    assert upstream.disconnected.wait(2)
    call = finished_call()
    assert call.outcome == "client_gone"
    assert call.estimated or model == "fake-mute"
    assert_nothing_open(grant)


def test_a_client_that_leaves_in_the_middle_is_still_charged(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    answer = chat(server, token, "fake-paced", stream=True)
    next(answer.iter_content(10))
    answer.close()
    call = finished_call()
    assert call.outcome == "client_gone"
    assert call.estimated
    assert call.output_tokens
    assert Allowance.objects.get(grant=grant).requests == 1
    assert_nothing_open(grant)


def test_a_provider_that_dies_in_mid_stream_raises_in_the_sdk(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    stream = openai_client(server, token).chat.completions.create(
        model="fake-dies", messages=[{"role": "user", "content": "x"}], stream=True
    )
    with pytest.raises(openai.APIError):
        for _ in stream:
            pass
    assert finished_call().outcome == "upstream_broken"
    assert_nothing_open(grant)


def test_a_stream_that_stops_too_early_is_no_answer_to_the_sdk_however_cleanly_it_ends(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    stream = openai_client(server, token).chat.completions.create(
        model="fake-stops", messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert next(stream).choices[0].delta.content == "half an "
    with pytest.raises(openai.APIError, match="too early"):
        next(stream)
    call = finished_call()
    assert (call.outcome, call.estimated) == ("upstream_broken", True)
    assert_nothing_open(grant)


def test_an_error_in_mid_stream_is_the_providers(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    stream = openai_client(server, token).chat.completions.create(
        model="fake-fails", messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert next(stream).choices[0].delta.content == "half an "
    with pytest.raises(openai.APIError, match="overloaded"):
        next(stream)
    call = finished_call()
    assert (call.outcome, call.estimated) == ("upstream_error", True)
    assert_nothing_open(grant)


def test_a_provider_that_dies_in_a_whole_answer_breaks_the_connection_too(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        chat(server, token, "fake-dies")
    assert finished_call().outcome == "upstream_broken"
    assert_nothing_open(grant)


def test_garbage_in_a_stream_is_forwarded_and_hurts_nobody(server: Any, issue: Any) -> None:
    grant, token = issue("openai")
    answer = chat(server, token, "fake-garbage-events", stream=True)
    assert b"data: {not json\n\ndata: \xff\xfe\n\n: comment\n\nevent: x\n\n" in answer.content
    assert finished_call().outcome == "ok"
    assert_nothing_open(grant)


def test_the_usage_that_the_relay_asked_for_is_kept_from_a_client_that_did_not(
    server: Any, issue: Any, upstream: Any
) -> None:
    _, token = issue("openai")
    answer = chat(server, token, "sandbox-1", stream=True)
    assert upstream.last.json["stream_options"] == {"include_usage": True}
    assert b'"choices":[]' not in answer.content.replace(b" ", b"")
    assert answer.content.endswith(b"data: [DONE]\n\n")
    call = finished_call()
    assert call.output_tokens
    assert not call.estimated


def test_the_usage_that_the_client_asked_for_reaches_it(server: Any, issue: Any) -> None:
    _, token = issue("openai")
    answer = chat(server, token, "sandbox-1", stream=True, stream_options={"include_usage": True})
    assert b'"choices":[]' in answer.content.replace(b" ", b"")


def test_a_finished_stream_frees_its_place_before_its_end_is_seen(server: Any, issue: Any) -> None:
    _, token = issue("sandbox", max_concurrency=1)
    client = openai_client(server, token)
    for _ in range(10):
        stream = client.chat.completions.create(
            model="sandbox-1", messages=[{"role": "user", "content": "x"}], stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        client.chat.completions.create(model="sandbox-1", messages=[{"role": "user", "content": "x"}])
