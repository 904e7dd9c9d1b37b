"""The consent record: who may do what with which key until when."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any, Self

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models as db  # `models` is a column here
from django.db import transaction
from django.db.models import F, Q
from django.utils import timezone

from ..clock import microseconds
from ..networks import block_of
from ..providers import PROVIDERS, Provider, choices
from ..shown_text import name_problem, text_problem, web_page_problem
from ..terms import DAY, DEFAULT_OUTPUT_TOKENS, DEFAULT_VALID_FOR, HOUR, LIMITS, MAX_VALID_FOR, Terms
from .allowance import Allowance
from .audit import Actor, AuditEvent
from .keys import ProviderKey
from .pending import make_room
from .preferences import zone_of
from .requesting import Requested
from .tokens import RevokedToken


def _one_line(text: str) -> None:
    """What an owner reads before consenting. (A migration names this function.)"""
    if problem := text_problem(text):
        raise ValidationError(problem)


def _check_labels(app_name: str, app_url: str) -> None:
    problems = {"app_name": name_problem(app_name), "app_url": web_page_problem(app_url) if app_url else None}
    if errors := {name: problem for name, problem in problems.items() if problem}:
        raise ValidationError(errors)


class GrantQuerySet(db.QuerySet["Grant"]):
    def owned_by(self, user: Any) -> Self:
        return self if user.is_superuser else self.filter(owner=user)

    def open_to(self, user: Any) -> Self:
        """What ``user`` owns, and requests that nobody has decided: whoever was given the id may decide."""
        return self if user.is_superuser else self.filter(Q(owner=user) | Q(owner=None))

    def pending(self) -> Self:
        return self.filter(approved_at=None, denied_at=None, request_expires_at__gt=timezone.now())

    def live(self) -> Self:
        return self.filter(approved_at__isnull=False, revoked_at=None, expires_at__gt=timezone.now())


def _in_allowance(name: str) -> Any:
    """A limit as the counted row holds it."""
    return property(lambda grant: getattr(grant.allowance, name))


class Grant(Requested):
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
    provider = db.CharField(max_length=32, choices=choices)
    app_name = db.CharField(max_length=100, validators=[_one_line])
    app_url = db.URLField("app URL", max_length=300, blank=True)
    reason = db.CharField(max_length=500, blank=True, validators=[_one_line])

    models = db.JSONField(default=list)
    capabilities = db.JSONField(default=list)
    allowed_origins = db.JSONField(default=list, blank=True)
    valid_for = db.BigIntegerField(null=True, help_text="Seconds from the approval on.")
    token_lifetime = db.BigIntegerField(default=HOUR, help_text="Seconds.")
    default_output_tokens = db.BigIntegerField(default=DEFAULT_OUTPUT_TOKENS)

    created_at = db.DateTimeField(default=timezone.now)
    approved_at = db.DateTimeField(null=True)
    denied_at = db.DateTimeField(null=True)
    revoked_at = db.DateTimeField(null=True)
    expires_at = db.DateTimeField(null=True)

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
        indexes = [
            db.Index(fields=["owner", "-created_at"], name="grant_owner"),
            db.Index(fields=["owner", "id"], name="grant_owner_walk"),
            db.Index(fields=["-created_at"], name="grant_newest"),
            db.Index(
                fields=["request_expires_at"], condition=Q(approved_at=None, denied_at=None), name="grant_pending"
            ),
            db.Index(
                fields=["owner", "expires_at"],
                condition=Q(approved_at__isnull=False, revoked_at=None),
                name="grant_live",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.app_name} → {self.get_provider_display()}"

    # What it says

    max_requests = _in_allowance("max_requests")
    max_concurrency = _in_allowance("max_concurrency")
    max_cost = _in_allowance("max_cost")
    max_cost_per_day = _in_allowance("max_cost_per_day")
    max_cost_per_month = _in_allowance("max_cost_per_month")
    max_cost_per_call = _in_allowance("max_cost_per_call")
    requests_per_minute = _in_allowance("requests_per_minute")
    tokens_per_minute = _in_allowance("tokens_per_minute")

    @property
    def row(self) -> Provider:
        return PROVIDERS[self.provider]

    @property
    def base_url(self) -> str:
        """What this provider's usual SDK takes as its base URL to go through the relay."""
        return f"{settings.AIPASSPORT_URL}/proxy{self.row.sdk_path}"

    @property
    def consent_url(self) -> str:
        """Where an owner decides on the request."""
        return f"{settings.AIPASSPORT_URL}/consent/{self.pk}/"

    @property
    def terms(self) -> Terms:
        return Terms.of(self)

    @property
    def status(self) -> str:
        if self.revoked_at:
            return self.Status.REVOKED
        if self.denied_at:
            return self.Status.DENIED
        end = self.expires_at if self.approved_at else self.request_expires_at
        if end is None or end <= timezone.now():
            return self.Status.EXPIRED
        return self.Status.APPROVED if self.approved_at else self.Status.PENDING

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
        secret = grant._begin_request(grant.created_at)
        grant.request_network = block_of(by.address)
        with transaction.atomic():
            make_room(cls.objects.pending(), grant.request_network)
            grant._insert(terms)
            AuditEvent.record(AuditEvent.Action.GRANT_REQUESTED, by, grant=grant, **grant._summary())
        return grant, secret

    @classmethod
    def issue(
        cls, *, key: ProviderKey, terms: Terms, app_name: str, by: Actor, app_url: str = "", reason: str = ""
    ) -> Grant:
        """The owner grants without being asked.

        Raises:
            ValidationError: the terms make no sense for the key's provider, or the key is disabled.
        """
        key.check_enabled()
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
        _check_labels(grant.app_name, app_url)
        return grant

    def _take(self, terms: Terms) -> None:
        for name, value in self._columns(terms).items():
            setattr(self, name, value)

    def _insert(self, terms: Terms) -> None:
        self.save(force_insert=True)
        self.allowance = Allowance.objects.create(grant=self, **self._limits(terms))

    def _limits(self, terms: Terms) -> dict[str, Any]:
        """What the counted row holds of the terms."""
        return {
            "expires_at": microseconds(self.expires_at) if self.expires_at else 0,
            "time_zone": zone_of(self.owner) if self.owner else "",
            **{name: getattr(terms, name) for name in LIMITS},
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
        key.check_enabled()
        terms.check(self.row)
        terms.check_narrows(self.terms)
        with transaction.atomic():
            now = self._lock()
            expires_at = now + dt.timedelta(seconds=terms.valid_for or DEFAULT_VALID_FOR)
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
            won = self._decide(denied_at=self._lock(), owner=by.user)
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
            "models": list(terms.models),
            "capabilities": list(terms.capabilities),
            "allowed_origins": list(terms.allowed_origins),
            "valid_for": terms.valid_for,
            "token_lifetime": terms.token_lifetime,
            "default_output_tokens": terms.default_output_tokens,
        }

    def change(self, *, terms: Terms, by: Actor, expires_at: dt.datetime | None = None) -> bool:
        """New terms for a live grant, in force with the next call. Says whether the grant was still live.

        ``expires_at`` moves the end; ``None`` leaves it (``terms.valid_for`` is only of use before an approval).

        Raises:
            ValidationError: the terms make no sense, or the new end is past or too far away.
        """
        terms.check(self.row)
        now = timezone.now()
        if expires_at is not None and not now < expires_at <= now + dt.timedelta(seconds=MAX_VALID_FOR):
            raise ValidationError({"expires_at": f"In the future, at most {MAX_VALID_FOR // DAY} days away."})
        columns = self._columns(terms)
        if expires_at is not None:
            columns["expires_at"] = expires_at
        with transaction.atomic():
            self._lock()
            won = Grant.objects.live().filter(pk=self.pk).update(**columns) == 1
            self.refresh_from_db()
            if won:
                Allowance.objects.filter(grant=self).update(revision=F("revision") + 1, **self._limits(terms))
                self.allowance.refresh_from_db()
                AuditEvent.record(AuditEvent.Action.GRANT_CHANGED, by, grant=self, **self._summary())
        return won

    def reopen(self, by: Actor) -> bool:
        """Let calls through again after one cost more than its bound. Says whether the grant was closed and live."""
        with transaction.atomic():
            self._lock()
            live = Grant.objects.live().filter(pk=self.pk)
            rows = Allowance.objects.filter(grant__in=live, closed_at__isnull=False)
            won = rows.update(closed_at=None, revision=F("revision") + 1) == 1
            if won:
                AuditEvent.record(AuditEvent.Action.GRANT_REOPENED, by, grant=self, app=self.app_name)
        self.allowance.refresh_from_db()
        return won

    def revoke(self, by: Actor) -> bool:
        """End it, now: no call is admitted once this returns. Says whether this call won."""
        with transaction.atomic():
            now = self._lock()
            rows = Grant.objects.filter(pk=self.pk, approved_at__isnull=False, revoked_at=None)
            won = rows.update(revoked_at=now) == 1
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
        """The tokens ever issued, newest first, with ``revoked_at``; ``detail``: ``expires_at`` and what narrows it."""
        revoked = AuditEvent.objects.filter(action=AuditEvent.Action.TOKEN_REVOKED, jti=db.OuterRef("jti"))
        issued = self.events.filter(action=AuditEvent.Action.TOKEN_ISSUED)
        return issued.annotate(revoked_at=db.Subquery(revoked.values("at")[:1]))
