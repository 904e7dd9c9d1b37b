"""A notice in words: for an e-mail, and for the list on the desk.

What apps say about themselves comes from strangers. It never stands in a subject; a request's name, which no owner has
agreed to yet, stands in no e-mail at all: else anybody could have this broker mail them a link.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.template.loader import render_to_string

from .clock import zone_info
from .models import Notice
from .providers import PROVIDERS

SUBJECT_PREFIX = "AIPassport: "


@dataclass(frozen=True, slots=True)
class Letter:
    """``subject``: one short line. ``sentences``: plain text."""

    subject: str
    sentences: tuple[str, ...]


Payload = dict[str, Any]

# limit → what it is a limit of, and how a subject says it
_LIMITS = {
    "max_requests": ("the requests that it may make", "the requests of a grant"),
    "max_cost": ("what it may spend in all", "the money of a grant"),
    "max_cost_per_day": ("what it may spend a day", "a grant’s money for the day"),
    "max_cost_per_month": ("what it may spend a month", "a grant’s money for the month"),
}


def letter(notice: Notice, *, time_zone: str = "") -> Letter:
    """What a notice says. Times in ``time_zone``; ``""`` is the operator's."""
    return _LETTERS[Notice.Event(notice.event)](notice.payload, time_zone)


def mail_text(notice: Notice, *, time_zone: str = "") -> str:
    """The body of its e-mail."""
    context = {"letter": letter(notice, time_zone=time_zone), "url": notice.payload.get("url", "")}
    return render_to_string("notices/mail.txt", context)


def _threshold(payload: Payload, time_zone: str) -> Letter:
    of, short = _LIMITS[payload["limit"]]
    reached = f"{quoted(payload['app_name'])} has used {payload['percent']} % of {of}: {_amounts(payload)}."
    if payload["percent"] == 100:
        reached = f"{quoted(payload['app_name'])} has used up {of}: {_amounts(payload)}."
    then: tuple[str, ...] = ()
    if payload["resets_at"]:
        calls = "Calls that need more are refused until" if payload["percent"] == 100 else "The period ends at"
        then = (f"{calls} {_when(payload['resets_at'], time_zone)}.",)
    return Letter(f"{payload['percent']} % of {short}", (reached, *then))


def _exhausted(payload: Payload, time_zone: str) -> Letter:
    of, short = _LIMITS[payload["limit"]]
    return Letter(
        f"used up: {short}",
        (
            f"{quoted(payload['app_name'])} has used up {of}: {_amounts(payload)}.",
            "Calls that need more are refused. Raise the limit to allow more calls.",
        ),
    )


def _closed(payload: Payload, time_zone: str) -> Letter:
    return Letter(
        "a grant was closed",
        (
            f"A call of {quoted(payload['app_name'])} cost more than its bound, at "
            f"{_when(payload['closed_at'], time_zone)}. The grant was closed: it admits no more calls.",
            "Check the grant’s calls. Reopen the grant if they are as you expect.",
        ),
    )


def _key_rejected(payload: Payload, time_zone: str) -> Letter:
    return Letter(
        "a provider refused your key",
        (
            f"Your key “{one_line(payload['label'])}” was refused. {payload['error']}",
            "Every grant on this key fails until you store a key that the provider accepts.",
        ),
    )


def _request_waiting(payload: Payload, time_zone: str) -> Letter:
    count = payload["waiting"]
    waits = "1 request for a grant is waiting" if count == 1 else f"{count} requests for grants are waiting"
    return Letter(
        "a request is waiting",
        (
            f"{waits}. Anybody with a key of {PROVIDERS[payload['provider']].label} can decide.",
            "If you do not expect a request, do nothing: it expires after a few minutes.",
            "You get this notice at most once an hour. The newest request:",
        ),
    )


def _test(payload: Payload, time_zone: str) -> Letter:
    return Letter("a test", ("You asked for this test. Notices will reach you here.",))


_LETTERS: dict[Notice.Event, Callable[[Payload, str], Letter]] = {
    Notice.Event.THRESHOLD: _threshold,
    Notice.Event.EXHAUSTED: _exhausted,
    Notice.Event.CLOSED: _closed,
    Notice.Event.KEY_REJECTED: _key_rejected,
    Notice.Event.REQUEST_WAITING: _request_waiting,
    Notice.Event.TEST: _test,
}


def one_line(text: str, most: int = 100) -> str:
    """``text`` without anything that breaks a line or turns its direction, and not too long."""
    plain = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return plain if len(plain) <= most else plain[: most - 1] + "…"


def quoted(app_name: str) -> str:
    """An app's own words, marked as such; what is in them cannot end the quotation."""
    return f"The app that calls itself “{one_line(app_name).translate(_QUOTES)}”"


_QUOTES = str.maketrans('“”„‟"', "'''''")


def _amounts(payload: Payload) -> str:
    if payload["unit"] == "dollars":
        return f"${payload['used']} of ${payload['allowed']}"
    return f"{payload['used']} of {payload['allowed']}"


def _when(iso: str, time_zone: str) -> str:
    zone = zone_info(time_zone)
    return f"{dt.datetime.fromisoformat(iso).astimezone(zone):%Y-%m-%d %H:%M} ({zone})"
