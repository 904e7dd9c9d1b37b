"""The gunicorn worker: gevent's, whose restart does not wait for connections that nobody uses."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any

from gunicorn.workers.ggevent import GeventWorker

_IDLE = 1.0  # seconds; whoever asks more often gets an answer that closes the connection


class Worker(GeventWorker):
    """Once told to go, gevent's waits for every connection to end, up to the graceful timeout. This one ends those that
    have nothing under way, kept alive or never used; what has begun is waited for as before.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: dict[Any, float] = {}  # connections without a request, and since when

    def notify(self) -> None:
        """The heartbeat, once a second until the end."""
        super().notify()
        if not self.alive:
            self._close_idle()

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        self._idle[client] = time.monotonic()
        try:
            super().handle(listener, client, addr)
        finally:
            del self._idle[client]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        del self._idle[sock]
        try:
            super().handle_request(listener_name, req, sock, addr)
        finally:
            self._idle[sock] = time.monotonic()

    def _close_idle(self) -> None:
        """Let them read their end. A request that has arrived by now is still read, and answered."""
        long_ago = time.monotonic() - _IDLE
        for client, since in list(self._idle.items()):
            if since < long_ago:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RD)
