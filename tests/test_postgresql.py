"""PostgreSQL's hot path: statements are prepared once on each connection, or never; those who want the same row go
together; errors are as Django names them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, DataError, OperationalError, connection, transaction

from aipassport.postgresql.options import connecting
from grants.pace import release_connection
from grants.policy import hot_path as shared  # the one of this process: two would give the same names on one connection

pytestmark = [pytest.mark.skipif(connection.vendor != "postgresql", reason="of PostgreSQL"), pytest.mark.django_db]
if connection.vendor == "postgresql":
    from grants.libpq import Job, Wire, statement_of
    from grants.postgresql import HotPath

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


def run(wire: Any, lent: psycopg.Connection[Any], sql: str, *values: str | None) -> Any:
    [answer] = wire.run(lent, [Job(statement_of(sql), list(values))])
    return answer


def prepared(lent: psycopg.Connection[Any]) -> int:
    row = lent.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.parametrize(("given", "threshold"), [({}, 5), ({"prepare_threshold": "None"}, None)])
def test_statements_are_prepared_unless_the_database_s_url_says_otherwise(given: Any, threshold: int | None) -> None:
    assert connecting(given, pool_size=4, pool_timeout=5.0)["prepare_threshold"] == threshold


def test_a_statement_is_prepared_once_on_each_connection(connect: Any) -> None:
    wire, one, other = Wire(), connect(), connect()
    for lent in (one, other, one):
        assert run(wire, lent, NEXT, "41") == ((42, "a"), 1)
    assert (prepared(one), prepared(other)) == (1, 1)


def test_none_is_prepared_where_a_pooler_would_not_know_it(connect: Any) -> None:
    lent = connect(None)
    assert run(Wire(), lent, NEXT, "41") == ((42, "a"), 1)
    assert prepared(lent) == 0


def test_on_a_connection_that_a_pooler_shares_no_statement_is_taken_for_another(connect: Any) -> None:
    """Workers count their statements each for itself: what one calls its first must not be the other's first."""
    lent, times = connect(), "SELECT %(number)s * 2, 'b'"
    one, other = Wire(), Wire()
    assert run(one, lent, NEXT, "41") == ((42, "a"), 1)
    assert run(other, lent, times, "41") == ((82, "b"), 1)
    assert run(one, lent, NEXT, "41") == ((42, "a"), 1)


def test_what_the_server_has_forgotten_is_prepared_anew_and_nobody_notices(connect: Any) -> None:
    wire, lent = Wire(), connect()
    run(wire, lent, NEXT, "1")
    lent.execute("DEALLOCATE ALL")
    assert run(wire, lent, NEXT, "1") == ((2, "a"), 1)
    assert prepared(lent) == 1


def test_a_statement_whose_table_has_changed_is_prepared_anew_and_nobody_notices(connect: Any) -> None:
    wire, lent, everything = Wire(), connect(), "SELECT * FROM things WHERE n = %(number)s"
    lent.execute("CREATE TEMPORARY TABLE things AS SELECT 1 AS n")
    run(wire, lent, everything, "1")
    lent.execute("ALTER TABLE things ADD COLUMN more text")
    assert run(wire, lent, everything, "1") == ((1, None), 1)


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
    wire, lent = Wire(), connect()
    assert run(wire, lent, "SELECT 1 WHERE %(number)s > 1", "1") == (None, 0)
    assert run(wire, lent, NEXT, None) == ((None, "a"), 1)
    lent.execute("CREATE TEMPORARY TABLE things (n bigint)")
    assert run(wire, lent, "INSERT INTO things SELECT generate_series(1, %(number)s)", "3") == (None, 3)


def test_more_than_a_socket_takes_at_once_goes_over_whole(connect: Any) -> None:
    text = "ä" * 20_000_000
    assert run(Wire(), connect(), "SELECT length(%(model)s)", text) == ((20_000_000,), 1)


def test_errors_are_raised_and_leave_the_connection_usable(connect: Any) -> None:
    wire, lent = Wire(), connect()
    with pytest.raises(psycopg.errors.DivisionByZero):
        run(wire, lent, "SELECT 1 / %(number)s", "0")
    assert run(wire, lent, NEXT, "1") == ((2, "a"), 1)


