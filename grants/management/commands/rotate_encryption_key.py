from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction
from django.db.models import Model

from grants import crypto
from grants.management.base import BY_COMMAND, DataCommand
from grants.models import AuditEvent, Preferences, ProviderKey, SigningKey

_SECRETS = ((ProviderKey, "secret"), (SigningKey, "private_key"), (Preferences, "webhook_secret"))


class Command(DataCommand):
    help = (
        "Encrypt every stored secret anew under the first of AIPASSPORT_ENCRYPTION_KEYS. "
        "Put a new key in front, restart, run this; then the old keys can go."
    )

    def run(self, **_: Any) -> Mapping[str, Any]:
        rotated = 0
        for model, column in _SECRETS:
            rows = model._default_manager.exclude(**{column: ""})
            for pk in list(rows.values_list("pk", flat=True)):
                rotated += _rotate(model, column, pk)
        AuditEvent.record(AuditEvent.Action.ENCRYPTION_ROTATED, BY_COMMAND, rotated=rotated)
        return {"rotated": rotated}


def _rotate(model: type[Model], column: str, pk: Any) -> bool:
    """One row in one transaction: it holds the old ciphertext or the new one, never neither."""
    with transaction.atomic():
        row: Any = model._default_manager.select_for_update().get(pk=pk)
        value = getattr(row, column)
        if not value or crypto.under_primary_key(value):
            return False
        try:
            plain = crypto.decrypt(value, context=row.context)
        except crypto.DecryptionError as error:
            raise CommandError(f"{model._meta.verbose_name} {pk}: {error}.") from error
        model._default_manager.filter(pk=pk).update(**{column: crypto.encrypt(plain, context=row.context)})
    return True
