"""The most that a call can cost: what a limit in money reserves before the call goes out.

The promise: on a route that has a bound, :func:`~.metering.meter` never charges more than it, whatever an honest
provider reports. So every number here is a maximum: text counts a token a byte, pictures and sound by :mod:`~.inputs`,
what the body does not show as the model's whole context window (:mod:`~.windows`); and each at the dearest rate that
the request can reach (:mod:`~.ceilings`). What the body shows is never lowered to a context window.

What has no price, or no bound, is refused in words that say which, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

from grants.prices import UNITS
from grants.providers import Provider

from ..dialects.base import UpstreamCall
from ..exceptions import NotGranted
from .ceilings import Ceiling, ceiling, pins_text
from .counting import LEAST_SECONDS
from .inputs import Inputs, inputs, seconds, writes
from .lists import INSTALLED
from .tariffs import is_free, own_tariff
from .unpriced import PriceUnknown

FLOOR = 64  # tokens: an output limit is never lowered below this; what is cut shorter is of no use to anybody

_ZERO = Decimal(0)
# The most tokens of one drawn picture: 6,240 for the largest in high quality ($0.25 at $40 a million), and 100 for each
# of three partial ones (?). Newer models draw any size: they have no entry.
_DRAWN = {"gpt-image-1": 6540, "gpt-image-1-mini": 6540}


class Bound(NamedTuple):
    """The most a call can use: ``fixed`` + limit × ``per_token``, both in nano-dollars (1e-9 USD).

    ``per_token`` is for all candidates together. ``limit``: what may be made for each candidate, ``None`` where the
    route has no such limit. ``why``: a sentence on what makes the input count for more than the request shows.
    """

    fixed: Decimal
    per_token: Decimal
    input_tokens: int
    limit: int | None
    candidates: int
    why: str = ""

    def cost(self, limit: int | None) -> int:
        """Nano-dollars, rounded up."""
        return int((self.fixed + (limit or 0) * self.per_token).to_integral_value(ROUND_CEILING))

    def affordable(self, money: int) -> int:
        """The largest limit up to the bound's own whose cost fits in ``money``; below 0 where none does."""
        most = self.limit or 0
        if not self.per_token:
            return most if self.fixed <= money else -1
        return min(most, int(((money - self.fixed) / self.per_token).to_integral_value(ROUND_FLOOR)))

    def tokens(self, limit: int | None) -> int:
        return self.input_tokens + (limit or 0) * self.candidates


def bound(
    provider: Provider,
    call: UpstreamCall,
    prices: str,
    margin: int,
    *,
    max_cost_per_call: int | None,
    price_list: str = INSTALLED,
) -> Bound:
    """What ``call`` can cost at most.

    ``prices``: the key's own rows (JSON), before the price list. ``margin``: percent on top of every price.
    ``max_cost_per_call``: nano-dollars; the bound of calls that nothing else bounds. ``price_list``: its digest.

    Raises:
        PriceUnknown: it needs a unit that has no price.
        NotGranted: ``cost_unbounded``: nothing bounds it.
    """
    used = inputs(provider, call)
    found = own_tariff(prices, call.model, provider)
    if is_free(provider, call.flavor, found[0] if found else None):
        return _of(call, _ZERO, _ZERO, used)
    demand = call.demand
    rates = ceiling(provider, call.model, demand.tier, prices, cached=demand.cached, price_list=price_list)
    if rates is None:
        tier = f" in the tier '{demand.tier}'" if demand.tier else ""
        raise PriceUnknown(provider, call, f"calls of {_shown(call)}{tier}", () if tier else _units(call))
    if used.widened and not rates.longer:
        raise PriceUnknown(provider, call, f"a longer context of {_shown(call)}", ())
    fixed, per_token, why = _COSTS[_kind(call)](provider, call, rates, used)
    if why:
        if max_cost_per_call is None:
            raise _unbounded(why)
        return _of(call, Decimal(max_cost_per_call), _ZERO, used)
    factor = (100 + Decimal(margin)) / 100
    fixed += rates.at(used.whole).get("request", _ZERO)
    return _of(call, fixed * factor, per_token * factor, used)


def tokens_bound(provider: Provider, call: UpstreamCall) -> Bound:
    """Without money: the tokens that ``call`` can use at most, as far as it can be told."""
    return _of(call, _ZERO, _ZERO, inputs(provider, call))


def _of(call: UpstreamCall, fixed: Decimal, per_token: Decimal, used: Inputs) -> Bound:
    return Bound(fixed, per_token, used.whole, call.demand.limit, call.demand.candidates, _why(used))


