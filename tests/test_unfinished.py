"""What an answer that was left before its report is charged: its whole limit, unless its stream shows all, proven."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from grants.models import Allowance, AuditEvent, ProviderKey
from grants.providers import PROVIDERS
from proxy import dialects
from proxy.dialects.base import Demand, Inbound, UpstreamCall, Usage
from proxy.pricing import shown
from proxy.pricing.bounds import bound
from proxy.pricing.metering import meter
from proxy.pricing.shown import shows_all
from proxy.sse import Decoder

from .api import owner
from .conftest import CANARY
from .test_relay import chat, finished_call

CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]
LIMIT = 4000
FIELDS = frozenset({"model", "messages", "max_tokens", "stream", "stream_options", "temperature"})


def call(route: str, flavor: str, model: str, fields: frozenset[str] | None = FIELDS, **more: Any) -> UpstreamCall:
    demand = Demand(text=100, limit=LIMIT, fields=fields, **more)
    return UpstreamCall(route, "POST", "/", models=(model,), flavor=flavor, demand=demand, stream=True)


def read(path: str, body: dict[str, Any], provider: str, **headers: str) -> UpstreamCall:
    inbound = Inbound("POST", path, (), headers, "application/json", json.dumps(body).encode())
    return dialects.read(inbound, PROVIDERS[provider], (), LIMIT)


def left(provider: str, asked: UpstreamCall, *events: dict[str, Any], strict: bool = True, **more: Any) -> Usage:
    """What a stream is charged that its client left after these events."""
    observer = dialects.observer(asked)
    for event in Decoder().feed(b"".join(b"data: " + json.dumps(data).encode() + b"\n\n" for data in events)):
        observer.event(event)
    return meter(
        PROVIDERS[provider],
        asked,
        observer.result(),
        output_characters=observer.output_characters,
        strict=strict,
        **more,
    )


# The list

# One name of every family, current and to come, at its maker and at its hosts.
_NAMES = """
    gpt-4o gpt-4o-2024-08-06 gpt-4o-audio-preview gpt-4o-search-preview gpt-4.1-mini gpt-4.5-preview gpt-5
    gpt-5-chat-latest gpt-6-sol gpt-chat-latest codex-mini-latest computer-use-preview o1 o4-mini
    chatgpt-4o-latest ft:gpt-4o:me::1 my-gpt-4o gpt-oss-120b openai/gpt-oss-120b openai.gpt-oss-120b-1:0
    claude-3-5-haiku-latest claude-sonnet-4-5 claude-sonnet-4-5-20250929 claude-opus-4-7 claude-opus-5
    claude-mythos-5 claude-next anthropic.claude-sonnet-4-5-20250929-v1:0 anthropic/claude-sonnet-4.5
    gemini-2.0-flash gemini-2.0-flash-thinking-exp gemini-2.5-pro gemini-pro-latest gemini-flash-latest
    gemini-3-flash-preview gemini-4-carbon gemma-4-31b-it mistral-large-latest magistral-medium-latest
    deepseek-chat deepseek-reasoner deepseek-r2 grok-4 grok-3-mini llama-3.3-70b-versatile llama3.1-8b
    meta-llama/Llama-3.3-70B-Instruct-Turbo qwen/qwen3-32b command-a-reasoning-08-2025 command-r-plus sonar
    sonar-reasoning-pro kimi-k3 zai-glm-4.7 accounts/fireworks/models/deepseek-v4-pro house-1
