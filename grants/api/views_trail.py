"""What owners read: their keys (never a secret), the ledger, the audit trail."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from ..models import AuditEvent, Call, ProviderKey
from .answers import CallAnswer, EventAnswer, KeyAnswer
from .base import OF_OWNERS, Endpoint, answers
from .bodies import CallQuery, EventQuery, Strict


class Keys(Endpoint):
    @extend_schema(
        operation_id="list_provider_keys",
        tags=["keys"],
        summary="The keys that you can grant with",
        responses=answers(200, KeyAnswer(many=True), *OF_OWNERS),
    )
    def get(self, request: Request) -> Response:
        """Your own ones, for `provider_key`; never their secrets."""
        keys = ProviderKey.objects.held_by(request.user)
        return Response(KeyAnswer(keys, many=True).data)


class Trail(ListAPIView, Endpoint):
    """``query_class``: the filters; each is a column's name."""

    query_class: type[Strict]
    paging = ("cursor", "page_size")

    def filters(self) -> dict[str, Any]:
        found = self.query(self.query_class).validated_data
        return {name: value for name, value in found.items() if name not in self.paging}


class Calls(Trail):
    serializer_class = CallAnswer
    query_class = CallQuery

    def get_queryset(self) -> Any:
        return Call.objects.visible_to(self.request.user).filter(**self.filters())

    @extend_schema(
        operation_id="list_calls",
        tags=["trail"],
        summary="The ledger, newest first",
        parameters=[CallQuery],
        responses=answers(200, CallAnswer(many=True), 400, *OF_OWNERS),
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """One row a call that was admitted. Times in microseconds where they say `_us`, money in nano-dollars."""
        return self.list(request)


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
