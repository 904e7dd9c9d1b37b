"""What an answer used, watched as it goes by; and errors as the real SDKs raise them."""
# ruff: noqa: E501 - events stand on one line each

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import openai
import pytest
from genai_prices import extract_usage
from google import genai
from google.genai import errors as gemini_errors
from hypothesis import given
from hypothesis import strategies as st

from proxy import dialects
from proxy.dialects.base import Event, Observer, UpstreamCall
from proxy.dialects.observers import FLAVORS
from proxy.exceptions import (
    BadRequest,
    Cut,
    EndpointNotRelayed,
    LimitReached,
    NotGranted,
    RelayError,
    Unauthorized,
    Unavailable,
    UpstreamFailed,
    UpstreamTimeout,
)


def call(flavor: str, route: str = "openai.chat", **more: Any) -> UpstreamCall:
    return UpstreamCall(route=route, method="POST", path="/x", models=("asked",), flavor=flavor, **more)


def event(data: Any, name: str = "") -> Event:
    encoded = data if isinstance(data, bytes) else json.dumps(data, separators=(",", ":")).encode()
    return Event(raw=b"data: " + encoded + b"\n\n", name=name, data=encoded)


def watch(flavor: str, *events: Event, **more: Any) -> Observer:
    observer = dialects.observer(call(flavor, **more))
    for one in events:
        observer.event(one)
    return observer


def chunk(text: str | None = None, **more: Any) -> Event:
    choices = [] if text is None else [{"index": 0, "delta": {"content": text}}]
    return event({"object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06", "choices": choices, **more})


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
DONE = event(b"[DONE]")


def test_chat_usage_comes_in_the_last_chunk_and_done_ends_it() -> None:
    observer = watch("chat", chunk("Hel", usage=None), chunk("lo"))
    assert observer.result() is None
    assert not observer.done
    observer.event(chunk(usage=USAGE, service_tier="default"))
    assert not observer.done
    observer.event(DONE)
    assert observer.done
    assert observer.result() == {"model": "gpt-4o-2024-08-06", "usage": USAGE, "service_tier": "default"}
    assert observer.output_characters == 5


def test_of_several_reports_the_last_one_counts() -> None:
    observer = watch("chat", chunk("a", usage={"prompt_tokens": 9, "completion_tokens": 1}), chunk("b", usage=USAGE))
    result = observer.result()
    assert result is not None
    assert result["usage"] == USAGE


def test_groq_reports_in_a_field_of_its_own() -> None:
    observer = watch("chat", event({"choices": [], "model": "m", "x_groq": {"usage": USAGE}}))
    assert observer.result() == {"model": "m", "usage": USAGE}


def test_only_the_usage_chunk_that_the_client_did_not_ask_for_is_hidden() -> None:
    usage_chunk, filter_chunk = chunk(usage=USAGE), chunk(prompt_filter_results=[], usage=None)
    with_text = chunk("x", usage=USAGE)
    said = chunk('"usage":{ "choices":[]')
    observer = watch("chat", hides_usage=True)
    hidden = [observer.hides(one) for one in (usage_chunk, filter_chunk, with_text, said, DONE, event(b'{"usage"'))]
    assert hidden == [True, False, False, False, False, False]
    assert not watch("chat").hides(usage_chunk)


def test_text_that_flowed_is_never_counted_too_low() -> None:
    delta: dict[str, Any] = {"reasoning_content": "abc", "content": 'say "hi" \\ ü 😀'}
    delta["tool_calls"] = [{"index": 0, "function": {"name": "f", "arguments": '{"a":1}'}}]
    observer = watch("chat", event({"choices": [{"delta": delta}]}))
    assert 3 + len(delta["content"]) + 7 <= observer.output_characters <= 60


def test_text_that_is_repeated_and_sound_are_not_counted() -> None:
    """An output that seems far longer than its tokens would be charged by its length."""
    for order in (("message", "delta"), ("delta", "message")):
        texts = {"message": {"content": "all the text so far"}, "delta": {"content": "far"}}
        observer = watch("chat", event({"choices": [{name: texts[name] for name in order}]}))
        assert observer.output_characters == 3
    sound = {"type": "response.audio.delta", "delta": "A" * 999}
    assert watch("responses", event(sound, "response.audio.delta")).output_characters == 0
    call_part = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "A" * 999}
    observer = watch("google", event({"candidates": [{"content": {"parts": [call_part]}}], "usageMetadata": {}}))
    assert 0 < observer.output_characters < 60


