"""An installation that has grown: up to 100,000 grants, every limit on, and millions of calls. Tokens for some of them.

Ten owners with ten keys each (fewer where there are fewer grants), the same number of grants on every key. 70 % of the
calls are those of 300 busy grants, the rest is spread over all. Half of the tokens are for busy grants.

Run as a program by ``growth.py``, on a migrated database, with the owners' password on standard input; prints the
tokens, one a line: ``growth_rows.py --grants 100000 --calls 5000000 --tokens 500 --upstream http://127.0.0.1:8080/v1``.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from ledger_rows import HEAVY_GRANTS, SERIES, VALUES, fill

OWNERS = 10
KEYS = 10  # of each owner
_VALID = timedelta(days=30)
_DOLLAR = 10**9
# So high that none is reached: a refusal would cost less than a call.
LIMITS = {
    "max_requests": 10**9,
    "max_concurrency": 1000,
    "max_cost": 10**6 * _DOLLAR,
    "max_cost_per_day": 900_000 * _DOLLAR,
    "max_cost_per_month": 950_000 * _DOLLAR,
    "max_cost_per_call": 10 * _DOLLAR,
    "requests_per_minute": 60_000_000,
    "tokens_per_minute": 60_000_000,
}

_EARLIER = {  # so that the lists have an order
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', t.created_at, '-' || n || ' seconds')",
    "postgresql": "t.created_at - n * interval '1 second'",
}
# Every further grant is a copy of the first one on its key, under a number of its own.
_COPY = """
INSERT INTO {table} ({columns})
{series} numbered AS (SELECT n, n AS number, (n - 1) % {keys} + 1 AS model FROM series),
named AS (SELECT n, {grant_id} AS id, model FROM numbered),
paired AS (SELECT n, id, {model_id} AS model FROM named)
SELECT {values} FROM paired JOIN {table} t ON t.{key} = paired.model"""


def first_grants(password: str, upstream: str, count: int) -> int:
    """Owners, their keys, and one grant on each key. Returns how many."""
    from django.contrib.auth import get_user_model
    from django.utils import timezone

    from grants.clock import microseconds
    from grants.models import Actor, Allowance, Grant, ProviderKey
    from grants.terms import DAY

    make, by, now = get_user_model().objects.create_user, Actor("command"), timezone.now()
    owners = [make(f"owner{number}", password=password, is_staff=True) for number in range(OWNERS)]
    grants = []
    for number in range(min(count, OWNERS * KEYS)):
        secret, label = f"sk-{secrets.token_urlsafe(24)}", f"Key {number}"
        owner = owners[number % OWNERS]
        key = ProviderKey.add(owner=owner, provider="openai", label=label, secret=secret, by=by, base_url=upstream)
        grants.append(
            Grant(
                id=uuid.UUID(int=number + 1),
                owner=key.owner,
                provider_key=key,
                provider=key.provider,
                app_name=f"App {number + 1}",
                models=["gpt-4o*", "claude-*", "gemini-*"],
                capabilities=["chat"],
                token_lifetime=DAY,
                approved_at=now,
                expires_at=now + _VALID,
            )
        )
    Grant.objects.bulk_create(grants)
    Allowance.objects.bulk_create(
        Allowance(grant=grant, expires_at=microseconds(now + _VALID), **LIMITS) for grant in grants
    )
    return len(grants)


def copies(first: int, count: int) -> None:
    """Grants and their counted rows, numbered from ``first + 1`` to ``count``."""
    from django.db import connection

    from grants.models import Allowance, Grant

    named = VALUES[connection.vendor]["grant_id"]
    new: dict[Any, dict[str, str]] = {
        Grant: {"id": "paired.id", "app_name": "'App ' || n", "created_at": _EARLIER[connection.vendor]},
        Allowance: {"grant_id": "paired.id"},
    }
    with connection.cursor() as cursor:
        for model, changed in new.items():
            columns = [field.column for field in model._meta.concrete_fields]
            statement = _COPY.format(
                table=model._meta.db_table,
                columns=", ".join(columns),
                values=", ".join(changed.get(column, f"t.{column}") for column in columns),
                series=SERIES[connection.vendor].format(first=first + 1, last=count + 1),
                keys=first,
                grant_id=named,
                model_id=named.replace("number", "model"),
                key=model._meta.pk.column,
            )
            cursor.execute(statement)


def settle_down(*, with_calls: bool) -> None:
    """What PostgreSQL would do in its own time, in the middle of a run.

    It leaves an empty ledger alone, and so must we: a table that was found empty is read from end to end until the
    next ANALYZE.
    """
    from django.db import connection

    if connection.vendor == "postgresql":
        tables = ["grants_grant", "grants_allowance"] + ["grants_call", "grants_dailytotal"] * with_calls
        with connection.cursor() as cursor:
            cursor.execute(f"VACUUM ANALYZE {', '.join(tables)}")
            cursor.execute("CHECKPOINT")


def tokens(count: int, grants: int) -> list[str]:
    """Real ones, for grants picked at random; the same ones in every run."""
    from grants.models import Actor, Grant
    from grants.tokens import mint

    spread = random.Random(7)
    numbers = [spread.randint(1, min(grants, HEAVY_GRANTS)) for _ in range(count // 2)]
    numbers += [spread.randint(1, grants) for _ in range(count - count // 2)]
    spread.shuffle(numbers)
    found = Grant.objects.select_related("allowance", "provider_key").in_bulk({uuid.UUID(int=n) for n in numbers})
    return [mint(found[uuid.UUID(int=number)], by=Actor("command")).token for number in numbers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("grants", "calls", "tokens"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--upstream", required=True, help="base URL of all keys")
    options = parser.parse_args()
    first = first_grants(sys.stdin.read(), options.upstream, options.grants)
    if first < options.grants:
        copies(first, options.grants)
    if options.calls:
        fill(options.calls, light=f"1 + (n * 48271 + o) % {options.grants}", still_open=0)
    settle_down(with_calls=options.calls > 0)
    print("\n".join(tokens(options.tokens, options.grants)))


if __name__ == "__main__":
    import django

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    django.setup()
    main()
