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

from . import corrections
from .clock import day_number, moment, two_days_after
from .ledger import database_clock
from .limits import Limits, Standing
from .models import Allowance, Call, DailyTotal
from .terms import LIMITS

Sums = tuple[int, ...]
Daily = dict[tuple[int, str], Sums]  # day and model → sums
_SUMS = ("calls", "requests", "cost", "failed", "estimated", "input_tokens", "output_tokens", "cached_tokens")
_PURGED = ("purged_calls", "purged_requests", "purged_cost")  # of purged calls, only the first three are known
RATE_CLOCKS = ("requests_clock", "tokens_clock")
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
    today: int
    clocks: dict[str, tuple[int, int]]  # rate clocks that are impossible, and the values that they get
    counters: dict[str, int]
    totals: Daily
    kept: Daily  # calls that are there, and those that were purged: three sums where there are such
    opened: list[tuple[int, int, int]]  # day, counted and reserved of each open call

    def differences(self) -> list[Difference]:
        """Where they disagree: what a wrong clock left, the totals with the calls, the counters with the totals."""
        found = self._impossible()
        for (day, model), ledger in sorted(self.kept.items()):
            counted = self.totals.get((day, model), _NOTHING)
            for name, said, true in zip(_SUMS, counted, ledger, strict=False):
                if said != true:
                    found.append(Difference(self.grant, f"total.{name}", said, true, day, model))
        for name, true in self._owed().items():
            if self.counters[name] != true:
                found.append(Difference(self.grant, name, self.counters[name], true))
        return found

    @property
    def true_day(self) -> int:
        """The day that the counters are of: today where the row's own is impossible."""
        return self.today if self.day > two_days_after(self.today) else self.day

    def _impossible(self) -> list[Difference]:
        """Days and clocks that no correct clock can have left."""
        found = [] if self.day == self.true_day else [Difference(self.grant, "day", self.day, self.true_day)]
        found += [Difference(self.grant, name, said, true) for name, (said, true) in self.clocks.items()]
        for day, model in sorted(self.kept):
            if day > two_days_after(self.today):
                found.append(Difference(self.grant, "total.day", day, self.true_day, day, model))
        return found

    def _counts_on(self, day: int) -> int:
        """The day on which calls of ``day`` count: those of an impossible day on the row's."""
        return self.true_day if day > two_days_after(self.today) else day

    def _owed(self) -> dict[str, int]:
        """What the counters should say."""
        month = self.true_day // 100
        counted = [(self._counts_on(day), sums) for (day, _), sums in self.kept.items()]
        opened = self._open()
        return opened | {
            "requests": sum(sums[1] for sums in self.kept.values()) + opened["requests"],
            "spent": sum(sums[2] for sums in self.kept.values()),
            "day_requests": sum(sums[1] for day, sums in counted if day == self.true_day) + opened["day_requests"],
            "day_spent": sum(sums[2] for day, sums in counted if day == self.true_day) + opened["day_spent"],
            "month_spent": sum(sums[2] for day, sums in counted if day // 100 == month) + opened["month_spent"],
        }

    def _open(self) -> dict[str, int]:
        """What open calls add to the counters. Those of an impossible day count as spent with their bound: see there
        (``grants/corrections.py``)."""
        today, month = self.true_day, self.true_day // 100
        impossible = [call for call in self.opened if self._counts_on(call[0]) != call[0]]
        return {
            "in_flight": len(self.opened),
            "requests": sum(counted for _, counted, _ in self.opened),
            "reserved": sum(reserved for _, _, reserved in self.opened),
            "day_requests": sum(counted for day, counted, _ in self.opened if self._counts_on(day) == today),
            "day_reserved": sum(reserved for day, _, reserved in self.opened if day == today),
            "day_spent": sum(reserved for _, _, reserved in impossible),
            "month_reserved": sum(reserved for day, _, reserved in self.opened if day // 100 == month),
            "month_spent": sum(reserved for day, _, reserved in impossible if day // 100 != month),
        }


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
        standing = Standing(database_clock(), *(getattr(allowance, name) for name in Standing._fields[1:]))
        right = corrections.wrong_clocks(standing, Limits(*(getattr(allowance, name) for name in LIMITS)))
        return Account(
            grant,
            allowance.revision,
            allowance.day,
            day_number(moment(standing.now), allowance.time_zone),
            {name: (getattr(allowance, name), value) for name, value in right.items()},
            counters,
            totals,
            kept,
            list(Call.objects.open().filter(grant=grant).order_by().values_list("day", "counted", "reserved")),
        )


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


def put_right(grant: UUID) -> None:
    """Correct what a wrong clock left: the row's day and rate clocks, and finished calls of days that have yet to come.

    Their spending counts on the row's day from then on.
    """
    corrections.correct(grant, database_clock)
    found = account(grant)
    if found.day == found.true_day and any(each.counter == "total.day" for each in found.differences()):
        corrections.move_calls(grant, last=two_days_after(found.today), to=found.day)


def repair(found: Account) -> bool:
    """Take the differences off the counters. Says whether it did: not if the grant changed in the meantime, or has what
    :func:`put_right` corrects.

    Counters and ledger only ever change together, so a difference stays the same however many calls come and go: it
    is subtracted, not overwritten. Only what belongs to a day must still be of that day. The revision grows, so that
    of two repairs at once one does it.
    """
    differences = found.differences()
    if any(each.counter in ("day", "total.day", *RATE_CLOCKS) for each in differences):
        return False
    if not differences:
        return True
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
