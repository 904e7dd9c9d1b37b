"""The bound of a call: never below what it then costs, and a refusal for whatever has no price or no end."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from genai_prices import data as price_table
from genai_prices.types import TimeOfDateConstraint
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from grants.providers import PROVIDERS, Capability
from proxy import dialects
from proxy.dialects.base import Demand, Inbound, UpstreamCall
from proxy.exceptions import NotGranted
from proxy.pricing.bounds import FLOOR, Bound, bound, tokens_bound
from proxy.pricing.inputs import FRAMING, OVERHEAD
from proxy.pricing.metering import meter
from proxy.pricing.tariffs import at_minute, listed
from proxy.pricing.windows import window

ROWS = json.dumps(
    [
        {"models": "house-*", "input": "2.50", "output": "10.00", "cached": "1.25"},
        {"models": "per-call", "input": "0", "output": "0", "request": "0.01"},
        {"models": "local-*", "free": True},
        {"models": "input-only", "input": "1"},
        {"models": "painter", "image": "0.04", "request": "0.001"},
        {"models": "reader", "image": "0.04", "input": "5"},
        {"models": "voice", "character": "20"},
        {"models": "gpt-4o-transcribe", "second": "0.0001"},
        {"models": "gpt-5*", "input": "1", "output": "2"},
    ]
)


def call(flavor: str, model: str, *, embeds: bool = False, **demand: Any) -> UpstreamCall:
    dialect = flavor if flavor in ("anthropic", "google") else "openai"
    capabilities = frozenset({Capability.EMBEDDINGS if embeds else Capability.CHAT})
    return UpstreamCall(
        f"{dialect}.test",
        "POST",
        "/",
        models=(model,),
        flavor=flavor,
        capabilities=capabilities,
        json=b"{}",
        demand=Demand(**demand),
    )


def bounded(
    provider: str, asked: UpstreamCall, prices: str = "[]", margin: int = 0, per_call: int | None = None
) -> Bound:
    return bound(PROVIDERS[provider], asked, prices, margin, max_cost_per_call=per_call)


def refusal(provider: str, asked: UpstreamCall, prices: str = "[]") -> NotGranted:
    with pytest.raises(NotGranted) as error:
        bounded(provider, asked, prices)
    assert error.value.final
    assert error.value.status == 403
    return error.value


# What a bound is made of


def test_text_counts_a_token_a_byte_and_the_whole_output_limit() -> None:
    found = bounded("openai", call("chat", "gpt-4o", text=1000, limit=500))
    assert found == Bound((1000 + OVERHEAD) * Decimal(2500), Decimal(10_000), 1000 + OVERHEAD, 500, 1)
    assert found.cost(500) == (1000 + OVERHEAD) * 2500 + 500 * 10_000
    assert found.cost(0) == (1000 + OVERHEAD) * 2500
    assert found.tokens(500) == 1500 + OVERHEAD


def test_every_candidate_may_use_the_whole_limit() -> None:
    one, four = (bounded("openai", call("chat", "gpt-4o", limit=500, candidates=count)) for count in (1, 4))
    assert four.per_token == 4 * one.per_token
    assert four.tokens(500) - one.tokens(500) == 3 * 500


# Tokens beside the text


def sent(path: str, body: dict[str, Any], provider: str) -> UpstreamCall:
    data = json.dumps(body).encode()
    return dialects.read(Inbound("POST", path, content_type="application/json", body=data), PROVIDERS[provider], (), 64)


HELLO = [{"role": "user", "content": "Hello"}]
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}


@pytest.mark.parametrize(
    ("provider", "path", "body", "messages"),
    [
        ("openai", "/v1/chat/completions", {"model": "gpt-4o", "messages": HELLO * 3}, 3),
        ("openai", "/v1/responses", {"model": "gpt-4.1-mini", "input": "Hello", "instructions": "Be kind"}, 2),
        ("anthropic", "/v1/messages", {"model": "claude-opus-5", "system": "Be kind", "messages": HELLO}, 2),
        ("google", "/v1beta/models/gemini-2.5-flash:generateContent", GEMINI, 1),
    ],
)
def test_a_known_template_without_tools_adds_sixteen_tokens_a_message_and_sixteen_for_the_answer(
    provider: str, path: str, body: dict[str, Any], messages: int
) -> None:
    asked = sent(path, body, provider)
    assert asked.demand.messages == messages
    assert bounded(provider, asked).input_tokens == asked.demand.text + 16 * (messages + 1)


@pytest.mark.parametrize(
    ("provider", "path", "body"),
    [
        ("openai", "/v1/chat/completions", {"model": "gpt-5", "messages": HELLO}),
        ("openai", "/v1/chat/completions", {"model": "gpt-4o", "messages": HELLO, "tools": []}),
        ("openai", "/v1/chat/completions", {"model": "gpt-4o", "messages": HELLO, "functions": []}),
        ("openai", "/v1/chat/completions", {"model": "gpt-4o", "messages": HELLO, "response_format": {}}),
        ("openai", "/v1/responses", {"model": "gpt-4o", "input": "Hello", "text": {"format": {"type": "json_object"}}}),
        ("anthropic", "/v1/messages", {"model": "claude-opus-5", "messages": HELLO, "output_config": {}}),
        ("anthropic", "/v1/messages", {"model": "claude-opus-5", "messages": HELLO, "thinking": {"type": "adaptive"}}),
        ("anthropic", "/v1/chat/completions", {"model": "claude-opus-5", "messages": HELLO}),
        ("google", "/v1beta/models/gemini-2.5-flash:generateContent", {**GEMINI, "tools": []}),
        (
            "google",
            "/v1beta/models/gemini-2.5-flash:generateContent",
            {**GEMINI, "generationConfig": {"responseSchema": {}}},
        ),
        ("google", "/v1beta/models/gemini-4-argon:generateContent", GEMINI),
        ("azure", "/v1/chat/completions", {"model": "o1", "messages": HELLO}),
        ("groq", "/v1/chat/completions", {"model": "openai/gpt-oss-20b", "messages": HELLO}),
        ("custom", "/v1/chat/completions", {"model": "house-1", "messages": HELLO}),
    ],
)
def test_tools_schemas_and_unknown_templates_may_add_as_much_as_ever(
    provider: str, path: str, body: dict[str, Any]
) -> None:
    asked = sent(path, body, provider)
    assert bounded(provider, asked, ROWS).input_tokens == asked.demand.text + 16 * asked.demand.messages + OVERHEAD


def test_each_tool_that_the_provider_describes_adds_its_description() -> None:
    tools = [
        {"type": "bash_20250124", "name": "bash"},
        {"name": "f", "input_schema": {}},
        {"type": "custom", "name": "g"},
    ]
    asked = sent("/v1/messages", {"model": "claude-opus-5", "messages": HELLO, "tools": tools}, "anthropic")
    assert bounded("anthropic", asked).input_tokens == asked.demand.text + 16 + 2 * OVERHEAD
    tools = [{"type": "apply_patch"}, {"type": "local_shell"}, {"type": "function", "name": "f"}]
    asked = sent("/v1/responses", {"model": "gpt-5", "input": "Hello", "tools": tools}, "openai")
    assert bounded("openai", asked).input_tokens == asked.demand.text + 16 + 3 * OVERHEAD


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "gpt-3.5-turbo"])
@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=30)), min_size=1, max_size=9)
)
def test_a_conversation_is_never_more_tokens_than_its_bound(model: str, turns: list[tuple[str, str]]) -> None:
    """By the rule that OpenAI publishes, with a token for each byte, which no tokenizer exceeds."""
    messages = [{"role": role, "content": text} for role, text in turns]
    asked = sent("/v1/chat/completions", {"model": model, "messages": messages}, "openai")
    most = sum(4 + len(role) + len(text.encode("utf-8", "replace")) for role, text in turns) + 3
    assert bounded("openai", asked).input_tokens >= most


def test_a_cent_can_be_spent_nearly_whole_by_one_word_calls() -> None:
    """64 callers stop when what is left pays for no further call: that was 26 % of a cent with 1,024 tokens a call."""
    body = {"model": "gpt-4o", "messages": HELLO}
    least = bounded("openai", sent("/v1/chat/completions", body, "openai")).cost(FLOOR)
    assert 1 - least / 10**7 > 0.88


# Modalities


@pytest.mark.parametrize(
    ("provider", "flavor", "model", "text", "most"),
    [
        ("google", "google", "gemini-omni-1.1-flash", None, "output_video_mtok"),
        ("openai", "chat", "gpt-audio", 10_000, "output_audio_mtok"),
        ("openai", "responses", "gpt-audio", None, "output_audio_mtok"),
        ("google", "chat", "gemini-omni-1.1-flash", None, "output_video_mtok"),
    ],
)
def test_a_model_that_makes_more_than_text_is_bounded_at_its_dearest_modality_unless_text_is_pinned(
    provider: str, flavor: str, model: str, text: int | None, most: str
) -> None:
    row = next(row for row in price_table.providers if row.id == provider).find_model(model)
    assert row is not None
    prices = row.get_prices(datetime.now(UTC))
    free, pinned = (bounded(provider, call(flavor, model, limit=1, text_only=pin)).per_token for pin in (False, True))
    assert free == getattr(prices, most) * 1000
    can_be_pinned = (provider, flavor) in {("openai", "chat"), ("google", "google")}
    assert pinned == (prices.output_mtok * 1000 if can_be_pinned else free)
    assert text is None or pinned == text


@pytest.mark.parametrize("names", [["text"], ["TEXT"], "text"])
def test_text_is_pinned_where_it_is_the_only_modality(names: Any) -> None:
    assert sent(
        "/v1/chat/completions", {"model": "m", "messages": HELLO, "modalities": names}, "openai"
    ).demand.text_only
    config = {"responseModalities": names}
    path = "/v1beta/models/m:generateContent"
    assert sent(path, {**GEMINI, "generationConfig": config}, "google").demand.text_only


@pytest.mark.parametrize("names", [[], ["text", "audio"], ["image"], None])
def test_text_is_not_pinned_where_other_modalities_are_named_or_none(names: Any) -> None:
    body = {"model": "m", "messages": HELLO, "modalities": names}
    assert not sent("/v1/chat/completions", body, "openai").demand.text_only


# Windows


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt-4o"), ("deepseek", "deepseek-chat")])
def test_text_is_never_lowered_to_a_context_window(provider: str, model: str) -> None:
    """The price table's windows are too small for some models: DeepSeek's says 64,000 of 128,000."""
    found = bounded(provider, call("chat", model, text=10_000_000, limit=1))
    assert found.input_tokens == 10_000_000 + OVERHEAD
    pictures = call("responses", "gpt-4o", text=10, images=200, limit=1)
    assert bounded("openai", pictures).input_tokens == 10 + 200 * 1445 + OVERHEAD


def test_what_is_not_shown_never_counts_less_than_what_is() -> None:
    found = bounded("openai", call("chat", "gpt-4o", text=500_000, hidden=True, limit=1))
    assert found.input_tokens == 500_000 + OVERHEAD


def test_a_context_window_that_is_kept_here_is_no_smaller_than_the_price_tables() -> None:
    compared = 0
    for provider in ("openai", "anthropic", "google"):
        for row in next(row for row in price_table.providers if row.id == provider).models:
            known = window(PROVIDERS[provider], row.id)
            if known and row.context_window:
                compared += 1
                assert known >= row.context_window, row.id
    assert compared > 40


@pytest.mark.parametrize("name", ["gpt-6.9", "gpt-4o-audio-preview", "ft:gpt-4o:us::1", "my-gpt-4o", "gpt-4o2"])
def test_a_model_without_a_documented_window_has_none(name: str) -> None:
    assert window(PROVIDERS["openai"], name) is None


def test_what_the_body_does_not_show_counts_as_the_whole_context_window() -> None:
    found = bounded("openai", call("chat", "gpt-4o", text=100, hidden=True, limit=1))
    assert (found.input_tokens, found.fixed) == (128_000, 128_000 * Decimal(2500))


def test_a_picture_by_url_costs_no_more_than_an_inline_one() -> None:
    picture = {"type": "input_image", "image_url": "https://example.org/a.png"}
    asked = sent("/v1/responses", {"model": "gpt-5.5", "input": [{"role": "user", "content": [picture]}]}, "openai")
    found = bounded("openai", asked)
    assert 24_600 < found.input_tokens < 24_600 + OVERHEAD + 500
    assert found.cost(0) < 500_000_000  # half a dollar; the window of 1,050,000 tokens is $10.49
    assert found.why == ""


def test_a_bound_says_what_makes_it_high() -> None:
    file = {"type": "input_file", "file_data": "data:application/pdf;base64,JVBERi0="}
    asked = sent("/v1/responses", {"model": "gpt-5.5", "input": [{"role": "user", "content": [file]}]}, "openai")
    found = bounded("openai", asked)
    assert found.input_tokens == 1_050_000
    assert "'input[0].content[0].file_data'" in found.why
    assert "whole context window (1050000 tokens)" in found.why
    unknown = bounded("anthropic", call("anthropic", "claude-opus-4-5", hidden=True, limit=1))
    assert "It brings in what the body does not show, which counts as" in unknown.why


def test_a_long_context_is_bounded_at_its_own_rates() -> None:
    short, long = (bounded("openai", call("chat", "gpt-5.4", text=size, limit=10)) for size in (200_000, 300_000))
    assert (short.per_token, long.per_token) == (15_000, 22_500)
    assert long.fixed == (300_000 + OVERHEAD) * 5000


def test_a_faster_tier_is_bounded_at_its_own_rates_and_a_cheaper_one_at_the_standard() -> None:
    rates = {tier: bounded("openai", call("chat", "gpt-4o", limit=1, tier=tier)).per_token for tier in ("", "priority")}
    assert rates == {"": 10_000, "priority": 17_000}
    assert bounded("openai", call("chat", "gpt-5.4", limit=1, tier="flex")).per_token == 15_000
    assert bounded("anthropic", call("anthropic", "claude-opus-5", limit=1, tier="fast")).per_token == 55_000  # × 1.1


def test_anthropics_regions_are_in_its_bound_because_a_workspace_may_be_set_to_one() -> None:
    assert bounded("anthropic", call("anthropic", "claude-opus-5", limit=1)).per_token == 27_500
    assert bounded("anthropic", call("anthropic", "claude-opus-5", limit=1, tier="us")).per_token == 27_500


def test_writing_into_a_cache_is_bounded_where_it_is_asked_for() -> None:
    plain, cached = (
        bounded("anthropic", call("anthropic", "claude-haiku-4-5", cached=cached, limit=1)) for cached in (False, True)
    )
    assert cached.fixed == 2 * plain.fixed  # for an hour


@pytest.mark.parametrize(
    ("provider", "flavor", "model", "tokens"),
    [
        ("openai", "chat", "gpt-4o-2024-08-06", 1445),
        ("openai", "chat", "gpt-4o-mini", 48_169),
        ("openai", "responses", "gpt-4.1-nano", 3779),
        ("openai", "chat", "gpt-4.1", 1536),
        ("openai", "responses", "gpt-5-2025-08-07", 2489),
        ("openai", "responses", "gpt-5.4", 24_600),
        ("anthropic", "anthropic", "claude-sonnet-4-5", 1600),
        ("anthropic", "anthropic", "claude-opus-5", 4784),
        ("google", "google", "gemini-3.8-flash", 2240),
    ],
)
def test_a_picture_counts_the_most_tokens_that_its_model_makes_of_one(
    provider: str, flavor: str, model: str, tokens: int
) -> None:
    found = bounded(provider, call(flavor, model, images=2, limit=1))
    assert found.input_tokens == 2 * tokens + OVERHEAD


def test_a_picture_whose_tokens_are_not_known_counts_as_the_context_window() -> None:
    assert bounded("openai", call("chat", "gpt-6-sol", images=1, limit=1)).input_tokens == 1_050_000
    assert bounded("google", call("google", "gemini-2.5-flash", images=1, limit=1)).input_tokens == 1_048_576


def test_sound_is_bounded_by_its_seconds_at_the_rate_of_sound() -> None:
    found = bounded("google", call("google", "gemini-2.5-flash", audio=(9,), limit=1))
    assert found.fixed == OVERHEAD * 300 + 10 * 32 * 1000  # a second that has begun counts
    assert bounded("openai", call("chat", "gpt-audio", audio=(9,), limit=1)).fixed == OVERHEAD * 2500 + 250 * 32_000


def test_the_dearest_hour_of_the_day_is_bounded() -> None:
    found = bounded("deepseek", call("chat", "deepseek-reasoner", text=1000, limit=1000))
    used = {"input_tokens": 1000 + OVERHEAD, "output_tokens": 1000}
    now = int(time.time() // 60)
    costs = {
        tariff.cost(used)
        for minute in range(now, now + 24 * 60)
        if (tariff := at_minute("deepseek", "deepseek-reasoner", (), minute))
    }
    assert len(costs) == 2
    assert found.cost(1000) == max(costs)


def test_prices_change_at_full_or_half_hours_only() -> None:
    for provider in price_table.providers:
        for model in provider.models:
            for price in model.prices if isinstance(model.prices, list) else ():
                if isinstance(price.constraint, TimeOfDateConstraint):
                    for moment in (price.constraint.start_time, price.constraint.end_time):
                        assert moment.minute % 30 == moment.second == 0, model.id


def test_embeddings_cost_their_input_only() -> None:
    found = bounded("openai", call("embeddings", "text-embedding-3-small", text=1000, embeds=True))
    assert (found.limit, found.per_token) == (None, 0)
    assert found.cost(None) == (1000 + FRAMING) * 20
    gemini = bounded("google", call("google", "gemini-embedding-001", text=1000, embeds=True))
    assert gemini.cost(None) == (1000 + FRAMING) * 150


def test_speech_costs_its_characters() -> None:
    assert bounded("openai", call("speech", "tts-1", text=2000, characters=1000)).cost(None) == 15_000_000
    assert bounded("openai", call("speech", "tts-1-hd", characters=1)).cost(None) == 30_000


def test_transcriptions_cost_their_seconds() -> None:
    assert bounded("openai", call("transcription", "whisper-1", audio=(59,))).cost(None) == 6_000_000  # $0.006 a minute
    groq = bounded("groq", call("transcription", "whisper-large-v3", audio=(1, 2)))
    assert groq.cost(None) == 616_667  # 10 seconds at least, for each


def test_pictures_of_a_known_model_cost_their_largest_size() -> None:
    found = bounded("openai", call("images", "gpt-image-1", text=100, pictures=2))
    assert found.cost(None) == (100 + FRAMING) * 5000 + 2 * 6540 * 40_000


@pytest.mark.parametrize(("provider", "flavor"), [("openai", "none"), ("openai", "moderations"), ("sandbox", "chat")])
def test_what_is_free_is_bounded_by_nothing_but_keeps_its_limit(provider: str, flavor: str) -> None:
    found = bounded(provider, call(flavor, "anything", text=1000, limit=100, hidden=True, unbounded="hosted tools"))
    assert (found.cost(100), found.limit) == (0, 100)


# An owner's own prices


def test_an_owners_price_stands_before_the_table() -> None:
    found = bounded("openai", call("chat", "gpt-5", text=0, limit=10), ROWS)
    assert (found.fixed, found.per_token) == (OVERHEAD * 1000, 2000)


def test_an_owners_price_stands_before_what_is_free() -> None:
    rows = '[{"models": "omni-*", "input": "1.00"}]'
    found = bounded("openai", call("moderations", "omni-moderation-latest", text=1000), rows)
    assert found.cost(None) > 1000 * 1000


def test_a_margin_is_on_top_of_every_price() -> None:
    plain, more = (bounded("custom", call("chat", "house-1", text=9, limit=10), ROWS, margin) for margin in (0, 25))
    assert (more.fixed, more.per_token) == (plain.fixed * Decimal("1.25"), plain.per_token * Decimal("1.25"))


def test_a_request_may_have_a_price() -> None:
    assert bounded("custom", call("chat", "per-call", text=9, limit=10), ROWS).cost(10) == 10_000_000


def test_pictures_voices_and_seconds_may_have_one() -> None:
    assert bounded("custom", call("images", "painter", pictures=3), ROWS).cost(None) == 121_000_000
    assert bounded("custom", call("images", "reader", text=84, pictures=1), ROWS).cost(None) == 40_000_000 + 100 * 5000
    assert bounded("custom", call("speech", "voice", characters=100), ROWS).cost(None) == 2_000_000
    assert bounded("openai", call("transcription", "gpt-4o-transcribe", audio=(9,)), ROWS).cost(None) == 1_000_000


def test_free_is_free_whatever_the_call_does() -> None:
    found = bounded("custom", call("chat", "local-1", text=9, limit=10, hidden=True, unbounded="hosted tools"), ROWS)
    assert found.cost(10) == 0


# Refusals


@pytest.mark.parametrize(
    ("provider", "asked", "what"),
    [
        ("openai", call("chat", "no-such-model", limit=1), "calls of 'no-such-model' at OpenAI"),
        ("azure", call("chat", "our-deployment", limit=1), "calls of 'our-deployment'"),
        ("custom", call("chat", "llama", limit=1), "calls of 'llama'"),
        ("openai", call("chat", "tts-1", limit=1), "a million input tokens of 'tts-1'"),
        ("openai", call("chat", "text-embedding-3-small", limit=1), "a million output tokens of"),
        ("openai", call("chat", "gpt-4o-audio-preview", limit=1, audio=(1,)), "a token of sound of"),
        ("openai", call("chat", "gpt-4o", limit=1, tier="scale"), "calls of 'gpt-4o' in the tier 'scale'"),
        ("openai", call("chat", "gpt-4", limit=1, tier="priority"), "in the tier 'priority'"),
        ("cerebras", call("chat", "llama3.1-8b", limit=1, tier="auto"), "in the tier 'auto'"),
        ("custom", call("chat", "house-1", limit=1, tier="auto"), "in the tier 'auto'"),
        ("anthropic", call("anthropic", "claude-opus-4-1", limit=1, tier="fast"), "in the tier 'fast'"),
        ("anthropic", call("anthropic", "claude-opus-5", limit=1, tier="fast+us"), "in the tier 'fast+us'"),
        (
            "openai",
            call("chat", "gpt-5", limit=1, tier="priority"),
            "in the tier 'priority'",
        ),  # nor has the owner's row
        ("openai", call("images", "dall-e-3", pictures=1), "calls of 'dall-e-3'"),
        ("openai", call("images", "gpt-image-2", pictures=1), "an image of 'gpt-image-2'"),
        ("openai", call("speech", "gpt-4o", characters=1), None),
        ("openai", call("speech", "whisper-1", characters=1), "a million characters to be spoken of"),
        ("openai", call("transcription", "tts-1", audio=(1,)), "a second of sound of"),
        ("custom", call("chat", "input-only", limit=1), "a million output tokens of 'input-only'"),
        ("custom", call("chat", "painter", limit=1), "a million input tokens of 'painter'"),
        ("openrouter", call("chat", "meta-llama/llama-3.3-70b-instruct:free", limit=1), "a million input tokens of"),
    ],
)
def test_what_has_no_price_is_refused_by_the_unit_that_it_needs(
    provider: str, asked: UpstreamCall, what: str | None
) -> None:
    error = refusal(provider, asked, ROWS)
    if what is None:
        assert error.code == "cost_unbounded"
        return
    assert error.code == "price_unknown"
    assert what in error.message
    no_row_helps = "in the tier" in error.message  # an owner's prices have no tiers
    assert ("owner can set one on the provider key" in error.message) != no_row_helps


@pytest.mark.parametrize(
    ("provider", "asked", "why"),
    [
        ("openai", call("responses", "gpt-4o", limit=1, unbounded="hosted tools"), "hosted tools"),
        (
            "xai",
            call("chat", "grok-4.3", limit=1, unbounded="reasoning beyond the limit"),
            "reasoning beyond the limit",
        ),
        ("openai", call("chat", "gpt-4o"), "no output limit"),
        ("mistral", call("chat", "mistral-large-2512", hidden=True, limit=1), "what the body does not show"),
        ("mistral", call("chat", "mistral-large-2512", images=1, limit=1), "pictures, in a model whose context window"),
        ("mistral", call("chat", "mistral-small-latest", audio=(3,), limit=1), "recordings"),
        ("openai", call("images", "gpt-image-1", images=1, pictures=1), "pictures, in a model whose"),
        ("openai", call("speech", "gpt-4o-mini-tts", characters=9), "the length of what is spoken"),
        ("openai", call("transcription", "gpt-4o-mini-transcribe", audio=(9,)), "the length of what is written down"),
        ("openai", call("transcription", "whisper-1", unbounded="unparsed audio"), "unparsed audio"),
    ],
)
def test_what_nothing_bounds_needs_the_owners_limit_per_call(provider: str, asked: UpstreamCall, why: str) -> None:
    error = refusal(provider, asked)
    assert error.code in ("cost_unbounded", "price_unknown")
    if error.code == "price_unknown":  # Mistral's sound has no price either
        assert asked.demand.audio
        return
    assert why in error.message
    assert "a limit of cost per call" in error.message
    found = bounded(provider, asked, per_call=50_000_000)
    assert (found.fixed, found.per_token, found.limit) == (50_000_000, 0, asked.demand.limit)


def test_a_price_is_needed_even_with_a_limit_per_call() -> None:
    with pytest.raises(NotGranted, match="no price for"):
        bounded("openai", call("chat", "no-such-model", limit=1, unbounded="hosted tools"), per_call=10**9)


ALIASES = {
    "openai": {
        "gpt-3.5-turbo": "gpt-3.5-turbo-0125",
        "gpt-4": "gpt-4-0613",
        "gpt-4-turbo": "gpt-4-turbo-2024-04-09",
        "gpt-4o": "gpt-4o-2024-08-06",
        "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
        "gpt-4.1": "gpt-4.1-2025-04-14",
        "gpt-5": "gpt-5-2025-08-07",
        "gpt-5-pro": "gpt-5-pro-2025-10-06",
        "gpt-5.4": "gpt-5.4-2026-03-05",
        "o3": "o3-2025-04-16",
        "o4-mini": "o4-mini-2025-04-16",
    },
    "anthropic": {
        "claude-3-5-haiku-latest": "claude-3-5-haiku-20241022",
        "claude-sonnet-4-0": "claude-sonnet-4-20250514",
        "claude-opus-4-1": "claude-opus-4-1-20250805",
        "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
        "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    },
    "google": {"models/gemini-2.5-flash": "gemini-2.5-flash", "gemini-pro-latest": "gemini-3.1-pro-preview"},
}


@pytest.mark.parametrize("provider", ALIASES)
def test_the_name_that_an_answer_comes_back_with_is_priced_as_the_one_that_was_asked_for(provider: str) -> None:
    """A bound rests on the model that was asked for, a cost on the one that answered."""
    for asked, answered in ALIASES[provider].items():
        tariffs = [listed(PROVIDERS[provider], name) for name in (asked, answered)]
        assert tariffs[0] is not None, asked
        assert tariffs[0] == tariffs[1], asked


# What money can pay for


BOUNDS = st.builds(
    Bound,
    st.decimals(0, 10**9, places=6),
    st.decimals(0, 10**6, places=6),
    st.just(0),
    st.integers(1, 10**6),
    st.just(1),
)


@given(BOUNDS, st.integers(0, 10**12))
def test_the_affordable_limit_is_the_largest_whose_cost_fits(found: Bound, money: int) -> None:
    limit = found.affordable(money)
    assert found.limit is not None
    assert limit <= found.limit
    if limit >= 0:
        assert found.cost(limit) <= money
    else:
        assert found.cost(0) > money
    if 0 <= limit < found.limit:
        assert found.cost(limit + 1) > money


def test_the_floor_is_what_a_sentence_needs() -> None:
    assert FLOOR == 64


def test_tokens_are_bounded_without_any_price() -> None:
    found = tokens_bound(PROVIDERS["custom"], call("chat", "llama", text=100, limit=50, candidates=2))
    assert (found.cost(50), found.tokens(50)) == (0, 100 + OVERHEAD + 100)


# The promise


TEXT_PROVIDERS = (
    "openai",
    "anthropic",
    "google",
    "azure",
    "mistral",
    "groq",
    "deepseek",
    "cohere",
    "together",
    "bedrock",
)
MODELS = [
    (provider, model.id)
    for provider in TEXT_PROVIDERS
    for row in price_table.providers
    if row.id == PROVIDERS[provider].prices
    for model in row.models
]
MODELS += [("custom", "house-1"), ("custom", "per-call"), ("openai", "gpt-5"), ("anthropic", "house-1")] * 20
TIERS = {
    "": ("default",),
    "priority": ("priority", "default"),
    "flex": ("flex", "default"),
    "fast": ("fast", "default"),
}
PERCENT = st.integers(0, 100)


@st.composite
def demands(draw: st.DrawFn) -> Demand:
    return Demand(
        text=draw(st.integers(0, 1_500_000)),
        images=draw(st.sampled_from((0, 0, 1, 3))),
        audio=draw(st.sampled_from(((), (), (7,), (3, 60)))),
        hidden=draw(st.booleans()),
        limit=draw(st.integers(1, 200_000)),
        candidates=draw(st.integers(1, 4)),
        tier=draw(st.sampled_from(("", "", *TIERS))),
        cached=draw(st.booleans()),
    )


def split(whole: int, *percents: int) -> list[int]:
    """Parts of ``whole``, one of what the others leave."""
    parts = []
    for percent in percents:
        parts.append(whole * percent // 100)
        whole -= parts[-1]
    return parts


@st.composite
def answers(draw: st.DrawFn, provider: str, flavor: str, model: str, demand: Demand, most: int) -> dict[str, Any]:
    """What an honest provider may report within the bound: any split of no more than that."""
    read = most * draw(PERCENT) // 100
    written = (demand.limit or 0) * demand.candidates * draw(PERCENT) // 100
    cached, kept, heard = split(read, draw(PERCENT), draw(PERCENT) if demand.cached else 0, draw(PERCENT))
    thought = written * draw(PERCENT) // 100
    if not (demand.hidden and flavor == "google"):  # a document may be a recording
        heard = min(heard, 25 * sum(demand.audio))
    tier = draw(st.sampled_from(TIERS.get(demand.tier, ("default",))))
    if flavor == "anthropic":
        hour = kept * draw(PERCENT) // 100
        usage = {
            "input_tokens": read - cached - kept,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": kept,
            "cache_creation": {"ephemeral_5m_input_tokens": kept - hour, "ephemeral_1h_input_tokens": hour},
            "output_tokens": written,
            "service_tier": "standard",
            "speed": "fast" if tier == "fast" else "standard",
            "inference_geo": draw(st.sampled_from(("us", "global"))),
        }
        return {"model": model, "usage": usage}
    if flavor == "google":
        parts = [{"modality": "TEXT", "tokenCount": read - heard}, {"modality": "AUDIO", "tokenCount": heard}]
        usage = {
            "promptTokenCount": read,
            "promptTokensDetails": parts,
            "cachedContentTokenCount": 0 if heard else cached,
            "candidatesTokenCount": written - thought,
            "thoughtsTokenCount": thought,
        }
        return {"modelVersion": model, "usageMetadata": usage}
    details = {"cached_tokens": cached, "cache_write_tokens": kept, "audio_tokens": heard}
    usage = {"prompt_tokens": read, "completion_tokens": written, "prompt_tokens_details": details}
    usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return {"model": model, "usage": usage, "service_tier": tier}


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(st.sampled_from(MODELS), demands(), st.sampled_from((0, 0, 7, 1000)), st.data())
def test_a_call_never_costs_more_than_its_bound(
    row: tuple[str, str], demand: Demand, margin: int, data: st.DataObject
) -> None:
    provider, model = row
    assume("search" not in model)  # what searches by nature has no bound of its own
    flavor = {"anthropic": "anthropic", "google": "google"}.get(provider, "chat")
    asked = call(flavor, model, **demand._asdict())
    try:
        found = bounded(provider, asked, ROWS, margin)
    except NotGranted:
        assume(False)
    answer = data.draw(answers(provider, flavor, model, demand, found.input_tokens))
    usage = meter(PROVIDERS[provider], asked, answer, output_characters=0, prices=ROWS, margin=margin)
    assert usage.cost is not None  # what could be bounded can be charged
    assert usage.cost <= found.cost(demand.limit)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), demands(), st.integers(0, 10**7), st.integers(1, 10**5))
def test_an_estimate_is_never_above_the_bound(
    row: tuple[str, str], demand: Demand, characters: int, lowered: int
) -> None:
    provider, model = row
    assume("search" not in model)  # what searches by nature has no bound of its own
    flavor = {"anthropic": "anthropic", "google": "google"}.get(provider, "chat")
    asked = call(flavor, model, **demand._asdict())
    try:
        found = bounded(provider, asked, ROWS)
    except NotGranted:
        assume(False)
    assert demand.limit is not None
    limit = min(lowered, demand.limit)
    usage = meter(PROVIDERS[provider], asked, None, output_characters=characters, prices=ROWS, limit=limit)
    assert usage.estimated
    assert usage.cost is None or usage.cost <= found.cost(limit)
    assert usage.input_tokens + usage.output_tokens <= found.tokens(limit)


@pytest.mark.parametrize("seconds", [0, 1, 59, 3600])
@pytest.mark.parametrize(("provider", "model"), [("openai", "whisper-1"), ("groq", "whisper-large-v3-turbo")])
def test_a_transcription_never_costs_more_than_its_bound(provider: str, model: str, seconds: int) -> None:
    asked = call("transcription", model, audio=(seconds,))
    most = bounded(provider, asked).cost(None)
    reports: list[Any] = [{"usage": {"type": "duration", "seconds": seconds}}, {"duration": seconds + 0.4}, None]
    for report in reports:
        cost = meter(PROVIDERS[provider], asked, report, output_characters=0).cost
        assert cost is not None
        assert 0 < cost <= most
