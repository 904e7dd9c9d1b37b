"""From a header to verified claims."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser
from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from grants import tokens

from .exceptions import Unauthorized
from .inbound import token_of


class DelegatedToken(BaseAuthentication):
    """The relay's only credential. ``request.auth`` becomes the token's :class:`~grants.tokens.Claims`."""

    def authenticate(self, request: Request) -> tuple[AnonymousUser, tokens.Claims]:
        try:
            return AnonymousUser(), tokens.verify(token_of(request._request))
        except tokens.InvalidToken as error:
            raise Unauthorized(error.message, code=error.code) from error

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="AIPassport"'
