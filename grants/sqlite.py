"""SQLite on the hot path: a connection to read and one to write for the process, and one commit for all that wait.

SQLite has one writer and flushes every commit, so all that wait to write are committed together.

Django's own connections are one for each greenlet, that is for each client; making one takes longer than the policy's
SELECT.
"""

from __future__ import annotations

import random
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NoReturn, ParamSpec, TypeVar

from django.db import connection, connections, utils

from .groupcommit import GroupCommit

P = ParamSpec("P")
T = TypeVar("T")
Job = Callable[[Any], T]  # gets a cursor, or a connection: whatever has execute()

LOCK_TIMEOUT = 20.0  # seconds
_CACHE = 2000  # kB of pages
_SOON = 0.1  # seconds in which the other workers' commits are surely over
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


class HotPath(GroupCommit[Job[Any], sqlite3.Connection]):
    """What the policy and the ledger need of SQLite. Inside a transaction of Django's, it takes part in that one."""

    def __init__(self) -> None:
        super().__init__()
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self.commits = self.jobs = 0  # for whoever watches

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
        try:
            result: T = super().commit(job)
        except sqlite3.Error as error:
            _reraise(error)
        return result

    def begin(self) -> sqlite3.Connection:
        time.sleep(0)  # who is ready comes aboard: the fewer the commits, the less each job costs
        if self._writer is None:
            self._writer = _connect()
        patiently(self._writer.execute, "BEGIN IMMEDIATE")
        return self._writer

    def run(self, resource: sqlite3.Connection, jobs: list[Job[Any]]) -> list[Any]:
        raw = _Execute(resource)
        results = [job(raw) for job in jobs]
        resource.execute("COMMIT")
        self.commits += 1
        self.jobs += len(jobs)
        return results

    def end(self, resource: sqlite3.Connection) -> None:
        if resource.in_transaction:
            resource.execute("ROLLBACK")


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
    """A connection as Django's backend makes them, with transactions left to us, and more pages kept."""
    raw: sqlite3.Connection = connection.get_new_connection(connection.get_connection_params())
    raw.isolation_level = None
    raw.execute(f"PRAGMA cache_size = -{_CACHE}")
    return raw


def _in_transaction() -> bool:
    """Whether this greenlet is in one of Django's transactions; does not make it a connection to ask that."""
    return any(known.in_atomic_block for known in connections.all(initialized_only=True))


def _reraise(error: sqlite3.Error) -> NoReturn:
    """As Django names it (PEP 249's names are the same)."""
    raise getattr(utils, type(error).__name__, utils.DatabaseError)(*error.args) from error