def test_a_connection_that_the_server_ends_is_an_operational_error(connect: Any) -> None:
    wire, lent, other = Wire(), connect(), connect()
    run(wire, lent, NEXT, "1")
    other.execute("SELECT pg_terminate_backend(%s)", [lent.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        run(wire, lent, NEXT, "1")
    assert lent.pgconn.transaction_status == psycopg.pq.TransactionStatus.UNKNOWN  # no pool takes it back


# Many in one transaction


def together(wire: Any, lent: psycopg.Connection[Any], *jobs: tuple[str, str]) -> Any:
    return wire.run(lent, [Job(statement_of(sql), [value]) for sql, value in jobs])


ADD = "INSERT INTO things VALUES (%(number)s) RETURNING n"
DIVIDE = "SELECT 1 / %(number)s"


@pytest.mark.parametrize("threshold", [5, None], ids=["prepared", "not prepared"])
def test_what_goes_together_is_answered_in_its_order_and_committed_once(connect: Any, threshold: int | None) -> None:
    wire, lent = Wire(), connect(threshold)
    lent.execute("CREATE TEMPORARY TABLE things (n bigint)")
    jobs = [(ADD, "7"), (NEXT, "41"), ("SELECT 1 WHERE %(number)s > 1", "1"), (ADD, "8")]
    for _ in range(3):
        assert together(wire, lent, *jobs) == [((7,), 1), ((42, "a"), 1), (None, 0), ((8,), 1)]
    rows = lent.execute("SELECT count(*), count(DISTINCT xmin::text) FROM things").fetchone()
    assert rows == (6, 3)
    assert prepared(lent) == (3 if threshold else 0)


def test_of_what_goes_together_nothing_has_happened_where_one_fails(connect: Any) -> None:
    wire, lent = Wire(), connect()
    lent.execute("CREATE TEMPORARY TABLE things (n bigint)")
    with pytest.raises(psycopg.errors.DivisionByZero):
        together(wire, lent, (ADD, "7"), (DIVIDE, "0"), (ADD, "8"))
    assert lent.execute("SELECT * FROM things").fetchall() == []
    assert together(wire, lent, (ADD, "7"), (ADD, "8")) == [((7,), 1), ((8,), 1)]


def test_many_megabytes_each_way_go_together(connect: Any) -> None:
    """Neither side waits for the other to read."""
    text = "x" * 5_000_000
    answers = together(Wire(), connect(), *[("SELECT %(model)s", text)] * 6)
    assert answers == [((text,), 1)] * 6


def test_a_connection_that_ends_while_many_go_is_an_operational_error_and_no_pool_takes_it_back(connect: Any) -> None:
    wire, lent, other = Wire(), connect(), connect()
    pid = lent.info.backend_pid
    ending = threading.Timer(0.3, lambda: other.execute("SELECT pg_terminate_backend(%s)", [pid]))
    ending.start()
    with pytest.raises(psycopg.OperationalError):
        together(wire, lent, (NEXT, "1"), ("SELECT pg_sleep(%(number)s)", "5"), (NEXT, "1"))
    ending.join()
    assert lent.pgconn.transaction_status == psycopg.pq.TransactionStatus.UNKNOWN


# In lanes


_BLOCKED = "FROM pg_stat_activity WHERE datname = current_database() AND %s IN (wait_event_type, wait_event)"


class Lanes:
    """A hot path whose every loan is a connection of its own, and those who ask it, each in a thread.

    ``foreign`` holds the one row of a table, for as long as it likes.
    """

    def __init__(self, connect: Callable[[], psycopg.Connection[Any]]) -> None:
        self.hot_path = HotPath()
        self.loans = 0
        self.patience = 20  # seconds
        self.said: dict[str, Any] = {}
        self.foreign = connect()
        self.watcher = connect()  # a transaction sees the server's activity as it first was
        self.foreign.execute("CREATE TABLE lanes (n bigint)")
        self.foreign.execute("INSERT INTO lanes VALUES (0)")
        self._connect = connect
        self._threads: dict[str, threading.Thread] = {}
        self.hot_path.borrow = self._borrow
        self.hot_path.give_back = lambda lent: lent.close()

    def _borrow(self) -> psycopg.Connection[Any]:
        self.loans += 1
        lent = self._connect()
        lent.execute(f"SET lock_timeout = '{self.patience}s'")
        return lent

    def hold(self) -> None:
        """``foreign`` takes the row, and the first of its lane waits for it at the database."""
        self.foreign.execute("BEGIN")
        self.foreign.execute("UPDATE lanes SET n = n")
        self.ask("first", RAISE, 1, "hot")
        self.until_blocked()

    def ask(self, name: str, sql: str, number: int, lane: str | None = None) -> None:
        def work() -> None:
            try:
                self.said[name] = self.hot_path.row(sql, {"number": number}, lane)
            except DatabaseError as error:
                self.said[name] = type(error)

        self._threads[name] = thread = threading.Thread(target=work)
        thread.start()

    def until_waiting(self, lane: str, many: int) -> None:
        deadline = time.monotonic() + 10
        while self.hot_path._lanes[lane].waiting < many:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def until_blocked(self, by: str = "Lock") -> None:
        """Somebody waits at the database, for what ``foreign`` holds or another event."""
        deadline = time.monotonic() + 10
        while self.watcher.execute(f"SELECT count(*) {_BLOCKED}", [by]).fetchone() == (0,):
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def done(self, *names: str) -> dict[str, Any]:
        """What they were told, or all, once they were."""
        for name in names or self._threads:
            self._threads[name].join(20)
            assert not self._threads[name].is_alive()
        return dict(self.said)


@pytest.fixture
def lanes(connect: Any) -> Iterator[Lanes]:
    made = Lanes(connect)
    yield made
    made.foreign.execute("DROP TABLE lanes")


RAISE = "UPDATE lanes SET n = n + %(number)s RETURNING n, xmin::text"
SLEEP = "SELECT pg_sleep(20 * %(number)s)"
FAIL = "UPDATE lanes SET n = n + 1 / %(number)s RETURNING n, xmin::text"


def test_those_who_want_one_row_wait_here_and_go_together(lanes: Lanes) -> None:
    lanes.hold()
    for number in range(20):
        lanes.ask(f"later {number}", RAISE, 1, "hot")
    lanes.until_waiting("hot", 20)
    lanes.foreign.execute("COMMIT")
    said = lanes.done()
    assert sorted(n for n, _ in said.values()) == list(range(1, 22)), "each has its own answer"
    assert sorted(Counter(commit for _, commit in said.values()).values()) == [1, 20]
    assert lanes.loans == 2
    assert not lanes.hot_path._lanes, "none is kept that nobody is in"


def test_a_row_that_somebody_holds_keeps_one_connection_and_all_others_go_on(lanes: Lanes) -> None:
    lanes.hold()
    for number in range(9):
        lanes.ask(f"hot {number}", RAISE, 1, "hot")
    others = ("one", "two", None)
    for lane in others:
        lanes.ask(str(lane), NEXT, 41, lane)
    assert lanes.done(*map(str, others)) == dict.fromkeys(map(str, others), (42, "a"))
    assert lanes.loans == 4
    lanes.foreign.execute("ROLLBACK")
    assert len(lanes.done()) == 13


def test_who_waits_for_such_a_row_is_told_so_in_the_time_of_one(lanes: Lanes) -> None:
    """Not one after the other, each after a timeout of its own."""
    lanes.patience = 1
    lanes.hold()
    began = time.monotonic()
    for number in range(50):
        lanes.ask(f"later {number}", RAISE, 1, "hot")
    lanes.until_waiting("hot", 33)  # more than go at once
    assert set(lanes.done().values()) == {OperationalError}
    assert time.monotonic() - began < 5
    lanes.foreign.execute("ROLLBACK")
    assert lanes.foreign.execute("SELECT n FROM lanes").fetchone() == (0,)


def test_of_those_who_go_together_who_is_to_blame_fails_alone(lanes: Lanes) -> None:
    lanes.hold()
    for number in range(5):
        lanes.ask(f"good {number}", RAISE, 1, "hot")
    lanes.ask("bad", FAIL, 0, "hot")
    lanes.until_waiting("hot", 6)
    lanes.foreign.execute("COMMIT")
    said = lanes.done()
    assert said.pop("bad") is DataError
    assert sorted(n for n, _ in said.values()) == [1, 2, 3, 4, 5, 6]


def test_where_the_connection_ends_nobody_who_went_is_run_again(lanes: Lanes) -> None:
    """It may have been committed. Who came later goes by a new one."""
    lanes.hold()
    for number, (name, sql) in enumerate([("before", RAISE), ("sleeper", SLEEP), ("after", RAISE)], start=1):
        lanes.ask(name, sql, 1, "hot")
        lanes.until_waiting("hot", number)
    lanes.foreign.execute("COMMIT")
    lanes.until_blocked("PgSleep")
    lanes.ask("later", RAISE, 1, "hot")
    lanes.until_waiting("hot", 1)
    lanes.watcher.execute(f"SELECT pg_terminate_backend(pid) {_BLOCKED}", ["PgSleep"])
    said = lanes.done()
    assert [said[name] for name in ("before", "sleeper", "after")] == [OperationalError] * 3
    assert (said["first"][0], said["later"][0]) == (1, 2)
    assert lanes.hot_path.transactions == 3


_TURNS = """
from gevent import monkey; monkey.patch_all()
import gevent, types
from django.conf import settings; settings.configure()
from grants.postgresql import _Turns
from psycopg_pool import PoolTimeout

turns, pool, came = _Turns(), types.SimpleNamespace(max_size=2, timeout=0.3), []

def ask(name, seconds):
    try:
        turns.take(pool)
    except PoolTimeout:
        came.append(f"{name} none")
        return
    came.append(name)
    gevent.sleep(seconds)
    turns.pass_on()

asking = [gevent.spawn(ask, *one) for one in (("a", 0.1), ("b", 1), ("c", 1), ("d", 0), ("killed", 0))]
gevent.sleep(0.05)
print(turns.waiting)
asking[-1].kill()
gevent.joinall(asking, raise_error=True)
print(*came, turns.waiting, turns._taken)
print(turns.queued, turns.failed, round(turns.waited, 1))
"""


def test_greenlets_get_connections_in_their_order_and_who_waits_is_counted() -> None:
    done = subprocess.run([sys.executable, "-c", _TURNS], capture_output=True, text=True, check=False)
    waiting, came, counted = done.stdout.splitlines() or [done.stderr]
    assert (waiting, came) == ("3", "a b c d none 0 0")
    queued, failed, waited = counted.split()
    assert (queued, failed) == ("3", "1")
    assert 0.3 <= float(waited) < 3  # c 0.1, d 0.3, killed 0.05
