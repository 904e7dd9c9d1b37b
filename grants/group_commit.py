"""One commit for all that wait: how the ledger writes to SQLite, which has one writer and flushes every commit.

The greenlet that comes first leads: it lets the others queue up, runs all their jobs in one transaction and commits
once. Nobody is answered before the commit, so each job is as durable, and as much one act, as in a transaction of
its own; a job still sees all that the jobs before it did.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from django.db import connection, transaction

T = TypeVar("T")
Job = Callable[[Any], T]  # gets a cursor


class _Queued(Generic[T]):
    """A job on its way. ``error`` is raised in the greenlet that queued it."""

    __slots__ = ("done", "error", "job", "result")

    def __init__(self, job: Job[T]) -> None:
        self.job = job
        self.done = False
        self.result: T | None = None
        self.error: BaseException | None = None


class GroupCommit:
    """Jobs of one process, committed together. A job must be safe to run again after a rollback."""

    def __init__(self) -> None:
        self._queue: deque[_Queued[Any]] = deque()
        self._leading = threading.Lock()

    def run(self, job: Job[T]) -> T:
        """Run ``job`` with a cursor, in a transaction, and return its result once that is committed.

        Raises whatever the job or the commit raised; then nothing of this job has happened.
        """
        if connection.in_atomic_block:
            with connection.cursor() as cursor:
                return job(cursor)
        queued = _Queued(job)
        self._queue.append(queued)
        with self._leading:  # who waited here finds its job done
            if not queued.done:
                time.sleep(0)  # lets those who are ready come aboard
                self._commit([self._queue.popleft() for _ in range(len(self._queue))])
        if queued.error is not None:
            raise queued.error
        return queued.result  # type: ignore[return-value]

    def _commit(self, batch: list[_Queued[Any]]) -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                for queued in batch:
                    queued.result = queued.job(cursor)
        except Exception as error:  # noqa: BLE001  handed to the greenlet that queued the job
            if len(batch) > 1:  # all was rolled back; who is to blame fails alone
                for queued in batch:
                    self._commit([queued])
            else:
                batch[0].error = error
        except BaseException as error:  # this greenlet is being killed
            for queued in batch:
                queued.error = queued.error or error
            raise
        finally:
            for queued in batch:
                queued.done = True
