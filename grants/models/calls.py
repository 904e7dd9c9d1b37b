"""The ledger's rows: one a relayed call, and the workers that carry them."""

from __future__ import annotations

import datetime as dt
from typing import Any
from uuid import UUID

from django.db import models
from django.db.models import Q

from ..clock import microseconds


class Worker(models.Model):
    """A server process and its heartbeat. A call names its worker; ``reap`` settles the calls of silent ones."""

    id = models.UUIDField(primary_key=True)
    seen_at = models.BigIntegerField(
        help_text="Microseconds since the epoch, on the database's clock where it has one."
    )

    class Meta:
        indexes = [models.Index(fields=["seen_at"], name="worker_seen")]

    def __str__(self) -> str:
        return str(self.id)


ENDED_BADLY = ~Q(outcome__in=("ok", "open"))
OVERRUN = Q(reserved__gt=0, cost__gt=models.F("reserved"))


class CallQuerySet(models.QuerySet["Call"]):
    def visible_to(self, user: Any) -> CallQuerySet:
        return self if user.is_superuser else self.filter(grant__owner=user)

    def since(self, moment: dt.datetime) -> CallQuerySet:
        """Admitted at ``moment`` or later. Ids begin with the time, so the primary key's index answers it."""
        return self.filter(id__gte=UUID(int=microseconds(moment) // 1000 << 80))

    def open(self) -> CallQuerySet:
        return self.filter(finished_at=None)

    def overrun(self) -> CallQuerySet:
        """Cost more than the bound that was reserved for them."""
        return self.filter(OVERRUN)


class Call(models.Model):
    """One call that was admitted: inserted at admission, finished exactly once at settlement. No content, ever.

    Written by ``grants/ledger.py`` in SQL. ``id`` is a UUIDv7 made by the relay, and the request id that the app sees.
    Times in microseconds since the epoch; money in nano-dollars, ``cost`` null where no price is known.
    ``reserved``: its bound, 0 where the grant does not limit money. ``output_limit``: the one that went out, where the
    relay looked after it. ``tokens_reserved`` moved the grant's token clock by ``tokens_advance`` microseconds;
    ``tokens_until`` is where it stood then, refunds up to then added.
    ``reaped_at``: the worker fell silent and ``reap`` settled for it; a later settlement of its own clears it.
    """

    class Outcome(models.TextChoices):
        OPEN = "open"
        OK = "ok"
        UPSTREAM_ERROR = "upstream_error", "error from the provider"
        UPSTREAM_UNREACHABLE = "upstream_unreachable", "provider unreachable"
        UPSTREAM_TIMEOUT = "upstream_timeout", "provider timed out"
        UPSTREAM_BROKEN = "upstream_broken", "provider broke off"
        CLIENT_GONE = "client_gone", "client left"
        REVOKED = "revoked", "cut by revocation"
        DRAINED = "drained", "cut by a restart"
        LOST = "lost", "worker lost"

    id = models.UUIDField(primary_key=True)
    grant = models.ForeignKey("grants.Grant", models.PROTECT, related_name="calls", db_index=False)  # call_grant is one
    worker = models.UUIDField()
    jti = models.CharField(max_length=64)
    kid = models.CharField(max_length=32)
    route = models.CharField(max_length=60)
    model = models.CharField(max_length=200, blank=True)
    stream = models.BooleanField()
    counted = models.SmallIntegerField(help_text="What it added to the request counter: 1 or 0.")
    reserved = models.BigIntegerField(default=0)
    output_limit = models.BigIntegerField(null=True)
    tokens_reserved = models.BigIntegerField(default=0)
    tokens_advance = models.BigIntegerField(default=0)
    tokens_until = models.BigIntegerField(default=0)
    day = models.IntegerField()
    started_at = models.BigIntegerField()
    finished_at = models.BigIntegerField(null=True)
    reaped_at = models.BigIntegerField(null=True)
    outcome = models.CharField(max_length=24, choices=Outcome.choices, default=Outcome.OPEN)
    status = models.SmallIntegerField(null=True, help_text="The provider's HTTP status.")
    first_byte_us = models.BigIntegerField(null=True)
    input_tokens = models.BigIntegerField(null=True)
    output_tokens = models.BigIntegerField(null=True)
    cached_tokens = models.BigIntegerField(null=True)
    cost = models.BigIntegerField(null=True)
    estimated = models.BooleanField(default=False)

    objects = CallQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["grant", "-id"], name="call_grant"),
            models.Index(fields=["grant", "model", "-id"], name="call_model"),
            # of the exceptions only: an ordinary call writes into none of these
            models.Index(fields=["grant", "outcome", "-id"], name="call_outcome", condition=ENDED_BADLY),
            models.Index(fields=["grant", "-id"], name="call_estimated", condition=Q(estimated=True)),
            models.Index(fields=["grant", "-id"], name="call_overrun", condition=OVERRUN),
            models.Index(fields=["worker"], name="call_open", condition=Q(finished_at=None)),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(finished_at=None, outcome="open") | (Q(finished_at__isnull=False) & ~Q(outcome="open")),
                name="call_open_or_finished",
            ),
            models.CheckConstraint(condition=Q(cost=None) | Q(cost__gte=0), name="call_cost_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.route} {self.model}"

    @property
    def overrun(self) -> int:
        """By how many nano-dollars it cost more than its bound; 0 where it did not, or had none."""
        return max(0, (self.cost or 0) - self.reserved) if self.reserved else 0

    @property
    def duration_us(self) -> int | None:
        return None if self.finished_at is None else self.finished_at - self.started_at
