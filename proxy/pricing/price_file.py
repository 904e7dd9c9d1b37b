"""Price tables as JSON, in the format of genai-prices: read with every value checked, and written.

A price list decides what people pay, and it may come from a file or over the network. So whatever is not known here is
refused, with the place where it stands. Only what prices a call is kept: extractors, which say how usage is read from
an answer, always come from the installed genai-prices.

One exception: a model that is priced in a unit that this version does not know is kept without any price. Its calls are
refused under a money limit, and charged by an older table where there is one; the rest of the file still counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, NoReturn

from genai_prices import types as library
from genai_prices.data_units import unit_data

from .patterns import Unacceptable, clause, clause_value, items, text

MAX_BYTES = 8 * 2**20
_MAX_TABLE = 2**20  # characters of one provider as it is written: a worker parses it without a pause
_MAX_PRICE = Decimal(100_000)  # dollars for a unit: for a million tokens, for an image
_MAX_ITEMS = 5000
_PRICE_KEYS = frozenset(unit["price_key"] for unit in unit_data.values())

_ABOUT = {"id", "name", "description", "price_comments"}
_PROVIDER = frozenset(
    _ABOUT
    | {"api_pattern", "pricing_urls", "model_match", "provider_match", "extractors", "fallback_model_providers"}
    | {"models"}
)
_MODEL = frozenset(_ABOUT | {"match", "context_window", "deprecated", "prices", "price_variants"})


def read(data: bytes, needed: frozenset[str], useful: frozenset[str] = frozenset()) -> dict[str, library.Provider]:
    """The tables of the ``needed`` and ``useful`` providers in a file. Other providers are not looked at.

    Raises:
        Unacceptable: see the module's text; or a needed provider is missing.
    """
    if len(data) > MAX_BYTES:
        raise Unacceptable(f"The file is larger than {MAX_BYTES // 2**20} MB.")
    try:
        value = _decode(data.decode("utf-8"))
    except (UnicodeDecodeError, RecursionError) as error:
        raise Unacceptable("The file is not JSON in UTF-8, or is nested too deeply.") from error
    except json.JSONDecodeError as error:
        raise Unacceptable(f"The file is not JSON: {error.msg} at character {error.pos}.") from error
    except Unacceptable:
        raise
    except ValueError as error:  # an integer of more digits than Python converts
        raise Unacceptable("The file has a number out of range.") from error
    found: dict[str, library.Provider] = {}
    for one in items(value, "the file", 1000):
        name = one.get("id") if type(one) is dict else None
        if name in found:
            raise Unacceptable(f"The provider {name!r} occurs twice.")
        if name in needed | useful:
            found[name] = table(one)
    if missing := needed - found.keys():
        raise Unacceptable(f"The file lacks providers that are in use: {', '.join(sorted(missing))}.")
    return found


def parse(line: str, pause: Callable[[], None]) -> library.Provider:
    """A table as :func:`write` wrote it. ``pause`` is called between models."""
    return table(_decode(line), pause)


def table(value: Any, pause: Callable[[], None] = lambda: None) -> library.Provider:
    """One provider's table.

    Raises:
        Unacceptable: see the module's text.
    """
    found = _object(value, "a provider", _PROVIDER)
    name = text(found.get("id"), "the id of a provider")
    models = []
    for one in items(found.get("models", []), name, _MAX_ITEMS):
        models.append(_model(one, name))
        pause()
    others = found.get("fallback_model_providers") or []
    return library.Provider(
        id=name,
        name=name,
        api_pattern="",
        fallback_model_providers=[text(one, f"{name}: a fallback") for one in items(others, name, 20)] or None,
        models=models,
    )


def write(provider: library.Provider) -> str:
    """One line of JSON. Of equal tables the same line.

    Raises:
        Unacceptable: it is too long.
    """
    value: dict[str, Any] = {"id": provider.id}
    if provider.fallback_model_providers:
        value["fallback_model_providers"] = provider.fallback_model_providers
    value["models"] = [_model_value(model) for model in provider.models]
    line = json.dumps(value, separators=(",", ":"))
    if len(line) > _MAX_TABLE:
        raise Unacceptable(f"{provider.id}: more than {_MAX_TABLE} characters of prices.")
    return line


# Reading


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise Unacceptable(f"The key {max(names, key=names.count)[:80]!r} occurs twice in one object.")
    return value


def _constant(name: str) -> NoReturn:
    raise Unacceptable(f"{name} is not a number.")


_decode = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=Decimal, parse_constant=_constant).decode


def _object(value: Any, place: str, names: frozenset[str]) -> dict[str, Any]:
    if type(value) is not dict:
        raise Unacceptable(f"{place}: an object is needed.")
    if unknown := value.keys() - names:
        raise Unacceptable(f"{place}: the key {min(unknown)[:80]!r} is not known.")
    return value


def _natural(value: Any, place: str) -> int:
    if type(value) is not int or not 0 <= value <= 10**9:
        raise Unacceptable(f"{place}: a whole number from 0 to a billion is needed.")
    return value


def _model(value: Any, provider: str) -> library.ModelInfo:
    found = _object(value, f"{provider}: a model", _MODEL)
    name = text(found.get("id"), f"{provider}: the id of a model")
    place = f"{provider} {name}"
    window = found.get("context_window")
    variants = found.get("price_variants")
    return library.ModelInfo(
        id=name,
        match=clause(found.get("match"), place),
        context_window=None if window is None else _natural(window, f"{place}: context_window"),
        prices=_prices(found.get("prices"), place),
        price_variants=None if variants is None else [_variant(one, place) for one in items(variants, place, 50)],
    )


def _prices(value: Any, place: str) -> library.ModelPrice | list[library.ConditionalPrice]:
    if type(value) is not list:
        return _units(value, place)
    if not value:
        raise Unacceptable(f"{place}: it has no prices.")
    return [_conditional(one, place) for one in items(value, place, 50)]


def _conditional(value: Any, place: str) -> library.ConditionalPrice:
    found = _object(value, place, frozenset({"constraint", "prices"}))
    return library.ConditionalPrice(
        _constraint(found.get("constraint"), place), prices=_units(found.get("prices"), place)
    )


def _variant(value: Any, place: str) -> library.PriceVariant:
    found = _object(value, place, frozenset({"when", "prices", "constraint"}))
    when = found.get("when")
    if type(when) is not dict or not 0 < len(when) <= 5:
        raise Unacceptable(f"{place}: the condition of a price variant is not understood.")
    named = {text(key, place): text(one, place) for key, one in when.items()}
    return library.PriceVariant(named, _units(found.get("prices"), place), _constraint(found.get("constraint"), place))


def _constraint(value: Any, place: str) -> Any:
    if value is None:
        return None
    found = _object(value, place, frozenset({"start_date", "start_time", "end_time"}))
    try:
        if found.keys() == {"start_date"}:
            return library.StartDateConstraint(date.fromisoformat(found["start_date"]))
        if found.keys() == {"start_time", "end_time"}:
            start, end = (time.fromisoformat(found[name]) for name in ("start_time", "end_time"))
            if all(one.minute % 30 == one.second == one.microsecond == 0 for one in (start, end)) and all(
                one.utcoffset() == timedelta(0) for one in (start, end)
            ):
                return library.TimeOfDateConstraint(start, end)
    except (ValueError, TypeError):
        pass
    raise Unacceptable(f"{place}: a price holds from a date on, or between full or half hours of UTC.")


def _units(value: Any, place: str) -> library.ModelPrice:
    if type(value) is not dict or len(value) > 100:
        raise Unacceptable(f"{place}: an object of prices is needed.")
    if value.keys() - _PRICE_KEYS:
        return library.ModelPrice()
    return library.ModelPrice(
        **{key: _rate(price, f"{place}: {key}") for key, price in value.items() if price is not None}
    )


def _rate(value: Any, place: str) -> Decimal | library.TieredPrices:
    if type(value) is not dict:
        return _price(value, place)
    found = _object(value, place, frozenset({"base", "tiers"}))
    tiers = [_object(one, place, frozenset({"start", "price"})) for one in items(found.get("tiers"), place, 20)]
    return library.TieredPrices(
        base=_price(found.get("base"), place),
        tiers=[library.Tier(_natural(one.get("start"), place), _price(one.get("price"), place)) for one in tiers],
    )


def _price(value: Any, place: str) -> Decimal:
    if type(value) not in (int, Decimal):
        raise Unacceptable(f"{place}: a price must be a number.")
    price = Decimal(value)
    exponent = price.as_tuple().exponent
    if not (0 <= price <= _MAX_PRICE) or not isinstance(exponent, int) or not -20 <= exponent <= 6:
        raise Unacceptable(f"{place}: a price must be from 0 to {_MAX_PRICE} dollars, with at most 20 decimals.")
    if len(price.as_tuple().digits) > 17:
        raise Unacceptable(f"{place}: a price has at most 17 digits.")
    return price


# Writing


def _model_value(model: library.ModelInfo) -> dict[str, Any]:
    value: dict[str, Any] = {"id": model.id, "match": clause_value(model.match)}
    if model.context_window is not None:
        value["context_window"] = model.context_window
    if isinstance(model.prices, library.ModelPrice):
        value["prices"] = _units_value(model.prices)
    else:
        value["prices"] = [_conditional_value(one) for one in model.prices]
    if model.price_variants:
        value["price_variants"] = [{"when": one.when} | _conditional_value(one) for one in model.price_variants]
    return value


def _conditional_value(one: library.ConditionalPrice | library.PriceVariant) -> dict[str, Any]:
    value: dict[str, Any] = {"prices": _units_value(one.prices)}
    if one.constraint is not None:
        value["constraint"] = {name: moment.isoformat() for name, moment in vars(one.constraint).items()}
    return value


def _units_value(prices: library.ModelPrice) -> dict[str, Any]:
    return {key: _rate_value(rate) for key, rate in sorted(vars(prices).items()) if rate is not None}


def _rate_value(rate: Any) -> Any:
    if not isinstance(rate, library.TieredPrices):
        return _number(rate)
    tiers = [{"start": tier.start, "price": _number(tier.price)} for tier in rate.tiers]
    return {"base": _number(rate.base), "tiers": tiers}


def _number(price: Decimal) -> int | float:
    """As a JSON number that reads as the same amount: a float keeps 17 digits."""
    return int(price) if price == int(price) else float(price)
