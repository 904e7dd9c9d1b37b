"""A report is believed where it can be true: counts never shrink, parts are within the whole, text needs tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects.base import Demand, Event, Observer, UpstreamCall, Usage
from proxy.dialects.reports import grounded, merged
from proxy.pricing.counting import context, reported
from proxy.pricing.metering import meter

from .answers import ANSWERS, Wire, relay

CHAT = replace(ANSWERS["openai-chat.json"].call, stream=True)
TEXT = "The roses bloom. " * 200
MODELS = {
    "openai": "gpt-4o",
    "anthropic": "claude-haiku-4-5",
    "google": "gemini-2.0-flash",
    "groq": "llama-3.3-70b-versatile",
}
MODELS |= {
    "xai": "grok-3-mini",
    "azure": "gpt-4o",
    "bedrock": "openai.gpt-oss-120b-1:0",
    "mistral": "mistral-large-latest",
}


def asked(provider: str, flavor: str, *, hides: bool = False) -> UpstreamCall:
    model = MODELS[provider]
    demand = Demand(text=100, limit=4096, fields=frozenset({"model", "messages"}), messages=1)
    return replace(CHAT, models=(model,), flavor=flavor, demand=demand, input_characters=100, hides_usage=hides)


def metered(provider: str, flavor: str, observer: Observer, *, strict: bool = True) -> Usage:
    characters = observer.output_characters
    call = asked(provider, flavor)
    return meter(PROVIDERS[provider], call, observer.result(), output_characters=characters, strict=strict)


def whole(provider: str, flavor: str, answer: dict[str, Any]) -> Usage:
    observer = dialects.observer(asked(provider, flavor))
    observer.body(json.dumps(answer).encode())
    return metered(provider, flavor, observer)


def streamed(provider: str, flavor: str, *events: dict[str, Any] | bytes) -> Usage:
    observer = dialects.observer(asked(provider, flavor))
    for event in events:
        data = event if isinstance(event, bytes) else json.dumps(event).encode()
        observer.event(Event(b"", "" if isinstance(event, bytes) else str(event.get("type", "")), data))
    return metered(provider, flavor, observer)


def chat(usage: Any, text: str = TEXT) -> dict[str, Any]:
    return {"model": "gpt-4o", "choices": [{"index": 0, "message": {"content": text}}], "usage": usage}


def chunk(content: str | None, *, finish: str | None = None, **more: Any) -> dict[str, Any]:
    delta = {} if content is None else {"content": content}
    return {"model": "gpt-4o", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


def last(**usage: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "choices": [], "usage": usage}


END, DONE = chunk(None, finish="stop"), b"[DONE]"


# Whole answers


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": 20},
        {"prompt_tokens": 20, "completion_tokens": None},
        {"prompt_tokens": 20, "completion_tokens": 0},
        {"prompt_tokens": 507, "completion_tokens": 1},
        {"completion_tokens": "many"},
        {"total_tokens": 9},
        {},
        None,
        [],
    ],
)
def test_the_text_of_a_chat_counts_where_no_believable_count_came(usage: Any) -> None:
    used = whole("openai", "chat", chat(usage))
    assert used.output_tokens == len(TEXT)
    assert used.input_tokens >= 20
    assert used.estimated


@pytest.mark.parametrize(
    ("provider", "flavor", "answer"),
    [
        ("anthropic", "anthropic", {"content": [{"type": "text", "text": TEXT}], "usage": {"input_tokens": 20}}),
        ("openai", "responses", {"output": [{"content": [{"text": TEXT}]}], "usage": {"input_tokens": 20}}),
        (
            "google",
            "google",
            {"candidates": [{"content": {"parts": [{"text": TEXT}]}}], "usageMetadata": {"promptTokenCount": 20}},
        ),
        (
            "google",
            "google",
            {"candidates": [{"content": {"parts": [{"text": TEXT}]}}], "usageMetadata": {"candidatesTokenCount": 2}},
        ),
    ],
)
def test_the_text_of_any_answer_counts_where_no_believable_count_came(
    provider: str, flavor: str, answer: dict[str, Any]
) -> None:
    used = whole(provider, flavor, answer)
    assert used.output_tokens >= len(TEXT)
    assert used.input_tokens >= 20
    assert used.estimated


def test_a_count_that_can_be_read_is_not_lost_with_one_that_cannot() -> None:
    used = whole("openai", "chat", chat({"completion_tokens": 900}, "Hi"))
    assert (used.output_tokens, used.estimated) == (900, True)


def test_an_input_of_nothing_is_not_believed() -> None:
    used = whole("openai", "chat", chat({"prompt_tokens": 0, "completion_tokens": 9}, "Hi"))
    assert used.input_tokens >= 100
    assert (used.output_tokens, used.estimated) == (9, True)


def test_an_honest_report_is_taken_as_it_is() -> None:
    used = whole("openai", "chat", chat({"prompt_tokens": 20, "completion_tokens": 800, "total_tokens": 820}))
    assert (used.input_tokens, used.output_tokens, used.estimated) == (20, 800, False)
    quiet = whole("openai", "chat", chat({"prompt_tokens": 20, "completion_tokens": 0, "total_tokens": 20}, ""))
    assert (quiet.output_tokens, quiet.estimated) == (0, False)


def test_a_list_of_chunks_is_read_as_a_stream() -> None:
    """Gemini streams so where nobody asks for events."""
    chunks = [
        {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "usageMetadata": {"promptTokenCount": 7}},
        {
            "candidates": [{"finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9},
        },
    ]
    observer = dialects.observer(asked("google", "google"))
    observer.body(json.dumps(chunks).encode())
    used = metered("google", "google", observer)
    assert (used.input_tokens, used.output_tokens, used.estimated) == (7, 2, False)


# Totals


@pytest.mark.parametrize("provider", ["openai", "azure", "bedrock", "mistral", "groq", "xai"])
@pytest.mark.parametrize("completion", [10, 700])
def test_the_total_tells_whether_reasoning_is_within_the_output(provider: str, completion: int) -> None:
    if provider == "xai" and completion == 700:
        return  # its reasoning is always beside
    usage = {"prompt_tokens": 36, "completion_tokens": completion, "total_tokens": 736}
    usage["completion_tokens_details"] = {"reasoning_tokens": 690}  # type: ignore[assignment]
    counts = reported(provider, "chat", {"usage": usage})
    assert counts is not None
    assert (counts["input_tokens"], counts["output_tokens"]) == (36, 700)


def test_output_that_only_the_total_has_counts() -> None:
    """Gemini's OpenAI-shaped endpoint leaves thoughts out of everything else."""
    counts = reported("google", "chat", {"usage": {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 300}})
    assert counts is not None
    assert counts["output_tokens"] == 291
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "toolUsePromptTokenCount": 4, "totalTokenCount": 99}
    counts = reported("google", "google", {"usageMetadata": usage})
    assert counts is not None
    assert (counts["input_tokens"], counts["output_tokens"]) == (14, 85)
    counts = reported(
        "openai", "responses", {"usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 20}}
    )  # fmt: skip
    assert counts is not None
    assert counts["output_tokens"] == 10


def test_reasoning_above_the_output_is_beside_it_where_no_total_tells() -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": 690}}
    counts = reported("openai", "chat", {"usage": {"prompt_tokens": 36, "completion_tokens": 10, **details}})
    assert counts is not None
    assert counts["output_tokens"] == 700


def test_the_steps_of_an_answer_are_not_less_than_the_whole() -> None:
    step = {"input_tokens": 10, "output_tokens": 5}
    usage = {"input_tokens": 100, "output_tokens": 50, "iterations": [step, step]}
    used = whole("anthropic", "anthropic", {"model": MODELS["anthropic"], "content": [], "usage": usage})
    assert (used.input_tokens, used.output_tokens, used.estimated) == (100, 50, True)


# Several reports of one answer


LATER = [last(), last(prompt_tokens=0, completion_tokens=0), last(prompt_tokens=None), last(completion_tokens=2)]
LATER += [{"choices": [], "usage": None}, last(prompt_tokens=900, completion_tokens=1, total_tokens=901)]


@pytest.mark.parametrize("later", LATER)
def test_the_counts_of_a_chat_never_shrink(later: dict[str, Any]) -> None:
    better = last(prompt_tokens=900, completion_tokens=8, prompt_tokens_details={"cached_tokens": 100})
    for order in ([better, later], [later, better], [better, later, better]):
        used = streamed("openai", "chat", chunk("The roses are fine today."), END, *order, DONE)
        assert (used.input_tokens, used.output_tokens, used.cached_tokens, used.estimated) == (900, 8, 100, False)


def test_zeros_for_a_short_answer_are_not_believed() -> None:
    used = streamed("openai", "chat", chunk("Hi garden"), END, last(prompt_tokens=0, completion_tokens=0), DONE)
    assert (used.output_tokens, used.estimated) == (len("Hi garden"), True)
    assert used.input_tokens >= 100


def test_the_counts_of_a_claude_never_shrink() -> None:
    start = {"type": "message_start", "message": {"model": MODELS["anthropic"], "usage": {"input_tokens": 90}}}
    deltas = [{"output_tokens": 50, "cache_read_input_tokens": 7}, {"output_tokens": 0, "input_tokens": 0}]
    events = [{"type": "message_delta", "usage": usage} for usage in deltas]
    used = streamed("anthropic", "anthropic", start, *events, {"type": "message_stop"})
    assert used[:3] == (97, 50, 7)


def test_the_last_chunk_of_gemini_may_lack_counts() -> None:
    first = {"promptTokenCount": 9, "thoughtsTokenCount": 40, "candidatesTokenCount": 2}
    first["promptTokensDetails"] = [{"modality": "IMAGE", "tokenCount": 5}, {"modality": "TEXT", "tokenCount": 4}]  # type: ignore[assignment]
    final = {
        "promptTokenCount": 9,
        "candidatesTokenCount": 3,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4}],
    }
    used = streamed(
        "google",
        "google",
        {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "usageMetadata": first},
        {"candidates": [{"finishReason": "STOP"}], "usageMetadata": final},
    )
    assert (used.input_tokens, used.output_tokens, used.estimated) == (9, 43, False)


