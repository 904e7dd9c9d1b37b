"""How connections to PostgreSQL are made, and how long what may take. Read by the settings, and by nobody else."""

from __future__ import annotations

from typing import Any

# libpq's, and psycopg's prepare_threshold: None where a pooler in between knows no prepared statements.
_CONNECTION = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # ms; a machine that is gone is noticed while something is on its way to it, too
    "prepare_threshold": 5,
}
_POOL = {
    "min_size": 1,
    "max_lifetime": 30 * 60.0,
    "max_idle": 10 * 60.0,
    "reconnect_timeout": 3.0,  # whoever waits next begins anew: the pauses between attempts never grow long
}


def connecting(given: dict[str, Any], *, pool_size: int, pool_timeout: float) -> dict[str, Any]:
    """Options of Django's backend. ``given``: what the database's URL says, which wins."""
    if str(given.get("prepare_threshold", "")).lower() == "none":
        given = given | {"prepare_threshold": None}
    return _CONNECTION | given | {"pool": _POOL | {"max_size": pool_size, "timeout": pool_timeout}}


def serving(given: dict[str, Any], *, statement_timeout: int) -> dict[str, Any]:
    """What a server's connections add, but no migration's or command's: nothing may hold a row, or wait, for long."""
    limits = {
        "statement_timeout": statement_timeout * 1000,
        "lock_timeout": 5000,
        "idle_in_transaction_session_timeout": 30_000,
    }
    ours = " ".join(f"-c {name}={value}" for name, value in limits.items())
    return {"options": f"{ours} {given.get('options', '')}".strip()}
