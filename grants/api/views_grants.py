"""What owners do with grants. Every change is a button of the model; what is not theirs is not found."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.generics import ListAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from .. import tokens
from ..models import Grant, ProviderKey
from .answers import GrantAnswer, IssuedTokenAnswer, MintedAnswer, RevokedTokenAnswer, SecretAnswer
from .base import OF_BODIES, OF_OWNERS, Endpoint, answers, token_answer
from .bodies import ApproveBody, ChangeBody, IssueBody, MintBody, NothingBody, PageQuery, terms_in
from .errors import Conflict
from .pagination import NewestGrantsFirst
from .views_apps import narrowing

_OF_ONE = (*OF_OWNERS, 404)
_CHANGES = (*OF_BODIES, *_OF_ONE, 409)
JTI = OpenApiParameter("jti", {"type": "string", "pattern": "^[0-9a-f]{32}$"}, OpenApiParameter.PATH)


class GrantEndpoint(Endpoint):
    """One grant of the caller's."""

    def grant(self, pk: UUID) -> Grant:
        return self._find(Grant.objects.owned_by(self.request.user), pk)

    def request_or_grant(self, pk: UUID) -> Grant:
        """One of the caller's, or a request that nobody has decided: the app gave its id with the consent URL."""
        return self._find(Grant.objects.open_to(self.request.user), pk)

    @staticmethod
    def _find(grants: Any, pk: UUID) -> Grant:
        return get_object_or_404(grants.select_related("allowance", "owner"), pk=pk)

    def own_key(self, pk: UUID) -> ProviderKey:
        """Whoever consents does so with a key of their own, superuser or not."""
        key = ProviderKey.objects.held_by(self.request.user).filter(pk=pk).first()
        if key is None:
            raise ValidationError({"provider_key": ["Not one of your keys."]})
        return key


def must_be_pending(grant: Grant) -> None:
    if grant.status != Grant.Status.PENDING:
        raise Conflict(f"The request is not pending any more; it is {grant.status}.", "not_pending")


def must_be_live(grant: Grant) -> None:
    if grant.status != Grant.Status.APPROVED:
        raise Conflict(f"The grant is {grant.status}.", f"grant_{grant.status}")