COUNTS = st.recursive(
    st.none() | st.integers(0, 99) | st.text(max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3) | st.lists(inner, max_size=2),
    max_leaves=6,
)
REPORTS = st.dictionaries(st.sampled_from("abc"), COUNTS, max_size=3)


@given(REPORTS, REPORTS)
def test_no_count_of_merged_reports_is_less_than_in_either(one: dict[str, Any], other: dict[str, Any]) -> None:
    both = merged(one, other)
    for name in one.keys() & other.keys():
        if type(one[name]) is int:
            assert both[name] >= one[name]
            assert type(other[name]) is not int or both[name] >= other[name]


def test_the_modalities_of_merged_reports_may_come_in_any_order() -> None:
    one = {"d": [{"modality": "TEXT", "tokenCount": 4}, {"modality": "AUDIO", "tokenCount": 9}]}
    other = {"d": [{"modality": "AUDIO", "tokenCount": 5}, {"modality": "TEXT", "tokenCount": 6}]}
    assert {item["modality"]: item["tokenCount"] for item in merged(one, other)["d"]} == {"TEXT": 6, "AUDIO": 9}


def test_an_image_without_a_report_is_not_hidden_by_those_with_one() -> None:
    done: dict[str, Any] = {"type": "image_generation.completed", "usage": {"input_tokens": 5, "output_tokens": 100}}
    observer = dialects.observer(asked("openai", "images"))
    for event in (done, {"type": "image_generation.completed"}):
        observer.event(Event(b"", "", json.dumps(event).encode()))
    assert observer.result() is None


