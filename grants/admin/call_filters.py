"""Filters of the list of calls. They show what is chosen; :func:`search_in` reads it from the query."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

from django.contrib.admin import SimpleListFilter
from django.http import HttpRequest
from unfold.contrib.filters.admin import DropdownFilter, TextFilter
from unfold.contrib.filters.forms import RangeDateForm

from ..clock import check_year, day_number, day_of
from ..models import Call, Preferences
from ..search import Search
from .filters import OutcomeFilter, OwnGrantFilter

_YES_OR_NO = {"yes": True, "no": False}
_DAYS = {"today": 0, "yesterday": 1, "week": 6, "month": 29}


class _Shown:
    """The list asks :mod:`grants.search`, not the filters, for its rows."""

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset


class CallGrantFilter(_Shown, OwnGrantFilter):
    pass


class CallOutcomeFilter(_Shown, OutcomeFilter):
    pass


class AppFilter(_Shown, TextFilter):
    title = "app"
    parameter_name = "app"


class ModelFilter(_Shown, TextFilter):
    title = "model"
    parameter_name = "model"


class RouteFilter(_Shown, TextFilter):
    title = "route"
    parameter_name = "route"


class YesOrNoFilter(_Shown, DropdownFilter):
    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("yes", "Yes"), ("no", "No")]


class EstimatedFilter(YesOrNoFilter):
    title = "estimated"
    parameter_name = "estimated"


class OverrunFilter(YesOrNoFilter):
    title = "overrun"
    parameter_name = "overrun"


class DayFilter(_Shown, DropdownFilter):
    title = "day"
    parameter_name = "day"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("today", "Today"), ("yesterday", "Since yesterday"), ("week", "7 days"), ("month", "30 days")]


class PeriodFilter(_Shown, SimpleListFilter):
    """From one day to another."""

    title = "period"
    parameter_name = "period"
    template = "unfold/filters/filters_date_range.html"

    def has_output(self) -> bool:
        return True

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return []

    def __init__(self, request: HttpRequest, params: dict[str, Any], model: Any, model_admin: Any) -> None:
        super().__init__(request, params, model, model_admin)
        for name in PERIOD:
            if name in params:
                self.used_parameters[name] = params.pop(name)[-1]

    def expected_parameters(self) -> list[str | None]:
        return list(PERIOD)

    def choices(self, changelist: Any) -> Iterator[Any]:
        yield {"form": RangeDateForm(name=self.parameter_name, data=self.used_parameters)}


PERIOD = ("period_from", "period_to")
FILTERS = (
    CallGrantFilter,
    AppFilter,
    ModelFilter,
    CallOutcomeFilter,
    EstimatedFilter,
    OverrunFilter,
    DayFilter,
    PeriodFilter,
    RouteFilter,
)
NAMES = {*(item.parameter_name for item in FILTERS), *PERIOD}


def search_in(query: Mapping[str, str], user: Any) -> Search | None:
    """What the query of the list, or of its export, asks for; ``None``: a value is no choice, so nothing is found."""
    told = {name: value for name, value in query.items() if name in NAMES and value}
    if not all(value.isprintable() for value in told.values()):
        return None  # PostgreSQL cannot store NUL characters
    try:
        first, last = _days(told, user)
        return Search(
            grant=UUID(told["grant"]) if "grant" in told else None,
            app=told.get("app", ""),
            model=told.get("model", ""),
            route=told.get("route", ""),
            outcome=Call.Outcome(told["outcome"]).value if "outcome" in told else "",
            estimated=_YES_OR_NO[told["estimated"]] if "estimated" in told else None,
            overrun=_YES_OR_NO[told["overrun"]] if "overrun" in told else None,
            first_day=first,
            last_day=last,
        )
    except (ValueError, KeyError):
        return None


def _days(told: Mapping[str, str], user: Any) -> tuple[int | None, int | None]:
    """The first and the last day, in the time zone of who asks.

    Raises:
        ValueError, KeyError: no days.
    """
    first, last = (_day(told[name]) if name in told else None for name in PERIOD)
    if "day" in told:
        back = dt.timedelta(days=_DAYS[told["day"]])
        day = day_number(dt.datetime.now(dt.UTC) - back, Preferences.of(user).time_zone)
        first = day if first is None else max(first, day)
    return first, last


def _day(text: str) -> int:
    date = dt.date.fromisoformat(text)
    check_year(date)
    return day_of(date)
