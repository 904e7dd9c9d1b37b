"""Calls of the ledger as they are when they have ended, for tests that read them."""

from __future__ import annotations

import datetime as dt
import uuid
from itertools import count
from typing import Any

from grants.clock import day_number, microseconds
from grants.models import Call, Grant

NOON = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
_numbers = count(1)


def call_id(moment: dt.datetime) -> uuid.UUID:
    """A time-ordered id, as the relay makes them."""
    return uuid.UUID(int=microseconds(moment) // 1000 << 80 | 0x7 << 76 | 0x2 << 62 | next(_numbers))


def call(grant: Grant, at: dt.datetime = NOON, **changes: Any) -> Call:
    """A finished call, unless ``changes`` say otherwise; not saved."""
    started = microseconds(at)
    values = {
        "id": call_id(at),
        "grant": grant,
        "worker": uuid.UUID(int=9),
        "jti": "0" * 32,
        "kid": "0" * 32,
        "route": "openai.chat",
        "model": "sandbox-1",
        "stream": False,
        "counted": 1,
        "day": day_number(at),
        "started_at": started,
        "finished_at": started + 1_500_000,
        "outcome": "ok",
        "status": 200,
        "input_tokens": 10,
        "output_tokens": 20,
        "cached_tokens": 0,
        "cost": 1_000_000,
    }
    if changes.get("outcome") == "open":
        values |= dict.fromkeys(("finished_at", "status", "input_tokens", "output_tokens", "cached_tokens", "cost"))
    return Call(**values | changes)


def save(*calls: Call) -> list[Call]:
    return Call.objects.bulk_create(calls)
