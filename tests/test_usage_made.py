"""Everything that a model made counts, whatever it is called and wherever it stands; what it did not make does not."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants.models import Call
from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects.base import Event, Observer
from proxy.dialects.made import made, read, usual
from proxy.dialects.observers import FLAVORS
from proxy.pricing.metering import meter

from .answers import ANSWERS, Wire, died, relay
from .test_limits_attacks import Provider, asked, provider  # noqa: F401 - a fixture

CHAT = replace(ANSWERS["openai-chat.json"].call, stream=True)
LONG = "The roses bloom. " * 60
TALKS = ("chat", "responses", "anthropic", "google")


def watcher(flavor: str) -> Observer:
    return dialects.observer(replace(CHAT, flavor=flavor))


def streamed(flavor: str, *events: dict[str, Any], named: bool = True) -> int:
    """Bytes of text that are counted in a stream."""
    observer = watcher(flavor)
    for event in events:
        name = str(event["type"]) if named and "type" in event else ""
        observer.event(Event(b"", name, json.dumps(event).encode()))
    return observer.output_characters


def whole(flavor: str, answer: Any, *, refused: bool = False) -> int:
    observer = watcher(flavor)
    observer.body(json.dumps(answer).encode(), refused=refused)
    return observer.output_characters


def chunk(**delta: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}


def block(content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": content}


def added(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "response.output_item.added", "output_index": 0, "item": item}


def piece(kind: str) -> dict[str, Any]:
    return {"type": kind, "item_id": "i", "output_index": 0, "delta": LONG}


def parts(*found: dict[str, Any]) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": list(found), "role": "model"}}], "modelVersion": "gemini-2.5-flash"}


INPUT = {"id": LONG, "type": [LONG, {"model": 3.25}], LONG: True}  # names that are not counted elsewhere
MADE: dict[str, tuple[str, dict[str, Any], int]] = {
    "chat: name of a function": ("chat", chunk(tool_calls=[{"index": 0, "id": "x", "function": {"name": LONG}}]), 1),
    "chat: legacy name of a function": ("chat", chunk(function_call={"name": LONG, "arguments": LONG}), 2),
    "chat: input of a custom tool": ("chat", chunk(tool_calls=[{"type": "custom", "custom": {"input": LONG}}]), 1),
    "chat: arguments that are an object": ("chat", chunk(tool_calls=[{"function": {"arguments": INPUT}}]), 3),
    "chat: a refusal": ("chat", chunk(refusal=LONG), 1),
    "chat: a member that no list names": ("chat", chunk(musings=[{"id": LONG}]), 1),
    "chat: a tool that ran at Groq": ("chat", chunk(executed_tools=[{"type": "python", "arguments": LONG}]), 1),
    "responses: name of a function": ("responses", added({"type": "function_call", "name": LONG, "arguments": ""}), 1),
    "responses: arguments": ("responses", piece("response.function_call_arguments.delta"), 1),
    "responses: input of a custom tool": ("responses", piece("response.custom_tool_call_input.delta"), 1),
    "responses: code": ("responses", piece("response.code_interpreter_call_code.delta"), 1),
    "responses: a delta of another kind": ("responses", piece("response.dream.delta"), 1),
    "responses: an event of another kind": ("responses", {"type": "response.dream", "dream": LONG}, 1),
    "responses: commands": ("responses", added({"type": "shell_call", "action": {"commands": [LONG, LONG]}}), 2),
    "responses: typing": ("responses", added({"type": "computer_call", "action": {"type": "type", "text": LONG}}), 1),
    "responses: a patch": ("responses", added({"type": "apply_patch_call", "operation": {"diff": LONG}}), 1),
    "anthropic: name of a tool": ("anthropic", block({"type": "tool_use", "id": "t", "name": LONG, "input": {}}), 1),
    "anthropic: input of a tool": ("anthropic", block({"type": "tool_use", "name": "f", "input": INPUT}), 3),
    "anthropic: a server's tool": ("anthropic", block({"type": "server_tool_use", "input": {"query": LONG}}), 1),
    "anthropic: text of a start": ("anthropic", block({"type": "text", "text": LONG}), 1),
    "anthropic: a delta of another kind": (
        "anthropic",
        {"type": "content_block_delta", "index": 0, "delta": {"type": "dream_delta", "dream": LONG}},
        1,
    ),
    "google: a function call": ("google", parts({"functionCall": {"name": LONG, "args": INPUT}}), 4),
    "google: a piece of one": (
        "google",
        parts({"functionCall": {"partialArgs": [{"jsonPath": "$.x", "stringValue": LONG}], "willContinue": True}}),
        1,
    ),
    "google: code": ("google", parts({"executableCode": {"language": "PYTHON", "code": LONG}}), 1),
    "google: output of code": ("google", parts({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": LONG}}), 1),
    "google: a thought": ("google", parts({"text": LONG, "thought": True}), 1),
    "google: a part of another kind": ("google", parts({"dream": {"data": LONG}}), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("named", [True, False])
def test_whatever_a_model_made_counts(name: str, named: bool) -> None:
    flavor, event, times = MADE[name]
    assert times * len(LONG) <= streamed(flavor, event, named=named) <= times * len(LONG) + 150


@pytest.mark.parametrize("name", [name for name in MADE if not name.startswith("responses")])
def test_whatever_a_model_made_counts_in_a_whole_answer(name: str) -> None:
    flavor, event, times = MADE[name]
    answer: dict[str, Any] = event
    if flavor == "anthropic":
        answer = {"type": "message", "content": [event.get("content_block") or event["delta"]]}
    if flavor == "chat":
        answer = {"choices": [{"message": event["choices"][0]["delta"]}]}
    assert times * len(LONG) <= whole(flavor, answer) <= times * len(LONG) + 150


OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ids and names": ("chat", {"id": LONG, "model": LONG, "system_fingerprint": LONG, **chunk(role="assistant")}),
    "padding": ("chat", {**chunk(), "obfuscation": LONG}),
    "probabilities": ("chat", {"choices": [{"delta": {}, "logprobs": {"content": [{"token": LONG}]}}]}),
    "a picture": ("chat", chunk(images=[{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{LONG}"}}])),
    "sound": ("chat", chunk(audio={"id": "a", "data": LONG})),
    "what a search found": ("chat", {**chunk(), "citations": [LONG], "search_results": [{"title": LONG}]}),
    "what a filter found": ("chat", {**chunk(), "prompt_filter_results": [{"x": LONG}]}),
    "encrypted thoughts": ("chat", chunk(reasoning_details=[{"type": "reasoning.encrypted", "data": LONG}])),
    "the request": ("responses", {"type": "response.created", "response": {"instructions": LONG, "tools": [LONG]}}),
    "sound of a response": ("responses", piece("response.output_audio.delta")),
    "a drawing": ("responses", added({"type": "image_generation_call", "result": LONG})),
    "what was found in files": ("responses", added({"type": "file_search_call", "results": [{"text": LONG}]})),
    "tools of a server": ("responses", added({"type": "mcp_list_tools", "tools": [{"description": LONG}]})),
    "what a server's tool answered": ("responses", added({"type": "mcp_call", "output": LONG})),
    "a signature": (
        "anthropic",
        {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": LONG}},
    ),
    "thoughts that are hidden": ("anthropic", block({"type": "redacted_thinking", "data": LONG})),
    "what a tool found": ("anthropic", block({"type": "web_search_tool_result", "content": [{"title": LONG}]})),
    "a cited text": (
        "anthropic",
        {"type": "content_block_delta", "delta": {"type": "citations_delta", "citation": {"cited_text": LONG}}},
    ),
    "a picture of Gemini's": ("google", parts({"inlineData": {"mimeType": "image/png", "data": LONG}})),
    "a signed thought": ("google", parts({"thoughtSignature": LONG})),
    "grounding": ("google", {"candidates": [{"groundingMetadata": {"searchEntryPoint": {"renderedContent": LONG}}}]}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_no_model_made_does_not_count(name: str) -> None:
    """An output that seems far longer than its report would be charged by its length."""
    flavor, event = OTHERS[name]
    assert streamed(flavor, event) < 50


# Repeats


def test_what_a_response_repeats_counts_once_and_what_only_a_repeat_has_counts_too() -> None:
    item = {"type": "message", "content": [{"type": "output_text", "text": LONG}]}
    kinds = ("response.output_text.done", "response.content_part.done", "response.output_item.done")
    repeats = [
        {"type": kinds[0], "text": LONG},
        {"type": kinds[1], "part": item["content"][0]},
        {"type": kinds[2], "item": item},
        {"type": "response.completed", "response": {"output": [item, item], "instructions": LONG}},
    ]
    events = [piece("response.output_text.delta"), *repeats[:3]]
    for count in range(len(events)):
        assert streamed("responses", *events[: count + 1]) == len(LONG)
        assert streamed("responses", *events[1 : count + 1]) == min(count, 1) * len(LONG)
    assert streamed("responses", *events, *events) == 2 * len(LONG)
    assert streamed("responses", *events, *events, repeats[3]) == 2 * len(LONG)
    assert streamed("responses", *events, repeats[3]) == 2 * len(LONG)
    call = {"type": "custom_tool_call", "name": "f", "input": LONG}
    silent = [added({"type": "custom_tool_call", "name": "f", "input": ""}), {"type": kinds[2], "item": call}]
    assert streamed("responses", *events, *silent) == 2 * len(LONG) + 1


def test_text_that_only_a_message_beside_a_delta_has_counts() -> None:
    said = [{"choices": [{"delta": delta, "message": {"content": text}}]} for delta, text in (({}, "He"), ({}, LONG))]
    assert streamed("chat", *said) == len(LONG)
    assert streamed("chat", chunk(content=LONG), *said) == len(LONG)


# The usual event


STRINGS = st.text(max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(0, 10**6) | STRINGS
NAMES = ("id", "object", "model", "type", "index", "role", "content", "text", "arguments", "delta", "choices", "usage")
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from((*NAMES, "x", "args")), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=5), st.booleans())
def test_the_pattern_of_the_usual_event_finds_all_that_was_made(event: dict[str, Any], ascii_only: bool) -> None:
    data = json.dumps(event, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    if found := usual(data):
        assert len(found[2]) >= made(event)
        usage = event.get("usage")
        assert not usage or (isinstance(usage, dict) and (found[1] or found[3]))


@pytest.mark.slow
@pytest.mark.parametrize("flavor", TALKS)
@given(
    st.dictionaries(
        st.sampled_from((*NAMES, "x", "y", "input", "output", "data", "signature")), VALUES, min_size=1, max_size=4
    )
)
def test_the_input_of_a_tool_counts_whatever_its_members_are_called(flavor: str, given_: dict[str, Any]) -> None:
    texts = [value for value in given_.values() if isinstance(value, str)]
    least = sum(len(value.encode(errors="surrogatepass")) for value in (*texts, *given_))
    events = {
        "chat": chunk(tool_calls=[{"function": {"arguments": given_}}]),
        "responses": added({"type": "mcp_call", "arguments": given_}),
        "anthropic": block({"type": "tool_use", "input": given_}),
        "google": parts({"functionCall": {"args": given_}}),
    }
    assert streamed(flavor, events[flavor]) >= least


# Events that are cut


CUT = {name: MADE[name] for name in ("chat: arguments that are an object", "google: a function call")}
CUT |= {name: MADE[name] for name in ("anthropic: input of a tool", "responses: commands", "google: code")}


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("escaped", [True, False])
def test_an_event_that_is_cut_at_any_byte_counts_as_far_as_it_came(name: str, escaped: bool) -> None:
    flavor, event, _ = CUT[name]
    text = 'Größe "7"\n\\u {[' * 2
    event = json.loads(json.dumps(event).replace(LONG, json.dumps(text)[1:-1]))
    data = b"event: %s\ndata: " % str(event.get("type", "")).encode() if "type" in event else b"data: "
    start = len(data)
    data += json.dumps(event, ensure_ascii=escaped).encode()
    before = 0
    for end in range(start, len(data)):
        observer = watcher(flavor)
        observer.cut(data[:end])
        assert observer.output_characters >= before - 6  # half an escape or half a literal may be left out
        before = max(before, observer.output_characters)
    whole_event = watcher(flavor)
    whole_event.cut(data)
    assert before >= whole_event.output_characters - 6


@pytest.mark.parametrize("flavor", ["chat", "anthropic", "google", "responses"])
def test_a_json_answer_that_is_cut_at_any_byte_counts_as_far_as_it_came(flavor: str) -> None:
    bodies: dict[str, Any] = {
        "chat": {"id": "x", "choices": [{"message": {"content": LONG}}], "usage": {"prompt_tokens": 1}},
        "anthropic": {"id": "x", "content": [{"type": "text", "text": LONG}]},
        "google": {"candidates": [{"content": {"parts": [{"text": LONG}]}}]},
        "responses": {"id": "x", "output": [{"type": "message", "content": [{"text": LONG}]}]},
    }
    data = json.dumps(bodies[flavor]).encode()
    begin = data.index(LONG[:20].encode())
    for end in range(1, len(data)):
        observer = watcher(flavor)
        observer.body(data[:end])
        assert observer.output_characters >= min(max(end - begin, 0), len(LONG))


@pytest.mark.parametrize(
    "data", [b"", b"{", b'{"a', b'{"a":tr', b'{"a":[1,{"b":-', b'{"a":"\\', b'{"a":"\xf0\x9f', b"}{"]
)
def test_what_was_cut_anywhere_is_read(data: bytes) -> None:
    assert read(data) is not None


# Answers that are no answers


def test_a_page_and_an_empty_body_hold_nothing_that_a_model_made() -> None:
    for body in (b"", b"\n\n", b"<html>" + LONG.encode(), LONG.encode()):
        observer = watcher("chat")
        observer.body(body)
        assert (observer.output_characters, observer.result()) == (0, None)


@pytest.mark.parametrize(
    "error",
    [
        {"error": {"message": LONG, "type": "x", "param": LONG, "metadata": {"raw": LONG}}},
        {"detail": [{"loc": ["body"], "msg": LONG}]},
        {"message": LONG, "request_id": LONG},
        {"type": "error", "error": {"type": "overloaded_error", "message": LONG}, "request_id": LONG},
        {"error": {"code": 400, "message": LONG, "details": [{"reason": LONG}]}},
        {"error": LONG},
    ],
)
def test_the_words_of_an_error_are_its_providers(error: dict[str, Any]) -> None:
    for flavor in TALKS:
        assert whole(flavor, error, refused=True) == 0


def test_text_that_an_error_hands_out_counts() -> None:
    generated = {"error": {"message": "x", "code": "json_validate_failed", "failed_generation": LONG}}
    assert whole("chat", generated, refused=True) == whole("chat", generated) == len(LONG)
    assert streamed("chat", generated) == len(LONG)
    partial = {"error": {"message": "x"}, "choices": [{"message": {"content": LONG}}]}
    assert whole("chat", partial, refused=True) == len(LONG)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("max_cost", [5 * 10**9, None])
def test_an_error_that_hands_out_generated_text_is_charged_by_it(
    issue: Any,
    provider: Provider,  # noqa: F811
    max_cost: int | None,
) -> None:
    """Groq answers with a 400 where a tool call does not fit its schema, and shows the call."""
    provider.status = 400
    provider.body = json.dumps({"error": {"message": "no", "failed_generation": LONG}}).encode()
    limits = {"max_cost": max_cost} if max_cost else {}
    _, token = issue("groq", base_url=provider.url, **limits)
    call = asked(token, model="llama-3.3-70b-versatile", max_tokens=16_000)
    assert (call.outcome, call.status, call.estimated) == ("upstream_error", 400, True)
    assert call.output_tokens >= len(LONG) // 3
    assert call.cost is not None
    assert call.output_tokens * 790 <= call.cost
    assert max_cost is None or call.cost < call.reserved
    provider.body = json.dumps({"error": {"message": LONG}}).encode()
    assert asked(token, model="llama-3.3-70b-versatile", max_tokens=16_000).cost == 0
    assert Call.objects.open().count() == 0


@pytest.mark.django_db(transaction=True)
def test_an_error_that_is_too_long_to_be_read_is_charged_its_bound(
    issue: Any,
    provider: Provider,  # noqa: F811
) -> None:
    provider.status = 400
    provider.body = json.dumps({"error": {"message": "no", "failed_generation": LONG * 200}}).encode()
    _, token = issue("groq", base_url=provider.url, max_cost=5 * 10**9)
    call = asked(token, model="llama-3.3-70b-versatile", max_tokens=32_000)
    assert call.cost == call.reserved


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("status", "free"), [(400, False), (422, False), (413, True), (429, True)])
def test_an_error_whose_words_hide_generated_text_is_charged_its_bound(
    issue: Any,
    provider: Provider,  # noqa: F811
    status: int,
    free: bool,
) -> None:
    """Groq's words name every property that a tool call lacks, and the app chooses how many there are."""
    provider.status = status
    provider.body = json.dumps({"error": {"message": LONG * 200, "failed_generation": LONG}}).encode()
    _, token = issue("groq", base_url=provider.url, max_cost=5 * 10**9)
    call = asked(token, model="llama-3.3-70b-versatile", max_tokens=32_000)
    assert call.cost == (0 if free else call.reserved)


