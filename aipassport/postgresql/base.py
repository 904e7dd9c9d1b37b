"""Django's PostgreSQL backend, with a pool that survives a restart of the database.

One difference, and nothing else: a pooled connection is looked at before it is handed out. An idle one has nothing to
say; where its socket has something to read, the server may have closed it, and only then is it asked. That costs no
round trip, and the first call after a restart meets a new connection instead of an error.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from psycopg import Connection, Error
from psycopg_pool import ConnectionPool

from grants.sockets import has_something_to_say


class DatabaseWrapper(base.DatabaseWrapper):
    @property
    def pool(self) -> ConnectionPool[Any] | None:
        options = self.settings_dict["OPTIONS"].get("pool")
        if self.alias == NO_DB_ALIAS or not options:
            return None
        pools: dict[str, ConnectionPool[Any]] = self._connection_pools  # type: ignore[attr-defined]
        if self.alias not in pools:
            pool: ConnectionPool[Any] = ConnectionPool(
                kwargs=self.get_connection_params() | {"autocommit": True},  # Django properly sets it later on
                open=False,
                configure=self._configure_connection,  # type: ignore[attr-defined]
                check=self._check_pooled,
                **options,
            )
            pools.setdefault(self.alias, pool)
        return pools[self.alias]

    def _check_pooled(self, connection: Connection[Any]) -> None:
        """Raises where the connection is broken; then the others that are idle are as old, and are made anew, too."""
        if not has_something_to_say(connection.fileno()):
            return
        try:
            ConnectionPool.check_connection(connection)
        except Error:
            if (pool := self.pool) is not None:
                pool.drain()
            raise
