"""Price lists that were taken over while the broker runs, and what each changed. Append-only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, NoReturn

from django.db import IntegrityError, models, transaction
from django.utils import timezone

from .audit import Actor, AuditEvent

_NAMED = 100  # lowered prices that the audit event names


class PriceList(models.Model):
    """One version of all prices. The highest number is in force, for all workers from their next call on.

    ``data``: one JSON object a line, the table of one provider in the format of genai-prices.
    ``changes``: what differs from the list before, see :mod:`proxy.pricing.changes`.
    """

    number = models.PositiveIntegerField(primary_key=True)
    created_at = models.DateTimeField(default=timezone.now)
    source = models.CharField(max_length=500, help_text="Where the prices came from.")
    actor = models.CharField(max_length=150, help_text="Who took them over.")
    accepted_lower = models.BooleanField(default=False, help_text="Whether lower and lost prices were accepted.")
    digest = models.CharField(max_length=64, help_text="SHA-256 of the data.")
    data = models.TextField()
    changes = models.JSONField(default=list)
    counts = models.JSONField(default=dict, help_text="Changes by kind, and how many prices were kept.")

    class Meta:
        ordering = ["-number"]

    def __str__(self) -> str:
        return f"Price list {self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("price lists are append-only")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("price lists are append-only")

    @classmethod
    def in_force(cls) -> PriceList | None:
        """The newest list; ``None``: the installed prices hold."""
        return cls.objects.first()

    @classmethod
    def add(
        cls,
        *,
        after: int,
        source: str,
        data: str,
        changes: Sequence[Mapping[str, Any]],
        counts: Mapping[str, int],
        accepted_lower: bool,
        by: Actor,
    ) -> PriceList | None:
        """Put a list in force. ``after``: the number of the list that ``changes`` compares with.

        Returns ``None``, and changes nothing, where another list came first.
        """
        row = cls(
            number=after + 1,
            source=source[:500],
            actor=str(by),
            accepted_lower=accepted_lower,
            digest=sha256(data.encode()).hexdigest(),
            data=data,
            changes=list(changes),
            counts=dict(counts),
        )
        try:
            with transaction.atomic():
                row.save(force_insert=True)
                AuditEvent.record(AuditEvent.Action.PRICES_UPDATED, by, **row._told())
        except IntegrityError:
            return None
        return row

    def _told(self) -> dict[str, Any]:
        lowered = [
            f"{one['provider']} {one['model']} {one['unit']}: {one['kind']}"
            for one in self.changes
            if one["lowers"] and self.accepted_lower
        ]
        return {
            "number": self.number,
            "source": self.source,
            "digest": self.digest,
            "changes": ", ".join(f"{count} {kind}" for kind, count in self.counts.items()),
            "accepted_lower": self.accepted_lower,
            "lowered": lowered[:_NAMED],
        }
