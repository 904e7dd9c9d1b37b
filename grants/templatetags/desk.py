"""How the desk writes money, durations, times and sizes."""

from __future__ import annotations

import datetime as dt

from django import template
from django.utils import timezone

from .. import clock

register = template.Library()

_UNITS = (("year", 365 * 86_400), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))


@register.filter
def duration(seconds: int | None) -> str:
    """``3600`` as ``1 hour``: in the largest unit that divides it."""
    if seconds is None:
        return "—"
    for name, size in _UNITS:
        if seconds >= size and seconds % size == 0:
            count = seconds // size
            return f"{count:,} {name}{'s' if count != 1 else ''}"
    return f"{seconds:,} seconds"


@register.filter
def money(nano_dollars: int | None) -> str:
    """Nano-dollars as dollars: cents where there are dollars, the first digits that count where there are not."""
    if nano_dollars is None:
        return "—"
    if nano_dollars == 0:
        return "$0"
    dollars = nano_dollars / 1e9
    if abs(dollars) >= 1:
        return f"${dollars:,.2f}"
    text = f"{dollars:.{4 if dollars >= 0.01 else 6}f}".rstrip("0").rstrip(".")
    return f"${text}" if float(text) else "<$0.000001"


@register.filter
def elapsed(microseconds: int | None) -> str:
    """Microseconds as ``812 ms`` or ``3.4 s``."""
    if microseconds is None:
        return "—"
    if microseconds < 1_000_000:
        return f"{max(1, microseconds // 1000)} ms"
    return f"{microseconds / 1_000_000:,.1f} s"


@register.filter
def when(moment: dt.datetime | int | str | None) -> str:
    """A time as ``23 Nov, 21:30``, with the year where it is another one.

    Takes datetimes, the ledger's microseconds and ISO strings.
    """
    if not moment:
        return "—"
    if isinstance(moment, int):
        moment = clock.moment(moment)
    elif isinstance(moment, str):
        moment = dt.datetime.fromisoformat(moment)
    local = timezone.localtime(moment)
    year = "" if local.year == timezone.localtime().year else f" {local.year}"
    return f"{local.day} {local:%b}{year}, {local:%H:%M}"


@register.filter
def percent_of(used: int, most: int | None) -> int:
    """``used`` of ``most`` as 0–100; 0 where there is no limit."""
    return min(100, used * 100 // most) if most else 0


@register.filter
def number(value: int | None) -> str:
    return "—" if value is None else f"{value:,}"
