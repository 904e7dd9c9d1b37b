"""What apps call: ask for a grant, collect tokens, ask about a token, give it back."""

from __future__ import annotations

import datetime as dt
from functools import reduce
from typing import Any

from django.conf import settings
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from .. import policy, tokens
from ..models import Grant
from ..models.requesting import POLL_INTERVAL, REQUEST_LIFETIME
from ..terms import narrowest
from .answers import ForAppsAnswer, IntrospectionAnswer, RequestAnswer, TokenAnswer
from .base import OF_APPS, OF_BODIES, AppEndpoint, answers, token_answer
from .bodies import CollectBody, GrantRequestBody, TokenBody
from .errors import OAuthError
from .parsers import StrictFormParser, StrictJSONParser

_WHY_NOT_YET = {
    "authorization_pending": "The owner has not decided yet; ask again after the interval.",
    "slow_down": "You are asking too often; wait five seconds longer between two polls.",
    "access_denied": "The owner has denied the request.",
    "expired_token": "The request or the grant has expired.",
    "grant_revoked": "The owner has revoked the grant.",
}


class GrantRequests(AppEndpoint):
    throttle_scope = "grant-requests"

    @extend_schema(
        operation_id="request_grant",
        tags=["apps"],
        summary="Ask an owner for a grant",
        request=GrantRequestBody,
        responses=answers(201, RequestAnswer, *OF_BODIES, *OF_APPS),
    )
    def post(self, request: Request) -> Response:
        """Show `user_code` to your user, open `consent_url`, and poll `/api/tokens/` every `interval` seconds."""
        body = self.body(GrantRequestBody)
        provider = body.validated_data["provider"]
        grant, secret = Grant.request(provider=provider, terms=body.terms(), by=self.actor, **body.labels())
        answer = {
            "id": grant.pk,
            "status": grant.status,
            "request_secret": secret,
            "user_code": grant.user_code,
            "consent_url": grant.consent_url,
            "expires_in": int(REQUEST_LIFETIME.total_seconds()),
            "interval": int(POLL_INTERVAL.total_seconds()),
        }
        return Response(answer, status=201)


class Tokens(AppEndpoint):
    throttle_scope = "tokens"
    oauth = True
    field_names = {"token_lifetime": "lifetime"}

    @extend_schema(
        operation_id="collect_token",
        tags=["apps"],
        summary="Collect a token with the request secret",
        request=CollectBody,
        responses=answers(201, TokenAnswer, *OF_BODIES, *OF_APPS, oauth=True),
    )
    def post(self, request: Request) -> Response:
        """The first token, and every later one. Until the owner decides: 400 with a code of RFC 8628 §3.5.

        `invalid_grant`: no such grant, or another's secret; which of the two is not said.
        """
        body = self.body(CollectBody).validated_data
        grant = Grant.objects.select_related("allowance").filter(pk=body["grant"]).first()
        if grant is None or not grant.knows(body["request_secret"]):
            raise OAuthError("No grant with this id and secret.", "invalid_grant")
        error = grant.collect()
        if error is not None:
            raise OAuthError(_WHY_NOT_YET[error], error)
        return token_answer(grant, tokens.mint(grant, by=self.actor, **narrowing(body)))


def narrowing(body: dict[str, Any]) -> dict[str, Any]:
    """What a validated :class:`~.bodies.MintBody` holds, as :func:`tokens.mint` takes it."""
    found = {name: body[name] for name in ("lifetime", "models", "capabilities") if name in body}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in found.items()}


class TokenQuestion(AppEndpoint):
    """Whoever holds a token may ask about it and give it back: the token is the authorization, and is in the body."""

    oauth = True
    parser_classes = [StrictFormParser, StrictJSONParser]


class Introspect(TokenQuestion):
    throttle_scope = "introspect"

    @extend_schema(
        operation_id="introspect_token",
        tags=["apps"],
        summary="Ask about a token (RFC 7662)",
        request=TokenBody,
        responses=answers(200, IntrospectionAnswer, *OF_BODIES, *OF_APPS, oauth=True),
    )
    def post(self, request: Request) -> Response:
        """`active` says whether it is in force now: grant, token, both keys and the owner are.

        `limits` says what is left, for an app that plans: all tokens of a grant draw on the same limits.
        """
        try:
            claims = tokens.verify(self.body(TokenBody).validated_data["token"])
            allowed = policy.read(claims)
        except (tokens.InvalidToken, policy.Denied):
            return Response({"active": False})
        grant = Grant.objects.select_related("allowance").get(pk=claims.grant)
        return Response(
            {
                "active": True,
                "iss": settings.AIPASSPORT_URL,
                "aud": settings.AIPASSPORT_AUDIENCE,
                "sub": str(claims.grant),
                "client_id": str(claims.grant),
                "jti": claims.jti,
                "iat": claims.issued_at,
                "nbf": claims.not_before,
                "exp": claims.expires_at,
                "token_type": "Bearer",
                "scope": " ".join(sorted(allowed.capabilities)),
                "models": list(reduce(narrowest, allowed.models)),
                "provider": allowed.provider.id,
                **ForAppsAnswer(grant).data,
            }
        )


class Revoke(TokenQuestion):
    throttle_scope = "revoke"

    @extend_schema(
        operation_id="revoke_token",
        tags=["apps"],
        summary="Give a token back (RFC 7009)",
        request=TokenBody,
        responses=answers(200, {"type": "object", "maxProperties": 0}, *OF_BODIES, *OF_APPS, oauth=True),
    )
    def post(self, request: Request) -> Response:
        """It is refused from the very next call on. Unknown and expired tokens are answered alike."""
        try:
            claims = tokens.verify(self.body(TokenBody).validated_data["token"])
        except tokens.InvalidToken:
            return Response({})
        grant = Grant.objects.filter(pk=claims.grant).first()
        if grant is not None:
            ends = dt.datetime.fromtimestamp(claims.expires_at, dt.UTC)
            grant.revoke_token(claims.jti, expires_at=ends, by=self.actor)
        return Response({})
