"""Where the money went."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode

from ..clock import date_of, day_of, zone_info
from ..models import DailyTotal, Grant, Preferences
from ..pace import Unhurried
from ..spending import SUMS, Sums, TooMany, spending
from .base import DeskAdmin

BY = {"grant": "Grants", "model": "Models", "day": "Days"}
PERIODS = {
    "today": "Today",
    "week": "7 days",
    "month": "30 days",
    "this-month": "This month",
    "last-month": "Last month",
    "year": "12 months",
}
USUAL = ("grant", "month")
MOST = 100  # lines on the page; the others are one line


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table. ``share``: percent of all that was spent, ``bar`` of the longest line."""

    name: str
    url: str
    sums: Sums
    share: float
    bar: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A day in the chart, of 100 units in height."""

    x: int
    height: float
    day: dt.date
    sums: Sums


@admin.register(DailyTotal)
class SpendingAdmin(DeskAdmin):
    def rows(self, user: Any) -> QuerySet[Any]:
        return DailyTotal.objects.visible_to(user)

    def change_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        raise Http404("A total has no page of its own.")

    def history_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        raise Http404("A total has no history.")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        if not self.allows(request):
            raise PermissionDenied
        by, period = _choice(request, "by", BY, USUAL[0]), _choice(request, "period", PERIODS, USUAL[1])
        first, last = days_of(period, timezone.localdate(timezone=zone_info(Preferences.of(request.user).time_zone)))
        sums = partial(spending, request.user, first_day=day_of(first), last_day=day_of(last))
        days = sums(("day",))
        try:
            lines = days if by == "day" else sums((by,))
        except TooMany:  # an app can call thousands of models that do not exist
            lines = None
        whole = added(days)
        return self.render(
            request,
            "desk/spending.html",
            title="Spending",
            by=by,
            period=period,
            choices=[("period", PERIODS, period), ("by", BY, by)],
            first=first,
            last=last,
            whole=whole,
            failed=100 * whole.failed // whole.calls if whole.calls else 0,
            bars=Unhurried(_bars(days, first, last)),
            too_many=lines is None,
            lines=Unhurried(_lines(lines or [], by, whole, first, last)),
            others=added(lines[MOST:]) if lines and len(lines) > MOST and by != "day" else None,
            others_count=len(lines or ()) - MOST,
        )


def _choice(request: HttpRequest, name: str, choices: dict[str, str], usual: str) -> str:
    chosen = request.GET.get(name, usual)
    return chosen if chosen in choices else usual


def days_of(period: str, today: dt.date) -> tuple[dt.date, dt.date]:
    """The first and the last day of a period, both included."""
    this_month = today.replace(day=1)
    match period:
        case "this-month":
            return this_month, today
        case "last-month":
            last = this_month - dt.timedelta(days=1)
            return last.replace(day=1), last
    return today - dt.timedelta(days={"today": 0, "week": 6, "month": 29, "year": 364}[period]), today


def added(lines: Sequence[Sums]) -> Sums:
    return Sums((), **{name: sum(getattr(line, name) for line in lines) for name in SUMS})


def _bars(days: Sequence[Sums], first: dt.date, last: dt.date) -> Iterator[Bar]:
    """One a day, also of those on which nothing was used."""
    known = {line.key[0]: line for line in days}
    most = max((line.cost for line in days), default=0) or 1
    for number in range((last - first).days + 1):
        date = first + dt.timedelta(days=number)
        sums = known.get(day_of(date), Sums(()))
        height = max(100 * sums.cost / most, 1.0 if sums.calls else 0.0)
        yield Bar(number, round(height, 1), date, sums)


def _lines(lines: Sequence[Sums], by: str, whole: Sums, first: dt.date, last: dt.date) -> list[Line]:
    shown = sorted(lines, key=lambda line: line.key, reverse=True) if by == "day" else lines[:MOST]
    grants = [line.key[0] for line in shown] if by == "grant" else []
    names = dict(Grant.objects.filter(pk__in=grants).values_list("pk", "app_name"))
    most = max((line.cost for line in shown), default=0) or 1
    return [
        Line(
            name=_name(by, line.key[0], names),
            url=_calls(by, line.key[0], first, last),
            sums=line,
            share=round(100 * line.cost / whole.cost, 1) if whole.cost else 0.0,
            bar=100 * line.cost // most,
        )
        for line in shown
    ]


def _name(by: str, value: Any, names: dict[Any, str]) -> str:
    match by:
        case "grant":
            return f"{names[value]} · {str(value)[:8]}"
        case "day":
            return f"{date_of(value):%a %d %b %Y}"
    return str(value) or "no model"


def _calls(by: str, value: Any, first: dt.date, last: dt.date) -> str:
    """The list of these calls; none for those without a model, which no filter names."""
    if by == "day":
        first = last = date_of(value)
    elif not value:
        return ""
    query = {by: value} if by != "day" else {}
    query |= {"period_from": first.isoformat(), "period_to": last.isoformat()}
    return f"{reverse('admin:grants_call_changelist')}?{urlencode(query)}"