"""
NAMES = _NAMES.split()
PROVEN = {
    "openai": "gpt-4o gpt-4o-2024-08-06 gpt-4.1-mini chatgpt-4o-latest",
    "anthropic": "claude-3-5-haiku-latest claude-sonnet-4-5 claude-sonnet-4-5-20250929",
    "google": "gemini-2.0-flash",
    "deepseek": "deepseek-chat deepseek-reasoner",
    "groq": "llama-3.3-70b-versatile",
    "cerebras": "llama3.1-8b",
    "sandbox": " ".join(NAMES),
}
ROUTES = [
    ("openai.chat", "chat"),
    ("openai.completions", "chat"),
    ("openai.responses", "responses"),
    ("anthropic.messages", "anthropic"),
    ("google.streamGenerateContent", "google"),
]


@pytest.mark.slow
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route[0])
@pytest.mark.parametrize("provider", PROVIDERS)
def test_whatever_is_not_on_the_list_is_charged_its_whole_limit(provider: str, route: tuple[str, str]) -> None:
    proven = PROVEN.get(provider, "").split()
    for name in NAMES:
        usage = meter(PROVIDERS[provider], call(*route, name), None, output_characters=30, strict=True)
        assert usage.output_tokens == (30 if name in proven else LIMIT), name
        assert usage.estimated


def test_every_provider_of_the_list_is_in_the_catalogue_and_tested() -> None:
    assert set(shown._ROWS) == set(PROVEN) <= set(PROVIDERS)


@pytest.mark.parametrize(
    ("provider", "name"),
    [
        ("openai", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-5"),
        ("google", "gemini-2.0-flash"),
        ("deepseek", "deepseek-reasoner"),
        ("groq", "llama-3.3-70b-versatile"),
    ],
)
@pytest.mark.parametrize("field", ["best_of", "reasoning_format", "include_reasoning", "reasoning", "brand_new"])
def test_a_field_that_may_hide_output_proves_nothing(provider: str, name: str, field: str) -> None:
    asked = call("openai.chat", "chat", name)
    assert shows_all(PROVIDERS[provider], asked)
    assert not shows_all(PROVIDERS[provider], call("openai.chat", "chat", name, FIELDS | {field}))
    assert not shows_all(PROVIDERS[provider], call("openai.chat", "chat", name, None))


@pytest.mark.parametrize(
    ("provider", "name", "shows"),
    [
        ("openai", "gpt-4o", True),
        ("anthropic", "claude-sonnet-4-5", False),
        ("google", "gemini-2.0-flash", False),
        ("groq", "llama-3.3-70b-versatile", False),
        ("deepseek", "deepseek-chat", False),
    ],
)
def test_the_arguments_of_tools_flow_as_they_are_made_at_openai_only(provider: str, name: str, shows: bool) -> None:
    assert shows_all(PROVIDERS[provider], call("openai.chat", "chat", name, FIELDS | {"tools"})) == shows


def test_a_bias_for_tokens_without_text_proves_nothing() -> None:
    """It makes a model repeat a special token, or a single byte of a longer character: nothing of it flows."""
    asked = {"model": "gpt-4o", "messages": HELLO, "stream": True, "logit_bias": {"200003": 100}}
    for provider in ("openai", "custom"):
        assert not shows_all(PROVIDERS[provider], read(CHAT, asked, provider), owner_says=True)


def test_a_beta_proves_nothing() -> None:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 900, "messages": HELLO, "stream": True}
    assert shows_all(PROVIDERS["anthropic"], read("/v1/messages", body, "anthropic"))
    beta = {"anthropic-beta": "brand-new-2026-11-01"}
    assert not shows_all(PROVIDERS["anthropic"], read("/v1/messages", body, "anthropic", **beta))


@pytest.mark.parametrize(
    ("provider", "path", "body"),
    [
        ("anthropic", CHAT, {"model": "claude-sonnet-4-5", "thinking": {"type": "enabled", "budget_tokens": 2000}}),
        ("anthropic", CHAT, {"model": "claude-opus-4-7"}),
        ("anthropic", "/v1/messages", {"model": "claude-sonnet-4-5", "thinking": {"type": "adaptive"}}),
        ("google", CHAT, {"model": "gemini-pro-latest"}),
        ("openai", CHAT, {"model": "codex-mini-latest"}),
        ("bedrock", CHAT, {"model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0"}),
        ("azure", CHAT, {"model": "gpt-4o"}),
        ("groq", CHAT, {"model": "llama-3.3-70b-versatile", "reasoning_format": "hidden"}),
        ("cohere", CHAT, {"model": "command-a-03-2025"}),
        ("mistral", CHAT, {"model": "mistral-large-latest"}),
    ],
)
def test_a_stream_that_is_left_while_the_model_thinks_unseen_is_charged_its_whole_limit(
    provider: str, path: str, body: dict[str, Any]
) -> None:
    asked = read(path, {"messages": HELLO, "stream": True, "max_tokens": LIMIT, **body}, provider)
    word = {"model": asked.model, "choices": [{"index": 0, "delta": {"content": "Hm"}}]}
    usage = left(provider, asked, word)
    assert (usage.output_tokens, usage.estimated) == (LIMIT, True)


def test_a_body_as_clients_send_it_is_charged_for_what_flowed_where_all_is_shown() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    body = {
        "model": "gpt-4o",
        "messages": HELLO,
        "stream": True,
        "n": 2,
        "temperature": 1,
        "tools": tools,
    }
    word = {"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "Hello"}}]}
    assert left("openai", read(CHAT, body, "openai"), word).output_tokens == 5
    config = {"maxOutputTokens": 900, "topK": 3}
    gemini = {"contents": [{"parts": [{"text": "hi"}]}], "generation_config": config}
    asked = read("/v1beta/models/gemini-2.0-flash:generateContent", gemini, "google")
    assert meter(PROVIDERS["google"], asked, None, output_characters=5, strict=True).output_tokens == 5


def test_a_thinking_config_of_gemini_is_seen_in_either_spelling() -> None:
    for name in ("thinkingConfig", "thinking_config"):
        body = {"contents": [], "generation_config": {name: {"includeThoughts": False}}}
        asked = read("/v1beta/models/gemini-2.0-flash:generateContent", body, "google")
        assert not shows_all(PROVIDERS["google"], asked)


# Reports from before the end


def choice(index: int, text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    one = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    return {"model": "gpt-4o", "choices": [one], **more}


@pytest.mark.parametrize(
    ("provider", "model"), [("fireworks", "accounts/fireworks/models/glm-5"), ("openai", "gpt-4o")]
)
def test_a_report_beside_the_end_of_one_choice_does_not_tell_what_the_others_make(provider: str, model: str) -> None:
    """Each choice of a call with several may bring the usage of all so far when it ends."""
    asked = read(CHAT, {"model": model, "messages": HELLO, "stream": True, "max_tokens": LIMIT, "n": 2}, provider)
    usage = {"prompt_tokens": 5, "completion_tokens": 300, "total_tokens": 305}
    end = choice(0, "", "stop", usage=usage)
    made = [choice(0, "a" * 600), end, *[choice(1, "word ")] * 700]
    known = 600 + 700 * 5 if provider == "openai" else 2 * LIMIT
    assert left(provider, asked, *made).output_tokens == known
    assert left(provider, asked, *made[:2]).output_tokens == (600 if provider == "openai" else 2 * LIMIT)
    both = left(provider, asked, *made[:2], choice(1, "", "stop", usage=usage))
    assert (both.output_tokens, both.estimated) == (300, False)


def test_text_after_the_report_of_the_last_choice_is_not_free() -> None:
    asked = read(CHAT, {"model": "gpt-4o", "messages": HELLO, "stream": True, "max_tokens": LIMIT}, "openai")
    usage = {"prompt_tokens": 5, "completion_tokens": 300, "total_tokens": 305}
    made = [choice(0, "a", "stop", usage=usage), *[choice(0, "word ")] * 700]
    assert left("openai", asked, *made).output_tokens == 1 + 700 * 5


def test_text_of_claude_after_a_report_is_not_free() -> None:
    """``message_delta`` may come more than once; only ``message_stop`` is the end."""
    body = {"model": "claude-sonnet-4-5", "max_tokens": LIMIT, "messages": HELLO, "stream": True}
    asked = read("/v1/messages", body, "anthropic")
    message = {"model": "claude-sonnet-4-5", "content": [], "usage": {"input_tokens": 5, "output_tokens": 1}}
    delta = {"type": "text_delta", "text": "word "}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 300}},
        *[{"type": "content_block_delta", "index": 0, "delta": delta}] * 700,
    ]
    observer = dialects.observer(asked)
    for event in events:
        data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        for decoded in Decoder().feed(data):
            observer.event(decoded)
    usage = meter(
        PROVIDERS["anthropic"],
        asked,
        observer.result(),
        output_characters=observer.output_characters,
        strict=True,
    )
    assert (usage.output_tokens, usage.estimated) == (700 * 5, True)


def test_a_report_in_the_middle_does_not_tell_what_is_thought_after_it() -> None:
    """Gemini's chunks report what was made so far; a model may think again before the next one."""
    body = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": LIMIT}}
    asked = read("/v1beta/models/gemini-2.5-flash:generateContent", body, "google")
    told = {"promptTokenCount": 5, "candidatesTokenCount": 40, "thoughtsTokenCount": 60}
    event = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "usageMetadata": told}
    usage = left("google", asked, event)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (5, LIMIT, True)


