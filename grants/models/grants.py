"""The consent record: who may do what with which key until when."""

from __future__ import annotations

import datetime as dt
import hmac
import secrets
import uuid
from hashlib import sha256
from typing import Any, NamedTuple, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models as db  # `models` is a column here
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from ..clock import microseconds
from ..providers import PROVIDERS, Provider
from ..terms import DEFAULT_VALID_FOR, HOUR, Terms
from .allowance import Allowance
from .audit import Actor, AuditEvent
from .keys import ProviderKey
from .tokens import RevokedToken

REQUEST_LIFETIME = dt.timedelta(minutes=15)
MAX_PENDING_REQUESTS = 1000
POLL_INTERVAL = dt.timedelta(seconds=5)
_USER_CODE_ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, nothing to mistake


def _one_line(text: str) -> None:
    """What an owner reads before consenting holds no control or direction-changing characters."""
    if not text.isprintable():
        raise ValidationError("One line of printable characters.")


class Collected(NamedTuple):
    """What a poll with the request secret came to: ``error`` is an RFC 8628 §3.5 code, or ``None``."""

    error: str | None


class GrantQuerySet(db.QuerySet["Grant"]):
    def owned_by(self, user: Any) -> Self:
        return self if user.is_superuser else self.filter(owner=user)

    def pending(self) -> Self:
        return self.filter(approved_at=None, denied_at=None, request_expires_at__gt=timezone.now())

    def live(self) -> Self:
        return self.filter(approved_at__isnull=False, revoked_at=None, expires_at__gt=timezone.now())


