"""How work of a few milliseconds in the server's own process stays work of a few milliseconds.

A greenlet runs until it waits. A socket that always has data never makes it wait, and many greenlets that become ready
at the same moment all run before the event loop looks at other sockets. What follows bounds both.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from gevent import get_hub
from gevent.monkey import is_module_patched

_LONG = 0.02  # seconds that a turn of the event loop, or one greenlet in it, may take before others run

# Held while a body is parsed in this process, and until others have run: several at once would add up.
one_at_a_time = threading.Lock()

_floods = threading.Lock()
_served_by_gevent = is_module_patched("time")


def let_others_run() -> None:
    """Let every other greenlet go on. ``sleep(0)`` does not: gevent runs 50 such ones before it looks at sockets."""
    time.sleep(0.000_001)


class _Budget:
    """How long the present turn of the event loop has taken, counted from when this is first asked in the turn."""

    __slots__ = ("_began", "_iteration")

    def __init__(self) -> None:
        self._iteration = -1  # of the event loop
        self._began = 0.0

    def _is_used(self) -> bool:
        if not _served_by_gevent:
            return False
        iteration = get_hub().loop.iteration
        if iteration != self._iteration:
            self._iteration, self._began = iteration, time.monotonic()
            return False
        return time.monotonic() - self._began > _LONG


class Pause(_Budget):
    """Lets others run if much was done since the event loop last looked at its sockets.

    For a loop over one socket, in its own greenlet. All of them wait in one queue, so that several do not add up.
    """

    __slots__ = ()

    def __call__(self) -> None:
        if self._is_used():
            with _floods:
                let_others_run()
            let_others_run()  # the next in the queue gets the lock only now
            self._iteration, self._began = get_hub().loop.iteration, time.monotonic()


class Admittance(_Budget):
    """Lets as many requests begin in one turn of the event loop as the turn has time for, in their order of arrival.

    Many requests at the same moment, or many in a row on one connection, would hold up every stream. A request that
    would overtake a waiting one waits, too: else a client that sends without a pause would be the only one served.
    """

    __slots__ = ("_queue",)

    def __init__(self) -> None:
        super().__init__()
        self._queue: deque[threading.Lock] = deque()

    def __call__(self) -> None:
        if self._queue or self._is_used():
            self._wait()

    def _wait(self) -> None:
        turn = threading.Lock()  # held until this request is the first in the queue
        turn.acquire()
        self._queue.append(turn)
        try:
            if self._queue[0] is not turn:
                turn.acquire()
            while self._is_used():
                let_others_run()
        finally:  # also where the greenlet is killed
            first = self._queue[0] is turn
            self._queue.remove(turn)
            if first and self._queue:
                self._queue[0].release()


begin_request = Admittance()  # called as a request begins, of all connections
