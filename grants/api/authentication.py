"""Who calls: owners with a session or a token of their own, apps with nothing. The two are kept apart.

A delegated token (:mod:`grants.tokens`) is a credential at the relay and nowhere here: it is signed with another
algorithm and key, for another audience, and of another type than an owner's token.
"""

from __future__ import annotations

from typing import Any, TypeVar

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

T = TypeVar("T", bound=Token)
_CHALLENGE = 'Bearer realm="api"'


class OwnerAccessToken(AccessToken):
    """What an owner's script sends. HS256 under a key derived from the secret key."""

    token_type = "owner-access"  # noqa: S105  a type


class OwnerRefreshToken(RefreshToken):
    """What an owner's script gets new access tokens with; no credential for anything else."""

    token_type = "owner-refresh"  # noqa: S105  a type
    access_token_class = OwnerAccessToken


def read_token(kind: type[T], raw: Any) -> T:
    """A verified owner token of this ``kind``.

    Raises:
        AuthenticationFailed: it is anything else.
    """
    try:
        return kind(raw)
    except TokenError as error:
        raise AuthenticationFailed("The token is not valid, or has expired.", "invalid_token") from error


class OwnerTokenAuthentication(JWTAuthentication):
    """An owner's access token in ``Authorization: Bearer``. Whatever else stands in that header is refused."""

    def get_raw_token(self, header: bytes) -> bytes | None:
        scheme, *values = header.split() or [b""]
        if scheme.lower() != b"bearer" or len(values) != 1:
            raise AuthenticationFailed("The header reads Authorization: Bearer <owner token>.", "bad_authorization")
        return values[0]

    def get_validated_token(self, raw_token: bytes) -> Token:
        return read_token(OwnerAccessToken, raw_token)

    def authenticate_header(self, request: Request) -> str:
        return _CHALLENGE


class NoCredential(BaseAuthentication):
    """For what apps call: what they hold goes in the body. A credential in the header is a mistake, and is said so."""

    def authenticate(self, request: Request) -> None:
        if get_authorization_header(request):
            raise AuthenticationFailed("This endpoint takes no Authorization header.", "credential_not_accepted")

    def authenticate_header(self, request: Request) -> str:
        return _CHALLENGE


class IsOwner(BasePermission):
    """Active staff. What each of them sees is for the querysets to say."""

    message = "This needs an owner's account."

    def has_permission(self, request: Request, view: Any) -> bool:
        return bool(request.user.is_active and request.user.is_staff)


class OwnerTokenScheme(OpenApiAuthenticationExtension):
    target_class = OwnerTokenAuthentication
    name = "ownerToken"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        return {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "An owner's access token, from /api/auth/token/. A delegated token is refused here.",
        }


class SessionScheme(OpenApiAuthenticationExtension):
    target_class = "rest_framework.authentication.SessionAuthentication"
    name = ["session", "csrf"]

    def get_security_definition(self, auto_schema: Any) -> list[dict[str, Any]]:
        return [
            {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME},
            {
                "type": "apiKey",
                "in": "header",
                "name": "X-CSRFToken",
                "description": "With a session, on everything that changes something.",
            },
        ]


class NoCredentialScheme(OpenApiAuthenticationExtension):
    target_class = NoCredential
    name: list[str] = []

    def get_security_requirement(self, auto_schema: Any) -> list[Any]:
        return []

    def get_security_definition(self, auto_schema: Any) -> list[Any]:
        return []
