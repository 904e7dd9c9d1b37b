"""Admission, settlement, reaping: the only writers of counters and calls. Hand-written SQL, parameters only.

**Admission is one statement on one row**: checking, counting and refusing are the same act, so no race can slip
between them. Settlement is exactly once, by ``finished_at IS NULL``. On PostgreSQL each is one data-modifying CTE in
one round trip; SQLite, which has none, runs the same statements under ``BEGIN IMMEDIATE``, all that wait in one commit.

Lock order: Call before Allowance; never two allowance rows in one transaction.

Times are microseconds since the epoch, from the database's clock on PostgreSQL. Money is in nano-dollars.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection
from django.utils import timezone

from .clock import day_number
from .policy import POSTGRESQL, Denied, Policy, db_uuid, hot_path

Outcome = str  # a value of Call.Outcome


@dataclass(frozen=True, slots=True)
class Entry:
    """A call that asks to be admitted. ``bound``: the most it can cost, reserved until it is settled."""

    id: UUID
    jti: str
    kid: str
    worker: UUID
    route: str
    model: str = ""
    stream: bool = False
    counted: bool = True
    bound: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a call ended. ``connected`` is false only where no connection to the provider was made: it is not counted."""

    outcome: Outcome
    status: int | None = None
    first_byte_us: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost: int | None = None
    estimated: bool = False
    connected: bool = True


class Stale(Exception):
    """The policy changed between reading it and the admission: read it again."""


class Full(Denied):
    """A limit of the grant is reached. ``final``: waiting does not help."""

    def __init__(self, code: str, message: str, *, final: bool) -> None:
        super().__init__(code, message)
        self.final = final


# One SET and one WHERE for both databases. `day` only grows: clocks may disagree around midnight.
_ADMIT = """
UPDATE grants_allowance SET
    requests = requests + %(counted)s,
    in_flight = in_flight + 1,
    reserved = reserved + %(bound)s,
    day_requests = CASE WHEN {day} > day THEN %(counted)s ELSE day_requests + %(counted)s END,
    day_spent = CASE WHEN {day} > day THEN 0 ELSE day_spent END,
    day = CASE WHEN {day} > day THEN {day} ELSE day END
WHERE grant_id = %(grant)s AND revision = %(revision)s AND expires_at > {now}
  AND (max_requests IS NULL OR requests < max_requests)
  AND (max_concurrency IS NULL OR in_flight < max_concurrency)
RETURNING day"""
_CALL_COLUMNS = (
    "id, grant_id, worker, jti, kid, route, model, stream, counted, reserved, day, started_at, outcome, estimated"
)
_CALL_VALUES = (
    "%(id)s, %(grant)s, %(worker)s, %(jti)s, %(kid)s, %(route)s, %(model)s, %(stream)s, %(counted)s, %(bound)s, {day}, "
    "{now}, 'open', %(no)s"
)
_NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)"
_TODAY = "CAST(to_char(clock_timestamp() AT TIME ZONE %(zone)s, 'YYYYMMDD') AS integer)"
_CLOCK = _NOW if POSTGRESQL else "%(now)s"  # of statements that both databases run as they are

_PG_ADMIT = (
    f"WITH a AS ({_ADMIT.format(now=_NOW, day=_TODAY)}) "
    f"INSERT INTO grants_call ({_CALL_COLUMNS}) SELECT {_CALL_VALUES.format(now=_NOW, day='a.day')} FROM a"
)
_LITE_ADMIT = _ADMIT.format(now="%(now)s", day="%(today)s")
_LITE_INSERT = f"INSERT INTO grants_call ({_CALL_COLUMNS}) VALUES ({_CALL_VALUES.format(now='%(now)s', day='%(day)s')})"


