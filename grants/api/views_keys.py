"""What owners do with their provider keys over REST: read them (never a secret), name them, price them."""

from __future__ import annotations

from uuid import UUID

from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from ..models import ProviderKey
from .answers import KeyAnswer
from .base import OF_BODIES, OF_OWNERS, Endpoint, answers
from .bodies import KeyBody


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


class OneKey(Endpoint):
    def key(self, pk: UUID) -> ProviderKey:
        return get_object_or_404(ProviderKey.objects.owned_by(self.request.user), pk=pk)

    @extend_schema(
        operation_id="read_provider_key",
        tags=["keys"],
        summary="One key, with its prices",
        responses=answers(200, KeyAnswer, *OF_OWNERS, 404),
    )
    def get(self, request: Request, pk: UUID) -> Response:
        """Never its secret."""
        return Response(KeyAnswer(self.key(pk)).data)

    @extend_schema(
        operation_id="change_provider_key",
        tags=["keys"],
        summary="Another label, other prices",
        request=KeyBody,
        responses=answers(200, KeyAnswer, *OF_BODIES, *OF_OWNERS, 404),
    )
    def patch(self, request: Request, pk: UUID) -> Response:
        """In force with the next call: it is bounded and charged at the new prices. Open calls keep their bounds."""
        key = self.key(pk)
        now = {name: getattr(key, name) for name in ProviderKey.CHANGEABLE}
        key.change(**now | self.body(KeyBody).validated_data, by=self.actor)
        return Response(KeyAnswer(key).data)
