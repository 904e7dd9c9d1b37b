"""Usage to money: what an answer reported, or what flowed of it, at the prices of :mod:`proxy.pricing.tariffs`. Pure.

Costs are integer nano-dollars (1e-9 USD), **rounded up**: a call is never charged less than the price list says, and at
most one nano-dollar more. A cost is ``None`` where no price is known for something that the call used.

What was not reported is estimated, upwards, and never above the bound of the call (:mod:`proxy.pricing.bounds`).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, NamedTuple

from grants.prices import PriceRow
from grants.providers import Provider

from ..dialects.base import UpstreamCall, Usage
from ..dialects.peculiar import searches
from ..exceptions import NotGranted
from .bounds import bound
from .ceilings import makes_media, pins_text, served
from .counting import LEAST_SECONDS, billed, context, has_unpriced, readable, reported, tools
from .inputs import Inputs, inputs, seconds, writes
from .lists import INSTALLED
from .shown import shows_all
from .tariffs import NO_DEARER, PICTURES, Counts, Tariff, is_free, listed, own_tariff

_READ = frozenset(
    {"chat", "responses", "anthropic", "google", "embeddings", "moderations"}
)  # can be estimated from text

_BYTES_PER_TOKEN = 3  # an estimate is meant to be high: English has about 4.5, a Chinese character is 3 and one token
_OVERHEAD = 16  # tokens of an estimated request beside its text: roles, separators
_IMPLAUSIBLE = 16  # characters per reported token: more text than this means that the report came before the text


class _Asked(NamedTuple):
    """A call and what its price depends on."""

    provider: Provider
    call: UpstreamCall
    prices: str
    margin: int
    limit: int | None  # for each candidate
    strict: bool
    price_list: str
    shows_all: bool  # the key's owner says so of the server

    @property
    def most(self) -> int | None:
        """The most output tokens."""
        return None if self.limit is None else self.limit * self.call.demand.candidates

    def tokens(self, size: int) -> int:
        """What so many bytes of text are estimated as."""
        return -(-max(size, 0) // (1 if self.strict else _BYTES_PER_TOKEN))

    @property
    def own(self) -> tuple[PriceRow, Tariff] | None:
        return own_tariff(self.prices, self.call.model, self.provider)

    @property
    def free(self) -> bool:
        found = self.own
        return is_free(self.provider, self.call.flavor, found[0] if found else None)

    def charged(self, total: Decimal) -> int:
        """Nano-dollars with the margin on top, rounded up."""
        return int((total * (100 + self.margin) / 100).to_integral_value(ROUND_CEILING))


def meter(
    provider: Provider,
    call: UpstreamCall,
    result: dict[str, Any] | None,
    *,
    output_characters: int,
    prices: str = "",
    margin: int = 0,
    limit: int | None = None,
    strict: bool = False,
    price_list: str = INSTALLED,
    shows_all: bool = False,
) -> Usage:
    """What a call used and cost.

    ``result``: the observer's final report (see :mod:`proxy.dialects.reports`), ``None`` where there was none.
    ``output_characters``: bytes of text that flowed. They stand in for what was not reported, or reported wrongly: the
    usage is then estimated. Images and spoken tokens cannot be estimated and cost ``None``, nor can calls whose output
    limit does not bound them.
    ``prices``: the key's own rows (JSON), before the price list. ``margin``: percent on top of every price.
    ``limit``: the output limit that the call went out with, where that is lower than the one it asked for.
    ``strict``: money is limited: text that nobody counted is a token a byte, as in the bound. An app can write, and
    make a model write, what really is, and leave before the report.
    ``price_list``: the digest of the list that the call's bound came from.
    ``shows_all``: the owner of a custom server says that its streams show everything that its models make.

    Never raises, whatever ``result`` holds.
    """
    if call.flavor == "none":
        return Usage(cost=0)
    limit = call.demand.limit if limit is None else limit
    asked = _Asked(provider, call, prices, margin, limit, strict, price_list, shows_all)
    return _metered(asked, result if isinstance(result, dict) else {}, output_characters)


def _metered(asked: _Asked, result: dict[str, Any], output_characters: int) -> Usage:
    """By the report where it can be true, else estimated."""
    parts = [_part(asked, part) for part in _parts(result)]
    counted = [part for part in parts if part is not None]
    if len(counted) < len(parts) or not counted:
        known = readable(asked.provider.id, asked.call.flavor, result)
        return _estimate(asked, result, output_characters, known)
    corrected = _completed(asked, result, counted)
    unfinished = _unfinished(asked, result, counted, output_characters)
    if unfinished:
        _top_up(asked, counted, output_characters)
    try:
        cost = _cost(asked, result, counted) if asked.free or not _open_ended(asked, result) else None
    except ValueError:
        return _estimate(asked, result, output_characters, _sum(counted))
    total = _sum(counted)
    read, made = total.get("input_tokens", 0), total.get("output_tokens", 0)
    return Usage(read, made, min(total.get("cache_read_tokens", 0), read), cost, estimated=unfinished or corrected)


def _parts(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps of an answer that are priced each by itself; one for most."""
    parts = result.get("parts")
    if not isinstance(parts, list) or not parts:
        return [result]
    return [{**result, **part} if isinstance(part, dict) else {} for part in parts]


