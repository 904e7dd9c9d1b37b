"""What docs/scaling.md calls tested: calls in a table a month, a replica for reports, a failover that the pool follows.

On PostgreSQL servers of the tests' own, whichever database the others run on.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from .callers import Caller
from .clusters import Cluster, cluster
from .instances import Instance
from .live import ROOT, eventually, server
from .test_faults_postgresql import LIMITS, Load, streams

pytestmark = pytest.mark.live

FUNCTIONS = (ROOT / "deploy/partitions.sql").read_text()
PASSWORD = "correct horse battery staple"
# What a later migration may do to the table of calls, by its Django names.
MIGRATION = """
from django.db import connection, models
from grants.models import Call
field = models.IntegerField(null=True); field.set_attributes_from_name("later")
index = models.Index(fields=["later"], name="call_later")
by_model = next(index for index in Call._meta.indexes if index.name == "call_model")
with connection.schema_editor() as editor:
    editor.add_field(Call, field)
    Call._meta.local_fields.append(field)
    editor.add_index(Call, index)
    editor.remove_index(Call, by_model)
    editor.add_index(Call, by_model)
"""
# The plan of a settlement, as a server's prepared statement has it.
EXPLAIN = """
from django.db import connection
from grants import statements
from grants.libpq import statement_of
settle, names, _ = statement_of(statements.PG_SETTLE)
with connection.cursor() as cursor:
    for statement in {before!r}:
        cursor.execute(statement)
    cursor.execute("SET plan_cache_mode = force_generic_plan")
    cursor.execute("PREPARE settle AS " + settle)
    values = {{"id": "'01a20f82-1f7a-7016-bf09-763b5de631af'", "outcome": "'ok'", "used": "1"}}
    flags = dict.fromkeys(("reaping", "estimated", "connected"), "false")
    given = ", ".join((values | flags).get(name, "NULL") for name in names)
    cursor.execute(f"EXPLAIN (COSTS OFF) EXECUTE settle({{given}})")
    print(*(row[0] for row in cursor.fetchall()), sep="\\n")
"""


@pytest.fixture
def copy(request: Any, postgresql: Cluster, instance: Instance) -> Instance:
    """In a database of its own, which the test may do to what it likes."""
    name = f"copy_{len(postgresql.query('SELECT 1 FROM pg_database'))}"
    run(postgresql.url, f"CREATE DATABASE {name} TEMPLATE postgres")
    return instance.on(postgresql.url.removesuffix("postgres") + name)


def run(url: str, *statements: str) -> Any:
    """All of them on one connection; what the last one selects, if it does."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else None


def partitions(url: str) -> dict[str, int]:
    """How many calls each partition holds."""
    rows = run(url, "SELECT tableoid::regclass::text, count(*) FROM grants_call GROUP BY 1")
    return {name.removeprefix("grants_call_"): count for name, count in rows}


def owner(process: Any) -> dict[str, str]:
    """Headers of an owner who signed in there."""
    answer = requests.post(
        f"{process.url}/api/auth/token/", json={"username": "alice", "password": PASSWORD}, timeout=10
    )
    return {"authorization": f"Bearer {answer.json()['access']}"}


def calls(process: Any) -> list[str]:
    """The ids in the list that an owner sees."""
    answer = requests.get(f"{process.url}/api/calls/", headers=owner(process), timeout=10)
    return [call["id"] for call in answer.json()["results"]]


def test_calls_become_partitioned_beside_running_servers(copy: Instance, tmp_path: Path) -> None:
    """And a migration goes over it, a worker's calls are reaped, and purge purges."""
    url = copy.env["DATABASE_URL"]
    _, token = copy.grant(*LIMITS)
    with server(tmp_path / "log", **copy.env, WEB_CONCURRENCY="2") as process:
        opened = streams(process, token, 2, chunks=40)  # two seconds
        load = Load(process, token, 4)
        eventually(lambda: len(load.passed(after=0)) > 20)
        for change in (
            lambda: run(url, FUNCTIONS, "CALL calls_partition()"),
            lambda: copy.manage("shell", "-c", MIGRATION),
        ):
            change()
            changed = time.monotonic()
            eventually(lambda after=changed: len(load.passed(after=after)) > 20, within=10)
        load.stop()
        assert {said.status for said in load.said} == {200}
        assert all(stream.ends() for stream in opened)
        lost = streams(process, token, 1, chunks=100)[0]
        process.kill()
        assert not lost.ends()
    time.sleep(1.1)
    copy.manage("reap", AIPASSPORT_LOST_AFTER="1")
    rows = run(url, "SELECT outcome, count(*) FROM grants_call GROUP BY 1")
    assert dict(rows) == {"ok": len(load.said) + len(opened), "lost": 1}
    assert set(partitions(url)) == {"first"}
    copy.assert_books_balance()
    copy.manage("purge", "--calls-older-than=1s")
    assert run(url, "SELECT count(*) FROM grants_call") == [(0,)]
    copy.assert_books_balance()


