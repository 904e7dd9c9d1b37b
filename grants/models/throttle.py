"""Counters of the public endpoints' throttles, in the database so that they hold over all workers."""

from __future__ import annotations

from django.db import models


class RateWindow(models.Model):
    """Requests of one caller on one endpoint in the window that began at ``started_at`` (seconds since the epoch)."""

    key = models.CharField(max_length=120, primary_key=True)
    started_at = models.BigIntegerField(db_index=True)
    requests = models.IntegerField()

    def __str__(self) -> str:
        return self.key