def test_what_flowed_after_a_report_is_a_token_a_byte_under_a_limit_in_money() -> None:
    asked = read(CHAT, {"model": "gpt-4o", "messages": HELLO, "stream": True}, "openai")
    told = {
        "model": "gpt-4o",
        "choices": [{"index": 0, "delta": {}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4},
    }
    word = {"model": "gpt-4o", "choices": [{"index": 0, "delta": {"content": "A1B2C3D4" * 30}}]}
    assert left("openai", asked, told, word).output_tokens == 240


def test_the_input_that_nobody_reported_counts_as_in_the_bound_under_a_limit_in_money() -> None:
    """The description of a tool is up to 804 tokens that the body does not show."""
    tool = {"name": "f", "input_schema": {"type": "object"}}
    body = {"model": "claude-opus-5", "max_tokens": 900, "messages": HELLO, "stream": True, "tools": [tool]}
    asked = read("/v1/messages", body, "anthropic")
    most = bound(PROVIDERS["anthropic"], asked, "[]", 0, max_cost_per_call=None)
    usage = left("anthropic", asked)
    assert usage.input_tokens == most.input_tokens
    assert usage.cost is not None
    assert usage.cost <= most.cost(900)


def test_a_call_without_a_bound_of_its_own_has_no_cost_when_it_is_left_after_a_report() -> None:
    """Searches, and what the model read of them, come after the first report. The whole bound is charged then."""
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body = {"model": "claude-sonnet-4-5", "max_tokens": 900, "messages": HELLO, "stream": True, "tools": tools}
    asked = read("/v1/messages", body, "anthropic")
    message = {"model": asked.model, "usage": {"input_tokens": 20, "output_tokens": 1}}
    assert left("anthropic", asked, {"type": "message_start", "message": message}).cost is None


def omni(**config: Any) -> UpstreamCall:
    body = {"contents": [{"parts": [{"text": "hi"}]}], "generationConfig": {"maxOutputTokens": 900, **config}}
    return read("/v1beta/models/gemini-omni-1.1-flash:generateContent", body, "google")


def test_a_model_that_may_make_video_has_no_cost_when_it_is_left() -> None:
    event = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}}], "usageMetadata": {"promptTokenCount": 5}}
    assert left("google", omni()).cost is None
    assert left("google", omni(), event).cost is None
    assert left("google", omni(responseModalities=["TEXT"]), event).cost is not None


