"""Admission, settlement, reaping: the only writers of counters and calls. Hand-written SQL, parameters only.

**Admission is one statement on one row**: checking, counting and refusing are the same act, so no race can slip
between them. Settlement is exactly once, by ``finished_at IS NULL``. On PostgreSQL each is one data-modifying CTE in
one round trip; SQLite, which has none, runs the same statements under ``BEGIN IMMEDIATE``, all that wait in one commit.
The statements themselves stand in ``statements.py``.

Lock order: Call before Allowance before DailyTotal; never two allowance rows in one transaction.

Times are microseconds since the epoch, from the database's clock on PostgreSQL. Money is in nano-dollars.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from uuid import UUID

from django.db import DatabaseError, IntegrityError, connection
from django.utils import timezone

from . import corrections, refusals, statements
from .clock import day_number, moment, two_days_after
from .limits import TOKEN_BURST, Standing
from .pace import release_connection
from .policy import POSTGRESQL, Denied, Policy, db_uuid, hot_path
from .refusals import Full, Stale
from .terms import MAX_MONEY, MAX_RATE

__all__ = ["Admission", "Entry", "Full", "Settlement", "Stale", "admit", "beat", "reap", "settle", "standing"]

logger = logging.getLogger("aipassport.ledger")

Outcome = str  # a value of Call.Outcome

# More than any limit allows: what the databases' 64 bits are given of a larger bound.
_BEYOND = MAX_MONEY + 1
_BEYOND_RATES = MAX_RATE + 1
_ATTEMPTS = 5  # others may end between a refusal and the look at why: there is room then
_MOST_USED = 2 * 10**9  # tokens of one call: more, times its advance, would not fit into 64 bits

# PostgreSQL reads these as abbreviations, for which there is no summer; as time zones they are other names of those.
_NO_ABBREVIATIONS = {
    "CET": "Europe/Brussels",
    "EET": "Europe/Athens",
    "MET": "Europe/Brussels",
    "WET": "Europe/Lisbon",
}


class Entry(NamedTuple):
    """A call that asks to be admitted.

    ``want``: the most it can cost, in nano-dollars, reserved until it is settled; ``least``: as little as it can do
    with, where its output limit can be lowered. ``tokens``: the most that it can use.
    """

    id: UUID
    jti: str
    kid: str
    worker: UUID
    route: str
    model: str = ""
    stream: bool = False
    counted: bool = True
    want: int = 0
    least: int = 0
    tokens: int = 0


class Settlement(NamedTuple):
    """How a call ended. ``connected`` is false only where no connection to the provider was made: it is not counted.

    ``cost`` ``None``: nobody knows; the bound that was reserved is charged then. ``output_limit``: what went out.
    """

    outcome: Outcome
    status: int | None = None
    first_byte_us: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost: int | None = None
    estimated: bool = False
    connected: bool = True
    output_limit: int | None = None

    @property
    def used(self) -> int:
        """Tokens, for the rate; -1 where nobody knows."""
        if self.input_tokens is None and self.output_tokens is None:
            return 0 if self.cost == 0 else -1
        return min((self.input_tokens or 0) + (self.output_tokens or 0), _MOST_USED)


class Admission(NamedTuple):
    """What was reserved for a call, in nano-dollars, and how the grant stands with it."""

    reserved: int
    standing: Standing


def admit(policy: Policy, entry: Entry) -> Admission:
    """Count the call on its grant, reserve its bound and open its row, or refuse it: all happens or nothing.

    Raises:
        Stale: the policy is not the newest; read it again.
        Full: a limit of the grant is reached.
        Denied: the grant has ended.
    """
    limits, tokens = policy.limits, min(entry.tokens, _BEYOND_RATES)
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
        "want": min(entry.want, _BEYOND),
        "least": min(entry.least, _BEYOND),
        "tokens": tokens if limits.tokens_per_minute else 0,
        "request_advance": limits.request_advance,
        "request_tolerance": limits.request_tolerance,
        "token_advance": limits.token_advance(tokens),
        "token_tolerance": TOKEN_BURST,
        "no": False,
    }
    for _ in range(_ATTEMPTS):
        row = _admit_postgresql(policy, values) if POSTGRESQL else _admit_sqlite(policy, values)
        if row is not None:
            now, reserved, _, *rest = row
            return Admission(reserved, Standing(now, *rest))
        stands = standing(policy)
        reason = refusals.reason(policy, stands, least=entry.least, tokens=entry.tokens)
        if reason is not None:
            raise reason
    raise refusals.forestalled(policy, stands)


def _admit_postgresql(policy: Policy, values: dict[str, Any]) -> Any:
    zone = policy.time_zone or timezone.get_default_timezone_name()
    values["zone"] = _NO_ABBREVIATIONS.get(zone, zone)
    return hot_path.row(statements.PG_ADMIT, values, lane=values["grant"])


def _admit_sqlite(policy: Policy, values: dict[str, Any]) -> Any:
    def job(cursor: Any) -> Any:
        timed = values | _clock(policy.time_zone)  # no wait between the clock and its use
        rows = cursor.execute(statements.LITE_ADMIT, timed).fetchall()
        if not rows:
            return None
        _, reserved, refunded, day, *_, tokens_clock, _ = rows[0]
        opened = {"reserved": reserved, "day": day, "tokens_until": tokens_clock + refunded}
        cursor.execute(statements.LITE_INSERT, timed | opened)
        return rows[0]

    return hot_path.commit(job)


def _clock(zone: str = "") -> dict[str, int]:
    """SQLite has no clock of its own."""
    now = time.time_ns() // 1000
    today = day_number(moment(now), zone)
    return {"now": now, "today": today, "last_day": two_days_after(today)}


def database_clock() -> int:
    """The time that the ledger goes by, in microseconds since the epoch."""
    return int(hot_path.row(statements.CLOCK, {})[0]) if POSTGRESQL else time.time_ns() // 1000


def standing(policy: Policy) -> Standing:
    """How the grant stands, where no admission has told it. Corrects what a wrong clock left in its row.

    Raises:
        Stale: the policy is not the newest; read it again.
        Denied: the grant has ended.
    """
    stands = _stands(policy)
    today = day_number(moment(stands.now), policy.time_zone)
    if corrections.needed(stands, policy.limits, today) or _ledger_is_ahead(policy, stands.day, today):
        corrections.correct(policy.grant, database_clock)
        release_connection()
        stands = _stands(policy)
        today = day_number(moment(stands.now), policy.time_zone)
    return stands.on(today)


def _stands(policy: Policy) -> Standing:
    """The counted row as it is, whatever its day."""
    values = {"grant": db_uuid(policy.grant), "now": 0}
    row = hot_path.row(statements.REVISION_AND_STANDING, values)
    if row is None or row[0] != policy.revision:
        raise Stale
    _, expires_at, closed_at, now, *rest = row
    now = now if POSTGRESQL else time.time_ns() // 1000  # of a moment after the row was read
    if expires_at <= now:
        raise Denied("grant_expired", "This grant has expired.")
    if closed_at is not None:
        raise refusals.closed()
    return Standing(now, *rest)


def _ledger_is_ahead(policy: Policy, day: int, today: int) -> bool:
    """Whether the row goes on to a day that the ledger has calls of already."""
    values = {"grant": db_uuid(policy.grant)}
    return 0 < day < today and hot_path.row(statements.LEDGER_IS_AHEAD, values) is not None


def settle(call: UUID, settlement: Settlement, *, grant: UUID | None = None, reaping: bool = False) -> bool:
    """Finish the call's row and give its reservation back, exactly once. Says whether this call did it.

    ``grant``: the call's, where it is known: others that change its row go with this one.
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
        "used": settlement.used,
        "estimated": settlement.estimated,
        "connected": settlement.connected,
        "output_limit": settlement.output_limit,
    }
    if POSTGRESQL:
        return _settle_postgresql(values, lane=grant or call)
    return bool(hot_path.commit(lambda cursor: _settle_sqlite(cursor, values)))


