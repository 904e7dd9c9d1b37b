"""How a server looks up names: in threads, as gevent does, but nobody waits longer than a connection may take.

The system's own lookup cannot be ended; with a server of names that is silent it takes ten seconds and more. So it goes
on in its thread when who asked has left.
"""

from __future__ import annotations

import _socket
from contextlib import suppress
from typing import Any

from gevent import Timeout
from gevent.event import AsyncResult
from gevent.resolver import thread
from gevent.threadpool import ThreadPool

from aipassport import settings

_THREADS = 50  # made when there are so many names to look up at once; 24 kB each


class Resolver(thread.Resolver):
    """gevent's own, in threads that nothing else waits for, such as passwords' hashes.

    Whoever asks for what is being looked up waits for that, so that a silent name takes one thread; no answer is kept.
    """

    def __init__(self, hub: Any = None) -> None:
        super().__init__(hub)
        self.pool = ThreadPool(_THREADS, hub=hub)
        self._under_way: dict[tuple[Any, ...], AsyncResult] = {}

    def getaddrinfo(self, host: Any, port: Any, family: int = 0, kind: int = 0, proto: int = 0, flags: int = 0) -> Any:
        with suppress(_socket.gaierror):  # an address is no name
            return _socket.getaddrinfo(host, port, family, kind, proto, flags | _socket.AI_NUMERICHOST)
        asked = (host, port, family, kind, proto, flags)
        with Timeout(settings.AIPASSPORT_CONNECT_TIMEOUT, TimeoutError("a name was not looked up in time")):
            lookup = self._under_way.get(asked)
            if lookup is None:
                lookup = self.pool.spawn(_socket.getaddrinfo, *asked)  # waits where all threads are taken
                self._under_way[asked] = lookup
                lookup.rawlink(lambda _: self._under_way.pop(asked, None))
            return lookup.get()
