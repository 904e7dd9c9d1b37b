"""How work of a few milliseconds in the server's own process stays work of a few milliseconds.

A greenlet runs until it waits. A socket that always has data never makes it wait, and many greenlets that become ready
at the same moment all run before the event loop looks at other sockets. What follows bounds both.
"""

from __future__ import annotations

import threading
import time

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


class Pause:
    """Lets others run if much was done since the event loop last looked at its sockets.

    For a loop over one socket, in its own greenlet: ``queue`` is shared, so that several of them do not add up.
    """

    __slots__ = ("_began", "_iteration", "_queue")

    def __init__(self, queue: threading.Lock = _floods) -> None:
        self._queue = queue
        self._iteration = -1  # of the event loop
        self._began = 0.0

    def __call__(self) -> None:
        if self._is_due():
            with self._queue:
                let_others_run()
            let_others_run()  # the next in the queue gets the lock only now
            self._iteration, self._began = get_hub().loop.iteration, time.monotonic()

    def _is_due(self) -> bool:
        """Whether the present turn of the event loop has taken long since this was first asked in it."""
        if not _served_by_gevent:
            return False
        iteration = get_hub().loop.iteration
        if iteration != self._iteration:
            self._iteration, self._began = iteration, time.monotonic()
            return False
        return time.monotonic() - self._began > _LONG


# Called as a request begins, of all connections. They wait in the order of arrival: many requests at the same moment,
# or many in a row on one connection, would hold up every stream.
begin_request = Pause(threading.Lock())