# Where reports stand


def test_a_report_within_the_last_choice_is_read() -> None:
    """Moonshot's shape."""
    final = chunk(None, finish="stop")
    final["choices"][0]["usage"] = {"prompt_tokens": 10, "completion_tokens": 4}
    used = streamed("openai", "chat", chunk("Hi"), final, DONE)
    assert (used.input_tokens, used.output_tokens, used.estimated) == (10, 4, False)
    answer = chat(None, "Hi")
    answer["choices"][0]["usage"] = {"prompt_tokens": 10, "completion_tokens": 4}
    assert whole("openai", "chat", answer)[:2] == (10, 4)


@pytest.mark.parametrize("choices", [[], None])
@pytest.mark.parametrize("usage", [{"prompt_tokens": 3, "completion_tokens": 1}, None, {}])
def test_the_chunk_that_only_the_relay_asked_for_is_hidden(choices: Any, usage: Any) -> None:
    hidden = {"id": "c", "object": "chat.completion.chunk", "choices": choices, "usage": usage}
    call = asked("openai", "chat", hides=True)
    events = [b"data: " + json.dumps(one).encode() + b"\n\n" for one in (chunk("Hi"), hidden, END)] + [
        b"data: [DONE]\n\n"
    ]
    body = b"".join(events)
    for size in (1, 7, len(body)):
        cut = [body[start : start + size] for start in range(0, len(body), size)]
        relayed = relay(call, Wire(cut, "text/event-stream"))
        assert relayed.out == events[0] + events[2] + events[3]


