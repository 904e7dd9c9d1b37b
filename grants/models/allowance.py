"""How much a grant may use, and how much it has used: the one row that every call is counted on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn
from uuid import UUID

from django.db import connection, models, transaction
from django.db.models import F, Q

from ..terms import LIMITS

_COUNTERS = (
    *("requests", "in_flight", "spent", "reserved", "day_requests", "day_spent", "day_reserved", "month_spent"),
    *("month_reserved", "requests_clock", "tokens_clock", "tokens_refunded", "last_reserved"),
)


class AllowanceQuerySet(models.QuerySet["Allowance"]):
    def bump(self) -> int:
        """Make every policy read before now worthless for these rows: the next admission reads it again.

        Must run in the transaction of the change that takes rights away. Rows are taken in id order, so that two
        bumps cannot deadlock. Returns how many rows changed.
        """
        if not connection.in_atomic_block:
            raise transaction.TransactionManagementError(
                "bump() must run in the transaction of the change that it enforces"
            )
        ids: Iterable[UUID] = (
            self.order_by("grant_id").select_for_update(no_key=True).values_list("grant_id", flat=True)
        )
        return Allowance.objects.filter(grant_id__in=list(ids)).update(revision=F("revision") + 1)


class Allowance(models.Model):
    """Limits beside counters, integers only.

    Everything that can forbid a call stands in this row: a statement that waited for its lock re-reads this row and
    no other (PostgreSQL, READ COMMITTED). The counters are written by ``grants/ledger.py`` alone; the limits, the
    expiry and the revision by :class:`Grant`'s methods through ``update()``.

    Times in microseconds since the epoch; ``expires_at`` is 0 while nothing is granted. Money in nano-dollars (1e-9
    USD). ``day``: yyyymmdd, in ``time_zone`` (the owner's), of the newest admission; it only grows within two days
    of today, and a row that is further away is corrected (``grants/corrections.py``). What begins with ``day_`` and
    ``month_`` belongs to that day and its month.

    ``requests_clock`` and ``tokens_clock``: when everything that was admitted would have been let through at the
    rate's even pace (GCRA). ``tokens_refunded``: all that ever was taken off ``tokens_clock`` again.
    ``tokens_excess``: by how many microseconds calls moved it that used more tokens than they had reserved, since the
    newest admission under a token rate. ``last_reserved``:
    the bound of the newest admission. ``closed_at``: a call cost more than its bound; nothing is admitted until the
    owner reopens the grant.
    """

    grant = models.OneToOneField("grants.Grant", models.CASCADE, primary_key=True)
    revision = models.BigIntegerField(default=1)
    expires_at = models.BigIntegerField(default=0)

    max_requests = models.BigIntegerField(null=True)
    max_concurrency = models.BigIntegerField(null=True)
    max_cost = models.BigIntegerField(null=True)
    max_cost_per_day = models.BigIntegerField(null=True)
    max_cost_per_month = models.BigIntegerField(null=True)
    max_cost_per_call = models.BigIntegerField(null=True)
    requests_per_minute = models.BigIntegerField(null=True)
    tokens_per_minute = models.BigIntegerField(null=True)
    time_zone = models.CharField(max_length=64, blank=True, help_text="Empty: the operator's.")

    requests = models.BigIntegerField(default=0)
    in_flight = models.BigIntegerField(default=0)
    spent = models.BigIntegerField(default=0)
    reserved = models.BigIntegerField(default=0)
    day = models.IntegerField(default=0)
    day_requests = models.BigIntegerField(default=0)
    day_spent = models.BigIntegerField(default=0)
    day_reserved = models.BigIntegerField(default=0)
    month_spent = models.BigIntegerField(default=0)
    month_reserved = models.BigIntegerField(default=0)
    requests_clock = models.BigIntegerField(default=0)
    tokens_clock = models.BigIntegerField(default=0)
    tokens_refunded = models.BigIntegerField(default=0)
    tokens_excess = models.BigIntegerField(default=0, db_default=0)
    last_reserved = models.BigIntegerField(default=0)
    closed_at = models.BigIntegerField(null=True)

    objects = AllowanceQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(**{f"{name}__gte": 0 for name in _COUNTERS}), name="allowance_counters_not_negative"
            ),
            *(
                models.CheckConstraint(
                    condition=Q(**{f"{name}__isnull": True}) | Q(**{f"{name}__gte": 1}),
                    name=f"allowance_{name}_positive",
                )
                for name in LIMITS
            ),
        ]

    def __str__(self) -> str:
        return f"{self.requests} of {self.max_requests or 'any number of'} requests"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("an allowance is changed with update(): a stale save would undo the counting")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("an allowance is deleted with its grant only")

    @property
    def exhausted(self) -> bool:
        """Whether its requests or its money are used up for good."""
        used = ((self.requests, self.max_requests), (self.spent, self.max_cost))
        return any(limit is not None and count >= limit for count, limit in used)
