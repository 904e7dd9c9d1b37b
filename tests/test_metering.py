"""Usage of every provider turns into money to the nano-dollar; what has no known price never looks free."""

from __future__ import annotations

import json
import math
from decimal import ROUND_CEILING, Decimal
from typing import Any

import genai_prices
import pytest
from genai_prices import data as price_table
from hypothesis import given
from hypothesis import strategies as st

from grants.providers import PROVIDERS
from proxy.dialects.base import Demand, UpstreamCall, Usage
from proxy.dialects.peculiar import searches
from proxy.pricing.counting import shape
from proxy.pricing.metering import meter

FLAVORS = ("chat", "responses", "embeddings", "moderations", "images", "speech", "anthropic", "google")


def call(flavor: str, model: str, *, input_characters: int = 300) -> UpstreamCall:
    return UpstreamCall(
        f"test.{flavor}", "POST", "/", models=(model,), flavor=flavor, input_characters=input_characters
    )


def metered(
    provider: str, flavor: str, model: str, result: Any, *, output_characters: int = 0, input_characters: int = 300
) -> Usage:
    asked = call(flavor, model, input_characters=input_characters)
    return meter(PROVIDERS[provider], asked, result, output_characters=output_characters)


def nanos(*items: tuple[int, str]) -> int:
    """The cost of (tokens, dollars for a million of them) in nano-dollars, rounded up."""
    return math.ceil(sum(tokens * Decimal(dollars) * 1000 for tokens, dollars in items))


def chat(model: str, prompt: int, completion: int, *, cached: int = 0, **more: Any) -> dict[str, Any]:
    details = {"prompt_tokens_details": {"cached_tokens": cached}} if cached else {}
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **details}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {**usage, **more},
    }


def claude(**usage: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
        "usage": usage,
    }


def gemini(**usage: Any) -> dict[str, Any]:
    return {"candidates": [{"finishReason": "STOP"}], "modelVersion": "gemini-2.5-flash", "usageMetadata": usage}


OPENAI_CHAT = {
    **chat("gpt-4o-mini-2024-07-18", 2006, 300, cached=1920),
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}
OPENAI_CHAT["usage"]["completion_tokens_details"] = {"reasoning_tokens": 0, "audio_tokens": 0}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "model": "gpt-5-2025-08-07",
    "service_tier": "default",
    "usage": {
        "input_tokens": 75,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 1186,
        "output_tokens_details": {"reasoning_tokens": 1024},
        "total_tokens": 1261,
    },
}
EMBEDDING = {
    "object": "list",
    "data": [],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
IMAGE = {
    "created": 1,
    "data": [{"b64_json": ""}],
    "size": "1024x1024",
    "usage": {
        "total_tokens": 100,
        "input_tokens": 50,
        "output_tokens": 50,
        "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
    },
}
TRANSCRIPT = {
    "text": "Hello",
    "usage": {
        "type": "tokens",
        "input_tokens": 20,
        "input_token_details": {"text_tokens": 6, "audio_tokens": 14},
        "output_tokens": 45,
        "total_tokens": 65,
    },
}
AUDIO_CHAT = chat(
    "gpt-audio",
    100,
    200,
    prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 60},
    completion_tokens_details={"audio_tokens": 150},
)
CACHED_CLAUDE = claude(
    input_tokens=2095,
    cache_creation_input_tokens=2000,
    cache_read_input_tokens=10_000,
    output_tokens=503,
    cache_creation={"ephemeral_5m_input_tokens": 1500, "ephemeral_1h_input_tokens": 500},
    service_tier="standard",
)
GROQ = chat("llama-3.3-70b-versatile", 18, 556, queue_time=0.037, prompt_time=0.0006, total_time=0.46)
GROK = chat(
    "grok-3-mini",
    32,
    9,
    cached=6,
    completion_tokens_details={"reasoning_tokens": 94, "audio_tokens": 0},
    num_sources_used=0,
)
SONAR = chat("sonar", 14, 289, search_context_size="low", cost={"total_cost": 0.005})
RESEARCH = chat("sonar-deep-research", 33, 7163, citation_tokens=20_016, num_search_queries=18, reasoning_tokens=73_997)

