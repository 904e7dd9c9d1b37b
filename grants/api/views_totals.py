"""What was used and spent, by grant, model and day."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from .. import money
from ..clock import date_of
from ..models import Grant
from ..pace import Unhurried
from ..spending import SUMS, Sums, TooMany, spending
from .base import OF_OWNERS, Endpoint, answers
from .queries import TotalsQuery


class TotalAnswer(serializers.Serializer[Any]):
    """Sums of finished calls. Which of the first four it has is what it was asked for `by`."""

    grant = serializers.UUIDField(required=False)
    app = serializers.CharField(required=False, help_text="The app's name; comes with `grant`.")
    model = serializers.CharField(required=False)
    day = serializers.DateField(required=False, help_text="In your time zone, of the admission.")
    calls = serializers.IntegerField()
    requests = serializers.IntegerField(help_text="Those that count.")
    failed = serializers.IntegerField(help_text="Ended otherwise than `ok`.")
    estimated = serializers.IntegerField(help_text="The provider did not say what was used.")
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    cached_tokens = serializers.IntegerField()
    cost = serializers.CharField(help_text="Dollars, where a price is known.")


class TotalsAnswer(serializers.Serializer[Any]):
    totals = TotalAnswer(many=True)


class Totals(Endpoint):
    @extend_schema(
        operation_id="sum_calls",
        tags=["trail"],
        summary="What was used and spent, by grant, model and day",
        parameters=[TotalsQuery],
        responses=answers(200, TotalsAnswer, 400, *OF_OWNERS),
    )
    def get(self, request: Request) -> Response:
        """Dearest first. Open calls are in it when they have ended; purged ones stay in it."""
        asked = dict(self.query(TotalsQuery).validated_data)
        by = asked.pop("by")
        try:
            lines = spending(request.user, by, **asked)
        except TooMany as error:
            raise serializers.ValidationError(
                {"by": ["More lines than one answer holds: fewer columns, one grant, or a shorter period."]}
            ) from error
        apps = _apps(lines, by)
        return Response({"totals": [_line(line, by, apps) for line in Unhurried(lines)]})


def _apps(lines: list[Sums], by: Sequence[str]) -> dict[Any, str]:
    """Grant → its app's name."""
    if "grant" not in by:
        return {}
    place = by.index("grant")
    return dict(Grant.objects.filter(pk__in={line.key[place] for line in lines}).values_list("pk", "app_name"))


def _line(line: Sums, by: Sequence[str], apps: dict[Any, str]) -> dict[str, Any]:
    """As :class:`TotalAnswer` says; a serializer would hold up every stream while it writes thousands of them."""
    found = dict(zip(by, line.key, strict=True))
    if "day" in found:
        found["day"] = date_of(found["day"]).isoformat()
    if "grant" in found:
        found["app"] = apps[found["grant"]]
    return found | {name: getattr(line, name) for name in SUMS} | {"cost": money.dollars(line.cost)}
