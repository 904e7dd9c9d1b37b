"""How much a grant may use, and how much it has used: the one row that every call is counted on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn
from uuid import UUID

from django.db import connection, models, transaction
from django.db.models import F, Q


class AllowanceQuerySet(models.QuerySet["Allowance"]):
    def bump(self) -> int:
        """Make every policy read before now worthless for these rows: the next admission reads it again.

        Must run in the transaction of the change that takes rights away. Rows are taken in id order, so that two
        bumps cannot deadlock. Returns how many rows changed.
        """
        if not connection.in_atomic_block:
            raise transaction.TransactionManagementError("bump() belongs into the transaction of what it enforces")
        ids: Iterable[UUID] = (
            self.order_by("grant_id").select_for_update(no_key=True).values_list("grant_id", flat=True)
        )
        return Allowance.objects.filter(grant_id__in=list(ids)).update(revision=F("revision") + 1)


class Allowance(models.Model):
    """Limits beside counters, integers only.

    Everything that can forbid a call stands in this row: a statement that waited for its lock re-reads this row and
    no other (PostgreSQL, READ COMMITTED). The counters are written by ``grants/ledger.py`` alone; the limits, the
    expiry and the revision by :class:`Grant`'s methods through ``update()``.

    ``expires_at``: microseconds since the epoch, 0 while nothing is granted. Money in nano-dollars (1e-9 USD).
    ``day``: yyyymmdd of the newest admission, only grows.
    """

    grant = models.OneToOneField("grants.Grant", models.CASCADE, primary_key=True)
    revision = models.BigIntegerField(default=1)
    expires_at = models.BigIntegerField(default=0)

    max_requests = models.BigIntegerField(null=True)
    max_concurrency = models.BigIntegerField(null=True)

    requests = models.BigIntegerField(default=0)
    in_flight = models.BigIntegerField(default=0)
    spent = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    day = models.IntegerField(default=0)
    day_requests = models.BigIntegerField(default=0)
    day_spent = models.BigIntegerField(default=0)

    objects = AllowanceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(requests__gte=0, in_flight__gte=0, spent__gte=0, reserved__gte=0, day_requests__gte=0),
                name="allowance_counters_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(max_requests__isnull=True) | Q(max_requests__gte=1), name="allowance_max_requests_positive"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.requests} of {self.max_requests or 'any number of'} requests"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("an allowance is changed with update(): a stale save would undo the counting")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("an allowance goes with its grant")

    @property
    def exhausted(self) -> bool:
        return self.max_requests is not None and self.requests >= self.max_requests