def test_responses_end_with_the_whole_response() -> None:
    usage = {"input_tokens": 5, "output_tokens": 7, "input_tokens_details": {"cached_tokens": 2}}
    for kind in ("response.completed", "response.incomplete", "response.failed"):
        final = {"type": kind, "response": {"model": "gpt-x", "usage": usage, "service_tier": "flex", "output": []}}
        for named in (True, False):
            observer = watch(
                "responses",
                event({"type": "response.created", "response": {"usage": None}}, "response.created" if named else ""),
                event(
                    {"type": "response.output_text.delta", "delta": "Hello"},
                    "response.output_text.delta" if named else "",
                ),
                event(
                    {"type": "response.output_text.done", "text": "Hello"}, "response.output_text.done" if named else ""
                ),
            )
            assert (observer.done, observer.output_characters, observer.result()) == (False, 5, None)
            observer.event(event(final, kind if named else ""))
            assert observer.done
            assert observer.result() == {"model": "gpt-x", "usage": usage, "service_tier": "flex"}


def anthropic_events() -> list[Event]:
    start = {"input_tokens": 10, "cache_read_input_tokens": 4, "cache_creation_input_tokens": 0, "output_tokens": 1}
    message = {"model": "claude-sonnet-4-5", "usage": {**start, "service_tier": "standard"}}
    return [
        event({"type": "message_start", "message": message}, "message_start"),
        event({"type": "ping"}, "ping"),
        event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hello"}}, "content_block_delta"),
        event(
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}},
            "content_block_delta",
        ),
        event({"type": "message_delta", "delta": {}, "usage": {"output_tokens": 8}}, "message_delta"),
        event({"type": "message_delta", "usage": {"output_tokens": 15, "input_tokens": None}}, "message_delta"),
        event({"type": "message_stop"}, "message_stop"),
    ]


@pytest.mark.parametrize("named", [True, False])
def test_anthropic_usage_is_cumulative_and_overwritten(named: bool) -> None:
    events = anthropic_events()
    if not named:
        events = [Event(one.raw, "", one.data) for one in events]
    observer = watch("anthropic", *events[:-1], route="anthropic.messages")
    assert not observer.done
    observer.event(events[-1])
    assert observer.done
    result = observer.result()
    assert result is not None
    assert result["model"] == "claude-sonnet-4-5"
    assert result["usage"] == {
        "input_tokens": 10,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "output_tokens": 15,
        "service_tier": "standard",
    }
    assert observer.output_characters == 7


def test_gemini_usage_is_that_of_the_last_chunk() -> None:
    def part(text: str, tokens: int) -> Event:
        content = {"parts": [{"text": text}], "role": "model"}
        return event(
            {
                "candidates": [{"content": content}],
                "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": tokens},
                "modelVersion": "gemini-x-001",
            }
        )

    observer = watch("google", part("Hello", 2), part(" world", 5), route="google.streamGenerateContent")
    assert not observer.done
    assert observer.output_characters == 11
    result = observer.result()
    assert result is not None
    assert result["usageMetadata"]["candidatesTokenCount"] == 5
    assert result["modelVersion"] == "gemini-x-001"


def test_images_transcriptions_and_speech_report_at_their_end() -> None:
    usage = {"input_tokens": 5, "output_tokens": 100, "input_tokens_details": {"text_tokens": 5, "image_tokens": 0}}
    finished = event({"type": "image_generation.completed", "b64_json": "AAAA", "usage": usage})
    partial = event({"type": "image_generation.partial_image", "b64_json": "AAAA"})
    observer = watch("images", partial, finished, finished)
    assert observer.result() == {
        "model": "asked",
        "usage": {
            "input_tokens": 10,
            "output_tokens": 200,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 0},
        },
    }
    tokens = {"type": "tokens", "input_tokens": 5, "output_tokens": 6}
    observer = watch(
        "transcription",
        event({"type": "transcript.text.delta", "delta": "Hi"}),
        event({"type": "transcript.text.done", "text": "Hi", "usage": tokens}),
    )
    assert observer.done
    assert (observer.output_characters, observer.result()) == (2, {"model": "asked", "usage": tokens})
    observer = watch("speech", event({"type": "speech.audio.done", "usage": {"input_tokens": 1, "output_tokens": 2}}))
    assert observer.done
    assert observer.result() is not None