def _part(asked: _Asked, part: Mapping[str, Any]) -> Counts | None:
    return reported(asked.provider.id, asked.call.flavor, part)


def _completed(asked: _Asked, result: Mapping[str, Any], counted: list[Counts]) -> bool:
    """Raise input and output where a report cannot be true; whether it was so.

    The steps of an answer are not less than the whole, and the input is not nothing.
    """
    if len(counted) == 1 and counted[0].get("input_tokens"):  # the usual answer: nothing to compare
        return False
    missing = dict.fromkeys(("input_tokens", "output_tokens"), 0)
    whole = _part(asked, result) if len(counted) > 1 else None
    for key in missing if whole else ():
        missing[key] = max((whole or {}).get(key, 0) - _sum(counted).get(key, 0), 0)
    asks = asked.call.flavor in _READ and (asked.call.demand.text or asked.call.input_characters)
    if asks and not any(part.get("input_tokens") for part in counted):
        missing["input_tokens"] = max(missing["input_tokens"], _read(asked, inputs(asked.provider, asked.call)))
    for key, count in missing.items():
        counted[-1][key] = counted[-1].get(key, 0) + count
    return any(missing.values())


def _sum(parts: list[Counts]) -> Counts:
    if len(parts) == 1:
        return parts[0]
    return {key: sum(part.get(key, 0) for part in parts) for key in {key for part in parts for key in part}}


def _output(parts: list[Counts]) -> int:
    return sum(part.get("output_tokens", 0) for part in parts)


def _unfinished(asked: _Asked, result: Mapping[str, Any], counted: list[Counts], characters: int) -> bool:
    """Whether more was made than the report says: a stream was cut after its beginning, which knows the input only."""
    if not writes(asked.call):
        return False
    output = _output(counted)
    return bool(result.get("unfinished")) or characters > (_IMPLAUSIBLE * (output + 1) if output else 0)


def _top_up(asked: _Asked, counted: list[Counts], characters: int) -> None:
    """Raise the output of a report that came before the end to what flowed."""
    missing = _flowed(asked, characters) - _output(counted)
    counted[-1]["output_tokens"] = counted[-1].get("output_tokens", 0) + max(missing, 0)


def _open_ended(asked: _Asked, result: Mapping[str, Any]) -> bool:
    """Whether an answer was left so early that neither its report nor its output limit tells what it cost."""
    if not result.get("unfinished") or not writes(asked.call):
        return False
    demand = asked.call.demand
    return bool(demand.unbounded) or _makes_media(asked) or (demand.tier not in NO_DEARER and not context(result))


def _makes_media(asked: _Asked) -> bool:
    """Whether the model may have made something else than text, at a price of its own."""
    if asked.own or pins_text(asked.provider, asked.call):
        return False
    tariff = listed(asked.provider, asked.call.model, price_list=asked.price_list)
    return tariff is not None and makes_media(tariff.rated)


def _flowed(asked: _Asked, characters: int) -> int:
    """Output tokens of an answer without a usable report: what flowed, where all that is made flows.

    Everything else is charged the whole limit: an app could have any amount of unseen work for nothing by leaving right
    before the report.
    """
    if not writes(asked.call):
        return 0
    tokens, most = asked.tokens(characters), asked.most
    if most is None:
        return tokens
    return min(tokens, most) if shows_all(asked.provider, asked.call, asked.shows_all) else most


def _cost(asked: _Asked, result: Mapping[str, Any], parts: list[Counts]) -> int | None:
    """Nano-dollars for all steps and hosted tools; ``None`` without a price.

    Raises:
        ValueError: the parts of the usage are more than the whole.
    """
    if asked.free:
        return 0
    bill = None if asked.own else billed(asked.provider.id, result)
    called = _with_search(asked, tools(result))
    unpriced = not asked.own and has_unpriced(asked.provider.id, asked.call.flavor, result)
    if called is not None and not unpriced and not _is_of_any_kind(asked, result, parts):
        first = {key: max(count, parts[0].get(key, 0)) for key, count in called.items()}
        costs = [_priced(asked, *step) for step in zip(_parts(result), [parts[0] | first, *parts[1:]], strict=True)]
        known = [cost for cost in costs if cost is not None]
        if len(known) == len(costs):
            return asked.charged(max(sum(known, Decimal(0)), bill or Decimal(0)))
    return None if bill is None else asked.charged(bill)


