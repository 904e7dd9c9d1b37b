"""What a worker's tickers ask of the database, timed one statement after the other; everything is rolled back.

Run as a program by ``growth.py``, on a database that ``growth_rows.py`` has filled: prints one JSON object, name →
milliseconds, one for each of the times.
"""

from __future__ import annotations

import json
import random
import sys
import time
import uuid
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

OPEN = 100  # calls of the worker that asks
TOUCHED = 200  # grants whose calls ended since the last look
PURGED = 50  # calls of one transaction
_TIMES = 20


def open_calls(worker: uuid.UUID, count: int) -> None:
    """Open calls of this worker, over as many grants as there are."""
    from grants.clock import uuid7
    from grants.models import Call, Grant

    grants = cycle(Grant.objects.order_by("pk").values_list("pk", flat=True)[:count])
    now = time.time_ns() // 1000
    rest = {"jti": "0" * 32, "kid": "none", "route": "openai.chat", "model": "gpt-4o-mini", "stream": True}
    Call.objects.bulk_create(
        Call(id=uuid7(), grant_id=next(grants), worker=worker, counted=1, day=1, started_at=now, **rest)
        for _ in range(count)
    )


def asked(worker: uuid.UUID) -> dict[str, Callable[[], Any]]:
    from grants import ledger, notices
    from grants.models import Grant
    from grants.purging import _purge_some
    from proxy import courier

    grants = list(Grant.objects.order_by("pk").values_list("pk", flat=True))
    touched: dict[uuid.UUID, set[str]] = {
        grant: set() for grant in random.Random(7).sample(grants, min(TOUCHED, len(grants)))
    }
    beginning, end = uuid.UUID(int=0), uuid.UUID(int=(time.time_ns() // 1_000_000 - 30 * 86_400_000) << 80)
    return {
        "heartbeat": lambda: ledger.beat(worker),
        f"rights of {OPEN} open calls": lambda: ledger.taken_away(worker),
        "reaping, nothing lost": lambda: ledger.reap(lost_after=60),
        "reaping, its own": lambda: ledger.reap_own(worker, lambda call: True, lost_after=60),
        f"notices of {TOUCHED} grants": lambda: notices.consider(touched),
        "notices that are due": courier._due,
        "open calls, for the metrics": ledger.outstanding,
        f"purge, {PURGED} calls": lambda: _purge_some(beginning, end, PURGED),
    }


def timed(act: Callable[[], Any]) -> list[float]:
    took = []
    for _ in range(_TIMES):
        began = time.perf_counter()
        act()
        took.append((time.perf_counter() - began) * 1e3)
    return took


def main() -> None:
    from django.db import transaction

    worker = uuid.uuid4()
    with transaction.atomic():
        open_calls(worker, OPEN)
        acts = asked(worker)
        acts["heartbeat"]()  # before anybody reaps
        print(json.dumps({name: timed(act) for name, act in acts.items()}))
        transaction.set_rollback(True)


if __name__ == "__main__":
    import django

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    django.setup()
    main()