# Hostile answers


HOSTILE = {
    "quotes": b'""' * (4 << 20),
    "strings": b'{"choices":[' + b'"",' * (2 << 20),
    "lists": b"[" * (8 << 20),
    "a long list": b'{"delta":[' + b"[]," * (2 << 20) + b"[]]}",
    "objects": b'{"a":' * (1 << 20),
    "a number": b'{"delta":' + b"9" * (8 << 20) + b"}",
    "numbers": b'{"delta":{"x":[' + b"9," * (4 << 20) + b"9]}}",
    "backslashes": b'{"delta":"' + b"\\" * (8 << 20),
    "escapes": b'{"delta":"' + b'\\"' * (4 << 20) + b'"}',
    "spaces": b'{"delta"' + b" " * (8 << 20) + b':"x"}',
    "zeros": b'{"delta":{"content":"' + b"\0" * (8 << 20) + b'"}}',
    "not UTF-8": b'{"delta":{"content":"' + b"\xff" * (8 << 20) + b'"}}',
    "keys": b"{" + b'"index":1,' * (800 << 10) + b'"delta":"x","delta":"y"}',
    "reports": b'{"usage":{' * (800 << 10),
}
PIECES = 128  # of 64 KiB in 8 MiB


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("flavor", TALKS)
def test_hostile_events_take_little_time_and_count(flavor: str, name: str) -> None:
    name_of = {"anthropic": "content_block_delta", "responses": "response.x.delta"}.get(flavor, "")
    event = Event(b"", name_of, HOSTILE[name])
    for watch in ("event", "body", "cut"):
        observer = watcher(flavor)
        began = time.process_time()
        if watch == "event":
            observer.event(event)
        elif watch == "body":
            observer.body(event.data)
        else:
            observer.cut(b"event: " + name_of.encode() + b"\ndata: " + event.data)
        observer.result()
        assert observer.complete in (True, False)
        assert (time.process_time() - began) / PIECES < 0.004, watch


