"""Usage to money, on the tables that genai-prices bundles. Pure: no database, no HTTP, no settings.

The tables are the library's: which field of an answer counts what, which model costs what, from when on. The arithmetic
is done here on rates kept per model, because the library checks its tables anew for every call, which takes a fifth of
the time of a whole relayed call. The tests hold both results against each other.

Costs are integer nano-dollars (1e-9 USD), **rounded up**: a call is never charged less than the table says, and at most
one nano-dollar more. A cost is ``None`` where no price is known. A price counts only if the table has a rate above
zero for every unit that the call used: tts-1 or whisper-1, asked for a price of tokens, would answer $0.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from functools import lru_cache
from typing import Any

from genai_prices import types as prices
from genai_prices.data import providers as _TABLE
from genai_prices.data_units import unit_data as _UNITS

from grants.providers import Provider
from proxy.dialects.base import UpstreamCall, Usage

# Which extractor of genai-prices reads an answer of a flavor: its provider id, its api_flavor.
# Whoever is not in _OWN_SHAPES answers in the shape of the format's inventor (and Together has no extractor there).
_SHAPES: dict[str, tuple[str, str]] = {
    "chat": ("openai", "chat"),
    "responses": ("openai", "responses"),
    "embeddings": ("openai", "embeddings"),
    "moderations": ("openai", "embeddings"),
    "images": ("openai", "images"),
    "speech": ("openai", "responses"),
    "anthropic": ("anthropic", "default"),
    "google": ("google", "default"),
}
_OWN_SHAPES: dict[tuple[str, str], tuple[str, str]] = {
    ("anthropic", "chat"): ("anthropic", "chat"),
    ("google", "chat"): ("google", "chat"),
    ("azure", "chat"): ("azure", "chat"),
    ("azure", "responses"): ("azure", "responses"),
    ("azure", "embeddings"): ("azure", "embeddings"),
    ("mistral", "chat"): ("mistral", "default"),
    ("groq", "chat"): ("groq", "default"),
    ("deepseek", "chat"): ("deepseek", "chat"),
    ("xai", "chat"): ("x-ai", "chat"),  # reasoning tokens come on top of completion tokens
    ("xai", "responses"): ("x-ai", "responses"),
    ("openrouter", "chat"): ("openrouter", "chat"),
    ("openrouter", "responses"): ("openrouter", "default"),
    ("fireworks", "chat"): ("fireworks", "chat"),
    ("perplexity", "chat"): ("perplexity", "default"),
    ("perplexity", "responses"): ("perplexity", "responses"),
    ("cerebras", "chat"): ("cerebras", "chat"),
}

_FREE = frozenset({"sandbox"})  # costs nothing by definition
_ONE_RATE = frozenset({"google"})  # without an audio rate, audio costs there what text costs; elsewhere it costs more
_LEAST_SECONDS = {"groq": 10}  # of audio, billed for every transcription
_WRITTEN = frozenset({"chat", "responses", "anthropic", "google"})  # flavors whose output is the text that was counted
_READ = _WRITTEN | {"embeddings", "moderations"}  # flavors whose cost can be estimated from text

_CHARACTERS_PER_TOKEN = 3  # an estimate is meant to be high; English has about 4.5
_OVERHEAD = 16  # tokens of an estimated request beside its text: roles, separators
_IMPLAUSIBLE = 16  # characters per reported token: more text than this means that the report came before the text
_MOST = 10**9  # tokens; a report beyond this is garbage

_BY_ID = {provider.id: provider for provider in _TABLE}
_EXTRACTORS = {(provider.id, row.api_flavor): row for provider in _TABLE for row in provider.extractors or ()}
_Counts = dict[str, int]  # by the usage keys of genai-prices
_ROOTS = ("input_tokens", "output_tokens", "input_characters", "input_audio_seconds")  # all else is a part of these


def meter(provider: Provider, call: UpstreamCall, result: dict[str, Any] | None, *, output_characters: int) -> Usage:
    """What a call used and cost.

    ``result``: the observer's final answer object, ``None`` where the provider reported nothing.
    ``output_characters``: text that flowed. Characters stand in for what was not reported, or reported wrongly: the
    usage is then estimated, upwards. Images, transcriptions and spoken tokens cannot be estimated and cost ``None``.

    Never raises, whatever ``result`` holds.
    """
    if call.flavor == "none":
        return Usage(cost=0)
    result = result if isinstance(result, dict) else {}
    counts = _reported(provider.id, call.flavor, result)
    if counts is None:
        return _estimate(provider, call, result, output_characters, {})
    unfinished = call.flavor in _WRITTEN and output_characters > _IMPLAUSIBLE * (counts.get("output_tokens", 0) + 1)
    if unfinished:  # a stream cut after message_start: the input is known, the output is not
        counts["output_tokens"] = max(counts.get("output_tokens", 0), _tokens(output_characters))
    try:
        cost = _cost(provider, call, result, counts)
    except ValueError:
        return _estimate(provider, call, result, output_characters, counts)
    input_tokens = counts.get("input_tokens", 0)
    cached = min(counts.get("cache_read_tokens", 0), input_tokens)
    return Usage(input_tokens, counts.get("output_tokens", 0), cached, cost, estimated=unfinished)


def _estimate(
    provider: Provider, call: UpstreamCall, result: dict[str, Any], output_characters: int, reported: _Counts
) -> Usage:
    """Usage from characters, but not less than was ``reported`` (in a report that does not add up)."""
    output = _tokens(output_characters) if call.flavor in _WRITTEN else 0
    counts = {"input_tokens": _tokens(call.input_characters) + _OVERHEAD, "output_tokens": output}
    counts = {key: max(count, reported.get(key, 0)) for key, count in counts.items()}
    billed = {"input_characters": max(call.input_characters, 1)} if call.flavor == "speech" else counts
    known = call.flavor in _READ or call.flavor == "speech" or provider.id in _FREE
    cost = _cost(provider, call, result, billed) if known else None
    return Usage(counts["input_tokens"], counts["output_tokens"], 0, cost, estimated=True)


def _tokens(characters: int) -> int:
    return -(-max(characters, 0) // _CHARACTERS_PER_TOKEN)


def shape(provider_id: str, flavor: str) -> tuple[str, str] | None:
    """(provider id, api_flavor) in genai-prices of the extractor that reads our provider's answers of this flavor."""
    return _OWN_SHAPES.get((provider_id, flavor)) or _SHAPES.get(flavor)


