"""Django's SQLite backend, made fit for many greenlets in one process.

Two differences, and nothing else:

- **Connections are pooled.** Django keeps one per thread, which under gevent is one per client connection; the relay
  gives its own back before it waits for a provider, so that hundreds of open streams share a handful.
- **Waiting for a lock yields.** SQLite's busy handler waits in C and would freeze every stream of the worker; here
  the busy timeout is 0 and a statement that finds the database locked sleeps in Python and is tried again.
"""

from __future__ import annotations

import os
import sqlite3
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db.backends.sqlite3 import base

from grants.sqlite import patiently

POOL_SIZE = 16
_CACHE = 512  # kB of pages; SQLite's 2,000 for each of so many connections fill for hours, and bring nothing

_pools: dict[str, list[sqlite3.Connection]] = {}


def wait_for_lock(execute: Callable[..., Any], *args: Any) -> Any:
    """An execute wrapper. Transactions begin IMMEDIATE, so only a statement that has done nothing finds a lock."""
    return patiently(execute, *args)


def _create_private(path: Any) -> None:
    """A new database file is its owner's alone to read; SQLite gives its companions the same mode."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))


class DatabaseWrapper(base.DatabaseWrapper):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute_wrappers.append(wait_for_lock)
        self._cursors: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def _pool(self) -> list[sqlite3.Connection]:
        return _pools.setdefault(str(self.settings_dict["NAME"]), [])

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if not self.is_in_memory_db():
            try:
                return self._pool.pop()
            except IndexError:
                pass
            _create_private(self.settings_dict["NAME"])
        connection = super().get_new_connection(conn_params)
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute(f"PRAGMA cache_size = -{_CACHE}")
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        cursor = super().create_cursor(name)
        self._cursors.add(cursor)
        return cursor

    def _close(self) -> None:
        for cursor in list(self._cursors):
            cursor.close()  # one that was not read to its end would pin the database's state of that moment
        self._cursors.clear()
        connection = self.connection
        if connection is None or self.is_in_memory_db() or len(self._pool) >= POOL_SIZE:
            return super()._close()  # type: ignore[misc]  # the stubs do not know it
        if connection.in_transaction:
            connection.rollback()
        self._pool.append(connection)
        return None