@pytest.mark.parametrize(
    ("flavor", "answer", "expected"),
    [
        ("chat", {"model": "m", "usage": USAGE, "choices": []}, {"model": "m", "usage": USAGE}),
        ("chat", {"usage": USAGE}, {"model": "asked", "usage": USAGE}),
        ("chat", {"model": "m", "choices": []}, None),
        ("chat", {"error": {"message": "no"}}, None),
        ("responses", {"model": "m", "usage": {"input_tokens": 1}}, {"model": "m", "usage": {"input_tokens": 1}}),
        ("moderations", {"model": "m", "results": []}, None),
        ("transcription", {"text": "x", "usage": {"type": "duration", "seconds": 3}}, {"model": "asked", "usage": {"type": "duration", "seconds": 3}}),
        ("transcription", {"text": "x", "duration": 8.47}, {"model": "asked", "duration": 8.47}),
        ("images", {"created": 1, "data": [], "usage": {"input_tokens": 1}}, {"model": "asked", "usage": {"input_tokens": 1}}),
        ("embeddings", {"data": [[0.1]] * 2000, "model": "e", "usage": {"prompt_tokens": 8}}, {"model": "e", "usage": {"prompt_tokens": 8}}),
        ("embeddings", {"usage": {"prompt_tokens": 8}, "model": "e", "data": [[0.1]] * 2000}, {"model": "e", "usage": {"prompt_tokens": 8}}),
        ("anthropic", {"model": "c", "usage": {"input_tokens": 1}, "content": []}, {"model": "c", "usage": {"input_tokens": 1}}),
        ("google", {"modelVersion": "g", "usageMetadata": {"promptTokenCount": 1}}, {"model": "asked", "modelVersion": "g", "usageMetadata": {"promptTokenCount": 1}}),
        ("google", {"embedding": {"values": [1]}}, None),
        ("none", {"totalTokens": 5}, None),
    ],
)  # fmt: skip
def test_a_whole_answer_is_observed_at_once(flavor: str, answer: Any, expected: Any) -> None:
    observer = dialects.observer(call(flavor))
    observer.body(json.dumps(answer).encode())
    assert observer.result() == expected


