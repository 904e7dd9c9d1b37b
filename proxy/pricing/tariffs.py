"""What a model costs, unit by unit: an owner's own prices first, then the price list of the call (:mod:`.lists`).

Pure: no database, no HTTP, no settings. The tables, in the format of genai-prices, say which model costs what, from
when on, at which hour and in which service tier. The arithmetic is done here on rates that are kept per model: the
library checks its tables anew for every call, which takes a fifth of the time of a whole relayed call. The tests hold
both results against each other.

All rates are nano-dollars (1e-9 USD) for one unit. A rate of zero in a price list is no price: tts-1, asked for a
price of tokens, would answer $0. Only an owner says "free".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache, reduce

from genai_prices import types as library
from genai_prices.data_units import unit_data as _UNITS

from grants import prices as own
from grants.providers import Provider

from . import lists
from .lists import INSTALLED, Found

Counts = dict[str, int]  # by the usage keys of genai-prices, and PICTURES
Context = tuple[tuple[str, str], ...]  # what in a call or its answer changes the price: name, value

PICTURES = "pictures"  # made; a unit of ours
_ROOTS = ("input_tokens", "output_tokens", "input_characters", "input_audio_seconds", PICTURES)  # all else is within
DIMENSIONS: dict[str, Mapping[str, str]] = {key: unit["dimensions"] for key, unit in _UNITS.items()}
DIMENSIONS[PICTURES] = {"family": "pictures"}
_OWN_UNITS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached": "cache_read_tokens",
    "image": PICTURES,
    "character": "input_characters",
    "second": "input_audio_seconds",
    "request": "requests",
}
# Tokens written into a cache cost this much more than plain ones, by the providers' price lists (platform.claude.com
# prompt caching; developers.openai.com pricing, from gpt-5.6 on). Owners give one price of input; these come on top.
_WRITES = {"cache_write_tokens": Decimal("1.25"), "cache_write_1h_tokens": Decimal(2)}
_WRITERS = {"anthropic": ("cache_write_tokens", "cache_write_1h_tokens"), "openai": ("cache_write_tokens",)}
_WRITERS |= {"bedrock": _WRITERS["anthropic"], "azure": _WRITERS["openai"]}

# Tiers that never cost more than the standard one, wherever the table has no price of them.
NO_DEARER = frozenset(
    {"", "default", "standard", "standard_only", "auto", "on_demand", "flex", "batch", "global", "not_available"}
)
# Anthropic's priority tier is capacity that was bought in advance, no dearer than by the token (?).
_ALSO_NO_DEARER = frozenset({("anthropic", "service_tier", "priority")})
# Anthropic: inference in the US is billed at 1.1 × the standard rates, from Opus 4.6 and Sonnet 4.6 on
# (support.claude.com, "US-only inference").
_REGIONS = {"us": Decimal("1.1")}
_ONE_RATE = frozenset({"google"})  # without an audio rate, audio costs there what text costs; elsewhere it costs more

_FREE_PROVIDERS = frozenset({"sandbox"})  # costs nothing by definition
_FREE_ROUTES = frozenset({("openai", "moderations")})  # OpenAI bills no moderation (?)

UnitRate = tuple[Decimal, tuple[tuple[int, Decimal], ...]]  # the base, and the tiers with the highest start first
Units = Mapping[str, UnitRate]  # by usage key


@dataclass(frozen=True, slots=True)
class Rate:
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

    def dearest(self, input_tokens: int) -> Decimal:
        """The highest rate that so many input tokens, or fewer, can reach."""
        return max([self.base, *(rate for start, rate in self.tiers if input_tokens > start)])


@dataclass(frozen=True, slots=True)
class Tariff:
    """The rates of a model, finest units first. ``rated``: usage keys that have a price.

    ``audio``: sound that is counted in tokens needs a rate of its own.
    """

    rates: tuple[Rate, ...]
    rated: frozenset[str]
    audio: bool = True

    def covers(self, counts: Counts) -> bool:
        """Whether everything that was used has a rate."""
        needed = [key for key in _ROOTS if counts.get(key)] or ["input_tokens"]
        if self.audio and "input_audio_seconds" not in counts:
            needed += [key for key in ("input_audio_tokens", "output_audio_tokens") if counts.get(key)]
        if counts.get("web_searches") and "requests" not in self.rated:
            needed.append("web_searches")
        needed += [key for key in ("storage_searches",) if counts.get(key)]
        return self.rated.issuperset(needed)

    def cost(self, counts: Counts) -> Decimal:
        """Nano-dollars, not rounded.

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
        return total

    def dearest(self, wanted: Callable[[str], bool], input_tokens: int) -> Decimal | None:
        """The highest rate among the units that are ``wanted``, ``None`` where none of them has one."""
        rates = [rate.dearest(input_tokens) for rate in self.rates if wanted(rate.usage_key)]
        return max(rates, default=None)

    @property
    def starts(self) -> Iterator[int]:
        """From more than how many input tokens on other rates hold."""
        return (start for rate in self.rates for start, _ in rate.tiers)


def _tariff(units: Units, *, audio: bool, free: bool) -> Tariff:
    keys = sorted(units, key=lambda key: -len(DIMENSIONS[key]))
    rates = []
    for place, key in enumerate(keys):
        within = DIMENSIONS[key].items()
        finer = tuple(other for other in range(place) if within < DIMENSIONS[keys[other]].items())
        rates.append(Rate(key, *units[key], finer))
    return Tariff(tuple(rates), frozenset(rate.usage_key for rate in rates if free or rate.base > 0), audio)


