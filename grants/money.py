"""Dollars as people and programs write them, nano-dollars (1e-9 USD) as everything inside counts. Exact; no floats."""

from __future__ import annotations

import re

NANO = 1_000_000_000
DECIMALS = 9
PATTERN = re.compile(r"[0-9]{1,10}(\.[0-9]{1,9})?")
MAX_DOLLARS = 1_000_000_000


def nano_dollars(text: str) -> int:
    """``"5.00"`` as ``5_000_000_000``.

    Digits, and a point with one to nine digits after it; no sign, no exponent, no separators.

    Raises:
        ValueError: anything else, or more than a billion dollars; the message is a sentence for people.
    """
    if not PATTERN.fullmatch(text):
        raise ValueError(f"Write an amount in dollars such as 5.00, with at most {DECIMALS} decimals.")
    whole, _, fraction = text.partition(".")
    amount = int(whole) * NANO + int(fraction.ljust(DECIMALS, "0"))
    if amount > MAX_DOLLARS * NANO:
        raise ValueError(f"The amount must be at most {MAX_DOLLARS} dollars.")
    return amount


def limit(text: str) -> int:
    """Like :func:`nano_dollars`, for an amount that limits something: 0 would be no grant at all.

    Raises:
        ValueError: see there, or 0.
    """
    amount = nano_dollars(text)
    if amount == 0:
        raise ValueError("The amount must be more than 0 dollars.")
    return amount


def dollars(amount: int) -> str:
    """``5_000_000_000`` as ``"5.00"``: exact, with as many decimals as it takes and two at least."""
    whole, fraction = divmod(abs(amount), NANO)
    return f"{'-' if amount < 0 else ''}{whole}.{_decimals(fraction)}"


def exactly(amount: int) -> str:
    """For people, to the last digit: ``$1,234.50``, ``$0.000123``."""
    whole, fraction = divmod(amount, NANO)
    return f"${whole:,}.{_decimals(fraction)}"


def about(amount: int) -> str:
    """For people, at a glance: cents where there are dollars, the first digits that count where there are not."""
    if amount == 0:
        return "$0"
    for least, digits in ((NANO, 2), (NANO // 100, 4), (0, 6)):
        if amount >= least:
            unit: int = 10 ** (DECIMALS - digits)
            rounded = (amount + unit // 2) // unit * unit
            return exactly(rounded) if rounded else "<$0.000001"
    raise ValueError("no amount of money is negative")


def _decimals(fraction: int) -> str:
    return f"{fraction:09}".rstrip("0").ljust(2, "0")
