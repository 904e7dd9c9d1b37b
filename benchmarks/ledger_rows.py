"""A ledger of millions of calls: 1,000 grants of ten owners over 120 days, one owner and one grant of them heavy.

Owner 0 has 300 grants and 70 % of the calls, his first grant 25 % of all. 3 % of the calls ended badly, 5 % are
estimated, one in 50,000 cost more than its bound, 12 are open. Totals and counters are summed up from the calls.

Run as a program by ``ledger.py``, on a migrated database, with the owners' password on standard input:
``ledger_rows.py 5000000``.
"""

from __future__ import annotations

import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path

DAYS = 120
GRANTS = 1000
OWNERS = 10
HEAVY_GRANTS = 300
_BATCH = 250_000
_MICROSECONDS = 1_000_000

# `n` is the number of the call, from 0; `r`, `m` and `o` are spread over 0 … 9999, the same ones for the same n.
_SPREAD = "(n * 7919 + 13) % 10000 AS r, (n / 7 * 104729 + 7) % 10000 AS m, (n / 3 * 1299709 + 3) % 10000 AS o"
SERIES = {
    "sqlite": "WITH RECURSIVE series(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM series WHERE n + 1 < {last}),",
    "postgresql": "WITH series(n) AS (SELECT generate_series(CAST({first} AS bigint), {last} - 1)),",
}
VALUES = {
    "sqlite": {
        "id": "printf('%012x7%03x8%015x', at / 1000, o % 4096, n)",
        "grant_id": "printf('%032x', number)",
        "worker": "printf('%032x', 0)",
        "day": "CAST(strftime('%Y%m%d', at / 1000000, 'unixepoch') AS integer)",
    },
    "postgresql": {
        "id": "CAST(lpad(to_hex(at / 1000), 12, '0') || '7' || lpad(to_hex(o % 4096), 3, '0') || '8' "
        "|| lpad(to_hex(n), 15, '0') AS uuid)",
        "grant_id": "CAST(lpad(to_hex(number), 32, '0') AS uuid)",
        "worker": "CAST(lpad('', 32, '0') AS uuid)",
        "day": "CAST(to_char(to_timestamp(at / 1000000) AT TIME ZONE 'UTC', 'YYYYMMDD') AS integer)",
    },
}
_CALLS = """
INSERT INTO grants_call (id, grant_id, worker, jti, kid, route, model, stream, counted, reserved, output_limit,
    tokens_reserved, tokens_advance, tokens_until, day, started_at, finished_at, outcome, status,
    first_byte_us, input_tokens, output_tokens, cached_tokens, cost, estimated)
{series} spread AS (SELECT n, {spread} FROM series),
timed AS (
    SELECT n, o, {start} + n * {step} AS at, n >= {count} - {open} AS still,
        CASE WHEN r < 2500 THEN 1 WHEN r < 7000 THEN 2 + (m * 31 + o) % 299 ELSE {light} END AS number,
        CASE WHEN m < 6000 THEN 'gpt-4o-mini' WHEN m < 9000 THEN 'claude-sonnet-4-5' WHEN m < 9990 THEN 'gemini-2.5-pro'
            ELSE 'rare-model' END AS model,
        CASE WHEN (n + o) % 33 > 0 THEN 'ok' WHEN o % 4 = 0 THEN 'client_gone' WHEN o % 4 = 1 THEN 'upstream_error'
            WHEN o % 4 = 2 THEN 'revoked' ELSE 'lost' END AS outcome,
        (n + m) % 20 = 0 AS estimated, n % 50000 = 77 AS overrun
    FROM spread)
SELECT {id}, {grant_id}, {worker}, '00000000000000000000000000000000', 'kid', 'openai.chat', model, true, 1, 20000000,
    4096, 0, 0, 0, {day}, at, CASE WHEN still THEN NULL ELSE at + 900000 END,
    CASE WHEN still THEN 'open' ELSE outcome END, CASE WHEN still THEN NULL ELSE 200 END, 300000,
    CASE WHEN still THEN NULL ELSE 200 + o % 700 END, CASE WHEN still THEN NULL ELSE 100 + o % 500 END, 0,
    CASE WHEN still THEN NULL WHEN overrun THEN 30000000 ELSE 100000 + o * 1000 END, estimated AND NOT still
FROM timed"""
_TOTALS = """
INSERT INTO grants_dailytotal (grant_id, day, model, calls, requests, failed, estimated, input_tokens, output_tokens,
    cached_tokens, cost, purged_calls, purged_requests, purged_cost)
SELECT grant_id, day, model, count(*), sum(counted), sum(CASE WHEN outcome = 'ok' THEN 0 ELSE 1 END),
    sum(CASE WHEN estimated THEN 1 ELSE 0 END), sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(cost),
    0, 0, 0
FROM grants_call WHERE finished_at IS NOT NULL GROUP BY grant_id, day, model"""
_COUNTERS = """
UPDATE grants_allowance SET
    spent = (SELECT COALESCE(sum(t.cost), 0) FROM grants_dailytotal t WHERE t.grant_id = grants_allowance.grant_id),
    requests = (SELECT COALESCE(sum(t.requests), 0) FROM grants_dailytotal t
            WHERE t.grant_id = grants_allowance.grant_id)
        + (SELECT count(*) FROM grants_call c WHERE c.grant_id = grants_allowance.grant_id AND c.finished_at IS NULL),
    in_flight = (SELECT count(*) FROM grants_call c
        WHERE c.grant_id = grants_allowance.grant_id AND c.finished_at IS NULL),
    reserved = (SELECT count(*) FROM grants_call c
        WHERE c.grant_id = grants_allowance.grant_id AND c.finished_at IS NULL) * 20000000"""


