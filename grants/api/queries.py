"""What can be asked of the ledger and its totals."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from ..clock import check_year, day_of
from ..models import Call
from ..search import Search
from ..spending import COLUMNS
from .bodies import PageQuery
from .fields import Id, Strict

_DAY = "A day in your time zone, such as 2026-11-24; included."


class Day(serializers.DateField):
    """A date, as the ledger's ``yyyymmdd``."""

    def to_internal_value(self, value: Any) -> Any:
        date = super().to_internal_value(value)
        try:
            check_year(date)
        except ValueError as error:
            raise serializers.ValidationError(str(error)) from error
        return day_of(date)


class Period(Strict):
    """``from`` and ``to``, which no class can name in Python."""

    def get_fields(self) -> dict[str, Any]:
        first = Day(required=False, source="first_day", help_text=_DAY)
        last = Day(required=False, source="last_day", help_text=_DAY)
        return super().get_fields() | {"from": first, "to": last}


class CallsQuery(Period):
    """Which calls."""

    grant = Id(required=False)
    app = serializers.CharField(required=False, max_length=100, help_text="Part of the app's name.")
    model = serializers.CharField(required=False, max_length=200)
    outcome = serializers.ChoiceField(Call.Outcome.choices, required=False)
    estimated = serializers.BooleanField(required=False, help_text="The provider did not say what was used.")
    overrun = serializers.BooleanField(required=False, help_text="It cost more than its bound.")

    def search(self) -> Search:
        return Search(**{name: self.validated_data[name] for name in self.validated_data if name not in _PAGING})


class CallQuery(CallsQuery, PageQuery):
    """Which calls, and which page of them."""


_PAGING = frozenset(PageQuery().fields)


class TotalsQuery(Period):
    """``by``: any of grant, model and day."""

    grant = Id(required=False)
    by = serializers.CharField(required=False, default="grant", help_text="Such as grant,model,day.")

    def validate_by(self, value: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(value.split(",")))
        if not set(names) <= set(COLUMNS):
            raise serializers.ValidationError(f"Any of {', '.join(COLUMNS)}, with commas between them.")
        return names