def _reported(provider_id: str, flavor: str, result: dict[str, Any]) -> _Counts | None:
    """What the provider reported; ``None`` where that is nothing, or cannot be true."""
    if flavor == "transcription":
        return _transcribed(provider_id, result)
    if (key := shape(provider_id, flavor)) is None:
        return None
    extractor = _EXTRACTORS[key]
    root = _walk(result, extractor.root)
    counts: _Counts = {}
    for mapping in extractor.mappings:
        value = _walk(root, mapping.path)
        if value is None and not mapping.required:
            continue
        number = _natural(value)
        if number is None:
            return None
        counts[mapping.dest] = counts.get(mapping.dest, 0) + number
    return counts if "input_tokens" in counts or "output_tokens" in counts else None


def _walk(value: Any, path: Any) -> Any:
    """What ``path`` of an extractor leads to, ``None`` where nothing is there."""
    for step in (path,) if isinstance(path, str) else path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = _match(value, step)
        if value is None:
            return None
    return value


def _match(value: Any, step: prices.ArrayMatch) -> Any:
    """The item of a list that an extractor means (Gemini counts by modality)."""
    for item in value if isinstance(value, list) else ():
        kind = item.get(step.field) if isinstance(item, dict) else None
        if isinstance(kind, str) and step.match.is_match(kind):
            return item
    return None


