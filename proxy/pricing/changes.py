"""What a new price list changes for the names that its patterns and the old ones speak of.

Rows are not compared with rows: which row prices a name depends on all patterns before it, so a new row may lower the
price of a name that an old row still lists. Instead, each name is priced by both lists: at every date and hour that
changes a price, and in every service tier.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from genai_prices import types as library
from genai_prices.data_units import unit_data

from .lists import Find, Found, Tables, models
from .tariffs import Context, UnitRate, Units, implied, rate_above, units_at

LOWER = frozenset({"lower", "lost", "zero"})
_CONTEXTS = ("service_tier", "speed", "inference_geo")  # what the relay reads in requests and answers
_MOST = 4  # tables of one provider in a list


class Change(NamedTuple):
    """``before`` and ``after``: dollars for the unit's usual number, such as ``2.5 (over 200000: 5)``; empty: none.

    ``when``: a service tier, and the date from which on, where it does not hold always.
    """

    provider: str
    model: str
    unit: str
    kind: str  # new, higher, lower, lost (no price any more), zero
    before: str
    after: str
    when: str

    @property
    def lowers(self) -> bool:
        return self.kind in LOWER

    def as_dict(self) -> dict[str, Any]:
        return self._asdict() | {"lowers": self.lowers}


class TooManyTables(ValueError):
    """Prices of a provider were lowered again and again, and nobody has accepted that."""


def changes(before: Tables, after: Tables, prices_id: str, find: Find = library.Provider.find_model) -> list[Change]:
    """What differs for one provider's models; each change once, though several names have it."""
    if _same(before, after, prices_id):
        return []
    found: dict[Change, None] = {}
    seen: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
    for name in _names(prices_id, before, after):
        old, new = models(before, prices_id, name, find), models(after, prices_id, name, find)
        rows = tuple(id(row) for row, _ in old), tuple(id(row) for row, _ in new)
        if rows in seen or old == new:
            continue
        seen.add(rows)
        for one in _of(prices_id, (old or new)[0][0].id, old, new):
            found.setdefault(one)
    return list(found)


def merged(
    before: Tables, tables: Mapping[str, library.Provider], *, accept_lower: bool
) -> tuple[dict[str, tuple[library.Provider, ...]], list[Change]]:
    """The list that follows ``before`` when ``tables`` arrive, and all changes.

    Without ``accept_lower`` older tables stay in the list as long as they hold a price that the new table lowers.

    Raises:
        TooManyTables: more than a few older tables of one provider would have to stay.
    """
    fresh: dict[str, tuple[library.Provider, ...]] = {name: (_known(before, table),) for name, table in tables.items()}
    find = _remembering()
    found = [change for name in sorted(fresh) for change in changes(before, fresh, name, find)]
    lowered = set() if accept_lower else {change.provider for change in found if change.lowers}
    lowered |= {other for name in lowered for table in before.get(name, ()) for other in _lenders(table) & fresh.keys()}
    after = dict(fresh)
    for name in lowered:
        after[name] += tuple(old for old in before.get(name, ()) if old is not fresh[name][0])
    for name in sorted(lowered):
        _prune(after, name, find)
        if len(after[name]) > _MOST:
            raise TooManyTables(name)
    return after, found


def _known(before: Tables, table: library.Provider) -> library.Provider:
    """The equal table of the list before, where there is one: the same rows need no comparison."""
    return next((old for old in before.get(table.id, ()) if _rows(old) == _rows(table)), table)


def _remembering() -> Find:
    """Looks names up, and each name in each table once."""
    known: dict[tuple[int, str], library.ModelInfo | None] = {}

    def find(table: library.Provider, name: str) -> library.ModelInfo | None:
        key = (id(table), name)
        if key not in known:
            known[key] = table.find_model(name)
        return known[key]

    return find


def _same(before: Tables, after: Tables, prices_id: str) -> bool:
    """Whether a provider's tables, and those that it borrows from, are the same in both lists."""
    names = {prices_id}.union(*(_lenders(table) for known in (before, after) for table in known.get(prices_id, ())))
    return all(list(map(id, before.get(name, ()))) == list(map(id, after.get(name, ()))) for name in names)


def _rows(table: library.Provider) -> tuple[Any, ...]:
    rows = [(row.match, row.prices, row.price_variants or None) for row in table.models]
    return table.fallback_model_providers or None, rows


def _prune(after: dict[str, tuple[library.Provider, ...]], name: str, find: Find) -> None:
    """Drop the older tables of a provider that hold no price up, the oldest first."""
    for old in reversed(after[name][1:]):
        without = after | {name: tuple(table for table in after[name] if table is not old)}
        users = [user for user in after if user == name or any(name in _lenders(table) for table in after[user])]
        if not any(change.lowers for user in users for change in changes(after, without, user, find)):
            after[name] = without[name]


def _lenders(table: library.Provider) -> frozenset[str]:
    """The providers whose rows price what this one has no row for."""
    return frozenset(table.fallback_model_providers or ())


# Names