def _is_of_any_kind(asked: _Asked, result: Mapping[str, Any], parts: list[Counts]) -> bool:
    """Whether output may be pictures or sound, and the report does not tell how much of it is."""
    if not asked.strict or not writes(asked.call) or not _output(parts) or not _makes_media(asked):
        return False
    if any(makes_media(part) for part in parts):
        return False
    usage = result.get("usageMetadata")  # Gemini's list of details names each kind that was made
    return not (isinstance(usage, dict) and usage.get("candidatesTokensDetails"))


def _with_search(asked: _Asked, called: Counts | None) -> Counts | None:
    """A chat answer of a model that searches by nature does not show its search, which is billed by the call."""
    is_billed = asked.provider.prices and asked.call.flavor == "chat" and searches(asked.call.model)
    if called is None or not is_billed:
        return called
    return {**called, "web_searches": max(called.get("web_searches", 0), 1)}


def _priced(asked: _Asked, result: Mapping[str, Any], counts: Counts) -> Decimal | None:
    """By the owner's row for the model that was asked for; else by the table, for the model that answered, or that."""
    if found := asked.own:
        return _by(asked, found[1], counts)
    priced = context(result)
    if asked.strict and asked.call.demand.tier not in NO_DEARER:
        priced = served(asked.provider, asked.call, priced, asked.price_list)
    for name in (result.get("model") or result.get("modelVersion"), asked.call.model):
        tariff = listed(asked.provider, name, priced, asked.price_list) if isinstance(name, str) else None
        if tariff is not None and (cost := _by(asked, tariff, counts)) is not None:
            return cost
    return None


def _by(asked: _Asked, tariff: Tariff, counts: Counts) -> Decimal | None:
    demand = asked.call.demand
    if PICTURES in tariff.rated and asked.call.flavor == "images":
        read = {"input_tokens": counts.get("input_tokens", 0)} if "input_tokens" in tariff.rated else {}
        counts = {PICTURES: max(demand.pictures, 1)} | read
    elif (
        asked.call.flavor == "transcription" and "input_audio_seconds" in tariff.rated - counts.keys() and demand.audio
    ):
        counts = _heard(asked)  # the report counts tokens, the price seconds
    return tariff.cost(counts) if tariff.covers(counts) else None


def _heard(asked: _Asked) -> Counts:
    """The sound that was sent, where the answer does not tell its length."""
    length = seconds(asked.call.demand, LEAST_SECONDS.get(asked.provider.id, 0))
    return {"audio_seconds": length, "input_audio_seconds": length}


def _estimate(asked: _Asked, result: Mapping[str, Any], output_characters: int, known: Counts) -> Usage:
    """Usage from what went in and what flowed, but not less than what is ``known`` (of a report that is wrong)."""
    call, used = asked.call, inputs(asked.provider, asked.call)
    estimated = {"input_tokens": _read(asked, used)}
    estimated["output_tokens"] = _flowed(asked, output_characters)
    counts = {key: max(count, known.get(key, 0)) for key, count in estimated.items()}
    unsure = (
        call.demand.unbounded
        or (used.unknown and not known.get("input_tokens"))
        or (writes(call) and _makes_media(asked))
    )
    if asked.strict and not asked.free:
        cost = None if unsure else _dearest(asked, counts)
        return Usage(counts["input_tokens"], counts["output_tokens"], 0, cost, estimated=True)
    try:
        cost = _guessed(asked, result, counts) if asked.free or not unsure else None
    except ValueError:
        cost = None
    return Usage(counts["input_tokens"], counts["output_tokens"], 0, cost, estimated=True)


def _dearest(asked: _Asked, counts: Counts) -> int | None:
    """What ``counts`` cost at the rates of the bound: nothing tells the tier, or what was written into a cache."""
    try:
        found = bound(
            asked.provider,
            asked.call,
            asked.prices,
            asked.margin,
            max_cost_per_call=None,
            price_list=asked.price_list,
        )
    except NotGranted:
        return None
    beyond = max(counts["input_tokens"] - found.input_tokens, 0)  # a report that is wrong may tell more
    output = counts["output_tokens"] * found.per_token / found.candidates
    return None if beyond else int((found.fixed + output).to_integral_value(ROUND_CEILING))


def _read(asked: _Asked, used: Inputs) -> int:
    """Input tokens that nobody counted. Where money is limited, as many as in the bound."""
    text = (
        used.text if asked.strict else asked.tokens(asked.call.demand.text or asked.call.input_characters) + _OVERHEAD
    )
    return text + used.images + used.audio


def _guessed(asked: _Asked, result: Mapping[str, Any], counts: Counts) -> int | None:
    call, demand = asked.call, asked.call.demand
    if call.flavor == "speech":
        counts = {"input_characters": max(demand.characters or call.input_characters, 1)}
    elif call.flavor == "transcription" and demand.audio:
        counts = _heard(asked)
    elif call.flavor == "images" and (found := asked.own) and PICTURES in found[1].rated:
        counts = {}
    elif call.flavor not in _READ and not asked.free:
        return None
    return _cost(asked, {name: result[name] for name in ("model", "modelVersion") if name in result}, [counts])
