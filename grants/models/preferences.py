"""What one owner wants to be told, where to, and in which time zone their days begin."""

from __future__ import annotations

import base64
import secrets
import zoneinfo
from functools import lru_cache
from typing import Any, Self
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import models, transaction
from django.db.models import Q

from .. import crypto
from .allowance import Allowance
from .audit import Actor, AuditEvent
from .keys import url_problem

SECRET_PREFIX = "whsec_"  # noqa: S105  what Standard Webhooks puts before every secret
_SECRET_BYTES = 32
_EMAIL_LENGTH = 254  # of the account's column


class Preferences(models.Model):
    """One owner's row; without one, everything is as its defaults say.

    ``webhook_secret`` is encrypted, bound to this row, and shown once: when it is made.
    """

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="preferences")
    time_zone = models.CharField(max_length=64, blank=True, help_text="Empty: the operator's.")
    by_email = models.BooleanField(default=True)
    webhook_url = models.CharField("webhook URL", max_length=300, blank=True)
    webhook_secret = models.TextField(blank=True, editable=False)

    class Meta:
        verbose_name_plural = "preferences"
        constraints = [
            models.CheckConstraint(
                condition=Q(webhook_url="", webhook_secret="") | ~Q(webhook_url="") & ~Q(webhook_secret=""),
                name="preferences_webhook_has_a_secret",
            )
        ]

    def __str__(self) -> str:
        return f"Preferences of {self.user.get_username()}"

    @classmethod
    def of(cls, user: Any) -> Self:
        """The owner's row, or one with the defaults that is not stored yet."""
        return cls.objects.filter(user=user).first() or cls(user=user)

    @property
    def context(self) -> str:
        """What the secret is bound to at rest."""
        return f"preferences:{self.pk}"

    @property
    def email(self) -> str:
        return str(self.user.email)

    def signing_key(self) -> bytes:
        """What webhooks are signed with. Called in one place, right before one goes out.

        Raises:
            DecryptionError: there is none, or it was written for another row.
        """
        secret = crypto.decrypt(self.webhook_secret, context=self.context)
        return base64.b64decode(secret.removeprefix(SECRET_PREFIX))

    def change(
        self,
        *,
        by: Actor,
        time_zone: str | None = None,
        by_email: bool | None = None,
        email: str | None = None,
        webhook_url: str | None = None,
    ) -> str | None:
        """Change what is not ``None``; a new time zone holds from the next call on, for all grants of this owner.

        Returns the webhook's secret where this made one (each URL has its own): it is shown this once.

        Raises:
            ValidationError: keyed by field; nothing is changed then.
        """
        wanted = {"time_zone": time_zone, "by_email": by_email, "email": email, "webhook_url": webhook_url}
        wanted = {name: value.strip() if isinstance(value, str) else value for name, value in wanted.items()}
        _check(wanted)
        with transaction.atomic():
            self._lock()
            changed = {name: new for name, new in wanted.items() if new is not None and new != getattr(self, name)}
            secret = self._take(changed)
            if changed:
                self.save()
                AuditEvent.record(AuditEvent.Action.PREFERENCES_CHANGED, by, **_for_the_trail(changed))
        return secret

    def rotate_secret(self, by: Actor) -> str:
        """A new secret for the webhook; nothing is signed with the old one from now on. Shown this once.

        Raises:
            ValidationError: there is no webhook.
        """
        with transaction.atomic():
            self._lock()
            if not self.webhook_url:
                raise ValidationError({"webhook_url": "There is no webhook to make a secret for."})
            secret = self._new_secret()
            self.save()
            AuditEvent.record(AuditEvent.Action.PREFERENCES_CHANGED, by, changed="webhook_secret")
        return secret

    def _lock(self) -> None:
        """This row as it stands, in the database and locked: two changes at once are two changes in turn."""
        type(self).objects.get_or_create(user_id=self.user_id)
        fresh = type(self).objects.select_for_update().get(user_id=self.user_id)
        for field in self._meta.concrete_fields:
            setattr(self, field.attname, getattr(fresh, field.attname))

    def _take(self, changed: dict[str, Any]) -> str | None:
        """Carry ``changed`` into this row, the owner's account and their grants; the caller saves this row."""
        secret = None
        for name in {"time_zone", "by_email", "webhook_url"} & set(changed):
            setattr(self, name, changed[name])
        if "email" in changed:
            self.user.email = changed["email"]
            get_user_model().objects.filter(pk=self.user.pk).update(email=changed["email"])
        if "time_zone" in changed:
            rows = Allowance.objects.filter(grant__owner=self.user)
            rows.bump()  # takes the rows in their order
            rows.update(time_zone=self.time_zone)
        if "webhook_url" in changed:
            self.webhook_secret = ""
            secret = self._new_secret() if self.webhook_url else None
        return secret

    def _new_secret(self) -> str:
        """32 random bytes as Standard Webhooks writes them; encrypted into this row, in clear for its owner."""
        secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
        self.webhook_secret = crypto.encrypt(secret, context=self.context)
        return secret


def zone_of(user: Any) -> str:
    """The time zone of an owner's days; ``""`` for the operator's."""
    return Preferences.objects.filter(user=user).values_list("time_zone", flat=True).first() or ""


@lru_cache(maxsize=1)
def time_zones() -> tuple[str, ...]:
    """The names that a time zone may have."""
    return tuple(sorted(zoneinfo.available_timezones() - {"Factory", "localtime"}))


def _for_the_trail(changed: dict[str, Any]) -> dict[str, Any]:
    """Of a webhook's URL only where it leads: many a service keeps its secret in the path."""
    if url := changed.get("webhook_url"):
        parts = urlsplit(url)
        return changed | {"webhook_url": f"{parts.scheme}://{parts.netloc}"}
    return changed


def _check(wanted: dict[str, Any]) -> None:
    problems: dict[str, str] = {}
    if wanted["time_zone"] and wanted["time_zone"] not in time_zones():
        problems["time_zone"] = "Not a time zone such as Europe/Berlin."
    if wanted["webhook_url"]:
        too_long = "At most 300 characters." if len(wanted["webhook_url"]) > 300 else None
        if problem := too_long or url_problem(wanted["webhook_url"]):
            problems["webhook_url"] = problem
    if wanted["email"]:
        try:
            if len(wanted["email"]) > _EMAIL_LENGTH:
                raise ValidationError("too long")
            validate_email(wanted["email"])
        except ValidationError:
            problems["email"] = "Not an e-mail address."
    if problems:
        raise ValidationError(problems)
