"""PostgreSQL on the hot path: prepared statements, many in one transaction, on a connection that is lent for just that.

The ledger's statements are long, few and constant. Django's cursors would put the values into the text, which the
client then quotes and the server parses and plans anew for every call. Here a connection prepares each when it first
meets it, and it is run through libpq (:mod:`psycopg.pq`) itself: a cursor would take a third longer.

Every parameter goes over as text of a type that the statement names.

PostgreSQL holds a row until the commit is flushed, so those who want the same one would wait for one another there,
each with a connection of the pool, and look at the row anew whenever they wake: that doubles what a call costs. Here
they wait in a *lane*, and all that wait in it go over together, in libpq's pipeline: one round trip, one flush.
"""

from __future__ import annotations

import hashlib
import re
import select
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from django.db import connection, connections, utils
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg.adapt import Transformer
from psycopg.errors import LockNotAvailable, QueryCanceled, error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg_pool import PoolTimeout

from .groupcommit import GroupCommit

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

_FINE = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)

Row = Sequence[Any]
Result = tuple[Row | None, int]
Values = list[str | None]


class _Statement(NamedTuple):
    """``text`` has ``$1::type`` for ``%(name)s``, ``parameters`` the names in the order of the numbers."""

    text: str
    parameters: tuple[str, ...]
    digest: str


class _Job(NamedTuple):
    statement: _Statement
    values: Values