def _names(prices_id: str, *lists: Tables) -> Iterator[str]:
    """Names that show each difference: what the patterns name, and what begins like that."""
    found: dict[str, None] = {}
    for known in lists:
        tables = known.get(prices_id, ())
        others = sorted({other for table in tables for other in _lenders(table)})
        for table in (*tables, *(table for other in others for table in known.get(other, ()))):
            for row in table.models:
                found.setdefault(row.id)
                for name in _literals(row.match):
                    found.setdefault(name)
    yield from found


def _literals(clause: Any) -> Iterator[str]:
    if isinstance(clause, library.ClauseOr):
        for part in clause.or_:
            yield from _literals(part)
    elif isinstance(clause, library.ClauseAnd):  # the beginning, the end and what is between, as one name
        parts = [list(_literals(part)) for part in clause.and_]
        yield "".join(part[0] for part in parts if part)
        yield from (name for part in parts for name in part)
    elif isinstance(clause, library.ClauseRegex):
        yield from _samples(clause.regex)
    else:
        text = next(iter(vars(clause).values()))
        yield text
        if isinstance(clause, library.ClauseStartsWith | library.ClauseContains):
            yield f"{text}-0"


def _samples(pattern: str) -> Iterator[str]:
    """A name that the pattern matches, where one is easily made: digits for ``\\d``, optional parts left out."""
    plain = re.sub(r"\(\?![^()]*(?:\([^()]*\)[^()]*)*\)", "", pattern.strip("^$"))
    plain = re.sub(r"\([^()]*\)\?", "", plain)
    plain = re.sub(r"\\d(?:\{(\d+)\})?", lambda match: "2" * int(match[1] or 1), plain)
    plain = re.sub(r"\[(.)[^\]]*\]", r"\1", plain)
    plain = re.sub(r"\\(.)", r"\1", plain.strip("^$"))
    if plain and re.search(pattern, plain):
        yield plain


# Prices


def _of(prices_id: str, model: str, old: Sequence[Found], new: Sequence[Found]) -> Iterator[Change]:
    rows = [row for row, _ in (*old, *new)]
    for context in _contexts(rows):
        last: set[tuple[str, str, str, str]] = set()
        for minute, since in _moments(rows):
            differences = set(
                _differences(units_at(prices_id, old, context, minute), units_at(prices_id, new, context, minute))
            )
            for unit, kind, before, after in sorted(differences - last):
                tier = ", ".join(f"{name} {value}" for name, value in context)
                yield Change(prices_id, model, unit, kind, before, after, ", ".join(filter(None, (tier, since))))
            last |= differences


def _contexts(rows: Iterable[library.ModelInfo]) -> list[Context]:
    named = [tuple(variant.when.items()) for row in rows for variant in row.price_variants or ()]
    known = [pairs for pairs in named if len(pairs) == 1 and pairs[0][0] in _CONTEXTS]
    return list(dict.fromkeys([(), *known]))


def _moments(rows: Iterable[library.ModelInfo]) -> Iterator[tuple[int, str]]:
    """The minutes of Unix time that may differ, with a name: now, each later date, each half hour of a day."""
    limits = [
        one.constraint
        for row in rows
        for one in (*(row.prices if isinstance(row.prices, list) else ()), *(row.price_variants or ()))
        if one.constraint is not None
    ]
    now = datetime.fromtimestamp(time.time(), UTC)
    dates = sorted({one.start_date for one in limits if isinstance(one, library.StartDateConstraint)})
    starts = [(now, "")] + [
        (datetime(day.year, day.month, day.day, tzinfo=UTC), f"from {day}") for day in dates if day > now.date()
    ]
    hourly = any(isinstance(one, library.TimeOfDateConstraint) for one in limits)
    for start, since in starts:
        for half in range(48 if hourly else 1):
            yield int((start + half * timedelta(minutes=30)).timestamp() // 60), since


def _differences(old: Units | None, new: Units | None) -> Iterator[tuple[str, str, str, str]]:
    """Unit, kind, before, after."""
    old, new = old or {}, new or {}
    for key in dict.fromkeys((*old, *new)):
        before, after = implied(old, key), implied(new, key)
        if kind := _kind(before, after):
            yield unit_data[key]["price_key"], kind, _shown(key, before), _shown(key, after)


def _kind(before: UnitRate | None, after: UnitRate | None) -> str:
    if before is None or not _any(before):
        return "new" if after is not None and _any(after) else ""
    if after is None:
        return "lost"
    if not _any(after):
        return "zero"
    starts = {0, *(start for start, _ in (*before[1], *after[1]))}
    steps = [(rate_above(before, start), rate_above(after, start)) for start in starts]
    if any(then > now for then, now in steps):
        return "lower"
    return "higher" if any(then < now for then, now in steps) else ""


def _any(rate: UnitRate) -> bool:
    return rate[0] > 0 or any(price > 0 for _, price in rate[1])


def _shown(key: str, rate: UnitRate | None) -> str:
    if rate is None:
        return ""
    base, tiers = rate
    steps = ", ".join(f"over {start}: {_dollars(key, price)}" for start, price in reversed(tiers))
    return _dollars(key, base) + (f" ({steps})" if steps else "")


def _dollars(key: str, nanos: Decimal) -> str:
    return f"{(nanos * unit_data[key]['per'] / 10**9).normalize():f}"
