"""An owner's prices as they are typed, one line a row: ``gpt-4o*: input=2.50, output=10.00`` or ``local-*: free``.

For the desk and the command; only the notation. What makes sense of the rows is for :mod:`grants.prices` to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .prices import UNITS

FREE = "free"
EXAMPLE = "gpt-4o*: input=2.50, output=10.00"


def row(line: str) -> dict[str, Any]:
    """One line as a row. The last colon ends the pattern: some models have one in their names.

    Raises:
        ValueError: not written like that; the message is a sentence.
    """
    models, colon, rest = line.rpartition(":")
    parts = [part.strip() for part in rest.split(",")]
    if not colon or not all(parts):
        raise ValueError(f"Write “model: unit=dollars, …”, such as {EXAMPLE}")
    found: dict[str, Any] = {"models": models.strip()}
    for part in parts:
        unit, equals, price = (piece.strip() for piece in part.partition("="))
        if unit in found:
            raise ValueError(f"“{unit}” is given twice.")
        if not equals and unit != FREE:
            raise ValueError(f"“{part}” has no price. Write {part}=0.50, or free.")
        found[unit] = price if equals else True
    return found


def rows(text: str) -> list[dict[str, Any]]:
    """All lines that are not empty, in their order: the first that matches a model counts.

    Raises:
        ValueError: see :func:`row`; the message begins with the row's number.
    """
    found: list[dict[str, Any]] = []
    for line in filter(str.strip, text.splitlines()):
        try:
            found.append(row(line))
        except ValueError as error:
            raise ValueError(f"Row {len(found) + 1}: {error}") from error
    return found


def text(rows: Iterable[Mapping[str, Any]]) -> str:
    """What :func:`rows` reads."""
    return "\n".join(f"{row['models']}: {', '.join(_units(row))}" for row in rows)


def _units(row: Mapping[str, Any]) -> Iterable[str]:
    """In one order, whatever order the database gives the row's names back in."""
    for unit in UNITS:
        if unit in row:
            yield f"{unit}={row[unit]}"
    if row.get(FREE):
        yield FREE
