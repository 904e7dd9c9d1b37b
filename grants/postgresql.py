"""PostgreSQL on the hot path: who gets a connection when, and what goes over it together.

PostgreSQL holds a row until the commit is flushed, so those who want the same one would wait for one another there,
each with a connection of the pool, and look at the row anew whenever they wake: that doubles what a call costs. Here
they wait in a *lane*, and all that wait in it go over in one pipeline (:mod:`grants.libpq`): one round trip, one flush.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import psycopg
from django.db import connection, connections, utils
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg.errors import LockNotAvailable, QueryCanceled
from psycopg_pool import PoolTimeout

from .groupcommit import GroupCommit
from .libpq import SERVED_BY_GEVENT, Job, Result, Row, Wire, statement_of

if SERVED_BY_GEVENT:
    from gevent.event import Event


class HotPath:
    """What the policy and the ledger need of PostgreSQL. It takes part in a transaction of Django's.

    Parameters of the statements are written ``%(name)s``. ``lane``: what row a statement locks; whatever has the same
    one waits here, and is committed together. Who only reads of a grant waits for those who do the same.
    """

    def __init__(self) -> None:
        self.turns = _Turns()
        self._wire = Wire()
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
        statement = statement_of(sql)
        values = [None if (value := params[name]) is None else str(value) for name in statement.parameters]
        try:
            for known in connections.all(initialized_only=True):
                if known.connection is not None:
                    known.validate_no_broken_transaction()
                    # Prepared, psycopg would drop it with the next rollback, and with it all that Wire has prepared.
                    cursor = psycopg.RawCursor(known.connection).execute(statement.text, values, prepare=False)
                    return cursor.fetchone() if cursor.description else None, cursor.rowcount
            return self._run_in(lane, Job(statement, values))
        except psycopg.Error as error:  # as Django names it (PEP 249's names are the same)
            raise _translated(error) from error

    def _run_in(self, name: Any, job: Job) -> Result:
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
        if not SERVED_BY_GEVENT:
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
            if SERVED_BY_GEVENT:
                self.turns.pass_on()

    def run(self, lent: psycopg.Connection[Any], jobs: list[Job]) -> list[Result]:
        """Run the statements in one transaction."""
        self.transactions += 1
        self.statements += len(jobs)
        return self._wire.run(lent, jobs)


class _Lane(GroupCommit[Job, psycopg.Connection[Any]]):
    """Those who want the same row."""

    def __init__(self, hot_path: HotPath) -> None:
        super().__init__()
        self._hot_path = hot_path

    def begin(self) -> psycopg.Connection[Any]:
        return self._hot_path.borrow()

    def run(self, resource: psycopg.Connection[Any], jobs: list[Job]) -> list[Result]:
        return self._hot_path.run(resource, jobs)

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
