"""Long work in short steps: everything that goes through more than a few rows of the ledger goes through here.

SQLite works in C, and a greenlet that is in C, or busy in Python, stops every stream of its worker. So no statement
takes more rows than go through in a few milliseconds, and the others run between two of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

from django.db import connections

T = TypeVar("T")

STEP = 0.008  # seconds
_WAY = 0.001  # seconds; gevent does not look at its sockets for a sleep of 0
_turn = threading.local()  # of each greenlet: when the others last ran


def give_way() -> None:
    """Let the others run, if this one has run for a while."""
    if time.perf_counter() - getattr(_turn, "began", 0.0) > STEP / 2:
        time.sleep(_WAY)
        _turn.began = time.perf_counter()


class Pace:
    """How many rows to take at a time, found out on the way. Around each step: ``with pace: … rows[: pace.size]``."""

    def __init__(self, size: int = 100, *, least: int = 10, most: int = 2000, rest: float = 0.0) -> None:
        """``rest``: how long to sleep after a step, in times of the step's own length."""
        self.size = size
        self.least = least
        self.most = most
        self.rest = rest
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            return
        took = time.perf_counter() - self._began
        if took > STEP:
            self.size = max(self.least, self.size // 2)
        elif took < STEP / 2:
            self.size *= 2
        self.size = min(self.size, self.most)
        if self.rest:
            time.sleep(took * self.rest)
        give_way()


class Unhurried(list[T]):
    """A list that lets the others run while somebody goes through it: a template, row by row."""

    def __iter__(self) -> Iterator[T]:
        for item in super().__iter__():
            give_way()
            yield item


def release_connection() -> None:
    """Give this greenlet's database connection back to the pool: nothing holds one while a client takes its time."""
    for known in connections.all(initialized_only=True):
        if not known.in_atomic_block:
            known.close()