def _settle_postgresql(values: dict[str, Any], lane: UUID) -> bool:
    """PostgreSQL holds a row against its constraints before it notices that another has changed it meanwhile. Where the
    reaper was at the call in this very moment, its charge seems to be paid back before it was made: once more, then."""
    try:
        return bool(hot_path.change(statements.PG_SETTLE, values, lane) == 1)
    except IntegrityError:
        if connection.in_atomic_block:  # where nothing more can be done
            raise
        return bool(hot_path.change(statements.PG_SETTLE, values, lane) == 1)


def _settle_sqlite(cursor: Any, values: dict[str, Any]) -> bool:
    timed = values | {"now": time.time_ns() // 1000}
    totals, *rest = statements.LITE_SETTLE
    if cursor.execute(totals, timed).rowcount != 1:
        return False
    for statement in rest:
        cursor.execute(statement, timed)
    return True


def beat(worker: UUID) -> None:
    """Write the worker's heartbeat. Must have happened before its first admission."""
    if POSTGRESQL:
        with connection.cursor() as cursor:
            cursor.execute(statements.BEAT, {"id": db_uuid(worker)})
    else:  # the clock is read once the write lock is held
        hot_path.commit(
            lambda cursor: cursor.execute(statements.BEAT, {"id": db_uuid(worker), "now": time.time_ns() // 1000})
        )


def reap(*, lost_after: float) -> int:
    """Settle the open calls of workers that were silent for ``lost_after`` seconds. Returns how many.

    What such a call really used nobody knows: its whole reservation is charged, marked as estimated.
    """
    with connection.cursor() as cursor:
        values = {"silence": int(lost_after * 1_000_000), "now": time.time_ns() // 1000}
        lost = cursor.execute(statements.LOST, values).fetchall()
    return _give_up(UUID(str(call)) for (call,) in lost)


def reap_own(worker: UUID, known: Callable[[UUID], bool], *, lost_after: float) -> int:
    """Settle what stands open for this worker, though it does not know of it. Returns how many.

    The database forgot a settlement (it failed over to a copy that was behind), or committed an admission behind a
    connection that had broken. No other worker would see: this one is alive.
    """
    values = {"worker": db_uuid(worker), "age": int(lost_after * 1_000_000), "now": time.time_ns() // 1000}
    with connection.cursor() as cursor:
        found = [UUID(str(row[0])) for row in cursor.execute(statements.LONG_OPEN, values).fetchall()]
    return _give_up(call for call in found if not known(call))


def _give_up(calls: Iterable[UUID]) -> int:
    """Settle lost calls; one that the database refuses keeps none of the others open. Returns how many it took."""
    taken = 0
    for call in calls:
        try:
            taken += settle(call, Settlement(outcome="lost", estimated=True), reaping=True)
        except DatabaseError as error:  # its message may quote values
            logger.error("lost call %s cannot be settled (%s); trying again", call, type(error).__name__)
    return taken


def taken_away(worker: UUID) -> Iterable[UUID]:
    """The open calls of this worker whose grant, token, signing key, provider key or owner is no longer in force."""
    with connection.cursor() as cursor:
        values = {"worker": db_uuid(worker), "now": time.time_ns() // 1000}
        return [UUID(str(row[0])) for row in cursor.execute(statements.TAKEN_AWAY, values).fetchall()]


def outstanding() -> tuple[int, int]:
    """How many calls are open, on all servers, and the nano-dollars reserved for them."""
    with connection.cursor() as cursor:
        count, reserved = cursor.execute(statements.OUTSTANDING).fetchone()
    return int(count), int(reserved)
