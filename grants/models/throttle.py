"""Counters of the public endpoints' throttles, in the database so that they hold over all workers."""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.db import connection, models
from django.utils.crypto import salted_hmac

from ..terms import DAY

# One statement, so that no two workers count past each other. A clock that is behind counts in the open window.
_HIT = """
INSERT INTO grants_ratewindow (key, started_at, requests) VALUES (%(key)s, %(now)s, 1)
ON CONFLICT (key) DO UPDATE SET
    requests = CASE WHEN grants_ratewindow.started_at + %(period)s <= excluded.started_at
                    THEN 1 ELSE grants_ratewindow.requests + 1 END,
    started_at = CASE WHEN grants_ratewindow.started_at + %(period)s <= excluded.started_at
                      THEN excluded.started_at ELSE grants_ratewindow.started_at END
RETURNING started_at, requests
"""


@dataclass(frozen=True, slots=True)
class Hit:
    """One counted request. ``wait``: ``None``, or, for one too many, the seconds until the window ends.

    ``first_refused``: it is the first one too many of its window.
    """

    key: str
    started_at: int
    wait: int | None
    first_refused: bool


class RateWindowQuerySet(models.QuerySet["RateWindow"]):
    def count_one(self, scope: str, who: str, rate: tuple[int, int]) -> Hit:
        """Count one request of ``who`` on ``scope``.

        ``rate``: how many requests in how many seconds (a day at most). The window begins with its first request.
        ``who`` is kept as a MAC, so that the table names nobody.
        """
        most, period = rate
        key = f"{scope}:{salted_hmac('aipassport.rate', who, algorithm='sha256').hexdigest()}"
        now = int(time.time())
        with connection.cursor() as cursor:
            cursor.execute(_HIT, {"key": key, "now": now, "period": period})
            started_at, requests = cursor.fetchone()
        wait = None if requests <= most else max(1, started_at + period - now)
        return Hit(key, started_at, wait, requests == most + 1)

    def hit(self, scope: str, who: str, rate: tuple[int, int]) -> int | None:
        """:meth:`count_one` for callers that need the seconds to wait only."""
        return self.count_one(scope, who, rate).wait

    def give_back(self, hit: Hit) -> None:
        """Take one counted request back, unless its window is over."""
        same_window = self.filter(key=hit.key, started_at=hit.started_at, requests__gt=0)
        same_window.update(requests=models.F("requests") - 1)

    def stale(self, now: float) -> RateWindowQuerySet:
        """Windows that are over, whatever their period. ``now`` in seconds since the epoch."""
        return self.filter(started_at__lt=int(now) - DAY)


class RateWindow(models.Model):
    """Requests of one caller on one endpoint in the window that began at ``started_at`` (seconds since the epoch)."""

    key = models.CharField(max_length=120, primary_key=True)
    started_at = models.BigIntegerField(db_index=True)
    requests = models.IntegerField()

    objects = RateWindowQuerySet.as_manager()

    def __str__(self) -> str:
        return self.key
