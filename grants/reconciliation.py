"""Proof that the counters equal the ledger: for each grant, all of it as it stood at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import Coalesce

from .models import Allowance, Call, DailyTotal

Sums = tuple[int, ...]
Daily = dict[tuple[int, str], Sums]  # day and model → sums
_SUMS = ("calls", "requests", "cost", "failed", "estimated", "input_tokens", "output_tokens", "cached_tokens")
_PURGED = ("purged_calls", "purged_requests", "purged_cost")  # of purged calls, only the first three are known
_NOTHING: Sums = (0,) * len(_SUMS)


@dataclass(frozen=True, slots=True)
class Difference:
    """``counter`` says ``counted``, the ledger adds up to ``ledger``. ``day`` and ``model``: of a daily total."""

    grant: UUID
    counter: str
    counted: int
    ledger: int
    day: int | None = None
    model: str = ""

    @property
    def excess(self) -> int:
        return self.counted - self.ledger


@dataclass(frozen=True, slots=True)
class Account:
    """One grant's counters, and what its calls and totals add up to, at one moment."""

    grant: UUID
    revision: int
    day: int
    counters: dict[str, int]
    totals: Daily
    kept: Daily  # calls that are there, and those that were purged: three sums where there are such
    open: dict[str, int]

    def differences(self) -> list[Difference]:
        """Where they disagree: first the totals with the calls, then the counters with what the totals should be."""
        found = []
        for (day, model), ledger in sorted(self.kept.items()):
            counted = self.totals.get((day, model), _NOTHING)
            for name, said, true in zip(_SUMS, counted, ledger, strict=False):
                if said != true:
                    found.append(Difference(self.grant, f"total.{name}", said, true, day, model))
        for name, true in self._owed().items():
            if self.counters[name] != true:
                found.append(Difference(self.grant, name, self.counters[name], true))
        return found

    def _owed(self) -> dict[str, int]:
        """What the counters should say."""
        month = self.day // 100
        return self.open | {
            "requests": sum(sums[1] for sums in self.kept.values()) + self.open["requests"],
            "spent": sum(sums[2] for sums in self.kept.values()),
            "day_requests": self._of_day(1) + self.open["day_requests"],
            "day_spent": self._of_day(2),
            "month_spent": sum(sums[2] for (day, _), sums in self.kept.items() if day // 100 == month),
        }

    def _of_day(self, place: int) -> int:
        return sum(sums[place] for (day, _), sums in self.kept.items() if day == self.day)


def account(grant: UUID) -> Account:
    """Read one grant's whole account in one snapshot. Blocks no writer, on either database."""
    with snapshot():
        allowance = Allowance.objects.get(grant=grant)
        counters = {name: getattr(allowance, name) for name in _COUNTERS}
        totals: Daily = {}
        kept: Daily = {}
        for day, model, *sums in DailyTotal.objects.filter(grant=grant).values_list("day", "model", *_SUMS, *_PURGED):
            totals[day, model] = tuple(sums[: len(_SUMS)])
            purged = tuple(sums[len(_SUMS) :])
            kept[day, model] = purged if any(purged) else _NOTHING
        for day, model, *there in _finished(grant):
            before = kept.get((day, model), _NOTHING)
            kept[day, model] = tuple(map(sum, zip(before, there, strict=False)))
        return Account(grant, allowance.revision, allowance.day, counters, totals, kept, _open(grant, allowance.day))


_COUNTERS = (
    *("requests", "in_flight", "spent", "reserved", "day_requests", "day_spent", "day_reserved", "month_spent"),
    "month_reserved",
)


def _finished(grant: UUID) -> Any:
    """Day, model, and the sums of finished calls."""
    calls = Call.objects.filter(grant=grant, finished_at__isnull=False).order_by()
    sums = {
        "calls": Count("pk"),
        "requests": Sum("counted"),
        "cost": Coalesce(Sum("cost"), 0),
        "failed": Count("pk", filter=~Q(outcome="ok")),
        "estimated": Count("pk", filter=Q(estimated=True)),
    } | {name: Coalesce(Sum(name), 0) for name in _SUMS[5:]}
    return calls.values_list("day", "model").annotate(**{f"sum_of_{name}": sums[name] for name in _SUMS})


def _open(grant: UUID, today: int) -> dict[str, int]:
    """What open calls add to the counters."""
    rows = list(Call.objects.open().filter(grant=grant).order_by().values_list("day", "counted", "reserved"))
    return {
        "in_flight": len(rows),
        "requests": sum(counted for _, counted, _ in rows),
        "reserved": sum(reserved for _, _, reserved in rows),
        "day_requests": sum(counted for day, counted, _ in rows if day == today),
        "day_reserved": sum(reserved for day, _, reserved in rows if day == today),
        "month_reserved": sum(reserved for day, _, reserved in rows if day // 100 == today // 100),
    }


@contextmanager
def snapshot() -> Iterator[None]:
    """All statements inside see the database as it was at the first of them.

    Django's own transactions would take SQLite's write lock at once, and on PostgreSQL each statement of theirs sees
    what was committed before it.
    """
    if connection.in_atomic_block:  # a test's
        yield
        return
    with connection.cursor() as cursor:
        lite = connection.vendor == "sqlite"
        cursor.execute("BEGIN" if lite else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def repair(found: Account) -> bool:
    """Take the differences off the counters. Says whether it did: not if the grant changed in the meantime.

    Counters and ledger only ever change together, so a difference stays the same however many calls come and go: it
    is subtracted, not overwritten. Only what belongs to a day must still be of that day. The revision grows, so that
    of two repairs at once one does it.
    """
    differences = found.differences()
    counters = {each.counter: F(each.counter) - each.excess for each in differences if each.day is None}
    with transaction.atomic():
        same = Allowance.objects.filter(grant=found.grant, revision=found.revision, day=found.day)
        if not same.update(revision=F("revision") + 1, **counters):
            return False
        for each in differences:
            if each.day is not None:
                name = each.counter.removeprefix("total.")
                total, _ = DailyTotal.objects.get_or_create(grant_id=found.grant, day=each.day, model=each.model)
                DailyTotal.objects.filter(pk=total.pk).update(**{name: F(name) - each.excess})
    return True
