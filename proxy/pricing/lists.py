"""The price lists that this process knows, and the rows of a list that price a model.

A list is named by the SHA-256 of its data (its digest), so that a restored database cannot give a name to other prices.
:data:`INSTALLED` is the data of the installed genai-prices; the others come from the database (:mod:`proxy.price_lists`
loads them). A call keeps the digest that it was admitted with, so its bound and its charge rest on the same prices.

A provider may have several tables in one list, the newest first. The older ones hold prices that the newest lowers and
that nobody has accepted: the highest price of all tables is charged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping

from genai_prices import types as library
from genai_prices.data import providers

from .documented import DOCUMENTED, SNAPSHOTS

Tables = Mapping[str, tuple[library.Provider, ...]]
Found = tuple[library.ModelInfo, bool]  # a row, and whether it is this provider's own

Find = Callable[[library.Provider, str], library.ModelInfo | None]

INSTALLED = ""
_KEPT = 8  # lists from the database; a call that is open for longer than so many updates loads its list again

_known: dict[str, Tables] = {INSTALLED: {provider.id: (provider,) for provider in providers}}
_lock = threading.Lock()


def is_known(digest: str) -> bool:
    return digest in _known


def tables(digest: str) -> Tables:
    """
    Raises:
        LookupError: the list was not loaded.
    """
    return _known[digest]


def keep(digest: str, loaded: Tables) -> None:
    """Remember a list. The list that was loaded first is forgotten first."""
    with _lock:
        _known[digest] = loaded
        for old in [name for name in _known if name != INSTALLED][:-_KEPT]:
            del _known[old]


def models(known: Tables, prices_id: str, name: str, find: Find = library.Provider.find_model) -> tuple[Found, ...]:
    """The rows that price ``name``: one of each table of the provider, or of a provider that it takes models from.

    A list that lacks a provider prices it by the installed data. ``find``: looks a name up in one table.
    """
    name = name.lower().removeprefix("models/")
    base = SNAPSHOTS.get(prices_id, {}).get(name, name)
    found: list[Found] = []
    for table in known.get(prices_id) or _known[INSTALLED][prices_id]:
        own = find(table, name) or find(table, base)
        rows = [(own, True)] if own else [(row, False) for row in _borrowed(known, table, name, find)]
        found += rows or [(row, True) for row in DOCUMENTED.get(prices_id, ()) if row.is_match(name)]
    return tuple(found)


def _borrowed(known: Tables, table: library.Provider, name: str, find: Find) -> Iterator[library.ModelInfo]:
    """The rows of the first other provider that has some: Azure serves models of OpenAI."""
    for other in table.fallback_model_providers or ():
        rows = [row for each in known.get(other, ()) if (row := find(each, name)) is not None]
        if rows:
            yield from rows
            return
