"""What an answer says that it used, as counts by unit. Pure.

Which field of an answer counts what stands in the tables of genai-prices. Transcriptions, which it has no extractor
for, and calls of hosted tools are read here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from genai_prices import types as library
from genai_prices.data import providers as _TABLE

from .tariffs import Context, Counts

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

_ALIASES = {"input_tokens": ("prompt_tokens", "input_tokens"), "output_tokens": ("completion_tokens", "output_tokens")}
_TALKS = frozenset({"chat", "responses", "anthropic", "google"})  # flavors whose answers are made token by token
LEAST_SECONDS = {"groq": 10}  # of audio, billed for every transcription
_MOST = 10**9  # tokens; a report beyond this is garbage
_EXTRACTORS = {(provider.id, row.api_flavor): row for provider in _TABLE for row in provider.extractors or ()}

# Calls of hosted tools that the answer shows, and the unit that they are billed in; the others have no price here.
_TOOLS = {"web_search_call": "web_searches", "google_search": "web_searches", "file_search_call": "storage_searches"}
# What Anthropic counts: web searches, which have a price, and what is not billed by the call (?).
_FREE_TOOLS = frozenset({"web_search_requests", "web_fetch_requests", "tool_search_requests"})
_DETAILS = frozenset(
    {"prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details"}
)
# Kinds of tokens in the details of a report that cost no more than the plain ones of their direction.
_NO_DEARER_TOKENS = frozenset(
    {
        "text_tokens",
        "cached_tokens",
        "cache_write_tokens",  # whoever bills them has an extractor that reads them
        "cache_read_input_tokens",
        "reasoning_tokens",
        "thinking_tokens",
        "accepted_prediction_tokens",
        "rejected_prediction_tokens",
    }
)


def shape(provider_id: str, flavor: str) -> tuple[str, str] | None:
    """(provider id, api_flavor) in genai-prices of the extractor that reads our provider's answers of this flavor."""
    return _OWN_SHAPES.get((provider_id, flavor)) or _SHAPES.get(flavor)


def reported(provider_id: str, flavor: str, result: Mapping[str, Any]) -> Counts | None:
    """What the provider reported; ``None`` where that is nothing, or cannot be true.

    ``result``: an observer's (see :mod:`proxy.dialects.reports`), or one of its parts.
    """
    if flavor == "transcription":
        return _transcribed(provider_id, result)
    counts, sound = _counts(provider_id, flavor, result)
    if flavor in ("images", "speech") and not counts.get("output_tokens"):
        return None  # something was made
    return counts if sound and ("input_tokens" in counts or "output_tokens" in counts) else None


def readable(provider_id: str, flavor: str, result: Mapping[str, Any]) -> Counts:
    """The counts of a report that can be read, where others are missing or cannot be true; by whatever names."""
    if flavor == "transcription":
        return {}
    counts, _ = _counts(provider_id, flavor, result)
    usage = result.get("usage")
    if not isinstance(usage, dict):
        return counts
    for key, names in _ALIASES.items():
        known = [number for name in names if (number := natural(usage.get(name))) is not None]
        if known:
            counts[key] = max(counts.get(key, 0), *known)
    total = natural(usage.get("total_tokens")) or 0
    if flavor not in _TALKS:
        counts["input_tokens"] = max(counts.get("input_tokens", 0), total)
    elif "input_tokens" in counts:
        counts["output_tokens"] = max(counts.get("output_tokens", 0), total - counts["input_tokens"])
    return counts


def _counts(provider_id: str, flavor: str, result: Mapping[str, Any]) -> tuple[Counts, bool]:
    """Counts by unit, and whether no required one is missing and none is nonsense."""
    counts: Counts = {}
    if (key := shape(provider_id, flavor)) is None:
        return counts, False
    extractor, sound = _EXTRACTORS[key], True
    root = _walk(result, extractor.root)
    for mapping in extractor.mappings:
        value = _walk(root, mapping.path)
        if value is None and not mapping.required:
            continue
        number = natural(value)
        if number is None:
            sound = False
        else:
            counts[mapping.dest] = counts.get(mapping.dest, 0) + number
    if flavor in _TALKS and isinstance(root, dict):
        _add_output_beside(root, counts)
    return counts, sound


def _add_output_beside(usage: Mapping[str, Any], counts: Counts) -> None:
    """Some servers report reasoning beside the output, some leave it out: the total tells, or parts above the whole.

    Azure and Gemini's OpenAI-shaped endpoint do so at times. What is above input and output costs what output costs.
    """
    output = counts.get("output_tokens", 0)
    total = natural(usage.get("total_tokens", usage.get("totalTokenCount")))
    if total is None:
        thought = counts.get("output_reasoning_tokens") or natural(usage.get("reasoning_tokens")) or 0
        beside = thought if thought > output else 0
    else:
        beside = total - counts.get("input_tokens", total) - output
    if beside > 0:
        counts["output_tokens"] = output + beside


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


