"""Group commit: the jobs of many greenlets in one transaction, each as durable, and as much one act, as in its own.

The greenlet that comes first leads: it lets the others queue up, runs their jobs in one transaction, commits once,
tells them, and leaves it to the first of those that came since to lead. Nobody is answered before the commit; a job
sees all that the jobs before it did.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

from django.db import utils

J = TypeVar("J")
R = TypeVar("R")

_AT_ONCE = 32  # jobs in one transaction: the worker's streams wait for it, a tenth of a millisecond for each on SQLite


class Queued(Generic[J]):
    """A job on its way. ``error`` is raised in the greenlet that queued it; it goes away with the commit alone.

    ``turn``: held until the job is through, or until it is this greenlet's turn to commit: it ``leads`` then.
    """

    __slots__ = ("error", "job", "leads", "result", "turn")

    def __init__(self, job: J) -> None:
        self.job = job
        self.leads = False
        self.turn = threading.Lock()
        self.turn.acquire()
        self.result: Any = None
        self.error: Exception | None = utils.OperationalError("the greenlet that was to commit this has been ended")


class GroupCommit(ABC, Generic[J, R]):
    """One queue of jobs ``J``; at most one transaction of it is under way. ``R``: what a transaction needs."""

    def __init__(self) -> None:
        self._queue: deque[Queued[J]] = deque()
        self._gate = threading.Lock()  # around the queue and who leads
        self._led = False

    @abstractmethod
    def begin(self) -> AbstractContextManager[R]:
        """Wait for what a transaction needs; others queue up meanwhile."""

    @abstractmethod
    def finish(self, resource: R, batch: list[Queued[J]]) -> None:
        """Run the jobs, in their order, and commit; set each one's result, and its error to None.

        Raises:
            Exception: nothing has happened, or nobody knows; then :meth:`alone` says no.
        """

    def alone(self, error: Exception) -> bool:
        """Whether nothing has happened, and one job is to blame: each is run in a transaction of its own then."""
        return True

    def stuck(self, error: Exception) -> bool:
        """Whether all that wait would wait in vain, and as long: they fail, too."""
        return False

    @property
    def waiting(self) -> int:
        """Jobs that wait for a transaction to begin."""
        return len(self._queue)

    def commit(self, job: J) -> Any:
        """Return the job's result once it is committed. Raises whatever it or the commit raised."""
        queued = Queued(job)
        with self._gate:
            self._queue.append(queued)
            queued.leads, self._led = not self._led, True
        try:
            if not queued.leads:
                queued.turn.acquire()
            if queued.leads:
                self._lead()
        except BaseException:  # this greenlet is being killed: what it wanted is void, the others' is led by the next
            self._forget(queued)
            raise
        finally:
            if queued.leads:
                self._hand_on()
        if queued.error is not None:
            raise queued.error
        return queued.result

    def _lead(self) -> None:
        """Commit all that wait, and tell them."""
        batch: list[Queued[J]] = []
        try:
            with self.begin() as resource:
                batch = self._board(_AT_ONCE)
                self.finish(resource, batch)
        except Exception as error:  # noqa: BLE001  handed to the greenlets that queued the jobs
            if len(batch) > 1 and self.alone(error):
                self._one_by_one(batch)
            else:
                batch += self._board(len(self._queue)) if not batch or self.stuck(error) else []
                for queued in batch:
                    queued.error = error
        finally:
            for queued in batch:
                queued.turn.release()

    def _one_by_one(self, batch: list[Queued[J]]) -> None:
        """All was rolled back: who is to blame fails alone."""
        for queued in batch:
            try:
                with self.begin() as resource:
                    self.finish(resource, [queued])
            except Exception as error:  # noqa: BLE001
                queued.error = error

    def _board(self, most: int) -> list[Queued[J]]:
        with self._gate:
            return [self._queue.popleft() for _ in range(min(len(self._queue), most))]

    def _forget(self, queued: Queued[J]) -> None:
        with self._gate:
            if queued in self._queue:
                self._queue.remove(queued)

    def _hand_on(self) -> None:
        """Whoever has come since and waits the longest leads now."""
        with self._gate:
            self._led = bool(self._queue)
            if self._queue:
                self._queue[0].leads = True
                self._queue[0].turn.release()
