"""The output limit goes out in the field that server and model obey, and everything in the body agrees with it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects.base import Inbound, UpstreamCall
from proxy.exceptions import BadRequest, NotGranted

DEFAULT = 4096
BODIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat": ("openai", "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    "completions": ("openai", "/v1/completions", {"model": "m", "prompt": "x"}),
    "responses": ("openai", "/v1/responses", {"model": "m", "input": "x"}),
    "anthropic": ("anthropic", "/v1/messages", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    "google": ("google", "/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]}),
    "embeddings": ("openai", "/v1/embeddings", {"model": "m", "input": "x"}),
}
FIELD = {
    "completions": "max_tokens",
    "responses": "max_output_tokens",
    "anthropic": "max_tokens",
}


def read(what: str, provider: str | None = None, default: int | None = DEFAULT, **changes: Any) -> UpstreamCall:
    usual, path, body = BODIES[what]
    inbound = Inbound("POST", path, content_type="application/json", body=json.dumps({**body, **changes}).encode())
    return dialects.read(inbound, PROVIDERS[provider or usual], (), default)


def sent(call: UpstreamCall) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(call.json or b"")
    return body


# Thinking budgets


@pytest.mark.parametrize("budget", [64000.0, "64000", True, [64000]])
@pytest.mark.parametrize(
    ("what", "provider"), [("anthropic", "anthropic"), ("chat", "anthropic"), ("chat", "fireworks")]
)
def test_a_thinking_budget_that_is_no_whole_number_is_refused(what: str, provider: str, budget: Any) -> None:
    """Where thinking is interleaved a budget above the limit is what holds, and servers read 64000.0 as a number."""
    with pytest.raises(BadRequest, match="budget_tokens"):
        read(what, provider, max_tokens=2048, thinking={"type": "enabled", "budget_tokens": budget})


# Which field


@pytest.mark.parametrize(
    ("provider", "model", "field"),
    [
        ("openai", "gpt-4o", "max_completion_tokens"),
        ("openai", "o3-mini", "max_completion_tokens"),
        ("azure", "my-deployment", "max_completion_tokens"),
        ("groq", "llama-3.3-70b", "max_completion_tokens"),
        ("cerebras", "llama3.1-8b", "max_completion_tokens"),
        ("xai", "grok-4", "max_completion_tokens"),
        ("mistral", "mistral-large-latest", "max_tokens"),
        ("deepseek", "deepseek-reasoner", "max_tokens"),
        ("together", "meta/llama", "max_tokens"),
        ("custom", "qwen3:32b", "max_tokens"),
        ("custom", "gpt-oss-20b", "max_tokens"),
        ("custom", "gpt-5-mini", "max_completion_tokens"),
        ("openrouter", "openai/o3", "max_completion_tokens"),
        ("bedrock", "openai.gpt-oss-120b-1:0", "max_tokens"),
        ("anthropic", "claude-sonnet-4-5", "max_tokens"),
        ("google", "gemini-2.5-flash", "max_tokens"),
        ("sandbox", "sandbox-1", "max_tokens"),
    ],
)
def test_a_chat_without_a_limit_gets_the_grants_default_in_the_field_that_the_server_obeys(
    provider: str, model: str, field: str
) -> None:
    call = read("chat", provider, model=model)
    assert call.demand.limit == DEFAULT
    body = sent(call)
    assert {name: body[name] for name in ("max_tokens", "max_completion_tokens") if name in body} == {field: DEFAULT}


@pytest.mark.parametrize(("what", "field"), FIELD.items())
def test_other_text_routes_get_the_default_in_their_own_field(what: str, field: str) -> None:
    assert sent(read(what))[field] == DEFAULT
    assert sent(read(what, **{field: None}))[field] == DEFAULT
    call = read(what, **{field: 77})
    assert (sent(call)[field], call.demand.limit) == (77, 77)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"generationConfig": None},
        {"generation_config": None},
        {"generationConfig": {}},
        {"generationConfig": {"maxOutputTokens": None}},
        {"generation_config": {"max_output_tokens": None}},
        {"generation_config": {"temperature": 1}},
    ],
)
def test_gemini_gets_the_default_in_the_spelling_that_the_client_uses(body: dict[str, Any]) -> None:
    call = read("google", **body)
    assert call.demand.limit == DEFAULT
    configs = [value for name, value in sent(call).items() if name in ("generationConfig", "generation_config")]
    assert len(configs) == 1
    limits = [value for name, value in configs[0].items() if name in ("maxOutputTokens", "max_output_tokens")]
    assert limits == [DEFAULT]


@pytest.mark.parametrize("config", ["generationConfig", "generation_config"])
@pytest.mark.parametrize("name", ["maxOutputTokens", "max_output_tokens"])
def test_gemini_is_read_and_lowered_in_either_spelling(config: str, name: str) -> None:
    call = read("google", **{config: {name: 900, "temperature": 0}})
    assert call.demand.limit == 900
    assert sent(call.limited(100))[config] == {name: 100, "temperature": 0}


@pytest.mark.parametrize("provider", ["openai", "azure", "groq", "anthropic", "openrouter"])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_the_clients_own_field_is_kept_where_the_server_knows_both(provider: str, name: str) -> None:
    call = read("chat", provider, **{name: 50})
    body = sent(call)
    assert {key: body[key] for key in ("max_tokens", "max_completion_tokens") if key in body} == {name: 50}
    assert call.demand.limit == 50


@pytest.mark.parametrize("provider", ["custom", "deepseek", "mistral", "together"])
def test_a_server_that_may_ignore_the_clients_field_gets_the_limit_in_its_own(provider: str) -> None:
    body = sent(read("chat", provider, max_completion_tokens=50))
    assert body["max_tokens"] == 50
    assert "max_completion_tokens" not in body
    assert sent(read("chat", provider, max_completion_tokens=50, max_tokens=50))["max_tokens"] == 50


def test_two_limits_must_agree() -> None:
    call = read("chat", max_tokens=50, max_completion_tokens=50)
    lowered = sent(call.limited(20))
    assert (lowered["max_tokens"], lowered["max_completion_tokens"]) == (20, 20)
    with pytest.raises(BadRequest):
        read("chat", max_tokens=50, max_completion_tokens=5000)
    assert read("chat", max_tokens=50, max_completion_tokens=5000, default=None).demand.limit == 5000


@pytest.mark.parametrize("what", ["chat", "completions", "responses", "google"])
def test_a_limit_of_zero_is_no_limit_to_some_servers_so_it_is_refused(what: str) -> None:
    zero: dict[str, Any] = {FIELD.get(what, "max_tokens"): 0}
    if what == "google":
        zero = {"generationConfig": {"maxOutputTokens": 0}}
    with pytest.raises(BadRequest):
        read(what, **zero)
    assert read(what, default=None, **zero).demand.limit == 0


def test_anthropic_takes_a_limit_of_zero_to_fill_its_cache() -> None:
    assert read("anthropic", max_tokens=0).demand.limit == 0


def test_without_a_limit_on_the_grant_the_body_is_left_alone() -> None:
    for what, (_, _, body) in BODIES.items():
        call = read(what, default=None)
        added = {"store": False} if what == "responses" else {}
        assert sent(call) == {**body, **added}, what
        assert call.demand.limit is None
    assert sent(read("chat", default=None, service_tier="auto"))["service_tier"] == "auto"


def test_a_route_without_an_output_limit_gets_none() -> None:
    call = read("embeddings")
    assert call.demand.limit is None
    assert "max_tokens" not in sent(call)
    with pytest.raises(ValueError):
        call.limited(5)


# Lowering


@pytest.mark.parametrize("what", ["chat", "completions", "responses", "anthropic", "google"])
def test_a_lowered_call_differs_in_nothing_but_its_limit(what: str) -> None:
    call = read(what)
    lowered = call.limited(100)
    assert lowered.demand.limit == 100
    before, after = json.dumps(sent(call)), json.dumps(sent(lowered))
    assert before.replace(str(DEFAULT), "100") == after
    assert call.demand.limit == DEFAULT, "the call itself stays as it was"
    assert lowered.limited(7).demand.limit == 7


def test_a_limit_is_never_raised() -> None:
    call = read("chat", max_tokens=10)
    assert call.limited(10) is call
    assert call.limited(99999) is call


@pytest.mark.parametrize("limit", [0, -1, -4096])
def test_a_call_cannot_go_out_for_nothing(limit: int) -> None:
    with pytest.raises(NotGranted) as caught:
        read("chat").limited(limit)
    assert (caught.value.code, caught.value.final) == ("output_limit_too_low", True)


# Thinking


def thinking(budget: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": budget}


def test_a_thinking_budget_is_lowered_in_proportion_and_leaves_room_for_an_answer() -> None:
    call = read("anthropic", max_tokens=20_000, thinking=thinking(16_000))
    assert sent(call)["thinking"]["budget_tokens"] == 16_000
    lowered = sent(call.limited(5_000))
    assert (lowered["max_tokens"], lowered["thinking"]["budget_tokens"]) == (5_000, 4_000)
    lowered = sent(call.limited(1_100))
    assert (lowered["max_tokens"], lowered["thinking"]["budget_tokens"]) == (1_100, 1_024)


def test_below_the_least_thinking_budget_the_call_is_refused() -> None:
    call = read("anthropic", max_tokens=20_000, thinking=thinking(2_000))
    assert call.demand.least == 1_025
    assert sent(call.limited(1_025))["thinking"]["budget_tokens"] == 1_024
    with pytest.raises(NotGranted):
        call.limited(1_024)


def test_the_default_limit_makes_room_for_thinking_or_says_what_to_name() -> None:
    body = sent(read("anthropic", thinking=thinking(10_000)))
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (4_096, 2_048)
    assert sent(read("anthropic", thinking=thinking(3_000)))["thinking"]["budget_tokens"] == 3_000
    with pytest.raises(BadRequest, match="max_tokens"):
        read("anthropic", default=1_024, thinking=thinking(3_000))


def test_adaptive_and_disabled_thinking_are_inside_the_limit() -> None:
    for kind in ("adaptive", "disabled"):
        call = read("anthropic", max_tokens=5_000, thinking={"type": kind})
        assert (call.demand.least, call.demand.unbounded) == (1, "")
        assert sent(call.limited(64))["thinking"] == {"type": kind}


def test_a_budget_above_the_limit_as_interleaved_thinking_has_it_goes_down_with_it() -> None:
    body = sent(read("anthropic", max_tokens=4_000, thinking=thinking(8_000)).limited(2_000))
    assert (body["max_tokens"], body["thinking"]["budget_tokens"]) == (2_000, 4_000)


@given(st.integers(1_025, 200_000), st.integers(1_024, 200_000), st.integers(1_025, 200_000))
def test_a_budget_below_the_limit_stays_below_it(asked: int, budget: int, limit: int) -> None:
    call = read("anthropic", max_tokens=asked, thinking=thinking(budget)).limited(limit)
    body = sent(call)
    assert body["max_tokens"] == min(asked, limit) == call.demand.limit
    assert 1_024 <= body["thinking"]["budget_tokens"] <= budget
    if budget < asked:
        assert body["thinking"]["budget_tokens"] < body["max_tokens"]


@pytest.mark.parametrize("config", ["thinkingConfig", "thinking_config"])
@pytest.mark.parametrize("name", ["thinkingBudget", "thinking_budget"])
def test_geminis_thinking_budget_is_lowered_with_the_limit_that_it_is_part_of(config: str, name: str) -> None:
    given_config = {"maxOutputTokens": 9_000, config: {name: 8_000}}
    call = read("google", generationConfig=given_config)
    assert sent(call)["generationConfig"] == given_config
    assert sent(call.limited(1_000))["generationConfig"] == {"maxOutputTokens": 1_000, config: {name: 1_000}}
    assert sent(call.limited(64))["generationConfig"][config] == {name: 512}, "no model takes less"
    assert sent(read("google", generationConfig={config: {name: 8_000}}))["generationConfig"][config] == {name: DEFAULT}
    for automatic in (-1, 0):
        call = read("google", generationConfig={config: {name: automatic}}).limited(64)
        assert sent(call)["generationConfig"][config] == {name: automatic}


# Candidates


@pytest.mark.parametrize(
    ("what", "provider", "changes", "candidates"),
    [
        ("chat", "openai", {}, 1),
        ("chat", "openai", {"n": 5}, 5),
        ("chat", "custom", {"n": 2, "best_of": 7}, 7),
        ("completions", "openai", {"n": 3, "best_of": 2}, 3),
        ("completions", "openai", {"best_of": 4}, 4),
        ("completions", "openai", {"prompt": ["a", "b", "c"], "n": 2}, 6),
        ("completions", "openai", {"prompt": [[1, 2], [3]]}, 2),
        ("completions", "openai", {"prompt": [1, 2, 3]}, 1),
        ("completions", "openai", {"prompt": []}, 1),
        ("responses", "openai", {}, 1),
        ("google", "google", {"generationConfig": {"candidateCount": 3}}, 3),
        ("google", "google", {"generation_config": {"candidate_count": 4}}, 4),
    ],
)
def test_every_answer_that_is_generated_counts(
    what: str, provider: str, changes: dict[str, Any], candidates: int
) -> None:
    for default in (DEFAULT, None):
        assert read(what, provider, default, **changes).demand.candidates == candidates


# Tiers


@pytest.mark.parametrize(
    ("what", "provider", "tier"),
    [
        ("chat", "openai", "default"),
        ("chat", "azure", "default"),
        ("responses", "openai", "default"),
        ("chat", "groq", "on_demand"),
        ("anthropic", "anthropic", "standard_only"),
    ],
)
def test_the_service_tier_is_pinned_where_an_account_may_be_set_to_another(what: str, provider: str, tier: str) -> None:
    for asked in ({}, {"service_tier": None}, {"service_tier": "auto"}, {"service_tier": tier}):
        call = read(what, provider, max_tokens=5) if what == "anthropic" else read(what, provider, **asked)
        assert sent(call)["service_tier"] == tier
        assert call.demand.tier == ""


@pytest.mark.parametrize(
    ("what", "provider"), [("chat", "mistral"), ("chat", "custom"), ("completions", "openai"), ("google", "google")]
)
def test_no_tier_is_written_where_there_is_none_to_pin(what: str, provider: str) -> None:
    assert "service_tier" not in sent(read(what, provider))
    assert "serviceTier" not in sent(read(what, provider))


@pytest.mark.parametrize(
    ("what", "changes", "tier"),
    [
        ("chat", {"service_tier": "priority"}, "priority"),
        ("chat", {"service_tier": "Flex"}, "flex"),
        ("responses", {"service_tier": "fast"}, "fast"),
        ("anthropic", {"speed": "fast"}, "fast"),
        ("anthropic", {"speed": "standard"}, ""),
        ("anthropic", {"inference_geo": "us"}, "us"),
        ("anthropic", {"inference_geo": "global"}, ""),
        ("anthropic", {"inference_geo": "us", "speed": "fast"}, "fast+us"),
        ("google", {"serviceTier": "priority"}, "priority"),
        ("google", {"service_tier": "FLEX"}, "flex"),
        ("google", {"serviceTier": "standard"}, ""),
        ("google", {"serviceTier": "STANDARD"}, ""),
        ("google", {"serviceTier": "unspecified"}, ""),
    ],
)
def test_a_dearer_way_of_processing_is_a_tier_of_the_demand(what: str, changes: dict[str, Any], tier: str) -> None:
    call = read(what, **changes)
    assert call.demand.tier == tier
    assert changes.items() <= sent(call).items()


def test_auto_is_not_taken_for_standard_where_it_cannot_be_pinned() -> None:
    assert read("chat", "fireworks", service_tier="auto").demand.tier == "auto"