class Grant(db.Model):
    """One app's consent record. Its state is derived from timestamps, its terms change through methods only."""

    class Status(db.TextChoices):
        PENDING = "pending"
        APPROVED = "approved"
        DENIED = "denied"
        REVOKED = "revoked"
        EXPIRED = "expired"

    id = db.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = db.ForeignKey(settings.AUTH_USER_MODEL, db.PROTECT, null=True, related_name="grants")
    provider_key = db.ForeignKey(ProviderKey, db.PROTECT, null=True, related_name="grants")
    provider = db.CharField(max_length=32, choices=[(row.id, row.label) for row in PROVIDERS.values()])
    app_name = db.CharField(max_length=100, validators=[_one_line])
    app_url = db.URLField("app URL", max_length=300, blank=True)
    reason = db.CharField(max_length=500, blank=True, validators=[_one_line])

    models = db.JSONField(default=list)
    capabilities = db.JSONField(default=list)
    allowed_origins = db.JSONField(default=list, blank=True)
    valid_for = db.BigIntegerField(null=True, help_text="Seconds from the approval on.")
    token_lifetime = db.BigIntegerField(default=HOUR, help_text="Seconds.")

    created_at = db.DateTimeField(default=timezone.now)
    approved_at = db.DateTimeField(null=True)
    denied_at = db.DateTimeField(null=True)
    revoked_at = db.DateTimeField(null=True)
    expires_at = db.DateTimeField(null=True)

    request_secret_hash = db.CharField(max_length=64, blank=True)
    user_code = db.CharField(max_length=9, blank=True)
    request_expires_at = db.DateTimeField(null=True)
    polled_at = db.DateTimeField(null=True)

    objects = GrantQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            db.CheckConstraint(
                condition=Q(approved_at=None)
                | Q(denied_at=None, owner__isnull=False, provider_key__isnull=False, expires_at__isnull=False),
                name="grant_approved_is_complete",
            ),
            db.CheckConstraint(
                condition=Q(revoked_at=None) | Q(approved_at__isnull=False), name="grant_revoked_was_approved"
            ),
        ]
        indexes = [db.Index(fields=["owner", "-created_at"], name="grant_owner")]

    def __str__(self) -> str:
        return f"{self.app_name} → {self.get_provider_display()}"

    # What it says

    @property
    def row(self) -> Provider:
        return PROVIDERS[self.provider]

    @property
    def max_requests(self) -> int | None:
        return self.allowance.max_requests

    @property
    def max_concurrency(self) -> int | None:
        return self.allowance.max_concurrency

    @property
    def terms(self) -> Terms:
        return Terms.of(self)

    @property
    def status(self) -> str:
        now = timezone.now()
        if self.revoked_at:
            return self.Status.REVOKED
        if self.denied_at:
            return self.Status.DENIED
        if self.approved_at:
            return self.Status.EXPIRED if self.expires_at <= now else self.Status.APPROVED
        return self.Status.EXPIRED if self.request_expires_at <= now else self.Status.PENDING

    # How it comes to be

    @classmethod
    def request(
        cls, *, provider: str, terms: Terms, app_name: str, by: Actor, app_url: str = "", reason: str = ""
    ) -> tuple[Grant, str]:
        """An app asks. Returns the pending grant and its request secret, which is shown this once.

        Raises:
            ValidationError: the terms make no sense, or too many requests are pending.
        """
        grant = cls._draft(provider, terms, app_name, app_url, reason)
        grant.user_code = _new_user_code()
        grant.request_expires_at = grant.created_at + REQUEST_LIFETIME
        secret = grant._new_secret()
        with transaction.atomic():
            if cls.objects.pending().count() >= MAX_PENDING_REQUESTS:
                raise ValidationError("Too many requests are waiting for an owner; try again later.", code="too_many")
            grant._insert(terms)
            AuditEvent.record(AuditEvent.Action.GRANT_REQUESTED, by, grant=grant, **grant._summary())
        return grant, secret

    @classmethod
    def issue(
        cls, *, key: ProviderKey, terms: Terms, app_name: str, by: Actor, app_url: str = "", reason: str = ""
    ) -> Grant:
        """The owner grants without being asked.

        Raises:
            ValidationError: the terms make no sense for the key's provider.
        """
        grant = cls._draft(key.provider, terms, app_name, app_url, reason)
        grant.owner, grant.provider_key = key.owner, key
        grant.approved_at = grant.created_at
        grant.expires_at = grant.created_at + dt.timedelta(seconds=terms.valid_for or DEFAULT_VALID_FOR)
        with transaction.atomic():
            grant._insert(terms)
            AuditEvent.record(AuditEvent.Action.GRANT_ISSUED, by, grant=grant, **grant._summary())
        return grant

    @classmethod
    def _draft(cls, provider: str, terms: Terms, app_name: str, app_url: str, reason: str) -> Grant:
        if provider not in PROVIDERS:
            raise ValidationError({"provider": f"Unknown provider. Known: {', '.join(PROVIDERS)}."})
        terms.check(PROVIDERS[provider])
        grant = cls(provider=provider, app_name=app_name.strip(), app_url=app_url, reason=reason)
        grant._take(terms)
        grant.clean_fields(exclude={field.name for field in cls._meta.fields} - {"app_name", "app_url", "reason"})
        return grant

    def _take(self, terms: Terms) -> None:
        self.models, self.capabilities = list(terms.models), list(terms.capabilities)
        self.allowed_origins = list(terms.allowed_origins)
        self.valid_for, self.token_lifetime = terms.valid_for, terms.token_lifetime

    def _insert(self, terms: Terms) -> None:
        self.save(force_insert=True)
        self.allowance = Allowance.objects.create(grant=self, **self._limits(terms))

    def _limits(self, terms: Terms) -> dict[str, int | None]:
        """What the counted row holds of the terms."""
        return {
            "expires_at": microseconds(self.expires_at) if self.expires_at else 0,
            "max_requests": terms.max_requests,
            "max_concurrency": terms.max_concurrency,
        }

    def _summary(self) -> dict[str, Any]:
        """The terms for the audit trail."""
        terms = self.terms
        summary = {name: getattr(terms, name) for name in Terms.__dataclass_fields__}
        return {"app": self.app_name, "expires_at": self.expires_at and self.expires_at.isoformat(), **summary}

    # What owners do with it

    def approve(self, *, key: ProviderKey, terms: Terms, by: Actor) -> bool:
        """Grant what was asked for, or less. Says whether this call won (a second approval does nothing).

        ``key`` must be the approving owner's; callers look it up among :meth:`ProviderKeyQuerySet.owned_by`.

        Raises:
            ValidationError: wider than asked, or a key of another provider or out of service.
        """
        if key.provider != self.provider:
            raise ValidationError({"provider_key": f"The request is for {self.row.label}."})
        if key.disabled_at:
            raise ValidationError({"provider_key": "This key is disabled."})
        terms.check(self.row)
        terms.check_narrows(self.terms)
        now = timezone.now()
        expires_at = now + dt.timedelta(seconds=terms.valid_for or DEFAULT_VALID_FOR)
        with transaction.atomic():
            won = self._decide(
                approved_at=now, expires_at=expires_at, owner=key.owner, provider_key=key, **self._columns(terms)
            )
            if won:
                Allowance.objects.filter(grant=self).update(revision=F("revision") + 1, **self._limits(terms))
                AuditEvent.record(AuditEvent.Action.GRANT_APPROVED, by, grant=self, **self._summary())
        return won

    def deny(self, by: Actor) -> bool:
        """Refuse a pending request. Says whether this call won."""
        with transaction.atomic():
            won = self._decide(denied_at=timezone.now(), owner=by.user)
            if won:
                AuditEvent.record(AuditEvent.Action.GRANT_DENIED, by, grant=self, app=self.app_name)
        return won

    def _decide(self, **columns: Any) -> bool:
        """One conditional UPDATE: of two decisions, the second finds nothing pending."""
        won = Grant.objects.pending().filter(pk=self.pk).update(**columns) == 1
        self.refresh_from_db()
        return won

    @staticmethod
    def _columns(terms: Terms) -> dict[str, Any]:
        return {
            "models": list(terms.models), "capabilities": list(terms.capabilities),
            "allowed_origins": list(terms.allowed_origins),
            "valid_for": terms.valid_for, "token_lifetime": terms.token_lifetime,
        }

    def change(self, *, terms: Terms, by: Actor, expires_at: dt.datetime | None = None) -> bool:
        """New terms for a live grant, in force with the next call. Says whether the grant was still live.

        ``expires_at`` moves the end; ``None`` leaves it (``terms.valid_for`` is only of use before an approval).
        """
        terms.check(self.row)
        columns = self._columns(terms)
        if expires_at is not None:
            columns["expires_at"] = expires_at
        with transaction.atomic():
            won = Grant.objects.live().filter(pk=self.pk).update(**columns) == 1
            self.refresh_from_db()
            if won:
                Allowance.objects.filter(grant=self).update(revision=F("revision") + 1, **self._limits(terms))
                self.allowance.refresh_from_db()
                AuditEvent.record(AuditEvent.Action.GRANT_CHANGED, by, grant=self, **self._summary())
        return won

    def revoke(self, by: Actor) -> bool:
        """End it, now: no call is admitted once this returns. Says whether this call won."""
        with transaction.atomic():
            rows = Grant.objects.filter(pk=self.pk, approved_at__isnull=False, revoked_at=None)
            won = rows.update(revoked_at=timezone.now()) == 1
            if won:
                Allowance.objects.filter(grant=self).bump()
                AuditEvent.record(AuditEvent.Action.GRANT_REVOKED, by, grant=self, app=self.app_name)
        self.refresh_from_db()
        return won

    def revoke_token(self, jti: str, *, expires_at: dt.datetime, by: Actor) -> bool:
        """Take one token back, now. Says whether it was not revoked before."""
        with transaction.atomic():
            _, created = RevokedToken.objects.get_or_create(jti=jti, defaults={"grant": self, "expires_at": expires_at})
            if created:
                Allowance.objects.filter(grant=self).bump()
                AuditEvent.record(AuditEvent.Action.TOKEN_REVOKED, by, grant=self, jti=jti)
        return created

    def issued_tokens(self) -> db.QuerySet[AuditEvent]:
        """The tokens ever issued, newest first: ``jti`` and, in ``detail``, ``expires_at`` and what narrows them."""
        return self.events.filter(action=AuditEvent.Action.TOKEN_ISSUED)

    # What the app that asked does with its request secret

    def rotate_request_secret(self, by: Actor) -> str:
        """A new request secret; the old one is worth nothing from now on. Returned once, stored hashed."""
        secret = self._new_secret()
        with transaction.atomic():
            self.save(update_fields=["request_secret_hash"])
            AuditEvent.record(AuditEvent.Action.GRANT_SECRET_ROTATED, by, grant=self)
        return secret

    def _new_secret(self) -> str:
        secret = secrets.token_urlsafe(32)
        self.request_secret_hash = _secret_hash(secret)
        return secret

    def knows(self, request_secret: str) -> bool:
        """Whether this is the request secret, in constant time."""
        return hmac.compare_digest(self.request_secret_hash, _secret_hash(request_secret))

    def collect(self) -> Collected:
        """One poll of the app that asked (its secret was checked): whether a token may be minted now.

        While the request is pending, polls closer together than ``POLL_INTERVAL`` get ``slow_down``.
        """
        if self.status == self.Status.PENDING:
            now = timezone.now()
            on_time = Q(polled_at=None) | Q(polled_at__lte=now - POLL_INTERVAL)
            in_time = Grant.objects.filter(on_time, pk=self.pk).update(polled_at=now) == 1
            return Collected("authorization_pending" if in_time else "slow_down")
        return Collected({
            self.Status.DENIED: "access_denied",
            self.Status.EXPIRED: "expired_token",
            self.Status.REVOKED: "grant_revoked",
        }.get(self.status))


def _secret_hash(secret: str) -> str:
    """SHA-256 without salt: the secret has 256 random bits, nothing can be guessed or looked up."""
    return sha256(secret.encode()).hexdigest()


def _new_user_code() -> str:
    letters = "".join(secrets.choice(_USER_CODE_ALPHABET) for _ in range(8))
    return f"{letters[:4]}-{letters[4:]}"