def _why(used: Inputs) -> str:
    if not used.unknown:
        return ""
    window = f"the model's whole context window ({used.window} tokens)" if used.window else "a whole context window"
    return f"It brings in {used.unknown}, which counts as {window}: no lower maximum is documented."


_Cost = tuple[Decimal, Decimal, str]  # fixed, for a token of the output limit, why nothing bounds it


def _kind(call: UpstreamCall) -> str:
    return call.flavor if call.flavor in _COSTS else "text"


def _text(provider: Provider, call: UpstreamCall, rates: Ceiling, used: Inputs) -> _Cost:
    """Chat and whatever else reads tokens and may write some."""
    demand, at = call.demand, rates.at(used.whole)
    _need(provider, call, rates, "input_tokens", "input")
    if writes(call):
        _need(provider, call, rates, "output_tokens", "output")
    why = demand.unbounded or _read(used)
    if writes(call) and demand.limit is None:
        why = why or "it has no output limit"
    if not why and rates.audio and demand.audio and call.flavor == "chat":
        _need(provider, call, rates, "input_audio_tokens", "second", "a token of sound")
    made = "output" if pins_text(provider, call) else "made"
    per_token = at[made] * demand.candidates if writes(call) else _ZERO
    return _in(used, at), per_token, why


def _read(used: Inputs) -> str:
    """Why nothing bounds the input."""
    if used.unknown and used.window is None:
        return f"{used.unknown}, in a model whose context window is not known"
    return ""


def _in(used: Inputs, at: Mapping[str, Decimal]) -> Decimal:
    """The input's cost: each part at its own dearest rate, or a whole window at the dearest of all."""
    if used.unknown:
        return used.whole * at["hidden"]
    return used.text * at["text"] + used.images * at["image"] + used.audio * at["audio"]


def _speech(provider: Provider, call: UpstreamCall, rates: Ceiling, used: Inputs) -> _Cost:
    if "input_characters" not in rates.rated and "output_tokens" in rates.rated:
        return _ZERO, _ZERO, "the length of what is spoken"
    _need(provider, call, rates, "input_characters", "character")
    return call.demand.characters * rates.at(0)["character"], _ZERO, call.demand.unbounded


def _transcription(provider: Provider, call: UpstreamCall, rates: Ceiling, used: Inputs) -> _Cost:
    if "input_audio_seconds" not in rates.rated and "output_tokens" in rates.rated:
        return _ZERO, _ZERO, "the length of what is written down"
    _need(provider, call, rates, "input_audio_seconds", "second")
    least = LEAST_SECONDS.get(provider.id, 0)
    return seconds(call.demand, least) * rates.at(0)["second"], _ZERO, call.demand.unbounded


def _images(provider: Provider, call: UpstreamCall, rates: Ceiling, used: Inputs) -> _Cost:
    at, demand = rates.at(used.whole), call.demand
    read = _in(used, at) if "text" in at else _ZERO
    why = demand.unbounded or (_read(used) if "text" in at else "")
    if "pictures" in rates.rated:
        return demand.pictures * at["picture"] + read, _ZERO, why
    if (drawn := _DRAWN.get(call.model)) is None or provider.id not in ("openai", "azure"):
        raise PriceUnknown(provider, call, f"{UNITS['image'][1]} of {_shown(call)}", _units(call))
    return demand.pictures * drawn * at["drawn"] + read, _ZERO, why


_COSTS = {"text": _text, "speech": _speech, "transcription": _transcription, "images": _images}


def _need(provider: Provider, call: UpstreamCall, rates: Ceiling, key: str, unit: str, what: str = "") -> None:
    if key not in rates.rated:
        raise PriceUnknown(provider, call, f"{what or UNITS[unit][1]} of {_shown(call)}", _units(call))


def _units(call: UpstreamCall) -> tuple[str, ...]:
    """The units that a price row for this call needs."""
    if found := {"speech": "character", "transcription": "second", "images": "image"}.get(_kind(call)):
        return (found,)
    return ("input", "output") if writes(call) else ("input",)


def _shown(call: UpstreamCall) -> str:
    return f"'{call.model[:100]}'"


def _unbounded(why: str) -> NotGranted:
    return NotGranted(
        f"This grant limits cost, and the cost of this call has no upper bound ({why}). "
        "The owner can set a limit of cost per call, which is then the bound of such calls.",
        code="cost_unbounded",
        final=True,
    )
