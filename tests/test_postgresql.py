"""Statements on PostgreSQL's hot path: prepared once on each connection, or never; errors as Django names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection, transaction

from aipassport.postgresql.options import connecting
from grants.pace import release_connection
from grants.policy import hot_path as shared  # the one of this process: two would give the same names on one connection

pytestmark = [pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL"), pytest.mark.django_db]
if connection.vendor == "postgresql":
    from grants.postgresql import HotPath, _statement

NEXT = "SELECT %(number)s + 1, 'a'"


@pytest.fixture
def connect(db: Any) -> Iterator[Any]:
    """Makes a connection to the tests' database as a pool would."""
    opened = []

    def connect(threshold: int | None = 5) -> psycopg.Connection[Any]:
        options = {**connection.get_connection_params(), "prepare_threshold": threshold, "autocommit": True}
        opened.append(psycopg.connect(**options))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def run(hot_path: Any, lent: psycopg.Connection[Any], sql: str, *values: str | None) -> Any:
    return hot_path._run_on(lent, _statement(sql), list(values))


def prepared(lent: psycopg.Connection[Any]) -> int:
    row = lent.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(("given", "threshold"), [({}, 5), ({"prepare_threshold": "None"}, None)])
def test_statements_are_prepared_unless_the_database_s_url_says_otherwise(given: Any, threshold: int | None) -> None:
    assert connecting(given, pool_size=4, pool_timeout=5.0)["prepare_threshold"] == threshold


def test_a_statement_is_prepared_once_on_each_connection(connect: Any) -> None:
    hot_path, one, other = HotPath(), connect(), connect()
    for lent in (one, other, one):
        assert run(hot_path, lent, NEXT, "41") == ((42, "a"), 1)
    assert (prepared(one), prepared(other)) == (1, 1)


def test_none_is_prepared_where_a_pooler_would_not_know_it(connect: Any) -> None:
    lent = connect(None)
    assert run(HotPath(), lent, NEXT, "41") == ((42, "a"), 1)
    assert prepared(lent) == 0


def test_what_the_server_has_forgotten_is_prepared_anew_and_nobody_notices(connect: Any) -> None:
    hot_path, lent = HotPath(), connect()
    run(hot_path, lent, NEXT, "1")
    lent.execute("DEALLOCATE ALL")
    assert run(hot_path, lent, NEXT, "1") == ((2, "a"), 1)
    assert prepared(lent) == 1


def test_a_statement_whose_table_has_changed_is_prepared_anew_and_nobody_notices(connect: Any) -> None:
    hot_path, lent, everything = HotPath(), connect(), "SELECT * FROM things WHERE n = %(number)s"
    lent.execute("CREATE TEMPORARY TABLE things AS SELECT 1 AS n")
    run(hot_path, lent, everything, "1")
    lent.execute("ALTER TABLE things ADD COLUMN more text")
    assert run(hot_path, lent, everything, "1") == ((1, None), 1)


@pytest.mark.django_db(transaction=True)
def test_what_others_roll_back_on_a_pooled_connection_takes_no_statement_from_it() -> None:
    """psycopg, where it has prepared anything itself, then drops all that is prepared."""

    def borrow() -> psycopg.Connection[Any]:
        with connection.cursor():
            return connection.connection

    def answers() -> list[Any]:
        """From every connection of the pool, in turn."""
        release_connection()
        return [shared.row(NEXT, {"number": 41}) for _ in range(8)]

    before = answers()
    for _ in range(8):
        with pytest.raises(RuntimeError), transaction.atomic():
            for _ in range(10):
                assert shared.row(NEXT, {"number": 41}) == (42, "a")
            known = prepared(borrow())
            raise RuntimeError
        assert prepared(borrow()) == known
        release_connection()
    assert answers() == before


def test_no_row_and_null_and_a_change_are_what_they_are(connect: Any) -> None:
    hot_path, lent = HotPath(), connect()
    assert run(hot_path, lent, "SELECT 1 WHERE %(number)s > 1", "1") == (None, 0)
    assert run(hot_path, lent, NEXT, None) == ((None, "a"), 1)
    lent.execute("CREATE TEMPORARY TABLE things (n bigint)")
    assert run(hot_path, lent, "INSERT INTO things SELECT generate_series(1, %(number)s)", "3") == (None, 3)


def test_more_than_a_socket_takes_at_once_goes_over_whole(connect: Any) -> None:
    text = "ä" * 20_000_000
    assert run(HotPath(), connect(), "SELECT length(%(model)s)", text) == ((20_000_000,), 1)


def test_errors_are_raised_and_leave_the_connection_usable(connect: Any) -> None:
    hot_path, lent = HotPath(), connect()
    with pytest.raises(psycopg.errors.DivisionByZero):
        run(hot_path, lent, "SELECT 1 / %(number)s", "0")
    assert run(hot_path, lent, NEXT, "1") == ((2, "a"), 1)


def test_a_connection_that_the_server_ends_is_an_operational_error(connect: Any) -> None:
    hot_path, lent, other = HotPath(), connect(), connect()
    run(hot_path, lent, NEXT, "1")
    other.execute("SELECT pg_terminate_backend(%s)", [lent.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        run(hot_path, lent, NEXT, "1")
    assert lent.pgconn.transaction_status == psycopg.pq.TransactionStatus.UNKNOWN  # no pool takes it back
