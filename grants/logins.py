"""Passwords are guessed slowly: attempts are counted by address and by username, over all workers."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from .actors import network_of
from .models import RateWindow


def seconds_to_wait(request: HttpRequest, username: str) -> int | None:
    """Count one attempt. ``None`` when the password may be looked at, else the seconds until it may.

    Unknown usernames count like known ones, so that the answer tells nothing about them.
    """
    hit = RateWindow.objects.hit
    return hit("login", network_of(request), settings.AIPASSPORT_RATES["login"]) or hit(
        "login-user", username, settings.AIPASSPORT_RATES["login-user"]
    )


class ThrottledBackend(ModelBackend):
    """Django's user table, for the sign-in page: beyond the rate no password is looked at, right or wrong.

    Without a request (a command, or the API, which counts for itself to answer 429) nothing is counted.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        if request is not None and username is not None and seconds_to_wait(request, username) is not None:
            raise PermissionDenied("Too many attempts to sign in.")
        return super().authenticate(request, username=username, password=password, **kwargs)