class Grants(ListAPIView, GrantEndpoint):
    serializer_class = GrantAnswer
    pagination_class = NewestGrantsFirst

    def get_queryset(self) -> Any:
        return Grant.objects.owned_by(self.request.user).select_related("allowance", "owner")

    @extend_schema(
        operation_id="list_grants",
        tags=["grants"],
        summary="Your grants, newest first",
        parameters=[PageQuery],
        responses=answers(200, GrantAnswer(many=True), 400, *OF_OWNERS),
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """With their terms and what of them is used."""
        self.query(PageQuery)
        return self.list(request)

    @extend_schema(
        operation_id="issue_grant",
        tags=["grants"],
        summary="Grant without being asked",
        request=IssueBody,
        responses=answers(201, GrantAnswer, *OF_BODIES, *OF_OWNERS),
    )
    def post(self, request: Request) -> Response:
        """On a key of your own, in force at once. Without `expires_in`: 30 days."""
        body = self.body(IssueBody)
        key = self.own_key(body.validated_data["provider_key"])
        grant = Grant.issue(key=key, terms=body.terms(), by=self.actor, **body.labels())
        return Response(GrantAnswer(grant).data, status=201)


class OneGrant(GrantEndpoint):
    @extend_schema(
        operation_id="read_grant",
        tags=["grants"],
        summary="One grant, or a pending request whose id you were given",
        responses=answers(200, GrantAnswer, *_OF_ONE),
    )
    def get(self, request: Request, pk: UUID) -> Response:
        """The app's name, URL and reason are what the app says: nobody has verified them."""
        return Response(GrantAnswer(self.request_or_grant(pk)).data)

    @extend_schema(
        operation_id="change_grant",
        tags=["grants"],
        summary="New terms for a live grant",
        request=ChangeBody,
        responses=answers(200, GrantAnswer, *_CHANGES),
    )
    def patch(self, request: Request, pk: UUID) -> Response:
        """Takes effect with the next call. 409 with `grant_revoked`, `grant_expired`, … where it is not live."""
        grant = self.grant(pk)
        must_be_live(grant)
        body = dict(self.body(ChangeBody).validated_data)
        expires_at = body.get("expires_at")
        if "expires_in" in body:
            expires_at = timezone.now() + dt.timedelta(seconds=body.pop("expires_in"))
        if not grant.change(terms=grant.terms.with_(**terms_in(body)), by=self.actor, expires_at=expires_at):
            must_be_live(grant)
        return Response(GrantAnswer(grant).data)


class Approve(GrantEndpoint):
    @extend_schema(
        operation_id="approve_grant",
        tags=["grants"],
        summary="Approve a pending request, or less of it",
        request=ApproveBody,
        responses=answers(200, GrantAnswer, *_CHANGES),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """What is given narrows the request and never widens it. 409 `not_pending` where it was decided before."""
        grant = self.request_or_grant(pk)
        must_be_pending(grant)
        body = self.body(ApproveBody).validated_data
        key = self.own_key(body["provider_key"])
        if "user_code" in body and not grant.confirms(body["user_code"], self.actor):
            raise ValidationError({"user_code": ["Not the code of this request: it may be somebody else's."]})
        if not grant.approve(key=key, terms=grant.terms.with_(**terms_in(body)), by=self.actor):
            must_be_pending(grant)
        return Response(GrantAnswer(grant).data)


class Deny(GrantEndpoint):
    @extend_schema(
        operation_id="deny_grant",
        tags=["grants"],
        summary="Deny a pending request",
        request=None,
        responses=answers(200, GrantAnswer, *_CHANGES),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """409 `not_pending` where it was decided before."""
        self.body(NothingBody)
        grant = self.request_or_grant(pk)
        if not grant.deny(self.actor):
            must_be_pending(grant)
        return Response(GrantAnswer(grant).data)


class RevokeGrant(GrantEndpoint):
    @extend_schema(
        operation_id="revoke_grant",
        tags=["grants"],
        summary="Revoke a grant",
        request=None,
        responses=answers(200, GrantAnswer, *_CHANGES),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """After this answer no call is admitted. A second request changes nothing. 409 with `grant_pending` or
        `grant_denied`: the grant was never approved.
        """
        self.body(NothingBody)
        grant = self.grant(pk)
        if not grant.revoke(self.actor) and grant.revoked_at is None:
            must_be_live(grant)
        return Response(GrantAnswer(grant).data)


class Reopen(GrantEndpoint):
    @extend_schema(
        operation_id="reopen_grant",
        tags=["grants"],
        summary="Reopen a grant after an overrun",
        request=None,
        responses=answers(200, GrantAnswer, *_CHANGES),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """A call that costs more than its bound closes its grant. See that call first (`GET /api/calls/?overrun=true`).

        A second request changes nothing. 409 with `grant_revoked`, `grant_expired`, …: the grant is not active.
        """
        self.body(NothingBody)
        grant = self.grant(pk)
        if not grant.reopen(self.actor):
            must_be_live(grant)
        return Response(GrantAnswer(grant).data)


class RotateSecret(GrantEndpoint):
    @extend_schema(
        operation_id="rotate_request_secret",
        tags=["grants"],
        summary="A new request secret for the app",
        request=None,
        responses=answers(200, SecretAnswer, *_CHANGES),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """The app collects its tokens with this secret. The old secret stops working; issued tokens stay valid."""
        self.body(NothingBody)
        grant = self.grant(pk)
        return Response({"grant": grant.pk, "request_secret": grant.rotate_request_secret(self.actor)})


class GrantTokens(ListAPIView, GrantEndpoint):
    serializer_class = IssuedTokenAnswer
    field_names = {"token_lifetime": "lifetime"}

    def get_queryset(self) -> Any:
        return self.grant(self.kwargs["pk"]).issued_tokens()

    @extend_schema(
        operation_id="list_tokens",
        tags=["grants"],
        summary="The tokens issued, newest first",
        parameters=[PageQuery],
        responses=answers(200, IssuedTokenAnswer(many=True), 400, *_OF_ONE),
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """From the audit trail, by `jti`. The tokens themselves are never stored."""
        self.query(PageQuery)
        return self.list(request)

    @extend_schema(
        operation_id="mint_token",
        tags=["grants"],
        summary="Issue a token",
        request=MintBody,
        responses=answers(201, MintedAnswer, *_CHANGES),
    )
    def post(self, request: Request, pk: UUID) -> Response:
        """The token is shown once and never stored. It never allows more, or lives longer, than the grant."""
        grant = self.grant(pk)
        minted = tokens.mint(grant, by=self.actor, **narrowing(self.body(MintBody).validated_data))
        return token_answer(grant, minted, jti=minted.jti, expires_at=minted.expires_at)


class RevokeToken(GrantEndpoint):
    @extend_schema(
        operation_id="revoke_issued_token",
        tags=["grants"],
        summary="Revoke one token",
        request=None,
        parameters=[JTI],
        responses=answers(200, RevokedTokenAnswer, *OF_BODIES, *_OF_ONE),
    )
    def post(self, request: Request, pk: UUID, jti: str) -> Response:
        """A second request changes nothing. 404: this grant never issued that `jti`."""
        self.body(NothingBody)
        grant = self.grant(pk)
        issued = get_object_or_404(grant.issued_tokens(), jti=jti)
        ends = dt.datetime.fromisoformat(issued.detail["expires_at"])
        grant.revoke_token(jti, expires_at=ends, by=self.actor)
        return Response({"jti": jti, "revoked": True})