@pytest.mark.parametrize(
    "shown",
    [
        chunk("Hi", usage={"prompt_tokens": 3}),
        chunk(None, usage=None),
        {"choices": [], "usage": None, "prompt_filter_results": [{"x": 1}]},
        {"choices": [], "usage": {"prompt_tokens": 3}, "error": {"message": "overloaded"}},
        {"choices": []},
    ],
)
def test_a_chunk_with_something_for_the_app_is_not_hidden(shown: dict[str, Any]) -> None:
    observer = dialects.observer(asked("openai", "chat", hides=True))
    assert not observer.hides(Event(b"", "", json.dumps(shown).encode()))


# What is billed beside tokens


@pytest.mark.parametrize("kind", ["dream_call", "code_interpreter_call", "shell_call", "browser_call", "anything"])
def test_an_item_of_an_unknown_kind_has_an_unknown_cost(kind: str) -> None:
    usage = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
    answer = {"model": "gpt-4o", "output": [{"type": "message", "content": []}], "usage": usage}
    assert whole("openai", "responses", answer).cost is not None
    answer["output"].append({"type": kind})  # type: ignore[attr-defined]
    assert whole("openai", "responses", answer).cost is None


@pytest.mark.parametrize(
    "kind", ["reasoning", "function_call", "custom_tool_call", "mcp_call", "mcp_list_tools", "computer_call"]
)
def test_an_item_that_costs_its_tokens_only_has_a_known_cost(kind: str) -> None:
    usage = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
    answer = {"model": "gpt-4o", "output": [{"type": kind}], "usage": usage}
    assert whole("openai", "responses", answer).cost is not None


def test_grounding_of_an_unknown_kind_has_an_unknown_cost() -> None:
    assert grounded({"groundingMetadata": {"searchEntryPoint": {"renderedContent": "x"}}}) == {"google_search": 1}
    assert grounded({"groundingMetadata": {"imageSearchQueries": ["x"]}}) == {"google_imageSearchQueries": 1}
    assert grounded({"groundingMetadata": {"groundingChunks": [{"dream": {}}]}}) == {"google_dream": 1}
    assert grounded({"groundingMetadata": {"groundingChunks": [{"retrievedContext": {}}]}}) == {}


def test_tools_that_only_xais_report_tells_of_have_an_unknown_cost() -> None:
    usage: dict[str, Any] = {"input_tokens": 9, "output_tokens": 9, "total_tokens": 18}
    answer = {"model": "grok-4.3", "output": [], "usage": usage}
    call = replace(asked("xai", "responses"), models=("grok-4.3",))
    for details, known in ({"x_search_calls": 0, "mcp_calls": 3}, True), ({"x_search_calls": 1}, False):
        observer = dialects.observer(call)
        observer.body(json.dumps({**answer, "usage": {**usage, "server_side_tool_usage_details": details}}).encode())
        assert (meter(PROVIDERS["xai"], call, observer.result(), output_characters=0).cost is not None) == known
    sourced = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18, "num_sources_used": 3}
    assert whole("xai", "chat", {**chat(sourced, "Hi"), "model": "grok-3-mini"}).cost is None


def test_a_kind_of_token_that_nobody_reads_has_an_unknown_cost() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 90, "total_tokens": 99}
    for kind, known in ("text_tokens", True), ("reasoning_tokens", True), ("image_tokens", False), ("x_tokens", False):
        answer = chat({**usage, "completion_tokens_details": {kind: 50}}, "Hi")
        assert (whole("openai", "chat", answer).cost is not None) == known
        answer = chat({**usage, "completion_tokens_details": {kind: 0}}, "Hi")
        assert whole("openai", "chat", answer).cost is not None


