from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from grants.clock import microseconds
from grants.management.base import DataCommand, duration
from grants.models import Call, RateWindow, RevokedToken, Worker
from grants.purging import NoTotal, purge_calls
from grants.terms import DAY


class Command(DataCommand):
    help = (
        "Delete what nobody needs any more: revoked tokens past their own end, silent workers without open calls, "
        "old throttle windows. The ledger and the audit trail are kept, but for the calls that you name: what they "
        "cost stays in the daily totals."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--calls-older-than", type=duration, help="Such as 90d. Open calls are kept.")

    def run(self, *, calls_older_than: int | None = None, **_: Any) -> Mapping[str, Any]:
        now = timezone.now()
        yesterday = microseconds(now) - DAY * 1_000_000
        carrying = Call.objects.open().values("worker")
        tokens, _ = RevokedToken.objects.expired(now).delete()
        workers, _ = Worker.objects.filter(seen_at__lt=yesterday).exclude(pk__in=carrying).delete()
        windows, _ = RateWindow.objects.stale(time.time()).delete()
        done = {"revoked_tokens": tokens, "workers": workers, "throttle_windows": windows}
        if calls_older_than is None:
            return done
        try:
            return done | {"calls": sum(purge_calls(now - dt.timedelta(seconds=calls_older_than)))}
        except NoTotal as error:
            raise CommandError(str(error)) from error
