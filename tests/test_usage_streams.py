"""Answers that end before their end: what flowed is charged, upward and marked so, and the client is told."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects.base import Event, Usage
from proxy.exceptions import UpstreamTimeout
from proxy.pricing.metering import meter

from .answers import ANSWERS, STREAMS, Answer, Relayed, Wire, died, pieces, relay, result

EACH = pytest.mark.parametrize("answer", STREAMS.values(), ids=STREAMS)
FINE = {name: answer for name, answer in STREAMS.items() if "outcome" not in answer.head}
WRITTEN = {"chat", "responses", "anthropic", "google"}
TERMINAL = {"chat", "responses", "anthropic", "transcription", "speech"}  # their streams say when they are complete


def stream(answer: Answer, events: list[bytes], **more: object) -> Relayed:
    wire = Wire(events, answer.content_type, **more)  # type: ignore[arg-type]
    return relay(answer.call, wire)


def metered(answer: Answer, relayed: Relayed) -> Usage:
    observer = relayed.observer
    provider = PROVIDERS[answer.head["provider"]]
    return meter(provider, answer.call, observer.result(), output_characters=observer.output_characters)


def chunk(delta: object, finish_reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    body = {"object": "chat.completion.chunk", "model": "gpt-4o", "choices": [choice], **more}
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def chat(*events: bytes, **more: object) -> Relayed:
    return relay(CHAT, Wire(events, "text/event-stream", **more))  # type: ignore[arg-type]


CHAT = replace(ANSWERS["openai-chat.json"].call, stream=True)
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


# Cut at every place


@EACH
def test_a_stream_that_dies_at_any_event_is_charged_at_least_for_what_flowed(answer: Answer) -> None:
    """Never less than a token for three bytes of text, and marked unless the last report had come."""
    flowed = 0
    for count in range(len(answer.events)):
        relayed = stream(answer, answer.events[:count], error=died())
        usage = metered(answer, relayed)
        assert relayed.observer.output_characters >= flowed
        flowed = relayed.observer.output_characters
        if answer.head["flavor"] in WRITTEN:
            assert usage.output_tokens >= -(-flowed // 3) or not usage.estimated
        if not usage.estimated:
            assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens) == answer.tokens


@EACH
def test_a_stream_that_dies_before_its_end_tells_its_client(answer: Answer) -> None:
    relayed = stream(answer, answer.events[:-1], error=died())
    if relayed.observer.done:
        return
    assert relayed.outcome == "upstream_broken"
    assert relayed.out.startswith(b"".join(answer.events[:-1]))
    assert b"The provider broke off." in relayed.out


@pytest.mark.parametrize("answer", FINE.values(), ids=FINE)
@pytest.mark.parametrize("who", ["the client", "a revocation"])
def test_a_stream_that_is_left_or_revoked_is_charged_for_what_flowed(answer: Answer, who: str) -> None:
    leaves, cut = (1, None) if who == "the client" else (None, 1)
    relayed = relay(answer.call, Wire(answer.events, answer.content_type), leaves_after=leaves, cut_after=cut)
    if relayed.observer.done or len(answer.events) == 1:
        return  # its first event was its last
    assert relayed.outcome == ("client_gone" if who == "the client" else "revoked")
    assert metered(answer, relayed).estimated


def test_the_text_of_an_event_that_was_cut_in_two_counts() -> None:
    first, second = chunk({"content": "Hello"}), chunk({"content": "a long way to go"})
    half = second[: second.index(b"way") + 3]
    assert chat(first, half, error=died()).observer.output_characters == len("Hello") + len("a long way")
    mute = b'event: response.audio.delta\ndata: {"type":"response.audio.delta","delta":"AAAAAAAAAAAA'
    call = ANSWERS["openai-responses-flex.sse"].call
    assert relay(call, Wire([mute], "text/event-stream", error=died())).observer.output_characters == 0


def test_the_text_of_a_json_answer_that_was_cut_counts() -> None:
    answer = ANSWERS["openai-chat.json"]
    data = answer.body[: answer.body.index(b"assist you") + len(b"assist you")]
    for relayed in (
        relay(answer.call, Wire(pieces(data, 50), answer.content_type, error=died())),
        relay(answer.call, Wire([*pieces(data, 50), b""], answer.content_type, length=9999)),
        relay(answer.call, Wire(pieces(answer.body, 50), answer.content_type), leaves_after=len(data) // 50),
    ):
        assert relayed.outcome in ("upstream_broken", "client_gone")
        assert relayed.observer.output_characters >= len("Hello! How can I")
        assert metered(answer, relayed).estimated


def test_a_report_that_arrived_whole_counts_though_the_connection_broke_behind_it() -> None:
    answer = ANSWERS["openai-chat.json"]
    relayed = relay(answer.call, Wire([answer.body], answer.content_type, error=died()))
    assert relayed.outcome == "upstream_broken"
    assert metered(answer, relayed) == Usage(8, 9, 0, 6600)


# Streams that end cleanly, too early


@pytest.mark.parametrize("name", [name for name, answer in FINE.items() if answer.head["flavor"] in TERMINAL])
def test_a_stream_that_ends_cleanly_without_its_last_event_is_broken(name: str) -> None:
    answer = FINE[name]
    beginning = answer.events[:1]
    relayed = stream(answer, beginning)
    assert relayed.outcome == "upstream_broken"
    told = relayed.out.removeprefix(beginning[0])
    assert told.endswith(b"\n\n")
    assert b'"error"' in told
    assert b"The provider ended its answer too early." in told
    assert metered(answer, relayed).estimated


def test_an_empty_stream_is_no_answer() -> None:
    relayed = chat()
    assert relayed.outcome == "upstream_broken"
    assert b"too early" in relayed.out


@pytest.mark.parametrize(
    "end",
    [
        [chunk({}, "stop")],
        [chunk({}, "stop", usage=USAGE)],
        [chunk({}, "stop"), b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n'],
        [chunk({}, "stop"), b": bye\n\n"],
        [b"data: [DONE]\n\n"],
        [b"data: [DONE]\n"],  # and no blank line
        [b"data: [DONE]"],
        [chunk({}, "stop").rstrip()],
    ],
)  # fmt: skip
def test_a_server_that_leaves_out_the_done_event_is_complete_where_it_says_that_it_finished(end: list[bytes]) -> None:
    relayed = chat(chunk({"content": "Hello"}), *end)
    assert relayed.outcome == "ok"
    assert relayed.out == b"".join([chunk({"content": "Hello"}), *end])


def test_of_several_candidates_all_must_have_finished() -> None:
    """The last chunk says so: whoever finishes first sends no more."""
    one = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    other = b'data: {"choices":[{"index":1,"delta":{"content":"I am"},"finish_reason":null}]}\n\n'
    assert chat(one, other).outcome == "upstream_broken"
    assert chat(other, one).outcome == "ok"


def test_a_gemini_stream_may_end_anywhere_but_is_estimated_without_a_reason_to_finish() -> None:
    answer = STREAMS["google-generate-chunks.sse"]
    relayed = stream(answer, answer.events[:2])
    assert relayed.outcome == "ok"
    usage = metered(answer, relayed)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (18, 79 + 35, True)
    assert not metered(answer, stream(answer, answer.events)).estimated


def test_a_stream_shorter_than_its_announced_length_is_broken_and_says_so() -> None:
    relayed = chat(chunk({"content": "Hello"}), DONE[:-3], length=1000)
    assert relayed.outcome == "upstream_broken"
    assert b"too early" in relayed.out


def test_a_stream_of_announced_length_is_settled_with_its_last_bytes() -> None:
    events = [chunk({"content": "Hello"}), chunk({}, "stop", usage=USAGE)]
    body = relay(CHAT, Wire(events, "text/event-stream", length=sum(map(len, events))), leaves_after=2)
    assert body.outcome == "ok"


def test_what_is_hidden_stays_hidden_where_the_last_blank_line_is_missing() -> None:
    call = replace(CHAT, hides_usage=True)
    usage = b'data: {"model":"gpt-4o","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}'
    relayed = relay(call, Wire([chunk({}, "stop"), usage], "text/event-stream"))
    assert relayed.out == chunk({}, "stop")
    assert result(relayed)["usage"] == {"prompt_tokens": 9, "completion_tokens": 3}


# Errors within an answer


@pytest.mark.parametrize(
    "told",
    [
        b'data: {"error":{"message":"overloaded","type":"server_error"}}\n\n',
        b'event: error\ndata: {"message":"overloaded"}\n\n',
        chunk({"content": ""}, "error", error={"code": 502, "message": "overloaded"}),
    ],
)
def test_an_error_in_mid_stream_is_the_providers_and_is_passed_on_as_it_is(told: bytes) -> None:
    for end in ([], [DONE]):
        relayed = chat(chunk({"content": "Hello"}), told, *end)
        assert relayed.outcome == "upstream_error"
        assert relayed.out == b"".join([chunk({"content": "Hello"}), told, *end])
    left = relay(CHAT, Wire([chunk({"content": "Hello"}), told, b": more"], "text/event-stream"), leaves_after=2)
    assert left.outcome == "upstream_error"  # SDKs leave when they read it


@pytest.mark.parametrize("said", ['"error": {', "error", '{"error": "x"}'])
def test_talk_of_errors_is_no_error(said: str) -> None:
    assert chat(chunk({"content": said}), chunk({}, "stop", error=None), DONE).outcome == "ok"


@pytest.mark.parametrize("named", [True, False])
def test_a_responses_stream_that_ends_with_an_error_event_failed(named: bool) -> None:
    call = ANSWERS["openai-responses-flex.sse"].call
    told = b"event: error\n" * named + b'data: {"type":"error","code":"server_error","message":"no","param":null}\n\n'
    relayed = relay(call, Wire([told], "text/event-stream"))
    assert (relayed.outcome, relayed.out) == ("upstream_error", told)


def test_a_gemini_stream_that_ends_with_an_error_failed() -> None:
    answer = STREAMS["google-generate-chunks.sse"]
    told = b'data: {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}\r\n\r\n'
    relayed = stream(answer, [answer.events[0], told])
    assert relayed.outcome == "upstream_error"
    assert metered(answer, relayed).estimated


@pytest.mark.parametrize("status", [200, 400, 429, 500])
@pytest.mark.parametrize("where", ["beside the error", "within the error"])
def test_an_error_that_carries_usage_is_charged(status: int, where: str) -> None:
    error: dict[str, object] = {"message": "The output is no valid JSON.", "code": "json_validate_failed"}
    body = (
        {"error": error, "model": "gpt-4o", "usage": USAGE} if where[0] == "b" else {"error": error | {"usage": USAGE}}
    )
    relayed = relay(
        replace(CHAT, models=("gpt-4o",)), Wire([json.dumps(body).encode()], "application/json", status=status)
    )
    assert relayed.outcome == "upstream_error"
    assert metered(ANSWERS["openai-chat.json"], relayed).output_tokens == 3
    assert result(relayed)["usage"] == USAGE


# Text, and what is none


def text(flavor: str, event: bytes, name: str = "") -> int:
    observer = dialects.observer(replace(CHAT, flavor=flavor))
    observer.event(Event(b"", name, event))
    return observer.output_characters


@pytest.mark.parametrize(
    ("flavor", "event", "least", "most"),
    [
        ("chat", '{"choices":[{"delta":{"content":"你好"}}]}', 6, 6),  # a token a character at least
        ("chat", '{"choices":[{"delta":{"content":"\\u4f60"}}]}', 3, 6),
        ("chat", '{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\\"a\\":1}"}}]}}]}', 7, 9),
        ("chat", '{"choices":[{"delta":{"reasoning_content":"Hm","content":null}}]}', 2, 2),
        ("chat", '{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"text":"Hm"}]}]}}]}', 2, 2),
        ("chat", '{"choices":[{"delta":{"images":[{"image_url":{"url":"data:image/png;base64,AAAA"}}]}}]}', 0, 0),
        ("chat", '{"choices":[{"delta":{"audio":{"data":"AAAAAAAA","transcript":"Hi"}}}]}', 2, 2),
        ("chat", '{"choices":[{"message":{"content":"all at once"}}]}', 11, 11),  # a stream of one whole answer
        ("anthropic", '{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{}"}}', 2, 2),
        ("anthropic", '{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"AAAA"}}', 0, 0),
        ("anthropic", '{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"Hm"}}', 2, 2),
        ("google", '{"candidates":[{"content":{"parts":[{"inlineData":{"data":"AAAA"}}]}}]}', 0, 0),
        ("google", '{"candidates":[{"content":{"parts":[{"text":"Hm","thought":true}]}}]}', 2, 2),
        ("google", '{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"a":1}}}]}}]}', 15, 50),
        ("responses", '{"type":"response.reasoning_summary_text.delta","delta":"Hm"}', 2, 2),
        ("responses", '{"type":"response.code_interpreter_call_code.delta","delta":"1+1"}', 3, 3),
        ("responses", '{"type":"response.image_generation_call.partial_image","partial_image_b64":"AAAA"}', 0, 0),
    ],
)  # fmt: skip
def test_text_counts_in_bytes_and_pictures_and_sound_do_not(flavor: str, event: str, least: int, most: int) -> None:
    assert least <= text(flavor, event.encode()) <= most


# What only some reports have


def test_a_later_chunk_does_not_hide_the_searches_of_an_earlier_one() -> None:
    answer = STREAMS["google-generate-chunks.sse"]
    grounded = (
        b'data: {"candidates":[{"content":{},"groundingMetadata":{"webSearchQueries":["x","y"]}}],'
        b'"usageMetadata":{"promptTokenCount":18},"modelVersion":"gemini-2.5-flash"}\n\n'
    )
    relayed = stream(answer, [grounded, grounded, answer.events[2]])
    assert result(relayed)["tools"] == {"google_search": 2}


def test_a_tool_that_groq_ran_is_counted_once_however_often_a_stream_tells_of_it() -> None:
    ran = chunk({"executed_tools": [{"index": 0, "type": "search", "arguments": "{}"}]})
    relayed = chat(ran, ran, chunk({}, "stop", usage=USAGE), DONE)
    assert result(relayed)["tools"] == {"groq_search": 1}


def test_pages_that_a_web_search_opens_are_not_searches() -> None:
    actions = ({"type": "search"}, {"type": "open_page"}, {"type": "find_in_page"}, {})
    items = [{"type": "web_search_call", "action": action} for action in actions] + [{"type": "web_search_call"}]
    body = {"model": "gpt-4o", "output": items, "usage": {"input_tokens": 1, "output_tokens": 1}}
    call = replace(CHAT, flavor="responses")
    assert result(relay(call, Wire([json.dumps(body).encode()], "application/json")))["tools"] == {"web_search_call": 3}
    counted = body | {"tool_usage": {"web_search": {"num_requests": 2}}}
    assert result(relay(call, Wire([json.dumps(counted).encode()], "application/json")))["tools"] == {
        "web_search_call": 2
    }


def test_a_search_of_several_steps_is_counted_once() -> None:
    step = {"input_tokens": 5, "output_tokens": 5, "type": "message"}
    usage = {"input_tokens": 10, "output_tokens": 10, "iterations": [step, step], "service_tier": "priority"}
    body = {"model": "claude-sonnet-4-5", "usage": usage | {"server_tool_use": {"web_search_requests": 2}}}
    call = ANSWERS["anthropic-messages.json"].call
    parts = result(relay(call, Wire([json.dumps(body).encode()], "application/json")))["parts"]
    assert [part["usage"].get("server_tool_use") for part in parts] == [{"web_search_requests": 2}, None]
    assert {part["usage"]["service_tier"] for part in parts} == {"priority"}
    assert {part["model"] for part in parts} == {"claude-sonnet-4-5"}


def test_a_silent_provider_is_told_apart_from_one_that_broke_off() -> None:
    silent = UpstreamTimeout("The provider was silent.")
    assert chat(chunk({"content": "Hello"}), error=silent).outcome == "upstream_timeout"
    assert chat(chunk({"content": "Hello"}), error=died()).outcome == "upstream_broken"
