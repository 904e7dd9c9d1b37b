"""Time as the ledger counts it: whole microseconds since the epoch, so that both databases compare integers."""

from __future__ import annotations

import datetime as dt

from django.utils import timezone

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


def microseconds(moment: dt.datetime) -> int:
    """An aware datetime as microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def day_number(moment: dt.datetime) -> int:
    """The calendar day of ``moment`` in the current time zone as ``yyyymmdd``: an integer that only grows."""
    local = timezone.localtime(moment)
    return local.year * 10_000 + local.month * 100 + local.day
