"""Group commit: the jobs of many greenlets in one transaction, each as durable, and as much one act, as in its own.

The greenlet that comes first leads: it lets the others queue up, runs their jobs and its own in one transaction,
commits once, tells them, and leaves it to the first of those that came since to lead. Nobody is answered before the
commit; a job sees all that the jobs before it did.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Generic, TypeVar

from django.db import utils

try:  # gevent's own costs several times as much, and is for those who let others run while they hold it
    from gevent.monkey import get_original

    _Lock = get_original("threading", "Lock")
except ImportError:
    _Lock = threading.Lock

J = TypeVar("J")
R = TypeVar("R")

_AT_ONCE = 32  # jobs in one transaction: the worker's streams wait for it, a tenth of a millisecond for each on SQLite


class _Waiting(Generic[J]):
    """A job that others may commit. ``error`` is raised in its own greenlet; it goes away with the commit alone.

    ``turn``: held until the job is through, or until it is this greenlet's turn to lead.
    """

    __slots__ = ("error", "job", "leads", "result", "turn")

    def __init__(self, job: J) -> None:
        self.job = job
        self.leads = False
        self.turn = threading.Lock()
        self.turn.acquire()
        self.result: Any = None
        self.error: Exception | None = utils.OperationalError("the greenlet that was to commit this has been ended")

    def answer(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class GroupCommit(ABC, Generic[J, R]):
    """One queue of jobs ``J``; at most one transaction of it is under way. ``R``: what a transaction needs."""

    def __init__(self) -> None:
        self._queue: deque[_Waiting[J]] = deque()
        self._gate = _Lock()  # around the queue and who leads
        self._led = False

    @abstractmethod
    def begin(self) -> R:
        """Wait for what a transaction needs; others queue up meanwhile."""

    @abstractmethod
    def run(self, resource: R, jobs: list[J]) -> list[Any]:
        """Run the jobs, in their order, and commit; returns their results.

        Raises:
            Exception: nothing has happened, or nobody knows; then :meth:`alone` says no.
        """

    @abstractmethod
    def end(self, resource: R) -> None:
        """Give back what :meth:`begin` brought, however it went."""

    def alone(self, error: Exception) -> bool:
        """Whether nothing has happened, and one job is to blame: each is run in a transaction of its own then."""
        return True

    def stuck(self, error: Exception) -> bool:
        """Whether all that wait would wait in vain, and as long: they fail, too."""
        return False

    @property
    def idle(self) -> bool:
        """Whether nobody waits or leads."""
        return not self._led

    @property
    def waiting(self) -> int:
        """Jobs that wait for a transaction to begin."""
        return len(self._queue)

    def commit(self, job: J) -> Any:
        """Return the job's result once it is committed. Raises whatever it or the commit raised."""
        with self._gate:
            waiting = _Waiting(job) if self._led else None
            if waiting is not None:
                self._queue.append(waiting)
            self._led = True
        if waiting is None:
            return self._lead(job)
        try:
            waiting.turn.acquire()
        except BaseException:  # this greenlet is being killed: what it wanted is void
            self._forget(waiting)
            raise
        return self._lead(job) if waiting.leads else waiting.answer()

    def _lead(self, job: J) -> Any:
        """Commit it together with all that wait, and tell them."""
        others: list[_Waiting[J]] = []
        began = False
        try:
            resource = self.begin()
            began = True
            try:
                others = self._board(_AT_ONCE - 1)
                mine, *theirs = self.run(resource, [job, *(other.job for other in others)])
            finally:
                self.end(resource)
            for other, result in zip(others, theirs, strict=True):
                other.result, other.error = result, None
            return mine
        except Exception as error:
            if others and self.alone(error):
                return self._one_by_one(job, others)
            if not began or self.stuck(error):
                others += self._board(len(self._queue))
            for other in others:
                other.error = error
            raise
        finally:
            for other in others:
                other.turn.release()
            self._hand_on()

    def _one_by_one(self, job: J, others: list[_Waiting[J]]) -> Any:
        """All was rolled back: who is to blame fails alone."""
        mine = _Waiting(job)
        for one in (mine, *others):
            try:
                resource = self.begin()
                try:
                    [one.result] = self.run(resource, [one.job])
                finally:
                    self.end(resource)
                one.error = None
            except Exception as error:  # noqa: BLE001  raised in the greenlet whose job it is
                one.error = error
        return mine.answer()

    def _board(self, most: int) -> list[_Waiting[J]]:
        if not self._queue:
            return []
        with self._gate:
            return [self._queue.popleft() for _ in range(min(len(self._queue), most))]

    def _forget(self, waiting: _Waiting[J]) -> None:
        with self._gate:
            if waiting in self._queue:
                self._queue.remove(waiting)
        if waiting.leads:
            self._hand_on()

    def _hand_on(self) -> None:
        """Whoever has come since and waits the longest leads now."""
        with self._gate:
            self._led = bool(self._queue)
            if self._queue:
                leader = self._queue.popleft()
                leader.leads = True
                leader.turn.release()
