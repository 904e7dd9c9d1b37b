"""What an answer is, decided by its bytes: events, JSON, a web page, nothing at all."""

from __future__ import annotations

import gzip
import json
import socket
import time
from typing import Any, cast

import pytest
import requests

from grants.models import ProviderKey
from proxy import dialects, streaming
from proxy.dialects.base import UpstreamCall
from proxy.kinds import Kind, kind_of
from proxy.upstream import Exchange

from .answers import Wire
from .answers import relay as through
from .callers import Caller, assert_books_balance
from .live import eventually
from .test_attacks_more import provider, says
from .test_limits_live import DOLLAR, PER_TOKEN
from .test_relay import chat, finished_call

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else json.dumps(data).encode()) + b"\n\n"


HALF = event({"choices": [{"index": 0, "delta": {"content": "hi"}}]})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}})
WHOLE = HALF + event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}) + USAGE + event(b"[DONE]")
ANSWER = {"object": "chat.completion", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
LABELS = ["text/event-stream", "Text/Event-Stream", "text/plain; charset=utf-8", "application/json", ""]


def head(status: str, label: str, *more: str) -> str:
    return "\r\n".join((status, *([f"content-type: {label}"] if label else []), *more))


def chunked(label: str, *pieces: bytes, pause: float = 0.0) -> Any:
    """A provider's answer without a length, piece by piece."""

    def answer(sock: socket.socket, _: bytes) -> None:
        sock.sendall(f"HTTP/1.1 {head('200 OK', label, 'transfer-encoding: chunked')}\r\n\r\n".encode())
        for piece in (*pieces, b""):
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            time.sleep(pause)

    return answer


def at(issue: Any, url: str, **limits: Any) -> Any:
    """Grant and token on a key to ``url``, with prices for every model."""
    issued = issue("custom", base_url=url, **limits)
    ProviderKey.objects.update(prices=[PER_TOKEN | {"models": "*"}])
    return issued


# Events


@pytest.mark.parametrize("label", LABELS)
def test_a_stream_is_observed_and_its_usage_chunk_hidden_whatever_its_label(
    server: Any, issue: Any, label: str
) -> None:
    with provider(chunked(label, WHOLE[:3], WHOLE[3:])) as url:
        _, token = at(issue, url, max_cost=DOLLAR)
        answer = chat(server, token, "m", stream=True, max_tokens=50)
    assert answer.content == WHOLE.replace(USAGE, b"")
    assert answer.headers.get("content-type", "") == label, "neither invented nor changed"
    call = finished_call()
    assert (call.outcome, call.input_tokens, call.output_tokens, call.estimated) == ("ok", 3, 1, False)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("length", [True, False])
def test_a_stream_that_was_cut_is_no_whole_answer_whatever_its_label(
    server: Any, issue: Any, label: str, length: bool
) -> None:
    with provider(says(head("200 OK", label), HALF) if length else chunked(label, HALF)) as url:
        _, token = at(issue, url)
        answer = chat(server, token, "m", stream=True)
    assert answer.content.startswith(HALF)
    assert b"too early" in answer.content
    assert finished_call().outcome == "upstream_broken"


def test_json_that_calls_itself_a_stream_is_read_as_json(server: Any, issue: Any) -> None:
    with provider(says(head("200 OK", "text/event-stream"), json.dumps(ANSWER).encode())) as url:
        _, token = at(issue, url, max_cost=DOLLAR)
        assert chat(server, token, "m", stream=True, max_tokens=50).json() == ANSWER
    call = finished_call()
    assert (call.outcome, call.input_tokens, call.output_tokens, call.estimated) == ("ok", 3, 1, False)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_stream_is_recognised_in_small_pieces(size: int) -> None:
    call = UpstreamCall("openai.chat", "POST", "/x", models=("m",), flavor="chat", stream=True)
    pieces = [WHOLE[begin : begin + size] for begin in range(0, len(WHOLE), size)]
    relayed = through(call, Wire(pieces, "text/event-stream"))
    assert relayed.outcome == "ok"
    for cut in range(1, 6):
        assert kind_of(b"\xef\xbb\xbfdata: {}"[:cut], "", flavor="chat", stream=True) in (None, Kind.EVENTS)


def test_text_and_audio_may_begin_like_anything() -> None:
    for start in (b"data: 5 people", b"[Music]", b"{", b": "):
        assert kind_of(start, "text/plain", flavor="transcription", stream=False) is Kind.OTHER
        assert kind_of(start, "audio/pcm", flavor="speech", stream=False) is Kind.OTHER


# No answer


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("label", ["text/html", "application/json"])
def test_a_web_page_is_a_502_that_names_the_base_url_and_costs_nothing(
    server: Any, issue: Any, label: str, stream: bool
) -> None:
    page = b"\n<!DOCTYPE html><title>Some console</title>"
    with provider(says(head("200 OK", label), page)) as url:
        grant, token = at(issue, url, max_cost=DOLLAR)
        said = Caller(server, token).ask("m", max_tokens=50, stream=stream)
    assert (said.status, said.code) == (502, "upstream_error")
    assert "web page" in said.json["error"]["message"]
    assert "base URL of the key" in said.json["error"]["message"]
    call = finished_call()
    assert (call.outcome, call.status, call.cost) == ("upstream_error", 200, 0)
    eventually(lambda: "base URL" in ProviderKey.objects.get().last_error)
    assert_books_balance(grant)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "body", [b"", b"\n\n\n", b"\x8b\x07\x80", b"Service OK"], ids=["empty", "blank", "bytes", "text"]
)
def test_an_answer_of_nothing_is_a_502_and_charged_its_bound(
    server: Any, issue: Any, body: bytes, stream: bool
) -> None:
    """A real provider may have worked, and lost its answer on the way."""
    with provider(says(head("200 OK", "application/json"), body)) as url:
        grant, token = at(issue, url, max_cost=DOLLAR)
        said = Caller(server, token).ask("m", max_tokens=50, stream=stream)
    assert (said.status, said.code) == (502, "upstream_error")
    call = finished_call()
    assert (call.outcome, call.cost, call.estimated) == ("upstream_error", call.reserved, True)
    assert_books_balance(grant)


