"""The daily roll-up: what each grant used of each model on each day. Written as calls settle, by the ledger."""

from __future__ import annotations

from typing import Any

from django.db import models


class DailyTotalQuerySet(models.QuerySet["DailyTotal"]):
    def visible_to(self, user: Any) -> DailyTotalQuerySet:
        return self if user.is_superuser else self.filter(grant__owner=user)


class DailyTotal(models.Model):
    """Finished calls of one grant, day and model, in sums. Outlives the calls themselves.

    ``day``: yyyymmdd of the admission, in the owner's time zone. ``cost`` in nano-dollars, unknown ones counted as 0.
    ``failed``: ended otherwise than ``ok``. What begins with ``purged_`` was deleted from the ledger since: together
    with the calls that are left it makes up the sums.
    """

    grant = models.ForeignKey("grants.Grant", models.PROTECT, related_name="totals", db_index=False)
    day = models.IntegerField()
    model = models.CharField(max_length=200, blank=True)
    calls = models.BigIntegerField(default=0)
    requests = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    estimated = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cached_tokens = models.BigIntegerField(default=0)
    cost = models.BigIntegerField(default=0)
    purged_calls = models.BigIntegerField(default=0)
    purged_requests = models.BigIntegerField(default=0)
    purged_cost = models.BigIntegerField(default=0)

    objects = DailyTotalQuerySet.as_manager()

    class Meta:
        ordering = ["-day"]
        verbose_name_plural = "spending"
        constraints = [models.UniqueConstraint(fields=["grant", "day", "model"], name="total_unique")]

    def __str__(self) -> str:
        return f"{self.day} {self.model}"