def _natural(value: Any) -> int | None:
    """A believable count, else ``None``."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST else None


def _transcribed(provider_id: str, result: dict[str, Any]) -> _Counts | None:
    """Transcriptions are billed in tokens or in seconds; genai-prices has no extractor for either."""
    usage = result.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    if usage.get("type") != "duration" and "input_tokens" in usage:
        audio = _walk(usage, ("input_token_details", "audio_tokens"))
        audio = usage["input_tokens"] if audio is None else audio
        found = (usage["input_tokens"], usage.get("output_tokens", 0), audio)
        counts = [number for number in map(_natural, found) if number is not None]
        keys = ("input_tokens", "output_tokens", "input_audio_tokens")
        return dict(zip(keys, counts, strict=True)) if len(counts) == len(keys) else None
    seconds: Any = usage.get("seconds", result.get("duration"))
    if type(seconds) not in (int, float) or not 0 < seconds <= _MOST:
        return None
    whole = max(math.ceil(seconds), _LEAST_SECONDS.get(provider_id, 0))
    return {"audio_seconds": whole, "input_audio_seconds": whole}


@dataclass(frozen=True, slots=True)
class _Rate:
    """Nano-dollars for one unit: ``base``, or from more than so many input tokens on the rate of a tier.

    ``finer``: the places of the rates for parts of this unit (cached input within input); what they count is not
    counted again.
    """

    usage_key: str
    base: Decimal
    tiers: tuple[tuple[int, Decimal], ...]
    finer: tuple[int, ...]

    def at(self, input_tokens: int) -> Decimal:
        return next((rate for start, rate in self.tiers if input_tokens > start), self.base)


@dataclass(frozen=True, slots=True)
class _Tariff:
    """The rates of a model, finest units first. ``rated``: usage keys with a rate above zero."""

    rates: tuple[_Rate, ...]
    rated: frozenset[str]

    def covers(self, counts: _Counts, *, strict: bool) -> bool:
        """Whether everything that was used has a rate. ``strict``: audio needs one of its own."""
        needed = [key for key in _ROOTS if counts.get(key)] or ["input_tokens"]
        if strict:
            needed += [key for key in ("input_audio_tokens", "output_audio_tokens") if counts.get(key)]
        searched = not counts.get("web_searches") or not self.rated.isdisjoint(("web_searches", "requests"))
        return searched and self.rated.issuperset(needed)

    def cost(self, counts: _Counts) -> int:
        """Nano-dollars, rounded up.

        Raises:
            ValueError: the parts are more than the whole.
        """
        total, input_tokens, parts = Decimal(0), counts.get("input_tokens", 0), list[int]()
        for rate in self.rates:
            count = 1 if rate.usage_key == "requests" else counts.get(rate.usage_key, 0)
            count -= sum(parts[place] for place in rate.finer)
            if count < 0:
                raise ValueError(rate.usage_key)
            parts.append(count)
            if count:
                total += count * rate.at(input_tokens)
        return int(total.to_integral_value(ROUND_CEILING))


def _cost(provider: Provider, call: UpstreamCall, result: dict[str, Any], counts: _Counts) -> int | None:
    """Nano-dollars by the model that answered, else by the one that was asked for; ``None`` without a price.

    Raises:
        ValueError: the parts of the usage are more than the whole.
    """
    if provider.id in _FREE:
        return 0
    if provider.prices is None:
        return None
    strict = call.flavor == "chat" and provider.id not in _ONE_RATE
    context, minute = tuple(_context(result)), int(time.time() // 60)
    for name in (result.get("model") or result.get("modelVersion"), call.model):
        if isinstance(name, str) and 0 < len(name) <= 256:
            tariff = _tariff(provider.prices, name, context, minute)
            if tariff is not None and tariff.covers(counts, strict=strict):
                return tariff.cost(counts)
    return None


def _context(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What in the answer changes the price: OpenAI's, Anthropic's and Google's service tier, Anthropic's speed."""
    usage = result.get("usage") or result.get("usageMetadata")
    usage = usage if isinstance(usage, Mapping) else {}
    tier = result.get("service_tier") or usage.get("service_tier") or usage.get("serviceTier")
    for key, value in (("service_tier", tier), ("speed", usage.get("speed"))):
        if isinstance(value, str) and len(value) <= 32:
            yield key, value.lower()


@lru_cache(maxsize=2048)
def _find(prices_id: str, name: str) -> prices.ModelInfo | None:
    """The table's row for a model. Misses are remembered as well: each walks every pattern of the provider."""
    return _BY_ID[prices_id].find_model(name.lower().removeprefix("models/"), all_providers=_TABLE)


@lru_cache(maxsize=2048)
def _tariff(prices_id: str, name: str, context: tuple[tuple[str, str], ...], minute: int) -> _Tariff | None:
    """What a model costs in one minute of Unix time (prices change at dates, and some with the hour of the day)."""
    model = _find(prices_id, name)
    if model is None:
        return None
    own = any(model is row for row in _BY_ID[prices_id].models)  # another provider's tiers do not hold here
    price = model.get_prices(datetime.fromtimestamp(minute * 60, UTC), dict(context) if own else None)
    units = [unit for unit in _UNITS.items() if getattr(price, unit[1]["price_key"]) is not None]
    units.sort(key=lambda unit: -len(unit[1]["dimensions"]))
    rates = []
    for place, (usage_key, unit) in enumerate(units):
        rate, nanos = getattr(price, unit["price_key"]), Decimal(10**9) / unit["per"]
        finer = tuple(
            other for other in range(place) if unit["dimensions"].items() < units[other][1]["dimensions"].items()
        )
        if isinstance(rate, prices.TieredPrices):
            tiers = tuple((tier.start, tier.price * nanos) for tier in reversed(rate.tiers))
            rates.append(_Rate(usage_key, rate.base * nanos, tiers, finer))
        else:
            rates.append(_Rate(usage_key, rate * nanos, (), finer))
    return _Tariff(tuple(rates), frozenset(rate.usage_key for rate in rates if rate.base > 0))