# The word of the owner of a custom server

PRICES = json.dumps([{"models": "*", "input": "1", "output": "1"}])


def test_the_owner_of_a_custom_server_may_say_that_its_streams_show_everything() -> None:
    asked = read(
        CHAT, {"model": "llama", "messages": HELLO, "stream": True, "tools": [], "reasoning_effort": "high"}, "custom"
    )
    word = {"model": "llama", "choices": [{"index": 0, "delta": {"reasoning_content": "Hello"}}]}
    assert left("custom", asked, word, prices=PRICES).output_tokens == LIMIT
    assert left("custom", asked, word, prices=PRICES, shows_all=True).output_tokens == 5


@pytest.mark.parametrize("field", ["include_reasoning", "reasoning_format", "best_of", "brand_new"])
def test_the_owners_word_does_not_hold_for_what_the_request_may_hide(field: str) -> None:
    asked = read(CHAT, {"model": "llama", "messages": HELLO, "stream": True, field: 2}, "custom")
    most = LIMIT * asked.demand.candidates
    assert left("custom", asked, prices=PRICES, shows_all=True).output_tokens == most


@pytest.mark.parametrize("provider", sorted(set(PROVIDERS) - {"custom", "sandbox"}))
def test_the_owners_word_holds_for_no_other_provider(provider: str) -> None:
    assert not shows_all(PROVIDERS[provider], call("openai.chat", "chat", "house-1"), owner_says=True)


