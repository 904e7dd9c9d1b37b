"""How the desk writes money, durations, times and sizes."""

from __future__ import annotations

import datetime as dt

from django import template
from django.utils import timezone

from .. import clock
from ..money import about, exactly
from ..terms import Terms

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
    """Nano-dollars at a glance: for what was used."""
    return "—" if nano_dollars is None else about(nano_dollars)


@register.filter
def dollars(nano_dollars: int | None) -> str:
    """Nano-dollars to the last digit: for what somebody has set."""
    return "—" if nano_dollars is None else exactly(nano_dollars)


@register.filter
def elapsed(microseconds: int | None) -> str:
    """Microseconds as ``812 ms`` or ``3.4 s``."""
    if microseconds is None:
        return "—"
    if microseconds < 1_000_000:
        return f"{max(1, microseconds // 1000)} ms"
    return f"{microseconds / 1_000_000:,.1f} s"


@register.filter
def when(moment: dt.datetime | int | str | None, zone: dt.tzinfo | None = None) -> str:
    """A time as ``23 Nov, 21:30``, with the year where it is another one; in the operator's time zone or in ``zone``.

    Takes datetimes, the ledger's microseconds and ISO strings.
    """
    if not moment:
        return "—"
    if isinstance(moment, int):
        moment = clock.moment(moment)
    elif isinstance(moment, str):
        moment = dt.datetime.fromisoformat(moment)
    local = timezone.localtime(moment, zone)
    year = "" if local.year == timezone.localtime().year else f" {local.year}"
    return f"{local.day} {local:%b}{year}, {local:%H:%M}"


@register.filter
def percent_of(used: int, most: int | None) -> int:
    """``used`` of ``most`` as 0–100; 0 where there is no limit."""
    return min(100, used * 100 // most) if most else 0


@register.filter
def number(value: int | None) -> str:
    return "—" if value is None else f"{value:,}"


@register.filter
def limits_in_words(terms: Terms) -> dict[str, str]:
    """What of a grant's limits is set, in words, by what they limit; what has no limit says so."""
    money = (
        (terms.max_cost, "in total"),
        (terms.max_cost_per_day, "a day"),
        (terms.max_cost_per_month, "a month"),
        (terms.max_cost_per_call, "a call"),
    )
    requests = (
        (terms.max_requests, "in total"),
        (terms.requests_per_minute, "a minute"),
        (terms.max_concurrency, "at a time"),
    )
    said = {
        "Money": [f"{exactly(most)} {of}" for most, of in money if most is not None],
        "Requests": [f"{most:,} {of}" for most, of in requests if most is not None],
        "Tokens": [] if terms.tokens_per_minute is None else [f"{terms.tokens_per_minute:,} a minute"],
    }
    return {of: f"at most {', '.join(parts)}" if parts else "no limit" for of, parts in said.items()}