def _match(value: Any, step: library.ArrayMatch) -> Any:
    """The item of a list that an extractor means (Gemini counts by modality)."""
    for item in value if isinstance(value, list) else ():
        kind = item.get(step.field) if isinstance(item, dict) else None
        if isinstance(kind, str) and step.match.is_match(kind):
            return item
    return None


def natural(value: Any) -> int | None:
    """A believable count, else ``None``."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST else None


def _transcribed(provider_id: str, result: Mapping[str, Any]) -> Counts | None:
    """Transcriptions are billed in tokens or in seconds; genai-prices has no extractor for either."""
    usage = result.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    if usage.get("type") != "duration" and "input_tokens" in usage:
        audio = _walk(usage, ("input_token_details", "audio_tokens"))
        audio = usage["input_tokens"] if audio is None else audio
        found = (usage["input_tokens"], usage.get("output_tokens", 0), audio)
        counts = [number for number in map(natural, found) if number is not None]
        keys = ("input_tokens", "output_tokens", "input_audio_tokens")
        return dict(zip(keys, counts, strict=True)) if len(counts) == len(keys) and counts[0] else None
    seconds: Any = usage.get("seconds", result.get("duration"))
    if type(seconds) not in (int, float) or not 0 < seconds <= _MOST:
        return None
    whole = max(math.ceil(seconds), LEAST_SECONDS.get(provider_id, 0))
    return {"audio_seconds": whole, "input_audio_seconds": whole}


def tools(result: Mapping[str, Any]) -> Counts | None:
    """Calls of hosted tools that are billed beside tokens; ``None`` where there is one without a known unit."""
    counts: Counts = {}
    found = result.get("tools")
    for kind, value in found.items() if isinstance(found, dict) else ():
        unit, number = _TOOLS.get(kind), natural(value)
        if number and unit is None:
            return None
        if unit:
            counts[unit] = counts.get(unit, 0) + (number or 0)
    usage = result.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    served = usage.get("server_tool_use")
    for kind, value in served.items() if isinstance(served, dict) else ():
        if kind not in _FREE_TOOLS and value:
            return None
    return None if usage.get("num_sources_used") else counts  # xAI bills the sources of a live search


def has_unpriced(provider_id: str, flavor: str, result: Mapping[str, Any]) -> bool:
    """Whether a report of a conversation counts a kind of token that the extractor does not read.

    It is within a whole, but may cost more than the rest of it: sound and pictures do.
    """
    if flavor not in ("chat", "responses") or (key := shape(provider_id, flavor)) is None:
        return False
    usage = result.get("usage")
    for name, details in usage.items() if isinstance(usage, dict) else ():
        for kind, value in details.items() if name in _DETAILS and isinstance(details, dict) else ():
            plain = not kind.endswith("_tokens") or kind in _NO_DEARER_TOKENS or (name, kind) in _mapped(key)
            if natural(value) and not plain:
                return True
    return False


@cache
def _mapped(key: tuple[str, str]) -> frozenset[tuple[str, ...]]:
    paths = (mapping.path for mapping in _EXTRACTORS[key].mappings)
    return frozenset(tuple(map(str, path)) for path in paths if not isinstance(path, str))


def context(result: Mapping[str, Any]) -> Context:
    """What in the answer changes the price: service tier, Anthropic's speed and the place of its inference."""
    usage = result.get("usage") or result.get("usageMetadata")
    usage = usage if isinstance(usage, Mapping) else {}
    tier = result.get("service_tier") or usage.get("service_tier") or usage.get("serviceTier")
    tier = tier or usage.get("trafficType")  # Gemini
    pairs = (("service_tier", tier), ("speed", usage.get("speed")), ("inference_geo", usage.get("inference_geo")))
    return tuple((name, value.lower()[:32]) for name, value in pairs if isinstance(value, str) and value)


def billed(provider_id: str, result: Mapping[str, Any]) -> Decimal | None:
    """What OpenRouter says that the answer cost, in nano-dollars: it routes to providers at prices of their own."""
    usage = result.get("usage")
    if provider_id != "openrouter" or not isinstance(usage, dict):
        return None
    details = usage.get("cost_details")
    beside = details.get("upstream_inference_cost") if isinstance(details, dict) and usage.get("is_byok") else None
    total = sum((_dollars(value) for value in (usage.get("cost"), beside)), Decimal(0))
    return total * 10**9 if total else None


def _dollars(value: Any) -> Decimal:
    """A believable amount, else 0."""
    if type(value) not in (int, float, str):
        return Decimal(0)
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        return Decimal(0)
    return amount if amount.is_finite() and 0 < amount < 10**6 else Decimal(0)
