"""What was used and spent, summed up from the daily totals: quick, however many calls there were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import Sum

from .models import DailyTotal, Grant
from .pace import Pace

COLUMNS = ("grant", "model", "day")
SUMS = ("calls", "requests", "failed", "estimated", "input_tokens", "output_tokens", "cached_tokens", "cost")
MOST = 3000  # lines
_COLUMN_NAMES = {"grant": "grant_id", "model": "model", "day": "day"}


class TooMany(Exception):
    """More lines than anybody reads: fewer columns, or a shorter period."""


@dataclass(frozen=True, slots=True)
class Sums:
    """One line. ``key``: the values of the columns that it is of. ``cost`` in nano-dollars."""

    key: tuple[Any, ...]
    calls: int = 0
    requests: int = 0
    failed: int = 0
    estimated: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: int = 0


def spending(
    user: Any,
    by: Sequence[str] = (),
    *,
    grant: UUID | None = None,
    first_day: int | None = None,
    last_day: int | None = None,
) -> list[Sums]:
    """Sums by the columns that are named, dearest first; with none of them, one line or no line at all.

    Days as ``yyyymmdd`` in each owner's time zone, both included. A call belongs to the day of its admission.

    Raises:
        TooMany: it would be more than ``MOST`` lines.
    """
    grants = Grant.objects.owned_by(user).order_by("pk").values_list("pk", flat=True)
    if grant is not None:
        grants = grants.filter(pk=grant)
    bounds = {"day__gte": first_day, "day__lte": last_day}
    rows = DailyTotal.objects.filter(**{name: day for name, day in bounds.items() if day is not None}).order_by()
    columns = [_COLUMN_NAMES[name] for name in by or ("model",)]
    totals: Any = rows.values_list(*columns).annotate(*(Sum(name) for name in SUMS))
    found: dict[tuple[Any, ...], list[int]] = {}
    pace, last = Pace(10, least=1, most=500), None
    while True:
        with pace:
            some = list((grants.filter(pk__gt=last) if last else grants)[: pace.size])
            for row in totals.filter(grant__in=some) if some else ():
                _add(found, row[: len(by)], row[len(columns) :])
            if len(found) > MOST:
                raise TooMany
        if not some:
            break
        last = some[-1]
    lines = [Sums(key, *sums) for key, sums in found.items()]
    return sorted(lines, key=lambda line: (-line.cost, -line.calls, line.key))


def _add(found: dict[tuple[Any, ...], list[int]], key: tuple[Any, ...], sums: tuple[int | None, ...]) -> None:
    known = found.get(key)
    if known is None:
        found[key] = [value or 0 for value in sums]
    else:
        for number, value in enumerate(sums):
            known[number] += value or 0