def test_text_of_an_answer_without_usage_is_counted() -> None:
    observer = dialects.observer(call("chat"))
    observer.body(json.dumps({"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}).encode())
    assert (observer.result(), observer.output_characters) == (None, 5)


def test_genai_prices_reads_what_observers_give() -> None:
    observer = watch("anthropic", *anthropic_events(), route="anthropic.messages")
    usage = extract_usage(observer.result(), provider_id="anthropic").usage
    assert (usage.input_tokens, usage.output_tokens) == (14, 15)
    observer = watch("chat", chunk(usage=USAGE))
    usage = extract_usage(observer.result(), provider_id="openai", api_flavor="chat").usage
    assert (usage.input_tokens, usage.output_tokens) == (9, 3)
    observer = dialects.observer(call("google", "google.generateContent"))
    observer.body(
        json.dumps(
            {"modelVersion": "gemini-2.5-flash", "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2}}
        ).encode()
    )
    usage = extract_usage(observer.result(), provider_id="google").usage
    assert (usage.input_tokens, usage.output_tokens) == (7, 2)


NAMES = ["", "response.completed", "message_start", "message_delta", "content_block_delta", "error", "x.delta"]
PIECES = [
    '"usage":{', '"usage": 1', '{"usage":[]}', '"usageMetadata"', '{"response":7}', '{"message":[]}', '"type":"x.done"',
    '{"type":"image_edit.completed","usage":[1]}', '{"x_groq":3,"usage":{}}', "[DONE", "[" * 2000, "null", '{"usage":{"a":1}}',
    '{"usage":{"iterations":[1,{},{"model":3}]}}', '{"usage":{"a":1},"usage_breakdown":{"models":[{"usage":3},4]}}',
    '{"choices":[{"delta":{"executed_tools":[{"index":[]},5]},"finish_reason":{}}],"error":[]}', '"error":{"usage":[1]}',
    '{"usage":{"a":1},"tool_usage":{"web_search":3},"output":[{"type":[]},{"type":"web_search_call","action":7}]}',
    '{"usageMetadata":{"a":1},"candidates":[{"groundingMetadata":{"webSearchQueries":4,"groundingChunks":[1,{"maps":2}]}}]}',
    '{"candidates":[{"content":{"parts":[{"functionCall":1}]}}]}', '{"candidates":[1,{"content":[]}],"functionCall":1}',
]  # fmt: skip
DATA = st.binary(max_size=30) | st.lists(st.sampled_from(PIECES), max_size=4).map(lambda parts: "".join(parts).encode())


@given(st.sampled_from(sorted(FLAVORS)), st.lists(st.tuples(st.sampled_from(NAMES), DATA), max_size=6), DATA)
def test_no_garbage_makes_an_observer_raise(flavor: str, events: list[tuple[str, bytes]], body: bytes) -> None:
    observer = dialects.observer(call(flavor, hides_usage=True))
    for name, data in events:
        observer.event(event(data, name))
        observer.hides(event(data, name))
    observer.result()
    observer.cut(body)
    observer.body(body)
    result = observer.result()
    assert observer.complete in (True, False)
    assert result is None or isinstance(result, dict)
    assert observer.output_characters >= 0


def test_watching_a_stream_is_cheap() -> None:
    one = chunk("Hello there", usage=None)
    observer = watch("chat")
    started = time.process_time()
    for _ in range(5000):
        observer.event(one)
    assert (time.process_time() - started) / 5000 < 0.0001
    assert observer.output_characters == 11 * 5000


# Model lists


@pytest.mark.parametrize(
    ("route", "answer", "expected"),
    [
        (
            "openai.models",
            {"object": "list", "data": [{"id": "gpt-4o"}, {"id": "o3"}]},
            {"object": "list", "data": [{"id": "gpt-4o"}]},
        ),
        (
            "openai.models",
            {"object": "list", "data": [{"id": "models/gpt-4o"}], "models": [{"name": "o3"}], "extra": [{"id": "o3"}]},
            {"object": "list", "data": [{"id": "models/gpt-4o"}], "models": []},
        ),
        ("openai.models", [{"id": "gpt-4o"}, {"id": "o3"}, "o3", 3], [{"id": "gpt-4o"}]),
        ("openai.models", {"nothing": 1}, {"object": "list", "data": []}),
        ("openai.models", "text", {"object": "list", "data": []}),
        (
            "anthropic.models",
            {"data": [{"type": "model", "id": "gpt-4o"}, {"id": "x"}], "has_more": True, "last_id": "x"},
            {"data": [{"type": "model", "id": "gpt-4o"}], "has_more": True, "last_id": "x"},
        ),
        ("anthropic.models", None, {"data": [], "first_id": None, "has_more": False, "last_id": None}),
        (
            "google.models",
            {"models": [{"name": "models/gpt-4o"}, {"name": "models/x"}, {}], "nextPageToken": "t"},
            {"models": [{"name": "models/gpt-4o"}], "nextPageToken": "t"},
        ),
        ("google.models", {}, {"models": []}),
    ],
)
def test_a_model_list_shows_only_what_is_granted(route: str, answer: Any, expected: Any) -> None:
    body = json.dumps(answer).encode()
    asked = UpstreamCall(route=route, method="GET", path="/models")
    assert json.loads(dialects.filter_models(asked, body, lambda model: model.startswith("gpt-"))) == expected


def test_a_model_list_that_is_none_is_an_empty_one() -> None:
    asked = UpstreamCall(route="openai.models", method="GET", path="/models")
    for body in (b"", b"<html>", b"[" * 5000, b"\xff"):
        assert json.loads(dialects.filter_models(asked, body, lambda _: True)) == {"object": "list", "data": []}


# Errors, as the real SDKs raise them


class Server(ThreadingHTTPServer):
    """Answers everything with ``answer``: status, content type, body."""

    daemon_threads = True
    answer: tuple[int, str, bytes] = (200, "application/json", b"{}")


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        server = self.server
        assert isinstance(server, Server)
        status, kind, body = server.answer
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    running = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


MESSAGES: Any = [{"role": "user", "content": "hi"}]


def ask_openai(url: str) -> Iterator[Any]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="t", max_retries=0)
    return iter(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))


def ask_responses(url: str) -> Iterator[Any]:
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="t", max_retries=0)
    return iter(client.responses.create(model="m", input="x", stream=True))


def ask_anthropic(url: str) -> Iterator[Any]:
    client = anthropic.Anthropic(base_url=url, api_key="t", max_retries=0)
    return iter(client.messages.create(model="m", messages=MESSAGES, max_tokens=5, stream=True))


def ask_google(url: str) -> Iterator[Any]:
    client = genai.Client(api_key="t", http_options={"base_url": url})  # closes itself when nobody holds it
    yield from client.models.generate_content_stream(model="m", contents="hi")


Ask = Callable[[str], Iterator[Any]]
ASKERS: list[tuple[str, Ask, type[Exception], bytes]] = [
    ("openai", ask_openai, openai.APIError, chunk("half an ").raw),
    (
        "openai",
        ask_responses,
        openai.APIError,
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"x","sequence_number":1}\n\n',
    ),
    (
        "anthropic",
        ask_anthropic,
        anthropic.APIError,
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}\n\n',
    ),
    (
        "google",
        ask_google,
        gemini_errors.APIError,
        b'data: {"candidates": [{"content": {"parts": [{"text": "x"}]}}]}\n\n',
    ),
]