@pytest.mark.parametrize("says", [False, True])
def test_an_app_that_leaves_a_custom_server_is_charged_by_the_owners_word(
    server: Any, issue: Any, by: Any, says: bool
) -> None:
    grant, token = issue("custom", max_cost=10**10)
    key = ProviderKey.objects.get()
    prices = [{"models": "*", "input": "1", "output": "1"}]
    key.change(label=key.label, extra_fields=[], prices=prices, margin=0, by=by, shows_everything=says)
    answer = chat(server, token, "fake-paced", stream=True, max_tokens=LIMIT)
    next(answer.iter_content(10))
    answer.close()
    ended = finished_call()
    assert ended.outcome == "client_gone"
    assert (ended.output_tokens == LIMIT) is not says
    assert Allowance.objects.get(grant=grant).spent == ended.cost > 0


# Where it is said


@pytest.fixture
def custom(alice: Any, by: Any, settings: Any) -> ProviderKey:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
    return ProviderKey.add(
        owner=alice, provider="custom", label="vLLM", secret="", base_url="http://127.0.0.1:8000", by=by
    )


def test_it_is_said_in_the_admin_and_written_into_the_audit_trail(
    client: Client, alice: Any, custom: ProviderKey
) -> None:
    client.force_login(alice)
    path = reverse("admin:grants_providerkey_edit", args=[custom.pk])
    assert b"shows_everything" in client.get(path).content
    client.post(path, {"label": "vLLM", "shows_everything": "on"})
    assert ProviderKey.objects.get().shows_everything
    assert AuditEvent.objects.get(action="key.changed").detail["shows_everything"] is True
    client.post(path, {"label": "vLLM"})
    assert not ProviderKey.objects.get().shows_everything


def test_it_is_said_over_rest(alice: Any, custom: ProviderKey) -> None:
    path = f"/api/provider-keys/{custom.pk}/"
    assert owner(alice).get(path).body["shows_everything"] is False
    assert owner(alice).patch(path, {"shows_everything": True}).body["shows_everything"] is True
    assert owner(alice).patch(path, {"margin": 5}).body["shows_everything"] is True
    assert ProviderKey.objects.get().shows_everything
    for nonsense in ("true", 1, None, []):
        assert owner(alice).patch(path, {"shows_everything": nonsense}).status == 400


def add_key(monkeypatch: Any, provider: str, *args: str) -> ProviderKey:
    monkeypatch.setattr("sys.stdin", io.StringIO(CANARY))
    call_command("add_key", "--owner", "alice", "--provider", provider, "--label", "New", *args, stdout=io.StringIO())
    return ProviderKey.objects.get(label="New")


def test_it_is_said_with_a_new_key(alice: Any, monkeypatch: Any, settings: Any) -> None:
    settings.AIPASSPORT_ALLOW_PRIVATE_UPSTREAMS = True
    assert add_key(monkeypatch, "custom", "--base-url", "http://127.0.0.1:8000", "--shows-everything").shows_everything


def test_it_cannot_be_said_of_another_provider(alice: Any, by: Any, monkeypatch: Any) -> None:
    with pytest.raises(CommandError, match="servers of your own"):
        add_key(monkeypatch, "openai", "--shows-everything")
    key = ProviderKey.add(owner=alice, provider="openai", label="Team", secret="sk-1", by=by)
    answer = owner(alice).patch(f"/api/provider-keys/{key.pk}/", {"shows_everything": True})
    assert (answer.status, list(answer.body["error"]["fields"])) == (400, ["shows_everything"])
    assert not ProviderKey.objects.get().shows_everything


# At which rates


def rates(provider: str, path: str, body: dict[str, Any]) -> tuple[Usage, int]:
    """A stream that is left before its first event, and the bound of the call at the output that is charged."""
    asked = read(path, {"messages": HELLO, "stream": True, "max_tokens": 900, **body}, provider)
    most = bound(PROVIDERS[provider], asked, "[]", 0, max_cost_per_call=None)
    usage = left(provider, asked)
    return usage, most.cost(usage.output_tokens)


