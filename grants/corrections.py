"""What a clock that was wrong left in a counted row or in the ledger, found and corrected.

A jump of the clock moves a row to another day and its rate clocks into the future; both would refuse calls until that
time comes. The limits of what correct clocks can leave:

- **Day**: two days around today. Between the earliest and the latest time zone of an owner lie 26 hours, which is at
  most two calendar days; clocks that disagree around midnight are within that.
- **Requests clock**: an admission leaves it at most the tolerance ahead of the time of that admission.
- **Tokens clock**: an admission leaves it at most ``TOKEN_BURST`` ahead. After it, only settlements of calls that used
  more than they had reserved move the clock on, each by its excess. So it is at most ``TOKEN_BURST`` and the excess
  since the newest admission ahead. ``tokens_excess`` holds that excess: a duration, which no wrong clock can falsify.

A rate clock counts as wrong only beyond its limit and ``SLACK``, by which two database servers may disagree. It is then
set to the limit itself: as if the whole burst had been used just now, so that no minute gets more than the rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import F, Q, Sum

from .clock import day_number, moment, two_days_after
from .limits import MINUTE, TOKEN_BURST, Limits, Standing
from .models import Allowance, Call, DailyTotal
from .pace import Pace
from .terms import LIMITS

SLACK = 2 * MINUTE


def latest_clocks(standing: Standing, limits: Limits) -> dict[str, int]:
    """How far ahead each rate clock can be with correct clocks, by the name of its column."""
    return {
        "requests_clock": standing.now + limits.request_tolerance,
        "tokens_clock": standing.now + TOKEN_BURST + standing.tokens_excess,
    }


def wrong_clocks(standing: Standing, limits: Limits) -> dict[str, int]:
    """The rate clocks that no correct clock can have left, each with the value that it gets."""
    latest = latest_clocks(standing, limits)
    return {name: value for name, value in latest.items() if getattr(standing, name) > value + SLACK}


def needed(standing: Standing, limits: Limits, today: int) -> bool:
    """Whether the row is of an impossible day, or has an impossible rate clock."""
    return standing.day > two_days_after(today) or bool(wrong_clocks(standing, limits))


def correct(grant: UUID, clock: Callable[[], int]) -> bool:
    """Give the row a day and rate clocks that are possible now. Says whether they were not.

    ``clock`` is read once the row is locked. As every change of the row, of its totals and of its open calls is made
    under this lock, what is read after it belongs together.
    """
    with transaction.atomic():
        row = Allowance.objects.select_for_update(no_key=True).get(grant=grant)
        standing = Standing(clock(), *(getattr(row, name) for name in Standing._fields[1:]))
        changes: dict[str, Any] = dict(wrong_clocks(standing, Limits(*(getattr(row, name) for name in LIMITS))))
        if "tokens_clock" in changes:  # as a refund: the calls that are open move nearer by the same
            changes["tokens_refunded"] = row.tokens_refunded + row.tokens_clock - changes["tokens_clock"]
        today = day_number(moment(standing.now), row.time_zone)
        last = two_days_after(today)
        if row.day > last or _is_behind(row, today):
            changes |= _counted_on(today, row, last)
        if changes:
            Allowance.objects.filter(grant=grant).update(**changes)
    return bool(changes)


def _is_behind(row: Allowance, today: int) -> bool:
    """Whether the ledger has calls of days after the row's, because the clock went back: today's may be among them."""
    if not 0 < row.day < today:
        return False
    later = Call.objects.open().filter(grant=row.pk, day__gt=row.day)
    return DailyTotal.objects.filter(grant=row.pk, day__gt=row.day).exists() or (row.in_flight > 0 and later.exists())


def _counted_on(today: int, row: Allowance, last: int) -> dict[str, int]:
    """The row's day, and what the ledger has of it.

    Where the row leaves a day that is too far ahead, what was spent there counts today, so that a jump of the clock
    gives nobody a second budget. Open calls of such a day count as spent with their bound: their settlement, which
    belongs to another day than the row's, changes nothing of today.
    """
    ahead = row.day > last
    found = {"day": today} | dict.fromkeys(_COUNTED, 0)
    totals = DailyTotal.objects.filter(grant=row.pk, day__gte=today // 100 * 100).order_by().values_list("day")
    for day, requests, cost in totals.annotate(Sum("requests"), Sum("cost")):
        kept = ahead and day > last
        if day == today or kept:
            found["day_requests"] += requests
            found["day_spent"] += cost
        if day // 100 == today // 100 or kept:
            found["month_spent"] += cost
    opened = Call.objects.open().filter(grant=row.pk).order_by().values_list("day", "counted", "reserved")
    for day, counted, reserved in opened:
        kept = ahead and day > last
        if day == today or kept:
            found["day_requests"] += counted
            found["day_spent" if kept else "day_reserved"] += reserved
        if day // 100 == today // 100:
            found["month_reserved"] += reserved
        elif kept:
            found["month_spent"] += reserved
    # Never less than the row says of the same period: it may have kept what was spent on days too far ahead.
    same = ["day_requests", "day_spent"] if ahead else []
    same += ["month_spent"] if ahead or row.day // 100 == today // 100 else []
    return found | {name: max(found[name], getattr(row, name)) for name in same}


_COUNTED = ("day_requests", "day_spent", "day_reserved", "month_spent", "month_reserved")


# Calls that have ended, and their totals

_SUMS = ("calls", "requests", "failed", "estimated", "input_tokens", "output_tokens", "cached_tokens", "cost")
_PURGED = ("purged_calls", "purged_requests", "purged_cost")


def move_calls(grant: UUID, *, last: int, to: int) -> int:
    """Give finished calls of days after ``last``, and their totals, the day ``to``. Returns how many calls.

    In short transactions, in each of which the totals equal the calls. Counters are not changed.
    """
    pace, after, moved = Pace(50, most=1000, rest=1.0), UUID(int=0), 0
    while True:
        with pace:
            found = _move_some(grant, after, last, to, pace.size)
        if not found:
            break
        after, moved = found[-1], moved + len(found)
    for total in DailyTotal.objects.filter(grant=grant, day__gt=last).order_by("day", "model"):
        _move_rest(total, to)
    return moved


def _move_some(grant: UUID, after: UUID, last: int, to: int, most: int) -> list[UUID]:
    """One transaction. Returns the calls that it moved, in the order of their ids."""
    with transaction.atomic():
        calls = Call.objects.filter(grant=grant, id__gt=after, day__gt=last, finished_at__isnull=False).order_by("id")
        found = list(calls.select_for_update()[:most])
        sums: dict[tuple[int, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(_SUMS, 0))
        for call in found:
            part = sums[call.day, call.model]
            for name, value in _parts(call).items():
                part[name] += value
        Call.objects.filter(pk__in=[call.pk for call in found]).update(day=to)
        for (day, model), part in sorted(sums.items()):
            DailyTotal.objects.filter(grant=grant, day=day, model=model).update(
                **{name: F(name) - value for name, value in part.items()}
            )
            _add(grant, to, model, part)
    return [call.pk for call in found]


def _parts(call: Call) -> dict[str, int]:
    """What a finished call adds to its total."""
    tokens = {name: getattr(call, name) or 0 for name in ("input_tokens", "output_tokens", "cached_tokens", "cost")}
    failed, estimated = int(call.outcome != Call.Outcome.OK), int(call.estimated)
    return {"calls": 1, "requests": call.counted, "failed": failed, "estimated": estimated, **tokens}


def _move_rest(total: DailyTotal, to: int) -> None:
    """What a total still has after its calls have left it: those that were purged."""
    with transaction.atomic():
        rest = DailyTotal.objects.select_for_update().get(pk=total.pk)
        finished = Call.objects.filter(~Q(finished_at=None), grant=rest.grant_id, day=rest.day, model=rest.model)
        if finished.exists():  # ended meanwhile: the next run moves it
            return
        _add(rest.grant_id, to, rest.model, {name: getattr(rest, name) for name in (*_SUMS, *_PURGED)})
        rest.delete()


def _add(grant: UUID, day: int, model: str, part: dict[str, int]) -> None:
    total, _ = DailyTotal.objects.get_or_create(grant_id=grant, day=day, model=model)
    DailyTotal.objects.filter(pk=total.pk).update(**{name: F(name) + value for name, value in part.items()})
