"""The trail: who did what, when, from where. Append-only."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from django.conf import settings
from django.db import models

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractBaseUser

    from .grants import Grant
    from .keys import ProviderKey

logger = logging.getLogger("aipassport.audit")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts. ``user``: ``None`` for apps and the system. ``via``: admin, consent, api, command, app or system."""

    via: str
    user: AbstractBaseUser | None = None
    address: str | None = None

    def __str__(self) -> str:
        return self.user.get_username() if self.user else self.via


class AuditQuerySet(models.QuerySet["AuditEvent"]):
    def visible_to(self, user: Any) -> AuditQuerySet:
        """A superuser sees the whole trail, an owner what concerns their keys and grants."""
        return self if user.is_superuser else self.filter(owner=user)

    def update(self, **kwargs: Any) -> NoReturn:
        raise TypeError("the audit trail is append-only")

    def delete(self) -> NoReturn:
        raise TypeError("the audit trail is append-only")


class AuditEvent(models.Model):
    """One security event. Refusals of calls never go in it: an attacker could fill it."""

    class Action(models.TextChoices):
        GRANT_REQUESTED = "grant.requested"
        GRANT_ISSUED = "grant.issued"
        GRANT_APPROVED = "grant.approved"
        GRANT_DENIED = "grant.denied"
        GRANT_DISPLACED = "grant.displaced"
        GRANT_CHANGED = "grant.changed"
        GRANT_REVOKED = "grant.revoked"
        GRANT_REOPENED = "grant.reopened"
        GRANT_SECRET_ROTATED = "grant.secret_rotated"
        TOKEN_ISSUED = "token.issued"
        TOKEN_REVOKED = "token.revoked"
        KEY_ADDED = "key.added"
        KEY_CHANGED = "key.changed"
        KEY_DISABLED = "key.disabled"
        KEY_ENABLED = "key.enabled"
        SIGNING_KEY_CREATED = "signing_key.created"
        SIGNING_KEY_RETIRED = "signing_key.retired"
        ENCRYPTION_ROTATED = "encryption.rotated"
        OWNER_DISABLED = "owner.disabled"
        PREFERENCES_CHANGED = "preferences.changed"
        PRICES_UPDATED = "prices.updated"
        SIGN_IN_THROTTLED = "sign_in.throttled"

    at = models.DateTimeField(auto_now_add=True)
    action = models.CharField(max_length=40, choices=Action.choices)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+", help_text="Whose trail it is."
    )
    actor = models.CharField(max_length=150, help_text="Who acted.")
    via = models.CharField(max_length=20)
    address = models.GenericIPAddressField(null=True)
    grant = models.ForeignKey("grants.Grant", models.PROTECT, null=True, related_name="events")
    provider_key = models.ForeignKey("grants.ProviderKey", models.PROTECT, null=True, related_name="events")
    jti = models.CharField(max_length=64, blank=True)
    detail = models.JSONField(default=dict)

    objects = AuditQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["grant", "action"], name="audit_grant_action"),
            models.Index(fields=["owner", "-id"], name="audit_owner"),
            models.Index(fields=["jti"], name="audit_jti", condition=~models.Q(jti="")),
        ]

    def __str__(self) -> str:
        return f"{self.action} by {self.actor}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if self.pk is not None:
            raise TypeError("the audit trail is append-only")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("the audit trail is append-only")

    @classmethod
    def record(
        cls,
        action: str,
        by: Actor,
        *,
        grant: Grant | None = None,
        key: ProviderKey | None = None,
        jti: str = "",
        owner: Any = None,
        **detail: Any,
    ) -> AuditEvent:
        """Append one event, to the table and to the log ``aipassport.audit`` (one JSON object a line).

        ``owner``: whose trail it is, where neither grant nor key nor actor tells. ``detail`` must be JSON-serialisable
        and free of secrets.
        """
        owner = owner or by.user
        owner_id = grant.owner_id if grant else key.owner_id if key else owner.pk if owner else None
        event = cls.objects.create(
            action=action,
            owner_id=owner_id,
            actor=str(by),
            via=by.via,
            address=by.address,
            grant=grant,
            provider_key=key or (grant.provider_key if grant else None),
            jti=jti,
            detail=detail,
        )
        line = {"event": action, "actor": str(by), "via": by.via, "address": by.address, "jti": jti or None, **detail}
        line["grant"] = str(grant.pk) if grant else None
        line["key"] = str(event.provider_key_id) if event.provider_key_id else None
        logger.info(json.dumps(line, default=str))
        return event
