"""Price files for tests: the installed data as JSON, with some of its models changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy import price_lists
from proxy.pricing import lists, price_file

Tables = dict[str, dict[str, Any]]


def installed() -> Tables:
    """Provider → its table as JSON, of all providers that a file must have."""
    bundled = lists.tables(lists.INSTALLED)
    names = sorted(price_lists.NEEDED | price_lists.LENDERS)
    return {name: json.loads(price_file.write(bundled[name][0])) for name in names}


def model(tables: Tables, provider: str, name: str) -> dict[str, Any]:
    return next(one for one in tables[provider]["models"] if one["id"] == name)


def changed(*edits: Callable[[Tables], None]) -> bytes:
    """The installed data after ``edits``, as a file."""
    tables = installed()
    for edit in edits:
        edit(tables)
    return json.dumps(list(tables.values())).encode()


def priced(provider: str, name: str, **prices: Any) -> Callable[[Tables], None]:
    """An edit: other prices of some units of a model; ``None`` takes a unit away."""

    def edit(tables: Tables) -> None:
        row = model(tables, provider, name)
        row["prices"] = {unit: price for unit, price in (row["prices"] | prices).items() if price is not None}

    return edit


def without(provider: str, name: str) -> Callable[[Tables], None]:
    """An edit: no row for a model."""

    def edit(tables: Tables) -> None:
        tables[provider]["models"].remove(model(tables, provider, name))

    return edit


def first(provider: str, **row: Any) -> Callable[[Tables], None]:
    """An edit: a row before all others of a provider."""

    def edit(tables: Tables) -> None:
        tables[provider]["models"].insert(0, row)

    return edit


def written(folder: Path, data: bytes) -> str:
    path = folder / "prices.json"
    path.write_bytes(data)
    return str(path)
