"""Passwords are guessed slowly, and nobody locks an owner out by guessing.

Failed attempts are counted in the database, so that the rates hold over all workers:

- by network (``login``), whatever the account;
- by account and network (``login-user``), so that a stranger's attempts do not count against the owner's network;
- by account (``login-account``), the limit on guesses that come from many networks.

A browser that signed in to the account before holds a signed cookie. Its attempts are counted on a rate of its own
(``login-browser``), and it gets past the three others. When that rate is used up, it is treated like any other browser.

An attempt is counted before its password is looked at, and taken back when the password was right. So parallel attempts
cannot pass a limit together. A refused attempt looks up no user and hashes no password; unknown usernames count like
known ones.
"""

from __future__ import annotations

import logging
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.signals import user_logged_in
from django.core.exceptions import PermissionDenied
from django.core.signing import BadSignature, TimestampSigner
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponseBase

from .actors import address_of
from .models import Actor, AuditEvent, RateWindow
from .models.throttle import Hit
from .networks import block_of

logger = logging.getLogger(__name__)

BROWSER_LIFETIME = timedelta(days=180)
MAX_PASSWORD_CHECKS = 20  # at a time in a worker: a hash takes about 0.3 s of a CPU
_BUSY = 5  # seconds to wait when so many are under way
_COOKIE = "aipassport_browser_"
_REASONS = {
    "login": "There were too many failed attempts to sign in from your network.",
    "login-user": "There were too many failed attempts to sign in to this account from your network.",
    "login-account": "There were too many failed attempts to sign in to this account.",
    "busy": "Too many people are signing in at the moment.",
}
_password_checks = threading.BoundedSemaphore(MAX_PASSWORD_CHECKS)


class Refused(NamedTuple):
    """Why a password was not looked at. ``seconds``: when to try again."""

    reason: str
    seconds: int


class ThrottledBackend(ModelBackend):
    """Django's user table, within the rates of ``AIPASSPORT_RATES``.

    A refused attempt is a failed one for Django; :func:`refusal` tells the view that it was refused, and why. Without a
    request (a command) nothing is counted.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> Any:
        if request is None or username is None or password is None:
            return super().authenticate(request, username=username, password=password, **kwargs)
        browser = _known_browser(request, username)
        with _password_check(request, known=browser is not None):
            counted = _count(request, username, browser)
            user = super().authenticate(request, username=username, password=password, **kwargs)
            if user is not None:
                for hit in counted:
                    RateWindow.objects.give_back(hit)
            return user


def refusal(request: HttpRequest) -> Refused | None:
    """Whether a sign-in was refused in this request because there were too many."""
    return getattr(request, "sign_in_refused", None)


def answer_sign_in(request: HttpRequest, response: HttpResponseBase) -> None:
    """Give the browser its cookie after a sign-in; make the page of a refused one a 429."""
    user = getattr(request, "signed_in_user", None)
    if user is not None:
        _remember_browser(response, user)
    refused = refusal(request)
    if refused is not None and response.status_code == 200:
        response.status_code = 429
        response.headers["Retry-After"] = str(refused.seconds)


# Counting


@contextmanager
def _password_check(request: HttpRequest, *, known: bool) -> Iterator[None]:
    """A limit on the hashes that wait for a CPU; known browsers are let in above it."""
    entered = _password_checks.acquire(blocking=False)
    if not entered and not known:
        _refuse(request, "busy", _BUSY)
    try:
        yield
    finally:
        if entered:
            _password_checks.release()


def _count(request: HttpRequest, username: str, browser: str | None) -> list[Hit]:
    """Count an attempt. Raises where one of the rates is used up; the wider rates are then not counted on."""
    if browser is not None:
        own = RateWindow.objects.count_one("login-browser", browser, settings.AIPASSPORT_RATES["login-browser"])
        if own.wait is None:
            return [own]
    account, block = _account(username), block_of(address_of(request))
    counted = []
    for scope, who in (("login", block), ("login-user", f"{account}\0{block}"), ("login-account", account)):
        hit = RateWindow.objects.count_one(scope, who, settings.AIPASSPORT_RATES[scope])
        if hit.wait is not None:
            if hit.first_refused:
                _record(request, scope, username, block)
            _refuse(request, scope, hit.wait)
        counted.append(hit)
    return counted


def _account(username: str) -> str:
    """What counts as one account: spellings that some way to sign in might take for the same username."""
    return unicodedata.normalize("NFKC", username).casefold().strip()


def _refuse(request: HttpRequest, scope: str, seconds: int) -> NoReturn:
    request.sign_in_refused = Refused(_REASONS[scope], seconds)  # type: ignore[attr-defined]
    raise PermissionDenied(_REASONS[scope])


def _record(request: HttpRequest, scope: str, username: str, block: str) -> None:
    """The start of a throttle, once a window. In the trail only for an account: that takes 30 attempts an entry.

    An unknown username is not written down (people type passwords there), but takes as long as a known one.
    """
    logger.warning("sign-in: rate %s is used up, last from %s", scope, block or "no address")
    if scope == "login":
        return
    user = get_user_model()._default_manager.filter(username=username).first()
    AuditEvent.record(
        AuditEvent.Action.SIGN_IN_THROTTLED,
        Actor("sign-in", address=address_of(request)),
        owner=user,
        account=user.get_username() if user else "unknown",
        rate=scope,
    )


# Known browsers


def _known_browser(request: HttpRequest, username: str) -> str | None:
    """The id of a browser that signed in to this account before, by its cookie."""
    if not any(name.startswith(_COOKIE) for name in request.COOKIES):
        return None
    users = get_user_model()
    user = users._default_manager.filter(username=username).first() or users()  # equal work for unknown usernames
    try:
        return _signer(user).unsign(request.COOKIES.get(f"{_COOKIE}{user.pk}", ""), max_age=BROWSER_LIFETIME)
    except BadSignature:
        return None


def _remember_browser(response: HttpResponseBase, user: Any) -> None:
    response.set_cookie(
        f"{_COOKIE}{user.pk}",
        _signer(user).sign(secrets.token_urlsafe(12)),
        max_age=BROWSER_LIFETIME,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def _signer(user: Any) -> TimestampSigner:
    """Of one user's browsers. What ends all sessions of the user, such as a new password, ends their cookies too."""
    return TimestampSigner(salt=f"grants.logins.browser:{user.pk}:{user.get_session_auth_hash()}")


@receiver(user_logged_in)
def signed_in(request: HttpRequest, user: Any, **kwargs: Any) -> None:
    request.signed_in_user = user  # type: ignore[attr-defined]
