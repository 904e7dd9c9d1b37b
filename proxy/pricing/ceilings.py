"""The dearest rates that a call can reach: in its tier, with its context's length, at any hour until it ends.

Pure. All rates are nano-dollars (1e-9 USD) for one unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

from genai_prices import types as library

from grants.providers import PROVIDERS, Provider

from ..dialects.base import UpstreamCall
from .lists import INSTALLED
from .tariffs import DIMENSIONS, NO_DEARER, PICTURES, Context, Tariff, at_minute, find, is_known, own_tariff

_HOUR = 3600
_STEP = 1800  # seconds: prices that depend on the hour change at full or half hours (a test holds the table to it)
_LONGEST = 25 * _HOUR  # no call lasts longer
_TIERS = ("service_tier", "speed", "inference_geo")  # what a tier may be the value of


def _tokens(direction: str, *modalities: str | None) -> Callable[[str], bool]:
    def wanted(key: str) -> bool:
        unit = DIMENSIONS[key]
        return unit["family"] == "tokens" and unit["direction"] == direction and unit.get("modality") in modalities

    return wanted


# What is priced → which units it may be billed as. A text's token may be billed as plain input or by its modality.
_KINDS: dict[str, Callable[[str], bool]] = {
    "text": _tokens("input", None, "text"),
    "image": _tokens("input", None, "text", "image"),
    "audio": _tokens("input", None, "text", "audio"),
    "hidden": _tokens("input", None, "text", "image", "audio", "video"),
    "output": _tokens("output", None, "text"),
    "made": _tokens("output", None, "text", "image", "audio", "video"),  # by a model that chooses the modality itself
    "drawn": _tokens("output", None, "text", "image"),
    "character": "input_characters".__eq__,
    "second": "input_audio_seconds".__eq__,
    "picture": PICTURES.__eq__,
    "request": "requests".__eq__,
}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """``steps``: from more than so many input tokens on, the rates by kind; the longest first.

    ``rated``: usage keys that have a price. ``audio``: sound that is counted in tokens needs a rate of its own.
    """

    steps: tuple[tuple[int, Mapping[str, Decimal]], ...]
    rated: frozenset[str]
    audio: bool

    @property
    def longer(self) -> bool:
        """Whether a long input has rates of its own."""
        return len(self.steps) > 1

    def at(self, input_tokens: int) -> Mapping[str, Decimal]:
        """The rates by kind that a call with so many input tokens, or fewer, can reach."""
        return next(rates for start, rates in self.steps if input_tokens > start or start == 0)


# Where a request can name the modality of the answer: by provider and flavor.
_PINS = frozenset({("openai", "chat"), ("azure", "chat"), ("google", "google")})


def pins_text(provider: Provider, call: UpstreamCall) -> bool:
    """Whether the request makes sure that the answer is text."""
    return call.demand.text_only and (provider.id, call.flavor) in _PINS


def makes_media(rated: Iterable[str]) -> bool:
    """Whether a model with prices of these units makes anything but text."""
    units = (DIMENSIONS[key] for key in rated)
    return any(unit.get("direction") == "output" and unit.get("modality") not in (None, "text") for unit in units)


def served(provider: Provider, call: UpstreamCall, told: Context, price_list: str = INSTALLED) -> Context:
    """What an answer is priced by: what it tells, and the tier that was asked for where it tells nothing of that."""
    tier, found = call.demand.tier, find(provider.prices, call.model, price_list) if provider.prices else ()
    names = [name for name in _TIERS if any(is_known(provider.prices or "", row, name, tier) for row in found)]
    return (*told, *((name, tier) for name in names if name not in dict(told)))


def ceiling(
    provider: Provider, model: str, tier: str, prices: str, *, cached: bool, price_list: str = INSTALLED
) -> Ceiling | None:
    """``None`` where the price is not known.

    ``tier``: what the call names beyond the standard one; "auto", where it could not be pinned, may be any tier.
    ``prices``: the owner's rows, which have no tiers.
    ``cached``: the input may be written into a cache. ``price_list``: its digest.
    """
    if tier == "auto":
        return None
    if own_tariff(prices, model, provider):
        return _own(prices, model, provider.id, cached) if tier in NO_DEARER else None
    if provider.prices is None or not 0 < len(model) <= 256:
        return None
    return _listed(provider.prices, model, tier, cached, int(time.time() // _HOUR), price_list)


@lru_cache(maxsize=2048)
def _own(prices: str, model: str, provider_id: str, cached: bool) -> Ceiling | None:
    found = own_tariff(prices, model, PROVIDERS[provider_id])
    return _highest([found[1]], cached) if found else None


@lru_cache(maxsize=4096)
def _listed(prices_id: str, model: str, tier: str, cached: bool, hour: int, price_list: str) -> Ceiling | None:
    found = find(prices_id, model, price_list)
    if not found:
        return None
    flat = all(isinstance(row.prices, library.ModelPrice) and not row.price_variants for row, _ in found)
    moments = range(hour * _HOUR, hour * _HOUR + (1 if flat else _HOUR + _LONGEST), _STEP)
    known = [name for name in _TIERS if any(is_known(prices_id, row, name, tier) for row in found)]
    tariffs = {
        at_minute(prices_id, model, context, moment // 60, price_list)
        for context in _contexts(prices_id, known, tier)
        for moment in moments
    }
    return _highest([tariff for tariff in tariffs if tariff], cached) if known else None


def _contexts(prices_id: str, names: list[str], tier: str) -> list[Context]:
    """What a call that asks for ``tier`` may be charged by; ``names``: of what that may be the value.

    A request for a faster tier may be served by the standard one. Anthropic's workspaces can be set to one region,
    which a request does not show and an answer does.
    """
    found: list[Context] = [(), *(((name, tier),) for name in names)] if names else []
    if prices_id != "anthropic":
        return found
    region = ("inference_geo", "us")
    return [context if region in context else (*context, region) for context in found]


def _highest(tariffs: Iterable[Tariff], cached: bool) -> Ceiling:
    tariffs = list(tariffs)
    steps = []
    for start in sorted({0, *(start for tariff in tariffs for start in tariff.starts)}, reverse=True):
        rates = {}
        for kind, wanted in _KINDS.items():
            found = [tariff.dearest(wanted if cached else _unwritten(wanted), start + 1) for tariff in tariffs]
            if known := [rate for rate in found if rate is not None]:
                rates[kind] = max(known)
        steps.append((start, rates))
    rated = frozenset.intersection(*(tariff.rated for tariff in tariffs))
    return Ceiling(tuple(steps), rated, any(tariff.audio for tariff in tariffs))


def _unwritten(wanted: Callable[[str], bool]) -> Callable[[str], bool]:
    return lambda key: wanted(key) and DIMENSIONS[key].get("token_type") != "cache_write"