class HotPath:
    """What the policy and the ledger need of PostgreSQL. It takes part in a transaction of Django's.

    Parameters of the statements are written ``%(name)s``. ``lane``: what row a statement locks; whatever has the same
    one waits here, and is committed together. Who only reads of a grant waits for those who do the same.
    """

    def __init__(self) -> None:
        self._prepared: WeakKeyDictionary[psycopg.Connection[Any], dict[str, bytes]] = WeakKeyDictionary()
        self._numbers = count()
        self.turns = _Turns()
        self._lanes: dict[Any, _Lane] = {}  # those that somebody is in
        self.transactions = self.statements = 0  # for whoever watches

    @property
    def waiting(self) -> int:
        """Statements that wait in their lanes."""
        return sum(lane.waiting for lane in list(self._lanes.values()))

    def row(self, sql: str, params: Mapping[str, Any], lane: Any = None) -> Row | None:
        """The first row that a statement brings; without a ``lane`` it locks none."""
        return self._run(sql, params, lane or ("reads", params.get("grant")))[0]

    def change(self, sql: str, params: Mapping[str, Any], lane: Any) -> int:
        """Run a statement; returns how many rows it changed."""
        return self._run(sql, params, lane)[1]

    def _run(self, sql: str, params: Mapping[str, Any], lane: Any) -> Result:
        """The first row, and how many there were or were changed.

        On the connection that this greenlet has already (who holds one and waits for another may wait for ever), or in
        its lane.
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
            return self._run_in(lane, _Job(statement, values))
        except psycopg.Error as error:  # as Django names it (PEP 249's names are the same)
            raise _translated(error) from error

    def _run_in(self, name: Any, job: _Job) -> Result:
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes.setdefault(name, _Lane(self))
        try:
            result: Result = lane.commit(job)
            return result
        finally:
            if lane.idle and self._lanes.get(name) is lane:
                self._lanes.pop(name, None)

    def borrow(self) -> psycopg.Connection[Any]:
        """A connection of the pool; must be given back."""
        pool = _pool()
        if not _SERVED_BY_GEVENT:
            lent: psycopg.Connection[Any] = pool.getconn()
            return lent
        self.turns.take(pool)
        try:
            lent = pool.getconn()
        except BaseException:
            self.turns.pass_on()
            raise
        return lent

    def give_back(self, lent: psycopg.Connection[Any]) -> None:
        """One that has broken the pool does not take."""
        try:
            _pool().putconn(lent)
        finally:
            if _SERVED_BY_GEVENT:
                self.turns.pass_on()

    def run(self, lent: psycopg.Connection[Any], jobs: Sequence[_Job]) -> list[Result]:
        """Run the statements in one transaction."""
        self.transactions += 1
        self.statements += len(jobs)
        if len(jobs) == 1:
            return [self._run_on(lent, *jobs[0])]
        named = [self._name(lent, job.statement) for job in jobs] if lent.prepare_threshold is not None else []
        server = lent.pgconn
        server.enter_pipeline_mode()
        try:
            for number, (statement, values) in enumerate(jobs):
                if named:
                    server.send_query_prepared(named[number], _encoded(values))
                else:
                    server.send_query_params(statement.text.encode(), _encoded(values))
            server.pipeline_sync()
            results = _results(server)
            server.exit_pipeline_mode()
        except BaseException:
            lent.close()  # whatever is still to come would be taken for the next one's
            raise
        for result in results:
            if result.status not in _FINE:
                raise error_from_result(result)
        return [_read(lent, result) for result in results]

    def _run_on(self, lent: psycopg.Connection[Any], statement: _Statement, values: Values) -> Result:
        if lent.prepare_threshold is None:  # behind a pooler that knows no prepared statements
            lent.pgconn.send_query_params(statement.text.encode(), _encoded(values))
            return _read(lent, _result(lent.pgconn))
        try:
            return _read(lent, self._run_prepared(lent, statement, _encoded(values)))
        except _NOT_AS_PREPARED:  # it was not run: it can be without anybody's noticing
            self._prepared.pop(lent, None)
            return _read(lent, self._run_prepared(lent, statement, _encoded(values)))

    def _run_prepared(
        self, lent: psycopg.Connection[Any], statement: _Statement, encoded: list[bytes | None]
    ) -> PGresult:
        lent.pgconn.send_query_prepared(self._name(lent, statement), encoded)
        return _result(lent.pgconn)

    def _name(self, lent: psycopg.Connection[Any], statement: _Statement) -> bytes:
        """By what name the connection knows the statement, which is prepared there if it does not.

        The name tells the text, so that behind a pooler that mixes up whose they are none is ever taken for another.
        """
        known = self._prepared.setdefault(lent, {})
        name = known.get(statement.text)
        if name is None:
            name = f"aipassport_{statement.digest}_{next(self._numbers)}".encode()
            lent.pgconn.send_prepare(name, statement.text.encode())
            _result(lent.pgconn)
            known[statement.text] = name
        return name


class _Lane(GroupCommit[_Job, psycopg.Connection[Any]]):
    """Those who want the same row."""

    def __init__(self, hot_path: HotPath) -> None:
        super().__init__()
        self._hot_path = hot_path

    def begin(self) -> psycopg.Connection[Any]:
        return self._hot_path.borrow()

    def run(self, resource: psycopg.Connection[Any], jobs: list[_Job]) -> list[Any]:
        return list(self._hot_path.run(resource, jobs))

    def end(self, resource: psycopg.Connection[Any]) -> None:
        self._hot_path.give_back(resource)

    def alone(self, error: Exception) -> bool:
        """The server has said so; a connection that broke may have committed."""
        return isinstance(error, psycopg.Error) and error.sqlstate is not None and not self.stuck(error)

    def stuck(self, error: Exception) -> bool:
        """Somebody else holds the row."""
        return isinstance(error, (LockNotAvailable, QueryCanceled))


class _Turns:
    """As many greenlets at once as the pool has connections, in the order in which they came.

    It is the pool's own queue over again; that one is made for threads, and costs several times as much.

    ``queued``: how many had to wait; ``waited``: how long, in seconds, all together; ``failed``: who got none in time.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._waiting: deque[Any] = deque()
        self.queued = self.failed = 0
        self.waited = 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, pool: Any) -> None:
        """Must be passed on.

        Raises:
            PoolTimeout: none came within the pool's own timeout.
        """
        if not self._waiting and self._taken < pool.max_size:
            self._taken += 1
            return
        turn = Event()
        self._waiting.append(turn)
        self.queued += 1
        began = time.monotonic()
        try:
            if not turn.wait(pool.timeout):
                self.failed += 1
                raise PoolTimeout(f"couldn't get a connection after {pool.timeout:.2f} sec")
        except BaseException:
            if turn.is_set():  # it came while this greenlet was being ended
                self.pass_on()
            else:
                self._waiting.remove(turn)
            raise
        finally:
            self.waited += time.monotonic() - began

    def pass_on(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._taken -= 1


def _result(server: PGconn) -> PGresult:
    """What the server answers, once it does; other greenlets run in the meantime.

    Raises:
        psycopg.Error: the statement failed, or the connection broke.
    """
    _send(server)
    results = []
    while (result := _next(server)) is not None:
        results.append(result)
    if results[-1].status not in _FINE:
        raise error_from_result(results[-1])
    return results[-1]


def _results(server: PGconn) -> list[PGresult]:
    """What the server answers to each statement of a pipeline, errors and what was left out for them, too.

    Raises:
        psycopg.OperationalError: the connection broke.
    """
    _send(server)
    results: list[PGresult] = []
    while True:
        result = _next(server)
        if server.status != ConnStatus.OK:
            raise psycopg.OperationalError("the connection was lost")
        if result is not None and result.status == ExecStatus.PIPELINE_SYNC:
            return results
        if result is not None:  # each statement's results end with a None
            results.append(result)


def _send(server: PGconn) -> None:
    while server.flush():  # more than the socket takes at once
        _wait(server.socket, writing=True)
        server.consume_input()


def _next(server: PGconn) -> PGresult | None:
    while server.is_busy():
        _wait(server.socket)
        server.consume_input()
    return server.get_result()


def _read(lent: psycopg.Connection[Any], result: PGresult) -> Result:
    if result.status != ExecStatus.TUPLES_OK:
        return None, result.command_tuples or 0
    if not result.ntuples:
        return None, 0
    rows = Transformer(lent)
    rows.set_pgresult(result)
    return rows.load_row(0, tuple), result.ntuples


def _encoded(values: Values) -> list[bytes | None]:
    return [None if value is None else value.encode() for value in values]


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


@cache
def _statement(sql: str) -> _Statement:
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}::{_TYPES.get(name, 'bigint')}"

    text = re.sub(r"%\((\w+)\)s", number, sql)
    return _Statement(text, tuple(names), hashlib.sha256(text.encode()).hexdigest()[:16])