def admit(policy: Policy, entry: Entry) -> None:
    """Count the call on its grant and open its row, or refuse it: both happen or neither.

    Raises:
        Stale: the policy is not the newest; read it again.
        Full: a limit of the grant is reached.
        Denied: the grant has ended.
    """
    values = {
        "id": db_uuid(entry.id),
        "grant": db_uuid(policy.grant),
        "revision": policy.revision,
        "worker": db_uuid(entry.worker),
        "jti": entry.jti,
        "kid": entry.kid,
        "route": entry.route,
        "model": entry.model[:200],
        "stream": entry.stream,
        "counted": int(entry.counted),
        "bound": entry.bound,
        "no": False,
    }
    admitted = _admit_postgresql(values) if POSTGRESQL else _admit_sqlite(values)
    if not admitted:
        _refuse(policy)


def _admit_postgresql(values: dict[str, Any]) -> bool:
    values["zone"] = timezone.get_current_timezone_name()
    with connection.cursor() as cursor:
        cursor.execute(_PG_ADMIT, values)
        return cursor.rowcount == 1


def _admit_sqlite(values: dict[str, Any]) -> bool:
    def job(cursor: Any) -> bool:
        timed = values | {"now": time.time_ns() // 1000, "today": day_number(timezone.now())}  # no wait before its use
        row = cursor.execute(_LITE_ADMIT, timed).fetchone()
        if row is None:
            return False
        cursor.execute(_LITE_INSERT, timed | {"day": row[0]})
        return True

    return hot_path.commit(job)


def _refuse(policy: Policy) -> None:
    """Say why the admission changed no row."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT revision, expires_at, max_requests, requests, max_concurrency FROM grants_allowance "
            "WHERE grant_id = %s",
            (db_uuid(policy.grant),),
        )
        row = cursor.fetchone()
    if row is None or row[0] != policy.revision:
        raise Stale
    _, expires_at, max_requests, requests, max_concurrency = row
    if max_requests is not None and requests >= max_requests:
        raise Full("request_limit_reached", f"This grant's {max_requests} requests are used up.", final=True)
    if expires_at <= time.time_ns() // 1000:
        raise Denied("grant_expired", "This grant has expired.")
    limit = f"{max_concurrency} calls at a time" if max_concurrency is not None else "calls"
    raise Full("concurrency_limit_reached", f"This grant allows {limit}; wait for one to end.", final=False)


# `old` is the call as it was. A settlement that comes after the reaper's replaces its charge by the difference.
_OPEN = "(finished_at IS NULL OR (reaped_at IS NOT NULL AND NOT %(reaping)s))"
_SETTLE_CALL = """
UPDATE grants_call AS c SET
    finished_at = {now}, reaped_at = CASE WHEN %(reaping)s THEN {now} ELSE NULL END,
    outcome = %(outcome)s, status = %(status)s, first_byte_us = %(first_byte_us)s,
    input_tokens = %(input_tokens)s, output_tokens = %(output_tokens)s, cached_tokens = %(cached_tokens)s,
    cost = %(cost)s, estimated = %(estimated)s,
    counted = CASE WHEN %(connected)s THEN c.counted ELSE 0 END"""
_SETTLE_ALLOWANCE = """
UPDATE grants_allowance AS a SET
    in_flight = a.in_flight - CASE WHEN old.reaped_at IS NULL THEN 1 ELSE 0 END,
    reserved = a.reserved - CASE WHEN old.reaped_at IS NULL THEN old.reserved ELSE 0 END,
    spent = a.spent + %(charge)s - COALESCE(old.cost, 0),
    day_spent = a.day_spent + CASE WHEN a.day = old.day THEN %(charge)s - COALESCE(old.cost, 0) ELSE 0 END,
    requests = a.requests - CASE WHEN %(connected)s THEN 0 ELSE old.counted END,
    day_requests = a.day_requests - CASE WHEN %(connected)s OR a.day <> old.day THEN 0 ELSE old.counted END"""

_PG_SETTLE = (
    "WITH old AS (SELECT id, grant_id, counted, reserved, day, cost, reaped_at FROM grants_call "
    f"WHERE id = %(id)s AND {_OPEN} FOR NO KEY UPDATE), "
    f"done AS ({_SETTLE_CALL.format(now=_NOW)} FROM old WHERE c.id = old.id RETURNING c.id) "
    f"{_SETTLE_ALLOWANCE} FROM old, done WHERE a.grant_id = old.grant_id"
)
_LITE_SETTLE_ALLOWANCE = (
    f"{_SETTLE_ALLOWANCE} FROM grants_call AS old WHERE old.id = %(id)s AND {_OPEN} AND a.grant_id = old.grant_id"
)
_LITE_SETTLE_CALL = _SETTLE_CALL.format(now="%(now)s") + " WHERE c.id = %(id)s"


def settle(call: UUID, settlement: Settlement, *, reaping: bool = False) -> bool:
    """Finish the call's row and give its reservation back, exactly once. Says whether this call did it.

    ``reaping``: on behalf of a worker that fell silent; the worker's own settlement may still come, and wins.
    """
    values = {
        "id": db_uuid(call),
        "reaping": reaping,
        "outcome": settlement.outcome,
        "status": settlement.status,
        "first_byte_us": settlement.first_byte_us,
        "input_tokens": settlement.input_tokens,
        "output_tokens": settlement.output_tokens,
        "cached_tokens": settlement.cached_tokens,
        "cost": settlement.cost,
        "charge": settlement.cost or 0,
        "estimated": settlement.estimated,
        "connected": settlement.connected,
    }
    if POSTGRESQL:
        with connection.cursor() as cursor:
            cursor.execute(_PG_SETTLE, values)
            return cursor.rowcount == 1
    return hot_path.commit(lambda cursor: _settle_sqlite(cursor, values))


def _settle_sqlite(cursor: Any, values: dict[str, Any]) -> bool:
    if cursor.execute(_LITE_SETTLE_ALLOWANCE, values).rowcount != 1:
        return False
    cursor.execute(_LITE_SETTLE_CALL, values | {"now": time.time_ns() // 1000})
    return True


def beat(worker: UUID) -> None:
    """Write the worker's heartbeat. Must have happened before its first admission."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO grants_worker (id, seen_at) VALUES (%(id)s, {_CLOCK}) "
            "ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at",
            {"id": db_uuid(worker), "now": time.time_ns() // 1000},
        )


def reap(*, lost_after: float) -> int:
    """Settle the open calls of workers that were silent for ``lost_after`` seconds. Returns how many.

    What such a call really used nobody knows: its whole reservation is charged, marked as estimated.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT c.id, c.reserved FROM grants_call c WHERE c.finished_at IS NULL AND NOT EXISTS ("
            f"SELECT 1 FROM grants_worker w WHERE w.id = c.worker AND w.seen_at > {_CLOCK} - %(silence)s)",
            {"silence": int(lost_after * 1_000_000), "now": time.time_ns() // 1000},
        )
        lost = cursor.fetchall()
    return sum(
        settle(UUID(str(call)), Settlement(outcome="lost", cost=bound or None, estimated=True), reaping=True)
        for call, bound in lost
    )


_TAKEN_AWAY = """
SELECT c.id FROM grants_call c
JOIN grants_grant g ON g.id = c.grant_id
JOIN grants_allowance a ON a.grant_id = c.grant_id
JOIN grants_providerkey k ON k.id = g.provider_key_id
JOIN auth_user u ON u.id = k.owner_id
LEFT JOIN grants_revokedtoken r ON r.jti = c.jti
LEFT JOIN grants_signingkey s ON s.kid = c.kid
WHERE c.worker = %(worker)s AND c.finished_at IS NULL AND (
    g.revoked_at IS NOT NULL OR a.expires_at <= {now} OR k.disabled_at IS NOT NULL OR NOT u.is_active
    OR r.jti IS NOT NULL OR s.kid IS NULL OR s.retired_at IS NOT NULL)
"""


def taken_away(worker: UUID) -> Iterable[UUID]:
    """The open calls of this worker whose grant, token, signing key, provider key or owner is no longer in force."""
    query = _TAKEN_AWAY.format(now=_CLOCK)
    with connection.cursor() as cursor:
        cursor.execute(query, {"worker": db_uuid(worker), "now": time.time_ns() // 1000})
        return [UUID(str(row[0])) for row in cursor.fetchall()]