def test_a_month_is_dropped_and_its_sums_stay(copy: Instance, tmp_path: Path) -> None:
    """The first calls are made two months old, and the conversion believes that it happens then."""
    url = copy.env["DATABASE_URL"]
    _, token = copy.grant(*LIMITS)
    past = """CREATE SCHEMA past; CREATE FUNCTION past.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS
        $$ SELECT pg_catalog.clock_timestamp() - interval '2 months' $$"""
    age = """UPDATE grants_call SET id = CAST(left(CAST(calls_id_at(past.clock_timestamp()) AS text), 13) ||
        right(CAST(id AS text), 23) AS uuid)"""
    with server(tmp_path / "log", **copy.env) as process:
        caller = Caller(process, token)
        assert {caller.ask().status for _ in range(6)} == {200}
        then = "SET search_path = public, past, pg_catalog"
        run(
            url, FUNCTIONS, past, age, then, "CALL calls_partition()", "RESET search_path", "SELECT calls_add_months(3)"
        )
        assert {caller.ask().status for _ in range(4)} == {200}
        month = time.strftime("%Y_%m", time.gmtime())
        assert partitions(url) == {"first": 6, month: 4}
        before = calls(process)
        assert before == sorted(before, reverse=True)
        assert len(before) == 10
        for name in (month, "default"):
            with pytest.raises(psycopg.errors.RaiseException, match="not over"):
                run(url, f"SELECT calls_drop('grants_call_{name}')")
        assert run(url, "SELECT calls_drop('grants_call_first')") == [(6,)]
        assert calls(process) == before[:4]
        assert caller.ask().status == 200
    sums = "SELECT sum(calls), sum(purged_calls), sum(cost) > sum(purged_cost) FROM grants_dailytotal"
    assert run(url, sums) == [(11, 6, True)]
    copy.assert_books_balance()


def test_settlement_looks_for_a_call_in_one_partition(copy: Instance) -> None:
    """Planned for any call (as it is for most), it names all partitions and looks into one."""
    url = copy.env["DATABASE_URL"]
    plan = copy.manage("shell", "-c", EXPLAIN.format(before=(FUNCTIONS, "CALL calls_partition()")))
    looked = [line for line in plan.splitlines() if " on grants_call_" in line and "Update on" not in line]
    assert len(looked) == 2, plan  # the lock, and the change
    assert plan.count("Subplans Removed: 4") == 2, plan
    assert run(url, "SELECT count(*) FROM grants_call") == [(0,)]


def test_a_replica_answers_reports_and_nothing_else(
    postgresql: Cluster, instance: Instance, upstream: Any, tmp_path: Path
) -> None:
    _, token = instance.grant(*LIMITS)
    with server(tmp_path / "log", **instance.env) as process, cluster(postgresql) as standby:
        assert {Caller(process, token).ask().status for _ in range(5)} == {200}
        headers = owner(process)
        standby.follows(postgresql)
        replica = instance.on(standby.url)
        replica.assert_books_balance()
        with server(tmp_path / "replica", **replica.env) as reports:
            for path in ("calls/", "calls.csv", "totals/?by=grant,model,day", "grants/"):
                said = [
                    requests.get(f"{one.url}/api/{path}", headers=headers, timeout=10) for one in (process, reports)
                ]
                assert [answer.status_code for answer in said] == [200, 200]
                assert said[0].content == said[1].content
            before = len(upstream.seen)
            refused = Caller(reports, token).ask()
            assert (refused.status, refused.code) == (503, "unavailable")
            assert len(upstream.seen) == before


def test_servers_follow_a_failover(postgresql: Cluster, instance: Instance, tmp_path: Path) -> None:
    """The standby has every commit before the caller knows of it, so nothing is lost with the primary."""
    grant, token = instance.grant(*LIMITS)
    with cluster(postgresql) as standby:
        run(postgresql.url, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        postgresql.until("SELECT sync_state = 'sync' FROM pg_stat_replication")
        hosts = f"127.0.0.1:{postgresql.port},127.0.0.1:{standby.port}"
        both = instance.on(f"postgres://postgres@{hosts}/postgres?target_session_attrs=read-write")
        patience = {"WEB_CONCURRENCY": "2", "AIPASSPORT_DATABASE_POOL_TIMEOUT": "1"}
        with server(tmp_path / "log", **both.env, **patience) as process:
            opened = streams(process, token, 4, chunks=80)  # four seconds
            load = Load(process, token, 6)
            eventually(lambda: len(load.passed(after=0)) > 20)
            postgresql.stop("immediate")
            gone = time.monotonic()
            standby.promote()
            eventually(lambda: len(load.passed(after=gone)) > 20, within=15)
            assert all(stream.ends() for stream in opened)
            load.stop()
            standby.until("SELECT count(*) = 0 FROM grants_call WHERE finished_at IS NULL", within=15)
        assert {said.status for said in load.said} <= {200, 503}
        answered = sum(said.status == 200 for said in load.said) + len(opened)
        found = standby.query(f"SELECT count(*) FROM grants_call WHERE grant_id = '{grant}' AND outcome = 'ok'")
        assert found == [(answered,)]
        both.assert_books_balance()
