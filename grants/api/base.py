"""What the endpoints have in common, and what the schema says of them all."""

from __future__ import annotations

from typing import Any, TypeVar

from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from ..actors import actor_of
from ..models import Actor, Grant
from ..tokens import Minted
from .answers import ErrorAnswer, OAuthErrorAnswer
from .authentication import NoCredential
from .throttling import AddressThrottle

S = TypeVar("S", bound=Serializer[Any])


class Endpoint(APIView):
    """``field_names``: what :mod:`grants` calls a field → what this endpoint's body calls it, for errors."""

    field_names: dict[str, str] = {"valid_for": "expires_in"}
    oauth = False
    via = "api"

    @property
    def actor(self) -> Actor:
        return actor_of(self.request._request, self.via)

    def body(self, kind: type[S]) -> S:
        """The request's body, validated."""
        serializer = kind(data=self.request.data)
        serializer.is_valid(raise_exception=True)
        return serializer

    def query(self, kind: type[S]) -> S:
        """The request's query, validated."""
        serializer = kind(data=self.request.query_params.dict())
        serializer.is_valid(raise_exception=True)
        return serializer

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "no-store")
        return response


class AppEndpoint(Endpoint):
    """Called without a credential: what the app holds stands in the body."""

    authentication_classes = [NoCredential]
    permission_classes = [AllowAny]
    throttle_classes = [AddressThrottle]
    via = "app"


def token_answer(grant: Grant, minted: Minted, **more: Any) -> Response:
    """A fresh token, with all that an app needs to use it."""
    answer = {
        "token": minted.token,
        "token_type": "Bearer",
        "expires_in": minted.lifetime,
        "base_url": grant.base_url,
        "grant": grant.pk,
    }
    return Response(answer | more, status=201)


def answers(status: int, answer: Any, *errors: int, oauth: bool = False) -> dict[int, Any]:
    """The ``responses`` of an operation, for its schema."""
    return {status: answer} | dict.fromkeys(errors, OAuthErrorAnswer if oauth else ErrorAnswer)


OF_BODIES = (400, 413, 415)
OF_APPS = (401, 429)
OF_OWNERS = (401, 403)
