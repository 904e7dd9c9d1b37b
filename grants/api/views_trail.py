"""What owners read: the ledger, the audit trail."""

from __future__ import annotations

from typing import Any

from django.http import StreamingHttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from ..exports import csv_response
from ..models import AuditEvent
from .answers import CallAnswer, EventAnswer
from .base import OF_OWNERS, Endpoint, answers
from .bodies import EventQuery, Strict
from .pagination import CallPages
from .queries import CallQuery, CallsQuery


class Trail(ListAPIView, Endpoint):
    """``query_class``: the filters; each is a column's name."""

    query_class: type[Strict]
    paging = ("cursor", "page_size")

    def filters(self) -> dict[str, Any]:
        found = self.query(self.query_class).validated_data
        return {name: value for name, value in found.items() if name not in self.paging}


class Calls(Trail):
    serializer_class = CallAnswer
    pagination_class = CallPages

    def get_queryset(self) -> Any:
        return self.query(CallQuery).search()

    @extend_schema(
        operation_id="list_calls",
        tags=["trail"],
        summary="The ledger, newest first",
        parameters=[CallQuery],
        responses=answers(200, CallAnswer(many=True), 400, *OF_OWNERS),
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One row a call that was admitted. Times in microseconds where they say `_us`, money in dollars.

        What is rare in millions of calls is looked for in parts: a page that has a `next` may be short, or empty.
        """
        return self.list(request)


class CallsFile(Endpoint):
    @extend_schema(
        operation_id="export_calls",
        tags=["trail"],
        summary="The ledger as CSV, newest first",
        parameters=[CallsQuery],
        responses=answers(200, OpenApiTypes.STR, 400, *OF_OWNERS) | {(200, "text/csv"): OpenApiTypes.STR},
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Everything that the filters let through, streamed. Money in dollars, times as ISO 8601.

        Names that a spreadsheet would take for a formula have an apostrophe before them.
        """
        return csv_response(request.user, self.query(CallsQuery).search())


class Events(Trail):
    serializer_class = EventAnswer
    query_class = EventQuery

    def get_queryset(self) -> Any:
        return AuditEvent.objects.visible_to(self.request.user).filter(**self.filters())

    @extend_schema(
        operation_id="list_events",
        tags=["trail"],
        summary="The audit trail, newest first",
        parameters=[EventQuery],
        responses=answers(200, EventAnswer(many=True), 400, *OF_OWNERS),
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Who did what, when, from where, concerning your keys and grants."""
        return self.list(request)