@pytest.mark.parametrize("depth", [50, 500, 5000, 50_000])
@pytest.mark.parametrize("flavor", sorted(FLAVORS))
def test_deep_nesting_raises_nothing_and_is_not_free(flavor: str, depth: int) -> None:
    for opened, closed in (
        (b'{"delta":', b"}"),
        (b'{"usage":', b"}"),
        (b'{"x":[', b"]}"),
        (b'{"usageMetadata":', b"}"),
    ):
        data = opened * depth + b'"' + LONG.encode() + b'"' + closed * depth
        observer = watcher(flavor)
        observer.event(Event(b"", "", data))
        observer.hides(Event(b"", "", data))
        observer.body(data)
        observer.result()
        observer.cut(b"data: " + data[:-3])
    if flavor in TALKS and flavor != "responses":
        observer = watcher(flavor)
        observer.event(Event(b"", "", b'{"delta":' * depth + b'"' + LONG.encode() + b'"' + b"}" * depth))
        assert observer.output_characters >= len(LONG)


def test_a_report_behind_too_much_to_be_parsed_is_found() -> None:
    listed = [{"token": "x", "top": [1, 2, 3]}] * 60_000
    answer = {
        "model": "gpt-4o",
        "choices": [{"logprobs": listed}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 7},
    }
    observer = watcher("chat")
    observer.body(json.dumps(answer).encode())
    assert observer.result() == {"model": "gpt-4o", "usage": answer["usage"]}


def test_the_estimate_of_a_usual_stream_stays_what_its_text_is() -> None:
    said = [chunk(role="assistant", content=""), *(chunk(content=word + " ") for word in LONG.split())]
    events = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in said]
    relayed = relay(CHAT, Wire(events, "text/event-stream", error=died()))
    assert relayed.observer.output_characters == len(LONG)
    used = meter(PROVIDERS["openai"], CHAT, None, output_characters=len(LONG))
    assert used.output_tokens == len(LONG) // 3
