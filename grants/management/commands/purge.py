from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from grants.clock import microseconds
from grants.management.base import DataCommand
from grants.models import Call, RateWindow, RevokedToken, Worker
from grants.terms import DAY


class Command(DataCommand):
    help = (
        "Delete what nobody needs any more: revoked tokens past their own end, silent workers without open calls, "
        "old throttle windows. The ledger and the audit trail are kept."
    )

    def run(self, **_: Any) -> Mapping[str, Any]:
        now = timezone.now()
        yesterday = microseconds(now) - DAY * 1_000_000
        carrying = Call.objects.open().values("worker")
        tokens, _ = RevokedToken.objects.expired(now).delete()
        workers, _ = Worker.objects.filter(seen_at__lt=yesterday).exclude(pk__in=carrying).delete()
        windows, _ = RateWindow.objects.stale(time.time()).delete()
        return {"revoked_tokens": tokens, "workers": workers, "throttle_windows": windows}