@pytest.mark.parametrize(("dialect", "ask", "kind", "before"), ASKERS, ids=["chat", "responses", "anthropic", "google"])
def test_an_error_in_mid_stream_is_raised_by_the_real_sdk(
    server: Server, dialect: str, ask: Ask, kind: type[Exception], before: bytes
) -> None:
    error = Cut("The owner has revoked this grant.", code="grant_revoked")
    server.answer = (200, "text/event-stream", before + dialects.error_event(dialect, error))
    stream = ask(f"http://127.0.0.1:{server.server_address[1]}")
    assert next(stream)
    with pytest.raises(kind, match="The owner has revoked this grant"):
        list(stream)


ERRORS: list[tuple[RelayError, type[Exception], type[Exception]]] = [
    (BadRequest("no", param="tools"), openai.BadRequestError, anthropic.BadRequestError),
    (Unauthorized("no"), openai.AuthenticationError, anthropic.AuthenticationError),
    (NotGranted("no"), openai.PermissionDeniedError, anthropic.PermissionDeniedError),
    (EndpointNotRelayed("no"), openai.NotFoundError, anthropic.NotFoundError),
    (LimitReached("no"), openai.RateLimitError, anthropic.RateLimitError),
    (UpstreamFailed("no"), openai.InternalServerError, anthropic.InternalServerError),
    (UpstreamTimeout("no"), openai.InternalServerError, anthropic.InternalServerError),
    (Unavailable("no"), openai.InternalServerError, anthropic.InternalServerError),
    (BadRequest("no", status=413), openai.APIStatusError, anthropic.APIStatusError),
    (RelayError("no"), openai.InternalServerError, anthropic.InternalServerError),
]


@pytest.mark.parametrize(("error", "by_openai", "by_anthropic"), ERRORS, ids=lambda value: str(value)[:30])
def test_an_error_before_the_stream_is_the_sdks_own_typed_exception(
    server: Server, error: RelayError, by_openai: type[Exception], by_anthropic: type[Exception]
) -> None:
    kinds = (by_openai, by_openai, by_anthropic, gemini_errors.APIError)
    for (dialect, ask, _, _), kind in zip(ASKERS, kinds, strict=True):
        body = json.dumps(dialects.error_body(dialect, error)).encode()
        server.answer = (error.status, "application/json", body)
        with pytest.raises(kind, match="no"):
            list(ask(f"http://127.0.0.1:{server.server_address[1]}"))


@pytest.mark.parametrize("dialect", list(dialects.DIALECTS))
def test_every_error_body_tells_code_and_field(dialect: str) -> None:
    body = json.dumps(dialects.error_body(dialect, BadRequest("It is\n wrong.", code="unknown_field", param="tools.x")))
    assert "unknown_field" in body.lower()
    assert "tools.x" in body
    event_bytes = dialects.error_event(dialect, BadRequest("two\n\nlines"))
    assert event_bytes.endswith(b"\n\n")
    assert event_bytes.count(b"\n\n") == 1