def test_a_list_of_models_that_is_a_web_page_is_no_empty_list(server: Any, issue: Any) -> None:
    with provider(says(head("200 OK", "text/html"), b"<html>a console</html>")) as url:
        _, token = at(issue, url)
        answer = requests.get(f"{server.url}/proxy/v1/models", headers={"authorization": f"Bearer {token}"}, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error")


def test_json_that_ends_in_the_middle_is_no_answer_however_cleanly(server: Any, issue: Any) -> None:
    with provider(chunked("application/json", b'{"choices": [{"message": {"content": "hal')) as url:
        _, token = at(issue, url, max_cost=DOLLAR)
        assert Caller(server, token).ask("m", max_tokens=50).status == 0, "the connection is broken off"
    call = finished_call()
    assert (call.outcome, call.cost) == ("upstream_broken", call.reserved)


def test_blank_lines_before_an_answer_are_part_of_it(server: Any, issue: Any) -> None:
    """DeepSeek sends them while a call waits for its turn."""
    with provider(chunked("application/json", b"\n", b"\n", json.dumps(ANSWER).encode(), pause=0.1)) as url:
        _, token = at(issue, url)
        assert chat(server, token, "m").json() == ANSWER
    assert finished_call().outcome == "ok"


def test_blank_lines_that_were_handed_out_do_not_decide_what_the_answer_is() -> None:
    call = UpstreamCall("openai.chat", "POST", "/x", models=("m",), flavor="chat")
    relayed = through(call, Wire([b"\n", b"\n", json.dumps(ANSWER).encode()], "application/json"))
    assert (relayed.outcome, relayed.out) == ("ok", b"\n\n" + json.dumps(ANSWER).encode())
    late = through(call, Wire([b"\n", b"\n", b"<html>"], "application/json"))
    assert (late.outcome, late.broken) == ("upstream_error", True)


def test_blank_lines_are_handed_out_after_a_while_so_that_nothing_between_times_out(monkeypatch: Any) -> None:
    monkeypatch.setattr(streaming, "_BLANK_SECONDS", 0.0)
    call = UpstreamCall("openai.chat", "POST", "/x", models=("m",), flavor="chat")
    fate, ended = streaming.Fate(), list[streaming.Ending]()
    wire = cast(Exchange, Wire([b"\n", b"\n", b"{}"], "application/json"))
    body = streaming.RelayedBody(
        wire, dialects.observer(call), fate, finish=ended.append, error_event=lambda error: b""
    )
    body.read_ahead()
    assert next(body) == b"\n"
    assert not ended
    assert b"".join(body) == b"\n{}"
    assert ended[0].outcome == "ok"


@pytest.mark.parametrize(("body", "status"), [(b"", 200), (b"<!doctype html>", 502)])
def test_a_transcription_as_text_may_be_empty_but_no_page(server: Any, issue: Any, body: bytes, status: int) -> None:
    with provider(says(head("200 OK", "text/plain"), body)) as url:
        _, token = at(issue, url)
        answer = requests.post(
            f"{server.url}/proxy/v1/audio/transcriptions",
            files={"file": ("a.wav", b"RIFF")},
            data={"model": "m", "response_format": "text"},
            headers={"authorization": f"Bearer {token}"},
            timeout=10,
        )
    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(("label", "charged"), [("text/plain; charset=utf-8", 10**8), ("text/html", 0)])
def test_a_transcript_that_begins_like_a_web_page_is_not_free(
    server: Any, issue: Any, label: str, charged: int
) -> None:
    """What is spoken is the app's choice. A page is charged nothing where its label says so."""
    with provider(says(head("200 OK", label), b"<html> is the first tag.")) as url:
        _, token = at(issue, url, max_cost=DOLLAR, max_cost_per_call=10**8)
        requests.post(
            f"{server.url}/proxy/v1/audio/transcriptions",
            files={"file": ("a.wav", b"RIFF")},
            data={"model": "m", "response_format": "text"},
            headers={"authorization": f"Bearer {token}"},
            timeout=10,
        )
    assert finished_call().cost == charged


@pytest.mark.parametrize(("status", "free"), [("400 Bad", False), ("403 No", True), ("302 Go", True)])
def test_an_error_that_breaks_off_is_charged_its_bound_unless_its_status_tells_that_nothing_was_made(
    server: Any, issue: Any, status: str, free: bool
) -> None:
    def answer(sock: socket.socket, _: bytes) -> None:
        lines = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
        sock.sendall(lines.encode() + b'{"error": {"message": "')
        sock.close()

    with provider(answer) as url:
        _, token = at(issue, url, max_cost=DOLLAR)
        assert Caller(server, token).ask("m", max_tokens=50).status >= 400
    call = finished_call()
    assert call.cost == (0 if free else call.reserved)


def test_a_picture_in_an_event_that_is_too_large_to_be_observed_is_not_free(server: Any, issue: Any) -> None:
    """Each event reports its own picture. A transparent one of noise has more than 8 MB in base64."""
    usage = {"input_tokens": 5, "output_tokens": 6240, "input_tokens_details": {"text_tokens": 5, "image_tokens": 0}}
    done = {"type": "image_generation.completed", "usage": usage}
    pieces = [event({**done, "b64_json": "x"}), event({**done, "b64_json": "x" * 9_000_000})]
    with provider(chunked("text/event-stream", *pieces)) as url:
        _, token = issue("openai", base_url=url, max_cost=DOLLAR)
        answer = requests.post(
            f"{server.url}/proxy/v1/images/generations",
            json={"model": "gpt-image-1", "prompt": "noise", "n": 2, "stream": True},
            headers={"authorization": f"Bearer {token}"},
            timeout=20,
        )
    assert len(answer.content) > 9_000_000
    call = finished_call()
    assert (call.outcome, call.cost) == ("ok", call.reserved)


# As HTTP has it


@pytest.mark.parametrize("coding", ["br", "compress", "gzip, br", "x-unknown"])
def test_an_unknown_content_coding_is_a_502_and_charged_its_bound(server: Any, issue: Any, coding: str) -> None:
    with provider(
        says(head("200 OK", "application/json", f"content-encoding: {coding}"), bytes(range(128, 192)))
    ) as url:
        _, token = at(issue, url, max_cost=DOLLAR)
        said = Caller(server, token).ask("m", max_tokens=50)
    assert (said.status, said.code) == (502, "upstream_error")
    assert "content coding" in said.json["error"]["message"]
    call = finished_call()
    assert (call.outcome, call.cost) == ("upstream_error", call.reserved)


def test_an_error_in_an_unknown_content_coding_is_told_in_words_of_the_relay(server: Any, issue: Any) -> None:
    with provider(says(head("429 Slow", "application/json", "content-encoding: br"), b"\x8b\x07")) as url:
        _, token = at(issue, url)
        said = Caller(server, token).ask("m")
    assert (said.status, said.code) == (429, "upstream_error")
    assert "content-encoding" not in said.headers


def test_a_small_body_that_unpacks_to_gigabytes_is_read_in_small_pieces(server: Any, issue: Any, settings: Any) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
    bomb = gzip.compress(gzip.compress(bytes(50_000_000)))
    with provider(says(head("200 OK", "application/json", "content-encoding: gzip, gzip"), bomb)) as url:
        exchange = Exchange()
        exchange.send(url, {}, UpstreamCall("openai.chat", "POST", "/x", json=b"{}"))
        sizes = []
        while piece := exchange.read():
            sizes.append(len(piece))
    assert sum(sizes) == 50_000_000
    assert max(sizes) <= 65_536
