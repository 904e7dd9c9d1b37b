"""How an app asks for a grant, and proves later that it was the one that asked: request secret and user code."""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
from hashlib import sha256

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from ..terms import DAY
from .allowance import Allowance
from .audit import Actor, AuditEvent
from .throttle import RateWindow

REQUEST_LIFETIME = dt.timedelta(minutes=15)
POLL_INTERVAL = dt.timedelta(seconds=5)
MAX_WRONG_CODES = 5
_USER_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, nothing to mistake


class Requested(models.Model):
    """The part of a grant that the app which asked for it deals with (no secret in clear: a hash)."""

    request_secret_hash = models.CharField(max_length=64, blank=True)
    user_code = models.CharField(max_length=9, blank=True)
    request_expires_at = models.DateTimeField(null=True)
    request_network = models.CharField(max_length=50, blank=True, help_text="The IPv4 /24 or IPv6 /48 of the app.")
    opened_at = models.DateTimeField(null=True, help_text="When an owner first looked at the request.")
    polled_at = models.DateTimeField(null=True)

    class Meta:
        abstract = True

    @property
    def status(self) -> str:
        raise NotImplementedError

    def deny(self, by: Actor) -> bool:
        raise NotImplementedError

    def _lock(self) -> dt.datetime:
        """Lock the grant's row and its counted row. Returns the time, read once both are locked.

        Whatever depends on the time comes after it: an UPDATE that compares a clock read before its wait would act on
        a grant that has expired meanwhile. Must run in a transaction. On SQLite its BEGIN IMMEDIATE is the lock.
        """
        for rows in (type(self)._default_manager.filter(pk=self.pk), Allowance.objects.filter(grant=self.pk)):
            rows.order_by().select_for_update(no_key=True).values_list("pk").first()
        return timezone.now()

    def _begin_request(self, now: dt.datetime) -> str:
        """Make this a request that ends some time after ``now``; returns its secret. The caller saves."""
        letters = "".join(secrets.choice(_USER_CODE_ALPHABET) for _ in range(8))
        self.user_code = f"{letters[:4]}-{letters[4:]}"
        self.request_expires_at = now + REQUEST_LIFETIME
        return self._new_secret()

    def _new_secret(self) -> str:
        secret = secrets.token_urlsafe(32)
        self.request_secret_hash = _secret_hash(secret)
        return secret

    def rotate_request_secret(self, by: Actor) -> str:
        """A new request secret; the old one is worth nothing from now on. Returned once, stored hashed.

        Raises:
            ValidationError: the grant is not live.
        """
        secret = self._new_secret()
        with transaction.atomic():
            self._lock()
            live = type(self).objects.live()  # type: ignore[attr-defined]
            if live.filter(pk=self.pk).update(request_secret_hash=self.request_secret_hash) != 1:
                raise ValidationError(f"The grant is {self.status}.", code=f"grant_{self.status}")
            AuditEvent.record(AuditEvent.Action.GRANT_SECRET_ROTATED, by, grant=self)  # type: ignore[arg-type]
        return secret

    def opened(self) -> None:
        """An owner looks at the request: from now on it does not make room for others."""
        unopened = type(self)._default_manager.filter(pk=self.pk, opened_at=None)
        unopened.update(opened_at=timezone.now())

    def shows(self, user_code: str) -> bool:
        """Whether this is the code that the app shows to its user; case and hyphen do not matter. In constant time."""
        typed, shown = (code.upper().replace("-", "").replace(" ", "").encode() for code in (user_code, self.user_code))
        return bool(shown) and hmac.compare_digest(typed, shown)

    def confirms(self, user_code: str, by: Actor) -> bool:
        """Like :meth:`shows`, with the wrong codes counted: one too many, and the request is denied."""
        if self.shows(user_code):
            return True
        if RateWindow.objects.hit("user-code", str(self.pk), (MAX_WRONG_CODES - 1, DAY)) is not None:
            self.deny(by)
        return False

    def knows(self, request_secret: str) -> bool:
        """Whether this is the request secret, in constant time."""
        return hmac.compare_digest(self.request_secret_hash, _secret_hash(request_secret))

    def collect(self) -> str | None:
        """One poll of the app that asked (its secret was checked): an RFC 8628 §3.5 code, or ``None`` to mint a token.

        While the request is pending, polls closer together than ``POLL_INTERVAL`` get ``slow_down``.
        """
        if self.status == "pending":
            now = timezone.now()
            on_time = Q(polled_at=None) | Q(polled_at__lte=now - POLL_INTERVAL)
            in_time = type(self)._default_manager.filter(on_time, pk=self.pk).update(polled_at=now) == 1
            return "authorization_pending" if in_time else "slow_down"
        errors = {"denied": "access_denied", "expired": "expired_token", "revoked": "grant_revoked"}
        return errors.get(self.status)


def _secret_hash(secret: str) -> str:
    """SHA-256 without salt: the secret has 256 random bits, nothing can be guessed or looked up."""
    return sha256(secret.encode()).hexdigest()
