"""Calls of the ledger by filter, newest first, however many there are.

Every filter has an index that begins with the grant, or few rows. So the calls of each grant are walked on their own,
in short steps, and merged by time: what an owner with one quiet grant asks for costs the same beside one with millions.
Of very many grants all calls are walked by time instead: to find where each begins would take longer than a page may.
A page that finds little gives up after a while and says how far it came.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush, heapreplace
from typing import Any
from uuid import UUID

from django.db.models import BooleanField, Func, OuterRef, Q, QuerySet, Subquery

from .clock import date_of, microseconds
from .models import Call, Grant
from .models.calls import OVERRUN
from .pace import Pace

PATIENCE = 2.0  # seconds that a page looks for its calls
# A day somewhere on earth begins up to 14 hours before it does in UTC, and ends up to 12 hours after.
_EASTERNMOST, _WESTERNMOST = dt.timedelta(hours=14), dt.timedelta(hours=12)
_CLOCKS = dt.timedelta(minutes=10)  # ids are made by the relay, days by the database
_LAST_ID = 2**128 - 1
_SIFTED = 2000  # rows that one step looks at where few are looked for
_FEW = 6
_WAITING = 6_000  # rows in memory
_MANY = 10_000  # grants; a look at each takes about a second

# SQLite uses a partial index only where its condition stands in the statement as it is, without parameters.
_BADLY = Func("outcome", template="NOT (%(expressions)s IN ('ok', 'open'))", output_field=BooleanField())


@dataclass(frozen=True, slots=True)
class Search:
    """Which calls. What is left out does not matter.

    ``app``: part of the app's name, upper or lower case. ``route``: part of the route. Days as ``yyyymmdd`` in the
    owner's time zone, both included.
    """

    grant: UUID | None = None
    app: str = ""
    model: str = ""
    first_day: int | None = None
    last_day: int | None = None
    outcome: str = ""
    estimated: bool | None = None
    overrun: bool | None = None
    route: str = ""

    def grants(self, user: Any) -> QuerySet[Grant]:
        """Whose calls are looked through."""
        found = Grant.objects.owned_by(user)
        if self.grant is not None:
            found = found.filter(pk=self.grant)
        return found.filter(app_name__icontains=self.app) if self.app else found

    @property
    def of_everybody(self) -> bool:
        """Whether it says nothing that the order by time alone does not answer."""
        led = self.outcome not in ("", "ok") or self.model or self.estimated or self.overrun
        return not (self.grant or self.app or led)

    def led(self) -> QuerySet[Call]:
        """All calls that the best index finds, which are not many more than those that are looked for."""
        calls = Call.objects.all()
        if self.overrun:
            return calls.filter(OVERRUN)
        if self.outcome not in ("", "ok", "open"):
            return calls.filter(_BADLY, outcome=self.outcome)
        if self.estimated:
            return calls.filter(estimated=True)
        return calls.filter(model=self.model) if self.model else calls

    def rest(self) -> Q:
        """What has to be true of those, too."""
        exact = {"model": self.model, "outcome": self.outcome, "route__icontains": self.route}
        found = Q(**{name: value for name, value in exact.items() if value})
        if self.estimated is not None:
            found &= Q(estimated=self.estimated)
        if self.overrun is not None:
            found &= OVERRUN if self.overrun else ~OVERRUN | Q(cost=None)
        if self.first_day is not None:
            found &= Q(day__gte=self.first_day)
        if self.last_day is not None:
            found &= Q(day__lte=self.last_day)
        return found

    @property
    def narrowed(self) -> bool:
        """Whether :meth:`rest` says more than :meth:`led`."""
        told = (self.model, self.outcome, self.estimated is True, self.overrun is True)
        more = self.estimated is False or self.overrun is False or self.outcome == "ok" or bool(self.route)
        return more or sum(map(bool, told)) > 1 or self.first_day is not None or self.last_day is not None

    def ids(self) -> tuple[int, int]:
        """The lowest and the highest id, as integers, that a call of these days can have."""
        lowest = 0 if self.first_day is None else _id_at(_midnight(self.first_day) - _EASTERNMOST - _CLOCKS)
        if self.last_day is None:
            return lowest, _LAST_ID
        return lowest, _id_at(_midnight(self.last_day) + dt.timedelta(days=1) + _WESTERNMOST + _CLOCKS)


def _midnight(day: int) -> dt.datetime:
    return dt.datetime.combine(date_of(day), dt.time(), dt.UTC)


def _id_at(moment: dt.datetime) -> int:
    return max(0, microseconds(moment)) // 1000 << 80


@dataclass(frozen=True, slots=True)
class Page:
    """Some calls in their order. ``more``: where to go on, which is not after the last one; ``None``: that was all."""

    calls: list[Call]
    more: UUID | None = None


def page(user: Any, search: Search, *, size: int, cursor: UUID | None = None, newer: bool = False) -> Page:
    """Up to ``size`` calls next to ``cursor``: the older ones, or the newer ones; newest first in any case.

    May hold fewer, or none, and have ``more``: then it took too long to find them.
    """
    walk = Walk(user, search, cursor=cursor, newer=newer, size=size + 1)
    found: list[Call] = []
    deadline = time.monotonic() + PATIENCE
    for calls in walk:
        found += calls
        if len(found) > size or time.monotonic() > deadline:
            break
    more = found[size - 1].pk if len(found) > size else walk.position
    found = found[:size]
    return Page(found[::-1] if newer else found, more)


@dataclass(order=True)
class _Source:
    """The calls of one grant, or of all. ``done``: the rank up to which they were looked at."""

    done: int
    number: int
    rows: Any = field(compare=False)
    pace: Pace = field(compare=False)


class Walk:
    """All calls that are looked for, in lists, one after each step; a list may be empty.

    Inside, ids are ranks: integers that grow in the direction of the walk.
    """

    def __init__(
        self, user: Any, search: Search, *, cursor: UUID | None = None, newer: bool = False, size: int = 100
    ) -> None:
        self._user, self._search = user, search
        self._rest, self._narrowed = search.rest(), search.narrowed
        self._sign = 1 if newer else -1
        lowest, highest = search.ids()
        self._start, self._end = (lowest - 1, highest) if newer else (-highest - 1, -lowest)  # after it, up to it
        if cursor is not None:
            self._start = max(self._start, self._rank(cursor))
        self._size = size
        self._sources: list[_Source] = []
        self._found: list[tuple[int, Call]] = []

    @property
    def position(self) -> UUID | None:
        """Everything up to here was looked at; ``None``: all."""
        return self._uuid(self._sources[0].done) if self._sources else None

    def __iter__(self) -> Iterator[list[Call]]:
        if self._search.outcome == "open":
            yield from self._open()
            return
        yield from self._begin()
        while self._sources:
            self._step()
            yield self._ready()

    def _rank(self, call: UUID) -> int:
        return self._sign * call.int

    def _uuid(self, rank: int) -> UUID:
        return UUID(int=self._sign * rank)

    def _between(self, rows: Any, first: int, last: int) -> Any:
        """Those of ``rows`` from one rank to another, both included, in order.

        Two bounds and no more: of two lower ones SQLite may walk from the wrong one.
        """
        low, high = sorted((self._sign * first, self._sign * last))
        return rows.filter(id__gte=UUID(int=low), id__lte=UUID(int=high)).order_by("id" if self._sign > 0 else "-id")

    def _begin(self) -> Iterator[list[Call]]:
        """Find where each grant's calls begin; those without any are left out."""
        led = self._search.led()
        if self._search.of_everybody and self._user.is_superuser:
            self._add(led, self._start)
            return
        if self._start >= self._end:
            return
        if self._search.grants(self._user).order_by("pk").values_list("pk")[_MANY : _MANY + 1]:
            # Asked of each call that is looked at: with IN or EXISTS, the databases may look at each grant's calls.
            its_grant = self._search.grants(self._user).filter(pk=OuterRef("grant")).order_by().values("pk")
            self._rest = Q(self._rest, grant=Subquery(its_grant))
            self._narrowed = True
            self._add(Call.objects.all(), self._start)
            return
        first = self._between(led.filter(grant=OuterRef("pk")), self._start + 1, self._end).values("pk")[:1]
        grants = (
            self._search.grants(self._user).order_by("pk").annotate(first=Subquery(first)).values_list("pk", "first")
        )
        pace, last = Pace(50), None
        while True:
            with pace:
                some = list((grants.filter(pk__gt=last) if last else grants)[: pace.size])
            for grant, call in some:
                if call is not None:
                    self._add(led.filter(grant=grant), self._rank(call) - 1)
            if not some:
                break
            last = some[-1][0]
        heapify(self._sources)
        if len(self._sources) > _FEW and not self._narrowed:  # most have a few calls to give, and some many
            for source in self._sources:
                source.pace.size = source.pace.least
        yield []

    def _add(self, rows: Any, done: int) -> None:
        self._sources.append(_Source(done, len(self._sources), rows, Pace(self._size, least=min(self._size, _FEW))))

    def _step(self) -> None:
        """One step in the source that is the farthest behind."""
        source = self._sources[0]
        with source.pace as pace:
            first = source.done + 1
            rows = self._between(source.rows, first, self._end)
            if self._narrowed:
                last = rows.values_list("pk", flat=True)[pace.size - 1 : pace.size].first()
                done = self._end if last is None else self._rank(last)
                calls = list(self._between(source.rows, first, done).filter(self._rest))
            else:
                calls = list(rows[: pace.size])
                done = self._rank(calls[-1].pk) if len(calls) == pace.size else self._end
            dense = len(calls) * 4 > pace.size  # what waits for the other sources waits in memory
            pace.most = max(pace.least, _WAITING // len(self._sources)) if dense else _SIFTED
        for call in calls:
            heappush(self._found, (self._rank(call.pk), call))
        if done == self._end:
            heappop(self._sources)
        else:
            heapreplace(self._sources, replace(source, done=done))

    def _ready(self) -> list[Call]:
        """What was found and cannot be overtaken by what is found later."""
        safe = self._sources[0].done if self._sources else None
        ready = []
        while self._found and (safe is None or self._found[0][0] <= safe):
            ready.append(heappop(self._found)[1])
        return ready

    def _open(self) -> Iterator[list[Call]]:
        """The open calls: as few as there are clients, and in an index of their own that knows no order."""
        ranks = sorted(map(self._rank, Call.objects.open().order_by().values_list("pk", flat=True)))
        wanted = [self._uuid(rank) for rank in ranks if rank > self._start]
        rows = Call.objects.filter(self._rest, grant__in=self._search.grants(self._user))
        pace = Pace(self._size)
        while wanted:
            with pace:
                some, wanted = wanted[: pace.size], wanted[pace.size :]
                calls = sorted(rows.filter(pk__in=some), key=lambda call: self._rank(call.pk))
            self._sources = [_Source(self._rank(some[-1]), 0, rows, pace)] if wanted else []
            yield calls
