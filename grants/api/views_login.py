"""Owners' own tokens, for scripts: a password becomes an access and a refresh token."""

from __future__ import annotations

from django.contrib.auth import authenticate
from django.contrib.auth.models import update_last_login
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import AuthenticationFailed, Throttled
from rest_framework.request import Request
from rest_framework.response import Response

from ..logins import refusal
from .answers import LoginAnswer, RefreshAnswer
from .authentication import OwnerRefreshToken, OwnerTokenAuthentication, read_token
from .base import OF_APPS, OF_BODIES, AppEndpoint, answers
from .bodies import LoginBody, RefreshBody


class Login(AppEndpoint):
    throttle_classes = []  # the backend counts

    @extend_schema(
        operation_id="login",
        tags=["login"],
        summary="Owner tokens for a password",
        request=LoginBody,
        responses=answers(200, LoginAnswer, *OF_BODIES, *OF_APPS),
    )
    def post(self, request: Request) -> Response:
        """Send `access` as `Authorization: Bearer …`; `refresh` gets the next one. A new password ends them both."""
        body = self.body(LoginBody).validated_data
        user = authenticate(request._request, username=body["username"], password=body["password"])
        refused = refusal(request._request)
        if refused is not None:
            raise Throttled(refused.seconds, refused.reason)
        if user is None or not user.is_staff:
            raise AuthenticationFailed("No owner with this username and password.", "invalid_credentials")
        update_last_login(type(user), user)
        refresh = OwnerRefreshToken.for_user(user)
        return Response({"access": str(refresh.access_token), "refresh": str(refresh)})


class Refresh(AppEndpoint):
    throttle_scope = "refresh"

    @extend_schema(
        operation_id="refresh_login",
        tags=["login"],
        summary="A new access token",
        request=RefreshBody,
        responses=answers(200, RefreshAnswer, *OF_BODIES, *OF_APPS),
    )
    def post(self, request: Request) -> Response:
        """The refresh token stays good until its own end, or until the password changes."""
        refresh = read_token(OwnerRefreshToken, self.body(RefreshBody).validated_data["refresh"])
        OwnerTokenAuthentication().get_user(refresh)
        return Response({"access": str(refresh.access_token)})
