"""What follows from a saved row, wherever it was saved: an owner switched off, a request that waits."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models.signals import post_save
from django.dispatch import receiver

from . import notices
from .models import Actor, Allowance, AuditEvent, Grant


@receiver(post_save, sender=get_user_model())
def owner_saved(instance: Any, created: bool, **kwargs: Any) -> None:
    """A deactivated owner's grants are not served any more: no policy read before now admits a call."""
    if created or instance.is_active:
        return
    with transaction.atomic():
        Allowance.objects.filter(grant__owner=instance).bump()
        AuditEvent.record(AuditEvent.Action.OWNER_DISABLED, Actor("system"), username=instance.get_username())


@receiver(post_save, sender=Grant)
def grant_saved(instance: Grant, created: bool, **kwargs: Any) -> None:
    """A request that nobody owns yet: those who could give it are told. The request stands, whatever comes of that."""
    if created and instance.owner_id is None:
        transaction.on_commit(partial(notices.request_waiting, instance), robust=True)