def test_the_traffic_that_gemini_says_it_was_is_a_tier() -> None:
    assert context({"usageMetadata": {"trafficType": "ON_DEMAND"}}) == (("service_tier", "on_demand"),)
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 9, "trafficType": "ON_DEMAND_PRIORITY"}
    answer = {"candidates": [{"finishReason": "STOP"}], "modelVersion": "gemini-2.0-flash", "usageMetadata": usage}
    assert whole("google", "google", answer).cost is None


# Odd answers


def test_a_report_by_other_names_is_read_where_the_right_ones_are_missing() -> None:
    used = whole("openai", "responses", {"output": [], "usage": {"prompt_tokens": 50, "completion_tokens": 1000}})
    assert (used.input_tokens, used.output_tokens, used.estimated) == (132, 1000, True)
    used = whole("openai", "chat", chat({"prompt_tokens": 500, "total_tokens": 1500}, "Hi"))
    assert (used.input_tokens, used.output_tokens, used.estimated) == (500, 1000, True)
    call = replace(asked("openai", "embeddings"), models=("text-embedding-3-small",))
    observer = dialects.observer(call)
    observer.body(b'{"data":[],"model":"text-embedding-3-small","usage":{"total_tokens":5000}}')
    used = meter(PROVIDERS["openai"], call, observer.result(), output_characters=0)
    assert (used.input_tokens, used.estimated) == (5000, True)


def test_reasoning_that_stands_beside_the_details_counts() -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 10, "reasoning_tokens": 990}
    assert whole("openai", "chat", chat(usage, "Hi")).output_tokens == 1000


@pytest.mark.parametrize("named", ["message", "", "data"])
def test_the_type_of_an_event_is_read_from_its_data_where_its_name_is_none(named: str) -> None:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"model": MODELS["anthropic"], "usage": {"input_tokens": 50}}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "message_delta", "usage": {"output_tokens": 100}},
        {"type": "message_stop", "usage": {"output_tokens": 1000}},
    ]
    observer = dialects.observer(asked("anthropic", "anthropic"))
    for event in events:
        observer.event(Event(b"", named, json.dumps(event).encode()))
    assert observer.done
    assert metered("anthropic", "anthropic", observer)[:2] == (50, 1000)
    observer = dialects.observer(asked("openai", "responses"))
    final = {"output": [], "usage": {"input_tokens": 50, "output_tokens": 1000}}
    for event in ({"type": "response.output_text.delta", "delta": "Hi"}, {"type": "response.done", "response": final}):
        observer.event(Event(b"", named, json.dumps(event).encode()))
    assert (observer.done, observer.output_characters) == (True, 2)
    assert metered("openai", "responses", observer)[:2] == (50, 1000)


@pytest.mark.parametrize(
    ("flavor", "answer"),
    [
        ("responses", {"output_text": TEXT, "output": []}),
        ("responses", {"choices": [{"message": {"content": TEXT}}]}),
        ("chat", {"message": {"role": "assistant", "content": TEXT}}),
        ("chat", {"response": TEXT}),
        ("chat", {"output": TEXT}),
        ("chat", {"choices": [{"message": {"data": TEXT, "result": TEXT}}]}),
        ("anthropic", {"content": TEXT}),
    ],
)
def test_text_in_a_place_of_another_format_counts(flavor: str, answer: dict[str, Any]) -> None:
    provider = "anthropic" if flavor == "anthropic" else "openai"
    assert whole(provider, flavor, answer).output_tokens >= len(TEXT)


ZEROS = {"input_tokens": 0, "output_tokens": 0, "input_tokens_details": {"text_tokens": 0, "image_tokens": 0}}


@pytest.mark.parametrize(
    ("flavor", "model"),
    [("images", "gpt-image-1"), ("speech", "gpt-4o-mini-tts"), ("transcription", "gpt-4o-transcribe")],
)
def test_a_report_of_nothing_for_what_was_made_is_not_believed(flavor: str, model: str) -> None:
    demand = Demand(pictures=1, characters=100, audio=(60,))
    call = replace(CHAT, models=(model,), flavor=flavor, demand=demand)
    answer = {"model": model, "text": "Hi", "usage": {"type": "tokens", **ZEROS}}
    usage = meter(PROVIDERS["openai"], call, answer, output_characters=2)
    assert (usage.cost, usage.estimated) == (None, True)