def owners_and_grants(password: str) -> None:
    from django.contrib.auth import get_user_model
    from django.utils import timezone

    from grants.models import Actor, Allowance, Grant, ProviderKey

    make = get_user_model().objects.create_user
    owners = [make(f"owner{number}", password=password, is_staff=True) for number in range(OWNERS)]
    now = timezone.now()
    keys = [
        ProviderKey.add(owner=owner, provider="sandbox", label="Sandbox", secret="", by=Actor("command"))
        for owner in owners
    ]
    grants = []
    for number in range(1, GRANTS + 1):
        key = keys[0] if number <= HEAVY_GRANTS else keys[1 + number % (OWNERS - 1)]
        grants.append(
            Grant(
                id=uuid.UUID(int=number),
                owner=key.owner,
                provider_key=key,
                provider="sandbox",
                app_name=f"App {number}",
                models=["*"],
                capabilities=["chat"],
                approved_at=now,
                expires_at=now + timedelta(days=30),
            )
        )
    Grant.objects.bulk_create(grants)
    Allowance.objects.bulk_create(Allowance(grant=grant, expires_at=2**53) for grant in grants)


def fill(
    count: int, *, light: str = f"{HEAVY_GRANTS + 1} + (m * 37 + o) % {GRANTS - HEAVY_GRANTS}", still_open: int = 12
) -> None:
    """Write the calls, their totals, and the counters of their grants.

    ``light``: SQL for the number of the grant whose call it is, where it is none of the heavy owner's. ``still_open``:
    calls, the newest ones; reserved in total, but not on a day: nobody may settle them on a grant that is in use.
    """
    from django.db import connection

    length = DAYS * 86_400 * _MICROSECONDS
    values = {
        "series": "",
        "spread": _SPREAD,
        "start": time.time_ns() // 1000 - length,
        "step": length // count,
        "count": count,
        "light": light,
        "open": still_open,
    } | VALUES[connection.vendor]
    with connection.cursor() as cursor:
        for first in range(0, count, _BATCH):
            series = SERIES[connection.vendor].format(first=first, last=min(first + _BATCH, count))
            cursor.execute(_CALLS.format(**values | {"series": series}))
        cursor.execute(_TOTALS)
        cursor.execute(_COUNTERS)
        if connection.vendor == "postgresql":
            cursor.execute("ANALYZE")  # what autovacuum does in its own time


if __name__ == "__main__":
    import django

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    django.setup()
    owners_and_grants(sys.stdin.read())
    fill(int(sys.argv[1]))
