"""An owner's own prices for one key: rows of model patterns and what each unit costs, the first match wins.

A row prices what apps *ask for*: its pattern is held against the model's name in the request, so that the bound of a
call and its cost rest on the same row. Surfaces speak decimal dollars; parsed rows are nano-dollars (1e-9 USD) for a
single unit. Nothing here rounds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

from django.core.exceptions import ValidationError

from .terms import PATTERN, covers

# Unit → of how many its price is, and what that is called.
UNITS: dict[str, tuple[int, str]] = {
    "input": (10**6, "a million input tokens"),
    "output": (10**6, "a million output tokens"),
    "cached": (10**6, "a million input tokens that were read from a cache"),
    "image": (1, "an image"),
    "character": (10**6, "a million characters to be spoken"),
    "second": (1, "a second of sound"),
    "request": (1, "a request"),
}
MAX_ROWS = 200
MAX_MARGIN = 1000
_MOST = Decimal(10**6)  # dollars
_PRICE = re.compile(r"\d{1,7}(?:\.\d{1,12})?")
_NANOS = 10**9


@dataclass(frozen=True, slots=True)
class PriceRow:
    """``rates``: nano-dollars for one unit. ``free``: whatever the model does costs nothing."""

    models: str
    rates: Mapping[str, Decimal] = field(hash=False)
    free: bool = False


# What stands in for stored text that cannot be read: it matches every model and prices nothing.
_UNREADABLE = (PriceRow("*", {}),)


@lru_cache(maxsize=128)  # 0.12 MB each where they have 200 rows
def parse(text: str) -> tuple[PriceRow, ...]:
    """The rows in the JSON ``text`` of a key. Never raises: what cannot be read prices nothing, and so refuses."""
    try:
        return tuple(map(_row, json.loads(text)))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError):
        return _UNREADABLE


def row_for(text: str, model: str) -> PriceRow | None:
    """The first row of the JSON ``text`` whose pattern covers ``model``."""
    if not text or text == "[]":
        return None
    return next((row for row in parse(text) if covers(row.models, model)), None)


def any_free(text: str) -> bool:
    """Whether the rows of the JSON ``text`` make any model free."""
    return bool(text) and text != "[]" and any(row.free for row in parse(text))


def _row(value: dict[str, Any]) -> PriceRow:
    priced = {unit: Decimal(value[unit]) * _NANOS / per for unit, (per, _) in UNITS.items() if unit in value}
    if not all(rate.is_finite() and rate >= 0 for rate in priced.values()):
        raise ValueError(value)
    return PriceRow(value["models"], priced, free=value.get("free") is True)


def validate(value: Any) -> None:
    """Check the rows as an owner gave them (see :data:`UNITS`; ``"free": true`` instead of prices).

    Raises:
        ValidationError: one sentence for each row that cannot stay.
    """
    if not isinstance(value, list):
        raise ValidationError("A list of rows.")
    if len(value) > MAX_ROWS:
        raise ValidationError(f"No more than {MAX_ROWS} rows.")
    problems = [f"Row {number}: {_problem(row)}" for number, row in enumerate(value, start=1) if _problem(row)]
    if problems:
        raise ValidationError(problems)


def _problem(row: Any) -> str | None:
    if not isinstance(row, dict) or not isinstance(row.get("models"), str) or not PATTERN.fullmatch(row["models"]):
        return "“models” must be a model's name, or the beginning of names and a * behind it."
    units = {name: price for name, price in row.items() if name != "models"}
    unknown = [name for name in units if name not in UNITS and name != "free"]
    if unknown:
        return f"“{unknown[0]}” is no unit. Units: {', '.join(UNITS)}, or free."
    if "free" in units:
        if units["free"] is not True:
            return "“free” is true, or not there."
        return "“free” stands alone, without prices." if len(units) > 1 else None
    if not units:
        return "A row needs a price, or “free”."
    wrong = [unit for unit, price in units.items() if not is_price(price)]
    return f'“{wrong[0]}” must be dollars as a decimal string such as "2.50", up to a million.' if wrong else None


def is_price(value: Any) -> bool:
    """Whether ``value`` is a price as owners give it: a plain decimal string of dollars."""
    return isinstance(value, str) and bool(_PRICE.fullmatch(value)) and value.isascii() and Decimal(value) <= _MOST


def validate_margin(value: Any) -> None:
    """Check a safety margin: percent on top of every price.

    Raises:
        ValidationError: it is none.
    """
    if type(value) is not int or not 0 <= value <= MAX_MARGIN:
        raise ValidationError(f"Write a whole percentage from 0 to {MAX_MARGIN}.")
