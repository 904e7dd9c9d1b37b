"""A grant's limits as its page shows them: how far each is used, in words and as a bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..clock import zone_info
from ..limits import Limit
from ..models import Allowance
from ..money import about, exactly
from ..templatetags.desk import when
from ..usage import limits_in_force

LABELS = {
    "max_cost": "Money in total",
    "max_cost_per_day": "Money a day",
    "max_cost_per_month": "Money a month",
    "max_requests": "Requests in total",
    "max_concurrency": "Requests at a time",
    "requests_per_minute": "Requests a minute",
    "tokens_per_minute": "Tokens a minute",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """One limit. ``left`` and ``notes`` in words; ``used`` and ``reserved`` in percent of what is allowed, ``used`` is
    ``None`` where nothing is used up.
    """

    label: str
    left: str
    notes: str
    used: int | None = None
    reserved: int = 0
    full: bool = False


def shown_limits(allowance: Allowance) -> list[Shown]:
    """The limits that are set, money first."""
    in_force = limits_in_force(allowance)
    shown = [_shown(name, in_force[name], allowance.time_zone) for name in LABELS if name in in_force]
    if allowance.max_cost_per_call is not None:
        most = f"{exactly(allowance.max_cost_per_call)} at most"
        one = Shown("Money a call", most, "Also set aside for a call that nothing else bounds.")
        shown.insert(sum(name in in_force for name in LABELS if name.startswith("max_cost")), one)
    return shown


def _shown(name: str, limit: Limit, zone: str) -> Shown:
    money = limit.unit == "nano-dollars"
    most: Callable[[int], str] = exactly if money else "{:,}".format
    some: Callable[[int], str] = about if money else "{:,}".format
    notes = [f"{some(limit.used)} {'open' if name == 'max_concurrency' else 'used'}"]
    if limit.reserved:
        notes.append(f"{some(limit.reserved)} reserved for open calls")
    if limit.left is not None:
        notes.append(f"{some(limit.remaining)} possible at once" if limit.remaining else "none at the moment")
    elif limit.resets_at is not None:
        notes.append(f"resets {when(limit.resets_at, zone_info(zone))}{f' ({zone})' if zone else ''}")
    used = min(100, -(-limit.used * 100 // limit.allowed))
    reserved = min(100 - used, -(-limit.reserved * 100 // limit.allowed))
    left = max(0, limit.allowed - limit.used - limit.reserved)
    return Shown(
        label=LABELS[name],
        left=f"{some(left)} of {most(limit.allowed)} left",
        notes=", ".join(notes),
        used=used,
        reserved=reserved,
        full=limit.used >= limit.allowed,
    )
