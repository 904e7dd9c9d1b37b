"""PostgreSQL on the hot path: prepared statements, on a connection that is out of the pool for one statement alone.

The ledger's statements are long, few and constant. Django's cursors would put the values into the text, which the
client then quotes and the server parses and plans anew for every call. Here a connection prepares each when it first
meets it, and it is run through libpq (:mod:`psycopg.pq`) itself: a cursor would take a third longer.

Every parameter goes over as text of a type that the statement names.
"""

from __future__ import annotations

import re
import select
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from itertools import count
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary

import psycopg
from django.db import connection, connections, utils
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg_pool import PoolTimeout

try:
    from gevent.monkey import is_module_patched

    _SERVED_BY_GEVENT = is_module_patched("select")
except ImportError:
    _SERVED_BY_GEVENT = False
if _SERVED_BY_GEVENT:
    from gevent.event import Event
    from gevent.socket import wait_read, wait_readwrite

_TYPES = {
    **dict.fromkeys(("id", "grant", "worker"), "uuid"),
    **dict.fromkeys(("jti", "kid", "route", "model", "outcome", "zone"), "text"),
    **dict.fromkeys(("stream", "no", "reaping", "estimated", "connected"), "boolean"),
}  # all others are numbers

# The server has forgotten it (somebody said DEALLOCATE ALL, or a pooler in between has changed the server), or a
# migration has changed what it brings ("cached plan must not change result type").
_NOT_AS_PREPARED = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.FeatureNotSupported)

Row = Sequence[Any]


class HotPath:
    """What the policy and the ledger need of PostgreSQL. It takes part in a transaction of Django's.

    Parameters of the statements are written ``%(name)s``.
    """

    def __init__(self) -> None:
        self._prepared: WeakKeyDictionary[psycopg.Connection[Any], dict[str, bytes]] = WeakKeyDictionary()
        self._numbers = count()
        self._turns = _Turns()

    def row(self, sql: str, params: Mapping[str, Any]) -> Row | None:
        """The first row that a statement brings."""
        return self._run(sql, params)[0]

    def change(self, sql: str, params: Mapping[str, Any]) -> int:
        """Run a statement; returns how many rows it changed."""
        return self._run(sql, params)[1]

    def _run(self, sql: str, params: Mapping[str, Any]) -> tuple[Row | None, int]:
        """The first row, and how many there were or were changed.

        On the connection that this greenlet has already (who holds one and waits for another may wait for ever), or on
        a loan. One that breaks does not go back into the pool.
        """
        statement = _statement(sql)
        values = [None if (value := params[name]) is None else str(value) for name in statement.parameters]
        try:
            for known in connections.all(initialized_only=True):
                if known.connection is not None:
                    known.validate_no_broken_transaction()
                    # Prepared, psycopg would drop it with the next rollback, and with it all that _run_on has prepared.
                    cursor = psycopg.RawCursor(known.connection).execute(statement.text, values, prepare=False)
                    return cursor.fetchone() if cursor.description else None, cursor.rowcount
            pool = _pool()
            with self._turns.of(pool) if _SERVED_BY_GEVENT else nullcontext():
                lent = pool.getconn()
                try:
                    return self._run_on(lent, statement, values)
                finally:
                    pool.putconn(lent)
        except psycopg.Error as error:  # as Django names it (PEP 249's names are the same)
            raise _translated(error) from error

    def _run_on(
        self, lent: psycopg.Connection[Any], statement: _Statement, values: list[str | None]
    ) -> tuple[Row | None, int]:
        server, encoded = lent.pgconn, [None if value is None else value.encode() for value in values]
        if lent.prepare_threshold is None:  # behind a pooler that knows no prepared statements
            server.send_query_params(statement.text.encode(), encoded)
            result = _result(server)
        else:
            try:
                result = self._run_prepared(lent, statement, encoded)
            except _NOT_AS_PREPARED:  # it was not run: it can be without anybody's noticing
                self._prepared.pop(lent, None)
                result = self._run_prepared(lent, statement, encoded)
        if result.status != ExecStatus.TUPLES_OK:
            return None, result.command_tuples or 0
        if not result.ntuples:
            return None, 0
        rows = Transformer(lent)
        rows.set_pgresult(result)
        return rows.load_row(0, tuple), result.ntuples

    def _run_prepared(
        self, lent: psycopg.Connection[Any], statement: _Statement, encoded: list[bytes | None]
    ) -> PGresult:
        lent.pgconn.send_query_prepared(self._name(lent, statement), encoded)
        return _result(lent.pgconn)

    def _name(self, lent: psycopg.Connection[Any], statement: _Statement) -> bytes:
        """By what name the connection knows the statement, which is prepared there if it does not."""
        known = self._prepared.setdefault(lent, {})
        name = known.get(statement.text)
        if name is None:
            name = b"aipassport_%d" % next(self._numbers)
            lent.pgconn.send_prepare(name, statement.text.encode())
            _result(lent.pgconn)
            known[statement.text] = name
        return name


class _Turns:
    """As many greenlets at once as the pool has connections, in the order in which they came: ``with turns.of(pool)``.

    It is the pool's own queue over again; that one is made for threads, and costs several times as much.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: deque[Any] = deque()

    def of(self, pool: Any) -> Self:
        """Take a turn.

        Raises:
            PoolTimeout: none came within the pool's own timeout.
        """
        if not self._waiting and self._taken < pool.max_size:
            self._taken += 1
            return self
        turn = Event()
        self._waiting.append(turn)
        try:
            if turn.wait(pool.timeout):
                return self
            raise PoolTimeout(f"couldn't get a connection after {pool.timeout:.2f} sec")
        except BaseException:
            if turn.is_set():  # it came while this greenlet was being ended
                self._pass_on()
            else:
                self._waiting.remove(turn)
            raise

    def __enter__(self) -> None:
        """The turn was taken by :meth:`of`."""

    def __exit__(self, *error: object) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._taken -= 1


def _result(server: PGconn) -> PGresult:
    """What the server answers, once it does; other greenlets run in the meantime.

    Raises:
        psycopg.Error: the statement failed, or the connection broke.
    """
    while server.flush():  # more than the socket takes at once
        _wait(server.socket, writing=True)
        server.consume_input()
    results = []
    while True:
        while server.is_busy():
            _wait(server.socket)
            server.consume_input()
        result = server.get_result()
        if result is None:
            break
        results.append(result)
    if results[-1].status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        raise error_from_result(results[-1])
    return results[-1]


def _wait(descriptor: int, *, writing: bool = False) -> None:
    """Until it can be read, or written, too."""
    if _SERVED_BY_GEVENT:  # its own way in: what it puts in the place of poll makes a timer, too
        (wait_readwrite if writing else wait_read)(descriptor)
    else:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | (select.POLLOUT if writing else 0))
        poll.poll()


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


class _Statement(NamedTuple):
    """``text`` has ``$1::type`` for ``%(name)s``, ``parameters`` the names in the order of the numbers."""

    text: str
    parameters: tuple[str, ...]


@cache
def _statement(sql: str) -> _Statement:
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}::{_TYPES.get(name, 'bigint')}"

    return _Statement(re.sub(r"%\((\w+)\)s", number, sql), tuple(names))
