"""An owner who is switched off is a change that takes rights away, wherever it happens."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import receiver

from .models import Actor, Allowance, AuditEvent


@receiver(post_save, sender=get_user_model())
def owner_saved(instance: Any, created: bool, **kwargs: Any) -> None:
    """A deactivated owner's grants are not served any more: no policy read before now admits a call."""
    if created or instance.is_active:
        return
    with transaction.atomic():
        Allowance.objects.filter(grant__owner=instance).bump()
        AuditEvent.record(AuditEvent.Action.OWNER_DISABLED, Actor("system"), username=instance.get_username())