def is_free(provider: Provider, flavor: str, row: own.PriceRow | None) -> bool:
    """Whether a call costs nothing, whatever it does. ``row``: the owner's, which goes before what is known here."""
    if flavor == "none" or provider.id in _FREE_PROVIDERS:
        return True
    return row.free if row is not None else (provider.id, flavor) in _FREE_ROUTES


@lru_cache(maxsize=2048)
def _own(prices: str, model: str, provider_id: str) -> tuple[own.PriceRow, Tariff] | None:
    row = own.row_for(prices, model)
    if row is None:
        return None
    rates = {_OWN_UNITS[unit]: rate for unit, rate in row.rates.items()}
    for key in _WRITERS.get(provider_id, ()) if "input_tokens" in rates else ():
        rates[key] = rates["input_tokens"] * _WRITES[key]
    return row, _tariff({key: (rate, ()) for key, rate in rates.items()}, audio=False, free=True)


def own_tariff(prices: str, model: str, provider: Provider) -> tuple[own.PriceRow, Tariff] | None:
    """The owner's row for a model that an app asks for, and its rates; ``None`` where the owner has none."""
    return _own(prices, model, provider.id) if prices and prices != "[]" else None


@lru_cache(maxsize=2048)
def find(prices_id: str, name: str, price_list: str = INSTALLED) -> tuple[Found, ...]:
    """The rows of a price list for a model (:func:`.lists.models`).

    Misses are remembered as well: each walks every pattern of the provider.
    """
    return lists.models(lists.tables(price_list), prices_id, name)


def listed(provider: Provider, name: str, context: Context = (), price_list: str = INSTALLED) -> Tariff | None:
    """What a model costs just now by a price list; ``None`` where that is not known."""
    if provider.prices is None or not 0 < len(name) <= 256:
        return None
    return at_minute(provider.prices, name, context, int(time.time() // 60), price_list)


@lru_cache(maxsize=2048)
def at_minute(prices_id: str, name: str, context: Context, minute: int, price_list: str = INSTALLED) -> Tariff | None:
    """By the minute of Unix time: prices change at dates, and some with the hour of the day."""
    units = units_at(prices_id, find(prices_id, name, price_list), context, minute)
    return None if units is None else _tariff(units, audio=prices_id not in _ONE_RATE, free=False)


def units_at(prices_id: str, found: Iterable[Found], context: Context, minute: int) -> Units | None:
    """The rates of the rows that price a model: of each unit the highest; ``None`` where no row knows a price."""
    known = [
        _units(row, is_own, context, minute)
        for row, is_own in found
        if all(is_known(prices_id, (row, is_own), *pair) for pair in context)
    ]
    return reduce(_highest, known) if known else None


def _units(row: library.ModelInfo, is_own: bool, context: Context, minute: int) -> Units:
    price = row.get_prices(datetime.fromtimestamp(minute * 60, UTC), dict(context) if is_own else None)
    factor = _REGIONS.get(dict(context).get("inference_geo", ""), Decimal(1))
    units = {}
    for usage_key, unit in _UNITS.items():
        if (rate := getattr(price, unit["price_key"])) is not None:
            nanos = factor * 10**9 / unit["per"]
            tiers = tuple((tier.start, tier.price * nanos) for tier in reversed(getattr(rate, "tiers", ())))
            units[usage_key] = (getattr(rate, "base", rate) * nanos, tiers)
    return units


def _highest(one: Units, other: Units) -> Units:
    """Of each unit the higher rate. A unit without a rate of its own costs what the unit that includes it costs."""
    keys = {**one, **other}
    return {key: _higher(implied(one, key), implied(other, key)) for key in keys}


def _higher(one: UnitRate | None, other: UnitRate | None) -> UnitRate:
    if one is None or other is None:
        return one or other or (Decimal(0), ())
    starts = sorted({start for rate in (one, other) for start, _ in rate[1]}, reverse=True)
    tiers = tuple((start, max(rate_above(one, start), rate_above(other, start))) for start in starts)
    return max(one[0], other[0]), tiers


def rate_above(rate: UnitRate, start: int) -> Decimal:
    """The rate of a call with more than ``start`` input tokens, and no more than the next tier asks for."""
    return next((price for at, price in rate[1] if start >= at), rate[0])


def implied(units: Units, key: str) -> UnitRate | None:
    """What ``key`` is charged at: its own rate, or the highest of the nearest units that include it."""
    if key in units:
        return units[key]
    within = DIMENSIONS[key].items()
    including = [other for other in units if DIMENSIONS[other].items() < within]
    nearest = max((len(DIMENSIONS[other]) for other in including), default=0)
    rates = [units[other] for other in including if len(DIMENSIONS[other]) == nearest]
    return reduce(_higher, rates) if rates else None


def is_known(prices_id: str, found: Found, name: str, value: str) -> bool:
    """Whether the price of a tier is known, or surely no higher than the standard one."""
    if value in NO_DEARER or (prices_id, name, value) in _ALSO_NO_DEARER:
        return True
    if name == "inference_geo":
        return prices_id == "anthropic" and value in _REGIONS
    return found[1] and any(variant.when == {name: value} for variant in found[0].price_variants or ())
