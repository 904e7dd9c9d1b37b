"""Statements to PostgreSQL by libpq (:mod:`psycopg.pq`) itself: prepared once on each connection, many in one pipeline.

The ledger's statements are long, few and constant. Django's cursors would put the values into the text, which the
client then quotes and the server parses and plans anew for every call. Here a connection prepares each when it first
meets it. A cursor of psycopg's would take a third longer.

Every parameter goes over as text of a type that the statement names.
"""

from __future__ import annotations

import hashlib
import re
import select
from collections.abc import Sequence
from functools import cache
from itertools import count
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

try:
    from gevent.monkey import is_module_patched

    SERVED_BY_GEVENT = is_module_patched("select")
except ImportError:
    SERVED_BY_GEVENT = False
if SERVED_BY_GEVENT:
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


class Statement(NamedTuple):
    """``text`` has ``$1::type`` for ``%(name)s``, ``parameters`` the names in the order of the numbers."""

    text: str
    parameters: tuple[str, ...]
    digest: str


class Job(NamedTuple):
    statement: Statement
    values: Values


@cache
def statement_of(sql: str) -> Statement:
    names: list[str] = []

    def number(found: re.Match[str]) -> str:
        name = found[1]
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}::{_TYPES.get(name, 'bigint')}"

    text = re.sub(r"%\((\w+)\)s", number, sql)
    return Statement(text, tuple(names), hashlib.sha256(text.encode()).hexdigest()[:16])


class Wire:
    """What connections have prepared, and how statements go over them."""

    def __init__(self) -> None:
        self._prepared: WeakKeyDictionary[psycopg.Connection[Any], dict[str, bytes]] = WeakKeyDictionary()
        self._numbers = count()

    def run(self, lent: psycopg.Connection[Any], jobs: Sequence[Job]) -> list[Result]:
        """Run the statements in one transaction. For each: the first row, and how many there were or were changed.

        Raises:
            psycopg.Error: with an ``sqlstate`` one of them failed, and nothing has happened; without one the
                connection broke, and nobody knows.
        """
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

    def _run_on(self, lent: psycopg.Connection[Any], statement: Statement, values: Values) -> Result:
        if lent.prepare_threshold is None:  # behind a pooler that knows no prepared statements
            lent.pgconn.send_query_params(statement.text.encode(), _encoded(values))
            return _read(lent, _result(lent.pgconn))
        try:
            return _read(lent, self._run_prepared(lent, statement, _encoded(values)))
        except _NOT_AS_PREPARED:  # it was not run: it can be without anybody's noticing
            self._prepared.pop(lent, None)
            return _read(lent, self._run_prepared(lent, statement, _encoded(values)))

    def _run_prepared(
        self, lent: psycopg.Connection[Any], statement: Statement, encoded: list[bytes | None]
    ) -> PGresult:
        lent.pgconn.send_query_prepared(self._name(lent, statement), encoded)
        return _result(lent.pgconn)

    def _name(self, lent: psycopg.Connection[Any], statement: Statement) -> bytes:
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
    if SERVED_BY_GEVENT:  # its own way in: what it puts in the place of poll makes a timer, too
        (wait_readwrite if writing else wait_read)(descriptor)
    else:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | (select.POLLOUT if writing else 0))
        poll.poll()
