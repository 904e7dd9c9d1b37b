"""How a worker and its database stand: read every half second, and what the database alone knows at each scrape."""

from __future__ import annotations

import threading
from typing import Any

from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from aipassport import output
from grants import ledger
from grants.models import Notice
from grants.pace import release_connection
from grants.policy import POSTGRESQL, hot_path

from ..bodies import process
from ..inbound import budget
from ..watch import watch

TICKED_AT = "aipassport_ticker_finished_at_seconds"

_POSTGRESQL_GAUGES = {
    "aipassport_pool_connections": "Connections to PostgreSQL.",
    "aipassport_pool_available": "Connections to PostgreSQL that nobody uses just now.",
    "aipassport_pool_waiting": "Callers that wait for a connection to PostgreSQL.",
    "aipassport_lanes_waiting": "Statements that wait until others of the same grant are committed.",
}
_POSTGRESQL_COUNTERS = {
    "aipassport_pool_requests": "Requests for a connection to PostgreSQL.",
    "aipassport_pool_queued": "Such requests that had to wait.",
    "aipassport_pool_wait_seconds": "How long they waited, all together.",
    "aipassport_pool_errors": "Such requests that got none in time.",
    "aipassport_pool_lost": "Connections to PostgreSQL that were found broken.",
    "aipassport_lanes_statements": "Policies read, admissions and settlements on PostgreSQL.",
    "aipassport_lanes_transactions": "Transactions that they went over in.",
}
_SQLITE_GAUGES = {"aipassport_sqlite_waiting": "Admissions and settlements that wait for SQLite's one writer."}
_SQLITE_COUNTERS = {
    "aipassport_sqlite_commits": "Commits of admissions and settlements.",
    "aipassport_sqlite_jobs": "Admissions and settlements in them.",
}
GAUGES = {
    "aipassport_workers": "Workers that live.",
    "aipassport_open_calls": "Calls on their way.",
    "aipassport_open_streams": "Streams among them.",
    "aipassport_abandoned_calls": "Calls whose client has left, and whose answer is read to its end.",
    "aipassport_unsettled_calls": "Settlements that the database has refused so far; tried again with every tick.",
    "aipassport_body_bytes": "Bytes of request bodies in flight.",
    "aipassport_bodies_waiting": "Request bodies that wait for the process that reads them.",
    TICKED_AT: "When a worker's ticker last finished its round.",
    **(_POSTGRESQL_GAUGES if POSTGRESQL else _SQLITE_GAUGES),
}
COUNTERS = {
    "aipassport_reaped_calls": "Calls settled for workers that fell silent.",
    "aipassport_log_lines_dropped": "Log lines that could not be written in time.",
    **(_POSTGRESQL_COUNTERS if POSTGRESQL else _SQLITE_COUNTERS),
}
OF_DATABASE = {
    "aipassport_database_up": "Whether the database answered this scrape.",
    "aipassport_ledger_open_calls": "Open calls in the ledger, of all servers.",
    "aipassport_reserved_dollars": "What is reserved for them.",
    "aipassport_notices_due": "E-mails and webhooks in the outbox whose time has come.",
}

_PATIENCE = 2.0  # seconds; a scrape must not wait for a database that is away
_reading: threading.Thread | None = None


def standing() -> dict[str, float]:
    """This worker's part of each of :data:`GAUGES`."""
    return {
        "aipassport_workers": 1,
        "aipassport_open_calls": watch.open_calls,
        "aipassport_open_streams": watch.open_streams,
        "aipassport_abandoned_calls": watch.abandoned_calls,
        "aipassport_unsettled_calls": watch.unsettled,
        "aipassport_body_bytes": budget.taken,
        "aipassport_bodies_waiting": process.turns.waiting,
        TICKED_AT: watch.ticked_at,
        **_database_standing(),
    }


def _database_standing() -> dict[str, float]:
    if not POSTGRESQL:
        return {"aipassport_sqlite_waiting": hot_path.waiting}
    pool = _pool_stats()
    return {
        "aipassport_pool_connections": pool.get("pool_size", 0),
        "aipassport_pool_available": pool.get("pool_available", 0),
        "aipassport_pool_waiting": pool.get("requests_waiting", 0) + hot_path.turns.waiting,
        "aipassport_lanes_waiting": hot_path.waiting,
    }


def so_far() -> dict[str, float]:
    """What this worker has counted since it began, for each of :data:`COUNTERS`."""
    counted: dict[str, float] = {
        "aipassport_reaped_calls": watch.reaped,
        "aipassport_log_lines_dropped": output.dropped(),
    }
    if not POSTGRESQL:
        return counted | {"aipassport_sqlite_commits": hot_path.commits, "aipassport_sqlite_jobs": hot_path.jobs}
    pool, turns = _pool_stats(), hot_path.turns
    return counted | {
        "aipassport_pool_requests": pool.get("requests_num", 0) + turns.failed,
        "aipassport_pool_queued": pool.get("requests_queued", 0) + turns.queued,
        "aipassport_pool_wait_seconds": pool.get("requests_wait_ms", 0) / 1000 + turns.waited,
        "aipassport_pool_errors": pool.get("requests_errors", 0) + turns.failed,
        "aipassport_pool_lost": pool.get("connections_lost", 0),
        "aipassport_lanes_statements": hot_path.statements,
        "aipassport_lanes_transactions": hot_path.transactions,
    }


def _pool_stats() -> dict[str, Any]:
    pool: Any = connection.pool  # type: ignore[attr-defined]  # PostgreSQL's
    return {} if pool is None else pool.get_stats()


def of_database() -> dict[str, float]:
    """Each of :data:`OF_DATABASE`, as far as the database answers in time. One look at a time, however many ask."""
    global _reading
    found: dict[str, float] = {}
    if _reading is None or not _reading.is_alive():
        _reading = threading.Thread(target=_look, args=(found,), name="aipassport-scrape", daemon=True)
        _reading.start()
        _reading.join(_PATIENCE)
    return {"aipassport_database_up": 0.0} if "aipassport_database_up" not in found else dict(found)


def _look(found: dict[str, float]) -> None:
    try:
        open_calls, reserved = ledger.outstanding()
        found["aipassport_ledger_open_calls"] = open_calls
        found["aipassport_reserved_dollars"] = reserved / 1_000_000_000
        found["aipassport_notices_due"] = Notice.objects.due(timezone.now()).count()
        found["aipassport_database_up"] = 1.0
    except (DatabaseError, InterfaceError):
        pass  # told by its absence
    finally:
        release_connection()
