"""Price lists between the database and the memory of a worker.

A worker reads a list once, before it admits the first call under it. Reading takes about a tenth of a second and pauses
between models, so that open streams go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from genai_prices.types import Provider

from grants.models import PriceList
from grants.pace import give_way
from grants.providers import PROVIDERS

from .pricing import lists, price_file
from .pricing.lists import INSTALLED, Tables

_loading = threading.Lock()

NEEDED = frozenset(provider.prices for provider in PROVIDERS.values() if provider.prices)
# Providers whose models others serve: without them a name at Azure may have no price.
LENDERS = frozenset(
    lender
    for name in NEEDED
    for table in lists.tables(INSTALLED)[name]
    for lender in table.fallback_model_providers or ()
)


def ensure(digest: str) -> None:
    """Have a price list in memory.

    Raises:
        LookupError, DatabaseError: it cannot be read.
    """
    if lists.is_known(digest):
        return
    with _loading:
        if lists.is_known(digest):
            return
        text = PriceList.objects.filter(digest=digest).values_list("data", flat=True).first()
        if text is None:
            raise LookupError(f"the price list {digest}")
        lists.keep(digest, loads(text, give_way))


def loads(text: str, pause: Callable[[], None]) -> Tables:
    """A list as the database keeps it."""
    tables: dict[str, tuple[Provider, ...]] = {}
    for line in text.splitlines():
        table = price_file.parse(line, pause)
        tables[table.id] = (*tables.get(table.id, ()), table)
    return tables


def dumps(tables: Tables) -> str:
    """A list as the database keeps it. Equal lists are equal texts."""
    return "\n".join(price_file.write(table) for name in sorted(tables) for table in tables[name])


def installed() -> Mapping[str, Provider]:
    """The tables of the installed genai-prices that the catalogue needs.

    They go through the same checks as a file, so that what is stored can be read again.
    """
    bundled = lists.tables(INSTALLED)
    lines = [price_file.write(bundled[name][0]) for name in sorted(NEEDED | LENDERS & bundled.keys())]
    return {table.id: table for table in (price_file.parse(line, lambda: None) for line in lines)}
