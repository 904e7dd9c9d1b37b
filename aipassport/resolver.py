"""How a server looks up names: in threads, as gevent does, but nobody waits longer than a connection may take.

The system's own lookup cannot be ended; with a server of names that is silent it takes ten seconds and more. So it goes
on in its thread when who asked has left.
"""

from __future__ import annotations

import _socket
from typing import Any

from gevent import Timeout
from gevent.event import AsyncResult
from gevent.resolver import thread
from gevent.threadpool import ThreadPool

from aipassport import settings

_THREADS = 50  # made when there is something to look up


class Resolver(thread.Resolver):
    """gevent's own, in threads that nothing else waits for, such as passwords' hashes.

    Whoever asks for what is being looked up waits for that, so that a silent name takes one thread; no answer is kept.
    """

    def __init__(self, hub: Any = None) -> None:
        super().__init__(hub)
        self.pool = ThreadPool(_THREADS, hub=hub)
        self._under_way: dict[tuple[Any, ...], AsyncResult] = {}

    def getaddrinfo(self, *asked: Any) -> Any:
        with Timeout(settings.AIPASSPORT_CONNECT_TIMEOUT, TimeoutError("a name was not looked up in time")):
            lookup = self._under_way.get(asked)
            if lookup is None:
                lookup = self.pool.spawn(_socket.getaddrinfo, *asked)  # waits where all threads are taken
                self._under_way[asked] = lookup
                lookup.rawlink(lambda _: self._under_way.pop(asked, None))
            return lookup.get()
