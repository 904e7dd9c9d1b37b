"""PostgreSQL on the hot path: prepared statements, on a connection that is out of the pool for one statement alone.

The ledger's statements are long, few and constant. Django's cursors would put the values into the text, which the
client then quotes and the server parses and plans anew for every call. Here each is parsed once, when it is first
used, and the server keeps its plan after a few executions (``prepare_threshold``).

Every parameter goes over as text of a type that the statement names: what the server prepares hangs on the types, and
those of Python's numbers depend on their size.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import psycopg
from django.db import connection, connections, utils
from django.db.backends.postgresql.base import DatabaseWrapper

_TYPES = {
    **dict.fromkeys(("id", "grant", "worker"), "uuid"),
    **dict.fromkeys(("jti", "kid", "route", "model", "outcome", "zone"), "text"),
    **dict.fromkeys(("stream", "no", "reaping", "estimated", "connected"), "boolean"),
}  # all others are numbers


class HotPath:
    """What the policy and the ledger need of PostgreSQL. It takes part in a transaction of Django's.

    Parameters of the statements are written ``%(name)s``.
    """

    def row(self, sql: str, params: Mapping[str, Any]) -> Sequence[Any] | None:
        """The first row that a statement brings."""
        with _executed(sql, params) as cursor:
            return cursor.fetchone()

    def change(self, sql: str, params: Mapping[str, Any]) -> int:
        """Run a statement; returns how many rows it changed."""
        with _executed(sql, params) as cursor:
            return cursor.rowcount


@contextmanager
def _executed(sql: str, params: Mapping[str, Any]) -> Iterator[psycopg.RawCursor[Any]]:
    """A cursor behind its statement. A connection that breaks under it does not go back into the pool."""
    text, names = _numbered(sql)
    values = [None if params[name] is None else str(params[name]) for name in names]
    try:
        with _connection() as lent:
            yield psycopg.RawCursor(lent).execute(text, values)
    except psycopg.Error as error:  # as Django names it (PEP 249's names are the same)
        raise _translated(error) from error


@contextmanager
def _connection() -> Iterator[psycopg.Connection[Any]]:
    """The one that this greenlet has already (who holds one and waits for another may wait for ever), or a loan."""
    for known in connections.all(initialized_only=True):
        if known.connection is not None:
            known.validate_no_broken_transaction()
            yield known.connection
            return
    pool = _pool()
    lent = pool.getconn()
    try:
        yield lent
    finally:
        pool.putconn(lent)


def _translated(error: psycopg.Error) -> utils.DatabaseError | utils.InterfaceError:
    names = (kind.__name__ for kind in type(error).__mro__)
    found = next((getattr(utils, name) for name in names if hasattr(utils, name)), utils.DatabaseError)
    translated: utils.DatabaseError | utils.InterfaceError = found(*error.args)
    return translated


def _pool() -> Any:
    """Django's own, without making this greenlet a connection of Django's."""
    pool = DatabaseWrapper._connection_pools.get("default") or connection.pool  # type: ignore[attr-defined]
    if pool.closed:
        pool.open()
    return pool


@cache
def _numbered(sql: str) -> tuple[str, tuple[str, ...]]:
    """A statement with ``$1::type`` for ``%(name)s``, and the names in the order of the numbers."""
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}::{_TYPES.get(name, 'bigint')}"

    return re.sub(r"%\((\w+)\)s", number, sql), tuple(names)