# (provider, flavor, model asked for, answer) → (input, output, cached, cost by the published prices)
CASES: dict[str, tuple[str, str, str, dict[str, Any], tuple[int, int, int, int | None]]] = {
    "openai chat": (
        "openai",
        "chat",
        "gpt-4o-mini",
        OPENAI_CHAT,
        (2006, 300, 1920, nanos((86, "0.15"), (1920, "0.075"), (300, "0.6"))),
    ),
    "openai audio chat": (
        "openai",
        "chat",
        "gpt-audio",
        AUDIO_CHAT,
        (100, 200, 0, nanos((40, "2.5"), (60, "32"), (50, "10"), (150, "64"))),
    ),
    "openai responses": ("openai", "responses", "gpt-5", RESPONSE, (75, 1186, 0, nanos((75, "1.25"), (1186, "10")))),
    "openai embeddings": ("openai", "embeddings", "text-embedding-3-small", EMBEDDING, (8, 0, 0, nanos((8, "0.02")))),
    "openai images": ("openai", "images", "gpt-image-1", IMAGE, (50, 50, 0, nanos((10, "5"), (40, "10"), (50, "40")))),
    "openai transcription": (
        "openai",
        "transcription",
        "gpt-4o-transcribe",
        TRANSCRIPT,
        (20, 45, 0, nanos((6, "2.5"), (14, "6"), (45, "10"))),
    ),
    "openai whisper": (
        "openai",
        "transcription",
        "whisper-1",
        {"usage": {"type": "duration", "seconds": 9}},
        (0, 0, 0, 900_000),
    ),  # $0.36 an hour
    "anthropic": (
        "anthropic",
        "anthropic",
        "claude-sonnet-4-5",
        CACHED_CLAUDE,
        (14_095, 503, 10_000, nanos((2095, "3"), (1500, "3.75"), (500, "6"), (10_000, "0.3"), (503, "15"))),
    ),
    "anthropic long context": (
        "anthropic",
        "anthropic",
        "claude-sonnet-4-5",
        claude(
            input_tokens=250_000,
            output_tokens=10,
        ),
        (250_000, 10, 0, nanos((250_000, "6"), (10, "22.5"))),
    ),
    "anthropic web search": (
        "anthropic",
        "anthropic",
        "claude-sonnet-4-5",
        claude(
            input_tokens=10,
            output_tokens=10,
            server_tool_use={"web_search_requests": 2},
        ),
        (10, 10, 0, nanos((10, "3"), (10, "15"), (2, "10000"))),
    ),  # $10 for a thousand
    "anthropic through its openai endpoint": (
        "anthropic",
        "chat",
        "claude-sonnet-4-5",
        chat(
            "claude-sonnet-4-5",
            20,
            10,
        ),
        (20, 10, 0, nanos((20, "3"), (10, "15"))),
    ),
    "google": (
        "google",
        "google",
        "gemini-2.5-flash",
        gemini(
            promptTokenCount=264,
            candidatesTokenCount=100,
            thoughtsTokenCount=50,
            totalTokenCount=414,
            promptTokensDetails=[{"modality": "TEXT", "tokenCount": 6}, {"modality": "IMAGE", "tokenCount": 258}],
        ),
        (264, 150, 0, nanos((264, "0.3"), (150, "2.5"))),
    ),
    "google audio, cached": (
        "google",
        "google",
        "gemini-2.5-flash",
        gemini(
            promptTokenCount=1000,
            candidatesTokenCount=10,
            cachedContentTokenCount=500,
            promptTokensDetails=[{"modality": "TEXT", "tokenCount": 600}, {"modality": "AUDIO", "tokenCount": 400}],
            cacheTokensDetails=[{"modality": "TEXT", "tokenCount": 200}, {"modality": "AUDIO", "tokenCount": 300}],
        ),
        (1000, 10, 500, nanos((400, "0.3"), (200, "0.03"), (100, "1"), (300, "0.1"), (10, "2.5"))),
    ),
    "google through its openai endpoint": (
        "google",
        "chat",
        "gemini-2.5-flash",
        chat("gemini-2.5-flash", 10, 5),
        (10, 5, 0, nanos((10, "0.3"), (5, "2.5"))),
    ),
    "google, model named by path": (
        "google",
        "google",
        "models/gemini-2.5-flash",
        {
            "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5},
        },
        (10, 5, 0, nanos((10, "0.3"), (5, "2.5"))),
    ),
    "azure deployment": (
        "azure",
        "chat",
        "our-deployment",
        chat("gpt-4o-2024-08-06", 100, 50, cached=40),
        (100, 50, 40, nanos((60, "2.5"), (40, "1.25"), (50, "10"))),
    ),
    "mistral": (
        "mistral",
        "chat",
        "mistral-large-latest",
        chat("mistral-large-latest", 11, 7),
        (11, 7, 0, nanos((11, "2"), (7, "6"))),
    ),
    "mistral embeddings": (
        "mistral",
        "embeddings",
        "mistral-embed",
        chat("mistral-embed", 15, 0),
        (15, 0, 0, nanos((15, "0.1"))),
    ),
    "groq": ("groq", "chat", "llama-3.3-70b-versatile", GROQ, (18, 556, 0, nanos((18, "0.59"), (556, "0.79")))),
    "groq whisper": (
        "groq",
        "transcription",
        "whisper-large-v3",
        {"text": "Hi", "duration": 3.2},
        (0, 0, 0, 308_334),
    ),  # $0.111 an hour, 10 seconds at least
    "deepseek": (
        "deepseek",
        "chat",
        "deepseek-v3.2",
        chat(
            "deepseek-v3.2",
            16,
            10,
            prompt_cache_hit_tokens=0,
            prompt_cache_miss_tokens=16,
        ),
        (16, 10, 0, 7_093),
    ),  # 7092.8
    "xai": ("xai", "chat", "grok-3-mini", GROK, (32, 103, 6, nanos((26, "0.3"), (6, "0.075"), (103, "0.5")))),
    "cohere": (
        "cohere",
        "chat",
        "command-r-plus",
        chat("command-r-plus", 12, 20),
        (12, 20, 0, nanos((12, "2.5"), (20, "10"))),
    ),
    "cohere embeddings": (
        "cohere",
        "embeddings",
        "embed-v4.0",
        {
            "model": "embed-v4.0",
            "usage": {"prompt_tokens": 5, "total_tokens": 5},
        },
        (5, 0, 0, nanos((5, "0.12"))),
    ),
    "openrouter": (
        "openrouter",
        "chat",
        "openai/gpt-4o-mini",
        chat("openai/gpt-4o-mini", 30, 12, cost=0.0000117),
        (30, 12, 0, nanos((30, "0.15"), (12, "0.6"))),
    ),
    "together": (
        "together",
        "chat",
        "meta-llama/Llama-3.3-70B-Instruct-Turbo",
        chat(
            "meta-llama/Llama-3.3-70B-Instruct-Turbo",
            22,
            33,
        ),
        (22, 33, 0, nanos((55, "0.88"))),
    ),
    "fireworks": (
        "fireworks",
        "chat",
        "accounts/fireworks/models/gpt-oss-120b",
        chat(
            "accounts/fireworks/models/gpt-oss-120b",
            90,
            11,
        ),
        (90, 11, 0, nanos((90, "0.15"), (11, "0.6"))),
    ),
    "perplexity": (
        "perplexity",
        "chat",
        "sonar",
        SONAR,
        (14, 289, 0, nanos((303, "1"), (1, "12000"))),
    ),  # $12 for a thousand requests
    "perplexity research": (
        "perplexity",
        "chat",
        "sonar-deep-research",
        RESEARCH,
        (33, 7163 + 73_997 + 20_016, 0, nanos((33, "2"), (7163, "8"), (73_997, "3"), (20_016, "2"), (18, "5000"))),
    ),
    "cerebras": (
        "cerebras",
        "chat",
        "gpt-oss-120b",
        chat("gpt-oss-120b", 72, 60),
        (72, 60, 0, nanos((72, "0.35"), (60, "0.75"))),
    ),
    "bedrock": (
        "bedrock",
        "chat",
        "openai.gpt-oss-120b-1:0",
        chat("openai.gpt-oss-120b-1:0", 80, 20),
        (80, 20, 0, nanos((80, "0.15"), (20, "0.6"))),
    ),
    "custom": ("custom", "chat", "gpt-4o", chat("gpt-4o", 7, 8), (7, 8, 0, None)),
    "sandbox": ("sandbox", "chat", "sandbox-1", chat("sandbox-1", 7, 8), (7, 8, 0, 0)),
    "sandbox as anthropic": (
        "sandbox",
        "anthropic",
        "sandbox-1",
        claude(
            input_tokens=7,
            output_tokens=8,
        ),
        (7, 8, 0, 0),
    ),
    "sandbox as google": (
        "sandbox",
        "google",
        "sandbox-1",
        gemini(
            promptTokenCount=7,
            candidatesTokenCount=8,
        ),
        (7, 8, 0, 0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_usage_and_cost_are_exact(name: str) -> None:
    provider, flavor, model, result, (input_tokens, output_tokens, cached, cost) = CASES[name]
    assert metered(provider, flavor, model, result) == Usage(input_tokens, output_tokens, cached, cost)


def test_every_provider_of_the_catalogue_is_tested() -> None:
    assert {case[0] for case in CASES.values()} == set(PROVIDERS)


def test_every_provider_and_flavor_has_prices_and_an_extractor_in_the_library() -> None:
    rows = {row.id: row for row in price_table.providers}
    for provider in PROVIDERS.values():
        assert provider.prices is None or provider.prices in rows
        for flavor in FLAVORS:
            prices_id, api_flavor = shape(provider.id, flavor) or ("", "")
            assert api_flavor in {row.api_flavor for row in rows[prices_id].extractors}
    assert shape("openai", "transcription") is None  # ours


def by_the_library(provider: str, flavor: str, result: dict[str, Any]) -> int:
    prices_id, api_flavor = shape(provider, flavor) or ("", "")
    usage = (
        genai_prices.data_snapshot.get_snapshot()
        .find_provider(None, prices_id, None)
        .extract_usage(result, api_flavor=api_flavor)[1]
    )
    price = genai_prices.calc_price(
        usage, result.get("model") or result["modelVersion"], provider_id=PROVIDERS[provider].prices
    )
    return int((price.total_price * 10**9).to_integral_value(ROUND_CEILING))


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, case in CASES.items()
        if PROVIDERS[case[0]].prices
        and case[1] != "transcription"
        and ("model" in case[3] or "modelVersion" in case[3])
    ],
)
def test_our_arithmetic_is_the_librarys(name: str) -> None:
    provider, flavor, _, result, (*_, cost) = CASES[name]
    assert cost == by_the_library(provider, flavor, result)


PRICED = [
    (provider.id, model.id)
    for provider in PROVIDERS.values()
    if provider.prices
    for row in price_table.providers
    if row.id == provider.prices
    for model in row.models
    if not searches(model.id)  # each call costs a search as well, which is no part of the report
]


PERCENT = st.integers(0, 100)


@given(st.sampled_from(PRICED), st.integers(1, 400_000), st.integers(0, 100_000), PERCENT, PERCENT)
def test_our_arithmetic_is_the_librarys_for_every_model(
    row: tuple[str, str], prompt: int, completion: int, cached: int, reasoning: int
) -> None:
    provider, model = row
    result = chat(model, prompt, completion, prompt_tokens_details={"cached_tokens": prompt * cached // 100})
    result["usage"]["completion_tokens_details"] = {"reasoning_tokens": completion * reasoning // 100}
    usage = metered(provider, "chat", model, result)
    assert usage.cost is None or usage.cost == by_the_library(provider, "chat", result)


# Prices that are not known


FREE = "meta-llama/llama-3.3-70b-instruct:free"
SPOKEN = chat("gpt-4o-audio-preview", 9, 9, prompt_tokens_details={"audio_tokens": 5})


@pytest.mark.parametrize(
    ("provider", "flavor", "model", "result"),
    [
        ("openai", "chat", "no-such-model", chat("no-such-model", 10, 10)),
        ("openai", "chat", "tts-1", chat("tts-1", 10, 10)),  # a price of characters
        ("openai", "chat", "whisper-1", chat("whisper-1", 10, 10)),  # of seconds
        ("openai", "chat", "text-embedding-3-small", chat("text-embedding-3-small", 10, 10)),  # none of output
        ("openai", "chat", "gpt-4o-audio-preview", SPOKEN),  # none of audio
        ("openai", "transcription", "gpt-4o-transcribe", {"usage": {"type": "duration", "seconds": 9}}),
        ("openai", "transcription", "whisper-1", TRANSCRIPT),
        ("azure", "moderations", "omni-moderation-latest", {"model": "omni-moderation-latest", "results": []}),
        ("openai", "images", "dall-e-3", {"created": 1, "data": [{"url": "x"}]}),
        ("openai", "speech", "gpt-4o-mini-tts", None),
        ("openai", "transcription", "whisper-1", None),
        ("openrouter", "chat", FREE, chat(FREE, 10, 10)),
        ("google", "chat", "x" * 5000, chat("y" * 5000, 10, 10)),
    ],
)
def test_what_has_no_known_price_costs_none_and_never_nothing(
    provider: str, flavor: str, model: str, result: dict[str, Any] | None
) -> None:
    assert metered(provider, flavor, model, result).cost is None


def test_speech_is_priced_by_its_characters() -> None:
    usage = metered("openai", "speech", "tts-1", None, input_characters=1000)
    assert usage.cost == 15_000_000  # $15 for a million
    assert usage.estimated


def test_speech_with_a_usage_report_is_priced_by_tokens() -> None:
    result = {"type": "speech.audio.done", "usage": {"input_tokens": 14, "output_tokens": 101, "total_tokens": 115}}
    assert metered("openai", "speech", "gpt-4o-mini-tts", result) == Usage(14, 101, 0, nanos((14, "0.6"), (101, "12")))


def test_the_model_that_answered_is_priced_else_the_one_that_was_asked_for() -> None:
    assert metered("openai", "chat", "gpt-4o", chat("gpt-4o-mini", 10, 0)).cost == nanos((10, "0.15"))
    assert metered("openai", "chat", "gpt-4o", chat("surprise", 10, 0)).cost == nanos((10, "2.5"))
    assert metered("azure", "chat", "our-deployment", chat("our-deployment", 10, 0)).cost is None


def test_the_service_tier_of_the_answer_changes_the_price() -> None:
    for tier, cost in (
        ("default", nanos((1000, "2.5"), (1000, "10"))),
        ("priority", nanos((1000, "4.25"), (1000, "17"))),
    ):
        answer = {**chat("gpt-4o", 1000, 1000), "service_tier": tier}
        assert metered("openai", "chat", "gpt-4o", answer).cost == cost


def test_a_route_without_usage_is_free() -> None:
    assert metered("openai", "none", "", None) == Usage(cost=0)


# Nothing reported, or nonsense


def test_what_was_not_reported_is_estimated_upwards() -> None:
    usage = metered("openai", "chat", "gpt-4o", None, input_characters=1000, output_characters=301)
    assert usage == Usage(334 + 16, 101, 0, nanos((350, "2.5"), (101, "10")), estimated=True)
    embedded = metered("openai", "embeddings", "text-embedding-3-small", None, output_characters=9)
    assert embedded == Usage(116, 0, 0, nanos((116, "0.02")), estimated=True)
    assert metered("sandbox", "chat", "sandbox-1", None, output_characters=3) == Usage(116, 1, 0, 0, estimated=True)
    assert metered("custom", "chat", "llama", None, output_characters=3) == Usage(116, 1, 0, None, estimated=True)


def test_a_stream_cut_before_its_final_usage_is_charged_for_what_flowed() -> None:
    started = claude(input_tokens=2000, cache_read_input_tokens=1000, output_tokens=1)
    usage = metered("anthropic", "anthropic", "claude-sonnet-4-5", started, output_characters=3000)
    assert usage == Usage(3000, 1000, 1000, nanos((2000, "3"), (1000, "0.3"), (1000, "15")), estimated=True)


def test_a_believable_report_is_taken_as_it_is() -> None:
    usage = metered("anthropic", "anthropic", "claude-sonnet-4-5", CACHED_CLAUDE, output_characters=503 * 6)
    assert not usage.estimated


@pytest.mark.parametrize("count", ["12", -1, True, None, 1.5, 10**12, float("inf"), float("nan"), [], {}, 10**400])
@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens"])
def test_a_count_that_cannot_be_true_is_estimated_instead(field: str, count: Any) -> None:
    result = chat("gpt-4o", 10, 10)
    result["usage"][field] = count
    usage = metered("openai", "chat", "gpt-4o", result, output_characters=30)
    assert usage == Usage(116, 10, 0, nanos((116, "2.5"), (10, "10")), estimated=True)


def test_parts_that_exceed_the_whole_get_no_discount() -> None:
    usage = metered("openai", "chat", "gpt-4o", chat("gpt-4o", 1000, 10, cached=1001), output_characters=30)
    assert usage == Usage(1000, 10, 0, nanos((1000, "2.5"), (10, "10")), estimated=True)


def demanded(flavor: str, model: str, fields: str = "model messages", **demand: Any) -> UpstreamCall:
    demand["fields"] = frozenset(fields.split())
    return UpstreamCall(f"test.{flavor}", "POST", "/", models=(model,), flavor=flavor, demand=Demand(**demand))


def test_an_estimate_of_the_input_counts_bytes_pictures_and_sound() -> None:
    plain = demanded("chat", "gpt-4o", text=3000, images=2, limit=100)
    usage = meter(PROVIDERS["openai"], plain, None, output_characters=30)
    assert usage == Usage(1000 + 16 + 2 * 1445, 10, 0, nanos((3906, "2.5"), (10, "10")), estimated=True)
    spoken = demanded("google", "gemini-2.5-flash", text=300, audio=(9,), limit=100)
    assert meter(PROVIDERS["google"], spoken, None, output_characters=0).input_tokens == 100 + 16 + 10 * 32


def test_what_flowed_never_counts_more_than_the_limit_that_went_out() -> None:
    call = demanded("chat", "gpt-4o", text=300, limit=4096, candidates=2)
    assert meter(PROVIDERS["openai"], call, None, output_characters=10**6).output_tokens == 2 * 4096
    assert meter(PROVIDERS["openai"], call, None, output_characters=10**6, limit=64).output_tokens == 2 * 64


@pytest.mark.parametrize(
    ("provider", "flavor", "model", "output"),
    [
        ("openai", "chat", "gpt-5-mini", 1000),
        ("openai", "responses", "o4-mini", 1000),
        ("azure", "responses", "o3-2025-04-16", 1000),
        ("anthropic", "anthropic", "claude-opus-5", 1000),
        ("openai", "chat", "gpt-4o", 10),
        ("anthropic", "anthropic", "claude-haiku-4-5", 10),
        ("groq", "chat", "llama-3.3-70b-versatile", 10),
    ],
)
def test_who_leaves_a_model_that_thinks_unseen_is_charged_all_that_it_may_have_thought(
    provider: str, flavor: str, model: str, output: int
) -> None:
    call = demanded(flavor, model, text=300, limit=1000)
    assert meter(PROVIDERS[provider], call, None, output_characters=30).output_tokens == output


def test_a_claude_that_was_told_to_think_may_have_thought_up_to_its_limit() -> None:
    call = demanded("anthropic", "claude-sonnet-4-5", "model thinking", text=300, limit=1000)
    started = claude(input_tokens=100, output_tokens=1) | {"unfinished": True}
    usage = meter(PROVIDERS["anthropic"], call, started, output_characters=30)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (100, 1000, True)


def test_a_report_from_before_the_end_is_topped_up_by_what_flowed() -> None:
    started = claude(input_tokens=100, output_tokens=50) | {"unfinished": True}
    usage = metered("anthropic", "anthropic", "claude-haiku-4-5", started, output_characters=300)
    assert (usage.input_tokens, usage.output_tokens, usage.estimated) == (100, 100, True)
    usage = metered("anthropic", "anthropic", "claude-haiku-4-5", started, output_characters=30)
    assert (usage.output_tokens, usage.estimated) == (50, True)


@pytest.mark.parametrize("demand", [{"unbounded": "hosted tools"}, {"hidden": True}])
def test_what_cannot_be_estimated_costs_none(demand: dict[str, Any]) -> None:
    call = demanded("chat", "gpt-4o", text=300, limit=1000, **demand)
    assert meter(PROVIDERS["openai"], call, None, output_characters=30).cost is None


def test_a_recording_without_a_report_is_charged_by_its_length() -> None:
    call = demanded("transcription", "whisper-1", audio=(59,))
    usage = meter(PROVIDERS["openai"], call, None, output_characters=0)
    assert (usage.cost, usage.estimated) == (6_000_000, True)


# Steps and hosted tools


def test_steps_of_an_answer_are_charged_each_by_its_model() -> None:
    steps = [
        {"model": "claude-haiku-4-5", "usage": {"input_tokens": 1000, "output_tokens": 100}},
        {"model": "claude-opus-5", "usage": {"input_tokens": 50, "output_tokens": 10, "cache_read_input_tokens": 7}},
    ]
    report = claude(input_tokens=50, output_tokens=10) | {"parts": steps}
    usage = metered("anthropic", "anthropic", "claude-haiku-4-5", report)
    cost = nanos((1000, "1"), (100, "5"), (50, "5"), (10, "25"), (7, "0.5"))
    assert usage == Usage(1057, 110, 7, cost)


def test_steps_of_which_one_has_no_price_have_none() -> None:
    steps = [{"model": "gpt-4o", "usage": chat("", 1, 1)["usage"]}, {"model": "?", "usage": chat("", 1, 1)["usage"]}]
    report = chat("compound", 2, 2) | {"parts": steps}
    assert metered("groq", "chat", "compound", report).cost is None


@pytest.mark.parametrize(
    ("provider", "flavor", "model", "tools", "extra"),
    [
        ("openai", "responses", "gpt-4o", {"web_search_call": 2}, (2, "10000")),
        ("openai", "responses", "gpt-4o", {"file_search_call": 3}, (3, "2500")),
        ("google", "google", "gemini-2.5-flash", {"google_search": 1}, (1, "35000")),
    ],
)
def test_calls_of_hosted_tools_are_charged_where_they_have_a_price(
    provider: str, flavor: str, model: str, tools: dict[str, int], extra: tuple[int, str]
) -> None:
    answer = gemini(promptTokenCount=10) if flavor == "google" else {**RESPONSE, "model": model}
    plain = metered(provider, flavor, model, answer).cost
    assert plain is not None
    assert metered(provider, flavor, model, answer | {"tools": tools}).cost == plain + nanos(extra)


@pytest.mark.parametrize(
    "tools", [{"code_interpreter_call": 1}, {"web_search_call": 1, "shell_call": 1}, {"unheard_of": 1}]
)
def test_a_hosted_tool_without_a_price_leaves_the_cost_unknown(tools: dict[str, int]) -> None:
    assert metered("openai", "responses", "gpt-4o", {**RESPONSE, "model": "gpt-4o", "tools": tools}).cost is None


def test_a_search_with_a_model_that_has_no_price_of_searches_leaves_the_cost_unknown() -> None:
    answer = {**RESPONSE, "model": "chatgpt-4o-latest"}
    assert metered("openai", "responses", "chatgpt-4o-latest", answer).cost is not None
    assert metered("openai", "responses", "chatgpt-4o-latest", answer | {"tools": {"web_search_call": 1}}).cost is None


def test_what_anthropic_serves_beside_searches_leaves_the_cost_unknown() -> None:
    searched = claude(input_tokens=1, output_tokens=1, server_tool_use={"web_fetch_requests": 3})
    assert metered("anthropic", "anthropic", "claude-sonnet-4-5", searched).cost == nanos((1, "3"), (1, "15"))
    ran = claude(input_tokens=1, output_tokens=1, server_tool_use={"code_execution_requests": 1})
    assert metered("anthropic", "anthropic", "claude-sonnet-4-5", ran).cost is None


# Tiers, regions, bills


@pytest.mark.parametrize(("tier", "known"), [("default", True), ("auto", True), ("scale", False), ("turbo", False)])
def test_a_tier_without_a_price_is_not_charged_at_another_ones(tier: str, known: bool) -> None:
    cost = metered("openai", "chat", "gpt-4o", {**chat("gpt-4o", 10, 10), "service_tier": tier}).cost
    assert (cost is not None) == known


def test_inference_in_one_region_costs_a_tenth_more() -> None:
    usage = {"input_tokens": 1000, "output_tokens": 1000}
    for place, factor in (("global", "1"), ("us", "1.1")):
        answer = claude(**usage, inference_geo=place) | {"model": "claude-opus-5"}
        cost = metered("anthropic", "anthropic", "claude-opus-5", answer).cost
        assert cost == 30_000_000 * Decimal(factor)
    assert metered("anthropic", "anthropic", "x", claude(**usage, inference_geo="moon")).cost is None


def test_what_openrouter_bills_is_charged_where_it_is_more_than_the_table() -> None:
    model = "openai/gpt-4o-mini"
    assert metered("openrouter", "chat", model, chat(model, 30, 12, cost=0.5)).cost == 500_000_000
    assert metered("openrouter", "chat", model, chat(model, 30, 12, cost=0)).cost == nanos((30, "0.15"), (12, "0.6"))
    assert metered("openrouter", "chat", "new/model", chat("new/model", 30, 12, cost=0.002)).cost == 2_000_000
    assert metered("openai", "chat", "gpt-4o", chat("gpt-4o", 10, 0, cost=5)).cost == nanos((10, "2.5"))


# An owner's own prices


ROWS = json.dumps(
    [
        {"models": "house-*", "input": "2", "output": "8", "cached": "0.5"},
        {"models": "local-*", "free": True},
        {"models": "gpt-4o", "input": "1", "output": "1"},
        {"models": "claude-*", "input": "10", "output": "20"},
        {"models": "input-only", "input": "1"},
        {"models": "painter", "image": "0.04"},
        {"models": "voice", "character": "20"},
        {"models": "gpt-4o-transcribe", "second": "0.0001"},
    ]
)


def owned(provider: str, call: UpstreamCall, result: Any, *, margin: int = 0) -> int | None:
    return meter(PROVIDERS[provider], call, result, output_characters=0, prices=ROWS, margin=margin).cost


def test_an_owners_price_is_charged_before_the_tables() -> None:
    asked = call("chat", "gpt-4o")
    assert owned("openai", asked, chat("gpt-4o-2024-08-06", 100, 10)) == nanos((110, "1"))
    assert owned("openai", call("chat", "gpt-4o-mini"), chat("gpt-4o-mini", 100, 0)) == nanos((100, "0.15"))


def test_a_row_prices_the_model_that_was_asked_for_whatever_answers() -> None:
    assert owned("azure", call("chat", "house-1"), chat("gpt-4o-2024-08-06", 100, 10)) == nanos((100, "2"), (10, "8"))


def test_cached_input_has_the_rows_price_of_it_or_that_of_input() -> None:
    answer = chat("?", 100, 10, cached=40)
    assert owned("custom", call("chat", "house-1"), answer) == nanos((60, "2"), (40, "0.5"), (10, "8"))
    assert owned("openai", call("chat", "gpt-4o"), answer) == nanos((110, "1"))


def test_writing_into_anthropics_cache_costs_more_than_the_rows_price_of_input() -> None:
    cost = owned("anthropic", call("anthropic", "claude-sonnet-4-5"), CACHED_CLAUDE)
    assert cost == nanos((2095, "10"), (1500, "12.5"), (500, "20"), (10_000, "10"), (503, "20"))


def test_a_margin_is_on_top_of_every_cost_and_rounded_up() -> None:
    assert owned("custom", call("chat", "house-1"), chat("?", 1, 1), margin=25) == 12_500
    assert owned("openai", call("chat", "gpt-4o-mini"), chat("gpt-4o-mini", 1, 0), margin=1) == 152  # 151.5


def test_what_an_owner_calls_free_costs_nothing_whatever_it_does() -> None:
    for result in (chat("?", 10, 10) | {"tools": {"shell_call": 1}}, None, {"usage": "nonsense"}):
        assert owned("custom", call("chat", "local-1"), result, margin=50) == 0


def test_a_unit_that_the_row_does_not_name_has_no_price() -> None:
    assert owned("custom", call("chat", "input-only"), chat("?", 10, 0)) == nanos((10, "1"))
    assert owned("custom", call("chat", "input-only"), chat("?", 10, 1)) is None


def test_pictures_voices_and_seconds_have_the_rows_price() -> None:
    assert owned("custom", demanded("images", "painter", pictures=3), IMAGE) == 120_000_000
    assert owned("custom", demanded("images", "painter", pictures=3), None) == 120_000_000
    assert owned("custom", demanded("speech", "voice", characters=100), None) == 2_000_000
    assert owned("openai", demanded("transcription", "gpt-4o-transcribe", audio=(9,)), TRANSCRIPT) == 1_000_000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "usage",
                    "usageMetadata",
                    "model",
                    "modelVersion",
                    "service_tier",
                    "speed",
                    "type",
                    "seconds",
                    "duration",
                    "prompt_tokens",
                    "completion_tokens",
                    "input_tokens",
                    "output_tokens",
                    "cached_tokens",
                    "audio_tokens",
                    "prompt_tokens_details",
                    "input_token_details",
                    "promptTokenCount",
                    "promptTokensDetails",
                    "modality",
                    "tokenCount",
                    "parts",
                    "tools",
                    "unfinished",
                    "web_search_call",
                    "server_tool_use",
                    "cost",
                    "inference_geo",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(
    st.sampled_from(sorted(PROVIDERS)),
    st.sampled_from((*FLAVORS, "transcription", "none", "unheard-of")),
    JSON,
    st.integers(-5, 10**9),
)
def test_no_answer_whatever_raises(provider: str, flavor: str, result: Any, characters: int) -> None:
    usage = metered(provider, flavor, "gpt-4o", result, output_characters=characters, input_characters=characters)
    for count in (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.cost or 0):
        assert type(count) is int
        assert 0 <= count < 2**63
    assert usage.cached_tokens <= usage.input_tokens


@pytest.mark.parametrize(
    ("provider", "model", "search"),
    [
        ("openai", "gpt-4o-mini-search-preview", 10_000_000),
        ("openai", "gpt-4o-search-preview", None),  # no price of a search is listed: the bound is charged
        ("openai", "gpt-5-search-api", None),
        ("custom", "gpt-4o-search-preview", 0),
    ],
)
def test_a_chat_model_that_searches_by_nature_is_charged_a_search(
    provider: str, model: str, search: int | None
) -> None:
    """No count of searches is in its answer, and each answer is billed one beside its tokens."""
    own = json.dumps([{"models": "*", "input": "1", "output": "1"}]) if provider == "custom" else ""
    asked, answer = call("chat", model), chat(model, 1000, 1000)
    usage = meter(PROVIDERS[provider], asked, answer, output_characters=9, prices=own, strict=True)
    tokens = 2_000_000 if provider == "custom" else 750_000
    assert usage.cost == (None if search is None else tokens + search)


@pytest.mark.parametrize(
    ("flavor", "details", "dollars"),
    [
        ("chat", {}, None),  # Gemini's OpenAI-shaped endpoint tells the sum only
        ("chat", {"completion_tokens_details": {"image_tokens": 1290}}, None),
        ("google", {}, None),
        ("google", {"candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 1290}]}, "2.5"),
        ("google", {"candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}]}, "30"),
    ],
)
def test_output_of_a_model_that_draws_is_charged_as_text_only_where_the_report_says_so(
    flavor: str, details: dict[str, Any], dollars: str | None
) -> None:
    """The bound is charged for ``None``. A token of a picture costs twelve times a token of text."""
    model, usage = "gemini-2.5-flash-image", {"promptTokenCount": 0, "candidatesTokenCount": 1290}
    answer: dict[str, Any] = {"modelVersion": model, "usageMetadata": usage | details}
    if flavor == "chat":
        answer = {"model": model, "usage": {"prompt_tokens": 0, "completion_tokens": 1290} | details}
    asked = call(flavor, model, input_characters=0)
    cost = meter(PROVIDERS["google"], asked, answer, output_characters=20, strict=True).cost
    assert cost == (None if dollars is None else nanos((1290, dollars)))
