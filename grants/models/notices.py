"""The outbox: what owners are told, once each, until it has arrived or cannot."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from ..clock import uuid7

# From one failed attempt to the next; after the last one it is given up.
BACKOFF = tuple(dt.timedelta(seconds=seconds) for seconds in (10, 60, 300, 1800, 7200, 21_600))
MAX_ATTEMPTS = len(BACKOFF) + 1
LEASE = dt.timedelta(minutes=2)  # longer than any attempt takes: a worker that died in one loses it after this


class NoticeQuerySet(models.QuerySet["Notice"]):
    def visible_to(self, user: Any) -> Self:
        """A superuser sees that all of them arrive, an owner their own."""
        return self if user.is_superuser else self.filter(user=user)

    def due(self, now: dt.datetime) -> Self:
        """What is to be sent; what was never tried comes first, so that nobody's dead webhook keeps others waiting."""
        return self.filter(next_attempt_at__lte=now).order_by("attempts", "next_attempt_at")

    def add(self, notices: Iterable[Notice]) -> None:
        """Those that are not there yet. One that another worker adds at the same time is there already."""
        notices = list(notices)
        known = set(self.filter(once__in={notice.once for notice in notices}).values_list("user", "channel", "once"))
        fresh = [notice for notice in notices if (notice.user_id, notice.channel, notice.once) not in known]
        if fresh:
            Notice.objects.bulk_create(fresh, ignore_conflicts=True)


class Notice(models.Model):
    """One event for one owner on one channel. ``next_attempt_at`` is null once it has arrived or was given up.

    ``once``: what makes it this event and no other; of the same, a second is never told. ``payload`` holds what there
    is to say, in the form that webhooks carry; never a secret.
    """

    class Event(models.TextChoices):
        THRESHOLD = "limit.threshold"
        EXHAUSTED = "grant.exhausted"
        CLOSED = "grant.closed"
        KEY_REJECTED = "key.rejected"
        REQUEST_WAITING = "request.waiting"
        TEST = "test"

    class Channel(models.TextChoices):
        EMAIL = "email", "e-mail"
        WEBHOOK = "webhook", "webhook"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="notices")
    event = models.CharField(max_length=30, choices=Event.choices)
    channel = models.CharField(max_length=10, choices=Channel.choices)
    once = models.CharField(max_length=200)
    payload = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, default=timezone.now)
    delivered_at = models.DateTimeField(null=True)
    given_up_at = models.DateTimeField(null=True)
    last_error = models.CharField(max_length=200, blank=True)

    objects = NoticeQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["once", "user", "channel"], name="notice_told_once"),
            models.CheckConstraint(
                condition=Q(next_attempt_at__isnull=False, delivered_at=None, given_up_at=None)
                | Q(next_attempt_at=None, delivered_at__isnull=False, given_up_at=None)
                | Q(next_attempt_at=None, delivered_at=None, given_up_at__isnull=False),
                name="notice_is_due_or_over",
            ),
        ]
        indexes = [
            models.Index(
                fields=["attempts", "next_attempt_at"],
                condition=Q(next_attempt_at__isnull=False),
                name="notice_due",
            ),
            models.Index(fields=["user", "-id"], name="notice_user"),
        ]

    def __str__(self) -> str:
        return f"{self.get_event_display()} by {self.get_channel_display()}"

    @property
    def state(self) -> str:
        if self.delivered_at:
            return "delivered"
        return "given up" if self.given_up_at else "waiting" if self.attempts == 0 else "trying again"

    def claim(self, now: dt.datetime) -> bool:
        """Begin an attempt. Says whether it is ours: one conditional UPDATE, so that no two workers send the same."""
        won = self._still(attempts=F("attempts") + 1, next_attempt_at=now + LEASE)
        if won:
            self.attempts, self.next_attempt_at = self.attempts + 1, now + LEASE
        return won

    def delivered(self, now: dt.datetime) -> None:
        self._still(delivered_at=now, next_attempt_at=None, last_error="")

    def failed(self, now: dt.datetime, error: str, *, final: bool = False) -> None:
        """Try again later, or give it up: after the last attempt, or where another one is of no use (``final``)."""
        if final or self.attempts >= MAX_ATTEMPTS:
            self._still(given_up_at=now, next_attempt_at=None, last_error=error[:200])
        else:
            self._still(next_attempt_at=now + BACKOFF[self.attempts - 1], last_error=error[:200])

    def _still(self, **columns: Any) -> bool:
        """Change the row if it stands as it was read: after a lease that ran out, the other worker's word counts."""
        as_read = {"pk": self.pk, "attempts": self.attempts, "next_attempt_at": self.next_attempt_at}
        return Notice.objects.filter(**as_read).update(**columns) == 1

    def retry(self) -> bool:
        """The owner's button: all attempts anew, from now on. Says whether it had been given up."""
        rows = Notice.objects.filter(pk=self.pk, given_up_at__isnull=False)
        won = rows.update(attempts=0, next_attempt_at=timezone.now(), given_up_at=None) == 1
        self.refresh_from_db()
        return won
