"""Old calls leave the ledger; what they cost stays in the daily totals."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator
from uuid import UUID

from django.db import transaction
from django.db.models import F

from .clock import microseconds
from .models import Call, DailyTotal
from .pace import Pace

Key = tuple[UUID, int, str]  # grant, day, model


class NoTotal(Exception):
    """A call has ended and is in no daily total: deleting it would lose what it cost."""


def purge_calls(before: dt.datetime) -> Iterator[int]:
    """Delete finished calls that were admitted before then, oldest first. Yields how many after each transaction.

    Every transaction is short, and true in itself: stopped at any point, the ledger still adds up. It rests in between
    for as long as it worked, so that admissions get their turn.

    Raises:
        NoTotal: see there; what was deleted before stays deleted.
    """
    end = UUID(int=microseconds(before) // 1000 << 80)
    pace, last = Pace(50, most=1000, rest=1.0), UUID(int=0)
    while True:
        with pace:
            last, gone = _purge_some(last, end, pace.size)
        if gone == 0:
            return
        yield gone


def _purge_some(after: UUID, end: UUID, most: int) -> tuple[UUID, int]:
    """One transaction. Returns where it ended, and how many calls it deleted."""
    with transaction.atomic():
        old = Call.objects.filter(id__gt=after, id__lt=end, finished_at__isnull=False).order_by("id")
        calls = list(old.select_for_update().values_list("pk", "grant", "day", "model", "counted", "cost")[:most])
        if not calls:
            return after, 0
        sums: dict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])
        for _, grant, day, model, counted, cost in calls:
            for place, value in enumerate((1, counted, cost or 0)):
                sums[grant, day, model][place] += value
        Call.objects.filter(pk__in=[call[0] for call in calls]).delete()
        for key in sorted(sums):  # in this order everywhere, so that two purges cannot deadlock
            _keep(key, *sums[key])
    return calls[-1][0], len(calls)


def _keep(key: Key, calls: int, requests: int, cost: int) -> None:
    grant, day, model = key
    kept = DailyTotal.objects.filter(grant=grant, day=day, model=model).update(
        purged_calls=F("purged_calls") + calls,
        purged_requests=F("purged_requests") + requests,
        purged_cost=F("purged_cost") + cost,
    )
    if not kept:
        raise NoTotal(f"Grant {grant} has no total of {day} for {model!r}: run manage.py reconcile --repair first.")
