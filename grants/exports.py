"""The ledger as CSV (RFC 4180), streamed: however much of it there is, and however slowly it is read."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from typing import Any

from django.http import StreamingHttpResponse
from django.utils import timezone

from . import clock, money
from .models import Call, Grant
from .pace import give_way, release_connection
from .search import Search, Walk

COLUMNS = (
    *("id", "grant", "app", "model", "route", "day", "started_at", "finished_at", "outcome", "status", "stream"),
    *("input_tokens", "output_tokens", "cached_tokens", "output_limit", "reserved", "cost", "overrun", "estimated"),
)
_TOGETHER = 200  # rows in one piece
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_NEXT_CELL = re.compile(r";(?=\s*[=+\-@＝＋－＠])")


def csv_response(user: Any, search: Search | None) -> StreamingHttpResponse:
    """The calls that ``user`` may see and ``search`` finds, newest first; ``None`` finds none.

    Times as ISO 8601 in UTC, money in dollars. No transaction is open and no connection is held between two pieces.
    """
    name = f"calls-{timezone.localtime():%Y-%m-%d}.csv"
    headers = {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingHttpResponse(_pieces(user, search), content_type="text/csv; charset=utf-8", headers=headers)


def _pieces(user: Any, search: Search | None) -> Iterator[bytes]:
    yield _lines([COLUMNS])
    apps: dict[Any, str] = {}
    for calls in _together(Walk(user, search)) if search is not None else ():
        unknown = {call.grant_id for call in calls} - apps.keys()
        if unknown:
            apps |= Grant.objects.filter(pk__in=unknown).values_list("pk", "app_name")
        release_connection()
        yield _lines(_row(call, apps[call.grant_id]) for call in calls)


def _together(walk: Iterable[list[Call]]) -> Iterator[list[Call]]:
    """The same calls in pieces of a size that is worth sending."""
    waiting: list[Call] = []
    for calls in walk:
        waiting += calls
        while len(waiting) >= _TOGETHER:
            yield waiting[:_TOGETHER]
            del waiting[:_TOGETHER]
    if waiting:
        yield waiting


class _Echo:
    """What ``csv`` writes to: hands back what it is given."""

    def write(self, line: str) -> str:
        return line


_writer = csv.writer(_Echo())  # keeps nothing between two lines


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = "".join(_writer.writerow(row) for row in rows).encode()
    give_way()
    return text


def _row(call: Call, app: str) -> tuple[Any, ...]:
    return (
        *(call.pk, call.grant_id, defused(app), defused(call.model), call.route, clock.date_of(call.day)),
        *(_time(call.started_at), _time(call.finished_at), call.outcome, call.status, _yes(call.stream)),
        *(call.input_tokens, call.output_tokens, call.cached_tokens, call.output_limit),
        *(money.dollars(call.reserved), _dollars(call.cost), money.dollars(call.overrun), _yes(call.estimated)),
    )


def defused(text: str) -> str:
    """``text`` as a spreadsheet shows it: what begins like a formula would be worked out, and can fetch and send.

    (OWASP, CSV injection: a quote mark before it makes it text.) Where the comma is in numbers, spreadsheets part cells
    at semicolons, also within what is quoted.
    """
    text = _NEXT_CELL.sub(";'", text)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _time(microseconds: int | None) -> str:
    return "" if microseconds is None else clock.moment(microseconds).isoformat(timespec="milliseconds")


def _dollars(amount: int | None) -> str:
    return "" if amount is None else money.dollars(amount)


def _yes(value: bool) -> str:
    return "true" if value else "false"
