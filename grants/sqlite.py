"""SQLite on the hot path: a connection to read and one to write for the process, and one commit for all that wait.

SQLite has one writer and flushes every commit. So the greenlet that comes first leads: it lets the others queue up,
runs their jobs in one transaction, commits once, tells them, and leaves it to the first of those that came since to
lead. Nobody is answered before the commit, so each job is as durable, and as much one act, as in a transaction of its
own; a job still sees all that the jobs before it did.

Django's own connections are one for each greenlet, that is for each client; making one takes longer than the policy's
SELECT. (PostgreSQL needs none of this: it commits in groups by itself, and its connections come from a pool.)
"""

from __future__ import annotations

import random
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from django.db import connection, connections, utils

P = ParamSpec("P")
T = TypeVar("T")
Job = Callable[[Any], T]  # gets a cursor, or a connection: whatever has execute()

LOCK_TIMEOUT = 20.0  # seconds
_AT_ONCE = 32  # jobs in one transaction: the worker's streams wait for it, a tenth of a millisecond for each
_SOON = 0.1  # seconds in which the other workers' commits are surely over
_ENDED = sqlite3.OperationalError("the greenlet that was to commit this has been ended")
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite3.SQLITE_BUSY_RECOVERY)


def patiently(attempt: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Try again, asleep in between, for as long as somebody else holds the lock.

    SQLite would wait in C and freeze every stream of the worker. For what has done nothing yet when it finds a lock:
    a single statement, or the BEGIN IMMEDIATE of a transaction.
    """
    began = time.monotonic()
    pause = 0.0003
    while True:
        try:
            return attempt(*args, **kwargs)
        except (sqlite3.OperationalError, utils.OperationalError) as error:
            cause = error if isinstance(error, sqlite3.Error) else error.__cause__
            if getattr(cause, "sqlite_errorcode", None) not in _BUSY or time.monotonic() > began + LOCK_TIMEOUT:
                raise
        time.sleep(pause * (0.5 + random.random()))  # noqa: S311  spreads the waiters, no secret
        pause = min(pause * 1.3, 0.002 if time.monotonic() < began + _SOON else 0.01)


class _Queued(Generic[T]):
    """A job on its way. ``error`` is raised in the greenlet that queued it; it goes away with the commit alone.

    ``turn``: held until the job is through, or until it is this greenlet's turn to commit: it ``leads`` then.
    """

    __slots__ = ("error", "job", "leads", "result", "turn")

    def __init__(self, job: Job[T]) -> None:
        self.job = job
        self.leads = False
        self.turn = threading.Lock()
        self.turn.acquire()
        self.result: T | None = None
        self.error: Exception | None = _ENDED


class HotPath:
    """What the policy and the ledger need of SQLite. Inside a transaction of Django's, it takes part in that one."""

    def __init__(self) -> None:
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._queue: deque[_Queued[Any]] = deque()
        self._gate = threading.Lock()  # around the queue and who leads
        self._led = False
        self.commits = self.jobs = 0  # for whoever watches

    @property
    def waiting(self) -> int:
        """Jobs that wait for a commit to begin."""
        return len(self._queue)

    def row(self, sql: str, params: Mapping[str, Any]) -> Sequence[Any] | None:
        """The one row of a SELECT with parameters written ``%(name)s``."""
        if _in_transaction():
            with connection.cursor() as cursor:
                return cursor.execute(sql, params).fetchone()
        if self._reader is None:
            self._reader = _connect()
        try:  # read to its end: an open cursor would pin the database's state of this moment
            rows = patiently(self._reader.execute, _named(sql), params).fetchall()
        except sqlite3.Error as error:
            _reraise(error)
        return rows[0] if rows else None

    def commit(self, job: Job[T]) -> T:
        """Run ``job`` in a transaction and return its result once that is committed.

        The job must be safe to run again after a rollback. Raises whatever it or the commit raised; then nothing of
        it has happened.
        """
        if _in_transaction():
            with connection.cursor() as cursor:
                return job(cursor)
        queued = _Queued(job)
        with self._gate:
            self._queue.append(queued)
            queued.leads, self._led = not self._led, True
        try:
            if not queued.leads:
                queued.turn.acquire()
            if queued.leads:
                self._lead()
        except BaseException:  # this greenlet is being killed: what it wanted is void, the others' is led by the next
            self._forget(queued)
            raise
        finally:
            if queued.leads:
                self._hand_on()
        if isinstance(queued.error, sqlite3.Error):
            _reraise(queued.error)
        if queued.error is not None:
            raise queued.error
        return queued.result  # type: ignore[return-value]

    def _lead(self) -> None:
        """Commit all that wait, and tell them."""
        batch: list[_Queued[Any]] = []
        try:
            time.sleep(0)  # who is ready comes aboard: the fewer the commits, the less each job costs
            self._begin()  # others come while it waits
            batch = self._board(_AT_ONCE)
            self._finish(batch)
        except Exception as error:  # noqa: BLE001  handed to the greenlets that queued the jobs
            if len(batch) > 1:
                self._one_by_one(batch)
            else:  # without a transaction, all that wait for it fail
                batch = batch or self._board(len(self._queue))
                for queued in batch:
                    queued.error = error
        finally:
            for queued in batch:
                queued.turn.release()

    def _one_by_one(self, batch: list[_Queued[Any]]) -> None:
        """All was rolled back: who is to blame fails alone."""
        for queued in batch:
            try:
                self._begin()
                self._finish([queued])
            except Exception as error:  # noqa: BLE001
                queued.error = error

    def _board(self, most: int) -> list[_Queued[Any]]:
        with self._gate:
            return [self._queue.popleft() for _ in range(min(len(self._queue), most))]

    def _forget(self, queued: _Queued[Any]) -> None:
        with self._gate:
            if queued in self._queue:
                self._queue.remove(queued)

    def _hand_on(self) -> None:
        """Whoever has come since and waits the longest leads now."""
        with self._gate:
            self._led = bool(self._queue)
            if self._queue:
                self._queue[0].leads = True
                self._queue[0].turn.release()

    def _begin(self) -> None:
        if self._writer is None:
            self._writer = _connect()
        patiently(self._writer.execute, "BEGIN IMMEDIATE")

    def _finish(self, batch: list[_Queued[Any]]) -> None:
        assert self._writer is not None  # noqa: S101
        raw = _Execute(self._writer)
        try:
            for queued in batch:
                queued.result = queued.job(raw)
            self._writer.execute("COMMIT")
            for queued in batch:
                queued.error = None
            self.commits += 1
            self.jobs += len(batch)
        finally:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")


class _Execute:
    """A raw connection that takes the parameters as Django's cursors do."""

    __slots__ = ("_raw",)

    def __init__(self, raw: sqlite3.Connection) -> None:
        self._raw = raw

    def execute(self, sql: str, params: Mapping[str, Any]) -> sqlite3.Cursor:
        return self._raw.execute(_named(sql), params)


@cache
def _named(sql: str) -> str:
    """``%(name)s`` as sqlite3 writes it: ``:name``. The statements are few and constant."""
    return re.sub(r"%\((\w+)\)s", r":\1", sql)


def _connect() -> sqlite3.Connection:
    """A connection as Django's backend makes them, with transactions left to us."""
    raw: sqlite3.Connection = connection.get_new_connection(connection.get_connection_params())
    raw.isolation_level = None
    return raw


def _in_transaction() -> bool:
    """Whether this greenlet is in one of Django's transactions; does not make it a connection to ask that."""
    return any(known.in_atomic_block for known in connections.all(initialized_only=True))


def _reraise(error: sqlite3.Error) -> NoReturn:
    """As Django names it (PEP 249's names are the same)."""
    raise getattr(utils, type(error).__name__, utils.DatabaseError)(*error.args) from error
