"""Time as the ledger counts it: whole microseconds since the epoch, so that both databases compare integers."""

from __future__ import annotations

import datetime as dt
import os
import time
from functools import lru_cache
from uuid import UUID
from zoneinfo import ZoneInfo

from django.utils import timezone

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
YEARS = range(1900, 9000)  # of dates from outside: those beside them could not be converted between time zones
_MICROSECOND = dt.timedelta(microseconds=1)


def microseconds(moment: dt.datetime) -> int:
    """An aware datetime as microseconds since the epoch."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(microseconds: int) -> dt.datetime:
    """What :func:`microseconds` was given."""
    return _EPOCH + microseconds * _MICROSECOND


def check_year(date: dt.date) -> None:
    """Raise a :class:`ValueError` for a date from outside that no calculation here is made for."""
    if date.year not in YEARS:
        raise ValueError(f"The year is between {YEARS[0]} and {YEARS[-1]}.")


def zone_info(name: str) -> dt.tzinfo:
    """The time zone of that name; ``""`` is the operator's."""
    return ZoneInfo(name) if name else timezone.get_default_timezone()


def day_number(moment: dt.datetime, zone: str = "") -> int:
    """The calendar day of ``moment`` in a time zone as ``yyyymmdd``: an integer that only grows."""
    return day_of(moment.astimezone(zone_info(zone)))


def day_of(date: dt.date) -> int:
    """A date as ``yyyymmdd``."""
    return date.year * 10_000 + date.month * 100 + date.day


@lru_cache(maxsize=8)
def two_days_after(day: int) -> int:
    """The day two days after a ``yyyymmdd``."""
    return day_of(date_of(day) + dt.timedelta(days=2))


def date_of(day: int) -> dt.date:
    """What :func:`day_of` was given."""
    return dt.date(day // 10_000, day // 100 % 100, day % 100)


def uuid7() -> UUID:
    """A time-ordered unique id (RFC 9562 §5.7): rows in insertion order, and an id known before the commit."""
    random_bits = int.from_bytes(os.urandom(10))
    value = (time.time_ns() // 1_000_000) << 80 | random_bits
    return UUID(int=value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)