@pytest.mark.parametrize(
    ("provider", "path", "body"),
    [
        ("openai", CHAT, {"model": "gpt-4o", "service_tier": "priority"}),
        ("openai", CHAT, {"model": "gpt-5", "service_tier": "priority"}),
        ("anthropic", "/v1/messages", {"model": "claude-opus-5", "speed": "fast"}),
        ("anthropic", "/v1/messages", {"model": "claude-opus-5", "inference_geo": "us"}),
        (
            "anthropic",
            "/v1/messages",
            {"model": "claude-haiku-4-5", "cache_control": {"type": "ephemeral", "ttl": "1h"}},
        ),
        ("google", CHAT, {"model": "gemini-2.5-flash"}),
    ],
)
def test_an_answer_without_a_report_is_charged_at_the_dearest_rates_of_its_call(
    provider: str, path: str, body: dict[str, Any]
) -> None:
    """Nothing tells which tier served it, or what was written into a cache."""
    usage, most = rates(provider, path, body)
    assert usage.cost == most > 0


def test_a_report_of_a_priority_call_that_does_not_tell_its_tier_is_charged_the_whole_bound_when_it_is_left() -> None:
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True, "service_tier": "priority"}
    told = {
        "model": "gpt-4o",
        "choices": [{"index": 0, "delta": {}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4},
    }
    assert left("openai", read(CHAT, body, "openai"), told).cost is None
    cost = left("openai", read(CHAT, body, "openai"), told | {"service_tier": "default"}).cost
    assert cost is not None


@pytest.mark.parametrize(
    ("told", "factor"), [({}, "1.7"), ({"service_tier": "priority"}, "1.7"), ({"service_tier": "default"}, "1")]
)
def test_an_answer_that_does_not_tell_its_tier_is_charged_at_the_one_that_was_asked_for(
    told: dict[str, str], factor: str
) -> None:
    asked = read(CHAT, {"model": "gpt-4o", "messages": HELLO, "service_tier": "priority"}, "openai")
    answer = {"model": "gpt-4o", "usage": {"prompt_tokens": 100, "completion_tokens": 100}, **told}
    cost = meter(PROVIDERS["openai"], asked, answer, output_characters=9, strict=True).cost
    assert cost == 100 * 12_500 * Decimal(factor)


def test_a_fast_claude_that_tells_a_tier_but_no_speed_is_charged_as_fast() -> None:
    body = {"model": "claude-opus-5", "messages": HELLO, "max_tokens": 900, "speed": "fast"}
    asked = read("/v1/messages", body, "anthropic")
    usage = {"input_tokens": 10, "output_tokens": 100, "service_tier": "standard"}
    fast, slow = (
        meter(
            PROVIDERS["anthropic"],
            asked,
            {"model": asked.model, "usage": usage | more},
            output_characters=9,
            strict=True,
        )
        for more in ({}, {"speed": "standard"})
    )
    assert slow.cost == 10 * 5_000 + 100 * 25_000
    assert fast.cost == 2 * slow.cost


# Ways around the list


def test_tools_that_a_message_brings_hide_what_is_made_for_them() -> None:
    tool = {"type": "tool_definition", "definition": {"name": "f", "input_schema": {"type": "object"}}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "tool_addition", "tool": tool}]}]
    body = {"model": "claude-sonnet-4-5", "max_tokens": 900, "messages": messages, "stream": True}
    asked = read("/v1/messages", body, "anthropic")
    assert not shows_all(PROVIDERS["anthropic"], asked)
    most = bound(PROVIDERS["anthropic"], asked, "[]", 0, max_cost_per_call=None)
    assert most.input_tokens >= asked.demand.text + 1024, "the provider describes how tools are used"


@pytest.mark.parametrize("stop", ["stop", "stop_sequences"])
def test_what_may_be_a_stop_sequence_is_held_back(stop: str) -> None:
    asked = call("openai.chat", "chat", "gpt-4o", frozenset({"model", "messages", stop}))
    assert not shows_all(PROVIDERS["openai"], asked)
